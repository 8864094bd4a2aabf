//! The engine under a consensus engine: replicates an application of `atlas-smr-execution` with openraft.
#![deny(unsafe_code)]

pub mod session;
pub mod snapshot;
pub mod types;

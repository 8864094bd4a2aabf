//! The engine under a consensus engine: replicates an application of `atlas-smr-execution` with openraft.
#![deny(unsafe_code)]

pub mod disk;
pub mod log;
pub mod machine;
pub mod session;
pub mod snapshot;
pub mod storage;
pub mod types;

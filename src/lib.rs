//! The execution engine of a replicated state machine.
#![deny(unsafe_code)]

pub mod app;
pub mod batch;
pub mod error;
pub mod executor;
pub mod metrics;
mod raw;
pub mod reply;
pub mod state;
mod sync;

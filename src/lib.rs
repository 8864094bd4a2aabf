//! The execution engine of a replicated state machine.
#![deny(unsafe_code)]

pub mod app;
mod arena;
pub mod batch;
mod commit;
pub mod error;
pub mod executor;
pub mod metrics;
mod pool;
mod raw;
pub mod reply;
mod resolver;
mod retire;
pub mod state;
mod sync;
mod unit;

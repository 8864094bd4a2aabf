//! The execution engine of a replicated state machine.
#![deny(unsafe_code)]

pub mod app;
mod arena;
pub mod batch;
mod commit;
pub mod error;
#[cfg(not(loom))]
pub mod executor;
#[cfg(not(loom))]
pub mod metrics;
mod pool;
mod raw;
pub mod reply;
mod resolver;
mod retire;
mod schedule;
pub mod state;
mod sync;
mod unit;

/// The engine's parts, for models and benches. No stability is promised.
#[cfg(any(loom, feature = "internals"))]
#[doc(hidden)]
#[allow(missing_docs)]
pub mod internals {
    pub mod arena {
        pub use crate::arena::*;
    }
    pub mod commit {
        pub use crate::commit::*;
    }
    pub mod pool {
        pub use crate::pool::*;
    }
    pub mod raw {
        pub use crate::raw::*;
    }
    pub mod resolver {
        pub use crate::resolver::*;
    }
    pub mod retire {
        pub use crate::retire::*;
    }
    pub mod schedule {
        pub use crate::schedule::*;
    }
    pub mod sync {
        pub use crate::sync::*;
    }
    pub mod unit {
        pub use crate::unit::*;
    }
}

//! The execution engine of a replicated state machine.
//!
//! Consensus hands an executor ordered batches of operations. It runs them on an application's state, on all cores at once,
//! and after every batch the state and every reply are byte-identical to those of the loop over
//! [`Application::update`](app::Application::update): whatever the number of threads, the hash seed or the timing. Replies
//! leave in batch order. A batch that fails is dropped whole, and every later call on the handle says why.
//!
//! ```text
//!  ExecutorHandle ──► queue ──► the executor's thread, for each batch:
//!
//!     pool        all threads take positions, in ascending order,
//!     unit        and run operations ahead of their turn: on the newest retired versions, else on the state;
//!                 what a unit observes is logged, what it writes stays in its thread's arena
//!     retire      in batch order: did the unit see exactly its prefix? accept it, else replay it here and now;
//!     resolver    then its writes become the newest versions
//!     commit      the last value of each touched key ──► state, once; or what was merged into it
//!
//!  replies in batch order ──► reply thread ──► ReplyNode        snapshots ──► checkpoint thread ──► their reader
//! ```
//!
//! A replay happens at the unit's turn, on its exact prefix: it is right, and never repeated. Batches for which running ahead
//! does not pay are run one operation after the other, in place or through units. Nobody can tell from the results.
//!
//! The modules, in the order in which they are best read:
//!
//! | module | what is there |
//! |---|---|
//! | [`batch`] | what comes in: numbered batches of client operations |
//! | [`app`] | what the user writes: a deterministic service |
//! | [`state`] | what it runs on; the built-in state is [`ShardedState`](state::ShardedState) |
//! | [`reply`] | what goes out, and who may send it |
//! | [`executor`] | the four executors: one loop, two engines, two ways for a state to travel |
//! | [`error`], [`metrics`] | what can go wrong; what is counted |
//! | `unit` | one run of one operation: its reads, its writes |
//! | `resolver` | the overlay: retired versions and their stamps |
//! | `retire`, `commit` | the walk in batch order; the one commit pass |
//! | `schedule` | which thread runs which position, and when |
//! | `pool`, `arena` | pinned threads, a job at a time; memory of a batch, per thread |
//! | `raw`, `sync` | all unsafe code, in small safe pieces; all atomics, cells and threads, std's, loom's or shuttle's |
//!
//! Imports go one way: executor -> schedule -> retire, commit -> resolver -> unit -> pool, arena -> app -> reply, state ->
//! raw -> error, metrics -> batch, sync. A module imports only from the rows to the right of its own. `raw` stands below
//! what users see, because `state` commits on several threads with one of its pieces; it knows nothing but `sync` itself.
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
mod schedule;
pub mod state;
mod sync;
mod unit;

#[cfg(doctest)]
#[doc = include_str!("../docs/does-not-compile.md")]
struct DoesNotCompile;

#[cfg(all(doctest, feature = "internals"))]
#[doc = include_str!("../docs/does-not-compile-inside.md")]
struct DoesNotCompileInside;

/// The engine's parts, for models and benches. No stability is promised.
#[cfg(any(loom, shuttle, feature = "internals"))]
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

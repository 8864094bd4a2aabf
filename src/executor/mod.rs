//! The four executors: two engines times two ways for a state to travel, and one loop for all.

mod adaptive;
mod beside;
mod channel;
mod checkpoint;
mod config;
mod divisible;
mod engine;
mod handle;
mod install;
mod joining;
mod message;
mod monolithic;
mod replier;
mod seam;
mod sequential;
mod speculative;
mod start;
mod transfer;
mod worker_loop;

pub use channel::{ChannelSyncRx, ChannelSyncTx, ExecutorEnd, RecvError};
pub use config::{
    ConfigReport, EXECUTING_BUFFER, ExecutionMode, ExecutorConfig, MAX_BUFFER, MAX_STACK, MAX_THREADS,
    REPLY_BUFFER, STATE_BUFFER,
};
pub use divisible::{
    DivisibleChannels, MultiThreadedDivExecutor, SingleThreadedDivExecutor, TDivisibleStateExecutor,
};
pub use handle::ExecutorHandle;
pub use message::{AppState, AppStateMessage, ExecutionRequest, InstallState, InstallStateMessage};
pub use monolithic::{
    MonolithicChannels, MultiThreadedMonExecutor, SingleThreadedMonExecutor, TMonolithicStateExecutor,
};
pub use start::{HandlePair, WorkReceiver};

/// The engines by themselves, for models and benches: no channels, no reply thread.
#[cfg(any(shuttle, feature = "internals"))]
#[doc(hidden)]
pub mod engines {
    pub use super::engine::Engine;
    pub use super::sequential::Sequential;
    pub use super::speculative::Speculative;
}

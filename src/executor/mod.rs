//! The four executors: two engines times two ways for a state to travel, and one loop for all.

mod adaptive;
mod channel;
mod config;
mod engine;
mod handle;
mod message;
mod sequential;
mod speculative;

pub use channel::{ChannelSyncRx, ChannelSyncTx, ExecutorEnd, RecvError};
pub use config::{
    ConfigReport, EXECUTING_BUFFER, ExecutionMode, ExecutorConfig, MAX_THREADS, REPLY_BUFFER, STATE_BUFFER,
};
pub use handle::ExecutorHandle;
pub use message::{AppState, AppStateMessage, ExecutionRequest, InstallState, InstallStateMessage};

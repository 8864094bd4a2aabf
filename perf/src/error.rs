//! What can stop a measurement.

use atlas_smr_execution::error::{ConfigError, Failure, InitError};
use workloads::WorkloadError;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum PerfError {
    /// Settings of an engine or a state.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A workload, or a trace.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// An engine or executor that could not be started.
    #[error(transparent)]
    Init(#[from] InitError),
    /// An engine or executor that failed in the middle.
    #[error("{0}")]
    Failed(#[from] Failure),
    /// An executor that stopped without a cause.
    #[error("an executor stopped before all was executed")]
    Stopped,
    /// A result that is not the sequential loop's.
    #[error("replies or state are not the sequential loop's")]
    Wrong,
    /// Threads of the instrument itself.
    #[error("cannot spawn a thread: {0}")]
    Thread(std::io::Error),
    /// Standard output, or a file of results.
    #[error("output: {0}")]
    Output(#[from] std::io::Error),
    /// The document for `--json`.
    #[error("the report: {0}")]
    Json(#[from] serde_json::Error),
    /// No row has a name like this.
    #[error("no row's name contains `{filter}`; `perf compare --list` shows the names")]
    NoRow { filter: String },
}

impl PerfError {
    /// 2 for what whoever called the program can mend, 1 for all else.
    pub fn exit_code(&self) -> u8 {
        match self {
            PerfError::Config(_) | PerfError::Workload(_) | PerfError::NoRow { .. } => 2,
            _ => 1,
        }
    }
}

//! What can stop the program, and with which exit code.

use std::path::PathBuf;

use atlas_smr_execution::error::{ConfigError, Failure, InitError, QueueError};
use atlas_smr_execution::executor::RecvError;
use atlas_smr_raft::client::ClientError;
use atlas_smr_raft::node::{NodeError, StartError};
use workloads::WorkloadError;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// An executor's settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A workload, or a trace.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// An executor that could not be started.
    #[error("{executor}: {source}")]
    Init { executor: &'static str, source: InitError },
    /// An executor that failed in the middle.
    #[error("{executor}: {source}")]
    Failed { executor: &'static str, source: Failure },
    /// An executor that stopped without a cause.
    #[error("{executor} stopped before all was executed")]
    Stopped { executor: &'static str },
    /// A state that did not come out of an executor in one piece.
    #[error("{executor}: the state at the end: {what}")]
    Checkpoint { executor: &'static str, what: String },
    /// The options contradict each other, or one is missing.
    #[error("{0}")]
    Usage(String),
    /// The file of a node's settings.
    #[error("{}: {what}", path.display())]
    ConfigFile { path: PathBuf, what: String },
    /// A node that did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A node that could not go on.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A client that was not answered.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// An answer that makes no sense.
    #[error("unexpected answer: {0}")]
    Answer(String),
    /// A cluster that did not come up, or did not come to rest.
    #[error("the cluster: {0}")]
    Cluster(String),
    /// Threads, signals or processes.
    #[error("the operating system: {0}")]
    Runtime(std::io::Error),
    /// Standard output.
    #[error("standard output: {0}")]
    Output(#[from] std::io::Error),
    /// The document for `--json`.
    #[error("the report: {0}")]
    Json(#[from] serde_json::Error),
}

impl CliError {
    /// 2 for what whoever called the program can mend, 1 for all else.
    pub fn exit_code(&self) -> u8 {
        match self {
            CliError::Config(_)
            | CliError::Workload(_)
            | CliError::Usage(_)
            | CliError::ConfigFile { .. }
            | CliError::Start(StartError::Config(_) | StartError::TlsFile(_) | StartError::Tls(_))
            | CliError::Client(ClientError::Address(_) | ClientError::Zero(_) | ClientError::Tls(_))
            | CliError::Init { source: InitError::Config(_), .. } => 2,
            _ => 1,
        }
    }

    /// A request that `executor` did not take.
    pub fn queue<T>(executor: &'static str, error: QueueError<T>) -> Self {
        match error {
            QueueError::Failed { cause, .. } => CliError::Failed { executor, source: cause },
            _ => CliError::Stopped { executor },
        }
    }

    /// A message that did not come from `executor`.
    pub fn receive(executor: &'static str, error: RecvError) -> Self {
        match error {
            RecvError::Failed(source) => CliError::Failed { executor, source },
            other => CliError::Checkpoint { executor, what: other.to_string() },
        }
    }
}

//! What can go wrong with the harness itself, or with the cluster beyond what a history shows.

use std::time::Duration;

use atlas_smr_raft::client::ClientError;

use crate::process::ProcessError;
use crate::proxy::NodeId;

/// Why a run could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChaosError {
    /// A process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A client's settings, or an answer that it cannot have.
    #[error("client: {0}")]
    Client(#[from] ClientError),
    /// A file, or a port.
    #[error("{what}: {cause}")]
    Io {
        /// What failed.
        what: String,
        /// Why.
        cause: std::io::Error,
    },
    /// An operation that the store should understand.
    #[error("refused: {0}")]
    Refused(String),
    /// Something that should happen did not.
    #[error("not within {limit:?}: {what}")]
    TooLate {
        /// What.
        what: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// A node ended though nothing was done to it.
    #[error("node {node} ended by itself ({status}): {messages}")]
    Ended {
        /// The node.
        node: NodeId,
        /// Its exit status.
        status: String,
        /// The last that it said.
        messages: String,
    },
    /// A node ended in another way than it should have.
    #[error("node {node} should have ended {expected}, but: {status}: {messages}")]
    EndedWrongly {
        /// The node.
        node: NodeId,
        /// What was to be expected.
        expected: &'static str,
        /// Its exit status.
        status: String,
        /// The last that it said.
        messages: String,
    },
    /// Nodes hold different states.
    #[error("digests differ: {0}")]
    Digests(String),
    /// A scenario did not come about, so that its outcome says nothing.
    #[error("the scenario did not come about: {0}")]
    Missed(String),
}

/// For `map_err`.
pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> ChaosError {
    let what = what.into();
    move |cause| ChaosError::Io { what, cause }
}

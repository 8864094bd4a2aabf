//! What is replicated: the types that openraft is instantiated with.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::snapshot::Snapshot;

openraft::declare_raft_types!(
    /// openraft's types: an entry carries a batch of commands, and is answered by one answer a command.
    pub TypeConfig:
        D = Batch,
        R = Answers,
        NodeId = u64,
        Node = Member,
        SnapshotData = Snapshot,
);

/// The consensus engine.
pub type Raft = openraft::Raft<TypeConfig>;
/// An entry of the log.
pub type Entry = openraft::Entry<TypeConfig>;
/// A place in the log.
pub type LogId = openraft::LogId<u64>;
/// A vote, and whether a quorum granted it.
pub type Vote = openraft::Vote<u64>;
/// The members as of some entry.
pub type StoredMembership = openraft::StoredMembership<u64, Member>;
/// What a snapshot stands for.
pub type SnapshotMeta = openraft::SnapshotMeta<u64, Member>;
/// A failure of the disk or of the executor; it stops the node.
pub type StorageError = openraft::StorageError<u64>;

/// Where a node of the cluster is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// `host:port` that other nodes connect to.
    pub peer_address: String,
    /// `host:port` that clients connect to.
    pub client_address: String,
}

/// One operation of a client.
///
/// A client numbers its operations; one that is sent again under its number is executed once, see [`crate::session`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The client.
    pub client: u64,
    /// The client's number of the operation.
    pub serial: u64,
    /// The encoded request.
    pub operation: Bytes,
}

/// What an entry of the log carries: operations that are executed in this order, as one batch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The run of the process that proposed it. Only that one has clients who wait for the answers; all others execute
    /// the batch without answering.
    pub proposer: u64,
    /// The operations.
    pub commands: Vec<Command>,
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} operations of {:x}", self.commands.len(), self.proposer)
    }
}

/// The answers to a batch, in batch order; none for blank and membership entries, and where nobody waits for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers(pub Vec<Answer>);

/// The answer to one command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It was executed, now or when it came first; the encoded reply.
    Done(Bytes),
    /// A later operation of the client took its slot in the session table: it was executed too long ago for its reply to be
    /// kept, or it never will be.
    Stale,
    /// The bytes are no request of this application.
    Malformed,
    /// The client has used the number for another operation. This one was not executed, and never will be under it.
    NumberTaken,
    /// It was executed, now or when it came first, but its reply is longer than what is kept
    /// ([`MAX_KEPT_REPLY`](crate::session::MAX_KEPT_REPLY)), or than what one call is answered
    /// ([`max_answer_bytes`](crate::config::Limits::max_answer_bytes)).
    ReplyNotKept,
}

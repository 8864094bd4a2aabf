//! What goes through an executor's channels.

use std::time::Instant;

use crate::batch::{MaybeVec, NodeId, SeqNo, UnorderedBatch, UpdateBatch};
use crate::state::DivisibleState;

/// What an executor can be asked to do. Requests are carried out in the order in which they were queued.
#[derive(Clone, Debug)]
pub enum ExecutionRequest<O> {
    /// Install the state whose messages have arrived in the state channel and those that follow, until it is whole.
    /// Returns at once if none has arrived.
    PollStateChannel,
    /// Execute decided batches that this replica missed. Nobody is answered: others did that.
    CatchUp(MaybeVec<UpdateBatch<O>>),
    /// Execute a batch; the instant is when it was decided, for the latency metric.
    Update((UpdateBatch<O>, Instant)),
    /// Execute a batch, then deliver a checkpoint of the state after it. Where the batch is skipped because it was
    /// executed before, the checkpoint is of the state as it is now, and says so in its sequence number.
    UpdateAndGetAppstate((UpdateBatch<O>, Instant)),
    /// Answer read-only requests.
    ExecuteUnordered(UnorderedBatch<O>),
    /// Deliver the state as of the last executed batch to this node, through the checkpoint channel.
    Read(NodeId),
}

/// A state, or a piece of one, on its way out: a checkpoint, or the answer to [`ExecutionRequest::Read`].
#[derive(Clone, Debug)]
pub struct AppStateMessage<T> {
    seq: SeqNo,
    to: Option<NodeId>,
    state: T,
}

impl<T> AppStateMessage<T> {
    /// The state (or piece) `state` as of batch `seq`, for node `to` or for checkpointing.
    pub fn new(seq: SeqNo, to: Option<NodeId>, state: T) -> Self {
        AppStateMessage { seq, to, state }
    }

    /// The last batch that the state contains.
    pub fn sequence_number(&self) -> SeqNo {
        self.seq
    }

    /// The node that asked for it; `None` for a checkpoint.
    pub fn to(&self) -> Option<NodeId> {
        self.to
    }

    /// The state, or the piece of it.
    pub fn state(&self) -> &T {
        &self.state
    }

    /// The state, or the piece of it.
    pub fn into_state(self) -> T {
        self.state
    }
}

/// A state, or a piece of one, on its way in. Execution goes on after its sequence number.
#[derive(Clone, Debug)]
pub struct InstallStateMessage<T> {
    seq: SeqNo,
    state: T,
}

impl<T> InstallStateMessage<T> {
    /// The state (or piece) `state`, which contains all batches up to `seq`.
    pub fn new(seq: SeqNo, state: T) -> Self {
        InstallStateMessage { seq, state }
    }

    /// The last batch that the state contains.
    pub fn sequence_number(&self) -> SeqNo {
        self.seq
    }

    /// The state, or the piece of it.
    pub fn state(&self) -> &T {
        &self.state
    }

    /// `(sequence number, state)`.
    pub fn into_inner(self) -> (SeqNo, T) {
        (self.seq, self.state)
    }
}

/// A piece of a divisible state's checkpoint. Comes as: descriptor, parts that changed, done.
///
/// The pieces of one checkpoint come without any other's between them. One that is cut off, because the executor
/// stopped or the state failed, has no `Done`.
#[derive(Clone, Debug)]
pub enum AppState<S: DivisibleState> {
    /// Names every part of the state.
    StateDescriptor(S::StateDescriptor),
    /// Parts that changed since the last checkpoint that was delivered to its end (all of them for a `Read`).
    StatePart(MaybeVec<S::StatePart>),
    /// The checkpoint is complete.
    Done,
}

/// A piece of a divisible state to install. Comes as: descriptor, parts in any order, done.
#[derive(Clone, Debug)]
pub enum InstallState<S: DivisibleState> {
    /// Names every part of the state. Starts an installation, and abandons one that is under way.
    StateDescriptor(S::StateDescriptor),
    /// Parts of it. Parts that the replica already has need not come; parts may come twice.
    StatePart(MaybeVec<S::StatePart>),
    /// All parts were sent.
    Done,
}

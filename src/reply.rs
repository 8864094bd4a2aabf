//! What goes out: replies in batch order, and who may send them.

use crate::batch::{NodeId, SeqNo, Update};
use crate::error::BoxError;

/// The answer to one request, addressed to its sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateReply<R> {
    to: NodeId,
    session_id: SeqNo,
    operation_id: SeqNo,
    payload: R,
}

impl<R> UpdateReply<R> {
    /// The answer `payload` to request `operation_id` of session `session_id` of client `to`.
    pub fn new(to: NodeId, session_id: SeqNo, operation_id: SeqNo, payload: R) -> Self {
        UpdateReply { to, session_id, operation_id, payload }
    }

    /// The answer `payload` to `request`.
    pub fn to_request<O>(request: &Update<O>, payload: R) -> Self {
        Self::new(request.from(), request.session_id(), request.operation_id(), payload)
    }

    /// The client that asked.
    pub fn to(&self) -> NodeId {
        self.to
    }

    /// The session that the client asked in.
    pub fn session_id(&self) -> SeqNo {
        self.session_id
    }

    /// The client's number of the request.
    pub fn operation_id(&self) -> SeqNo {
        self.operation_id
    }

    /// The answer.
    pub fn payload(&self) -> &R {
        &self.payload
    }

    /// The answer without its address.
    pub fn into_payload(self) -> R {
        self.payload
    }
}

/// The replies to a batch, in batch order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchReplies<R> {
    replies: Vec<UpdateReply<R>>,
}

impl<R> BatchReplies<R> {
    /// Room for `capacity` replies.
    pub fn with_capacity(capacity: usize) -> Self {
        BatchReplies { replies: Vec::with_capacity(capacity) }
    }

    /// Appends the next reply in batch order.
    pub fn push(&mut self, reply: UpdateReply<R>) {
        self.replies.push(reply);
    }

    /// Appends the answer `payload` to request `operation_id` of session `session_id` of client `to`.
    pub fn add(&mut self, to: NodeId, session_id: SeqNo, operation_id: SeqNo, payload: R) {
        self.push(UpdateReply::new(to, session_id, operation_id, payload));
    }

    /// Number of replies.
    pub fn len(&self) -> usize {
        self.replies.len()
    }

    /// True if there is no reply.
    pub fn is_empty(&self) -> bool {
        self.replies.is_empty()
    }

    /// The replies in batch order.
    pub fn replies(&self) -> &[UpdateReply<R>] {
        &self.replies
    }

    /// The replies in batch order.
    pub fn into_inner(self) -> Vec<UpdateReply<R>> {
        self.replies
    }
}

impl<R> Default for BatchReplies<R> {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

impl<R> From<Vec<UpdateReply<R>>> for BatchReplies<R> {
    fn from(replies: Vec<UpdateReply<R>>) -> Self {
        BatchReplies { replies }
    }
}

/// Whether a request took a place in the total order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestType {
    /// Part of an ordered batch.
    Ordered,
    /// Read-only, outside the order.
    Unordered,
}

/// The user's network, as far as replies go.
pub trait ReplyNode<R>: Send + Sync + 'static {
    /// Sends `reply` to the client `reply.to()`.
    ///
    /// Called from one thread, in batch order. `flush` is set on the last reply of a run of replies to one client:
    /// what was buffered for it should leave now. It may block: then execution waits once its queue of replies is full. It must
    /// [not wait for its own executor](crate::app::Application#deadlocks).
    ///
    /// # Errors
    ///
    /// A reply that cannot be sent. It is logged and counted; the other replies are sent all the same.
    ///
    /// # Panics
    ///
    /// A panic stops the executor with [`Failure::ReplyNodePanicked`](crate::error::Failure::ReplyNodePanicked).
    fn send(&self, kind: RequestType, reply: UpdateReply<R>, flush: bool) -> Result<(), BoxError>;
}

/// Which requests a node answers. Decides at compile time; see [`ReplicaReplier`] and [`FollowerReplier`].
pub trait ExecutorReplier: Send + 'static {
    /// True if the node answers requests of this kind.
    fn answers(kind: RequestType) -> bool;
}

/// Answers ordered and unordered requests: a member of the quorum.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReplicaReplier;

impl ExecutorReplier for ReplicaReplier {
    fn answers(_kind: RequestType) -> bool {
        true
    }
}

/// Answers unordered requests only: a node that follows the order without deciding it.
#[derive(Clone, Copy, Debug, Default)]
pub struct FollowerReplier;

impl ExecutorReplier for FollowerReplier {
    fn answers(kind: RequestType) -> bool {
        kind == RequestType::Unordered
    }
}

//! What comes in: numbered batches of client operations.

use std::fmt;

/// Position of a batch in the total order that consensus decided.
///
/// Batches reach an executor with strictly increasing sequence numbers; gaps are legal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeqNo(pub u64);

impl SeqNo {
    /// "Nothing executed yet": below every batch that is executed.
    pub const ZERO: SeqNo = SeqNo(0);

    /// The sequence number after this one.
    #[must_use]
    pub fn next(self) -> SeqNo {
        SeqNo(self.0 + 1)
    }
}

impl From<u64> for SeqNo {
    fn from(n: u64) -> Self {
        SeqNo(n)
    }
}

impl fmt::Display for SeqNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A node of the system: a client to answer, or a replica that asks for the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

impl From<u32> for NodeId {
    fn from(n: u32) -> Self {
        NodeId(n)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One client request inside a batch, with what is needed to answer it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update<O> {
    from: NodeId,
    session_id: SeqNo,
    operation_id: SeqNo,
    operation: O,
}

impl<O> Update<O> {
    /// The request `operation` of client `from`, which it numbered `operation_id` in its session `session_id`.
    pub fn new(from: NodeId, session_id: SeqNo, operation_id: SeqNo, operation: O) -> Self {
        Update { from, session_id, operation_id, operation }
    }

    /// The client to answer.
    pub fn from(&self) -> NodeId {
        self.from
    }

    /// The client's session.
    pub fn session_id(&self) -> SeqNo {
        self.session_id
    }

    /// The client's number of this request inside its session.
    pub fn operation_id(&self) -> SeqNo {
        self.operation_id
    }

    /// What the client wants done.
    pub fn operation(&self) -> &O {
        &self.operation
    }

    /// Gives up the envelope and keeps the request.
    pub fn into_operation(self) -> O {
        self.operation
    }

    /// `(from, session_id, operation_id, operation)`.
    pub fn into_inner(self) -> (NodeId, SeqNo, SeqNo, O) {
        (self.from, self.session_id, self.operation_id, self.operation)
    }
}

/// An ordered batch: its operations take effect as if executed one by one, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateBatch<O> {
    seq_no: SeqNo,
    updates: Vec<Update<O>>,
}

impl<O> UpdateBatch<O> {
    /// An empty batch with this sequence number.
    pub fn new(seq_no: SeqNo) -> Self {
        Self::from_updates(seq_no, Vec::new())
    }

    /// An empty batch with room for `capacity` operations.
    pub fn with_capacity(seq_no: SeqNo, capacity: usize) -> Self {
        Self::from_updates(seq_no, Vec::with_capacity(capacity))
    }

    /// A batch of these operations, in this order.
    pub fn from_updates(seq_no: SeqNo, updates: Vec<Update<O>>) -> Self {
        UpdateBatch { seq_no, updates }
    }

    /// Appends a request.
    pub fn add(&mut self, from: NodeId, session_id: SeqNo, operation_id: SeqNo, operation: O) {
        self.updates.push(Update::new(from, session_id, operation_id, operation));
    }

    /// The batch's place in the total order.
    pub fn sequence_number(&self) -> SeqNo {
        self.seq_no
    }

    /// Number of operations.
    pub fn len(&self) -> usize {
        self.updates.len()
    }

    /// True if the batch has no operations; it still counts as executed.
    pub fn is_empty(&self) -> bool {
        self.updates.is_empty()
    }

    /// The operations in batch order.
    pub fn updates(&self) -> &[Update<O>] {
        &self.updates
    }

    /// The operations in batch order.
    pub fn into_updates(self) -> Vec<Update<O>> {
        self.updates
    }

    pub(crate) fn updates_mut(&mut self) -> &mut Vec<Update<O>> {
        &mut self.updates
    }
}

/// Read-only requests that take no place in the total order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnorderedBatch<O> {
    requests: Vec<Update<O>>,
}

impl<O> UnorderedBatch<O> {
    /// An empty batch.
    pub fn new() -> Self {
        Self::from_requests(Vec::new())
    }

    /// A batch of these requests; replies keep their order.
    pub fn from_requests(requests: Vec<Update<O>>) -> Self {
        UnorderedBatch { requests }
    }

    /// Appends a request.
    pub fn add(&mut self, from: NodeId, session_id: SeqNo, operation_id: SeqNo, operation: O) {
        self.requests.push(Update::new(from, session_id, operation_id, operation));
    }

    /// Number of requests.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// True if there is no request.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// The requests.
    pub fn requests(&self) -> &[Update<O>] {
        &self.requests
    }

    /// The requests.
    pub fn into_requests(self) -> Vec<Update<O>> {
        self.requests
    }
}

impl<O> Default for UnorderedBatch<O> {
    fn default() -> Self {
        Self::new()
    }
}

/// One value or several, without a heap allocation for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MaybeVec<T> {
    /// One value.
    One(T),
    /// Any number of values.
    Several(Vec<T>),
}

impl<T> MaybeVec<T> {
    /// The values in order.
    pub fn as_slice(&self) -> &[T] {
        match self {
            MaybeVec::One(value) => std::slice::from_ref(value),
            MaybeVec::Several(values) => values,
        }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// True if there is no value.
    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }
}

impl<T> From<T> for MaybeVec<T> {
    fn from(value: T) -> Self {
        MaybeVec::One(value)
    }
}

impl<T> From<Vec<T>> for MaybeVec<T> {
    fn from(values: Vec<T>) -> Self {
        MaybeVec::Several(values)
    }
}

impl<T> IntoIterator for MaybeVec<T> {
    type Item = T;
    type IntoIter = std::iter::Chain<std::option::IntoIter<T>, std::vec::IntoIter<T>>;

    fn into_iter(self) -> Self::IntoIter {
        let (one, several) = match self {
            MaybeVec::One(value) => (Some(value), Vec::new()),
            MaybeVec::Several(values) => (None, values),
        };
        one.into_iter().chain(several)
    }
}

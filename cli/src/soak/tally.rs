//! The network of an executor that soaks: it counts, and folds replies into a digest.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use atlas_smr_execution::error::BoxError;
use atlas_smr_execution::reply::{ReplyNode, RequestType, UpdateReply};
use workloads::ReplyDigest;

/// What has come back since it was last reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// The number that the next operation must have.
    pub next: u64,
    /// True if all had the number that was next.
    pub orderly: bool,
    /// Of the replies to ordered operations.
    pub replies: ReplyDigest,
    /// Replies to unordered ones.
    pub unordered: u64,
}

/// Counts what comes back.
#[derive(Debug)]
pub struct Tally {
    count: Mutex<Count>,
    changed: Condvar,
}

impl Tally {
    pub fn new() -> Self {
        Tally { count: Mutex::new(Self::from(0)), changed: Condvar::new() }
    }

    fn from(next: u64) -> Count {
        Count { next, orderly: true, replies: ReplyDigest::new(), unordered: 0 }
    }

    fn lock(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins anew; the next operation is number `next`.
    pub fn reset(&self, next: u64) {
        *self.lock() = Self::from(next);
    }

    /// What has come back, once that is all up to operation `next` and `unordered` others; `None` if it is not after
    /// `timeout`.
    pub fn wait(&self, next: u64, unordered: u64, timeout: Duration) -> Option<Count> {
        let lacks = |count: &mut Count| count.next < next || count.unordered < unordered;
        let waited = self.changed.wait_timeout_while(self.lock(), timeout, lacks);
        let (count, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        (!waited.timed_out()).then_some(*count)
    }
}

impl ReplyNode<u64> for Tally {
    fn send(&self, kind: RequestType, reply: UpdateReply<u64>, flush: bool) -> Result<(), BoxError> {
        let mut count = self.lock();
        match kind {
            RequestType::Unordered => count.unordered += 1,
            RequestType::Ordered => {
                count.orderly &= reply.operation_id().0 == count.next;
                count.next += 1;
                count.replies.push(*reply.payload());
            }
        }
        drop(count);
        if flush {
            self.changed.notify_one();
        }
        Ok(())
    }
}

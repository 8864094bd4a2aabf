//! The replica's network, as far as this program needs one: takes replies, and notices when a batch is complete.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use atlas_smr_execution::error::BoxError;
use atlas_smr_execution::reply::{ReplyNode, RequestType, UpdateReply};
use hdrhistogram::Histogram;
use workloads::ReplyDigest;

/// Folds replies into their digest, in the order in which they come, and times batches.
///
/// The atomics are written by the reply thread alone, and read by others only after the lock was released that the
/// last reply took: Relaxed is enough.
#[derive(Debug)]
pub struct Recorder {
    digest: AtomicU64,
    next: AtomicU64,
    orderly: AtomicBool,
    /// Replies that the current batch still lacks.
    lacking: AtomicU64,
    batches: Mutex<Batches>,
    completed: Condvar,
}

#[derive(Debug)]
struct Batches {
    /// When each batch on its way was queued, and its size.
    under_way: VecDeque<(Instant, u64)>,
    latency: Histogram<u64>,
    last: Option<Instant>,
}

/// What came back in a whole run.
#[derive(Debug)]
pub struct Recorded {
    /// Digest of all replies.
    pub replies: ReplyDigest,
    /// Replies that came.
    pub count: u64,
    /// True if every reply came in the order of the requests.
    pub orderly: bool,
    /// From queueing a batch to its last reply, in nanoseconds.
    pub latency: Histogram<u64>,
    /// When the last reply came.
    pub last: Option<Instant>,
}

impl Recorder {
    pub fn new() -> Self {
        // One nanosecond to an hour, three significant digits. The bounds are constants within what is possible.
        let latency = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("constant bounds");
        Recorder {
            digest: AtomicU64::new(0),
            next: AtomicU64::new(0),
            orderly: AtomicBool::new(true),
            lacking: AtomicU64::new(0),
            batches: Mutex::new(Batches { under_way: VecDeque::new(), latency, last: None }),
            completed: Condvar::new(),
        }
    }

    fn batches(&self) -> MutexGuard<'_, Batches> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch of `size` operations is about to be queued. Empty ones have no replies to wait for.
    pub fn queueing(&self, size: usize) {
        if size > 0 {
            self.batches().under_way.push_back((Instant::now(), size as u64));
        }
    }

    /// Waits until at most `limit` batches are under way, but no longer than `timeout`; true if it is so.
    pub fn wait(&self, limit: usize, timeout: Duration) -> bool {
        let batches = self.batches();
        let waited = self.completed.wait_timeout_while(batches, timeout, |b| b.under_way.len() > limit);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// What came back. Call it when nothing is under way.
    pub fn recorded(&self) -> Recorded {
        let batches = self.batches();
        Recorded {
            replies: ReplyDigest::from_value(self.digest.load(Ordering::Relaxed)),
            count: self.next.load(Ordering::Relaxed),
            orderly: self.orderly.load(Ordering::Relaxed),
            latency: batches.latency.clone(),
            last: batches.last,
        }
    }

    /// The last reply of the oldest batch has come.
    fn complete(&self) {
        let now = Instant::now();
        let mut batches = self.batches();
        if let Some((queued, _)) = batches.under_way.pop_front() {
            let ns = u64::try_from(now.duration_since(queued).as_nanos()).unwrap_or(u64::MAX);
            batches.latency.saturating_record(ns.max(1));
        }
        batches.last = Some(now);
        drop(batches);
        self.completed.notify_one();
    }
}

impl ReplyNode<u64> for Recorder {
    fn send(&self, _kind: RequestType, reply: UpdateReply<u64>, _flush: bool) -> Result<(), BoxError> {
        let mut digest = ReplyDigest::from_value(self.digest.load(Ordering::Relaxed));
        digest.push(*reply.payload());
        self.digest.store(digest.value(), Ordering::Relaxed);

        let next = self.next.load(Ordering::Relaxed);
        if reply.operation_id().0 != next {
            self.orderly.store(false, Ordering::Relaxed);
        }
        self.next.store(next + 1, Ordering::Relaxed);

        let mut lacking = self.lacking.load(Ordering::Relaxed);
        if lacking == 0 {
            let front = self.batches().under_way.front().map(|&(_, size)| size);
            lacking = front.ok_or("a reply that nothing was asked for")?;
        }
        self.lacking.store(lacking - 1, Ordering::Relaxed);
        if lacking == 1 {
            self.complete();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atlas_smr_execution::batch::{NodeId, SeqNo};

    fn send(recorder: &Recorder, id: u64, reply: u64) -> Result<(), BoxError> {
        let reply = UpdateReply::new(NodeId(0), SeqNo(1), SeqNo(id), reply);
        recorder.send(RequestType::Ordered, reply, false)
    }

    #[test]
    fn a_batch_is_complete_with_its_last_reply() {
        let recorder = Recorder::new();
        recorder.queueing(2);
        recorder.queueing(0);
        recorder.queueing(1);
        let pending = |limit| !recorder.wait(limit, Duration::ZERO);
        send(&recorder, 0, 5).expect("asked for");
        assert!(pending(1));
        send(&recorder, 1, 6).expect("asked for");
        assert!(!pending(1) && pending(0));
        send(&recorder, 2, 7).expect("asked for");
        assert!(!pending(0));
        let recorded = recorder.recorded();
        assert!(recorded.orderly);
        assert_eq!((recorded.count, recorded.latency.len()), (3, 2));
        assert!(send(&recorder, 3, 8).is_err(), "nothing was asked for");
    }

    #[test]
    fn disorder_is_noticed() {
        let recorder = Recorder::new();
        recorder.queueing(2);
        send(&recorder, 1, 5).expect("asked for");
        send(&recorder, 0, 5).expect("asked for");
        assert!(!recorder.recorded().orderly);
    }
}

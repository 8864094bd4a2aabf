//! Batches that wait, joined: executed, committed and answered together.
//!
//! A batch costs something that does not depend on its length: waking workers, a thread that idles at its end, a commit, clock
//! readings, a message to the reply thread, which has to be woken. Where batches come faster than they are executed, several
//! wait; then the executor takes with a batch what waits behind it. If its engine says that this pays, it executes them as
//! one (group commit, as databases call it): state and replies are the same however many are joined. Otherwise it executes them one
//! by one. They are answered together in any case.
//!
//! Batches are executed as one only as long as all goes well. If an operation fails, nothing has been committed, and they are
//! executed again one by one: those before the failing one are committed and answered, and the failure tells which one it was.
//! Whatever stands between two batches keeps them apart: reads, checkpoints, installations.

use std::time::{Duration, Instant};

use super::engine::{Engine, Limit, Unjoined};
use super::message::ExecutionRequest;
use super::transfer::Transfer;
use super::worker_loop::Executor;
use crate::app::{Application, Reply, Request};
use crate::batch::{MaybeVec, SeqNo, Update, UpdateBatch};
use crate::error::Failure;
use crate::metrics::{Counter, Timer};
use crate::reply::{BatchReplies, RequestType};

/// No more batches than these are taken out of the queue and not executed yet.
const MOST: usize = 64;
/// No more operations than these are joined before it is known what they take.
const UNKNOWN: usize = 16;
/// The weight of the newest measurement.
const WEIGHT: f64 = 0.25;

/// A batch that waits.
struct Part<O> {
    batch: UpdateBatch<O>,
    /// When it was decided; `None` if nobody is to be answered.
    decided: Option<Instant>,
    operations: usize,
}

/// Consecutive batches that are executed next.
pub(super) struct Joined<O> {
    limit: Limit,
    /// What executing an operation has taken lately, on all threads together; `None` if that is not known.
    operation_ns: Option<f64>,
    parts: Vec<Part<O>>,
    operations: usize,
    /// The operations of all, while they are executed as one; its memory is kept.
    together: Vec<Update<O>>,
}

impl<O> Joined<O> {
    /// None yet, and never more than `limit` says.
    pub(super) fn new(limit: Limit) -> Self {
        Joined { limit, operation_ns: None, parts: Vec::new(), operations: 0, together: Vec::new() }
    }

    /// Takes in how long it took to execute so many operations.
    pub(super) fn took(&mut self, operations: usize, took: Duration) {
        // In a model no time passes, and every run of it has to be the same.
        if operations > 0 && !cfg!(any(loom, shuttle)) {
            let ns = took.as_nanos() as f64 / operations as f64;
            self.operation_ns =
                Some(self.operation_ns.map_or(ns, |average| average + WEIGHT * (ns - average)));
        }
    }

    /// How many operations they may have.
    fn most(&self) -> usize {
        let in_time = self.limit.time.map_or(usize::MAX, |time| {
            self.operation_ns.map_or(UNKNOWN, |ns| (time.as_nanos() as f64 / ns) as usize)
        });
        in_time.min(self.limit.operations)
    }

    fn push(&mut self, batch: UpdateBatch<O>, decided: Option<Instant>) {
        let operations = batch.len();
        self.operations += operations;
        self.parts.push(Part { batch, decided, operations });
    }

    /// True if they are to be answered.
    fn are_decided(&self) -> bool {
        self.parts.iter().all(|part| part.decided.is_some())
    }

    fn last(&self) -> SeqNo {
        self.parts.last().map_or(SeqNo::ZERO, |part| part.batch.sequence_number())
    }

    /// True if `batch` may be the next one, and all together have `most` operations at most.
    fn takes(&self, batch: &UpdateBatch<O>, most: usize) -> bool {
        let fits = self.parts.len() < MOST && batch.len() <= most.saturating_sub(self.operations);
        fits && batch.sequence_number() > self.last()
    }

    /// All as one batch, under the number of the last one.
    fn join(&mut self) -> UpdateBatch<O> {
        let mut together = std::mem::take(&mut self.together);
        self.parts.iter_mut().for_each(|part| together.append(part.batch.updates_mut()));
        UpdateBatch::from_updates(self.last(), together)
    }

    /// The opposite of [`join`](Joined::join).
    fn part(&mut self, batch: UpdateBatch<O>) {
        self.together = batch.into_updates();
        let mut updates = self.together.drain(..);
        for part in &mut self.parts {
            part.batch.updates_mut().extend(updates.by_ref().take(part.operations));
        }
    }
}

impl<A, S, E, T> Executor<A, S, E, T>
where
    A: Application<S>,
    E: Engine<A, S>,
    T: Transfer<S>,
{
    /// Executes a batch, and with it those that wait behind it, where that pays.
    pub(super) fn update(
        &mut self,
        batch: UpdateBatch<Request<A, S>>,
        decided: Instant,
    ) -> Result<(), Failure> {
        let most = self.most_joined(&batch);
        if batch.len() >= most || self.deferred.len() + self.work.inner.len() == 0 {
            return self.update_alone(batch, Some(decided));
        }
        self.joined.push(batch, Some(decided));
        while let Some(request) = self.deferred.pop_front().or_else(|| self.work.inner.try_recv().ok()) {
            match request {
                ExecutionRequest::Update((batch, decided)) if self.joined.takes(&batch, most) => {
                    self.joined.push(batch, Some(decided));
                }
                request => {
                    self.deferred.push_front(request);
                    break;
                }
            }
        }
        self.execute_joined()
    }

    /// Executes batches that nobody is to be answered for.
    pub(super) fn catch_up(&mut self, batches: MaybeVec<UpdateBatch<Request<A, S>>>) -> Result<(), Failure> {
        let mut batches = batches.into_iter().peekable();
        while let Some(batch) = batches.next() {
            let most = self.most_joined(&batch);
            if batch.len() >= most {
                self.update_alone(batch, None)?;
                continue;
            }
            self.joined.push(batch, None);
            while let Some(batch) = batches.next_if(|batch| self.joined.takes(batch, most)) {
                self.joined.push(batch, None);
            }
            self.execute_joined()?;
        }
        Ok(())
    }

    /// How many operations `batch` and others may have together; 0 if it is to be executed by itself.
    fn most_joined(&self, batch: &UpdateBatch<Request<A, S>>) -> usize {
        let is_next = self.missing.is_empty() && self.last.is_none_or(|last| batch.sequence_number() > last);
        if is_next { self.joined.most() } else { 0 }
    }

    /// Executes the batches that have been taken, as one or one by one, and answers them together.
    fn execute_joined(&mut self) -> Result<(), Failure> {
        let (batches, operations) = (self.joined.parts.len(), self.joined.operations);
        if batches == 1 {
            self.joined.operations = 0;
            let part = self.joined.parts.pop();
            return part.map_or(Ok(()), |part| self.update_alone(part.batch, part.decided));
        }
        let together = self.engine.joins(operations);
        let start = Instant::now();
        let done = if together { self.execute_as_one()? } else { None };
        let (replies, failure) = match done {
            Some(replies) => (MaybeVec::One(replies), None),
            None => self.execute_one_by_one(),
        };
        let end = self.life.metrics.record_since(Timer::Execution, start);
        let took = end.saturating_duration_since(start);
        if failure.is_none() && !together {
            self.engine.executed_apart(operations, took);
        }
        self.finish(replies, end, took)?;
        failure.map_or(Ok(()), Err)
    }

    /// Executes the batches that have been taken as one; `None` if that is to be done one by one instead, and nothing has been
    /// done.
    fn execute_as_one(&mut self) -> Result<Option<BatchReplies<Reply<A, S>>>, Failure> {
        let mut batch = self.joined.join();
        let (seq, batches) = (batch.sequence_number(), self.joined.parts.len() as u64);
        let decided = self.joined.are_decided();
        let executed = self.beside(seq, decided, |engine, app, state, aside| {
            engine.execute_joined(app, state, &mut batch, batches, aside)
        })?;
        match executed {
            Ok(replies) => {
                self.joined.together = batch.into_updates();
                Ok(Some(replies))
            }
            Err(Unjoined::Failed(failure)) => Err(failure),
            Err(Unjoined::Apart) => {
                self.joined.part(batch);
                Ok(None)
            }
        }
    }

    /// Executes the batches that have been taken one by one, up to one that fails, and forgets those from there on. Replies to the
    /// others.
    fn execute_one_by_one(&mut self) -> (MaybeVec<BatchReplies<Reply<A, S>>>, Option<Failure>) {
        let decided = self.joined.are_decided();
        let mut parts = std::mem::take(&mut self.joined.parts);
        let (mut replies, mut failure) = (Vec::with_capacity(parts.len()), None);
        for part in &mut parts {
            let seq = part.batch.sequence_number();
            let batch = std::mem::replace(&mut part.batch, UpdateBatch::new(seq));
            let executed = self
                .beside(seq, decided, |engine, app, state, aside| engine.execute(app, state, batch, aside));
            match executed.and_then(|executed| executed) {
                Ok(executed) => replies.push(executed),
                Err(cause) => {
                    failure = Some(cause);
                    break;
                }
            }
        }
        parts.truncate(replies.len());
        self.joined.parts = parts;
        (MaybeVec::Several(replies), failure)
    }

    /// Records that the batches that have been taken are executed, and answers them.
    fn finish(
        &mut self,
        replies: MaybeVec<BatchReplies<Reply<A, S>>>,
        end: Instant,
        took: Duration,
    ) -> Result<(), Failure> {
        let (batches, decided) = (self.joined.parts.len(), self.joined.are_decided());
        if batches == 0 {
            return Ok(());
        }
        let metrics = &self.life.metrics;
        for decided in self.joined.parts.iter().filter_map(|part| part.decided) {
            metrics.record(Timer::Latency, end.saturating_duration_since(decided));
        }
        metrics.add_alone(Counter::joined_batches, batches as u64);
        let (seq, operations) = (self.joined.last(), replies.as_slice().iter().map(BatchReplies::len).sum());
        self.executed(seq, batches, operations, took);
        self.reached(seq);
        self.joined.parts.clear();
        self.joined.operations = 0;
        if decided { self.reply(RequestType::Ordered, replies, end) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::NodeId;

    fn batch(seq: u64, operations: std::ops::Range<u64>) -> UpdateBatch<u64> {
        let mut batch = UpdateBatch::new(SeqNo(seq));
        operations.for_each(|operation| batch.add(NodeId(1), SeqNo(2), SeqNo(operation), operation));
        batch
    }

    fn joined(limit: Limit) -> Joined<u64> {
        let mut joined = Joined::new(limit);
        for batch in [batch(3, 0..2), batch(5, 0..0), batch(6, 2..7)] {
            joined.push(batch, None);
        }
        joined
    }

    #[test]
    fn what_is_joined_comes_apart_again() {
        let mut joined = joined(Limit::default());
        for _ in 0..2 {
            let one = joined.join();
            assert_eq!(one, batch(6, 0..7));
            assert!(joined.parts.iter().all(|part| part.batch.is_empty()));
            joined.part(one);
            let parts: Vec<_> = joined.parts.iter().map(|part| part.batch.clone()).collect();
            assert_eq!(parts, [batch(3, 0..2), batch(5, 0..0), batch(6, 2..7)]);
        }
    }

    #[test]
    fn only_what_follows_and_fits_is_taken() {
        let joined = joined(Limit::default());
        assert!(joined.takes(&batch(7, 0..3), 10) && !joined.takes(&batch(7, 0..4), 10));
        assert!(!joined.takes(&batch(6, 0..1), 10), "it is there already");
        assert!(!joined.takes(&batch(7, 0..1), 5), "there are too many already");
        let mut full = Joined::new(Limit::default());
        (1..=MOST as u64).for_each(|seq| full.push(batch(seq, 0..0), None));
        assert!(!full.takes(&batch(1000, 0..0), 10));
    }

    #[test]
    fn the_longer_operations_take_the_fewer_are_joined() {
        let mut joined = joined(Limit { operations: 1000, time: Some(Duration::from_micros(100)) });
        assert_eq!(joined.most(), UNKNOWN);
        joined.took(100, Duration::from_micros(100));
        assert_eq!(joined.most(), 100);
        joined.took(0, Duration::from_secs(100));
        assert_eq!(joined.most(), 100, "an empty batch says nothing");
        (0..50).for_each(|_| joined.took(100, Duration::from_micros(1)));
        assert_eq!(joined.most(), 1000);
        (0..50).for_each(|_| joined.took(1, Duration::from_millis(1)));
        assert_eq!(joined.most(), 0);
    }

    #[test]
    fn without_a_time_nothing_but_operations_count() {
        let mut joined = joined(Limit { operations: 1000, time: None });
        joined.took(1, Duration::from_secs(1));
        assert_eq!(joined.most(), 1000);
    }
}

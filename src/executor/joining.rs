//! Batches that wait, joined: executed, committed and answered together.
//!
//! A batch costs something that does not depend on its length: waking workers, a thread that idles at its end, a commit, clock
//! readings, a message to the reply thread, which has to be woken. Where batches come faster than they are executed, several
//! wait; then the executor takes with a batch what waits behind it. If its engine says that this pays, it executes them as
//! one, with one commit (group commit, as databases call it): state and replies are the same however many are joined. Otherwise it
//! executes them one by one. They are answered together in any case, unless that takes too long.
//!
//! Batches are executed as one only as long as all goes well. If an operation or the commit fails, nothing has been done, and
//! they are executed one by one: those before the failing one are committed and answered, and the failure tells which one it was.
//! Only a request that panics when it is dropped is found after the commit: then the executor ends with all of them executed.
//! Whatever stands between two batches keeps them apart: reads, checkpoints, installations.
//!
//! Unordered requests that are answered beside one of several may see the effect of those before it, which are answered soon.

use std::collections::VecDeque;
use std::iter::Peekable;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::engine::{Engine, Limit, Unjoined};
use super::message::ExecutionRequest;
use super::transfer::Transfer;
use super::worker_loop::Executor;
use crate::app::{Application, Reply, Request};
use crate::batch::{MaybeVec, SeqNo, Update, UpdateBatch};
use crate::error::{Failure, Text, caught};
use crate::metrics::{Counter, Timer};
use crate::reply::{BatchReplies, RequestType};

/// No more batches than these are taken together.
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
    parts: VecDeque<Part<O>>,
    operations: usize,
    /// The operations of all, while they are executed as one; its memory is kept.
    together: Vec<Update<O>>,
}

impl<O> Joined<O> {
    /// None yet, and never more than `limit` says.
    pub(super) fn new(limit: Limit) -> Self {
        Joined { limit, operation_ns: None, parts: VecDeque::new(), operations: 0, together: Vec::new() }
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

    /// True if the first one has waited long enough since `start`.
    fn takes_too_long(&self, start: Instant) -> bool {
        // As above.
        !cfg!(any(loom, shuttle)) && self.limit.time.is_some_and(|time| start.elapsed() >= time)
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
        self.parts.push_back(Part { batch, decided, operations });
    }

    /// True if they are to be answered.
    fn are_decided(&self) -> bool {
        self.parts.iter().all(|part| part.decided.is_some())
    }

    fn last(&self) -> SeqNo {
        self.parts.back().map_or(SeqNo::ZERO, |part| part.batch.sequence_number())
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

/// Drops each of `things`, also if another's destructor panics; what the first of these said.
fn drop_each<T>(things: impl Iterator<Item = T>) -> Option<Text> {
    let mut first = None;
    for thing in things {
        // Unwind safety: nothing is left of it.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(thing))) {
            first = first.or(Some(caught(panic)));
        }
    }
    first
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
        let nothing_waits = self.deferred.len() + self.work.inner.len() == 0;
        let most = if nothing_waits { 0 } else { self.most_joined(&batch) };
        if batch.len() >= most {
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
        let caught_up = self.catch_up_on(&mut batches);
        // Nothing is left unless that failed, and no destructor of a request hides why.
        drop_each(batches);
        caught_up
    }

    fn catch_up_on(
        &mut self,
        batches: &mut Peekable<impl Iterator<Item = UpdateBatch<Request<A, S>>>>,
    ) -> Result<(), Failure> {
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
    ///
    /// # Errors
    ///
    /// The cause, if something failed. What has not been executed is still there, and is dropped when the executor ends.
    fn execute_joined(&mut self) -> Result<(), Failure> {
        let (batches, operations) = (self.joined.parts.len(), self.joined.operations);
        if batches == 1 {
            self.joined.operations = 0;
            let part = self.joined.parts.pop_front();
            return part.map_or(Ok(()), |part| self.update_alone(part.batch, part.decided));
        }
        let together = self.engine.joins(operations);
        if together && self.execute_as_one()? {
            return Ok(());
        }
        let mut took = Duration::ZERO;
        while !self.joined.parts.is_empty() {
            took += self.execute_some()?;
        }
        if !together {
            self.engine.executed_apart(operations, took);
        }
        Ok(())
    }

    /// Executes the batches that have been taken as one; false if that is to be done one by one instead, and nothing has been
    /// done.
    fn execute_as_one(&mut self) -> Result<bool, Failure> {
        let (mut batch, start) = (self.joined.join(), Instant::now());
        let (seq, batches) = (batch.sequence_number(), self.joined.parts.len());
        let executed = self.beside(seq, self.joined.are_decided(), |engine, app, state, aside| {
            engine.execute_joined(app, state, &batch, batches as u64, aside)
        });
        let replies = match executed {
            Ok(Ok(replies)) => replies,
            unjoined => {
                self.joined.part(batch);
                return match unjoined {
                    Ok(Err(Unjoined::Failed(failure))) | Err(failure) => Err(failure),
                    Ok(_) => Ok(false),
                };
            }
        };
        let end = self.life.metrics.record_since(Timer::Execution, start);
        self.reached(seq);
        let panic = drop_each(batch.updates_mut().drain(..));
        self.joined.together = batch.into_updates();
        self.finish(batches, replies.into(), start, end)?;
        let failed =
            |message| Failure::OperationPanicked { batch: seq, position: None, message, poisoned: false };
        panic.map_or(Ok(true), |message| Err(failed(message)))
    }

    /// Executes the next of the batches that have been taken one by one, as many as the first one can wait for; returns how long
    /// that took.
    fn execute_some(&mut self) -> Result<Duration, Failure> {
        let (start, mut replies) = (Instant::now(), Vec::with_capacity(self.joined.parts.len()));
        // Unwind safety: the executor ends, but what has been executed is answered.
        let ran = catch_unwind(AssertUnwindSafe(|| self.execute_one_by_one(start, &mut replies)));
        let defect = |panic| Err(Failure::Internal { batch: self.current, message: caught(panic) });
        let ran = ran.unwrap_or_else(defect);
        if replies.is_empty() {
            return ran.map(|()| Duration::ZERO);
        }
        let end = self.life.metrics.record_since(Timer::Execution, start);
        self.finish(replies.len(), replies.into(), start, end)?;
        ran.map(|()| end.saturating_duration_since(start))
    }

    /// Executes batches until the time that the first one can wait is over since `start`, or one fails; their replies go into
    /// `replies`.
    fn execute_one_by_one(
        &mut self,
        start: Instant,
        replies: &mut Vec<BatchReplies<Reply<A, S>>>,
    ) -> Result<(), Failure> {
        for next in 0..self.joined.parts.len() {
            if next > 0 && self.joined.takes_too_long(start) {
                break;
            }
            if self.life.has_failed() {
                return Err(self.cause());
            }
            let part = &mut self.joined.parts[next];
            let (seq, decided) = (part.batch.sequence_number(), part.decided.is_some());
            let batch = std::mem::replace(&mut part.batch, UpdateBatch::new(seq));
            let executed = self
                .beside(seq, decided, |engine, app, state, aside| engine.execute(app, state, batch, aside));
            replies.push(executed??);
            self.reached(seq);
        }
        Ok(())
    }

    /// Records that the first `batches` of those that have been taken are executed, and answers them.
    fn finish(
        &mut self,
        batches: usize,
        replies: MaybeVec<BatchReplies<Reply<A, S>>>,
        start: Instant,
        end: Instant,
    ) -> Result<(), Failure> {
        let (metrics, mut operations, mut answered) = (&self.life.metrics, 0, false);
        for part in self.joined.parts.drain(..batches) {
            operations += part.operations;
            if let Some(decided) = part.decided {
                metrics.record(Timer::Latency, end.saturating_duration_since(decided));
                answered = true;
            }
        }
        metrics.add_alone(Counter::joined_batches, batches as u64);
        self.joined.operations -= operations;
        self.executed(batches, operations, end.saturating_duration_since(start));
        if answered { self.reply(RequestType::Ordered, replies, end) } else { Ok(()) }
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

//! The one loop of all four executors.
//!
//! It alone decides what is executed, in which order, and what is skipped; the [`Engine`] decides how, and the
//! [`Transfer`] how states travel.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::beside::{BESIDE, Beside};
use super::channel::{ChannelSyncRx, Life};
use super::checkpoint::Checkpoints;
use super::engine::Engine;
use super::joining::Joined;
use super::message::{ExecutionRequest, InstallStateMessage};
use super::replier::Answers;
use super::seam::{Sender, TryRecvError, recv_until};
use super::transfer::Transfer;
use crate::app::{Application, Reply, Request};
use crate::batch::{MaybeVec, NodeId, SeqNo, UnorderedBatch, Update, UpdateBatch};
use crate::error::{Failure, Text, caught};
use crate::metrics::{Counter, Timer};
use crate::reply::{BatchReplies, RequestType};
use crate::schedule::Aside;
use crate::sync::Arc;

/// The replies to a batch, and the moment when its execution ended.
type Executed<R> = (BatchReplies<R>, Instant);

/// An executor, as its own thread sees it.
pub(super) struct Executor<A, S, E, T>
where
    A: Application<S>,
    T: Transfer<S>,
{
    pub(super) engine: E,
    pub(super) app: A,
    pub(super) state: S,
    pub(super) transfer: T,
    pub(super) work: ChannelSyncRx<ExecutionRequest<Request<A, S>>>,
    pub(super) installs: ChannelSyncRx<InstallStateMessage<T::Incoming>>,
    pub(super) replies: Sender<Answers<Reply<A, S>>>,
    pub(super) checkpoints: Checkpoints<S>,
    pub(super) life: Arc<Life>,
    /// The last batch that the state contains; `None` if nothing was executed.
    pub(super) last: Option<SeqNo>,
    /// What arrived during an installation and waits for its end.
    pub(super) deferred: VecDeque<ExecutionRequest<Request<A, S>>>,
    /// Batches that are taken together, while they are.
    pub(super) joined: Joined<Request<A, S>>,
    /// States above `last` whose installation was refused, and why. No batch above one of them may be executed
    /// before everything up to it was.
    pub(super) missing: BTreeMap<SeqNo, Text>,
    /// What is being executed, for the report of a defect.
    pub(super) current: SeqNo,
}

impl<A, S, E, T> Executor<A, S, E, T>
where
    A: Application<S>,
    E: Engine<A, S>,
    T: Transfer<S>,
{
    /// Replays `requests`, then works until the last handle is gone and the queue is empty.
    ///
    /// # Errors
    ///
    /// The cause, if something failed. Nothing may be executed after that.
    pub(super) fn run(&mut self, requests: Vec<Request<A, S>>) -> Result<(), Failure> {
        self.engine.enter();
        self.replay(requests)?;
        while let Some(request) = self.next()? {
            self.handle(request)?;
        }
        Ok(())
    }

    fn handle(&mut self, request: ExecutionRequest<Request<A, S>>) -> Result<(), Failure> {
        match request {
            ExecutionRequest::PollStateChannel => self.poll(),
            ExecutionRequest::CatchUp(batches) => self.catch_up(batches),
            ExecutionRequest::Update((batch, decided)) => self.update(batch, decided),
            ExecutionRequest::UpdateAndGetAppstate((batch, decided)) => {
                self.update_alone(batch, Some(decided))?;
                self.checkpoint(None)
            }
            ExecutionRequest::ExecuteUnordered(batch) => self.answer(batch),
            ExecutionRequest::Read(node) => self.checkpoint(Some(node)),
        }
    }

    /// The next request; `None` when there will be no more.
    ///
    /// # Errors
    ///
    /// Another of the executor's threads has failed.
    fn next(&mut self) -> Result<Option<ExecutionRequest<Request<A, S>>>, Failure> {
        if self.life.has_failed() {
            return Err(self.cause());
        }
        if let Some(request) = self.deferred.pop_front() {
            return Ok(Some(request));
        }
        match self.work.inner.try_recv() {
            Ok(request) => return Ok(Some(request)),
            Err(TryRecvError::Disconnected) => return Ok(None),
            Err(TryRecvError::Empty) => {}
        }
        match recv_until(&self.work.inner, &self.life.failed) {
            Some(request) => Ok(request.ok()),
            None => Err(self.cause()),
        }
    }

    /// Why another thread ended this executor.
    pub(super) fn cause(&self) -> Failure {
        self.life.cause(self.current)
    }

    /// The initial requests are one batch whose number is taken already, and nobody waits for its replies.
    fn replay(&mut self, requests: Vec<Request<A, S>>) -> Result<(), Failure> {
        if requests.is_empty() {
            return Ok(());
        }
        let zero = SeqNo::ZERO;
        let updates =
            requests.into_iter().map(|request| Update::new(NodeId(0), zero, zero, request)).collect();
        let batch = UpdateBatch::from_updates(self.last.unwrap_or(zero), updates);
        tracing::debug!(operations = batch.len(), "replaying the initial requests");
        self.measured(batch, None).map(drop)
    }

    /// Executes a batch by itself; answers it if it was just decided.
    pub(super) fn update_alone(
        &mut self,
        batch: UpdateBatch<Request<A, S>>,
        decided: Option<Instant>,
    ) -> Result<(), Failure> {
        match self.execute(batch, decided)? {
            Some((replies, executed)) if decided.is_some() => {
                self.reply(RequestType::Ordered, replies.into(), executed)
            }
            _ => Ok(()),
        }
    }

    /// Executes a batch; `None` if it was executed before.
    fn execute(
        &mut self,
        batch: UpdateBatch<Request<A, S>>,
        decided: Option<Instant>,
    ) -> Result<Option<Executed<Reply<A, S>>>, Failure> {
        let seq = batch.sequence_number();
        if let Some(last) = self.last.filter(|&last| seq <= last) {
            self.life.metrics.add(Counter::skipped_batches, 1);
            tracing::warn!(%seq, %last, "batch skipped: it is not above the last executed one");
            return Ok(None);
        }
        if let Some((&installed, reason)) =
            self.missing.first_key_value().filter(|(installed, _)| seq > **installed)
        {
            return Err(Failure::MissingState { batch: seq, installed, reason: Text::clone(reason) });
        }
        let executed = self.measured(batch, decided)?;
        self.reached(seq);
        Ok(Some(executed))
    }

    /// Runs a batch through the engine and records how long that took.
    fn measured(
        &mut self,
        batch: UpdateBatch<Request<A, S>>,
        decided: Option<Instant>,
    ) -> Result<Executed<Reply<A, S>>, Failure> {
        let (seq, operations) = (batch.sequence_number(), batch.len());
        let start = Instant::now();
        let replies = self.beside(seq, decided.is_some(), |engine, app, state, aside| {
            engine.execute(app, state, batch, aside)
        })??;
        let metrics = &self.life.metrics;
        let end = metrics.record_since(Timer::Execution, start);
        if let Some(decided) = decided {
            metrics.record(Timer::Latency, end.saturating_duration_since(decided));
        }
        self.executed(1, operations, end.saturating_duration_since(start));
        Ok((replies, end))
    }

    /// Lets `execute` execute the batch `seq`, and answers unordered requests beside it, if it was just decided.
    #[inline]
    pub(super) fn beside<R>(
        &mut self,
        seq: SeqNo,
        decided: bool,
        execute: impl FnOnce(&mut E, &A, &mut S, Aside<'_, S>) -> R,
    ) -> Result<R, Failure> {
        self.current = seq;
        let Executor { engine, app, state, work, deferred, replies, life, .. } = self;
        // What is replayed was answered before; nobody should see the state without all of it.
        let left = if decided { work.inner.len() + BESIDE } else { 0 };
        let mut beside = Beside { app, work, deferred, replies, life, seq, left, failure: None };
        let executed = execute(engine, app, state, &mut |state| beside.look(state));
        beside.failure.map_or(Ok(executed), Err)
    }

    /// Takes in what has been executed.
    pub(super) fn executed(&mut self, batches: usize, operations: usize, took: Duration) {
        let metrics = &self.life.metrics;
        metrics.add_alone(Counter::batches, batches as u64);
        metrics.add_alone(Counter::operations, operations as u64);
        self.joined.took(operations, took);
        tracing::trace!(seq = %self.current, batches, operations, ?took, "executed");
    }

    /// The state now contains everything up to `seq`.
    pub(super) fn reached(&mut self, seq: SeqNo) {
        self.last = Some(seq);
        self.life.executed(seq);
        while self.missing.first_key_value().is_some_and(|(&missing, _)| missing <= seq) {
            self.missing.pop_first();
        }
    }

    /// Answers read-only requests on the state as it is.
    pub(super) fn answer(&mut self, batch: UnorderedBatch<Request<A, S>>) -> Result<(), Failure> {
        let requests = batch.len();
        let start = Instant::now();
        let replies = self.engine.execute_unordered(&self.app, &self.state, batch)?;
        let metrics = &self.life.metrics;
        let end = metrics.record_since(Timer::Unordered, start);
        metrics.add(Counter::unordered_operations, requests as u64);
        tracing::trace!(requests, took = ?end.saturating_duration_since(start), "unordered requests answered");
        self.reply(RequestType::Unordered, replies.into(), end)
    }

    /// Hands replies to the reply thread; waits while that one has too many.
    pub(super) fn reply(
        &mut self,
        kind: RequestType,
        replies: MaybeVec<BatchReplies<Reply<A, S>>>,
        executed: Instant,
    ) -> Result<(), Failure> {
        if replies.as_slice().iter().all(BatchReplies::is_empty) {
            return Ok(());
        }
        self.replies.send(Answers { kind, replies, executed }).map_err(|_| self.cause())
    }

    /// Leaves a snapshot of the state for delivery.
    fn checkpoint(&mut self, to: Option<NodeId>) -> Result<(), Failure> {
        // Unwind safety: after a panic the executor fails, and nobody looks at the state again.
        let snapshot = catch_unwind(AssertUnwindSafe(|| T::snapshot(&self.state)))
            .map_err(|panic| Failure::TransferPanicked { message: caught(panic) })?;
        self.checkpoints.post(self.last.unwrap_or(SeqNo::ZERO), to, snapshot);
        Ok(())
    }
}

//! The parallel engine: operations run ahead of their turn on all threads, and retire in batch order.
//!
//! ```text
//!   batch -> queue of chunks -> every thread: take a chunk, run its units on the newest retired prefix,
//!            hand the results over, walk the frontier forward as far as possible (retire.rs)
//!         -> all retired, all threads gone -> commit -> replies
//! ```
//!
//! Batches for which that does not pay run in place, like the sequential engine's (adaptive.rs).

use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::adaptive::{Governor, Plan};
use super::config::{ConfigReport, ExecutionMode, ExecutorConfig};
use super::engine::Engine;
use super::sequential::{answer_in_place, update_in_place};
use crate::app::{Application, Reply, Request, ScalableApp, answer};
use crate::arena::{Arenas, Lent, Workspace};
use crate::batch::{SeqNo, UnorderedBatch, Update, UpdateBatch};
use crate::commit::commit;
use crate::error::{Failure, InitError, panic_message};
use crate::metrics::{Counter, Metrics};
use crate::pool::{Pool, PoolConfig, Queue};
use crate::raw::gate::Payload;
use crate::raw::slots::{Line, Slots};
use crate::raw::table::Table;
use crate::reply::{BatchReplies, UpdateReply};
use crate::resolver::{self, Stamps};
use crate::retire::{AtTurn, Counts, Finished, Retirement, Tail};
use crate::state::{CRUDState, MergeOperator, for_each_mut};
use crate::sync::{Arc, spin_loop, yield_now};
use crate::unit::{ExecutionUnit, Fingerprints, Surroundings};

/// Unordered requests worth less than this together are answered on the executor's thread.
const WORTH_SPREADING: Duration = Duration::from_micros(4);
/// Unordered requests that a thread takes at once.
const UNORDERED_CHUNK: usize = 16;

/// The parallel engine of an executor.
pub struct Speculative<A, S> {
    pool: Pool,
    arenas: Arenas,
    table: Table,
    fingerprints: Fingerprints,
    governor: Governor,
    mode: ExecutionMode,
    window: usize,
    forwarding: bool,
    steps: u32,
    chunk: Option<usize>,
    threads: usize,
    /// What one unordered request lately took one thread.
    unordered_cost: Duration,
    metrics: Arc<Metrics>,
    _types: PhantomData<fn(A, S)>,
}

impl<A, S> Engine<A, S> for Speculative<A, S>
where
    A: ScalableApp<S>,
    S: CRUDState + Sync + 'static,
{
    fn new(config: &ExecutorConfig, report: &ConfigReport, metrics: Arc<Metrics>) -> Result<Self, InitError> {
        let pool = Pool::new(&PoolConfig {
            threads: report.threads,
            spin: config.spin,
            pin: config.pin,
            name: config.name.clone(),
        })?;
        Ok(Speculative {
            pool,
            arenas: Arenas::new(report.threads),
            table: Table::new(),
            fingerprints: Fingerprints::new(),
            governor: Governor::new(report.threads),
            mode: config.mode,
            window: config.window,
            forwarding: config.forwarding,
            steps: config.step_budget,
            chunk: config.chunk,
            threads: report.threads,
            unordered_cost: Duration::from_nanos(200),
            metrics,
            _types: PhantomData,
        })
    }

    fn enter(&mut self) {
        self.pool.pin_caller();
    }

    fn execute(
        &mut self,
        app: &A,
        state: &mut S,
        batch: UpdateBatch<Request<A, S>>,
    ) -> Result<BatchReplies<Reply<A, S>>, Failure> {
        let len = batch.len();
        let plan = match self.mode {
            ExecutionMode::Speculate => Plan::Speculate { chunk: self.governor.chunk(len) },
            ExecutionMode::Sequential => Plan::Sequential,
            ExecutionMode::Adaptive => self.governor.plan(len),
        };
        let start = Instant::now();
        let (replies, counts) = match plan {
            Plan::Sequential => {
                self.metrics.add(Counter::sequential_batches, 1);
                if S::IN_PLACE {
                    (update_in_place(app, state, batch)?, Counts::default())
                } else {
                    self.run(app, state, &batch, None)?
                }
            }
            Plan::Speculate { chunk } => self.run(app, state, &batch, Some(self.chunk.unwrap_or(chunk)))?,
        };
        self.governor.record(len, plan, start.elapsed(), counts);
        Ok(replies)
    }

    fn execute_unordered(
        &mut self,
        app: &A,
        state: &S,
        batch: UnorderedBatch<Request<A, S>>,
    ) -> Result<BatchReplies<Reply<A, S>>, Failure> {
        let len = batch.len() as u32;
        let worth = self.unordered_cost * len;
        let spread = match self.mode {
            ExecutionMode::Adaptive => worth >= WORTH_SPREADING,
            ExecutionMode::Speculate => true,
            ExecutionMode::Sequential => false,
        };
        let start = Instant::now();
        let (replies, threads) = if spread && self.threads > 1 && len > 1 {
            (self.answer_in_parallel(app, state, batch)?, self.threads as u32)
        } else {
            (answer_in_place(app, state, batch)?, 1)
        };
        if len > 0 {
            let cost = start.elapsed() * threads / len;
            self.unordered_cost = (self.unordered_cost * 3 + cost) / 4;
        }
        Ok(replies)
    }
}

/// Replies to a batch, and what became of its units.
type Run<R> = (BatchReplies<R>, Counts);

impl<A, S> Speculative<A, S>
where
    A: ScalableApp<S>,
    S: CRUDState + Sync + 'static,
{
    /// Executes a batch through units, and commits it: `chunk` positions at once on all threads, or, without `chunk`,
    /// each at its turn on this thread.
    fn run(
        &mut self,
        app: &A,
        state: &mut S,
        batch: &UpdateBatch<Request<A, S>>,
        chunk: Option<usize>,
    ) -> Result<Run<Reply<A, S>>, Failure> {
        let (seq, len) = (batch.sequence_number(), batch.len());
        let (lent, memory) = self.arenas.lend();
        let at_once = chunk.unwrap_or(1);
        let lines =
            memory.arena.fill(Slots::<Finished<'_, Reply<A, S>>>::lines(len, at_once), |_| Line::default());
        let slots = Slots::new(lines, len, at_once);
        let forwards = A::FORWARDING && self.forwarding && chunk.is_some();
        let (stamps, overlay) = resolver::begin(&mut self.table, memory, len, forwards);
        let queue = self.pool.queue();
        let run = BatchRun {
            app,
            updates: batch.updates(),
            around: Surroundings {
                state: &*state,
                versions: stamps,
                fingerprints: &self.fingerprints,
                steps: self.steps,
            },
            retirement: Retirement::new(slots, overlay),
            lent,
            queue,
            chunk: at_once,
            window: self.window,
        };
        let ran = match chunk {
            Some(chunk) => self.pool.run((0..len).step_by(chunk), &|thread| run.work(thread)),
            // Unwind safety: as in the gate; the batch is dropped whole.
            None => catch_unwind(AssertUnwindSafe(|| run.walk_alone())),
        };
        let Tail { overlay, replies, counts, .. } = settle(seq, run.retirement.into_tail(), ran)?;
        // Unwind safety: after a panic the executor fails, and nobody looks at the state again.
        catch_unwind(AssertUnwindSafe(|| commit(overlay, state, seq, &mut self.pool)))
            .map_err(|panic| Failure::CommitPanicked { batch: seq, message: panic_message(&*panic) })?
            .map_err(|source| Failure::CommitRefused { batch: seq, source: Arc::new(source) })?;
        self.metrics.add(Counter::speculations, counts.speculations);
        self.metrics.add(Counter::accepted, counts.accepted);
        self.metrics.add(Counter::replays, counts.replays);
        self.metrics.add(Counter::collisions, counts.collisions);
        Ok((replies, counts))
    }

    fn answer_in_parallel(
        &mut self,
        app: &A,
        state: &S,
        batch: UnorderedBatch<Request<A, S>>,
    ) -> Result<BatchReplies<Reply<A, S>>, Failure> {
        let mut cells: Vec<Cell<A, S>> = batch.into_requests().into_iter().map(Cell::Asked).collect();
        // Unwind safety: the state is only read.
        catch_unwind(AssertUnwindSafe(|| {
            for_each_mut(&mut self.pool, &mut cells, UNORDERED_CHUNK, |_, cell| {
                if let Cell::Asked(request) = std::mem::replace(cell, Cell::Taken) {
                    let answered = answer(request, |request| app.unordered_execution(state, request));
                    *cell = Cell::Answered(answered);
                }
            });
        }))
        .map_err(|panic| Failure::UnorderedPanicked { message: panic_message(&*panic) })?;
        let answered = |cell| match cell {
            Cell::Answered(reply) => Some(reply),
            Cell::Asked(_) | Cell::Taken => None,
        };
        Ok(cells.into_iter().filter_map(answered).collect::<Vec<_>>().into())
    }
}

/// An unordered request on its way to its answer.
enum Cell<A: Application<S>, S> {
    Asked(Update<Request<A, S>>),
    Taken,
    Answered(UpdateReply<Reply<A, S>>),
}

/// What a batch's end means: the tail if all units are retired, the failure otherwise.
fn settle<'b, R>(
    seq: SeqNo,
    tail: Option<Tail<'b, R>>,
    ran: Result<(), Payload>,
) -> Result<Tail<'b, R>, Failure> {
    let internal = |message| Failure::Internal { batch: seq, message };
    match (tail, ran) {
        (Some(Tail { fault: Some(fault), .. }), _) => Err(Failure::OperationPanicked {
            batch: seq,
            position: Some(fault.position),
            message: fault.message,
            poisoned: false,
        }),
        (_, Err(panic)) => Err(internal(panic_message(&*panic))),
        (Some(tail), Ok(())) => Ok(tail),
        (None, Ok(())) => Err(internal(Arc::from("a unit was left unretired"))),
    }
}

/// One batch, as all threads see it.
struct BatchRun<'r, 'b, A: Application<S>, S> {
    app: &'r A,
    updates: &'r [Update<Request<A, S>>],
    around: Surroundings<'r, S, Stamps<'b>>,
    retirement: Retirement<'b, Reply<A, S>>,
    lent: Lent<'b>,
    queue: Queue,
    chunk: usize,
    window: usize,
}

/// Stops the batch when the thread unwinds, so that nobody waits for what it will not do.
struct StopOnPanic<'a, F: Fn()>(&'a F);

impl<F: Fn()> Drop for StopOnPanic<'_, F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.0)();
        }
    }
}

impl<'b, A, S> BatchRun<'_, 'b, A, S>
where
    A: ScalableApp<S>,
    S: CRUDState + Sync,
{
    /// One thread's part of the batch.
    fn work(&self, thread: usize) {
        let stop = || self.retirement.stop();
        let _guard = StopOnPanic(&stop);
        let mut memory = self.lent.take(thread);
        while let Some(start) = self.queue.take() {
            if !self.wait_for_window(start, &mut memory) {
                return;
            }
            let snapshot = self.retirement.frontier();
            for position in start..(start + self.chunk).min(self.updates.len()) {
                self.speculate(position, snapshot, &mut memory);
            }
            self.retirement.advance(&mut Turn { run: self, memory: &mut memory });
        }
        self.help_out(&mut memory);
    }

    /// Runs what other threads have taken but not started, lowest position first.
    fn help_out(&self, memory: &mut Workspace<'b>) {
        let mut position = self.retirement.frontier();
        while position < self.updates.len() && !self.retirement.is_stopped() {
            let snapshot = self.retirement.frontier();
            position = position.max(snapshot);
            if position < self.updates.len() && self.speculate(position, snapshot, memory) {
                self.retirement.advance(&mut Turn { run: self, memory });
            }
            position += 1;
        }
    }

    /// Each operation at its turn, on this thread.
    fn walk_alone(&self) {
        let mut memory = self.lent.take(0);
        self.retirement.advance(&mut Turn { run: self, memory: &mut memory });
    }

    /// Waits until `position` is inside the run-ahead window, retiring meanwhile; false if the batch has stopped.
    fn wait_for_window(&self, position: usize, memory: &mut Workspace<'b>) -> bool {
        let mut spins = 0u32;
        while position >= self.retirement.frontier().saturating_add(self.window) {
            if self.retirement.is_stopped() {
                return false;
            }
            self.retirement.advance(&mut Turn { run: self, memory });
            spins = spins.wrapping_add(1);
            if spins.is_multiple_of(64) { yield_now() } else { spin_loop() }
        }
        !self.retirement.is_stopped()
    }

    /// Runs the unit at `position` on the prefix below `snapshot`, if nobody has; true if it did.
    fn speculate(&self, position: usize, snapshot: usize, memory: &mut Workspace<'b>) -> bool {
        let Some(claim) = self.retirement.claim(position) else {
            return false;
        };
        let finished = memory.arena.alloc_default::<Finished<'b, Reply<A, S>>>();
        // A panic ahead of the turn leaves no reply; retirement knows what that means.
        if self.run_unit(position, snapshot, memory, finished).is_ok() {
            self.around.versions.forward(&finished.outcome.writes);
        }
        claim.finish(finished);
        true
    }

    fn run_unit(
        &self,
        position: usize,
        snapshot: usize,
        memory: &mut Workspace<'b>,
        finished: &mut Finished<'b, Reply<A, S>>,
    ) -> Result<(), Payload> {
        let update = &self.updates[position];
        let Finished { outcome, reply } = finished;
        let mut unit = ExecutionUnit::new(self.around, memory, outcome, position as u32, snapshot as u32);
        // Unwind safety: of a unit that panicked only what it had observed is looked at.
        catch_unwind(AssertUnwindSafe(|| {
            *reply = Some(self.app.speculatively_execute_ref(&mut unit, update.operation()));
        }))
    }
}

/// Runs units at their turn, for the walker.
struct Turn<'t, 'r, 'b, A: Application<S>, S> {
    run: &'t BatchRun<'r, 'b, A, S>,
    memory: &'t mut Workspace<'b>,
}

impl<'b, A, S> AtTurn<'b, Reply<A, S>> for Turn<'_, '_, 'b, A, S>
where
    A: ScalableApp<S>,
    S: CRUDState + Sync,
{
    fn memory(&self) -> &Workspace<'b> {
        self.memory
    }

    fn run(&mut self, position: usize, finished: &mut Finished<'b, Reply<A, S>>) -> Result<(), Payload> {
        self.run.run_unit(position, position, self.memory, finished)
    }

    fn address(&self, position: usize, reply: Reply<A, S>) -> UpdateReply<Reply<A, S>> {
        UpdateReply::to_request(&self.run.updates[position], reply)
    }

    fn merge_operator(&self, column: &str) -> MergeOperator {
        self.run.around.state.merge_operator(column)
    }
}

#[cfg(test)]
mod tests;

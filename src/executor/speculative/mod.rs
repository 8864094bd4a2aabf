//! The parallel engine: operations run ahead of their turn on all threads, and retire in batch order.
//!
//! ```text
//!   batch -> queue of chunks -> every thread: take a chunk, run its units on the newest retired prefix,
//!            hand the results over, walk the frontier forward as far as possible, or over one's own (retire.rs)
//!         -> all retired, all threads gone -> commit -> replies
//! ```
//!
//! Batches for which that does not pay run on one thread: in place, like the sequential engine's, perhaps with a look ahead at
//! their keys (prefetched.rs), or through units (adaptive/).

mod chain;
mod checked;
mod ending;
mod joined;
mod prefetched;
mod unordered;

#[cfg(test)]
mod tests;

use std::borrow::Borrow;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crossbeam::utils::CachePadded;

use self::chain::is_chain;
use self::checked::{Fate, Schedule};
use self::ending::{commit_all, settle};
use self::joined::Joint;
use self::unordered::Unordered;
use super::adaptive::{Consent, Governor, Plan, Way};
use super::config::{ConfigReport, ExecutionMode, ExecutorConfig};
use super::engine::{Engine, Limit, Unjoined};
use super::sequential::update_in_place;
use crate::app::{Reply, Request, ScalableApp};
use crate::arena::Arenas;
use crate::batch::{UnorderedBatch, UpdateBatch};
use crate::commit::groups;
use crate::error::{ConfigError, Failure, InitError};
use crate::metrics::{Counter, Metrics};
use crate::pool::{Pool, PoolConfig};
use crate::raw::gate::Payload;
use crate::raw::slots::slots;
use crate::raw::stopwatch::Scale;
use crate::raw::table::Table;
use crate::reply::BatchReplies;
use crate::resolver;
use crate::retire::{Counts, Retirement, Staleness, Tail};
use crate::schedule::hints::Planner;
use crate::schedule::planning::Planning;
use crate::schedule::prefetch::{Plan as Prefetch, Prefetching, Seen};
use crate::schedule::{Aside, BatchRun, Spread};
use crate::state::CRUDState;
use crate::sync::{Arc, Instant, Mutex};
use crate::unit::{Fingerprints, Surroundings};

/// The parallel engine of an executor.
pub struct Speculative<A, S> {
    pool: Pool,
    arenas: Arenas,
    table: Table,
    fingerprints: Fingerprints,
    governor: Governor,
    planner: Planner,
    /// For looks at a few operations: emptying what planned large batches takes longer than they do.
    looker: Planner,
    mode: ExecutionMode,
    /// Batches that run sequentially run in place.
    in_place: bool,
    window: usize,
    consent: Consent,
    steps: u32,
    chunk: Option<usize>,
    checks: Schedule,
    joint: Joint,
    threads: usize,
    prefetching: Prefetching,
    unordered: Unordered,
    metrics: Arc<Metrics>,
    _types: PhantomData<fn(A, S)>,
}

impl<A, S> Engine<A, S> for Speculative<A, S>
where
    A: ScalableApp<S>,
    S: CRUDState + Sync + 'static,
{
    fn check(config: &ExecutorConfig) -> Result<(), ConfigError> {
        config.check_panics(cfg!(panic = "abort"))
    }

    fn new(config: &ExecutorConfig, report: &ConfigReport, metrics: Arc<Metrics>) -> Result<Self, InitError> {
        let pool = Pool::new(&PoolConfig {
            threads: report.threads,
            spin: config.spin,
            pin: config.pin,
            stack_size: config.stack_size,
            name: config.name.clone(),
        })?;
        let consent = Consent::of::<A, S>(config);
        let sequential = matches!(config.mode, ExecutionMode::Adaptive | ExecutionMode::Sequential);
        // Whoever queues many batches, and takes the replies, wants cores, too.
        let considerate = Governor::considerate(report.threads, consent);
        let joint = Joint::new(config.limit(S::IN_PLACE, S::GROUP_COMMIT), considerate);
        Ok(Speculative {
            pool,
            arenas: Arenas::new(report.threads),
            table: Table::new(),
            fingerprints: Fingerprints::new(),
            governor: Governor::new(report.threads, consent),
            planner: Planner::default(),
            looker: Planner::default(),
            mode: config.mode,
            in_place: S::IN_PLACE && config.check_every.is_none() && sequential,
            window: config.window,
            consent,
            steps: config.step_budget,
            chunk: config.chunk,
            checks: Schedule::new(config.check_every),
            joint,
            threads: report.threads,
            prefetching: Prefetching::new(consent.hints, report.threads),
            unordered: Unordered::new(report.threads, consent.hints),
            metrics,
            _types: PhantomData,
        })
    }

    fn enter(&mut self) {
        self.pool.pin_caller();
    }

    #[inline(always)]
    fn execute(
        &mut self,
        app: &A,
        state: &mut S,
        batch: UpdateBatch<Request<A, S>>,
        aside: Aside<'_, S>,
    ) -> Result<BatchReplies<Reply<A, S>>, Failure> {
        let decided = batch.len() < 2 || self.mode == ExecutionMode::Sequential;
        if self.in_place && (decided || self.governor.passes(batch.len())) {
            // There is nothing to decide, and what deciding costs would be noticed.
            self.metrics.add_alone(Counter::sequential_batches, 1);
            return update_in_place(app, state, batch);
        }
        self.execute_as_planned(app, state, batch, aside)
    }

    fn limit(&self) -> Limit {
        self.joint.limit
    }

    fn joins(&mut self, operations: usize) -> bool {
        self.plan_joined(operations)
    }

    fn execute_joined(
        &mut self,
        app: &A,
        state: &mut S,
        batch: &UpdateBatch<Request<A, S>>,
        batches: u64,
        aside: Aside<'_, S>,
    ) -> Result<BatchReplies<Reply<A, S>>, Unjoined> {
        self.execute_planned(app, state, batch, batches, aside)
    }

    fn executed_apart(&mut self, operations: usize, took: Duration) {
        let beside = self.metrics.get(Counter::unordered_beside);
        self.joint.executed_apart(operations, took, beside);
    }

    fn execute_unordered(
        &mut self,
        app: &A,
        state: &S,
        batch: UnorderedBatch<Request<A, S>>,
    ) -> Result<BatchReplies<Reply<A, S>>, Failure> {
        self.answer(app, state, batch)
    }
}

/// What models force upon the engine, to come to the rare paths soon.
#[cfg(any(shuttle, feature = "internals"))]
impl<A, S> Speculative<A, S> {
    /// Begins as if many units had been replayed lately: with more than two threads, stale units run again before
    /// their turn.
    pub fn expect_contention(&mut self) {
        self.governor.expect_contention();
    }

    /// Lets each thread retire what it has run.
    pub fn always_retire_own(&mut self) {
        self.governor.always_retire_own();
    }

    /// Lets keys share fingerprints: only the bits in `mask` differ.
    pub fn share_fingerprints(&mut self, mask: u64) {
        self.fingerprints = Fingerprints::with_mask(mask);
    }

    /// Makes the numbers of batches in the version table come around with the next batch but one.
    pub fn skip_to_last_epoch(&mut self) {
        self.table.skip_to_last_epoch();
    }
}

/// Replies to a batch, and what became of its units.
type Run<R> = (BatchReplies<R>, Counts);

impl<A, S> Speculative<A, S>
where
    A: ScalableApp<S>,
    S: CRUDState + Sync + 'static,
{
    /// Executes a batch in the way that is planned for it.
    #[inline(never)]
    fn execute_as_planned(
        &mut self,
        app: &A,
        state: &mut S,
        batch: UpdateBatch<Request<A, S>>,
        aside: Aside<'_, S>,
    ) -> Result<BatchReplies<Reply<A, S>>, Failure> {
        if self.checks.is_due() {
            return Ok(self.run_checked(app, state, batch)?.0);
        }
        let len = batch.len();
        let mut plan = Self::planned_by(self.mode, self.consent, &mut self.governor, len);
        let start = plan.timed.then(Instant::now);
        let chain =
            plan.looks_for_chain && is_chain::<A, S>(&mut self.looker, app, &batch, &self.fingerprints);
        if chain {
            plan = self.governor.plan_by(Way::Sequential, len);
        }
        let beside = self.metrics.get(Counter::unordered_beside);
        if let Some(counter) = plan.way.counter() {
            self.metrics.add_alone(counter, 1);
        }
        let in_place = S::IN_PLACE && matches!(plan.way, Way::Sequential | Way::Prefetched);
        let (replies, counts) = match plan.way {
            Way::Sequential if in_place => (update_in_place(app, state, batch)?, Counts::default()),
            Way::Prefetched if in_place => (self.update_prefetched(app, state, batch)?, Counts::default()),
            _ => self.run(app, state, batch, plan, aside, |_| Ok(Fate::Commit))?,
        };
        if let Some(took) = start.map(|start| start.elapsed()) {
            // What was done beside the batch is not the batch's time, nor is what new memory takes.
            let alone = self.metrics.get(Counter::unordered_beside) == beside;
            if chain || !alone || (!in_place && self.arenas.have_grown()) {
                self.governor.pass_over(len, took);
            } else {
                self.governor.record(len, plan.way, took, counts);
            }
        }
        Ok(replies)
    }

    /// What is planned for a batch of `len` operations in this mode, by what `governor` knows.
    fn planned_by(mode: ExecutionMode, consent: Consent, governor: &mut Governor, len: usize) -> Plan {
        match mode {
            ExecutionMode::Speculate if consent.forwarding => governor.plan_by(Way::Forwarding, len),
            ExecutionMode::Speculate => governor.plan_by(Way::OneMoment, len),
            ExecutionMode::SpeculateByHints => governor.plan_by(Way::ByHints, len),
            ExecutionMode::Sequential => governor.plan_by(Way::Sequential, len),
            ExecutionMode::Adaptive => governor.plan(len),
        }
    }

    /// Executes a batch through units: on all threads, or, if the plan is sequential, each operation at its turn on this
    /// thread. Then commits it, unless `fate` says something else.
    fn run(
        &mut self,
        app: &A,
        state: &mut S,
        batch: impl Borrow<UpdateBatch<Request<A, S>>>,
        plan: Plan,
        aside: Aside<'_, S>,
        fate: impl FnOnce(&Tail<'_, Reply<A, S>>) -> Result<Fate, Failure>,
    ) -> Result<Run<Reply<A, S>>, Failure> {
        let updates = batch.borrow().updates();
        let (seq, len) = (batch.borrow().sequence_number(), updates.len());
        let in_chunks = matches!(plan.way, Way::OneMoment | Way::Forwarding);
        // A thread that is alone would run the first chunk ahead, and then walk through all the rest.
        let walks = plan.way.walks() || (in_chunks && self.threads == 1 && self.chunk.is_none());
        let spread = self.spread(plan, len, in_chunks, walks);
        // What one thread takes lies together.
        let (chunk, measured) = (spread.chunk, spread.measured);
        let (lent, memory) = self.arenas.lend();
        let slots = slots(&memory.arena, len, chunk, spread.again);
        let forwards = self.consent.forwarding && matches!(plan.way, Way::Forwarding | Way::ByHints);
        // One thread commits everything in one piece.
        let groups = if walks { 1 } else { groups(len, self.threads) };
        let (stamps, overlay) = resolver::begin(&mut self.table, memory, len, forwards, groups);
        let mut planner = std::mem::take(&mut self.planner);
        let planning = (plan.way == Way::ByHints).then(|| Planning::new(seq, &mut planner));
        let run = BatchRun {
            app,
            updates,
            around: Surroundings {
                state: &*state,
                versions: stamps,
                fingerprints: &self.fingerprints,
                steps: self.steps,
                places: groups > 1,
            },
            retirement: Retirement::new(slots, overlay, Staleness::expected(plan.stale)),
            lent,
            queue: self.pool.queue(),
            planning,
            spread,
            seen: Mutex::default(),
            worked: Mutex::default(),
            aside: CachePadded::new(Mutex::new(aside)),
        };
        let scale = (measured > 0).then(Scale::begin);
        let ran = carry_out(&mut self.pool, &run, walks, plan.way != Way::Sequential);
        let worked = scale.map_or(Duration::ZERO, |scale| run.worked(scale));
        let planner_is_sound = run.planning.as_ref().is_none_or(Planning::has_succeeded);
        let seen = run.seen.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        let tail = settle(run.retirement.into_tail(), ran, seq, batch)?;
        let fate = fate(&tail)?;
        let Tail { overlay, replies, counts, .. } = tail;
        let counts = Counts { worked, ..counts };
        if fate == Fate::Drop {
            return Ok((replies, counts));
        }
        commit_all(overlay, state, seq, &mut self.pool)?;
        if planner_is_sound {
            self.planner = planner;
        }
        self.count(counts, seen);
        Ok((replies, counts))
    }

    /// How the operations of a batch are spread; one thread takes all if it `walks`.
    fn spread(&mut self, plan: Plan, len: usize, in_chunks: bool, walks: bool) -> Spread {
        let Plan { again, own, measured, .. } = plan;
        let chunk = if in_chunks { self.chunk.unwrap_or(plan.chunk).min(len.max(1)) } else { 1 };
        let spread = Spread { chunk, window: self.window, again, own, prefetch: Prefetch::Leave, measured };
        if walks {
            return Spread { chunk: len, measured: 0, ..spread };
        }
        let chunk = if self.chunk.is_none() { self.prefetching.chunk(len, chunk) } else { chunk };
        Spread { chunk, prefetch: self.prefetching.plan(len, chunk), ..spread }
    }

    fn count(&mut self, counts: Counts, seen: Seen) {
        self.prefetching.count(seen);
        self.metrics.add_alone(Counter::prefetched, seen.operations);
        counts.add_to(&self.metrics);
    }
}

/// Runs all units: each at its turn on this thread, which may look aside, if it `walks`; otherwise by hints if there are any,
/// or in chunks.
fn carry_out<A, S>(
    pool: &mut Pool,
    run: &BatchRun<'_, '_, A, S>,
    walks: bool,
    looks: bool,
) -> Result<(), Payload>
where
    A: ScalableApp<S>,
    S: CRUDState + Sync,
{
    if walks {
        // Unwind safety: as in the gate; the batch is dropped whole.
        return catch_unwind(AssertUnwindSafe(|| run.walk_alone(looks)));
    }
    let chunks = if run.planning.is_none() { run.updates.len() } else { 0 };
    pool.run((0..chunks).step_by(run.spread.chunk), &|thread| run.work(thread))
}

//! A batch taken apart: the engine's parts in the engine's order, on one thread, each part's time by itself.
//!
//! Shared by the benches of single parts and by the scaling model of `perf`.

#![allow(dead_code, reason = "each user of this module needs a part of it")]

use std::time::{Duration, Instant};

use atlas_smr_execution::batch::{SeqNo, Update};
use atlas_smr_execution::internals::arena::{Arenas, Workspace};
use atlas_smr_execution::internals::commit::{commit, groups};
use atlas_smr_execution::internals::raw::gate::Payload;
use atlas_smr_execution::internals::raw::slots::slots;
use atlas_smr_execution::internals::raw::table::Table;
use atlas_smr_execution::internals::resolver::{self, Stamps};
use atlas_smr_execution::internals::retire::{AtTurn, Counts, Finished, Retirement, Staleness};
use atlas_smr_execution::internals::schedule::stock::Stock;
use atlas_smr_execution::internals::unit::writes::{Record, Written};
use atlas_smr_execution::internals::unit::{ExecutionUnit, Fingerprints, Outcome, Surroundings};
use atlas_smr_execution::reply::{BatchReplies, UpdateReply};
use atlas_smr_execution::state::{Crew, ShardedState};
use workloads::{Logic, Workload};

/// The long-lived parts of an engine with one thread, and what it executes.
pub struct Parts<L> {
    arenas: Arenas,
    table: Table,
    fingerprints: Fingerprints,
    logic: L,
    /// The state.
    pub state: ShardedState,
}

/// How long each phase of a batch took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Phases {
    /// Slots, stamp table and arenas are made ready.
    pub begin: Duration,
    /// Units run ahead of their turn.
    pub speculate: Duration,
    /// They retire: validated, published, or run again.
    pub retire: Duration,
    /// The last values go into the state.
    pub commit: Duration,
}

impl Phases {
    /// Adds those of another batch.
    pub fn add(&mut self, other: Phases) {
        self.begin += other.begin;
        self.speculate += other.speculate;
        self.retire += other.retire;
        self.commit += other.commit;
    }
}

/// What one batch gave.
pub struct Dissected {
    /// The replies.
    pub replies: BatchReplies<u64>,
    /// The times.
    pub phases: Phases,
    /// What became of the units.
    pub counts: Counts,
}

/// Times of the collision resolver alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct StampTimes {
    /// Are all observed versions still the newest?
    pub validate: Duration,
    /// Make the written versions the newest.
    pub publish: Duration,
}

impl<L: Logic> Parts<L> {
    /// The parts, with a populated state.
    pub fn new<W: Workload<Logic = L>>(workload: &W) -> Self {
        let mut builder = ShardedState::builder();
        for &(column, operator) in workload.columns() {
            builder = builder.merge_operator(column, operator);
        }
        let mut state = builder.build().expect("the default number of shards");
        workload.populate(&mut state);
        Parts {
            arenas: Arenas::new(1),
            table: Table::new(),
            fingerprints: Fingerprints::new(),
            logic: workload.logic(),
            state,
        }
    }

    /// Executes one batch: `chunk` units ahead of their turn, then they retire, and so on; at last the commit, for
    /// which `crew` is lent.
    pub fn run(
        &mut self,
        seq: SeqNo,
        updates: &[Update<L::Request>],
        chunk: usize,
        crew: &mut dyn Crew,
    ) -> Dissected {
        let mut phases = Phases::default();
        let start = Instant::now();
        let len = updates.len();
        let (lent, memory) = self.arenas.lend();
        let slots = slots(&memory.arena, len, chunk, false);
        let groups = groups(len, crew.threads());
        let (stamps, overlay) = resolver::begin(&mut self.table, memory, len, false, groups);
        let retirement = Retirement::new(slots, overlay, Staleness::expected(0.0));
        let mut stock = Stock::new(lent.take(0));
        let mut batch = Batch {
            logic: &self.logic,
            around: around(&self.state, stamps, &self.fingerprints),
            updates,
            stock: &mut stock,
        };
        let mut lap = Lap(start);
        lap.end(&mut phases.begin);
        // As with two threads: a chunk starts before the one below it has retired.
        let mut snapshot = 0;
        let mut claimed = None;
        for first in (0..len).step_by(chunk) {
            let end = (first + chunk).min(len);
            for position in first..end {
                let claim =
                    claimed.take().or_else(|| retirement.claim(position)).expect("nobody else is here");
                let finished = batch.stock.room();
                assert!(batch.run_unit(position, snapshot, finished).is_ok());
                claim.finish(finished);
            }
            lap.end(&mut phases.speculate);
            snapshot = first;
            // The walker starts what nobody has started; the claim keeps it from the next chunk.
            claimed = if end < len { retirement.claim(end) } else { None };
            retirement.advance(&mut batch);
            lap.end(&mut phases.retire);
        }
        let tail = retirement.into_tail().expect("all units retire");
        lap.end(&mut phases.retire);
        commit(tail.overlay, &mut self.state, seq, crew).expect("a state in memory takes everything");
        lap.end(&mut phases.commit);
        Dissected { replies: tail.replies, phases, counts: tail.counts }
    }

    /// Runs all units ahead of their turn on the state as it is, then validates all of them, then publishes all.
    /// Nothing is committed. Returns how many were valid, which is all.
    pub fn stamps(&mut self, updates: &[Update<L::Request>]) -> (usize, StampTimes) {
        let len = updates.len();
        let (lent, memory) = self.arenas.lend();
        let groups = groups(len, 2);
        let (stamps, mut overlay) = resolver::begin(&mut self.table, memory, len, false, groups);
        let mut own = lent.take(0);
        let mut outcomes: Vec<Outcome<'_>> = Vec::with_capacity(len);
        for (position, update) in updates.iter().enumerate() {
            let mut outcome = Outcome::default();
            // One position further: at its turn a unit would log nothing.
            let around = around(&self.state, stamps, &self.fingerprints);
            let mut unit = ExecutionUnit::new(around, &mut own, &mut outcome, position as u32 + 1, 0);
            self.logic.execute(&mut unit, update.operation());
            outcomes.push(outcome);
        }
        let mut times = StampTimes::default();
        let mut lap = Lap(Instant::now());
        let valid = outcomes.iter().filter(|outcome| overlay.confirms(outcome)).count();
        lap.end(&mut times.validate);
        for outcome in &outcomes {
            let around = around(&self.state, stamps, &self.fingerprints);
            overlay.publish(&outcome.writes, &own, |operand, below| around.fold(operand, below, &own));
        }
        lap.end(&mut times.publish);
        (valid, times)
    }
}

/// Attributes the time since the last call.
struct Lap(Instant);

impl Lap {
    fn end(&mut self, phase: &mut Duration) {
        let now = Instant::now();
        *phase += now - self.0;
        self.0 = now;
    }
}

fn around<'r, 'b>(
    state: &'r ShardedState,
    versions: Stamps<'b>,
    fingerprints: &'r Fingerprints,
) -> Surroundings<'r, ShardedState, Stamps<'b>> {
    Surroundings { state, versions, fingerprints, steps: u32::MAX, places: true }
}

/// One batch, and the memory of the thread that executes it.
struct Batch<'r, 'b, L: Logic> {
    logic: &'r L,
    around: Surroundings<'r, ShardedState, Stamps<'b>>,
    updates: &'r [Update<L::Request>],
    stock: &'r mut Stock<'b, u64>,
}

impl<'b, L: Logic> Batch<'_, 'b, L> {
    fn run_unit(
        &mut self,
        position: usize,
        snapshot: usize,
        finished: &mut Finished<'b, u64>,
    ) -> Result<(), Payload> {
        let update = &self.updates[position];
        let Finished { outcome, reply, .. } = finished;
        let mut unit = ExecutionUnit::new(
            self.around,
            &mut self.stock.memory,
            outcome,
            position as u32,
            snapshot as u32,
        );
        *reply = Some(self.logic.execute(&mut unit, update.operation()));
        Ok(())
    }
}

impl<'b, L: Logic> AtTurn<'b, u64> for Batch<'_, 'b, L> {
    fn memory(&self) -> &Workspace<'b> {
        &self.stock.memory
    }

    fn room(&mut self) -> &'b mut Finished<'b, u64> {
        self.stock.room()
    }

    fn take_back(&mut self, room: &'b mut Finished<'b, u64>) {
        self.stock.take_back(room);
    }

    fn run(&mut self, position: usize, finished: &mut Finished<'b, u64>) -> Result<(), Payload> {
        self.run_unit(position, position, finished)
    }

    fn address(&self, position: usize, reply: u64) -> UpdateReply<u64> {
        UpdateReply::to_request(&self.updates[position], reply)
    }

    fn fold(&self, operand: &Record<'b>, below: Option<&Record<'b>>) -> Option<Written<'b>> {
        self.around.fold(operand, below, &self.stock.memory)
    }
}

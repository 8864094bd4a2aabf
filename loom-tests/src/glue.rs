//! One batch as `executor/speculative.rs` runs it: the same steps over a state of a few numbers.
//!
//! The executors themselves are not part of models (they own channels and clocks), so this is what stands between the
//! shipped parts. It checks every run against the sequential loop: a unit on snapshot F must answer what the operation
//! answers after the first F operations, whether its result is accepted later or not.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use atlas_smr_execution::batch::{NodeId, SeqNo, Update};
use atlas_smr_execution::internals::arena::{Arenas, Lent, Workspace};
use atlas_smr_execution::internals::commit::commit;
use atlas_smr_execution::internals::raw::gate::Payload;
use atlas_smr_execution::internals::raw::slots::{Line, Slots};
use atlas_smr_execution::internals::raw::table::Table;
use atlas_smr_execution::internals::resolver::{self, Stamps};
use atlas_smr_execution::internals::retire::{AtTurn, Counts, Finished, Retirement};
use atlas_smr_execution::internals::unit::{ExecutionUnit, Fingerprints, Surroundings};
use atlas_smr_execution::reply::UpdateReply;
use atlas_smr_execution::state::{CRUDState, MergeOperator, Solo};

/// An operation: adds up the values of some keys, answers the sum, sets some keys to the sum plus one, and adds the
/// sum plus one to some others without looking at them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Op {
    /// Keys to add up.
    pub reads: &'static [u8],
    /// Keys to set.
    pub writes: &'static [u8],
    /// Keys to add to.
    pub merges: &'static [u8],
    /// Ends with a panic instead, wherever it is run.
    pub panics: bool,
}

impl Op {
    /// Reads nothing, does nothing.
    pub const NONE: Op = Op { reads: &[], writes: &[], merges: &[], panics: false };
}

impl Op {
    /// Runs the operation.
    pub fn run(&self, state: &mut impl CRUDState) -> u64 {
        let value = |bytes: Option<&[u8]>| {
            bytes.map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
        };
        let sum: u64 = self.reads.iter().map(|&key| state.read_with("", &[key], value)).sum();
        self.writes.iter().for_each(|&key| state.put("", &[key], &(sum + 1).to_le_bytes()));
        self.merges.iter().for_each(|&key| state.merge("", &[key], &(sum + 1).to_le_bytes()));
        sum
    }
}

/// The state: keys of one column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers(BTreeMap<Vec<u8>, Vec<u8>>);

impl CRUDState for Numbers {
    fn read(&self, _column: &str, key: &[u8]) -> Option<Vec<u8>> {
        self.0.get(key).cloned()
    }

    fn create(&mut self, column: &str, key: &[u8], value: &[u8]) -> bool {
        let absent = !self.0.contains_key(key);
        if absent {
            self.update(column, key, value);
        }
        absent
    }

    fn update(&mut self, _column: &str, key: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        self.0.insert(key.to_vec(), value.to_vec())
    }

    fn delete(&mut self, _column: &str, key: &[u8]) -> Option<Vec<u8>> {
        self.0.remove(key)
    }
}

/// What the sequential loop makes of the batch: the state after each number of operations.
struct Oracle {
    states: Vec<Numbers>,
}

impl Oracle {
    fn new(before: &Numbers, updates: &[Update<Op>]) -> Self {
        let mut states = vec![before.clone()];
        for update in updates {
            let mut state = states[states.len() - 1].clone();
            update.operation().run(&mut state);
            states.push(state);
        }
        Oracle { states }
    }

    fn answer(&self, op: &Op, snapshot: usize) -> u64 {
        op.run(&mut self.states[snapshot].clone())
    }
}

/// The engine's long-lived parts, and a batch's operations.
pub struct Setup {
    arenas: Arenas,
    table: Table,
    state: Numbers,
    updates: Vec<Update<Op>>,
    forwards: bool,
}

/// Fingerprints must not differ from one schedule to the next: loom replays schedules.
static FINGERPRINTS: LazyLock<Fingerprints> = LazyLock::new(Fingerprints::new);

impl Setup {
    /// An engine of two threads, for a batch of `ops`.
    pub fn new(ops: &[Op]) -> Self {
        let update =
            |(number, op): (usize, &Op)| Update::new(NodeId(0), SeqNo::ZERO, SeqNo::from(number as u64), *op);
        Setup {
            arenas: Arenas::new(2),
            table: Table::new(),
            state: Numbers::default(),
            updates: ops.iter().enumerate().map(update).collect(),
            forwards: false,
        }
    }

    /// Lets units read the values of finished, unretired ones.
    pub fn forwarding(self) -> Self {
        Setup { forwards: true, ..self }
    }

    /// Runs the batch by `run`, and checks replies and state against the sequential loop. It may be run again.
    pub fn batch(&mut self, run: impl for<'b> FnOnce(&Batch<'_, 'b>, &Lent<'b>)) -> Counts {
        let len = self.updates.len();
        let oracle = Oracle::new(&self.state, &self.updates);
        let panics = self.updates.iter().position(|update| update.operation().panics);
        let (lent, memory) = self.arenas.lend();
        let lines = memory.arena.fill(Slots::<Finished<'_, u64>>::lines(len, len), |_| Line::default());
        let slots = Slots::new(lines, len, len);
        let (stamps, overlay) = resolver::begin(&mut self.table, memory, len, self.forwards);
        let batch = Batch {
            updates: &self.updates,
            around: Surroundings {
                state: &self.state,
                versions: stamps,
                fingerprints: &FINGERPRINTS,
                steps: u32::MAX,
            },
            forwards: self.forwards,
            retirement: Retirement::new(slots, overlay),
            oracle: &oracle,
        };
        run(&batch, &lent);
        let tail = batch.retirement.into_tail().expect("no unit is left unretired");
        assert_eq!(
            tail.fault.map(|fault| fault.position),
            panics,
            "the first panic ends the batch, and nothing else"
        );
        let replies = tail.replies.replies();
        let numbers: Vec<u64> = replies.iter().map(|reply| reply.operation_id().0).collect();
        let retired = panics.unwrap_or(len);
        assert!(
            numbers.iter().copied().eq(0..retired as u64),
            "every unit retires once, in order: {numbers:?}"
        );
        for (position, reply) in replies.iter().enumerate() {
            let expected = oracle.answer(self.updates[position].operation(), position);
            assert_eq!(*reply.payload(), expected, "the reply at {position}");
        }
        assert_eq!(tail.counts.accepted + tail.counts.replays, tail.counts.speculations);
        if panics.is_none() {
            commit(tail.overlay, &mut self.state, SeqNo::ZERO, &mut Solo).expect("it cannot fail");
            assert_eq!(self.state, oracle.states[len], "the state after the batch");
        }
        tail.counts
    }
}

/// One batch, as all threads see it.
pub struct Batch<'r, 'b> {
    updates: &'r [Update<Op>],
    around: Surroundings<'r, Numbers, Stamps<'b>>,
    forwards: bool,
    /// Where units retire.
    pub retirement: Retirement<'b, u64>,
    oracle: &'r Oracle,
}

impl<'b> Batch<'_, 'b> {
    /// Number of operations.
    pub fn len(&self) -> usize {
        self.updates.len()
    }

    /// Runs the unit at `position` on the prefix below `snapshot`, if nobody has; true if it did.
    pub fn speculate(&self, position: usize, snapshot: usize, memory: &mut Workspace<'b>) -> bool {
        let Some(claim) = self.retirement.claim(position) else {
            return false;
        };
        let finished = memory.arena.alloc_default::<Finished<'b, u64>>();
        // A panic ahead of the turn leaves no reply.
        if self.run_unit(position, snapshot, memory, finished).is_ok() {
            self.around.versions.forward(&finished.outcome.writes);
        }
        claim.finish(finished);
        true
    }

    /// Retires what can be retired.
    pub fn advance(&self, memory: &mut Workspace<'b>) {
        self.retirement.advance(&mut Turn { batch: self, memory });
    }

    fn run_unit(
        &self,
        position: usize,
        snapshot: usize,
        memory: &mut Workspace<'b>,
        finished: &mut Finished<'b, u64>,
    ) -> Result<(), Payload> {
        let update = &self.updates[position];
        let Finished { outcome, reply } = finished;
        let mut unit = ExecutionUnit::new(self.around, memory, outcome, position as u32, snapshot as u32);
        let answer = update.operation().run(&mut unit);
        // With forwarding there is no such moment, except at the unit's turn.
        if !self.forwards || snapshot == position {
            let expected = self.oracle.answer(update.operation(), snapshot);
            assert_eq!(answer, expected, "the unit at {position} sees the moment {snapshot}");
        }
        if update.operation().panics {
            return Err(Box::new("the operation panicked"));
        }
        *reply = Some(answer);
        Ok(())
    }
}

/// Runs units at their turn, for the walker.
struct Turn<'t, 'r, 'b> {
    batch: &'t Batch<'r, 'b>,
    memory: &'t mut Workspace<'b>,
}

impl<'b> AtTurn<'b, u64> for Turn<'_, '_, 'b> {
    fn memory(&self) -> &Workspace<'b> {
        self.memory
    }

    fn run(&mut self, position: usize, finished: &mut Finished<'b, u64>) -> Result<(), Payload> {
        self.batch.run_unit(position, position, self.memory, finished)
    }

    fn address(&self, position: usize, reply: u64) -> UpdateReply<u64> {
        UpdateReply::to_request(&self.batch.updates[position], reply)
    }

    fn merge_operator(&self, column: &str) -> MergeOperator {
        self.batch.around.state.merge_operator(column)
    }
}

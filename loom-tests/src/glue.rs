//! Whole batches of a few operations, as shipped, held against the sequential loop.
//!
//! The application is part of the check: whatever a unit sees must be what the operation would see at *some* moment up to
//! its position, unless values are forwarded. Retirement then has to see to it that it was the right one.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex as Unwatched, OnceLock};

use atlas_smr_execution::app::{Application, ApplicationData, Hints, ScalableApp};
use atlas_smr_execution::batch::{NodeId, SeqNo, Update};
use atlas_smr_execution::error::BoxError;
use atlas_smr_execution::internals::arena::{Arenas, Lent};
use atlas_smr_execution::internals::commit::commit;
use atlas_smr_execution::internals::pool::{Queue, queue};
use atlas_smr_execution::internals::raw::slots::slots;
use atlas_smr_execution::internals::raw::table::Table;
use atlas_smr_execution::internals::resolver::{self, Stamps};
use atlas_smr_execution::internals::retire::{Counts, Retirement, Staleness};
use atlas_smr_execution::internals::schedule::hints::Planner;
use atlas_smr_execution::internals::schedule::planning::Planning;
use atlas_smr_execution::internals::schedule::prefetch::Plan;
use atlas_smr_execution::internals::schedule::{BatchRun, Spread};
use atlas_smr_execution::internals::unit::{Fingerprints, Surroundings};
use atlas_smr_execution::state::{CRUDState, Solo};
use loom::sync::Mutex;

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
    const COMMITS_OPERANDS: bool = true;

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

    fn answer(&self, op: &Op, moment: usize) -> u64 {
        op.run(&mut self.states[moment].clone())
    }
}

/// The application: runs operations, and checks what they see.
pub struct Ops {
    oracle: Arc<Oracle>,
    one_moment: bool,
    /// Held by every reply.
    alive: Arc<()>,
    /// What was seen that never stood together. An assertion would be caught like any panic ahead of turn.
    torn: OnceLock<String>,
    /// The first keys that operations write, in the order in which their runs ended. Loom does not see it.
    ended: Unwatched<Vec<u8>>,
}

/// A reply, of which it is known whether it was dropped.
#[derive(Clone, Debug)]
pub struct Answer {
    sum: u64,
    _alive: Arc<()>,
}

impl ApplicationData for Ops {
    type Request = Op;
    type Reply = Answer;
}

impl Application<Numbers> for Ops {
    type AppData = Ops;

    fn initial_state() -> Result<Numbers, BoxError> {
        Ok(Numbers::default())
    }

    fn unordered_execution(&self, state: &Numbers, op: Op) -> Answer {
        self.reply(op.run(&mut state.clone()))
    }

    fn update(&self, state: &mut Numbers, op: Op) -> Answer {
        self.reply(op.run(state))
    }
}

impl Ops {
    fn reply(&self, sum: u64) -> Answer {
        Answer { sum, _alive: Arc::clone(&self.alive) }
    }
}

impl ScalableApp<Numbers> for Ops {
    const FORWARDING: bool = true;
    const HINTS: bool = true;

    fn hints(&self, op: &Op, hints: &mut impl Hints) {
        op.reads.iter().for_each(|&key| hints.reads("", &[key]));
        op.writes.iter().for_each(|&key| hints.writes("", &[key]));
        op.merges.iter().for_each(|&key| hints.merges("", &[key]));
    }

    fn speculatively_execute(&self, state: &mut impl CRUDState, op: Op) -> Answer {
        let answer = op.run(state);
        if self.one_moment {
            let mut moments = 0..self.oracle.states.len();
            if !moments.any(|moment| self.oracle.answer(&op, moment) == answer) {
                let _ = self.torn.set(format!("{op:?} saw values that never stood together: {answer}"));
            }
        }
        self.ended.lock().expect("nobody panics here").extend(op.writes.first());
        if op.panics {
            std::panic::resume_unwind(Box::new("the operation panicked"));
        }
        self.reply(answer)
    }
}

/// A batch as all threads see it.
pub type Batch<'r, 'b> = BatchRun<'r, 'b, Ops, Numbers>;

/// The engine's long-lived parts, and a batch's operations.
pub struct Setup {
    arenas: Arenas,
    table: Table,
    planner: Planner,
    state: Numbers,
    updates: Vec<Update<Op>>,
    queue: Queue,
    window: usize,
    forwards: bool,
    hints: bool,
    again: bool,
    own: bool,
    stale: f32,
    prefetch: Plan,
    ended: Vec<u8>,
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
            planner: Planner::default(),
            state: Numbers::default(),
            updates: ops.iter().enumerate().map(update).collect(),
            queue: queue().1,
            window: usize::MAX,
            forwards: false,
            hints: false,
            again: false,
            own: false,
            stale: 0.0,
            prefetch: Plan::Leave,
            ended: Vec::new(),
        }
    }

    /// Lets units read the values of finished, unretired ones.
    pub fn forwarding(self) -> Self {
        Setup { forwards: true, ..self }
    }

    /// Starts operations by hints.
    pub fn by_hints(self) -> Self {
        Setup { hints: true, ..self }
    }

    /// Lets idle threads run stale units again.
    pub fn again(self) -> Self {
        Setup { again: true, ..self }
    }

    /// Lets each thread retire what it has run.
    pub fn retiring_its_own(self) -> Self {
        Setup { own: true, ..self }
    }

    /// Looks up the keys of the whole batch, which is one chunk, before it is run.
    pub fn prefetching(self) -> Self {
        Setup { prefetch: Plan::Prefetch, ..self }
    }

    /// Expects every unit to be stale at its turn.
    pub fn expecting_collisions(self) -> Self {
        Setup { stale: 1.0, ..self }
    }

    /// Positions run ahead of retirement by at most so many, and come out of `queue`.
    pub fn on(self, queue: Queue, window: usize) -> Self {
        Setup { queue, window, ..self }
    }

    /// True if a run of the operation that first writes `a` ended before any of the one that first writes `b`.
    pub fn ended_before(&self, a: u8, b: u8) -> bool {
        self.ended.iter().find(|&&key| key == a || key == b) == Some(&a)
    }

    /// Runs the batch by `run`, and checks replies and state against the sequential loop. It may be run again.
    pub fn batch(&mut self, run: impl for<'b> FnOnce(&Batch<'_, 'b>, &Lent<'b>)) -> Counts {
        let len = self.updates.len();
        let oracle = Arc::new(Oracle::new(&self.state, &self.updates));
        let alive = Arc::new(());
        let app = Ops {
            oracle: Arc::clone(&oracle),
            one_moment: !self.forwards,
            alive: Arc::clone(&alive),
            torn: OnceLock::new(),
            ended: Unwatched::default(),
        };
        let panics = self.updates.iter().position(|update| update.operation().panics);
        let (lent, memory) = self.arenas.lend();
        let slots = slots(&memory.arena, len, len, self.again);
        let (stamps, overlay) = resolver::begin(&mut self.table, memory, len, self.forwards, 1);
        let planning = self.hints.then(|| Planning::new(SeqNo::ZERO, &mut self.planner));
        let mut aside = |_: &Numbers| {};
        let prefetch = self.prefetch;
        let chunk = if prefetch == Plan::Leave { 1 } else { len };
        let Setup { window, again, own, .. } = *self;
        let spread = Spread { chunk, window, again, own, prefetch, measured: 0 };
        let batch = BatchRun {
            app: &app,
            updates: &self.updates,
            around: around(&self.state, stamps),
            retirement: Retirement::new(slots, overlay, Staleness::expected(self.stale)),
            lent,
            queue: self.queue.clone(),
            planning,
            spread,
            seen: Mutex::default(),
            worked: Mutex::default(),
            aside: Mutex::new(&mut aside as _).into(),
        };
        run(&batch, &batch.lent);
        assert_eq!(app.torn.get(), None);
        self.ended = app.ended.lock().expect("nobody panics there").clone();
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
            assert_eq!(reply.payload().sum, expected, "the reply at {position}");
        }
        // The application holds one, and so does the check itself.
        assert_eq!(Arc::strong_count(&alive), 2 + replies.len(), "no other reply is left");
        assert_eq!(tail.counts.accepted + tail.counts.replays, tail.counts.speculations);
        if panics.is_none() {
            commit(tail.overlay, &mut self.state, SeqNo::ZERO, &mut Solo).expect("it cannot fail");
            assert_eq!(self.state, oracle.states[len], "the state after the batch");
        }
        tail.counts
    }
}

/// What all units share: a budget that they do not use up.
fn around<'r, 'b>(state: &'r Numbers, versions: Stamps<'b>) -> Surroundings<'r, Numbers, Stamps<'b>> {
    let (fingerprints, steps) = (&*FINGERPRINTS, u32::MAX);
    Surroundings { state, versions, fingerprints, steps, places: false }
}

//! One run under one schedule: an engine, a few batches, and the sequential loop to hold them against.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atlas_smr_execution::batch::{NodeId, SeqNo, UnorderedBatch, UpdateBatch};
use atlas_smr_execution::error::Failure;
use atlas_smr_execution::executor::engines::{Engine, Speculative};
use atlas_smr_execution::executor::{ExecutionMode, ExecutorConfig};
use atlas_smr_execution::metrics::Metrics;
use atlas_smr_execution::reply::UpdateReply;
use atlas_smr_execution::state::{CRUDState, MergeOperator, ShardedState};
use shuttle::rand::{RngCore, thread_rng};
use workloads::program::{COLUMNS, Program};

use crate::app::{Adversary, Oracle, Request, TRAP, Trap, Twist};
use crate::harness::Marks;

/// What a model draws its runs from.
#[derive(Clone, Debug)]
pub struct Model {
    /// How batches are run.
    pub mode: ExecutionMode,
    /// Units read the values of finished, unretired ones.
    pub forwarding: bool,
    /// Threads that execute.
    pub threads: RangeInclusive<u64>,
    /// Stale units run again before their turn.
    pub again: bool,
    /// Batches in a run, at most.
    pub batches: u64,
    /// Operations in a batch, at most.
    pub operations: u64,
    /// What may happen in an operation besides its programs; each as likely as the others.
    pub twists: &'static [Twist],
}

type SpeculativeEngine = Speculative<Adversary, ShardedState>;

/// A number below `limit`, from the schedule's seed.
pub fn below(limit: u64) -> u64 {
    thread_rng().next_u64() % limit
}

fn pick<T: Copy>(items: &[T]) -> T {
    items[below(items.len() as u64) as usize]
}

impl Model {
    /// Two to four threads on short batches without twists, ahead of turn, each unit on one moment.
    pub const PLAIN: Model = Model {
        mode: ExecutionMode::Speculate,
        forwarding: false,
        threads: 2..=4,
        again: false,
        batches: 3,
        operations: 10,
        twists: &[Twist::None],
    };

    /// Runs a few batches on one engine, and ends it.
    ///
    /// # Panics
    ///
    /// If anything is not as the sequential loop has it.
    pub fn run(&self, marks: &Marks) {
        let metrics = Arc::new(Metrics::new());
        let mut engine = self.engine(Arc::clone(&metrics));
        let keys = 1 + below(3) as u8;
        let mut state = populated(keys);
        let mut failed = false;
        for seq in 1..=1 + below(self.batches) {
            let batch = self.batch(seq, keys);
            failed = !self.execute(&mut engine, &mut state, batch, marks);
            if failed {
                break;
            }
            if below(4) == 0 {
                let requests = self.batch(seq, keys).into_updates();
                answer(&mut engine, &state, UnorderedBatch::from_requests(requests));
            }
        }
        drop(engine);
        let counters = metrics.counters();
        assert!(failed || counters.speculations == counters.accepted + counters.replays);
        marks.mark("a replay", counters.replays > 0);
        marks.mark("no replay", counters.accepted > 0 && counters.replays == 0);
        marks.mark("a rerun", counters.reruns > 0);
        marks.mark("a panic or a budget ahead of turn", counters.replays > counters.collisions);
        marks.mark("a sequential batch", counters.sequential_batches > 0);
        marks.mark("a batch by hints", counters.hinted_batches > 0);
    }

    fn engine(&self, metrics: Arc<Metrics>) -> SpeculativeEngine {
        let threads = self.threads.start() + below(self.threads.end() - self.threads.start() + 1);
        let mut config = ExecutorConfig::with_threads(threads as usize);
        config.mode = self.mode;
        config.pin = false;
        config.spin = Duration::from_micros(pick(&[0, 0, 5]));
        config.window = pick(&[1, 2, 3, 100]);
        config.chunk = (self.mode != ExecutionMode::Adaptive).then(|| pick(&[1, 1, 2, 3]));
        config.forwarding = self.forwarding;
        config.step_budget = pick(&[2, 1000, 1000, 1000]);
        config.check_every = (below(8) == 0).then_some(2);
        let report = config.validate().expect("valid");
        let mut engine: SpeculativeEngine = Engine::new(&config, &report, metrics).expect("threads");
        if self.again {
            engine.expect_contention();
        }
        if below(2) == 0 {
            engine.always_retire_own();
        }
        if below(8) == 0 {
            engine.share_fingerprints(pick(&[0, 1 << 40, 3]));
        }
        if below(8) == 0 {
            engine.skip_to_last_epoch();
        }
        engine
    }

    /// A batch of random operations; flags are raised before they are expected.
    fn batch(&self, seq: u64, keys: u8) -> UpdateBatch<Request> {
        let len = below(self.operations + 1);
        let mut batch = UpdateBatch::new(SeqNo(seq));
        let mut raised = false;
        for position in 0..len {
            let twist = match pick(self.twists) {
                Twist::Stall(most) => Twist::Stall(below(u64::from(most)) as u8),
                Twist::Raise(_) => Twist::Raise(seq as u8),
                Twist::Expect(_) if raised => Twist::Expect(seq as u8),
                Twist::Expect(_) => Twist::None,
                other => other,
            };
            raised |= matches!(twist, Twist::Raise(_));
            batch.add(NodeId(1), SeqNo(seq), SeqNo(position), request(position as usize, keys, twist));
        }
        batch
    }

    /// Executes a batch, and compares; false if it failed, as it had to.
    fn execute(
        &self,
        engine: &mut SpeculativeEngine,
        state: &mut ShardedState,
        batch: UpdateBatch<Request>,
        marks: &Marks,
    ) -> bool {
        let oracle = Arc::new(Oracle::new(state, &batch));
        let torn = Arc::new(Mutex::new(None));
        let app = Adversary {
            oracle: Arc::clone(&oracle),
            // The loop panics in a merge that a unit only notes.
            one_moment: !self.forwarding && !self.twists.contains(&Twist::Trap),
            torn: Arc::clone(&torn),
        };
        let before = state.len();
        let mut aside = |state: &ShardedState| {
            assert_eq!(state.len(), before, "the state stays as it was while the batch runs");
            (0..below(3)).for_each(|_| shuttle::thread::yield_now());
        };
        let result = engine.execute(&app, state, batch.clone(), &mut aside);
        assert_eq!(torn.lock().expect("nobody panics there").take(), None);
        let after = match (result, oracle.fault) {
            (Ok(replies), None) => {
                let expected = batch.updates().iter().zip(&oracle.replies);
                let expected: Vec<_> =
                    expected.map(|(update, reply)| UpdateReply::to_request(update, *reply)).collect();
                assert_eq!(replies.replies(), expected, "the replies");
                &oracle.states[batch.len()]
            }
            (Err(failure), Some(position)) => {
                check_failure(&failure, &batch, position);
                marks.mark("a failure", true);
                &oracle.states[0]
            }
            (result, fault) => {
                panic!("{result:?}, but the first operation that panics is {fault:?}")
            }
        };
        assert!(state.iter().eq(after.iter()), "the state after the batch");
        oracle.fault.is_none()
    }
}

/// The failure must name the first operation that panics. A merge that panics in the engine is no single operation's.
fn check_failure(failure: &Failure, batch: &UpdateBatch<Request>, position: usize) {
    let twist = batch.updates()[position].operation().twist;
    match failure {
        Failure::OperationPanicked { batch: seq, position: named, poisoned, .. } => {
            assert_eq!(*seq, batch.sequence_number());
            let nobody = twist == Twist::Trap && named.is_none();
            assert!(nobody || *named == Some(position), "{named:?} instead of {position}");
            assert!(!poisoned, "the state is what it was");
        }
        _ => panic!("{failure} instead of the operation's panic"),
    }
}

/// Answers requests, on all threads if that is forced; the answers must be those of one thread.
fn answer(engine: &mut SpeculativeEngine, state: &ShardedState, batch: UnorderedBatch<Request>) {
    use atlas_smr_execution::app::Application;
    let oracle = Oracle::new(state, &UpdateBatch::new(SeqNo::ZERO));
    let app = Adversary { oracle: Arc::new(oracle), one_moment: false, torn: Arc::default() };
    let expected = app.unordered_batched_execution(state, batch.clone());
    let answers = engine.execute_unordered(&app, state, batch).expect("nothing panics");
    assert_eq!(answers, expected, "the answers");
}

/// A state of a few shards in which some of the keys are present.
fn populated(keys: u8) -> ShardedState {
    let builder =
        ShardedState::builder().shards(1 << below(3)).merge_operator(TRAP, MergeOperator::Custom(&Trap));
    let mut state = builder.build().expect("valid");
    for column in COLUMNS {
        for key in 0..keys {
            if below(2) == 0 {
                state.put(column, &[key, 7][..usize::from(key != 0) * 2], &[key, 1, 2]);
            }
        }
    }
    state
}

/// The operation at `position`: one or two programs of a few instructions on few keys, of which it names those of one, of
/// both, of none, or of a third.
fn request(position: usize, keys: u8, twist: Twist) -> Request {
    let programs = [1 + below(3), below(3), below(3)].map(|instructions| {
        let instruction = |_| {
            let [code, column, key, value, luck, ..] = thread_rng().next_u64().to_le_bytes();
            // The loop over many keys is worth a try now and then; it takes long.
            let code = if code & 0x0f == 15 && luck >= 32 { code & 0xf0 } else { code };
            [code, column, key, value]
        };
        Program::from_bytes(&(0..instructions).flat_map(instruction).collect::<Vec<_>>(), keys)
    });
    let hints = match below(4) {
        0 => programs[1..].to_vec(),
        _ => programs[..below(3) as usize].to_vec(),
    };
    let [first, second, _] = programs;
    Request { position, programs: [first, second], twist, hints }
}

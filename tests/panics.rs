//! Panics of the user's code, wherever it runs: what becomes of the batch and of the state, who is told, and that nothing
//! hangs and no other executor of the process is harmed.
//!
//! | where | test |
//! |---|---|
//! | `update`, ahead of the turn only | panics.rs::a_panic_ahead_of_the_turn_is_no_failure |
//! | `update`, at the turn only | panics.rs::a_panic_at_the_turn_alone_is_the_cause |
//! | `update` | panics.rs::a_panic_in_update_is_the_cause_and_its_state_never_leaves |
//! | `update`, on a durable state | panics.rs::a_batch_that_panics_leaves_no_trace_on_disk |
//! | `update`, in the initial requests | lifecycle.rs::a_panic_in_the_replay_is_the_executors_failure |
//! | `unordered_execution` | panics.rs::a_panic_in_an_unordered_request_is_the_cause |
//! | the same, beside a batch | replies.rs::a_panic_beside_a_batch_is_the_cause |
//! | the same, beside a batch on a durable state | panics.rs::a_panic_beside_a_batch_leaves_no_trace_on_disk |
//! | `hints` | panics.rs::a_panic_in_hints_changes_nothing |
//! | a merge operator | panics.rs::a_panic_in_a_merge_is_the_cause |
//! | a state's `commit` | panics.rs::a_panic_in_commit_is_the_cause |
//! | a state's `commit`, an error | panics.rs::a_commit_that_is_refused_leaves_no_trace_on_disk |
//! | a state's `snapshot` | transfer.rs::a_panic_in_snapshot_is_the_cause |
//! | a state's `descriptor`, `part` | transfer.rs::a_panic_in_a_part_is_the_cause |
//! | the reply node | replies.rs::a_panic_of_the_network_stops_the_executor_with_its_cause |
//! | the reply node, while the executor idles | replies.rs::a_panic_of_the_network_stops_an_executor_that_idles |
//! | the application's destructor | panics.rs::a_panic_of_a_destructor_at_the_end_is_told |

mod common;

use std::sync::Arc;

use atlas_smr_execution::app::{Application, ApplicationData, Hints, ScalableApp};
use atlas_smr_execution::batch::{NodeId, SeqNo};
use atlas_smr_execution::error::{BoxError, Failure};
use atlas_smr_execution::executor::*;
use atlas_smr_execution::reply::ReplicaReplier;
use atlas_smr_execution::state::{CRUDState, Merge, MergeOperator, ShardedState};
use common::disk::{Disk, Trouble};
use common::rig::{self, Collector, Rig};
use common::script::{Script, Step, step};
use common::*;

on!([SingleMon, MultiMon, SingleDiv, MultiDiv] {
    a_panic_ahead_of_the_turn_is_no_failure,
    a_panic_at_the_turn_alone_is_the_cause,
    a_panic_in_update_is_the_cause_and_its_state_never_leaves,
    a_panic_in_an_unordered_request_is_the_cause,
});

mod on_sharded_states {
    use super::*;

    on!(rig: [SingleMon, MultiMon, SingleDiv, MultiDiv] {
        a_panic_in_hints_changes_nothing,
    });
}

fn a_panic_ahead_of_the_turn_is_no_failure<K: Kind>() {
    beside_another::<K>(|| {
        let running = start::<K>();
        let gate = overtaken::<K>();
        let trap = Op::Trap("a", false, Arc::clone(&gate));
        let batches = [
            batch(1, [Op::Wait(gate), Op::Put("a", 1), trap, Op::Add("a", 1)]),
            batch(2, [Op::Add("a", 1), Op::Get("a")]),
        ];
        batches.iter().for_each(|batch| running.handle.queue_update(batch.clone()).unwrap());
        assert_eq!(running.read().state, reference(&batches));
        assert_eq!(running.counters().replays > 0, K::RUNS_AHEAD);
        assert!(running.handle.failure().is_none());
        assert_eq!(running.finish().values(), [None, None, Some(1), Some(2), Some(3), Some(3)]);
    });
}

fn a_panic_at_the_turn_alone_is_the_cause<K: Kind>() {
    beside_another::<K>(|| {
        let running = start::<K>();
        running.handle.queue_update_and_get_appstate(batch(1, [Op::Put("b", 1)])).unwrap();
        let gate = overtaken::<K>();
        let trap = Op::Trap("a", true, Arc::clone(&gate));
        let fatal = batch(2, [Op::Wait(gate), Op::Put("a", 1), trap, Op::Put("b", 2)]);
        running.handle.queue_update_and_get_appstate(fatal).unwrap();
        let cause = running.wait_for_failure();
        let Failure::OperationPanicked { batch: SeqNo(2), position, ref message, poisoned } = cause else {
            panic!("{cause}")
        };
        assert_eq!(&**message, "the trap of `a` springs");
        // Units leave the state alone until the commit, and know where they stand in the batch.
        assert_eq!((position, poisoned), if K::RUNS_AHEAD { (Some(2), false) } else { (None, true) });
        assert_only_the_first_checkpoint(running, &cause);
    });
}

fn a_panic_in_update_is_the_cause_and_its_state_never_leaves<K: Kind>() {
    beside_another::<K>(|| {
        let running = start::<K>();
        running.handle.queue_update_and_get_appstate(batch(1, [Op::Put("b", 1)])).unwrap();
        let fatal = batch(2, [Op::Put("a", 2), Op::Panic, Op::Put("a", 3)]);
        running.handle.queue_update_and_get_appstate(fatal).unwrap();
        let _ = running.handle.try_read_state(NodeId(5));
        let cause = running.wait_for_failure();
        let text = cause.to_string();
        assert!(matches!(cause, Failure::OperationPanicked { batch: SeqNo(2), .. }), "{text}");
        assert!(text.contains("the operation panics"), "{text}");
        assert_only_the_first_checkpoint(running, &cause);
    });
}

/// On whichever thread: among so many requests, none of them is the executor's for sure.
fn a_panic_in_an_unordered_request_is_the_cause<K: Kind>() {
    beside_another::<K>(|| {
        let running = start::<K>();
        running.handle.queue_update_and_get_appstate(batch(1, [Op::Put("b", 1)])).unwrap();
        // Asked before that, they might be answered beside the batch, and its replies would not leave.
        running.net.wait_for(1);
        let requests = (0..200).map(|n| if n == 150 { Op::Panic } else { Op::Get("b") });
        running.handle.queue_update_unordered(reads(1, requests)).unwrap();
        let cause = running.wait_for_failure();
        assert!(matches!(cause, Failure::UnorderedPanicked { .. }), "{cause}");
        assert!(cause.to_string().contains("the unordered request panics"));
        assert_only_the_first_checkpoint(running, &cause);
    });
}

/// Runs a good batch and then `fatal` on a disk, in every way in which a batch can be run, and passes the causes to `check`.
/// What was there after the good batch must be there in the end.
fn on_disk(fatal: impl Fn() -> Vec<Step>, trouble: Option<Trouble>, check: impl Fn(Failure)) {
    use ExecutionMode::{Adaptive, Sequential, Speculate};
    for threads in [1, 3] {
        for mode in [Speculate, Sequential, Adaptive] {
            let mut config = ExecutorConfig::with_threads(threads);
            (config.mode, config.pin) = (mode, false);
            beside_another::<common::MultiMon>(|| check(ruin(config, fatal(), trouble)));
        }
    }
}

fn ruin(config: ExecutorConfig, fatal: Vec<Step>, trouble: Option<Trouble>) -> Failure {
    type Executor = MultiThreadedMonExecutor<Script, Disk, Collector<String>>;
    let (disk, node) = (Disk::default(), Collector::new());
    disk.set_trouble(trouble);
    let (handle, work) = Executor::init_handle_with(&config).unwrap();
    let initial = Some((disk.clone(), Vec::new()));
    let (_install, checkpoints) =
        Executor::init_with::<ReplicaReplier>(config, work, initial, Script, Arc::clone(&node)).unwrap();
    let good = (0..20).map(|_| step(|state| state.update("a", "key", "good")));
    handle.queue_update_and_get_appstate(batch(1, good)).unwrap();
    wait_until("the good batch", || handle.last_executed() == SeqNo(1));
    let before = disk.content();
    assert_eq!(before.committed, [SeqNo(1)]);
    handle.queue_update_and_get_appstate(batch(2, fatal)).unwrap();
    let cause = wait_for_failure(&handle);
    let end = within("join", || handle.join());
    assert_eq!(end.unwrap_err().to_string(), cause.to_string());
    assert_eq!(disk.content(), before, "{cause}");
    assert_eq!(node.take().len(), 20, "nobody is answered for what did not happen");
    assert_eq!(checkpoints.recv().unwrap().into_state().content(), before);
    assert!(matches!(checkpoints.recv(), Err(RecvError::Failed(_))));
    cause
}

/// A batch of twenty writes.
fn writes() -> Vec<Step> {
    (0..20).map(|n| step(move |state| state.update("a", &format!("key {n}"), "bad"))).collect()
}

/// At the last of them.
fn trouble(panics: bool) -> Option<Trouble> {
    Some(Trouble { batch: SeqNo(2), write: 19, panics })
}

#[test]
fn a_batch_that_panics_leaves_no_trace_on_disk() {
    let fatal = || {
        let mut steps = writes();
        steps.push(step(|state| -> () { panic!("after {:?}", state.read("a", "key 1")) }));
        steps
    };
    on_disk(fatal, None, |cause| {
        assert!(matches!(cause, Failure::OperationPanicked { position: Some(20), poisoned: false, .. }));
        assert!(cause.to_string().contains("after Some(\"bad\")"), "{cause}");
    });
}

/// A merge looks at what is there where it retires, outside of any operation.
#[test]
fn a_disk_that_cannot_be_read_for_a_merge_is_the_cause() {
    let fatal = || {
        let mut steps = writes();
        steps.push(step(|state| state.merge("a", "unreadable", &[1])));
        steps
    };
    on_disk(fatal, None, |cause| {
        assert!(
            matches!(cause, Failure::OperationPanicked { position: None, poisoned: false, .. }),
            "{cause}"
        );
        assert!(cause.to_string().contains("the sector cannot be read"), "{cause}");
    });
}

/// It is asked by operations that run beside others.
#[test]
fn a_panic_of_a_state_that_is_asked_for_a_place_is_the_cause() {
    let mut config = ExecutorConfig::with_threads(3);
    (config.mode, config.pin) = (ExecutionMode::Speculate, false);
    beside_another::<common::MultiMon>(|| {
        let mut fatal = writes();
        fatal.push(step(|state| state.update("a", "nowhere", "bad")));
        let cause = ruin(config, fatal, None);
        assert!(
            matches!(cause, Failure::OperationPanicked { position: Some(20), poisoned: false, .. }),
            "{cause}"
        );
        assert!(cause.to_string().contains("there is no such sector"), "{cause}");
    });
}

#[test]
fn a_commit_that_is_refused_leaves_no_trace_on_disk() {
    on_disk(writes, trouble(false), |cause| {
        assert!(matches!(cause, Failure::CommitRefused { batch: SeqNo(2), .. }), "{cause}");
        assert!(cause.to_string().contains("the disk is full"), "{cause}");
    });
}

/// The executor's own thread looks into its queue between operations of the batch, and finds the unordered request there.
#[test]
fn a_panic_beside_a_batch_leaves_no_trace_on_disk() {
    type Executor = MultiThreadedMonExecutor<Script, Disk, Collector<String>>;
    let mut config = ExecutorConfig::with_threads(1);
    (config.mode, config.chunk) = (ExecutionMode::Speculate, Some(1));
    let (disk, node, gate) = (Disk::default(), Collector::new(), Gate::new());
    let (handle, work) = Executor::init_handle_with(&config).unwrap();
    let initial = Some((disk.clone(), Vec::new()));
    let _channels =
        Executor::init_with::<ReplicaReplier>(config, work, initial, Script, Arc::clone(&node)).unwrap();
    handle.queue_update(batch(1, [step(|state| state.put("a", "key", "1")).after(&gate)])).unwrap();
    gate.wait_for_visitor();
    handle.queue_update_unordered(reads(1, [step(|_| "scripts are ordered")])).unwrap();
    gate.open();
    let cause = wait_for_failure(&handle);
    assert!(matches!(cause, Failure::UnorderedPanicked { .. }), "{cause}");
    assert!(cause.to_string().contains("scripts are ordered"), "{cause}");
    // Nobody was answered for the batch: so it must not have happened, and is to be executed again.
    assert_eq!((disk.content().committed, handle.last_executed()), (Vec::new(), SeqNo::ZERO));
    assert!(within("join", || handle.join()).is_err());
    assert!(node.take().is_empty());
}

#[test]
fn a_panic_in_commit_is_the_cause() {
    on_disk(writes, trouble(true), |cause| {
        assert!(matches!(cause, Failure::CommitPanicked { batch: SeqNo(2), .. }), "{cause}");
        assert!(cause.to_string().contains("the disk is gone"), "{cause}");
    });
}

/// Adds up numbers in one key, blindly. Number 13 is a misfortune: its hints panic, or its merge does.
#[derive(Clone)]
struct Sums {
    hints_panic: bool,
    drop_panics: bool,
}

const SUMS: Sums = Sums { hints_panic: false, drop_panics: false };

const MISFORTUNE: u64 = 13;

impl ApplicationData for Sums {
    type Request = u64;
    type Reply = u64;
}

impl Application<ShardedState> for Sums {
    type AppData = Sums;

    fn initial_state() -> Result<ShardedState, BoxError> {
        Ok(ShardedState::new())
    }

    fn unordered_execution(&self, _: &ShardedState, number: u64) -> u64 {
        number
    }

    fn update(&self, state: &mut ShardedState, number: u64) -> u64 {
        self.speculatively_execute(state, number)
    }
}

impl ScalableApp<ShardedState> for Sums {
    const HINTS: bool = true;

    fn hints(&self, number: &u64, hints: &mut impl Hints) {
        hints.merges("sums", b"sum");
        assert!(!self.hints_panic || *number != MISFORTUNE, "the hints panic");
    }

    fn speculatively_execute(&self, state: &mut impl CRUDState, number: u64) -> u64 {
        state.merge("sums", b"sum", &number.to_le_bytes());
        number
    }
}

impl Drop for Sums {
    fn drop(&mut self) {
        assert!(!self.drop_panics || std::thread::panicking(), "the destructor panics");
    }
}

/// Bitwise "or", which is as lawful as can be, but for the misfortune.
struct Or;

impl Merge for Or {
    fn combine(&self, a: &[u8], b: &[u8], out: &mut Vec<u8>) {
        assert!(b != MISFORTUNE.to_le_bytes(), "the merge panics");
        out.extend(a.iter().zip(b).map(|(a, b)| a | b));
    }
}

fn hinted(threads: usize) -> ExecutorConfig {
    let mut config = ExecutorConfig::with_threads(threads);
    (config.mode, config.pin) = (ExecutionMode::SpeculateByHints, false);
    config
}

/// Hints change no result; neither does it that there are none.
fn a_panic_in_hints_changes_nothing<R: Rig>() {
    let numbers = |seq| batch(seq, (0..40).map(move |n| if seq % 2 == 0 { n } else { 100 + n }));
    let batches: Vec<_> = (1..=6).map(numbers).collect();
    for threads in [1, 3] {
        let app = Sums { hints_panic: true, ..SUMS };
        rig::check::<R, _>(&hinted(threads), &app, &ShardedState::new(), &batches);
    }
}

/// Runs one batch on an executor that fails, and returns why, how many replies left, and whether a checkpoint did.
fn end_of<E>(config: ExecutorConfig, app: Sums, numbers: std::ops::Range<u64>) -> (Failure, usize, bool)
where
    E: TMonolithicStateExecutor<Sums, ShardedState, Collector<u64>>,
{
    let (handle, work) = E::init_handle_with(&config).unwrap();
    let mut state =
        ShardedState::builder().merge_operator("sums", MergeOperator::Custom(&Or)).build().unwrap();
    state.put("sums", b"sum", &[0; 8]);
    let node = Collector::new();
    let initial = Some((state, Vec::new()));
    let (_install, checkpoints) =
        E::init_with::<ReplicaReplier>(config, work, initial, app, Arc::clone(&node)).unwrap();
    handle.queue_update_and_get_appstate(batch(1, numbers)).unwrap();
    let failure = within("join", || handle.join()).unwrap_err();
    (failure, node.take().len(), checkpoints.recv().is_ok())
}

#[test]
fn a_panic_in_a_merge_is_the_cause() {
    type Single = SingleThreadedMonExecutor<Sums, ShardedState, Collector<u64>>;
    type Multi = MultiThreadedMonExecutor<Sums, ShardedState, Collector<u64>>;
    let check = |(failure, replies, checkpoint), in_place| {
        let Failure::OperationPanicked { batch: SeqNo(1), ref message, poisoned, .. } = failure else {
            panic!("{failure:?}")
        };
        assert_eq!((&**message, poisoned, replies, checkpoint), ("the merge panics", in_place, 0, false));
    };
    // Alone, it has nothing of the batch to be merged into.
    for numbers in [0..40, MISFORTUNE..MISFORTUNE + 1] {
        check(end_of::<Single>(hinted(1), SUMS, numbers.clone()), true);
        for threads in [1, 3] {
            for mode in [ExecutionMode::Speculate, ExecutionMode::SpeculateByHints] {
                let mut config = hinted(threads);
                config.mode = mode;
                check(end_of::<Multi>(config, SUMS, numbers.clone()), false);
            }
        }
    }
}

#[test]
fn a_panic_of_a_destructor_at_the_end_is_told() {
    type Single = SingleThreadedMonExecutor<Sums, ShardedState, Collector<u64>>;
    type Multi = MultiThreadedMonExecutor<Sums, ShardedState, Collector<u64>>;
    let app = || Sums { drop_panics: true, ..SUMS };
    for (failure, replies, checkpoint) in
        [end_of::<Single>(hinted(1), app(), 0..5), end_of::<Multi>(hinted(3), app(), 0..5)]
    {
        assert!(matches!(failure, Failure::Internal { batch: SeqNo(1), .. }), "{failure:?}");
        assert!(failure.to_string().contains("while the executor was stopping"), "{failure}");
        assert_eq!((replies, checkpoint), (5, true), "what was executed leaves all the same");
    }
}

#[test]
fn the_table_is_complete() {
    assert_table("panics.rs", 17);
}

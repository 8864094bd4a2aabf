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
//! | a state's `commit` | panics.rs::a_panic_in_commit_is_the_cause |
//! | a state's `commit`, an error | panics.rs::a_commit_that_is_refused_leaves_no_trace_on_disk |
//! | a state's `snapshot` | transfer.rs::a_panic_in_snapshot_is_the_cause |
//! | a state's `descriptor`, `part` | transfer.rs::a_panic_in_a_part_is_the_cause |
//! | the reply node | replies.rs::a_panic_of_the_network_stops_the_executor_with_its_cause |
//! | the reply node, while the executor idles | replies.rs::a_panic_of_the_network_stops_an_executor_that_idles |

mod common;

use std::sync::Arc;

use atlas_smr_execution::batch::{NodeId, SeqNo};
use atlas_smr_execution::error::Failure;
use atlas_smr_execution::executor::*;
use atlas_smr_execution::reply::ReplicaReplier;
use common::disk::{Disk, Trouble};
use common::rig::Collector;
use common::script::{Script, Step, step};
use common::*;

on!([SingleMon, MultiMon, SingleDiv, MultiDiv] {
    a_panic_ahead_of_the_turn_is_no_failure,
    a_panic_at_the_turn_alone_is_the_cause,
    a_panic_in_update_is_the_cause_and_its_state_never_leaves,
    a_panic_in_an_unordered_request_is_the_cause,
});

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

#[test]
fn a_commit_that_is_refused_leaves_no_trace_on_disk() {
    on_disk(writes, trouble(false), |cause| {
        assert!(matches!(cause, Failure::CommitRefused { batch: SeqNo(2), .. }), "{cause}");
        assert!(cause.to_string().contains("the disk is full"), "{cause}");
    });
}

#[test]
fn a_panic_in_commit_is_the_cause() {
    on_disk(writes, trouble(true), |cause| {
        assert!(matches!(cause, Failure::CommitPanicked { batch: SeqNo(2), .. }), "{cause}");
        assert!(cause.to_string().contains("the disk is gone"), "{cause}");
    });
}

#[test]
fn the_table_is_complete() {
    assert_table("panics.rs", 12);
}

//! Batches that wait and are taken together: nothing may tell from outside, but the number of commits, and counters.

mod common;

use std::sync::Arc;

use atlas_smr_execution::batch::{MaybeVec, NodeId, SeqNo, UpdateBatch};
use atlas_smr_execution::error::Failure;
use atlas_smr_execution::executor::*;
use atlas_smr_execution::metrics::{EXECUTION_LATENCY_ID, EXECUTION_TIME_TAKEN_ID};
use atlas_smr_execution::reply::{ReplicaReplier, RequestType};
use atlas_smr_execution::state::CRUDState;
use common::disk::{Disk, Trouble};
use common::rig::Collector;
use common::script::{Script, Step, step};
use common::state::TestState;
use common::*;

on!([SingleMon, MultiMon, SingleDiv, MultiDiv] {
    what_is_joined_equals_the_loop,
    the_failing_batch_is_found,
    what_was_executed_is_skipped,
    an_empty_batch_does_not_bring_back_what_was_executed,
    what_is_caught_up_is_joined,
    whatever_is_found_out_nobody_can_tell,
});

/// Where the mode is forced, so is joining, and nothing is a matter of time.
mod forced {
    use super::*;

    on!([MultiMon, MultiDiv] {
        whatever_stands_between_batches_keeps_them_apart,
        no_more_than_allowed_are_joined,
        a_failure_beside_them_ends_all,
        each_has_its_latency,
        a_request_behind_them_is_answered_beside_them,
    });
}

/// Joins up to `join` operations.
fn joining(join: usize) -> Setup {
    Setup::config(|config| (config.join, config.pin) = (join, false))
}

/// Queues while the executor stands before a gate, and lets it go on.
fn meanwhile(running: &Running, queue: impl FnOnce(&ExecutorHandle<Op>)) {
    let gate = Gate::new();
    running.handle.queue_update_unordered(reads(9, [Op::Wait(Arc::clone(&gate))])).unwrap();
    gate.wait_for_visitor();
    queue(&running.handle);
    gate.open();
}

/// Batches of 0 to 12 operations on few keys.
fn batches(count: u64) -> Vec<UpdateBatch<Op>> {
    const KEYS: [&str; 4] = ["a", "b", "c", "d"];
    let operation = |seq: u64, n: u64| {
        let key = KEYS[((seq * 7 + n * n) % 4) as usize];
        match (seq + n) % 5 {
            0 => Op::Delete(key),
            1 => Op::Get(key),
            2 => Op::Put(key, seq),
            _ => Op::Add(key, n + 1),
        }
    };
    (1..=count).map(|seq| batch(seq, (0..seq * 5 % 13).map(|n| operation(seq, n)))).collect()
}

/// The values that the loop replies to `batches`, and the numbers of their operations.
fn expected(batches: &[UpdateBatch<Op>]) -> Vec<(u64, Option<u64>)> {
    let mut state = TestState::default();
    let updates = batches.iter().flat_map(|batch| batch.updates());
    updates.map(|update| (update.operation_id().0, run(&mut state, update.operation()))).collect()
}

/// The ordered replies that have left.
fn replied(net: &Net) -> Vec<(u64, Option<u64>)> {
    let sent = net.sent();
    let ordered = sent.iter().filter(|sent| sent.kind == RequestType::Ordered);
    ordered.map(|sent| (sent.operation, sent.value)).collect()
}

fn what_is_joined_equals_the_loop<K: Kind>() {
    for mode in [ExecutionMode::Speculate, ExecutionMode::Adaptive] {
        let mut setup = joining(1024);
        setup.config.mode = mode;
        let (running, batches) = (setup.start::<K>(), batches(200));
        for batches in batches.chunks(50) {
            meanwhile(&running, |handle| {
                batches.iter().for_each(|batch| handle.queue_update(batch.clone()).unwrap());
            });
        }
        let arrived = running.read();
        assert_eq!((arrived.seq, arrived.state), (200, reference(&batches)));
        let counters = running.counters();
        let operations = batches.iter().map(|batch| batch.len() as u64).sum();
        assert_eq!((counters.batches, counters.operations), (200, operations));
        if mode == ExecutionMode::Speculate && K::RUNS_AHEAD {
            assert_eq!(counters.joined_batches, 200);
        }
        assert_eq!(replied(&running.finish()), expected(&batches), "{mode:?}");
    }
}

fn whatever_stands_between_batches_keeps_them_apart<K: Kind>() {
    let (running, batches) = (joining(1024).start::<K>(), batches(9));
    meanwhile(&running, |handle| {
        for batch in &batches[..8] {
            match batch.sequence_number().0 {
                3 => handle.queue_update_and_get_appstate(batch.clone()).unwrap(),
                _ => handle.queue_update(batch.clone()).unwrap(),
            }
            if batch.sequence_number() == SeqNo(6) {
                handle.read_state(NodeId(99)).unwrap();
            }
        }
        handle.queue_update_unordered(reads(77, [Op::Get("a")])).unwrap();
        handle.queue_update(batches[8].clone()).unwrap();
    });
    let third = running.checkpoints.next(&TestState::default()).unwrap();
    assert_eq!((third.seq, third.state.clone()), (3, reference(&batches[..3])));
    let sixth = running.checkpoints.next(&third.state).unwrap();
    assert_eq!((sixth.seq, sixth.state), (6, reference(&batches[..6])));
    running.net.wait_for(expected(&batches).len() + 2);
    // 1 and 2; 4 to 6; 7 and 8, or to 9 if the request between them is answered beside an earlier one.
    assert!([7, 8].contains(&running.counters().joined_batches), "{:?}", running.counters());
    let net = running.finish();
    assert_eq!(replied(&net), expected(&batches));
    let seen = net.sent().iter().find(|sent| sent.operation == 77).unwrap().value;
    let states = [0, 2, 3, 6, 8].map(|count| run(&mut reference(&batches[..count]), &Op::Get("a")));
    assert!(states.contains(&seen), "never between batches that are joined: {seen:?}");
}

fn no_more_than_allowed_are_joined<K: Kind>() {
    for (join, joined, operations) in
        [(0, 0, 3), (3, 0, 3), (5, 0, 3), (6, 20, 3), (9, 20, 3), (1024, 20, 3), (1024, 20, 0)]
    {
        let running = joining(join).start::<K>();
        meanwhile(&running, |handle| {
            (1..=20).for_each(|seq| {
                let adds = (0..operations).map(|_| Op::Add("a", 1));
                handle.queue_update(batch(seq, adds)).unwrap();
            });
        });
        // With nine, six times three batches and one of two. What is executed is counted a little later.
        wait_until(&format!("{joined} joined batches"), || {
            let counters = running.counters();
            (counters.batches, counters.joined_batches) == (20, joined)
        });
        assert_eq!(running.handle.last_executed(), SeqNo(20));
        running.finish();
    }
}

fn the_failing_batch_is_found<K: Kind>() {
    for failing in 1..=8_u64 {
        let running = joining(1024).start::<K>();
        let mut batches = batches(8);
        batches[failing as usize - 1] = batch(failing, [Op::Put("a", 1), Op::Panic, Op::Get("a")]);
        meanwhile(&running, |handle| {
            batches.iter().for_each(|batch| handle.queue_update(batch.clone()).unwrap());
        });
        let cause = running.wait_for_failure();
        let Failure::OperationPanicked { batch, position, poisoned, .. } = &cause else { panic!("{cause}") };
        let in_place = !K::RUNS_AHEAD;
        assert_eq!((*batch, *poisoned), (SeqNo(failing), in_place));
        assert_eq!(*position, (!in_place).then_some(1));
        assert_eq!(running.handle.last_executed(), SeqNo(failing - 1));
        assert_eq!(running.counters().batches, failing - 1);
        let (end, net, _) = running.join();
        assert!(end.is_err());
        assert_eq!(
            replied(&net),
            expected(&batches[..failing as usize - 1]),
            "all before it, and nothing else"
        );
    }
}

fn a_failure_beside_them_ends_all<K: Kind>() {
    let running = joining(1024).start::<K>();
    let held = Gate::new();
    meanwhile(&running, |handle| {
        handle.queue_update(batch(1, [Op::Put("a", 1), Op::Wait(Arc::clone(&held))])).unwrap();
        handle.queue_update(batch(2, [Op::Put("a", 2)])).unwrap();
    });
    held.wait_for_visitor();
    running.handle.queue_update_unordered(reads(1, [Op::Panic])).unwrap();
    held.open();
    let cause = running.wait_for_failure();
    assert!(matches!(cause, Failure::UnorderedPanicked { .. }), "{cause}");
    let executed = running.handle.last_executed();
    let (end, net, _) = running.join();
    assert!(end.is_err());
    // It is asked beside the two, or after them.
    let replies = replied(&net).len();
    assert!([(SeqNo::ZERO, 0), (SeqNo(2), 3)].contains(&(executed, replies)), "{executed} {replies}");
}

fn a_request_behind_them_is_answered_beside_them<K: Kind>() {
    // On one thread the executor's own passes the gate, and looks into its queue after that, before the commit.
    let mut setup = joining(1024);
    (setup.config.threads, setup.config.chunk) = (Some(1), Some(1));
    let (running, held) = (setup.start::<K>(), Gate::new());
    meanwhile(&running, |handle| {
        let ops = [Op::Wait(Arc::clone(&held)), Op::Put("a", 1), Op::Put("a", 2), Op::Put("a", 3)];
        handle.queue_update(batch(1, ops)).unwrap();
        handle.queue_update(batch(2, [Op::Put("a", 4)])).unwrap();
        handle.queue_update_unordered(reads(77, [Op::Get("a")])).unwrap();
    });
    held.open();
    let metrics = running.handle.metrics();
    let net = running.finish();
    let seen = net.sent().into_iter().find(|sent| sent.operation == 77).expect("an answer");
    assert_eq!((seen.value, metrics.counters().unordered_beside), (None, 1), "the state before both");
}

fn what_is_caught_up_is_joined<K: Kind>() {
    let (running, batches) = (joining(64).start::<K>(), batches(100));
    running.handle.catch_up_to_quorum(MaybeVec::Several(batches[..99].to_vec())).unwrap();
    running.handle.queue_update(batches[99].clone()).unwrap();
    let arrived = running.read();
    assert_eq!((arrived.seq, arrived.state), (100, reference(&batches)));
    let counters = running.counters();
    assert!(!K::RUNS_AHEAD || (90..=100).contains(&counters.joined_batches), "{counters:?}");
    assert_eq!(counters.batches, 100);
    let expected = expected(&batches);
    let last = expected.len() - batches[99].len();
    assert_eq!(replied(&running.finish()), expected[last..], "others were answered by others");
}

fn what_was_executed_is_skipped<K: Kind>() {
    let (running, batches) = (joining(1024).start::<K>(), batches(6));
    meanwhile(&running, |handle| {
        for seq in [1, 2, 2, 1, 3, 4, 4, 5, 3, 6] {
            handle.queue_update(batches[seq - 1].clone()).unwrap();
        }
    });
    assert_eq!(running.read().state, reference(&batches));
    let counters = running.counters();
    assert_eq!((counters.batches, counters.skipped_batches), (6, 4));
    assert_eq!(replied(&running.finish()), expected(&batches));
}

fn an_empty_batch_does_not_bring_back_what_was_executed<K: Kind>() {
    let running = joining(1024).start::<K>();
    let add = |seq| batch(seq, [Op::Add("a", 1)]);
    running.handle.catch_up_to_quorum(MaybeVec::Several(vec![add(1), add(2)])).unwrap();
    for first in [2, 1] {
        let seq = 10 - 2 * first;
        let batches = vec![add(first), batch(seq, []), batch(seq + 1, [])];
        running.handle.catch_up_to_quorum(MaybeVec::Several(batches)).unwrap();
        meanwhile(&running, |handle| {
            handle.queue_update(add(first)).unwrap();
            handle.queue_update(batch(seq + 20, [])).unwrap();
        });
    }
    let arrived = running.read();
    assert_eq!((arrived.seq, arrived.state), (28, reference(&[add(1), add(2)])));
    assert_eq!(running.counters().skipped_batches, 6);
    assert!(replied(&running.finish()).is_empty());
}

fn each_has_its_latency<K: Kind>() {
    let (running, batches) = (joining(1024).start::<K>(), batches(10));
    meanwhile(&running, |handle| {
        batches.iter().for_each(|batch| handle.queue_update(batch.clone()).unwrap());
    });
    running.net.wait_for(expected(&batches).len() + 1);
    let metrics = running.handle.metrics();
    let recorded = |id| metrics.histogram(id).unwrap().len();
    assert_eq!((recorded(EXECUTION_LATENCY_ID), recorded(EXECUTION_TIME_TAKEN_ID)), (10, 1));
    running.finish();
}

/// More is joined, or less, in this way or that, by what batches took.
fn whatever_is_found_out_nobody_can_tell<K: Kind>() {
    let mut setup = joining(1024);
    (setup.config.mode, setup.config.threads) = (ExecutionMode::Adaptive, Some(2));
    let running = setup.start::<K>();
    let batches: Vec<_> = (1..=20_000).map(|seq| batch(seq, [Op::Add("a", 1), Op::Get("b")])).collect();
    for batches in batches.chunks(1000) {
        meanwhile(&running, |handle| {
            batches.iter().for_each(|batch| handle.queue_update(batch.clone()).unwrap());
        });
    }
    assert_eq!(running.read().state, reference(&batches));
    let counters = running.counters();
    assert!(counters.joined_batches > 0, "{counters:?}");
    assert_eq!(replied(&running.finish()), expected(&batches));
}

/// An executor on a disk, which joins.
fn mount(disk: &Disk, mode: ExecutionMode, threads: usize) -> (ExecutorHandle<Step>, Arc<Collector<String>>) {
    type Executor = MultiThreadedMonExecutor<Script, Disk, Collector<String>>;
    let mut config = ExecutorConfig::with_threads(threads);
    (config.mode, config.pin) = (mode, false);
    let (handle, work) = Executor::init_handle_with(&config).unwrap();
    let (node, initial) = (Collector::new(), Some((disk.clone(), Vec::new())));
    let channels = Executor::init_with::<ReplicaReplier>(config, work, initial, Script, Arc::clone(&node));
    channels.unwrap();
    (handle, node)
}

/// Adds one to a number, twelve times.
fn counts(seq: u64) -> UpdateBatch<Step> {
    let count = |_| {
        step(|state| {
            let before = state.read("a", "number").map_or(0, |number| number.parse().unwrap());
            state.update("a", "number", &u64::to_string(&(before + 1)));
            before
        })
    };
    batch(seq, (0..12).map(count))
}

const WAYS: [(ExecutionMode, usize); 4] = [
    (ExecutionMode::Sequential, 1),
    (ExecutionMode::Adaptive, 3),
    (ExecutionMode::Speculate, 1),
    (ExecutionMode::Speculate, 3),
];

#[test]
fn a_disk_commits_them_at_once() {
    for (mode, threads) in WAYS {
        let disk = Disk::default();
        let (handle, node) = mount(&disk, mode, threads);
        handle.catch_up_to_quorum(MaybeVec::Several((1..=10).map(counts).collect())).unwrap();
        within("join", || handle.join()).unwrap();
        assert_eq!(disk.content().committed.last(), Some(&SeqNo(10)));
        assert_eq!(disk.content().map.read("a", b"number").as_deref(), Some(&b"120"[..]));
        // Unless joining is forced, it depends on how long the first ones take.
        let most = if mode == ExecutionMode::Speculate { 1 } else { 10 };
        assert!(disk.commits() <= most, "{mode:?}");
        assert!(node.take().is_empty());
    }
}

/// Catches up on five batches; on its disk, the first write of a commit numbered 5 goes wrong.
fn in_trouble(mode: ExecutionMode, threads: usize, panics: bool) -> (Disk, Failure, SeqNo) {
    let disk = Disk::default();
    disk.set_trouble(Some(Trouble { batch: SeqNo(5), write: 0, panics }));
    let (handle, _) = mount(&disk, mode, threads);
    handle.catch_up_to_quorum(MaybeVec::Several((1..=5).map(counts).collect())).unwrap();
    (disk, wait_for_failure(&handle), handle.last_executed())
}

#[test]
fn a_commit_that_is_refused_leaves_what_came_before_its_batch() {
    for (mode, threads) in WAYS {
        let (disk, cause, last_executed) = in_trouble(mode, threads, false);
        assert!(matches!(cause, Failure::CommitRefused { batch: SeqNo(5), .. }), "{cause}");
        assert_eq!((last_executed, disk.content().committed.last()), (SeqNo(4), Some(&SeqNo(4))));
        assert_eq!(disk.content().map.read("a", b"number").as_deref(), Some(&b"48"[..]));
        if mode == ExecutionMode::Speculate {
            assert_eq!(disk.commits(), 6, "all as one, and then each");
        }
    }
}

#[test]
fn a_commit_that_panics_leaves_none_of_them() {
    for (mode, threads) in WAYS {
        let (disk, cause, last_executed) = in_trouble(mode, threads, true);
        assert!(matches!(cause, Failure::CommitPanicked { batch: SeqNo(5), .. }), "{cause}");
        let committed = disk.content().committed;
        assert_eq!(last_executed, committed.last().copied().unwrap_or_default());
        assert_eq!(disk.commits(), committed.len() as u64 + 1, "the last one is not tried again");
        assert!(committed.is_empty() || mode != ExecutionMode::Speculate);
    }
}

#[test]
fn before_a_failing_batch_a_disk_has_what_came_before() {
    for (mode, threads) in WAYS {
        let disk = Disk::default();
        let (handle, _) = mount(&disk, mode, threads);
        let mut batches: Vec<_> = (1..=6).map(counts).collect();
        batches[3] = batch(4, [step(|_| -> u8 { panic!("at its turn") })]);
        handle.catch_up_to_quorum(MaybeVec::Several(batches)).unwrap();
        let cause = wait_for_failure(&handle);
        let at_four = matches!(cause, Failure::OperationPanicked { batch: SeqNo(4), position: Some(0), .. });
        assert!(at_four, "{cause}");
        assert_eq!(disk.content().committed.last(), Some(&SeqNo(3)));
        assert_eq!(disk.content().map.read("a", b"number").as_deref(), Some(&b"36"[..]));
    }
}

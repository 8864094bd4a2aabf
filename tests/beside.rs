//! Unordered requests beside an ordered batch: how many of them, and beside which. What they see and that they are
//! answered at all is shown in `replies.rs`; that only requests count, not looks, in `src/executor/beside.rs`.

mod common;

use std::sync::Arc;

use atlas_smr_execution::batch::UpdateBatch;
use atlas_smr_execution::executor::ExecutorConfig;
use atlas_smr_execution::reply::RequestType;
use common::state::TestState;
use common::*;

on!([MultiMon, MultiDiv] {
    who_asks_without_a_pause_does_not_keep_a_batch_from_its_end,
    those_that_waited_when_the_batch_began_do_not_count,
    nobody_sees_a_catch_up_without_its_end,
    nobody_sees_the_initial_replay_without_its_end,
});

/// How many may be answered beside a batch, besides those that waited when it began.
const BOUND: u64 = 64;

/// On one thread the executor's own looks into its queue after the last operation, before the commit.
fn alone(config: &mut ExecutorConfig) {
    config.threads = Some(1);
}

/// A batch that stands before `gate`, and then gives "a" a value.
fn held(seq: u64, gate: &Arc<Gate>) -> UpdateBatch<Op> {
    batch(seq, [Op::Wait(Arc::clone(gate)), Op::Put("a", 5)])
}

/// What came of requests for "a": unordered replies that saw the state before the batch, and after it.
fn seen(net: &Net) -> (u64, u64) {
    let sent = net.sent();
    let count = |value| {
        let matches = |sent: &&Sent| sent.kind == RequestType::Unordered && sent.value == value;
        sent.iter().filter(matches).count() as u64
    };
    (count(None), count(Some(5)))
}

fn who_asks_without_a_pause_does_not_keep_a_batch_from_its_end<K: Kind>() {
    let (running, gate) = (Setup::config(alone).start::<K>(), Gate::new());
    running.handle.queue_update(held(1, &gate)).unwrap();
    gate.wait_for_visitor();
    let asks = Op::AskUntil("a", running.handle.clone());
    running.handle.queue_update_unordered(reads(7, [asks])).unwrap();
    gate.open();
    let metrics = running.handle.metrics();
    let net = running.finish();
    assert_eq!(metrics.counters().unordered_beside, BOUND);
    assert_eq!(seen(&net), (BOUND, 1), "the next one comes after the batch, and sees it");
}

fn those_that_waited_when_the_batch_began_do_not_count<K: Kind>() {
    let (running, first, second) = (Setup::config(alone).start::<K>(), Gate::new(), Gate::new());
    // Not ordered, so that nothing is taken out of the queue before the batch begins.
    running.handle.queue_update_unordered(reads(1, [Op::Wait(Arc::clone(&first))])).unwrap();
    first.wait_for_visitor();
    running.handle.queue_update(held(1, &second)).unwrap();
    for number in 0..10 {
        running.handle.queue_update_unordered(reads(100 + number, [Op::Get("a")])).unwrap();
    }
    running.handle.queue_update_unordered(reads(7, [Op::AskUntil("a", running.handle.clone())])).unwrap();
    first.open();
    second.open();
    let metrics = running.handle.metrics();
    running.finish();
    // Ten, and the first of those that go on asking.
    assert_eq!(metrics.counters().unordered_beside, 11 + BOUND);
}

/// Asks for "a" while the executor stands before `gate`, and expects the answer to be what it is after it.
fn asked_at<K: Kind>(running: Running, gate: &Gate) {
    gate.wait_for_visitor();
    running.handle.queue_update_unordered(reads(7, [Op::Get("a")])).unwrap();
    gate.open();
    let metrics = running.handle.metrics();
    assert_eq!(seen(&running.finish()), (0, 1));
    assert_eq!(metrics.counters().unordered_beside, 0);
    assert_eq!(metrics.counters().sequential_batches, 0, "it would have looked");
}

fn nobody_sees_a_catch_up_without_its_end<K: Kind>() {
    let (running, gate) = (Setup::config(alone).start::<K>(), Gate::new());
    let missed = vec![batch(1, [Op::Put("b", 1)]), held(2, &gate), batch(3, [Op::Put("b", 2)])];
    running.handle.catch_up_to_quorum(missed.into()).unwrap();
    asked_at::<K>(running, &gate);
}

fn nobody_sees_the_initial_replay_without_its_end<K: Kind>() {
    let gate = Gate::new();
    let mut setup = Setup::config(alone);
    setup.initial = Some((TestState::default(), vec![Op::Wait(Arc::clone(&gate)), Op::Put("a", 5)]));
    asked_at::<K>(setup.start::<K>(), &gate);
}

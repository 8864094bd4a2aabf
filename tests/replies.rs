//! Replies: their order, their flush marks, who gets them, and a network that fails.

mod common;

use std::sync::Arc;

use atlas_smr_execution::batch::{NodeId, SeqNo, UnorderedBatch, UpdateBatch};
use atlas_smr_execution::error::Failure;
use atlas_smr_execution::metrics::{REPLIES_PASSING_TIME_ID, REPLY_SENT_TIME_ID};
use atlas_smr_execution::reply::{FollowerReplier, ReplicaReplier, RequestType};
use common::*;

on!([SingleMon, MultiMon, SingleDiv, MultiDiv] {
    batches_of_any_small_size_are_answered_in_order,
    replies_keep_the_order_of_operations_and_batches,
    a_slow_network_holds_execution_up_and_nothing_is_lost,
    the_last_reply_of_a_run_is_flushed,
    unordered_replies_keep_their_order,
    a_follower_answers_unordered_requests_only,
    an_unreachable_client_harms_nobody_else,
    a_panic_of_the_network_stops_the_executor_with_its_cause,
    a_panic_of_the_network_stops_an_executor_that_idles,
});

mod ahead_of_turn {
    use super::*;

    on!([MultiMon, MultiDiv] {
        unordered_requests_do_not_wait_for_the_batch_that_runs,
        a_panic_beside_a_batch_is_the_cause,
    });
}

fn batches_of_any_small_size_are_answered_in_order<K: Kind>() {
    let running = start::<K>();
    for (seq, size) in [0, 1, 2, 3, 0, 3].into_iter().enumerate() {
        let ops = (0..size).map(|_| Op::Add("a", 1));
        running.handle.queue_update(batch(1 + seq as u64, ops)).unwrap();
    }
    let counters = running.handle.metrics();
    let net = running.finish();
    assert_eq!(net.operations(), [2000, 3000, 3001, 4000, 4001, 4002, 6000, 6001, 6002]);
    assert_eq!(net.values(), (1..=9).map(Some).collect::<Vec<_>>());
    assert_eq!(counters.counters().batches, 6);
    assert_eq!(counters.counters().operations, 9);
}

fn replies_keep_the_order_of_operations_and_batches<K: Kind>() {
    let running = start::<K>();
    let keys = ["a", "b", "c", "d"];
    let mut batches = Vec::new();
    for seq in 1..=60 {
        let ops = (0..seq % 40).map(|n| Op::Add(keys[(n * seq) as usize % 4], n));
        batches.push(batch(seq, ops));
        running.handle.queue_update(batches.last().unwrap().clone()).unwrap();
    }
    let expected: Vec<u64> =
        batches.iter().flat_map(|b| b.updates().iter().map(|u| u.operation_id().0)).collect();
    running.net.wait_for(expected.len());
    assert_eq!(running.read().state, reference(&batches));
    let metrics = running.handle.metrics();
    let net = running.finish();
    assert_eq!(net.operations(), expected);
    // One of the sixty batches is empty.
    assert_eq!(metrics.histogram(REPLY_SENT_TIME_ID).unwrap().len(), 59);
    assert_eq!(metrics.histogram(REPLIES_PASSING_TIME_ID).unwrap().len(), 59);
}

fn a_slow_network_holds_execution_up_and_nothing_is_lost<K: Kind>() {
    let gate = Gate::new();
    let net = Net { gate: Some(Arc::clone(&gate)), ..Net::default() };
    let mut setup = Setup::net(net);
    setup.config.reply_buffer = 1;
    let running = setup.start::<K>();
    for seq in 1..=20 {
        running.handle.queue_update(batch(seq, [Op::Add("a", 1)])).unwrap();
    }
    gate.wait_for_visitor();
    // One batch is being sent, one waits, one is in the executor's hands: back-pressure.
    assert!(running.handle.last_executed() <= SeqNo(3));
    gate.open();
    let net = running.finish();
    assert_eq!(net.values(), (1..=20).map(Some).collect::<Vec<_>>());
}

fn the_last_reply_of_a_run_is_flushed<K: Kind>() {
    let running = start::<K>();
    let to = [7, 7, 8, 7, 9, 9, 9];
    for seq in 1..=2 {
        let mut batch = UpdateBatch::with_capacity(SeqNo(seq), to.len());
        for (position, to) in to.into_iter().enumerate() {
            batch.add(NodeId(to), SeqNo(0), SeqNo(position as u64), Op::Add("a", 1));
        }
        running.handle.queue_update(batch).unwrap();
    }
    // The second batch goes on with the client that the first ended with: a batch's end is a run's end.
    let mut next = UpdateBatch::new(SeqNo(3));
    next.add(NodeId(9), SeqNo(0), SeqNo(0), Op::Get("a"));
    running.handle.queue_update(next).unwrap();
    let sent = running.finish().sent();
    let flushes: Vec<bool> = sent.iter().map(|sent| sent.flush).collect();
    let once = [false, true, true, true, false, false, true];
    assert_eq!(flushes, [&once[..], &once[..], &[true]].concat());
    assert_eq!(sent[..7].iter().map(|sent| sent.to).collect::<Vec<_>>(), to);
}

fn unordered_replies_keep_their_order<K: Kind>() {
    let running = start::<K>();
    running.handle.queue_update(batch(1, [Op::Put("a", 5), Op::Put("b", 6)])).unwrap();
    // Asked before that, they might be answered on the state before the batch.
    running.net.wait_for(2);
    let mut requests = UnorderedBatch::new();
    for n in 0..500 {
        let key = ["a", "b", "c"][n as usize % 3];
        requests.add(NodeId(n % 2), SeqNo(0), SeqNo(u64::from(n)), Op::Get(key));
    }
    running.handle.queue_update_unordered(requests).unwrap();
    running.handle.queue_update_unordered(UnorderedBatch::new()).unwrap();
    let metrics = running.handle.metrics();
    let sent = running.finish().sent();
    assert_eq!(metrics.counters().unordered_operations, 500);
    for (n, sent) in sent[2..].iter().enumerate() {
        assert_eq!((sent.kind, sent.operation), (RequestType::Unordered, n as u64));
        assert_eq!(sent.value, [Some(5), Some(6), None][n % 3]);
    }
    assert_eq!(sent.len(), 502);
}

/// On one thread the executor's own passes the gate, and looks into its queue after that, before the commit.
fn beside<K: Kind>(asked: Op) -> Running {
    let mut setup = Setup::default();
    setup.config.threads = Some(1);
    let running = K::start::<ReplicaReplier>(setup).unwrap();
    let gate = Gate::new();
    running.handle.queue_update(batch(1, [Op::Wait(gate.clone()), Op::Put("a", 5)])).unwrap();
    gate.wait_for_visitor();
    running.handle.queue_update(batch(2, [Op::Put("a", 6)])).unwrap();
    running.handle.queue_update_unordered(reads(7, [asked])).unwrap();
    gate.open();
    running
}

fn unordered_requests_do_not_wait_for_the_batch_that_runs<K: Kind>() {
    let running = beside::<K>(Op::Get("a"));
    let metrics = running.handle.metrics();
    let sent = running.finish().sent();
    assert_eq!((sent[0].kind, sent[0].value), (RequestType::Unordered, None), "the state before the batch");
    assert_eq!(sent.len(), 4, "and nothing that was queued before it is lost");
    assert_eq!(metrics.counters().unordered_beside, 1);
    assert_eq!(metrics.counters().batches, 2);
}

fn a_panic_beside_a_batch_is_the_cause<K: Kind>() {
    let running = beside::<K>(Op::Panic);
    let failure = running.wait_for_failure();
    assert!(matches!(failure, Failure::UnorderedPanicked { .. }), "{failure:?}");
    assert!(running.net.sent().is_empty(), "no reply of the batch leaves");
}

fn a_follower_answers_unordered_requests_only<K: Kind>() {
    let running = K::start::<FollowerReplier>(Setup::default()).unwrap();
    running.handle.queue_update(batch(1, [Op::Put("a", 5)])).unwrap();
    wait_until("the batch", || running.counters().batches == 1);
    running.handle.queue_update_unordered(reads(7, [Op::Get("a")])).unwrap();
    let sent = running.finish().sent();
    assert_eq!(
        sent,
        [Sent { kind: RequestType::Unordered, to: 1, operation: 7, value: Some(5), flush: true }]
    );
}

fn an_unreachable_client_harms_nobody_else<K: Kind>() {
    let running = Setup::net(Net { refuses: Some(2), ..Net::default() }).start::<K>();
    let mut batch = UpdateBatch::new(SeqNo(1));
    for n in 0..9 {
        batch.add(NodeId(n % 3), SeqNo(0), SeqNo(u64::from(n)), Op::Add("a", 1));
    }
    running.handle.queue_update(batch).unwrap();
    let metrics = running.handle.metrics();
    assert_eq!(running.finish().operations(), [0, 1, 3, 4, 6, 7]);
    assert_eq!(metrics.counters().reply_errors, 3);
}

fn a_panic_of_the_network_stops_the_executor_with_its_cause<K: Kind>() {
    beside_another::<K>(|| {
        let mut setup = Setup::net(Net { panics: Some(1), ..Net::default() });
        setup.config.reply_buffer = 1;
        setup.config.executing_buffer = 2;
        let running = setup.start::<K>();
        // More than fits anywhere: those that wait for room are woken with the cause.
        let refused = (1..=50).find_map(|seq| running.handle.queue_update(batch(seq, [Op::Get("a")])).err());
        assert!(refused.expect("refused").to_string().contains("the network panics"));
        let cause = running.wait_for_failure();
        assert!(matches!(cause, Failure::ReplyNodePanicked { .. }), "{cause}");
        let (end, ..) = running.join();
        assert!(matches!(end, Err(Failure::ReplyNodePanicked { .. })));
    });
}

fn a_panic_of_the_network_stops_an_executor_that_idles<K: Kind>() {
    beside_another::<K>(|| {
        let running = Setup::net(Net { panics: Some(1), ..Net::default() }).start::<K>();
        running.handle.queue_update(batch(1, [Op::Get("a")])).unwrap();
        let second = running.handle.clone();
        // The second handle lives on; the executor must not wait for its next request.
        let (end, ..) = running.join();
        assert!(matches!(end, Err(Failure::ReplyNodePanicked { .. })));
        assert!(second.queue_update(batch(2, [])).is_err());
    });
}

//! States that leave (checkpoints, answers to `Read`) and states that come (installation).

mod common;

use std::sync::Arc;
use std::time::Duration;

use atlas_smr_execution::batch::{MaybeVec, NodeId, SeqNo};
use atlas_smr_execution::error::Failure;
use atlas_smr_execution::executor::InstallState;
use common::state::{Descriptor, PARTS, Part, TestState};
use common::*;

on!([SingleMon, MultiMon, SingleDiv, MultiDiv] {
    a_checkpoint_is_the_state_after_its_batch,
    reading_executes_nothing,
    unread_checkpoints_never_hold_execution_up,
    a_slow_reader_still_puts_every_checkpoint_together,
    checkpoints_without_a_reader_are_dropped,
    what_is_pending_at_the_end_can_still_be_read,
    a_panic_in_snapshot_is_the_cause,
    polling_with_nothing_arrived_returns_at_once,
    execution_goes_on_after_an_installed_state,
    an_older_state_is_refused_and_an_equal_one_is_not,
    several_states_are_installed_by_one_poll,
});

mod in_parts {
    use super::*;

    on!([SingleDiv, MultiDiv] {
        only_changed_parts_travel,
        execution_goes_on_while_a_checkpoint_is_described,
        a_panic_in_a_part_is_the_cause,
        parts_install_in_any_order_and_twice,
        bad_parts_are_refused_by_name_and_the_right_ones_still_count,
        pieces_without_a_descriptor_are_refused,
        a_new_descriptor_abandons_the_installation_under_way,
        an_outdated_descriptor_leaves_the_installation_under_way_alone,
        a_state_cut_short_is_refused_and_nothing_above_it_is_executed,
    nor_is_it_together_with_what_comes_before,
        a_later_installation_makes_up_for_a_refused_one,
        unordered_requests_are_answered_during_an_installation,
        a_state_that_arrives_without_a_pause_keeps_no_request_waiting,
        work_behind_an_installation_is_bounded,
        a_state_channel_that_closes_ends_the_installation,
        stopping_in_the_middle_of_an_installation_says_what_was_dropped,
        stopping_in_the_middle_of_an_installation_with_nothing_behind_it_is_clean,
        stopping_gets_through_when_no_more_work_is_taken,
        a_state_that_is_whole_when_the_executor_stops_is_installed,
    });
}

fn empty() -> TestState {
    TestState::default()
}

fn state_of(values: &[(&'static str, u64)]) -> TestState {
    reference(&[batch(1, values.iter().map(|&(key, value)| Op::Put(key, value)))])
}

fn a_checkpoint_is_the_state_after_its_batch<K: Kind>() {
    let running = start::<K>();
    let mut base = empty();
    for seq in 1..=5 {
        running
            .handle
            .queue_update_and_get_appstate(batch(seq * 10, [Op::Add("a", 1), Op::Put("b", seq)]))
            .unwrap();
        running.handle.queue_update(batch(seq * 10 + 1, [Op::Put("c", seq)])).unwrap();
        let arrived = running.checkpoints.next(&base).unwrap();
        assert_eq!((arrived.seq, arrived.to), (seq * 10, None));
        let mut expected = vec![("a", seq), ("b", seq)];
        if seq > 1 {
            expected.push(("c", seq - 1));
        }
        assert_eq!(arrived.state, state_of(&expected));
        base = arrived.state;
    }
    // Counted once its last message is out, which the reader may see first.
    wait_until("the last count", || running.counters().checkpoints == 5);
    running.finish();
}

fn reading_executes_nothing<K: Kind>() {
    let running = start::<K>();
    let arrived = running.read();
    assert_eq!((arrived.seq, arrived.state), (0, empty()));
    running.handle.queue_update_and_get_appstate(batch(4, [Op::Put("a", 1)])).unwrap();
    running.checkpoints.next(&empty()).unwrap();
    let arrived = running.read();
    assert_eq!((arrived.seq, &arrived.state), (4, &state_of(&[("a", 1)])));
    assert_eq!(arrived.parts, if K::IN_PARTS { PARTS } else { 0 }, "all parts, whatever was delivered");
    assert_eq!(running.counters().batches, 1);
    running.finish();
}

fn unread_checkpoints_never_hold_execution_up<K: Kind>() {
    let running = Setup::config(|config| config.state_buffer = 2).start::<K>();
    for seq in 1..=300 {
        running.handle.queue_update_and_get_appstate(batch(seq, [Op::Add("a", 1)])).unwrap();
    }
    running.handle.read_state(NodeId(3)).unwrap();
    running.net.wait_for(300);
    let metrics = running.handle.metrics();
    // The reader lives, and does not read, until the executor has ended.
    let (end, _, _reader) = running.join();
    assert_eq!(end.unwrap().last_executed, SeqNo(300));
    let counters = metrics.counters();
    assert_eq!(counters.checkpoints + counters.dropped_checkpoints, 301);
    assert!(counters.checkpoints <= 2);
}

fn a_slow_reader_still_puts_every_checkpoint_together<K: Kind>() {
    let running = Setup::config(|config| config.state_buffer = 1).start::<K>();
    let keys = ["a", "b", "c", "d", "e", "f", "g"];
    let mut batches = Vec::new();
    for seq in 1..=70 {
        batches.push(batch(seq, [Op::Add(keys[seq as usize % 7], seq)]));
        running.handle.queue_update_and_get_appstate(batches.last().unwrap().clone()).unwrap();
    }
    running.net.wait_for(70);
    // Whichever were dropped: each one that arrives is the state it says, by the parts of those that arrived.
    let mut base = empty();
    loop {
        let arrived = running.checkpoints.next(&base).unwrap();
        assert_eq!(arrived.state, reference(&batches[..arrived.seq as usize]));
        base = arrived.state;
        if arrived.seq == 70 {
            break;
        }
    }
    running.finish();
}

fn checkpoints_without_a_reader_are_dropped<K: Kind>() {
    let Running { handle, net, state: _state, checkpoints } = start::<K>();
    drop(checkpoints);
    for seq in 1..=20 {
        handle.queue_update_and_get_appstate(batch(seq, [Op::Add("a", 1)])).unwrap();
    }
    let metrics = handle.metrics();
    within("join", || handle.join()).unwrap();
    assert_eq!(net.sent().len(), 20);
    assert_eq!(metrics.counters().dropped_checkpoints, 20);
}

fn what_is_pending_at_the_end_can_still_be_read<K: Kind>() {
    let running = start::<K>();
    running.handle.queue_update_and_get_appstate(batch(1, [Op::Put("a", 1)])).unwrap();
    running.handle.read_state(NodeId(3)).unwrap();
    let (end, _, checkpoints) = running.join();
    end.unwrap();
    assert_eq!(checkpoints.next(&empty()).unwrap().to, None);
    let answer = checkpoints.next(&empty()).unwrap();
    assert_eq!((answer.to, answer.state), (Some(NodeId(3)), state_of(&[("a", 1)])));
    assert!(checkpoints.next(&empty()).is_err());
}

fn a_panic_in_snapshot_is_the_cause<K: Kind>() {
    let running = start::<K>();
    running.handle.queue_update_and_get_appstate(batch(1, [Op::Put("fault:snapshot", 1)])).unwrap();
    let cause = running.wait_for_failure();
    assert!(matches!(cause, Failure::TransferPanicked { .. }), "{cause}");
    let (end, net, _) = running.join();
    assert!(end.is_err());
    assert_eq!(net.operations(), [1000], "replies leave before the checkpoint is taken");
}

fn polling_with_nothing_arrived_returns_at_once<K: Kind>() {
    let running = start::<K>();
    running.handle.poll_state_channel().unwrap();
    running.handle.queue_update(batch(1, [Op::Put("a", 1)])).unwrap();
    running.handle.poll_state_channel().unwrap();
    assert_eq!(running.finish().operations(), [1000]);
}

fn execution_goes_on_after_an_installed_state<K: Kind>() {
    let running = start::<K>();
    running.handle.queue_update(batch(1, [Op::Put("old", 1)])).unwrap();
    running.net.wait_for(1);
    running.state.send(20, &state_of(&[("a", 5)]));
    running.handle.poll_state_channel().unwrap();
    for seq in [2, 20, 21] {
        running.handle.queue_update(batch(seq, [Op::Add("a", 1), Op::Get("old")])).unwrap();
    }
    running.net.wait_for(3);
    assert_eq!(running.counters().installs, 1);
    assert_eq!(running.counters().skipped_batches, 2);
    assert_eq!(running.handle.install_error(), None);
    let net = running.finish();
    assert_eq!(net.operations(), [1000, 21000, 21001]);
    assert_eq!(net.values()[1..], [Some(6), None]);
}

fn an_older_state_is_refused_and_an_equal_one_is_not<K: Kind>() {
    let running = start::<K>();
    running.handle.queue_update(batch(9, [Op::Put("a", 1)])).unwrap();
    running.net.wait_for(1);
    running.state.send(8, &state_of(&[("a", 8)]));
    running.handle.poll_state_channel().unwrap();
    running.handle.queue_update(batch(10, [Op::Get("a")])).unwrap();
    running.net.wait_for(2);
    let error = running.handle.install_error().expect("refused");
    assert_eq!(&*error, "state 8 is older than the last executed batch 9");
    assert_eq!(running.counters().refused_installs, 1);
    running.state.send(10, &state_of(&[("a", 10)]));
    running.handle.poll_state_channel().unwrap();
    running.handle.queue_update(batch(11, [Op::Get("a")])).unwrap();
    running.net.wait_for(3);
    assert_eq!(running.handle.install_error(), None);
    assert_eq!(running.finish().values(), [None, Some(1), Some(10)]);
}

fn several_states_are_installed_by_one_poll<K: Kind>() {
    let running = start::<K>();
    running.state.send(5, &state_of(&[("a", 5), ("b", 5)]));
    running.state.send(9, &state_of(&[("a", 9)]));
    running.handle.poll_state_channel().unwrap();
    let arrived = running.read();
    assert_eq!((arrived.seq, arrived.state), (9, state_of(&[("a", 9)])));
    assert_eq!(running.counters().installs, 2);
    running.finish();
}

fn only_changed_parts_travel<K: Kind>() {
    let running = start::<K>();
    let mut base = empty();
    let mut travelled = Vec::new();
    let steps =
        [vec![Op::Put("a", 1), Op::Put("b", 1)], vec![Op::Put("a", 2)], vec![], vec![Op::Delete("b")]];
    for (seq, ops) in (1..).zip(steps) {
        running.handle.queue_update_and_get_appstate(batch(seq, ops)).unwrap();
        let arrived = running.checkpoints.next(&base).unwrap();
        travelled.push(arrived.parts);
        base = arrived.state;
    }
    assert_eq!(travelled, [PARTS, 1, 0, 1]);
    running.finish();
}

fn execution_goes_on_while_a_checkpoint_is_described<K: Kind>() {
    let gate = Gate::new();
    let initial = Some((TestState::described_after(Arc::clone(&gate)), Vec::new()));
    let running = Setup { initial, ..Setup::default() }.start::<K>();
    let batches: Vec<_> = (1..=100).map(|seq| batch(seq, [Op::Add("a", seq)])).collect();
    running.handle.queue_update_and_get_appstate(batches[0].clone()).unwrap();
    gate.wait_for_visitor();
    for batch in &batches[1..] {
        running.handle.queue_update_and_get_appstate(batch.clone()).unwrap();
    }
    running.net.wait_for(100);
    gate.open();
    let first = running.checkpoints.next(&empty()).unwrap();
    assert_eq!((first.seq, &first.state), (1, &reference(&batches[..1])));
    let last = running.checkpoints.next(&first.state).unwrap();
    assert_eq!((last.seq, last.state), (100, reference(&batches)));
    assert_eq!(running.counters().dropped_checkpoints, 98);
    running.finish();
}

fn a_panic_in_a_part_is_the_cause<K: Kind>() {
    for fault in ["fault:part", "fault:descriptor"] {
        let running = start::<K>();
        running.handle.queue_update_and_get_appstate(batch(1, [Op::Put(fault, 1)])).unwrap();
        let second = running.handle.clone();
        // The second handle lives on; the executor ends all the same.
        let (end, ..) = running.join();
        assert!(matches!(end, Err(Failure::TransferPanicked { .. })));
        assert!(second.queue_update(batch(2, [])).is_err());
    }
}

fn parts_install_in_any_order_and_twice<K: Kind>() {
    let running = start::<K>();
    let target = state_of(&[("a", 1), ("b", 2), ("c", 3), ("d", 4)]);
    running.state.send_first(7, &target);
    let mut parts = target.parts();
    parts.reverse();
    let repeated = parts.clone();
    for part in parts.into_iter().chain(repeated) {
        running.state.piece(7, InstallState::StatePart(MaybeVec::One(part)));
    }
    running.state.piece(7, InstallState::Done);
    running.handle.poll_state_channel().unwrap();
    let arrived = running.read();
    assert_eq!((arrived.seq, arrived.state), (7, target));
    assert_eq!(running.counters().refused_installs, 0);
    running.finish();
}

fn forged(part: &Part) -> Part {
    Part { digest: part.digest ^ 1, ..part.clone() }
}

fn bad_parts_are_refused_by_name_and_the_right_ones_still_count<K: Kind>() {
    let running = start::<K>();
    let target = state_of(&[("a", 1), ("b", 2), ("c", 3)]);
    let other = state_of(&[("a", 9), ("b", 9), ("c", 9)]);
    let parts = target.parts();
    let changed = (0..PARTS).find(|&id| parts[id] != other.part_numbered(id)).unwrap();
    let unknown = Part { id: PARTS + 3, ..parts[0].clone() };
    running.state.send_first(7, &target);
    running.handle.poll_state_channel().unwrap();
    let refused = |part: Part, count, error: &str| {
        running.state.piece(7, InstallState::StatePart(MaybeVec::Several(vec![part])));
        wait_until("refusal", || running.counters().refused_installs == count);
        wait_until("its reason", || running.handle.install_error().as_deref() == Some(error));
    };
    refused(forged(&parts[2]), 1, "part 2 does not match its digest");
    refused(unknown, 2, "part 11 is unknown");
    refused(other.part_numbered(changed), 3, &format!("part {changed} belongs to another checkpoint"));
    assert_eq!(running.handle.last_executed(), SeqNo::ZERO);
    running.state.piece(7, InstallState::StatePart(parts.into()));
    running.state.piece(7, InstallState::Done);
    assert_eq!(running.read().state, target);
    assert_eq!(running.handle.install_error(), None);
    running.finish();
}

fn pieces_without_a_descriptor_are_refused<K: Kind>() {
    let running = start::<K>();
    let target = state_of(&[("a", 1)]);
    running.state.piece(7, InstallState::StatePart(target.parts().into()));
    running.state.piece(7, InstallState::Done);
    running.handle.poll_state_channel().unwrap();
    assert_eq!(running.read().state, empty());
    assert_eq!(running.counters().refused_installs, 2);
    let error = running.handle.install_error().expect("refused");
    assert!(error.contains("unexpected") && error.contains("without a descriptor"), "{error}");
    running.finish();
}

fn a_new_descriptor_abandons_the_installation_under_way<K: Kind>() {
    let running = start::<K>();
    running.state.send_first(7, &state_of(&[("a", 7)]));
    running.state.send(9, &state_of(&[("a", 9)]));
    running.handle.poll_state_channel().unwrap();
    let arrived = running.read();
    assert_eq!((arrived.seq, arrived.state), (9, state_of(&[("a", 9)])));
    assert_eq!(running.counters().refused_installs, 0);
    running.finish();
}

fn an_outdated_descriptor_leaves_the_installation_under_way_alone<K: Kind>() {
    let running = Setup::config(|config| config.initial_seq = Some(SeqNo(5))).start::<K>();
    let target = state_of(&[("a", 7)]);
    running.state.send_first(7, &target);
    running.state.send(4, &state_of(&[("a", 4)]));
    running.state.piece(7, InstallState::StatePart(target.parts().into()));
    running.state.piece(7, InstallState::Done);
    running.handle.poll_state_channel().unwrap();
    assert_eq!(running.read().state, target);
    assert_eq!(running.counters().refused_installs, 1, "once for the whole outdated state");
    running.finish();
}

/// Offers state 7 without one of its parts.
fn cut_short(running: &Running) {
    let target = state_of(&[("a", 1), ("b", 2), ("c", 3)]);
    let needed = |part: &Part| part.entries.is_empty();
    running.state.send_first(7, &target);
    let parts: Vec<_> = target.parts().into_iter().filter(needed).collect();
    running.state.piece(7, InstallState::StatePart(parts.into()));
    running.state.piece(7, InstallState::Done);
    running.handle.poll_state_channel().unwrap();
}

fn a_state_cut_short_is_refused_and_nothing_above_it_is_executed<K: Kind>() {
    let running = start::<K>();
    running.handle.queue_update(batch(1, [Op::Put("a", 10)])).unwrap();
    cut_short(&running);
    running.handle.queue_update(batch(2, [Op::Add("a", 1)])).unwrap();
    running.net.wait_for(2);
    assert_eq!(running.net.values()[1], Some(11), "the state is untouched");
    assert_eq!(running.counters().refused_installs, 1);
    running.handle.queue_update(batch(8, [Op::Add("a", 1)])).unwrap();
    let cause = running.wait_for_failure();
    let Failure::MissingState { batch: SeqNo(8), installed: SeqNo(7), ref reason } = cause else {
        panic!("{cause}")
    };
    assert!(reason.contains("cut short"), "{reason}");
    assert_eq!(running.join().1.operations(), [1000, 2000]);
}

fn nor_is_it_together_with_what_comes_before<K: Kind>() {
    let running = Setup::config(|config| config.join = 1024).start::<K>();
    cut_short(&running);
    let batches = [1, 2, 8, 9].map(|seq| batch(seq, [Op::Add("a", 1)]));
    running.handle.catch_up_to_quorum(MaybeVec::Several(batches.into())).unwrap();
    let cause = running.wait_for_failure();
    assert!(matches!(cause, Failure::MissingState { batch: SeqNo(8), installed: SeqNo(7), .. }), "{cause}");
    assert_eq!(running.handle.last_executed(), SeqNo(2));
}

fn a_later_installation_makes_up_for_a_refused_one<K: Kind>() {
    let installed = start::<K>();
    cut_short(&installed);
    installed.state.send(7, &state_of(&[("a", 7)]));
    installed.handle.poll_state_channel().unwrap();
    installed.handle.queue_update(batch(8, [Op::Add("a", 1)])).unwrap();
    assert_eq!(installed.finish().values(), [Some(8)]);
    // So does executing everything up to it.
    let caught_up = start::<K>();
    cut_short(&caught_up);
    for seq in 5..=8 {
        caught_up.handle.queue_update(batch(seq, [Op::Add("a", 1)])).unwrap();
    }
    assert_eq!(caught_up.finish().values(), [Some(1), Some(2), Some(3), Some(4)]);
}

fn unordered_requests_are_answered_during_an_installation<K: Kind>() {
    let running = start::<K>();
    running.handle.queue_update(batch(1, [Op::Put("a", 1)])).unwrap();
    running.net.wait_for(1);
    let target = state_of(&[("a", 7)]);
    running.state.send_first(7, &target);
    running.handle.poll_state_channel().unwrap();
    running.handle.queue_update(batch(8, [Op::Add("a", 1)])).unwrap();
    running.handle.read_state(NodeId(99)).unwrap();
    running.handle.queue_update_unordered(reads(50, [Op::Get("a")])).unwrap();
    running.net.wait_for(2);
    assert_eq!((running.net.operations()[1], running.net.values()[1]), (50, Some(1)), "on the old state");
    assert_eq!(running.handle.last_executed(), SeqNo(1));
    running.state.piece(7, InstallState::StatePart(target.parts().into()));
    running.state.piece(7, InstallState::Done);
    let arrived = running.checkpoints.next(&empty()).unwrap();
    assert_eq!((arrived.seq, arrived.state), (8, state_of(&[("a", 8)])));
    assert_eq!(running.finish().values(), [None, Some(1), Some(8)]);
}

fn a_state_that_arrives_without_a_pause_keeps_no_request_waiting<K: Kind>() {
    let running = start::<K>();
    let target = state_of(&[("a", 7)]);
    running.state.send_first(7, &target);
    running.handle.poll_state_channel().unwrap();
    running.handle.queue_update_unordered(reads(50, [Op::Get("a")])).unwrap();
    let start = std::time::Instant::now();
    let parts = || running.state.piece(7, InstallState::StatePart(target.parts().into()));
    // At least once: the answer may be there at once.
    parts();
    while running.net.sent().is_empty() {
        assert!(start.elapsed() < PATIENCE, "the request waits for the end of the installation");
        parts();
    }
    running.state.piece(7, InstallState::Done);
    assert_eq!(running.read().state, target);
    assert_eq!(running.finish().values(), [None]);
}

fn work_behind_an_installation_is_bounded<K: Kind>() {
    let running = Setup::config(|config| config.executing_buffer = 2).start::<K>();
    let target = state_of(&[("a", 7)]);
    running.state.send_first(7, &target);
    running.handle.poll_state_channel().unwrap();
    // Two are deferred, two wait in the queue, and then it is full.
    for seq in 8..=11 {
        running.handle.queue_update(batch(seq, [Op::Add("a", 1)])).unwrap();
    }
    let full = running.handle.try_queue_update(batch(12, [Op::Add("a", 1)]));
    assert!(full.is_err());
    running.state.piece(7, InstallState::StatePart(target.parts().into()));
    running.state.piece(7, InstallState::Done);
    running.handle.queue_update(full.unwrap_err().into_request()).unwrap();
    assert_eq!(running.finish().values(), (8..=12).map(Some).collect::<Vec<_>>());
}

fn a_state_channel_that_closes_ends_the_installation<K: Kind>() {
    let Running { handle, net, state, checkpoints: _checkpoints } = start::<K>();
    state.send_first(7, &state_of(&[("a", 7)]));
    handle.poll_state_channel().unwrap();
    handle.queue_update(batch(7, [Op::Add("a", 1)])).unwrap();
    drop(state);
    net.wait_for(1);
    let error = handle.install_error().expect("refused");
    assert!(error.contains("cut short") && error.contains("closed"), "{error}");
    handle.poll_state_channel().unwrap();
    handle.queue_update(batch(8, [Op::Add("a", 1)])).unwrap();
    within("join", || handle.join()).unwrap();
    assert_eq!(net.values(), [Some(1), Some(2)]);
}

fn stopping_in_the_middle_of_an_installation_says_what_was_dropped<K: Kind>() {
    let running = start::<K>();
    running.state.send_first(7, &state_of(&[("a", 7)]));
    running.handle.poll_state_channel().unwrap();
    running.handle.queue_update(batch(8, [Op::Add("a", 1)])).unwrap();
    running.handle.queue_update_unordered(reads(50, [Op::Get("a")])).unwrap();
    running.handle.catch_up_to_quorum(batch(9, [Op::Add("a", 1)]).into()).unwrap();
    let (end, net, _) = running.join();
    assert!(matches!(end, Err(Failure::InstallAbandoned { dropped: 2 })), "{end:?}");
    assert_eq!(net.operations(), [50]);
}

fn stopping_in_the_middle_of_an_installation_with_nothing_behind_it_is_clean<K: Kind>() {
    let running = start::<K>();
    running.handle.queue_update(batch(1, [])).unwrap();
    running.state.send_first(7, &state_of(&[("a", 7)]));
    running.handle.poll_state_channel().unwrap();
    let (end, ..) = running.join();
    assert_eq!(end.unwrap().last_executed, SeqNo(1));
}

fn stopping_gets_through_when_no_more_work_is_taken<K: Kind>() {
    let running = Setup::config(|config| config.executing_buffer = 2).start::<K>();
    running.state.send_first(7, &state_of(&[("a", 7)]));
    running.handle.poll_state_channel().unwrap();
    for seq in 8..=11 {
        running.handle.queue_update(batch(seq, [Op::Add("a", 1)])).unwrap();
    }
    let (end, ..) = running.join();
    assert!(matches!(end, Err(Failure::InstallAbandoned { dropped: 4 })), "{end:?}");
}

fn a_state_that_is_whole_when_the_executor_stops_is_installed<K: Kind>() {
    let running = Setup::config(|config| config.shutdown_grace = Duration::MAX).start::<K>();
    let gate = Gate::new();
    running.handle.queue_update(batch(1, [Op::Wait(Arc::clone(&gate))])).unwrap();
    gate.wait_for_visitor();
    running.state.send(7, &state_of(&[("a", 7)]));
    running.handle.poll_state_channel().unwrap();
    running.handle.queue_update_and_get_appstate(batch(8, [Op::Add("a", 1)])).unwrap();
    gate.open();
    let (end, _, checkpoints) = running.join();
    assert_eq!(end.unwrap().last_executed, SeqNo(8));
    let arrived = checkpoints.next(&empty()).unwrap();
    assert_eq!(arrived.state, state_of(&[("a", 8)]));
    assert_eq!(Descriptor::of(&arrived.state), Descriptor::of(&state_of(&[("a", 8)])));
}

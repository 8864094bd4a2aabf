//! The faults that engines for replicated state machines were seen to have, each with the test that fails on an engine
//! that has it. On executors that speculate, gates make sure that operations do run ahead of what they depend on.
//!
//! | fault | test |
//! |---|---|
//! | the first batch hangs | faults.rs::the_first_batch_is_answered |
//! | the worker of the single-threaded divisible executor never runs | faults.rs::the_first_batch_is_answered |
//! | a batch of 0 to 3 operations panics | replies.rs::batches_of_any_small_size_are_answered_in_order |
//! | `create` on an existing key returns true and overwrites | faults.rs::create_on_an_existing_key_changes_nothing |
//! | a write makes every other key of its column absent | faults.rs::a_write_hides_no_other_key_of_its_column |
//! | `update` returns no previous value | faults.rs::update_returns_what_was_there |
//! | `delete` returns no previous value | faults.rs::delete_returns_what_was_there |
//! | replies leave batch order | faults.rs::what_is_finished_first_is_not_answered_first |
//! | replies of batch n + 1 overtake batch n | replies.rs::replies_keep_the_order_of_operations_and_batches |
//! | the same key in two columns collides | faults.rs::one_key_in_two_columns_does_not_collide |
//! | a read-modify-write collides with itself | faults.rs::a_read_modify_write_does_not_collide_with_itself |
//! | a replay on another branch leaves its first result standing | faults.rs::a_replay_on_another_branch_leaves_nothing_of_the_first |
//! | a replay on another branch reads stale values | faults.rs::a_replay_on_another_branch_reads_what_earlier_operations_wrote |
//! | a replay on another branch is overwritten by an earlier operation's commit | faults.rs::an_earlier_write_does_not_overwrite_a_replay_on_another_branch |
//! | what depends on a replay is not replayed | faults.rs::replays_cascade |
//! | an operation that relies on an earlier one of its batch kills the executor | faults.rs::an_operation_may_rely_on_an_earlier_one_of_its_batch |
//! | a live batch and the same log replayed end in different states | lifecycle.rs::a_replayed_log_ends_in_the_state_of_the_live_batches |
//! | `Read` is not implemented | transfer.rs::reading_executes_nothing |
//! | incremental checkpoints deliver everything since the start | transfer.rs::only_changed_parts_travel |
//! | polling for state blocks until one comes | transfer.rs::polling_with_nothing_arrived_returns_at_once |
//! | polling for state blocks all other work | transfer.rs::unordered_requests_are_answered_during_an_installation |
//! | a panic of the application kills its thread silently | panics.rs::a_panic_in_update_is_the_cause_and_its_state_never_leaves |
//! | batches queued behind a panic vanish | faults.rs::batches_queued_behind_a_panic_do_not_vanish_silently |
//! | a sender that waits behind a panic is never woken | lifecycle.rs::a_sender_that_waits_for_room_is_woken_by_the_failure |
//! | an application that defines only the batch methods panics | lifecycle.rs::an_application_that_defines_only_the_batch_methods_works |
//! | a checkpoint stalls execution while it is put together | transfer.rs::execution_goes_on_while_a_checkpoint_is_described |
//! | a checkpoint copies a large state | checkpoints.rs::large_shards_are_not_copied |
//! | unread checkpoints block the executor | transfer.rs::unread_checkpoints_never_hold_execution_up |
//! | the analysis of collisions is quadratic | faults.rs::two_hot_accounts_cost_one_replay_an_operation |
//! | every operation allocates | allocation.rs::nothing_is_allocated_per_operation |
//! | clients can choose keys whose fingerprints collide | ../src/executor/speculative/tests.rs::fingerprints_are_seeded_per_process |
//! | clients can choose keys that collide in the state | ../src/state/sharded/tests.rs::the_table_hash_is_seeded_per_process |
//! | a nightly compiler is needed | tidy.rs::a_stable_compiler_is_enough |

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use atlas_smr_execution::batch::SeqNo;
use atlas_smr_execution::error::Failure;
use atlas_smr_execution::executor::ExecutorConfig;
use common::rig::{self, Rig};
use common::script::{Step, play, step};
use common::{Gate, Kind, Op, Setup, assert_table, batch, start};

on!(rig: [SingleMon, MultiMon, SingleDiv, MultiDiv] {
    create_on_an_existing_key_changes_nothing,
    a_write_hides_no_other_key_of_its_column,
    update_returns_what_was_there,
    delete_returns_what_was_there,
    what_is_finished_first_is_not_answered_first,
    one_key_in_two_columns_does_not_collide,
    a_read_modify_write_does_not_collide_with_itself,
    a_replay_on_another_branch_leaves_nothing_of_the_first,
    a_replay_on_another_branch_reads_what_earlier_operations_wrote,
    an_earlier_write_does_not_overwrite_a_replay_on_another_branch,
    replays_cascade,
    an_operation_may_rely_on_an_earlier_one_of_its_batch,
    two_hot_accounts_cost_one_replay_an_operation,
});

mod on_numbers {
    use super::*;

    on!([SingleMon, MultiMon, SingleDiv, MultiDiv] {
        the_first_batch_is_answered,
        batches_queued_behind_a_panic_do_not_vanish_silently,
    });
}

fn the_first_batch_is_answered<K: Kind>() {
    for config in [ExecutorConfig::default(), Setup::default().config] {
        let running = Setup { config, ..Setup::default() }.start::<K>();
        running.handle.queue_update(batch(1, (1..=20).map(|n| Op::Add("a", n)))).unwrap();
        running.net.wait_for(20);
        assert_eq!(running.finish().values().last(), Some(&Some(210)));
    }
}

fn batches_queued_behind_a_panic_do_not_vanish_silently<K: Kind>() {
    let running = start::<K>();
    let gate = Gate::new();
    running.handle.queue_update(batch(1, [Op::Add("a", 1)])).unwrap();
    running.handle.queue_update(batch(2, [Op::Wait(Arc::clone(&gate)), Op::Panic])).unwrap();
    gate.wait_for_visitor();
    for seq in 3..=5 {
        running.handle.queue_update(batch(seq, [Op::Add("a", 1)])).unwrap();
    }
    gate.open();
    let cause = running.wait_for_failure();
    assert!(matches!(cause, Failure::OperationPanicked { batch: SeqNo(2), .. }), "{cause}");
    // Whoever queued them learns where execution ended: these are to be executed again, and no others.
    assert_eq!(running.handle.last_executed(), SeqNo(1));
    let (end, net, _) = running.join();
    assert_eq!(end.unwrap_err().to_string(), cause.to_string());
    assert_eq!(net.operations(), [1000]);
}

fn create_on_an_existing_key_changes_nothing<R: Rig>() {
    let create = |value: &'static str| step(move |state| state.create("a", "key", value));
    let read = || step(|state| state.read("a", "key"));
    let played = play::<R>([
        vec![create("1")],
        vec![create("2"), read()],
        vec![step(|state| state.delete("a", "key")), create("3"), create("4"), read()],
        vec![step(|state| {
            (state.create("a", "new", "5"), state.create("a", "new", "6"), state.read("a", "new"))
        })],
    ]);
    assert_eq!(
        played.replies(),
        [
            "true",
            "false",
            r#"Some("1")"#,
            r#"Some("1")"#,
            "true",
            "false",
            r#"Some("3")"#,
            r#"(true, false, Some("5"))"#
        ]
    );
    assert_eq!(played.state("a", "key").as_deref(), Some("3"));
    assert_eq!(played.state("a", "new").as_deref(), Some("5"));
}

fn a_write_hides_no_other_key_of_its_column<R: Rig>() {
    let read = || step(|state| ["x", "y", "z"].map(|key| state.read("a", key)));
    let played = play::<R>([
        vec![step(|state| ["x", "y"].map(|key| state.update("a", key, "1")))],
        vec![step(|state| {
            state.put("a", "x", "2");
            ["x", "y", "z"].map(|key| state.read("a", key))
        })],
        vec![step(|state| state.put("a", "x", "3")), read(), step(|state| state.remove("a", "y")), read()],
    ]);
    assert_eq!(
        played.replies(),
        [
            "[None, None]",
            r#"[Some("2"), Some("1"), None]"#,
            "()",
            r#"[Some("3"), Some("1"), None]"#,
            "()",
            r#"[Some("3"), None, None]"#
        ]
    );
}

fn update_returns_what_was_there<R: Rig>() {
    let update = |value: &'static str| step(move |state| state.update("a", "key", value));
    let twice = step(|state| [state.update("a", "key", "4"), state.update("a", "key", "5")]);
    let played = play::<R>([vec![update("1"), update("2")], vec![update("3"), twice]]);
    assert_eq!(played.replies(), ["None", r#"Some("1")"#, r#"Some("2")"#, r#"[Some("3"), Some("4")]"#]);
    assert_eq!(played.state("a", "key").as_deref(), Some("5"));
}

fn delete_returns_what_was_there<R: Rig>() {
    let delete = || step(|state| state.delete("a", "key"));
    let put = |value: &'static str| step(move |state| state.put("a", "key", value));
    let own = step(|state| {
        state.put("a", "key", "3");
        [state.delete("a", "key"), state.delete("a", "key")]
    });
    let played =
        play::<R>([vec![delete(), put("1")], vec![delete(), delete(), put("2"), delete()], vec![own]]);
    assert_eq!(
        played.replies(),
        ["None", "()", r#"Some("1")"#, "None", "()", r#"Some("2")"#, r#"[Some("3"), None]"#]
    );
    assert_eq!(played.state("a", "key"), None);
}

fn what_is_finished_first_is_not_answered_first<R: Rig>() {
    let gate = Gate::new();
    let mut steps: Vec<Step> = (0..10).map(|position| step(move |_| position)).collect();
    let (first, last) = (steps[0].clone().after(&gate), steps[9].clone().opens(&gate));
    (steps[0], steps[9]) = (first, last);
    assert_eq!(play::<R>([steps]).replies(), ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
}

fn one_key_in_two_columns_does_not_collide<R: Rig>() {
    let gate = Gate::new();
    let played = play::<R>([vec![
        step(|state| state.update("a", "key", "1")).after(&gate),
        step(|state| (state.update("b", "key", "2"), state.read("b", "key"))).opens(&gate),
    ]]);
    assert_eq!(played.replies(), ["None", r#"(None, Some("2"))"#]);
    assert_eq!((played.counters().collisions, played.counters().replays), (0, 0));
}

fn a_read_modify_write_does_not_collide_with_itself<R: Rig>() {
    let gate = Gate::new();
    let add = |key: &'static str| {
        step(move |state| {
            let before = state.read("a", key);
            state.update("a", key, "1");
            (before, state.update("a", key, "2"), state.read("a", key))
        })
    };
    let played = play::<R>([vec![add("x").after(&gate), add("y").opens(&gate)]]);
    assert_eq!(played.replies(), [r#"(None, Some("1"), Some("2"))"#; 2]);
    assert_eq!((played.counters().collisions, played.counters().replays), (0, 0));
}

/// Writes `key` to one of two places, depending on whether the flag is up.
fn branch(up: (&'static str, &'static str), down: (&'static str, &'static str)) -> Step {
    step(move |state| {
        let flag = state.read("a", "flag");
        let (key, value) = if flag.is_some() { up } else { down };
        state.put("a", key, value);
        flag
    })
}

fn raise() -> Step {
    step(|state| state.put("a", "flag", "up"))
}

fn a_replay_on_another_branch_leaves_nothing_of_the_first<R: Rig>() {
    let gate = Gate::new();
    let played = play::<R>([vec![
        raise().after(&gate),
        branch(("up", "1"), ("down", "1")).opens(&gate),
        step(|state| ["up", "down"].map(|key| state.read("a", key))),
    ]]);
    assert_eq!(played.replies(), ["()", r#"Some("up")"#, r#"[Some("1"), None]"#]);
    assert_eq!((played.state("a", "up").as_deref(), played.state("a", "down")), (Some("1"), None));
    assert_eq!(played.counters().replays > 0, R::RUNS_AHEAD);
}

fn a_replay_on_another_branch_reads_what_earlier_operations_wrote<R: Rig>() {
    let gate = Gate::new();
    let played = play::<R>([
        vec![step(|state| state.put("a", "other", "old"))],
        vec![
            raise().after(&gate),
            step(|state| state.put("a", "other", "new")),
            step(|state| state.read("a", "flag").and_then(|_| state.read("a", "other"))).opens(&gate),
        ],
    ]);
    assert_eq!(played.replies(), ["()", "()", "()", r#"Some("new")"#]);
    assert_eq!(played.counters().replays > 0, R::RUNS_AHEAD);
}

fn an_earlier_write_does_not_overwrite_a_replay_on_another_branch<R: Rig>() {
    let gate = Gate::new();
    let played = play::<R>([vec![
        step(|state| state.put("a", "key", "early")).after(&gate),
        raise(),
        branch(("key", "late"), ("down", "1")).opens(&gate),
    ]]);
    assert_eq!(played.replies(), ["()", "()", r#"Some("up")"#]);
    assert_eq!((played.state("a", "key").as_deref(), played.state("a", "down")), (Some("late"), None));
}

fn replays_cascade<R: Rig>() {
    const LINKS: usize = 40;
    // The first link waits for each of the others, so all of them miss what they are to build on.
    let gates: Vec<_> = (1..LINKS).map(|_| Gate::new()).collect();
    let link = |position: usize| {
        step(move |state| match state.read("a", &format!("link {}", position - 1)) {
            Some(link) => state.update("a", &format!("link {position}"), &format!("{link}.")),
            None => state.update("a", &format!("lost {position}"), "1"),
        })
    };
    let first =
        gates.iter().fold(step(|state| state.put("a", "link 0", "")), |first, gate| first.after(gate));
    let others = (1..LINKS).zip(&gates).map(|(position, gate)| link(position).opens(gate));
    let played = play::<R>([std::iter::once(first).chain(others).collect()]);
    assert_eq!(played.state("a", &format!("link {}", LINKS - 1)), Some(".".repeat(LINKS - 1)));
    assert!((1..LINKS).all(|position| played.state("a", &format!("lost {position}")).is_none()));
    // The last one may still be running when its turn comes; it is not waited for then.
    let counters = played.counters();
    let again = counters.replays + counters.overtaken;
    assert_eq!(again, if R::RUNS_AHEAD { LINKS as u64 - 1 } else { 0 });
}

fn an_operation_may_rely_on_an_earlier_one_of_its_batch<R: Rig>() {
    let gate = Gate::new();
    let played = play::<R>([
        vec![
            step(|state| state.create("a", "account", "7")).after(&gate),
            step(|state| state.read("a", "account").expect("the account exists")).opens(&gate),
        ],
        vec![step(|state| state.delete("a", "account"))],
    ]);
    assert_eq!(played.replies(), ["true", r#""7""#, r#"Some("7")"#]);
    assert_eq!(played.counters().replays, u64::from(R::RUNS_AHEAD));
}

/// So many operations that comparing each with each (four billion pairs) would not end in the time that a test waits.
fn two_hot_accounts_cost_one_replay_an_operation<R: Rig>() {
    const OPERATIONS: u64 = 65_536;
    let runs = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&runs);
    let transfer = step(move |state| {
        counted.fetch_add(1, Ordering::Relaxed);
        for account in ["x", "y"] {
            let balance: u64 =
                state.read("a", account).map_or(0, |balance| balance.parse().expect("a number"));
            state.update("a", account, &(balance + 1).to_string());
        }
    });
    let played = play::<R>([vec![transfer; OPERATIONS as usize]]);
    assert_eq!(played.replies().len() as u64, OPERATIONS);
    assert_eq!(played.state("a", "y"), Some(OPERATIONS.to_string()));
    assert!(played.counters().replays <= OPERATIONS);
    assert!(runs.load(Ordering::Relaxed) <= 2 * OPERATIONS);
}

#[test]
fn the_table_is_complete() {
    assert_table("faults.rs", 33);
}

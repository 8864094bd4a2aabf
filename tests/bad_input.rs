//! Input at and beyond the limits. What is large or empty works; what cannot work is refused by an error that names it,
//! and changes nothing.
//!
//! | input | test |
//! |---|---|
//! | an empty batch | replies.rs::batches_of_any_small_size_are_answered_in_order |
//! | a sequence number not above the last | lifecycle.rs::batches_that_were_executed_are_skipped_and_counted |
//! | zero threads, a zero buffer | lifecycle.rs::invalid_configurations_do_not_start |
//! | each other zero | ../src/executor/config.rs::zeros_are_named |
//! | too many threads | ../src/executor/config.rs::too_many_threads_are_refused_and_more_than_cores_are_noted |
//! | more threads than cores | bad_input.rs::more_threads_than_cores_work |
//! | an empty key, an empty column, an empty value | bad_input.rs::empty_keys_and_values_work |
//! | a value of 10 MiB | bad_input.rs::a_value_of_ten_mebibytes_works |
//! | 100,000 operations in a batch | bad_input.rs::a_hundred_thousand_operations_in_a_batch_work |
//! | a million keys touched by one operation | bad_input.rs::a_million_keys_touched_by_one_operation_work |
//! | operations that recurse deeply | bad_input.rs::operations_that_recurse_deeply_work_on_larger_stacks |
//! | a stack or a queue larger than memory | ../src/executor/config.rs::sizes_beyond_what_is_possible_are_refused |
//! | a second executor on one queue | lifecycle.rs::a_second_executor_on_one_queue_is_refused |
//! | a part that is wrong, unknown or of another checkpoint, to an executor | transfer.rs::bad_parts_are_refused_by_name_and_the_right_ones_still_count |
//! | the same, to the built-in state | ../src/state/sharded/tests.rs::wrong_stale_unknown_and_missing_parts_are_refused_and_change_nothing |
//! | a snapshot cut short, in parts | transfer.rs::a_state_cut_short_is_refused_and_nothing_above_it_is_executed |
//! | a snapshot cut short or damaged, as a stream | ../src/state/sharded/tests.rs::every_truncation_and_every_flipped_bit_of_a_stream_is_refused |
//! | an older state | transfer.rs::an_older_state_is_refused_and_an_equal_one_is_not |
//! | an unknown workload, unreadable traces | ../cli/tests/run.rs::what_the_caller_can_mend_has_code_2 |
//! | an unreadable trace | ../cli/tests/run.rs::an_unreadable_trace_is_named |
//! | a malformed line of a trace | ../cli/tests/run.rs::a_malformed_trace_is_named_with_file_and_line |

mod common;

use atlas_smr_execution::executor::{ExecutionMode, ExecutorConfig};
use atlas_smr_execution::metrics::Counters;
use atlas_smr_execution::state::ShardedState;
use common::rig::{self, Rig, check};
use common::script::{Script, Step, Texts, step};
use common::{Gate, assert_table, batch};

on!(rig: [SingleMon, MultiMon, SingleDiv, MultiDiv] {
    more_threads_than_cores_work,
    empty_keys_and_values_work,
    a_value_of_ten_mebibytes_works,
    a_hundred_thousand_operations_in_a_batch_work,
    a_million_keys_touched_by_one_operation_work,
    operations_that_recurse_deeply_work_on_larger_stacks,
});

/// Runs batches ahead of their turn where the executor can, and compares with the plain loop.
fn equals_the_loop<R: Rig>(threads: usize, batches: impl IntoIterator<Item = Vec<Step>>) -> Counters {
    equals_the_loop_by::<R>(&ExecutorConfig::with_threads(threads), batches)
}

fn equals_the_loop_by<R: Rig>(
    config: &ExecutorConfig,
    batches: impl IntoIterator<Item = Vec<Step>>,
) -> Counters {
    let mut config = config.clone();
    config.mode = ExecutionMode::Speculate;
    let batches: Vec<_> = batches.into_iter().zip(1..).map(|(steps, seq)| batch(seq, steps)).collect();
    let counters = check::<R, _>(&config, &Script, &ShardedState::new(), &batches);
    assert_eq!(counters.speculations > 0, R::RUNS_AHEAD);
    counters
}

/// Adds one to the number under `key`.
fn increment(key: String) -> Step {
    step(move |state| {
        let number = state.read("a", &key).map_or(0, |number| number.parse::<u64>().expect("a number"));
        state.update("a", &key, &(number + 1).to_string())
    })
}

fn more_threads_than_cores_work<R: Rig>() {
    let cores = std::thread::available_parallelism().expect("known").get();
    let batches = (0..20).map(|_| (0..100).map(|n| increment((n % 7).to_string())).collect());
    equals_the_loop::<R>((cores * 4).min(64), batches);
}

/// A call of the state, on a column and a key.
type Call = fn(&mut dyn Texts, &str, &str) -> Option<String>;

fn empty_keys_and_values_work<R: Rig>() {
    let calls: [Call; 7] = [
        |state, column, key| state.read(column, key),
        |state, column, key| Some(state.create(column, key, "").to_string()),
        |state, column, key| Some(state.create(column, key, "taken").to_string()),
        |state, column, key| state.update(column, key, "value"),
        |state, column, key| state.update(column, key, ""),
        |state, column, key| state.delete(column, key),
        |state, column, key| state.update(column, key, ""),
    ];
    let places = [("", ""), ("", "key"), ("a", "")];
    let on_each = |call: Call| places.map(|(column, key)| step(move |state| call(state, column, key)));
    // Each call by a batch of its own, and then all of them by one.
    equals_the_loop::<R>(3, calls.map(|call| on_each(call).to_vec()));
    equals_the_loop::<R>(3, [calls.map(on_each).concat()]);
}

fn a_value_of_ten_mebibytes_works<R: Rig>() {
    const SIZE: usize = 10 << 20;
    let write = |letter: &'static str| {
        step(move |state| state.update("a", "large", &letter.repeat(SIZE)).map(|value| value.len()))
    };
    let read = || {
        step(|state| state.read("a", "large").map(|value| (value.len(), value.get(..3).map(str::to_owned))))
    };
    equals_the_loop::<R>(3, [vec![write("x"), read()], vec![write("y"), write("z"), read()], vec![read()]]);
}

fn a_hundred_thousand_operations_in_a_batch_work<R: Rig>() {
    let steps = (0..100_000).map(|n| increment((n % 1009).to_string())).collect();
    equals_the_loop::<R>(3, [steps, vec![increment("7".to_owned())]]);
}

/// Half of the keys are read as well; which half, an earlier operation says, so that the large one runs twice.
fn a_million_keys_touched_by_one_operation_work<R: Rig>() {
    const KEYS: usize = 1_000_000;
    let gate = Gate::new();
    let touch = step(|state| {
        let odd = usize::from(state.read("a", "odd").is_some());
        for n in 0..KEYS {
            let key = n.to_string();
            if n % 2 == odd {
                assert_eq!(state.update("a", &key, "read"), None);
            } else {
                state.put("a", &key, "blind");
            }
        }
    });
    let sample = || step(|state| ["0", "1", "999999", "1000000"].map(|key| state.read("a", key)));
    let odd = step(|state| state.put("a", "odd", ""));
    let batches = [vec![odd.after(&gate), touch.opens(&gate), sample()], vec![sample()]];
    let counters = equals_the_loop::<R>(3, batches);
    assert_eq!(counters.replays > 0, R::RUNS_AHEAD);
}

/// Takes 64 KiB of stack for each level.
fn recurse(levels: usize) -> usize {
    let frame = std::hint::black_box([levels; 8192]);
    if levels == 0 { 0 } else { recurse(levels - 1) + frame[levels] - levels + 1 }
}

/// Four times as deep as threads have stack by default.
fn operations_that_recurse_deeply_work_on_larger_stacks<R: Rig>() {
    const LEVELS: usize = 128;
    const STACK: usize = 32 << 20;
    let mut config = ExecutorConfig::with_threads(3);
    config.stack_size = Some(STACK);
    let operations = || (0..20).map(|_| step(|_| assert_eq!(recurse(LEVELS), LEVELS))).collect();
    let test = move || equals_the_loop_by::<R>(&config, [operations(), operations()]);
    // The plain loop runs here.
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(test);
    thread.expect("a thread").join().expect("equal");
}

#[test]
fn the_table_is_complete() {
    assert_table("bad_input.rs", 21);
}

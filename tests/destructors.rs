//! Destructors that panic where they are least expected: of what a panic unwinds with, and of requests.
//!
//! | where | test |
//! |---|---|
//! | what an operation unwinds with, ahead of its turn | destructors.rs::ahead_of_the_turn_they_mean_nothing |
//! | the same, at its turn | destructors.rs::at_the_turn_the_cause_is_the_operation_s |
//! | what hints unwind with | destructors.rs::in_hints_they_mean_nothing |
//! | what a merge operator unwinds with | destructors.rs::in_a_merge_the_cause_is_the_operation_s |
//! | what an unordered request unwinds with | destructors.rs::in_unordered_requests_the_cause_is_theirs |
//! | a request | destructors.rs::a_request_that_panics_when_it_is_dropped_ends_its_batch |
//! | a request behind a batch that fails | destructors.rs::requests_behind_a_failing_batch_do_not_hide_it |
//! | a request of a batch that is executed as one with others | destructors.rs::a_dropped_request_that_panics_ends_the_executor_after_all_that_are_one_with_its_batch |

mod common;

use std::panic::panic_any;
use std::sync::Arc;

use atlas_smr_execution::app::{Application, ApplicationData, Hints, ScalableApp};
use atlas_smr_execution::batch::{MaybeVec, NodeId, SeqNo, UnorderedBatch};
use atlas_smr_execution::error::{BoxError, Failure};
use atlas_smr_execution::executor::*;
use atlas_smr_execution::reply::ReplicaReplier;
use atlas_smr_execution::state::{CRUDState, Merge, MergeOperator, ShardedState};
use common::rig::{Collector, MultiMon, check};
use common::{assert_table, batch, within};

/// What nobody should drop.
struct Nasty;

impl Drop for Nasty {
    fn drop(&mut self) {
        panic!("what was unwound with is dropped");
    }
}

/// The place of the panic.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// Operations that do not see the one before them.
    Ahead,
    /// The operation [`MISFORTUNE`].
    Turn,
    Hints,
    Merge,
    Unordered,
    Nowhere,
}

const MISFORTUNE: u8 = 13;

/// The number of an operation. If it is armed, its destructor panics; clones are not.
struct Number(u8, bool);

impl Clone for Number {
    fn clone(&self) -> Self {
        Number(self.0, false)
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        assert!(!self.1, "a request is dropped");
    }
}

/// Each operation writes a key, and looks whether the one before it has.
#[derive(Clone)]
struct Chain(At);

impl ApplicationData for Chain {
    type Request = Number;
    type Reply = u8;
}

impl Application<ShardedState> for Chain {
    type AppData = Chain;

    fn initial_state() -> Result<ShardedState, BoxError> {
        Ok(ShardedState::new())
    }

    fn unordered_execution(&self, _: &ShardedState, number: Number) -> u8 {
        if self.0 == At::Unordered {
            panic_any(Nasty);
        }
        number.0
    }

    fn update(&self, state: &mut ShardedState, number: Number) -> u8 {
        self.speculatively_execute_ref(state, &number)
    }
}

impl ScalableApp<ShardedState> for Chain {
    const HINTS: bool = true;

    fn hints(&self, number: &Number, hints: &mut impl Hints) {
        if self.0 == At::Hints && number.0 == MISFORTUNE {
            panic_any(Nasty);
        }
        hints.writes("chain", &[number.0]);
    }

    fn speculatively_execute(&self, state: &mut impl CRUDState, number: Number) -> u8 {
        self.speculatively_execute_ref(state, &number)
    }

    fn speculatively_execute_ref(&self, state: &mut impl CRUDState, &Number(number, _): &Number) -> u8 {
        let before = number == 0 || state.read("chain", &[number - 1]).is_some();
        if (self.0 == At::Ahead && !before) || (self.0 == At::Turn && number == MISFORTUNE) {
            panic_any(Nasty);
        }
        state.put("chain", &[number], b"done");
        state.merge("nasty", b"key", b"operand");
        u8::from(before)
    }
}

/// Merges by a panic.
struct Panics;

impl Merge for Panics {
    fn combine(&self, _: &[u8], _: &[u8], _: &mut Vec<u8>) {
        panic_any(Nasty);
    }
}

/// Two operations are taken at once, so that the second one runs ahead of its turn.
fn config(threads: usize, mode: ExecutionMode) -> ExecutorConfig {
    let mut config = ExecutorConfig::with_threads(threads);
    (config.mode, config.chunk, config.pin) = (mode, Some(2), false);
    config
}

const MODES: [ExecutionMode; 2] = [ExecutionMode::Speculate, ExecutionMode::SpeculateByHints];

fn numbers(armed: bool) -> impl Iterator<Item = Number> {
    (0..40).map(move |number| Number(number, armed && number == MISFORTUNE))
}

#[test]
fn ahead_of_the_turn_they_mean_nothing() {
    for threads in [1, 3] {
        let config = config(threads, ExecutionMode::Speculate);
        let batches = [batch(1, numbers(false))];
        let counters = check::<MultiMon, _>(&config, &Chain(At::Ahead), &ShardedState::new(), &batches);
        assert!(counters.replays > 0, "{counters:?}");
    }
}

#[test]
fn in_hints_they_mean_nothing() {
    for mode in [ExecutionMode::SpeculateByHints, ExecutionMode::Adaptive] {
        let batches = [1, 2].map(|seq| batch(seq, numbers(false)));
        check::<MultiMon, _>(&config(3, mode), &Chain(At::Hints), &ShardedState::new(), &batches);
    }
}

/// Runs one batch, ordered or not, on an executor that fails; returns why, and checks that nothing has left.
fn cause<E>(config: ExecutorConfig, at: At, ordered: bool, armed: bool) -> Failure
where
    E: TMonolithicStateExecutor<Chain, ShardedState, Collector<u8>>,
{
    let (handle, work) = E::init_handle_with(&config).unwrap();
    let custom = ShardedState::builder().merge_operator("nasty", MergeOperator::Custom(&Panics));
    let state = if at == At::Merge { custom.build().unwrap() } else { ShardedState::new() };
    let node = Collector::new();
    let initial = Some((state, Vec::new()));
    let (_install, checkpoints) =
        E::init_with::<ReplicaReplier>(config, work, initial, Chain(at), Arc::clone(&node)).unwrap();
    if ordered {
        handle.queue_update_and_get_appstate(batch(1, numbers(armed))).unwrap();
    } else {
        let mut batch = UnorderedBatch::new();
        numbers(armed).for_each(|number| batch.add(NodeId(1), SeqNo(1), SeqNo(u64::from(number.0)), number));
        handle.queue_update_unordered(batch).unwrap();
    }
    let probe = handle.clone();
    let cause = within("join", || handle.join()).unwrap_err();
    assert_eq!((node.take().len(), probe.last_executed()), (0, SeqNo::ZERO));
    assert!(checkpoints.recv().is_err());
    cause
}

type Single = SingleThreadedMonExecutor<Chain, ShardedState, Collector<u8>>;
type Multi = MultiThreadedMonExecutor<Chain, ShardedState, Collector<u8>>;

/// The message, if an operation of batch 1 is the cause.
fn of_an_operation(failure: Failure) -> (Option<usize>, String) {
    match failure {
        Failure::OperationPanicked { batch: SeqNo(1), position, message, .. } => {
            (position, message.to_string())
        }
        other => panic!("{other:?}"),
    }
}

const WITHOUT: &str = "a panic without a message";

#[test]
fn at_the_turn_the_cause_is_the_operation_s() {
    let single = cause::<Single>(config(1, ExecutionMode::Sequential), At::Turn, true, false);
    assert_eq!(of_an_operation(single), (None, WITHOUT.to_owned()));
    for (threads, mode) in [(1, MODES[0]), (3, MODES[0]), (3, MODES[1])] {
        let multi = cause::<Multi>(config(threads, mode), At::Turn, true, false);
        assert_eq!(of_an_operation(multi), (Some(usize::from(MISFORTUNE)), WITHOUT.to_owned()));
    }
}

#[test]
fn in_a_merge_the_cause_is_the_operation_s() {
    for (threads, mode) in [(1, MODES[0]), (3, MODES[0]), (3, MODES[1])] {
        let multi = cause::<Multi>(config(threads, mode), At::Merge, true, false);
        assert_eq!(of_an_operation(multi), (None, WITHOUT.to_owned()));
    }
}

#[test]
fn in_unordered_requests_the_cause_is_theirs() {
    let single = cause::<Single>(config(1, ExecutionMode::Sequential), At::Unordered, false, false);
    let multi = cause::<Multi>(config(3, MODES[0]), At::Unordered, false, false);
    for failure in [single, multi] {
        let Failure::UnorderedPanicked { ref message } = failure else { panic!("{failure:?}") };
        assert_eq!(&**message, WITHOUT);
    }
}

/// As in the loop, where it is part of the operation.
#[test]
fn a_request_that_panics_when_it_is_dropped_ends_its_batch() {
    let single = cause::<Single>(config(1, ExecutionMode::Sequential), At::Nowhere, true, true);
    assert_eq!(of_an_operation(single), (None, "a request is dropped".to_owned()));
    for mode in MODES {
        let multi = cause::<Multi>(config(3, mode), At::Nowhere, true, true);
        assert_eq!(of_an_operation(multi), (None, "a request is dropped".to_owned()));
        // What came first is the cause.
        let multi = cause::<Multi>(config(3, mode), At::Turn, true, true);
        assert_eq!(of_an_operation(multi), (Some(usize::from(MISFORTUNE)), WITHOUT.to_owned()));
    }
}

/// It is found after the commit, and nobody knows any more whose it was: the last batch is named.
#[test]
fn a_dropped_request_that_panics_ends_the_executor_after_all_that_are_one_with_its_batch() {
    for mode in MODES {
        let config = config(3, mode);
        let (handle, work) = Multi::init_handle_with(&config).unwrap();
        let (app, node) = (Chain(At::Nowhere), Collector::new());
        let _channels = Multi::init_with::<ReplicaReplier>(config, work, None, app, node).unwrap();
        let batches = [1, 2, 3].map(|seq| batch(seq, numbers(seq != 3)));
        handle.catch_up_to_quorum(MaybeVec::Several(batches.into())).unwrap();
        let probe = handle.clone();
        let cause = within("join", || handle.join()).unwrap_err();
        assert_eq!(cause.to_string(), "the application panicked in batch 3: a request is dropped");
        assert_eq!(probe.last_executed(), SeqNo(3));
    }
}

/// Queues all at once: two short batches, one that fails, and one whose requests panic when they are dropped.
fn with_armed_ones_behind<E>(config: ExecutorConfig)
where
    E: TMonolithicStateExecutor<Chain, ShardedState, Collector<u8>>,
{
    let (handle, work) = E::init_handle_with(&config).unwrap();
    let (app, node) = (Chain(At::Turn), Collector::new());
    let _channels = E::init_with::<ReplicaReplier>(config, work, None, app, node).unwrap();
    let short = |seq| batch(seq, numbers(false).take(3));
    let batches = vec![short(1), short(2), batch(3, numbers(false)), batch(4, numbers(true))];
    handle.catch_up_to_quorum(MaybeVec::Several(batches)).unwrap();
    let probe = handle.clone();
    let cause = within("join", || handle.join()).unwrap_err();
    assert!(matches!(cause, Failure::OperationPanicked { batch: SeqNo(3), .. }), "{cause}");
    assert_eq!(probe.last_executed(), SeqNo(2));
}

#[test]
fn requests_behind_a_failing_batch_do_not_hide_it() {
    with_armed_ones_behind::<Single>(config(1, ExecutionMode::Sequential));
    for mode in MODES {
        with_armed_ones_behind::<Multi>(config(3, mode));
    }
}

#[test]
fn the_table_is_complete() {
    assert_table("destructors.rs", 8);
}

//! Programs and batches through all four executors, against the sequential loop.
//!
//! ```text
//! keys, threads, mode, chunk, window, shards: a byte each
//! up to 12 steps:  kind, number of programs: a byte each
//!                  for each program: number of instructions, a byte; four bytes each (workloads::program)
//! ```

use atlas_smr_execution::app::Application;
use atlas_smr_execution::batch::{MaybeVec, NodeId, SeqNo, UnorderedBatch, UpdateBatch};
use atlas_smr_execution::executor::{ExecutionMode, ExecutorConfig};
use atlas_smr_execution::reply::UpdateReply;
use atlas_smr_execution::state::{DivisibleState, MergeOperator, ShardedState};
use workloads::Service;
use workloads::program::{Program, ProgramLogic};

use crate::executors::{ALL, Running};
use crate::input::Input;

const STEPS: usize = 12;
const PROGRAMS: usize = 32;
const INSTRUCTIONS: usize = 9;

/// What an executor is asked to do.
#[derive(Clone, Debug)]
enum Step {
    Batch(UpdateBatch<Program>),
    /// Deliver a checkpoint after it, too.
    Checkpoint(UpdateBatch<Program>),
    /// Nobody is answered.
    CatchUp(Vec<UpdateBatch<Program>>),
    /// Of a number that was executed before: it must be skipped.
    Again(UpdateBatch<Program>),
    Ask(UnorderedBatch<Program>),
    Read,
}

/// What comes out of the sequential loop.
struct Expected {
    ordered: Vec<UpdateReply<u64>>,
    /// For each unordered request in order: what the states up to its turn answer.
    unordered: Vec<Vec<UpdateReply<u64>>>,
    /// After each step: the last batch's number, and the state.
    states: Vec<(u64, ShardedState)>,
}

/// Runs what `bytes` say.
///
/// # Panics
///
/// If an executor does not do what the sequential loop does.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let keys = input.pick(&[1, 2, 3, 5, 12, 200]);
    let config = config(&mut input);
    let builder = ShardedState::builder().shards(input.pick(&[1, 2, 16, 64]));
    let builder = builder.merge_operator("b", MergeOperator::Min);
    let state = builder.merge_operator("", MergeOperator::WrappingAdd128).build().expect("valid");
    let mut seq = 0;
    let mut steps = Vec::new();
    while !input.is_empty() && steps.len() < STEPS {
        steps.push(step(&mut input, keys, &mut seq));
    }
    let expected = expect(&state, &steps);
    for (name, start) in ALL {
        check(name, start(&config, &state), &steps, &expected);
    }
}

fn config(input: &mut Input<'_>) -> ExecutorConfig {
    let mut config = ExecutorConfig::with_threads(1 + input.below(4));
    let modes = [ExecutionMode::Speculate, ExecutionMode::SpeculateByHints, ExecutionMode::Adaptive];
    let mode = input.byte();
    config.mode = modes[usize::from(mode) % modes.len()];
    config.forwarding = mode & 0x80 == 0;
    config.chunk = input.pick(&[None, Some(1), Some(2), Some(7), Some(64)]);
    config.window = input.pick(&[4096, 1, 2, 9]);
    config.pin = false;
    config
}

fn step(input: &mut Input<'_>, keys: u8, seq: &mut u64) -> Step {
    let kind = input.byte();
    let last = *seq;
    let mut next = || {
        // Now and then a number is left out.
        *seq += 1 + u64::from(kind >= 0xe0);
        *seq
    };
    match kind % 10 {
        0..=4 => Step::Batch(batch(input, keys, next())),
        5 => Step::Checkpoint(batch(input, keys, next())),
        6 => Step::CatchUp((0..input.below(4)).map(|_| batch(input, keys, next())).collect()),
        7 if last > 0 => Step::Again(batch(input, keys, last)),
        8 => Step::Ask(UnorderedBatch::from_requests(batch(input, keys, last).into_updates())),
        _ => Step::Read,
    }
}

fn batch(input: &mut Input<'_>, keys: u8, seq: u64) -> UpdateBatch<Program> {
    let mut batch = UpdateBatch::new(SeqNo(seq));
    for position in 0..input.below(PROGRAMS) {
        let instructions = input.below(INSTRUCTIONS);
        let program = Program::from_bytes(input.take(4 * instructions), keys);
        batch.add(NodeId(position as u32 % 3), SeqNo(seq), SeqNo(position as u64), program);
    }
    batch
}

fn expect(state: &ShardedState, steps: &[Step]) -> Expected {
    let app = Service(ProgramLogic);
    let mut state = state.snapshot();
    let mut expected = Expected { ordered: Vec::new(), unordered: Vec::new(), states: Vec::new() };
    let mut moments = vec![state.snapshot()];
    let mut seq = 0;
    for step in steps {
        match step {
            Step::Batch(batch) | Step::Checkpoint(batch) => {
                expected.ordered.extend(execute(&app, &mut state, batch, &mut seq));
                moments.push(state.snapshot());
            }
            Step::CatchUp(batches) => {
                for batch in batches {
                    execute(&app, &mut state, batch, &mut seq);
                    moments.push(state.snapshot());
                }
            }
            Step::Ask(batch) => {
                let answers = |state| app.unordered_batched_execution(state, batch.clone()).into_inner();
                let answers: Vec<Vec<_>> = moments.iter().map(answers).collect();
                let of = |request: usize| answers.iter().map(|all| all[request].clone()).collect();
                expected.unordered.extend((0..batch.len()).map(of));
            }
            Step::Again(_) | Step::Read => {}
        }
        expected.states.push((seq, state.snapshot()));
    }
    expected
}

fn execute(
    app: &Service<ProgramLogic>,
    state: &mut ShardedState,
    batch: &UpdateBatch<Program>,
    seq: &mut u64,
) -> Vec<UpdateReply<u64>> {
    *seq = batch.sequence_number().0;
    app.update_batch(state, batch.clone()).into_inner()
}

/// Runs `steps`, and compares.
fn check(name: &str, mut executor: Running, steps: &[Step], expected: &Expected) {
    let alive = "the executor is alive";
    for (step, (seq, state)) in steps.iter().zip(&expected.states) {
        let to = match step.clone() {
            Step::Batch(batch) | Step::Again(batch) => {
                executor.handle.queue_update(batch).expect(alive);
                continue;
            }
            Step::CatchUp(batches) => {
                executor.handle.catch_up_to_quorum(MaybeVec::Several(batches)).expect(alive);
                continue;
            }
            Step::Ask(batch) => {
                executor.handle.queue_update_unordered(batch).expect(alive);
                continue;
            }
            Step::Checkpoint(batch) => {
                executor.handle.queue_update_and_get_appstate(batch).expect(alive);
                None
            }
            Step::Read => {
                executor.handle.read_state(NodeId(9)).expect(alive);
                Some(NodeId(9))
            }
        };
        let checkpoint = executor.checkpoints.receive();
        assert_eq!((checkpoint.seq, checkpoint.to), (*seq, to), "{name}");
        assert!(checkpoint.state.iter().eq(state.iter()), "{name}: the state after batch {seq}");
        if let Some(descriptor) = checkpoint.descriptor {
            assert_eq!(descriptor, state.descriptor(), "{name}: the descriptor after batch {seq}");
        }
    }
    let [ordered, unordered] = executor.finish();
    assert_eq!(ordered, expected.ordered, "{name}: the replies");
    assert_eq!(unordered.len(), expected.unordered.len(), "{name}: answers to unordered requests");
    for (answer, possible) in unordered.iter().zip(&expected.unordered) {
        assert!(possible.contains(answer), "{name}: {answer:?} is not of {possible:?}");
    }
}

//! Serial equivalence: whatever the executor, the number of threads, the chunk and the batch, replies (values and order)
//! and state equal those of the loop over `Application::update`.
//!
//! Properties, over random programs with data-dependent branches and keys, several columns and all CRUD calls:
//! 1. batches of 0 to 300 operations on few keys (everything collides) and many, forced speculation, in chunks and by hints;
//! 2. the same with the engine choosing for itself;
//! 3. *all* batches of up to 4 operations from a set of 6, on 2 keys.

mod common;

use atlas_smr_execution::batch::{NodeId, SeqNo, UpdateBatch};
use atlas_smr_execution::executor::{ExecutionMode, ExecutorConfig};
use atlas_smr_execution::state::{MergeOperator, ShardedState};
use common::rig::{MultiDiv, MultiMon, Rig, SingleDiv, SingleMon, check};
use proptest::prelude::*;
use workloads::Service;
use workloads::program::{Program, ProgramLogic};

fn config(threads: usize, mode: ExecutionMode, chunk: Option<usize>) -> ExecutorConfig {
    let mut config = ExecutorConfig::with_threads(threads);
    (config.mode, config.chunk, config.pin) = (mode, chunk, false);
    config
}

/// Some batches as bytes, decoded later so that shrinking drops operations and instructions.
fn batches() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
    let program = prop::collection::vec(any::<u8>(), 0..40);
    let batch = prop_oneof![
        4 => prop::collection::vec(program.clone(), 0..40),
        1 => prop::collection::vec(program, 100..300),
    ];
    prop::collection::vec(batch, 1..5)
}

/// An empty state whose columns merge in different ways.
fn state(shards: usize) -> ShardedState {
    let builder = ShardedState::builder().shards(shards);
    let builder = builder.merge_operator("b", MergeOperator::Min);
    builder.merge_operator("", MergeOperator::WrappingAdd128).build().unwrap()
}

fn decode(batches: &[Vec<Vec<u8>>], keys: u8) -> Vec<UpdateBatch<Program>> {
    batches.iter().zip(1..).map(|(programs, seq)| Program::batch(seq, programs, keys)).collect()
}

fn on_all(config: &ExecutorConfig, batches: &[UpdateBatch<Program>]) -> u64 {
    let (app, state) = (Service(ProgramLogic), state(16));
    check::<SingleMon, _>(config, &app, &state, batches);
    check::<SingleDiv, _>(config, &app, &state, batches);
    check::<MultiMon, _>(config, &app, &state, batches).speculations
        + check::<MultiDiv, _>(config, &app, &state, batches).speculations
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]

    #[test]
    fn random_programs_ahead_of_turn(
        batches in batches(),
        keys in prop_oneof![Just(2u8), Just(12), Just(200)],
        threads in 1usize..9,
        chunk in prop_oneof![Just(None), (1usize..20).prop_map(Some)],
        forwarding: bool,
        by_hints: bool,
    ) {
        let mode = if by_hints { ExecutionMode::SpeculateByHints } else { ExecutionMode::Speculate };
        let mut config = config(threads, mode, chunk);
        config.forwarding = forwarding;
        on_all(&config, &decode(&batches, keys));
    }

    #[test]
    fn random_programs_as_the_engine_chooses(batches in batches(), keys in 1u8..40, threads in 1usize..5) {
        on_all(&config(threads, ExecutionMode::Adaptive, None), &decode(&batches, keys));
    }
}

/// Encodes instructions (see `workloads::program`): code, column, key, value.
const SMALL: [&[u8]; 6] = [
    &[4, 0, 0, 9],                                       // update key 0
    &[0, 0, 0, 0, 7, 0, 1, 11],                          // read key 0, put what was seen to key 1
    &[0, 0, 1, 0, 5, 0, 0, 16],                          // read key 1, update key 0
    &[6, 0, 0, 0],                                       // delete key 0
    &[10, 0, 0, 5, 3, 0, 1, 24],                         // merge into key 0, create key 1
    &[2, 0, 0, 0, 13, 0, 0, 0, 9, 0, 1, 0, 10, 0, 1, 3], // read key 0; if it is odd remove key 1; merge into key 1
];

/// All sequences of `length` of the first `set` operations.
fn all(length: u32, set: usize) -> impl Iterator<Item = Vec<Vec<u8>>> {
    (0..set.pow(length)).map(move |mut number| {
        (0..length)
            .map(|_| {
                let operation = SMALL[number % set].to_vec();
                number /= set;
                operation
            })
            .collect()
    })
}

fn every_small_batch<R: Rig>(threads: usize) {
    let batches: Vec<_> = (0..=4)
        .flat_map(|length| all(length, SMALL.len()))
        .zip(1..)
        .map(|(programs, seq)| Program::batch(seq, &programs, 2))
        .collect();
    assert_eq!(batches.len(), 1 + 6 + 36 + 216 + 1296);
    let state = state(2);
    let config = config(threads, ExecutionMode::Speculate, Some(1));
    // Each batch starts from what the one before left, and they are run twice, in opposite orders.
    let counters = check::<R, _>(&config, &Service(ProgramLogic), &state, &batches);
    assert_eq!(counters.batches, batches.len() as u64);
    let renumber = |(batch, seq): (&UpdateBatch<Program>, u64)| {
        UpdateBatch::from_updates(SeqNo(seq), batch.updates().to_vec())
    };
    let reversed: Vec<_> = batches.iter().rev().zip(1..).map(renumber).collect();
    check::<R, _>(&config, &Service(ProgramLogic), &state, &reversed);
}

#[test]
fn every_small_batch_single_mon() {
    every_small_batch::<SingleMon>(1);
}

#[test]
fn every_small_batch_multi_mon() {
    every_small_batch::<MultiMon>(2);
    every_small_batch::<MultiMon>(3);
}

#[test]
fn every_small_batch_multi_div() {
    every_small_batch::<MultiDiv>(2);
}

/// One key that every operation reads and writes: the test above would prove little if nothing were ever replayed.
#[test]
fn collisions_happen_and_are_replayed() {
    let programs = vec![[12, 0, 0, 1].repeat(20).into_iter().chain(*b"\x04\x00\x00\x09").collect(); 2000];
    let batches: Vec<_> = (1..=20).map(|seq| Program::batch(seq, &programs, 1)).collect();
    let state = ShardedState::new();
    let config = config(4, ExecutionMode::Speculate, Some(8));
    let counters = check::<MultiMon, _>(&config, &Service(ProgramLogic), &state, &batches);
    assert!(counters.collisions > 0 && counters.replays >= counters.collisions, "{counters:?}");
    assert_eq!(counters.speculations, counters.accepted + counters.replays);
}

/// Operations on keys of their own never collide, and neither does an operation with itself, nor one key in two columns.
#[test]
fn what_does_not_collide_is_not_replayed() {
    let mut batch = UpdateBatch::new(SeqNo(1));
    for key in 0..200u8 {
        // Read, update and read again the same key; the same key in the other column belongs to the next operation.
        let bytes = [0, key % 2, key / 2, 0, 4, key % 2, key / 2, 8, 2, key % 2, key / 2, 0];
        batch.add(NodeId(1), SeqNo(1), SeqNo(key.into()), Program::from_bytes(&bytes, 100));
    }
    let config = config(4, ExecutionMode::Speculate, Some(4));
    let counters = check::<MultiMon, _>(&config, &Service(ProgramLogic), &ShardedState::new(), &[batch]);
    assert_eq!((counters.collisions, counters.replays), (0, 0), "{counters:?}");
}

//! Checkpoints of a large state while batches run: what they cost is counted in copies of shards.
//!
//! Nobody reads a checkpoint before the last batch is executed, so no batch can have waited for one to be taken. What a
//! batch does pay for is the copy of each shard of which much has changed since a snapshot that still lives.

mod common;

use std::sync::OnceLock;

use atlas_smr_execution::app::{Application, ApplicationData, ScalableApp};
use atlas_smr_execution::batch::{SeqNo, UpdateBatch};
use atlas_smr_execution::error::BoxError;
use atlas_smr_execution::executor::{ExecutionMode, ExecutorConfig, ExecutorHandle};
use atlas_smr_execution::state::{CRUDState, DivisibleState, ShardedState};
use common::rig::{self, Rig};
use common::*;

on!(rig: [MultiMon, MultiDiv] {
    large_shards_are_not_copied,
    of_small_shards_only_those_that_batches_touched_are_copied,
});

/// About 244 keys per shard, of which a batch changes one here and there.
const LARGE: u64 = 1_000_000;
/// About 5 per shard: one is more than a sixteenth of it.
const SMALL: u64 = 20_000;
const BATCHES: u64 = 24;
/// Each batch whose number this divides is followed by a checkpoint.
const EVERY: u64 = 4;
/// Operations in a batch; enough for the multi-threaded executors to commit on several threads.
const OPERATIONS: u64 = 150;

/// Writes a key; as an unordered request, asks how many shards were copied so far.
#[derive(Clone)]
struct Writes;

impl ApplicationData for Writes {
    type Request = u64;
    type Reply = u64;
}

impl Application<ShardedState> for Writes {
    type AppData = Writes;

    fn initial_state() -> Result<ShardedState, BoxError> {
        Ok(ShardedState::new())
    }

    fn unordered_execution(&self, state: &ShardedState, _: u64) -> u64 {
        state.shard_copies()
    }

    fn update(&self, state: &mut ShardedState, key: u64) -> u64 {
        self.speculatively_execute(state, key)
    }
}

impl ScalableApp<ShardedState> for Writes {
    fn speculatively_execute(&self, state: &mut impl CRUDState, key: u64) -> u64 {
        state.put("a", &key.to_le_bytes(), &[1; 8]);
        key
    }
}

fn filled(keys: u64) -> ShardedState {
    let mut state = ShardedState::new();
    (0..keys).for_each(|key| state.put("a", &key.to_le_bytes(), &[0; 8]));
    state
}

fn batches(keys: u64) -> Vec<UpdateBatch<u64>> {
    let key = |seq: u64, n: u64| (seq * 1_000 + n).wrapping_mul(0x9E37_79B9_7F4A_7C15) % keys;
    (1..=BATCHES).map(|seq| batch(seq, (0..OPERATIONS).map(|n| key(seq, n)))).collect()
}

/// The state after all batches by the plain loop. No snapshot is dropped before the end, so an executor has no reason to copy
/// more.
fn reference(mut state: ShardedState, batches: &[UpdateBatch<u64>]) -> ShardedState {
    let mut snapshots = Vec::new();
    for batch in batches {
        for update in batch.updates() {
            Writes.update(&mut state, *update.operation());
        }
        if batch.sequence_number().0.is_multiple_of(EVERY) {
            snapshots.push(state.snapshot());
        }
    }
    state
}

fn large_shards_are_not_copied<R: Rig>() {
    // Made once.
    static STATE: OnceLock<ShardedState> = OnceLock::new();
    let state = STATE.get_or_init(|| filled(LARGE)).snapshot();
    let batches = batches(LARGE);
    let expected = reference(state.snapshot(), &batches);
    assert_eq!(expected.shard_copies(), 0);
    assert_eq!(copies::<R>(state, batches, &expected), 0);
}

fn of_small_shards_only_those_that_batches_touched_are_copied<R: Rig>() {
    let batches = batches(SMALL);
    let expected = reference(filled(SMALL), &batches);
    let touched = expected.shard_copies();
    let all = expected.shard_count() as u64;
    assert!(touched <= BATCHES * OPERATIONS && touched < BATCHES / EVERY * all / 4, "{touched} of {all}");
    let copies = copies::<R>(filled(SMALL), batches, &expected);
    assert!((1..=touched).contains(&copies), "{copies} copies where {touched} shards were touched");
}

/// How many shards an executor copies while it executes batches with checkpoints; what it leaves must be as `expected`.
fn copies<R: Rig>(state: ShardedState, batches: Vec<UpdateBatch<u64>>, expected: &ShardedState) -> u64 {
    let mut config = ExecutorConfig::with_threads(3);
    (config.mode, config.pin) = (ExecutionMode::Speculate, false);
    let drive = move |handle: &ExecutorHandle<u64>, checkpoints: &StateRx<ShardedState>| {
        for batch in batches {
            if batch.sequence_number().0.is_multiple_of(EVERY) {
                handle.queue_update_and_get_appstate(batch).unwrap();
            } else {
                handle.queue_update(batch).unwrap();
            }
        }
        wait_until("the last batch", || handle.last_executed() == SeqNo(BATCHES));
        // Asked before that, it might be answered beside a batch.
        handle.queue_update_unordered(reads(1, [0])).unwrap();
        read_all(checkpoints)
    };
    let output = R::drive(&config, Writes, state, drive);
    assert_eq!(output.state.descriptor(), expected.descriptor());
    *output.replies.last().unwrap().payload()
}

/// The last checkpoint; it stays, where newer ones replace those that nobody has taken.
fn read_all(checkpoints: &StateRx<ShardedState>) -> ShardedState {
    let (mut state, mut last) = (ShardedState::new(), 0);
    while last < BATCHES {
        let arrived = checkpoints.next(&state).unwrap();
        assert!(arrived.seq > last && arrived.seq.is_multiple_of(EVERY) && arrived.to.is_none());
        (state, last) = (arrived.state, arrived.seq);
    }
    state
}

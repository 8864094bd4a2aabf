//! Bytes as a trace file: whatever they are, they are refused by name or can be run.

use std::path::Path;

use atlas_smr_execution::state::ShardedState;
use workloads::reference::run_workload;
use workloads::trace::{Block, Model, Recording, Trace};
use workloads::{Plan, Workload};

/// Longer traces are only parsed.
const TRANSACTIONS: usize = 64;

/// Parses `bytes`; what is accepted is built under every model, and run.
///
/// # Panics
///
/// If parsing or running does, or an error does not name the file.
pub fn run(bytes: &[u8]) {
    let recording = match Recording::parse(Path::new("block.jsonl"), bytes) {
        Ok(recording) => recording,
        Err(error) => {
            assert!(error.to_string().contains("block.jsonl"), "{error}");
            return;
        }
    };
    for model in Model::ALL {
        let block = Block::new(&recording, model);
        assert_eq!(block.operations.len(), recording.len());
        if recording.len() > TRANSACTIONS {
            continue;
        }
        let trace = Trace { blocks: vec![block.into()], scale: 0.0, repeat: 1 };
        let mut builder = ShardedState::builder().shards(4);
        for &(column, operator) in trace.columns() {
            builder = builder.merge_operator(column, operator);
        }
        let mut state = builder.build().expect("valid");
        trace.populate(&mut state);
        let plan = Plan { seed: 0, batch: 1, operations: 1 };
        let outcome = run_workload(&trace, &mut state, trace.batches(plan));
        assert_eq!(outcome.operations, recording.len() as u64);
    }
}

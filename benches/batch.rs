//! Whole batches: the sequential loop, and the engine ahead of turn and as it judges.

use std::sync::Arc;

use atlas_smr_execution::app::Application;
use atlas_smr_execution::batch::UpdateBatch;
use atlas_smr_execution::executor::engines::{Engine, Speculative};
use atlas_smr_execution::executor::{ExecutionMode, ExecutorConfig};
use atlas_smr_execution::metrics::Metrics;
use atlas_smr_execution::reply::BatchReplies;
use atlas_smr_execution::state::ShardedState;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use workloads::{Kv, KvMix, Plan, ReplyDigest, Request, Transfer, Workload};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SIZES: [usize; 3] = [16, 128, 1024];

/// Batches that a run goes through, again and again.
const BATCHES: u64 = 64;

fn batches<W: Workload>(workload: &W, size: usize) -> Vec<UpdateBatch<Request<W>>> {
    workload.batches(Plan { seed: 1, batch: size, operations: BATCHES * size as u64 }).collect()
}

/// The digest of the replies to `batches` on a new state.
fn digest<W: Workload>(
    workload: &W,
    batches: &[UpdateBatch<Request<W>>],
    mut execute: impl FnMut(&mut ShardedState, UpdateBatch<Request<W>>) -> BatchReplies<u64>,
) -> (ReplyDigest, ShardedState) {
    let mut state = ShardedState::new();
    workload.populate(&mut state);
    let mut digest = ReplyDigest::new();
    for batch in batches {
        let replies = execute(&mut state, batch.clone());
        replies.into_inner().into_iter().for_each(|reply| digest.push(reply.into_payload()));
    }
    (digest, state)
}

/// Benches one way to execute, after a check that it gives `expected`.
fn way<W: Workload>(
    c: &mut Criterion,
    name: String,
    workload: &W,
    size: usize,
    expected: ReplyDigest,
    mut execute: impl FnMut(&mut ShardedState, UpdateBatch<Request<W>>) -> BatchReplies<u64>,
) {
    let batches = batches(workload, size);
    let (replies, mut state) = digest(workload, &batches, &mut execute);
    assert_eq!(replies, expected, "{name} must answer what the loop answers");
    let mut next = batches.iter().cycle();
    let mut group = c.benchmark_group("batch");
    group.throughput(Throughput::Elements(size as u64));
    group.bench_function(name, |b| {
        b.iter_batched(
            || next.next().expect("a cycle").clone(),
            |batch| {
                let replies = execute(&mut state, batch);
                assert_eq!(replies.len(), size);
                replies
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn ways<W: Workload>(c: &mut Criterion, name: &str, workload: &W) {
    let app = workload.app();
    for size in SIZES {
        let (expected, _) =
            digest(workload, &batches(workload, size), |state, batch| app.update_batch(state, batch));
        let name = |way: &str| format!("{name}, {size}, {way}");
        way(c, name("loop"), workload, size, expected, |state, batch| app.update_batch(state, batch));
        for (mode, label) in [(ExecutionMode::Speculate, "ahead"), (ExecutionMode::Adaptive, "adaptive")] {
            let mut config = ExecutorConfig::with_threads(2);
            config.mode = mode;
            let report = config.validate().expect("valid");
            let mut engine = <Speculative<_, _> as Engine<_, ShardedState>>::new(
                &config,
                &report,
                Arc::new(Metrics::new()),
            )
            .expect("threads");
            Engine::<_, ShardedState>::enter(&mut engine);
            way(c, name(label), workload, size, expected, |state, batch| {
                engine.execute(&app, state, batch, &mut |_| {}).expect("nothing panics")
            });
        }
    }
}

fn whole_batches(c: &mut Criterion) {
    ways(c, "transfers of 1 us", &Transfer { accounts: 1000, work_ns: 1000, heavy: 0.0, counts: 0 });
    ways(c, "empty transfers", &Transfer { accounts: 1000, work_ns: 0, heavy: 0.0, counts: 0 });
    ways(c, "puts", &Kv { mix: KvMix::Put, keys: 100_000, value_size: 100 });
}

criterion_group!(benches, whole_batches);
criterion_main!(benches);

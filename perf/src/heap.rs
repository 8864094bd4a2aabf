//! What is asked of the heap, per operation and per batch.

use std::sync::Arc;

use atlas_smr_execution::batch::UpdateBatch;
use atlas_smr_execution::error::Failure;
use atlas_smr_execution::executor::ExecutionMode;
use atlas_smr_execution::executor::engines::{Engine, Speculative};
use atlas_smr_execution::metrics::Metrics;
use atlas_smr_execution::reply::BatchReplies;
use atlas_smr_execution::state::ShardedState;
use workloads::{Branch, Kv, KvMix, Logic, Plan, Service, Workload};

use crate::baseline;
use crate::bench::{Bench, Setup};
use crate::error::PerfError;
use crate::load::{Load, OnWorkload, populated};
use crate::raw::counting::{Allocations, count};
use crate::sample::plain_loop;

/// Operations of a small and a large batch: the difference is what operations cost, the rest is the batch's.
const SMALL: usize = 256;
const LARGE: usize = 1024;
/// Batches that are executed before it counts, and that count.
const WARM_UP: usize = 100;
const COUNTED: usize = 100;

/// What is executed: enough keys that few collide.
pub fn loads() -> [Load; 6] {
    let kv = |mix| Load::Kv(Kv { mix, keys: 10_000, value_size: 100 });
    [
        Load::transfer(1000, 0),
        kv(KvMix::Put),
        kv(KvMix::Update),
        kv(KvMix::Merge),
        kv(KvMix::YcsbA),
        Load::Branch(Branch { keys: 1000, work_ns: 0 }),
    ]
}

/// Allocations and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Use {
    pub calls: f64,
    pub bytes: f64,
}

/// What one way of execution asks of the heap.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeapUse {
    /// A large batch's, divided by its operations.
    pub average: Use,
    /// What one operation more in a batch adds: without what the batch itself needs.
    pub per_operation: Use,
}

/// Who executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Loop,
    /// The engine, sequentially or ahead of turn.
    Engine(ExecutionMode),
    Phased,
}

impl Way {
    pub const ALL: [Way; 4] = [
        Way::Loop,
        Way::Engine(ExecutionMode::Sequential),
        Way::Engine(ExecutionMode::Speculate),
        Way::Phased,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Way::Loop => "loop",
            Way::Engine(ExecutionMode::Sequential) => "engine, sequentially",
            Way::Engine(_) => "engine, ahead of turn",
            Way::Phased => "phased-rayon",
        }
    }
}

/// What executing `load` in this way asks of the heap, the application's and the state's part included. The calling
/// thread becomes the executor's.
pub fn measure(bench: &Bench, load: &Load, way: Way) -> Result<HeapUse, PerfError> {
    load.visit(Task { bench, way })
}

struct Task<'a> {
    bench: &'a Bench,
    way: Way,
}

impl OnWorkload for Task<'_> {
    type Output = Result<HeapUse, PerfError>;

    fn run<W: Workload>(self, workload: &W) -> Self::Output {
        let small = self.per_batch(workload, SMALL)?;
        let large = self.per_batch(workload, LARGE)?;
        let slope = |small: f64, large: f64| (large - small) / (LARGE - SMALL) as f64;
        let per_operation =
            Use { calls: slope(small.calls, large.calls), bytes: slope(small.bytes, large.bytes) };
        let average = Use { calls: large.calls / LARGE as f64, bytes: large.bytes / LARGE as f64 };
        Ok(HeapUse { average, per_operation })
    }
}

impl Task<'_> {
    /// The average over batches of `size` operations.
    fn per_batch<W: Workload>(&self, workload: &W, size: usize) -> Result<Use, PerfError> {
        let mut state = populated(workload)?;
        let app = workload.app();
        let plan = Plan { seed: 5, batch: size, operations: (size * (WARM_UP + COUNTED)) as u64 };
        let mut batches: Vec<_> = workload.batches(plan).collect();
        let counted = batches.split_off(WARM_UP);
        let Allocations { calls, bytes } = match self.way {
            Way::Loop => both(batches, counted, |batch| Ok(plain_loop(&app, &mut state, batch))),
            Way::Phased => self
                .bench
                .rayon
                .install(|| both(batches, counted, |batch| Ok(baseline::phased(&app, &mut state, batch)))),
            Way::Engine(mode) => {
                let mut engine = self.engine::<W::Logic>(mode)?;
                both(batches, counted, |batch| engine.execute(&app, &mut state, batch, &mut |_| {}))
            }
        }?;
        Ok(Use { calls: calls as f64 / COUNTED as f64, bytes: bytes as f64 / COUNTED as f64 })
    }

    fn engine<L: Logic>(
        &self,
        mode: ExecutionMode,
    ) -> Result<Speculative<Service<L>, ShardedState>, PerfError> {
        let config = Setup { mode, ..Setup::ADAPTIVE }.config(self.bench.threads);
        let report = config.validate()?;
        let mut engine = <Speculative<_, _> as Engine<Service<L>, ShardedState>>::new(
            &config,
            &report,
            Arc::new(Metrics::new()),
        )?;
        engine.enter();
        Ok(engine)
    }
}

/// Executes `batches`, then `counted`, and counts during the latter.
fn both<R>(
    batches: Vec<UpdateBatch<R>>,
    counted: Vec<UpdateBatch<R>>,
    mut execute: impl FnMut(UpdateBatch<R>) -> Result<BatchReplies<u64>, Failure>,
) -> Result<Allocations, Failure> {
    for batch in batches {
        execute(batch)?;
    }
    let (result, allocations) = count(|| counted.into_iter().try_for_each(|batch| execute(batch).map(drop)));
    result.map(|()| allocations)
}

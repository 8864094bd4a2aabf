//! A fixed number of batches in one way, and nothing else: for profilers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use atlas_smr_execution::batch::UpdateBatch;
use atlas_smr_execution::error::Failure;
use atlas_smr_execution::executor::ExecutionMode;
use atlas_smr_execution::executor::engines::{Engine, Speculative};
use atlas_smr_execution::metrics::{Counters, Metrics};
use atlas_smr_execution::reply::BatchReplies;
use atlas_smr_execution::state::ShardedState;
use clap::ValueEnum;
use workloads::{Plan, ReplyDigest, Workload};

use crate::args::FixedArgs;
use crate::baseline;
use crate::bench::{Bench, Effort, Setup};
use crate::error::PerfError;
use crate::load::{OnWorkload, populated};
use crate::sample::plain_loop;

/// Batches that are made at once, in operations: enough to time, few enough to stay in a cache.
const AT_ONCE: usize = 4096;

/// Who executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// Nobody: batches are made and dropped. What that costs has to be taken off what others cost.
    None,
    /// The sequential loop.
    Loop,
    /// The engine, ahead of turn, on one thread.
    Alone,
    /// The engine, ahead of turn, on all threads.
    Forced,
    /// The same, each unit on one moment.
    OneMoment,
    /// The same, by hints.
    Hinted,
    /// The engine, as it judges.
    Adaptive,
    /// Everything ahead of turn, then all again that collided, with rayon.
    Phased,
}

/// What became of the batches.
struct Outcome {
    operations: u64,
    elapsed: Duration,
    replies: ReplyDigest,
    counters: Counters,
}

/// Runs what `args` say, and returns a line about it.
pub fn run(args: &FixedArgs) -> Result<String, PerfError> {
    let load = args.load.load(&args.common)?;
    let bench = Bench::new(Effort::FULL, &args.common)?;
    // On a thread of its own: it gets pinned, and rayon's threads must not inherit that.
    let run = || load.visit(Task { bench: &bench, args });
    let joined = std::thread::scope(|scope| scope.spawn(run).join());
    let outcome = joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    let Outcome { operations, elapsed, replies, counters } = outcome;
    Ok(format!(
        "{} by {:?}: {operations} operations, {:.1} ns each, {} units ahead of turn, {} of them replayed, replies \
         {replies}",
        load.name(),
        args.way,
        elapsed.as_nanos() as f64 / operations.max(1) as f64,
        counters.speculations,
        counters.replays,
    ))
}

struct Task<'a> {
    bench: &'a Bench,
    args: &'a FixedArgs,
}

impl OnWorkload for Task<'_> {
    type Output = Result<Outcome, PerfError>;

    fn run<W: Workload>(self, workload: &W) -> Self::Output {
        let Task { bench, args } = self;
        workload.validate()?;
        let mut state = populated(workload)?;
        let app = workload.app();
        let batch = args.load.batch;
        let plan = Plan { seed: 6, batch, operations: batch as u64 * args.batches };
        let batches = workload.batches(plan).take(usize::try_from(args.batches).unwrap_or(usize::MAX));
        let mut setup = match args.way {
            Way::Alone => Setup::ALONE,
            Way::Forced => Setup::FORCED,
            Way::OneMoment => Setup { tune: |config| config.forwarding = false, ..Setup::FORCED },
            Way::Hinted => Setup { mode: ExecutionMode::SpeculateByHints, ..Setup::FORCED },
            _ => Setup::ADAPTIVE,
        }
        .config(args.common.threads);
        setup.chunk = args.chunk;
        match args.way {
            Way::None => drain(batches, |_| Ok(BatchReplies::default())),
            Way::Loop => drain(batches, |batch| Ok(plain_loop(&app, &mut state, batch))),
            Way::Phased => {
                bench.rayon.install(|| drain(batches, |batch| Ok(baseline::phased(&app, &mut state, batch))))
            }
            Way::Alone | Way::Forced | Way::OneMoment | Way::Hinted | Way::Adaptive => {
                let metrics = Arc::new(Metrics::new());
                let mut engine = <Speculative<_, _> as Engine<_, ShardedState>>::new(
                    &setup,
                    &setup.validate()?,
                    Arc::clone(&metrics),
                )?;
                Engine::<_, ShardedState>::enter(&mut engine);
                let mut outcome =
                    drain(batches, |batch| engine.execute(&app, &mut state, batch, &mut |_| {}))?;
                outcome.counters = metrics.counters();
                Ok(outcome)
            }
        }
    }
}

/// Runs all of `batches`, some at once; only executing them is timed.
fn drain<R>(
    batches: impl Iterator<Item = UpdateBatch<R>>,
    mut execute: impl FnMut(UpdateBatch<R>) -> Result<BatchReplies<u64>, Failure>,
) -> Result<Outcome, PerfError> {
    let mut outcome = Outcome {
        operations: 0,
        elapsed: Duration::ZERO,
        replies: ReplyDigest::new(),
        counters: Counters::default(),
    };
    let mut batches = batches.peekable();
    let mut some = Vec::new();
    let mut done = Vec::new();
    while batches.peek().is_some() {
        let mut operations = 0;
        while let Some(batch) = batches.next_if(|_| operations < AT_ONCE) {
            operations += batch.len();
            some.push(batch);
        }
        let start = Instant::now();
        for batch in some.drain(..) {
            done.push(execute(batch)?);
        }
        outcome.elapsed += start.elapsed();
        outcome.operations += operations as u64;
        for reply in done.drain(..).flat_map(BatchReplies::into_inner) {
            outcome.replies.push(reply.into_payload());
        }
    }
    Ok(outcome)
}

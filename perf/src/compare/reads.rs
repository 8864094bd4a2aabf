//! Unordered requests: the loop over `Application::unordered_execution`, the engine, and rayon, all on one state.

use std::sync::Arc;
use std::time::Duration;

use atlas_smr_execution::app::Application;
use atlas_smr_execution::batch::{UnorderedBatch, Update, UpdateBatch};
use atlas_smr_execution::error::Failure;
use atlas_smr_execution::executor::engines::{Engine, Speculative};
use atlas_smr_execution::metrics::Metrics;
use atlas_smr_execution::reply::{BatchReplies, UpdateReply};
use atlas_smr_execution::state::ShardedState;
use rayon::prelude::*;
use workloads::{Logic, Plan, Service, Workload};

use super::row::Measured;
use crate::bench::{Bench, Effort, Setup, rounds, warmed_up};
use crate::error::PerfError;
use crate::load::{Load, OnWorkload};
use crate::machine::Crowd;
use crate::sample::{Sample, group_of, sample};
use crate::stats::{Spread, median};

/// What is measured.
#[derive(Clone, Debug)]
pub struct Reads {
    pub load: Load,
    pub batch: usize,
    /// The engine is held against rayon's best way, not against the loop.
    pub against_rayon: bool,
}

impl Reads {
    /// The workload's name.
    pub fn name(&self) -> &'static str {
        match self.load {
            Load::Kv(_) => "kv-read",
            _ => self.load.name(),
        }
    }
}

/// A way to use rayon.
#[derive(Clone, Copy)]
struct Way {
    /// The batches arrive on one of rayon's own threads, which then need not be woken; not on an executor's.
    inside: bool,
    /// In a few chunks per thread, and not as rayon splits the work by itself.
    chunks: bool,
}

/// All of them. The best counts.
const WAYS: [Way; 4] = [
    Way { inside: false, chunks: false },
    Way { inside: false, chunks: true },
    Way { inside: true, chunks: false },
    Way { inside: true, chunks: true },
];
/// The loop, the engine, and rayon's ways.
const READERS: usize = 2 + WAYS.len();
const LOOP: usize = 0;
const ENGINE: usize = 1;

/// The readers, in the order of a round's samples.
struct Readers<'a, L: Logic> {
    app: Service<L>,
    engine: Speculative<Service<L>, ShardedState>,
    metrics: Arc<Metrics>,
    state: &'a ShardedState,
    rayon: &'a rayon::ThreadPool,
    chunk: usize,
    rounds: usize,
    equal: bool,
}

/// Measures it. The calling thread becomes the executor's.
pub fn measure(bench: &mut Bench, row: &Reads) -> Result<Measured, PerfError> {
    row.load.visit(Task { bench, row })
}

struct Task<'a> {
    bench: &'a mut Bench,
    row: &'a Reads,
}

impl OnWorkload for Task<'_> {
    type Output = Result<Measured, PerfError>;

    fn run<W: Workload>(self, workload: &W) -> Self::Output {
        let Task { bench, row: &Reads { ref load, batch, against_rayon } } = self;
        workload.validate()?;
        let states = bench.states.take(load, workload, 2)?;
        let Bench { effort, threads, probe, rayon, .. } = &*bench;
        let mut source = workload.batches(Plan { seed: 2, batch, operations: u64::MAX / 2 });
        let mut equal = true;
        let (mut readers, time) = warmed_up(effort, probe, |_| {
            let mut readers = Readers::new(workload.logic(), &states[0], *threads, rayon, batch)?;
            let time = readers.warm_up(&mut source, effort, batch)?;
            equal &= readers.equal;
            Ok((readers, time))
        })?;
        let group = group_of(time);
        let count = (effort.sample.as_nanos() / time.as_nanos().max(1)) as usize;
        let count = count.min(200_000 / batch).max(effort.batches);
        let (in_parallel, mut requests) = (readers.in_parallel(), 0);
        let samples = rounds(effort, probe, Crowd::Anybody, || {
            let batches: Vec<_> = source.by_ref().take(count + group).collect();
            requests += batches.len() * batch;
            readers.round(&batches, group)
        })?;
        let in_parallel = (readers.in_parallel() - in_parallel) as f64 / requests as f64;
        equal &= readers.equal;
        bench.states.bring_back(load, states);
        Ok(Measured { sequential_share: Some(1.0 - in_parallel), ..summary(&samples, against_rayon, equal) })
    }
}

fn summary(samples: &[(Vec<Sample>, bool)], against_rayon: bool, equal: bool) -> Measured {
    let spread = |of: &dyn Fn(&[Sample]) -> f64| {
        Spread::of(&samples.iter().map(|(samples, good)| (of(samples), *good)).collect::<Vec<_>>())
    };
    // How many times as fast as reader `a` is reader `b`?
    let ratio = |a: usize, b: usize| {
        spread(&|samples| samples[a].elapsed.as_secs_f64() / samples[b].elapsed.as_secs_f64())
    };
    let rayon = |of: fn(&Way) -> bool| (0..WAYS.len()).filter(move |way| of(&WAYS[*way])).map(|way| 2 + way);
    let by_median = |a: &Spread, b: &Spread| a.median.total_cmp(&b.median);
    // The best way is the one that was the best over all samples; the best of each sample would be chance.
    let mut measured = Measured::new(if against_rayon {
        rayon(|_| true).map(|way| ratio(way, ENGINE)).min_by(by_median).expect("there are ways")
    } else {
        ratio(LOOP, ENGINE)
    });
    if !against_rayon {
        let best = |of| rayon(of).map(|way| ratio(LOOP, way)).max_by(by_median).expect("there are ways");
        measured.baselines.insert("rayon", best(|_| true).median);
        measured.baselines.insert("rayon, called from outside", best(|way| !way.inside).median);
    }
    measured.equal = equal;
    measured.sequential_ns =
        Some(median(samples.iter().map(|(samples, _)| samples[LOOP].ns_per_operation())));
    measured
}

impl<'a, L: Logic> Readers<'a, L> {
    fn new(
        logic: L,
        state: &'a ShardedState,
        threads: usize,
        rayon: &'a rayon::ThreadPool,
        batch: usize,
    ) -> Result<Self, PerfError> {
        let config = Setup::ADAPTIVE.config(threads);
        let (report, metrics) = (config.validate()?, Arc::new(Metrics::new()));
        let mut engine = <Speculative<_, _> as Engine<Service<L>, ShardedState>>::new(
            &config,
            &report,
            Arc::clone(&metrics),
        )?;
        Engine::<Service<L>, ShardedState>::enter(&mut engine);
        let chunk = batch.div_ceil(4 * threads);
        Ok(Readers { app: Service(logic), engine, metrics, state, rayon, chunk, rounds: 0, equal: true })
    }

    /// How many requests the engine has answered on all threads.
    fn in_parallel(&self) -> u64 {
        self.metrics.counters().unordered_in_parallel
    }

    /// Runs batches until the engine knows what to do, and returns how long one takes the loop.
    fn warm_up(
        &mut self,
        source: &mut impl Iterator<Item = UpdateBatch<L::Request>>,
        effort: &Effort,
        batch: usize,
    ) -> Result<Duration, PerfError> {
        let mut some = || source.take((20_000 / batch).max(4)).collect::<Vec<_>>();
        let (mut engine, mut batches) = (Duration::ZERO, 0);
        while engine < effort.warm_up || batches < effort.warm_up_batches {
            let some = some();
            batches += some.len() as u64;
            engine += self.read(ENGINE, some, 1)?.elapsed;
        }
        let sequential = &self.round(&some(), 1)?[LOOP];
        Ok(sequential.elapsed * batch as u32 / sequential.operations.max(1) as u32)
    }

    fn round(&mut self, batches: &[UpdateBatch<L::Request>], group: usize) -> Result<Vec<Sample>, PerfError> {
        let mut samples = vec![None; READERS];
        for turn in 0..READERS {
            // Another one begins each time.
            let reader = (turn + self.rounds) % READERS;
            samples[reader] = Some(self.read(reader, batches.to_vec(), group)?);
        }
        self.rounds += 1;
        let samples: Vec<Sample> = samples.into_iter().flatten().collect();
        self.equal &= samples.windows(2).all(|pair| pair[0].replies == pair[1].replies);
        Ok(samples)
    }

    fn read(
        &mut self,
        reader: usize,
        batches: Vec<UpdateBatch<L::Request>>,
        group: usize,
    ) -> Result<Sample, Failure> {
        let Readers { app, engine, rayon, chunk, .. } = self;
        let state = self.state;
        match reader {
            LOOP => sample(batches, group, |batch| Ok(plain_reads(app, state, batch))),
            ENGINE => sample(batches, group, |batch| {
                engine.execute_unordered(app, state, UnorderedBatch::from_requests(batch.into_updates()))
            }),
            way => {
                let Way { inside, chunks } = WAYS[way - 2];
                let least = if chunks { *chunk } else { 1 };
                let one = |request: &Update<L::Request>| {
                    let answer = app.unordered_execution(state, request.operation().clone());
                    UpdateReply::to_request(request, answer)
                };
                let answer = |batch: UpdateBatch<L::Request>| -> BatchReplies<u64> {
                    let replies = batch.updates().par_iter().with_min_len(least).map(one);
                    replies.collect::<Vec<_>>().into()
                };
                if inside {
                    rayon.install(|| sample(batches, group, |batch| Ok(answer(batch))))
                } else {
                    sample(batches, group, |batch| Ok(rayon.install(|| answer(batch))))
                }
            }
        }
    }
}

/// The loop: one request after the other, the replies in a vector.
fn plain_reads<L: Logic>(
    app: &Service<L>,
    state: &ShardedState,
    batch: UpdateBatch<L::Request>,
) -> BatchReplies<u64> {
    let mut replies = Vec::with_capacity(batch.len());
    for request in batch.into_updates() {
        let (from, session, id, request) = request.into_inner();
        replies.push(UpdateReply::new(from, session, id, app.unordered_execution(state, request)));
    }
    replies.into()
}

//! Ordered batches of one workload and one size.

use std::time::Duration;

use atlas_smr_execution::batch::UpdateBatch;
use atlas_smr_execution::executor::ExecutorConfig;
use workloads::{Logic, Plan, Workload};

use super::race::{Contender, Race, ratio};
use super::row::Measured;
use crate::bench::{Bench, Effort, Setup};
use crate::error::PerfError;
use crate::load::{Load, OnWorkload};
use crate::sample::{Sample, group_of};
use crate::stats::{Spread, median};

/// The seed of all generators.
const SEED: u64 = 1;
/// Operations in a sample, at most: they are made beforehand and take memory.
const MOST_OPERATIONS: usize = 400_000;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Ordered {
    pub load: Load,
    pub batch: usize,
    pub setup: Setup,
    /// The baseline takes part.
    pub baseline: bool,
}

/// Measures it. The calling thread becomes the executor's.
pub fn measure(bench: &mut Bench, row: &Ordered) -> Result<Measured, PerfError> {
    row.load.visit(Task { bench, row })
}

struct Task<'a> {
    bench: &'a mut Bench,
    row: &'a Ordered,
}

impl OnWorkload for Task<'_> {
    type Output = Result<Measured, PerfError>;

    fn run<W: Workload>(self, workload: &W) -> Self::Output {
        let Task { bench, row } = self;
        workload.validate()?;
        let Bench { effort, threads, probe, rayon, states, .. } = bench;
        let taken = states.take(&row.load, workload, 2 + usize::from(row.baseline))?;
        let mut race = Race::new(workload.logic(), taken, row.setup, *threads, rayon)?;
        let plan = Plan { seed: SEED, batch: row.batch, operations: u64::MAX / 2 };
        let mut source = workload.batches(plan);
        let batch_time = warm_up(&mut race, &mut source, effort, row.batch)?;
        let group = group_of(batch_time);
        let in_sample = (effort.sample.as_nanos() / batch_time.as_nanos().max(1)) as usize;
        let in_sample = in_sample.min(MOST_OPERATIONS / row.batch).max(effort.batches);
        let before = race.counters();
        let batches_before = race.batches();
        let spin = ExecutorConfig::default().spin;
        let mut rounds = Rounds::default();
        while rounds.wants_more(effort.pairs) {
            let batches: Vec<_> = source.by_ref().take(in_sample + group).collect();
            let near = probe.is_near(spin);
            let samples = race.round(&batches, group)?;
            rounds.add(&samples, near & probe.is_near(spin));
        }
        let batches = race.batches() - batches_before;
        let now = race.counters();
        let mut measured = rounds.measured();
        measured.sequential_share =
            Some((now.sequential_batches - before.sequential_batches) as f64 / batches.max(1) as f64);
        measured.replayed_share = Some(
            (now.replays - before.replays) as f64 / (now.speculations - before.speculations).max(1) as f64,
        );
        match race.finish() {
            Some(equal) => states.bring_back(&row.load, equal),
            None => measured.equal = false,
        }
        Ok(measured)
    }
}

/// Runs batches until an adaptive engine knows what to do, and returns how long one takes the loop.
fn warm_up<L: Logic>(
    race: &mut Race<'_, L>,
    source: &mut impl Iterator<Item = UpdateBatch<L::Request>>,
    effort: &Effort,
    batch: usize,
) -> Result<Duration, PerfError> {
    let mut engine = Duration::ZERO;
    let mut per_round = (1024 / batch).max(2);
    loop {
        let batches: Vec<_> = source.by_ref().take(per_round).collect();
        let samples = race.round(&batches, (per_round / 4).max(1))?;
        engine += samples[Contender::Engine as usize].elapsed;
        let sequential = &samples[Contender::Loop as usize];
        if engine >= effort.warm_up && race.batches() >= 8 {
            return Ok(sequential.elapsed * batch as u32 / sequential.operations.max(1) as u32);
        }
        if sequential.elapsed < effort.sample / 2 && per_round * batch < MOST_OPERATIONS {
            per_round *= 2;
        }
    }
}

/// The rounds that count.
#[derive(Default)]
pub struct Rounds {
    ratios: Vec<(f64, bool)>,
    phased: Vec<(f64, bool)>,
    sequential_ns: Vec<f64>,
}

impl Rounds {
    /// True until there are `pairs` good ones, or twice as many altogether.
    pub fn wants_more(&self, pairs: usize) -> bool {
        let good = self.ratios.iter().filter(|pair| pair.1).count();
        good < pairs && self.ratios.len() < 2 * pairs
    }

    /// Takes in one round; `near` if the cores were near each other before and after it.
    pub fn add(&mut self, samples: &[Sample], near: bool) {
        let sequential = &samples[Contender::Loop as usize];
        self.ratios.push((ratio(sequential.elapsed, samples[Contender::Engine as usize].elapsed), near));
        if let Some(phased) = samples.get(Contender::Phased as usize) {
            self.phased.push((ratio(sequential.elapsed, phased.elapsed), near));
        }
        self.sequential_ns.push(sequential.elapsed.as_nanos() as f64 / sequential.operations.max(1) as f64);
    }

    /// What they say.
    pub fn measured(&self) -> Measured {
        let mut measured = Measured::new(Spread::of(&self.ratios));
        measured.sequential_ns = Some(median(self.sequential_ns.iter().copied()));
        if !self.phased.is_empty() {
            measured.baselines.insert("phased-rayon", Spread::of(&self.phased).median);
        }
        measured
    }
}

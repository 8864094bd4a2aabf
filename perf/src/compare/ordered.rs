//! Ordered batches of one workload and one size.

use std::time::Duration;

use atlas_smr_execution::batch::UpdateBatch;
use workloads::{Logic, Plan, Workload};

use super::race::{Contender, Race, Round, ratio};
use super::row::Measured;
use crate::bench::{Bench, Effort, Setup, rounds};
use crate::error::PerfError;
use crate::load::{Load, OnWorkload};
use crate::machine::Crowd;
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
        let batch_time = race.warm_up(effort, probe, |race| warm_up(race, &mut source, effort, row.batch))?;
        let group = group_of(batch_time);
        let in_sample = (effort.sample.as_nanos() / batch_time.as_nanos().max(1)) as usize;
        let in_sample = in_sample.min(MOST_OPERATIONS / row.batch).max(effort.batches);
        let start = race.start();
        let samples = rounds(effort, probe, Crowd::Anybody, || {
            let batches: Vec<_> = source.by_ref().take(in_sample + group).collect();
            race.round(&batches, group)
        })?;
        let mut measured = summary(&samples);
        race.describe(&start, &mut measured);
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
        if engine >= effort.warm_up && race.batches() >= effort.warm_up_batches {
            return Ok(sequential.elapsed * batch as u32 / sequential.operations.max(1) as u32);
        }
        if sequential.elapsed < effort.sample / 2 && per_round * batch < MOST_OPERATIONS {
            per_round *= 2;
        }
    }
}

/// What the samples of rounds say, each with whether it is good.
pub fn summary(rounds: &[Round]) -> Measured {
    let sequential = |samples: &[Sample]| samples[Contender::Loop as usize].elapsed;
    let against = |contender: Contender| {
        let one = |(samples, good): &Round| {
            let other = samples.get(contender as usize)?;
            Some((ratio(sequential(samples), other.elapsed), *good))
        };
        rounds.iter().filter_map(one).collect::<Vec<_>>()
    };
    let mut measured = Measured::new(Spread::of(&against(Contender::Engine)));
    let phased = against(Contender::Phased);
    if !phased.is_empty() {
        measured.baselines.insert("phased-rayon", Spread::of(&phased).median);
    }
    let ns = |(samples, _): &Round| samples[Contender::Loop as usize].ns_per_operation();
    measured.sequential_ns = Some(median(rounds.iter().map(ns)));
    measured
}

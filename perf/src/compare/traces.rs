//! Recorded blocks, one batch each, in their order: all together, and the worst single one.

use std::io::{self, Write};
use std::iter::repeat_n;
use std::time::Duration;

use workloads::trace::{Block, Model, Trace};
use workloads::{Plan, Workload, WorkloadError};

use super::ordered::summary;
use super::race::{Contender, Race, Round, ratio};
use super::row::{Line, Measured, Row, What};
use super::{again, with_the_worst};
use crate::bench::{Bench, Setup, rounds};
use crate::error::PerfError;
use crate::load::{Load, populated};
use crate::machine::Crowd;
use crate::sample::Sample;
use crate::stats::{Spread, median};

/// Blocks with less gas do not count for totals.
const LARGE: u64 = 4_000_000;
/// How often all blocks are executed before samples count.
const WARM_UP: usize = 6;
/// Shorter blocks are executed several times in a row, but not more often than that.
const SHORT: Duration = Duration::from_millis(1);
const MOST_REPEATS: u64 = 100;

/// The lines of a row about traces; none if there are no traces here.
pub fn lines(bench: &Bench, row: &Row) -> Result<Vec<Line>, PerfError> {
    if !bench.trace_dir.is_dir() {
        let folder = bench.trace_dir.display();
        // If that cannot be written, nobody waits for it.
        let _ = writeln!(io::stderr(), "skipped: {}: there is no folder {folder}", row.name);
        return Ok(Vec::new());
    }
    let line = |trace: &Trace, batch, measured| Line {
        work_ns: Load::Trace(trace.clone()).work_ns(),
        batch,
        ..Line::other(row, "trace", bench.threads, measured)
    };
    match row.what {
        What::TraceTotal { model, setup } => {
            let trace = large(load(bench, model)?);
            let mean = trace.operations() as usize / trace.blocks.len().max(1);
            Ok(vec![line(&trace, mean, total(bench, &trace, setup)?)])
        }
        What::TraceBlocks { setup } => {
            let mut lines = Vec::new();
            for model in Model::ALL {
                let trace = load(bench, model)?;
                let (block, measured) = worst_block(bench, &trace, setup)?;
                let batch = block.operations.len();
                let name = format!("  {model}: block {}", block.number);
                lines.push(Line { name, ..line(&trace, batch, measured) });
            }
            Ok(with_the_worst(row, lines))
        }
        _ => Ok(Vec::new()),
    }
}

fn large(mut trace: Trace) -> Trace {
    trace.blocks.retain(|block| block.gas >= LARGE);
    trace
}

/// The traces of one model.
fn load(bench: &Bench, model: Model) -> Result<Trace, PerfError> {
    Ok(Trace::load(&bench.trace_dir, model).map_err(WorkloadError::from)?)
}

/// The time for all large blocks.
fn total(bench: &Bench, trace: &Trace, setup: Setup) -> Result<Measured, PerfError> {
    let order: Vec<usize> = (0..trace.blocks.len()).collect();
    let (samples, measured) = run(bench, trace, setup, true, &order)?;
    Ok(Measured { equal: measured.equal, ..with_shares(summary(&samples), measured) })
}

/// The block with the least ratio, and which it is.
fn worst_block<'t>(
    bench: &Bench,
    trace: &'t Trace,
    setup: Setup,
) -> Result<(&'t Block, Measured), PerfError> {
    let passes = if bench.effort.again { 5 } else { 2 };
    let pass = || trace.blocks.iter().enumerate().flat_map(|(n, block)| repeat_n(n, repeats(block)));
    let order: Vec<usize> = (0..passes).flat_map(|_| pass()).collect();
    let (samples, mut measured) = run(bench, trace, setup, false, &order)?;
    let time = |sample: &Sample, block: usize| -> Duration {
        let groups = sample.groups.iter().zip(&order);
        groups.filter(|&(_, &other)| other == block).map(|(time, _)| time).sum()
    };
    let of_block = |samples: &[Round], block: usize| -> Spread {
        let of_round = |(samples, good): &Round| {
            let [sequential, engine] =
                [Contender::Loop, Contender::Engine].map(|who| time(&samples[who as usize], block));
            (ratio(sequential, engine), *good)
        };
        Spread::of(&samples.iter().map(of_round).collect::<Vec<_>>())
    };
    let mut spreads: Vec<Spread> = (0..trace.blocks.len()).map(|block| of_block(&samples, block)).collect();
    let least = again(bench.effort, &spreads, |spread| spread.median);
    let mut first = vec![None; spreads.len()];
    if !least.is_empty() {
        let (second, more) = run(bench, trace, setup, false, &order)?;
        measured.equal &= more.equal;
        for block in least {
            first[block] = Some(spreads[block].median);
            spreads[block] = of_block(&second, block);
        }
    }
    let worst = spreads.into_iter().enumerate().min_by(|a, b| a.1.median.total_cmp(&b.1.median));
    let (block, value) = worst.unwrap_or_else(|| (0, Spread::of(&[])));
    let operations = (trace.blocks[block].operations.len().max(1) * repeats(&trace.blocks[block])) as f64;
    let per_round = samples.iter().map(|(samples, _)| time(&samples[Contender::Loop as usize], block));
    let sequential = median(per_round.map(|time| time.as_nanos() as f64)) / passes as f64;
    let measured =
        Measured { value, first: first[block], sequential_ns: Some(sequential / operations), ..measured };
    Ok((&trace.blocks[block], measured))
}

/// How often a block is executed in a row: a timer interrupt should not show in its time.
fn repeats(block: &Block) -> usize {
    let ns: u64 = block.operations.iter().map(|operation| operation.ns).sum();
    (SHORT.as_nanos() as u64 / ns.max(1)).clamp(1, MOST_REPEATS) as usize
}

/// `measured`, with what `shares` knows of the engine.
fn with_shares(measured: Measured, shares: Measured) -> Measured {
    Measured { sequential_share: shares.sequential_share, replayed_share: shares.replayed_share, ..measured }
}

/// Samples of the blocks in this order, each of which is a group; and what else is to be said.
fn run(
    bench: &Bench,
    trace: &Trace,
    setup: Setup,
    baseline: bool,
    order: &[usize],
) -> Result<(Vec<Round>, Measured), PerfError> {
    let states = (0..2 + usize::from(baseline)).map(|_| populated(trace)).collect::<Result<Vec<_>, _>>()?;
    let mut race = Race::new(trace.logic(), states, setup, bench.threads, &bench.rayon)?;
    let blocks: Vec<_> = trace.batches(Plan { seed: 0, batch: 1, operations: 1 }).collect();
    // The first group of a sample is not timed: that is a block of its own, so that all others are.
    let mut batches: Vec<_> = blocks.last().cloned().into_iter().collect();
    batches.extend(order.iter().map(|&block| blocks[block].clone()));
    race.warm_up(&bench.effort, &bench.probe, |race| {
        (0..WARM_UP).try_for_each(|_| race.round(&batches, 1).map(drop))
    })?;
    let start = race.start();
    let samples = rounds(&bench.effort, &bench.probe, Crowd::Anybody, || race.round(&batches, 1))?;
    let mut measured = Measured::new(Spread::of(&[]));
    race.describe(&start, &mut measured);
    measured.equal = race.finish().is_some();
    Ok((samples, measured))
}

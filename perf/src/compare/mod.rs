//! `perf compare`: every row against the sequential loop, interleaved in one process.

pub mod latency;
pub mod ordered;
mod pool;
mod race;
mod reads;
mod report;
mod row;
mod stalls;
mod table;
mod traces;

use std::io::Write;
use std::time::{Duration, Instant};

use atlas_smr_execution::executor::ExecutionMode;

use ordered::Ordered;
pub use report::Report;
use row::{Line, Measured, Row, What};

use crate::args::CompareArgs;
use crate::bench::{Bench, Effort};
use crate::error::PerfError;
use crate::heap::{self, Way};
use crate::machine;
use crate::stats::Spread;

/// Rows without a good pair are measured once more, but none begins after this time.
const AGAIN: Duration = Duration::from_secs(300);

/// So many of the parts of a row that is worth what its worst part is worth are measured once more.
const LEAST: usize = 5;

/// Measures the rows that `args` choose.
pub fn run(args: &CompareArgs) -> Result<Report, PerfError> {
    let rows = chosen(args)?;
    let mut bench = Bench::new(effort(args), &args.common)?;
    bench.probe.calibrate(bench.effort.calibration);
    let load_average = machine::load_average();
    let mut results = Vec::new();
    for row in &rows {
        results.push(on_its_own_thread(row, &mut bench)?);
    }
    if bench.effort.again {
        let start = Instant::now();
        for (row, lines) in rows.iter().zip(&mut results) {
            if start.elapsed() < AGAIN && lines.first().is_some_and(|line| line.measured.value.all_bad) {
                *lines = on_its_own_thread(row, &mut bench)?;
            }
        }
    }
    Ok(Report::new(results.concat(), load_average))
}

/// Measures a row on a thread of its own: it gets pinned, and what the next row spawns must not inherit that.
fn on_its_own_thread(row: &Row, bench: &mut Bench) -> Result<Vec<Line>, PerfError> {
    let measured = std::thread::scope(|scope| scope.spawn(|| measure(row, bench)).join());
    let lines = measured.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    lines.iter().for_each(say);
    Ok(lines)
}

/// The names of the rows that `args` choose.
pub fn names(args: &CompareArgs) -> Result<Vec<String>, PerfError> {
    Ok(chosen(args)?.into_iter().map(|row| row.name).collect())
}

fn chosen(args: &CompareArgs) -> Result<Vec<Row>, PerfError> {
    let filter = args.filter.clone().unwrap_or_default().to_lowercase();
    let mut rows = table::rows();
    rows.retain(|row| row.name.to_lowercase().contains(&filter));
    if rows.is_empty() {
        return Err(PerfError::NoRow { filter });
    }
    Ok(rows)
}

fn effort(args: &CompareArgs) -> Effort {
    let mut effort = if args.quick { Effort::QUICK } else { Effort::FULL };
    if let Some(pairs) = args.pairs {
        (effort.pairs, effort.more_pairs) = (pairs, pairs);
    }
    effort
}

/// The lines of one row. The first one is the row's own; none if it cannot be measured here.
fn measure(row: &Row, bench: &mut Bench) -> Result<Vec<Line>, PerfError> {
    let threads = bench.threads;
    let one = |line: Line| Ok(vec![line]);
    match &row.what {
        What::Ordered(what) => {
            let measured = ordered::measure(bench, what)?;
            one(Line::ordered(row.name.clone(), row.goal, what, threads, measured))
        }
        What::Worst(several) => worst(row, several, bench),
        What::Reads(what) => {
            let measured = reads::measure(bench, what)?;
            one(Line { batch: what.batch, ..Line::other(row, what.name(), threads, measured) })
        }
        What::TraceTotal { .. } | What::TraceBlocks { .. } => traces::lines(bench, row),
        What::Pool { gap } => {
            let measured = pool::measure(bench, *gap)?;
            one(Line { unit: "us", ..Line::other(row, "empty job", threads, measured) })
        }
        What::Latency { batch } => {
            let measured = latency::measure(bench, *batch)?;
            let (batch, work_ns) = (*batch, latency::LOAD.work_ns);
            one(Line { batch, work_ns, ..Line::other(row, "transfer", threads, measured) })
        }
        What::Flood { batch } => {
            let measured = latency::throughput(bench, *batch)?;
            let (batch, work_ns) = (*batch, latency::LOAD.work_ns);
            one(Line { batch, work_ns, ..Line::other(row, "transfer", threads, measured) })
        }
        What::Heap => {
            let measured = heap_use(bench)?;
            one(Line { unit: "", ..Line::other(row, "all", threads, measured) })
        }
        What::Stall => {
            let measured = stalls::measure(bench)?;
            one(Line { unit: "ms", batch: stalls::BATCH, ..Line::other(row, "kv-put", threads, measured) })
        }
    }
}

/// The lines of a row over several workloads.
fn worst(row: &Row, several: &[Ordered], bench: &mut Bench) -> Result<Vec<Line>, PerfError> {
    let (effort, threads) = (bench.effort, bench.threads);
    let mut measure = |what: &Ordered| {
        let measured = ordered::measure(bench, what)?;
        let name = format!("  {}", row::describe(&what.load, what.batch));
        Ok::<_, PerfError>(Line::ordered(name, row.goal, what, threads, measured))
    };
    let mut lines = several.iter().map(&mut measure).collect::<Result<Vec<_>, _>>()?;
    for n in again(effort, &lines, |line| line.measured.value.median) {
        let first = std::mem::replace(&mut lines[n], measure(&several[n])?);
        lines[n].measured.equal &= first.measured.equal;
        lines[n].measured.first = Some(first.measured.value.median);
    }
    Ok(with_the_worst(row, lines))
}

/// Which of `results` to measure once more because they are the least by `value`. Without that, the worst of many is
/// the one that noise has met most.
fn again<T>(effort: Effort, results: &[T], value: impl Fn(&T) -> f64) -> Vec<usize> {
    let mut least: Vec<usize> = (0..results.len()).collect();
    least.sort_by(|&a, &b| value(&results[a]).total_cmp(&value(&results[b])));
    least.truncate(if effort.again { LEAST } else { 0 });
    least
}

/// Allocations per operation, over those of the loop, where the engine has the most.
fn heap_use(bench: &Bench) -> Result<Measured, PerfError> {
    // A container that grows once in hundreds of batches is no cost of an operation.
    let rounded = |calls: f64| (calls * 100.0).round() / 100.0 + 0.0;
    let mut more = [0.0f64; 2];
    for load in heap::loads() {
        let calls = |way| Ok::<_, PerfError>(heap::measure(bench, &load, way)?.per_operation.calls);
        let sequential = calls(Way::Loop)?;
        for (more, way) in more.iter_mut().zip([Way::Engine(ExecutionMode::Speculate), Way::Phased]) {
            *more = more.max(rounded(calls(way)? - sequential));
        }
    }
    let mut measured = Measured::new(Spread::of(&[(more[0], true)]));
    measured.baselines.insert("phased-rayon", more[1]);
    Ok(measured)
}

/// `lines`, after a line for `row` that repeats the worst of them.
fn with_the_worst(row: &Row, lines: Vec<Line>) -> Vec<Line> {
    let worst = lines.iter().min_by(|a, b| a.measured.value.median.total_cmp(&b.measured.value.median));
    let mut first: Vec<Line> = worst.cloned().into_iter().collect();
    for line in &mut first {
        line.name = row.name.clone();
        line.measured.equal = lines.iter().all(|line| line.measured.equal);
    }
    first.extend(lines);
    first
}

/// Tells whoever waits what is measured so far. If that cannot be done, nobody waits.
fn say(line: &Line) {
    let Line { name, unit, measured, .. } = line;
    let value = &measured.value;
    let bad = if value.all_bad { " (no good pair)" } else { "" };
    let _ = writeln!(std::io::stderr(), "{:7.3} {unit}  {name}{bad}", value.median);
}

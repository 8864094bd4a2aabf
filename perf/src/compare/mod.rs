//! `perf compare`: every row against the sequential loop, interleaved in one process.

mod ordered;
mod race;
mod report;
mod row;
mod table;

use std::io::Write;

pub use report::Report;
use row::{Line, Row, What};

use crate::args::CompareArgs;
use crate::bench::{Bench, Effort};
use crate::error::PerfError;

/// Measures the rows that `args` choose.
pub fn run(args: &CompareArgs) -> Result<Report, PerfError> {
    let rows = chosen(args)?;
    let mut bench = Bench::new(effort(args), args.threads, args.trace_dir.clone())?;
    let mut lines = Vec::new();
    for row in &rows {
        // A thread of its own for each row: it gets pinned, and what it spawns must not inherit that.
        let measured = std::thread::scope(|scope| scope.spawn(|| measure(row, &mut bench)).join());
        let measured = measured.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        for line in &measured {
            say(line);
        }
        lines.extend(measured);
    }
    Ok(Report::new(lines))
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
    effort.pairs = args.pairs.unwrap_or(effort.pairs);
    effort
}

/// The lines of one row. The first one is the row's own.
fn measure(row: &Row, bench: &mut Bench) -> Result<Vec<Line>, PerfError> {
    match &row.what {
        What::Ordered(what) => {
            let measured = ordered::measure(bench, what)?;
            Ok(vec![Line::ordered(row.name.clone(), row.goal, what, bench.threads, measured)])
        }
        What::Worst(several) => {
            let mut lines = Vec::new();
            for what in several {
                let measured = ordered::measure(bench, what)?;
                let name = format!("  {}", row::describe(&what.load, what.batch));
                lines.push(Line::ordered(name, row.goal, what, bench.threads, measured));
            }
            Ok(with_the_worst(row, lines))
        }
    }
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
    let far = if value.all_bad { " (cores far apart)" } else { "" };
    let _ = writeln!(std::io::stderr(), "{:7.3} {unit}  {name}{far}", value.median);
}

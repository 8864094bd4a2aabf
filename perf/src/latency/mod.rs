//! `perf latency`: small batches through the executors' channels, and how their latencies are spread.

mod plot;

use std::fs;
use std::time::Duration;

use crate::args::LatencyArgs;
use crate::bench::{Bench, Effort};
use crate::compare::latency::{Duel, Latencies, quantile};
use crate::error::PerfError;
use crate::machine;
use crate::table::Table;
use plot::Curve;

/// Operations in a batch.
const SIZES: [usize; 3] = [1, 16, 64];
/// What the table shows.
const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// Measures, draws a plot if asked to, and returns a text.
pub fn run(args: &LatencyArgs) -> Result<String, PerfError> {
    let bench = Bench::new(Effort::FULL, &args.common)?;
    let mut header = vec!["batch", "executor"];
    header.extend(QUANTILES.map(|(name, _)| name));
    let mut table = Table::new(&header);
    let mut curves = Vec::new();
    let mut equal = true;
    for size in SIZES {
        let mut duel = Duel::new(&bench, size)?;
        duel.run(args.batches / 10)?;
        let Latencies { multi, single } = duel.run(args.batches)?;
        equal &= duel.finish()?;
        for (executor, latencies) in [("multi-threaded", multi), ("single-threaded", single)] {
            let mut cells = vec![size.to_string(), executor.to_owned()];
            cells.extend(QUANTILES.map(|(_, q)| microseconds(quantile(latencies.clone(), q))));
            table.add(cells);
            curves.push(Curve { name: format!("{size}, {executor}"), latencies });
        }
    }
    if !equal {
        return Err(PerfError::Wrong);
    }
    if let Some(path) = &args.plot {
        fs::write(path, plot::draw("From queueing a batch of 1 us operations to its last reply", curves))?;
    }
    Ok(format!(
        "{}\n\nFrom queueing a batch to its last reply, in microseconds; transfers of 1 us, one batch on its \
         way at a time, {} batches of each kind.\n\n{table}\n",
        machine::heading(),
        args.batches,
    ))
}

fn microseconds(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64() * 1e6)
}

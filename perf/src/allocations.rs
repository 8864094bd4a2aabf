//! `perf allocations`: what each way of execution asks of the heap.

use crate::args::CommonArgs;
use crate::bench::{Bench, Effort};
use crate::error::PerfError;
use crate::heap::{HeapUse, Use, Way, loads, measure};
use crate::load::Load;
use crate::machine;
use crate::table::Table;

/// Counts, and returns a text.
pub fn run(args: &CommonArgs) -> Result<String, PerfError> {
    let bench = Bench::new(Effort::FULL, args)?;
    let mut table =
        Table::new(&["workload", "by", "per operation", "bytes", "each further operation", "bytes"]);
    for load in loads() {
        for way in Way::ALL {
            // On a thread of its own: it gets pinned.
            let joined = std::thread::scope(|scope| scope.spawn(|| measure(&bench, &load, way)).join());
            let used = joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            table.add(cells(&load, way, used));
        }
    }
    Ok(format!(
        "{}\n\n{table}\n\nBatches of 1024. The application and the state are included: what an update returns \
         is a vector, whoever executes it. The vector of replies is one allocation of each batch, and its bytes.\n",
        machine::heading(),
    ))
}

fn cells(load: &Load, way: Way, used: HeapUse) -> [String; 6] {
    // Whatever grows once in many batches is no part of either.
    let shown = |value: f64| format!("{:.2}", (value * 100.0).round() / 100.0 + 0.0);
    let HeapUse { average, per_operation: Use { calls, bytes } } = used;
    [
        load.name().to_owned(),
        way.name().to_owned(),
        shown(average.calls),
        shown(average.bytes),
        shown(calls),
        shown(bytes),
    ]
}

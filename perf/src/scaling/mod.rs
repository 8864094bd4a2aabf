//! What more cores would do, from what one core does; held against what two cores do.

mod costs;
mod model;

use std::sync::Arc;

use atlas_smr_execution::executor::engines::{Engine, Speculative};
use atlas_smr_execution::metrics::Metrics;
use atlas_smr_execution::state::ShardedState;
use workloads::{Plan, Workload};

use self::costs::{Measured, measure};
use self::model::{Crew, simulate};
use crate::args::ScalingArgs;
use crate::bench::{Bench, Effort, Setup};
use crate::compare::ordered::{self, Ordered};
use crate::error::PerfError;
use crate::load::{Load, OnWorkload, populated};
use crate::machine;
use crate::table::Table;

/// Numbers of cores that are predicted for.
const CORES: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];
/// Numbers of threads that are run to count replays, whether there are so many cores or not.
const THREADS: [usize; 4] = [2, 4, 8, 16];
/// Batches of such a run.
const COUNTED: usize = 100;

const LEGEND: &str = "predicted: simulated from these costs and from what the operations touch; caches, and what \
                      cores lose by sharing cache lines, are left out. limit: if nothing but retirement took time.";

/// Predicts, measures and counts, and returns a text.
pub fn run(args: &ScalingArgs) -> Result<String, PerfError> {
    let load = args.load.load(&args.common)?;
    let mut bench = Bench::new(Effort::FULL, &args.common)?;
    // On threads of their own, because they get pinned.
    let measured = own_thread(|| {
        bench.probe.pin_caller();
        load.visit(Measure { size: args.load.batch })
    })?;
    let two = own_thread(|| {
        let row =
            Ordered { load: load.clone(), batch: args.load.batch, setup: Setup::FORCED, baseline: false };
        ordered::measure(&mut bench, &row)
    })?;
    let mut counts = Vec::new();
    for threads in THREADS {
        counts.push((threads, own_thread(|| load.visit(Count { threads, size: args.load.batch }))?));
    }
    let mut text = header(&load, args.load.batch, &measured);
    text += &format!("{}\n\n{LEGEND}\n\n", predictions(&measured, args.load.batch));
    let value = two.value;
    let threads = args.common.threads;
    text += &format!(
        "Measured with {threads} threads, always ahead of turn: {:.2}x ({:.2} to {:.2}, {} pairs, {} left out{}), \
         {:.1} % replayed.\n\n",
        value.median,
        value.min,
        value.max,
        value.used,
        value.left_out,
        if value.all_bad { ", none of them good" } else { "" },
        100.0 * two.replayed_share.unwrap_or(0.0),
    );
    text += "Counted with more threads than cores (a count, not a time: threads that have no core keep what they have \
             begun):\n\n";
    let mut table = Table::new(&["threads", "replayed"]);
    for (threads, share) in counts {
        table.add([threads.to_string(), format!("{:.1}%", 100.0 * share)]);
    }
    Ok(text + &table.to_string())
}

fn own_thread<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    let joined = std::thread::scope(|scope| scope.spawn(work).join());
    joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn header(load: &Load, batch: usize, measured: &Measured) -> String {
    let Measured { sequential_ns, costs, .. } = measured;
    format!(
        "{}\n\n{}, {} us of work, batch {batch}\n\nPer operation: {sequential_ns:.0} ns in the sequential loop; \
         {:.0} ns to run a unit ahead of its turn (parallel), {:.1} ns to retire it (serial), {:.1} ns to commit it \
         (parallel). Per batch: {:.0} ns.\n\n",
        machine::heading(),
        load.name(),
        load.work_ns() as f64 / 1000.0,
        costs.unit,
        costs.retire,
        costs.commit,
        costs.batch,
    )
}

fn predictions(measured: &Measured, batch: usize) -> Table {
    let Measured { sequential_ns, costs, touches, keys } = measured;
    let sequential = sequential_ns * touches.len() as f64;
    let limit = sequential_ns / costs.retire.max(0.1);
    let mut table = Table::new(&[
        "cores",
        "predicted",
        "replayed",
        "with stale units run again early",
        "replayed",
        "limit",
    ]);
    for cores in CORES {
        let mut cells = vec![cores.to_string()];
        for again in [false, true] {
            let crew = Crew { cores, chunk: chunk(batch, costs.unit, cores), again };
            let simulated = simulate(touches, *keys, *costs, crew);
            let share = simulated.replays as f64 / simulated.speculations.max(1) as f64;
            cells.push(format!("{:.2}x", sequential / simulated.ns));
            cells.push(format!("{:.1}%", 100.0 * share));
        }
        cells.push(format!("{limit:.1}x"));
        table.add(cells);
    }
    table
}

/// Positions that a thread takes at once, as the engine chooses where nothing collides.
fn chunk(batch: usize, unit_ns: f64, cores: usize) -> usize {
    let worth = (8000.0 / unit_ns.max(1.0)) as usize;
    worth.min(32).min(batch.div_ceil(2 * cores)).max(1)
}

struct Measure {
    size: usize,
}

impl OnWorkload for Measure {
    type Output = Result<Measured, PerfError>;

    fn run<W: Workload>(self, workload: &W) -> Self::Output {
        workload.validate()?;
        let first = measure(workload, self.size, 8)?;
        measure(workload, self.size, chunk(self.size, first.costs.unit, 2))
    }
}

struct Count {
    threads: usize,
    size: usize,
}

impl OnWorkload for Count {
    type Output = Result<f64, PerfError>;

    /// The share of units that were replayed.
    fn run<W: Workload>(self, workload: &W) -> Self::Output {
        let config = Setup { threads: Some(self.threads), ..Setup::FORCED }.config(self.threads);
        let metrics = Arc::new(Metrics::new());
        let mut engine = <Speculative<_, _> as Engine<_, ShardedState>>::new(
            &config,
            &config.validate()?,
            Arc::clone(&metrics),
        )?;
        let app = workload.app();
        let mut state = populated(workload)?;
        let plan = Plan { seed: 8, batch: self.size, operations: (COUNTED * self.size) as u64 };
        for batch in workload.batches(plan).take(COUNTED) {
            engine.execute(&app, &mut state, batch, &mut |_| {})?;
        }
        let counters = metrics.counters();
        Ok(counters.replays as f64 / counters.speculations.max(1) as f64)
    }
}

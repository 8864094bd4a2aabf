//! What the parts of the engine take on this machine, and what operations touch.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use atlas_smr_execution::app::ScalableApp;
use atlas_smr_execution::batch::{SeqNo, UpdateBatch};
use atlas_smr_execution::state::{CRUDState, ShardedState, Solo};
use workloads::{Plan, Request, Workload};

use super::model::{Costs, Touches};
use crate::baseline::view::{Access, View};
use crate::error::PerfError;
use crate::load::populated;
use crate::parts::{Parts, Phases};
use crate::sample::plain_loop;
use crate::stats::median;

/// Batches that are measured.
const BATCHES: usize = 40;

/// What was measured.
pub struct Measured {
    /// One operation in the sequential loop.
    pub sequential_ns: f64,
    pub costs: Costs,
    /// What the operations of the last batch touch, and how many keys there are.
    pub touches: Vec<Touches>,
    pub keys: usize,
}

/// Measures batches of `size` operations, of which `chunk` run ahead at once.
pub fn measure<W: Workload>(workload: &W, size: usize, chunk: usize) -> Result<Measured, PerfError> {
    let plan = Plan { seed: 7, batch: size, operations: (BATCHES * size) as u64 };
    let batches: Vec<_> = workload.batches(plan).take(BATCHES).collect();
    let mut state = populated(workload)?;
    let mut parts = Parts::new(workload);
    let app = workload.app();
    let mut loop_ns = Vec::new();
    let mut each = Vec::new();
    for (number, batch) in (0..).zip(&batches) {
        let (copy, start) = (batch.clone(), Instant::now());
        plain_loop(&app, &mut state, copy);
        loop_ns.push(start.elapsed().as_nanos() as f64 / batch.len().max(1) as f64);
        let dissected = parts.run(SeqNo(number), batch.updates(), chunk, &mut Solo);
        each.push(costs(dissected.phases, dissected.counts.replays as f64, batch.len().max(1) as f64));
    }
    // The first ones make the memory ready.
    let middle = |of: fn(&Costs) -> f64| median(each.iter().skip(each.len() / 4).map(of));
    let costs = Costs {
        unit: middle(|costs| costs.unit),
        retire: middle(|costs| costs.retire),
        commit: middle(|costs| costs.commit),
        batch: middle(|costs| costs.batch),
    };
    let sequential_ns = median(loop_ns.into_iter().skip(each.len() / 4));
    let (touches, keys) = match batches.last() {
        Some(batch) => touches(workload, &mut state, batch),
        None => (Vec::new(), 0),
    };
    Ok(Measured { sequential_ns, costs, touches, keys })
}

/// A batch's times per operation. What ran again while retiring is taken off: the model adds it where it belongs.
fn costs(phases: Phases, replays: f64, operations: f64) -> Costs {
    let per_operation = |duration: Duration| duration.as_nanos() as f64 / operations;
    let unit = per_operation(phases.speculate);
    Costs {
        unit,
        retire: (per_operation(phases.retire) - unit * replays / operations).max(0.0),
        commit: per_operation(phases.commit),
        batch: phases.begin.as_nanos() as f64,
    }
}

/// What the operations of `batch` touch when they run in their order.
fn touches<W: Workload>(
    workload: &W,
    state: &mut ShardedState,
    batch: &UpdateBatch<Request<W>>,
) -> (Vec<Touches>, usize) {
    let app = workload.app();
    let mut numbers = HashMap::new();
    let mut all = Vec::with_capacity(batch.len());
    for update in batch.updates() {
        let mut view = View::new(&*state);
        ScalableApp::<ShardedState>::speculatively_execute_ref(&app, &mut view, update.operation());
        let effects = view.into_effects();
        let mut touches = Touches::default();
        for (name, access) in effects.accesses {
            let next = numbers.len() as u32;
            let number = *numbers.entry(name).or_insert(next);
            match access {
                Access::Read => touches.reads.push(number),
                Access::Write => touches.writes.push(number),
            }
        }
        for ((column, key), value) in effects.writes {
            match value {
                Some(value) => state.put(&column, &key, &value),
                None => state.remove(&column, &key),
            }
        }
        all.push(touches);
    }
    (all, numbers.len())
}

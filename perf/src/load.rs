//! What is executed: a workload by value, so that the rows of a table can name it.

use std::collections::HashMap;

use atlas_smr_execution::error::ConfigError;
use atlas_smr_execution::state::ShardedState;
use workloads::trace::Trace;
use workloads::{Branch, Kv, KvMix, Transfer, Workload, WorkloadKind};

/// A workload.
#[derive(Clone, Debug)]
pub enum Load {
    Transfer(Transfer),
    Kv(Kv),
    Branch(Branch),
    Trace(Trace),
}

/// Something that can be done with a workload of any type.
pub trait OnWorkload {
    type Output;

    fn run<W: Workload>(self, workload: &W) -> Self::Output;
}

impl Load {
    /// Transfers between `accounts` accounts, each with `work_ns` nanoseconds of work.
    pub const fn transfer(accounts: u64, work_ns: u64) -> Load {
        Load::Transfer(Transfer { accounts, work_ns, heavy: 0.0, counts: 0 })
    }

    /// Operations on a million keys with values of 100 bytes.
    pub const fn kv(mix: KvMix) -> Load {
        Load::Kv(Kv { mix, keys: 1_000_000, value_size: 100 })
    }

    /// The workload's name.
    pub fn name(&self) -> &'static str {
        match self {
            Load::Transfer(_) => WorkloadKind::Transfer.name(),
            Load::Kv(kv) => WorkloadKind::Kv(kv.mix).name(),
            Load::Branch(_) => WorkloadKind::Branch.name(),
            Load::Trace(_) => WorkloadKind::Trace.name(),
        }
    }

    /// The busy work of a typical operation in nanoseconds, besides what it does to the state.
    pub fn work_ns(&self) -> u64 {
        match self {
            Load::Transfer(transfer) => transfer.work_ns,
            Load::Branch(branch) => branch.work_ns,
            Load::Kv(_) => 0,
            Load::Trace(trace) => {
                let ns =
                    trace.blocks.iter().flat_map(|block| &block.operations).map(|operation| operation.ns);
                (ns.sum::<u64>() as f64 * trace.scale) as u64 * trace.repeat as u64
                    / trace.operations().max(1)
            }
        }
    }

    /// Does `task` with the workload.
    pub fn visit<T: OnWorkload>(&self, task: T) -> T::Output {
        match self {
            Load::Transfer(workload) => task.run(workload),
            Load::Kv(workload) => task.run(workload),
            Load::Branch(workload) => task.run(workload),
            Load::Trace(workload) => task.run(workload),
        }
    }

    /// Names the initial state: workloads with the same name have the same one. `None` if it is made in no time.
    fn population(&self) -> Option<Population> {
        match self {
            Load::Kv(Kv { mix: KvMix::Merge, keys, .. }) => Some((*keys, None)),
            Load::Kv(kv) => Some((kv.keys, Some(kv.value_size))),
            _ => None,
        }
    }
}

/// How many keys there are, and how long their values; or, without a length, that they are counters.
type Population = (u64, Option<usize>);

/// A populated state. Each is filled on its own: a snapshot's first writes copy shards, and that would be measured.
pub fn populated<W: Workload>(workload: &W) -> Result<ShardedState, ConfigError> {
    let mut builder = ShardedState::builder();
    for &(column, operator) in workload.columns() {
        builder = builder.merge_operator(column, operator);
    }
    let mut state = builder.build()?;
    workload.populate(&mut state);
    Ok(state)
}

/// States that took long to fill, kept from row to row: by what they hold, and by how many are equal to each other,
/// because a row runs on all states that it takes.
#[derive(Default)]
pub struct States {
    kept: HashMap<(Population, usize), Vec<ShardedState>>,
}

impl States {
    /// `count` equal states for `load`.
    pub fn take<W: Workload>(
        &mut self,
        load: &Load,
        workload: &W,
        count: usize,
    ) -> Result<Vec<ShardedState>, ConfigError> {
        let kept = load.population().and_then(|population| self.kept.remove(&(population, count)));
        match kept {
            Some(states) => Ok(states),
            None => (0..count).map(|_| populated(workload)).collect(),
        }
    }

    /// Keeps all states of a row, which has checked that they are equal.
    pub fn bring_back(&mut self, load: &Load, states: Vec<ShardedState>) {
        if let Some(population) = load.population() {
            self.kept.insert((population, states.len()), states);
        }
    }
}

/// True if all of `states` hold the same.
pub fn all_equal(states: &[ShardedState]) -> bool {
    states.windows(2).all(|pair| pair[0].iter().eq(pair[1].iter()))
}

//! The settings of a node's executor.

use std::time::Duration;

use atlas_smr_execution::executor::ExecutorConfig;
use serde::{Deserialize, Serialize};

use crate::machine::ExecutorKind;

/// The executor of a node. Nodes of one cluster may differ in all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExecutorSettings {
    /// Which of the four.
    pub kind: ExecutorKind,
    /// Threads that execute operations; by default one per core. The single-threaded ones have one, whatever this says.
    pub threads: Option<usize>,
    /// Pin threads to cores. For machines that the node has to itself.
    pub pin: bool,
    /// How long idle threads spin before they sleep, in microseconds.
    pub spin_us: u64,
    /// Entries and reads that wait for the executor, at most. Each place may hold a whole entry.
    pub queue: usize,
    /// Run every n-th batch twice and compare; see [`ExecutorConfig::check_every`].
    pub check_every: Option<u32>,
}

impl Default for ExecutorSettings {
    fn default() -> Self {
        ExecutorSettings {
            kind: ExecutorKind::MultiDivisible,
            threads: None,
            pin: false,
            spin_us: 20,
            queue: 64,
            check_every: None,
        }
    }
}

impl ExecutorSettings {
    /// The engine's settings.
    pub fn executor_config(&self) -> ExecutorConfig {
        let mut config = ExecutorConfig::default();
        self.apply(&mut config);
        config
    }

    /// Sets what these settings have, and leaves the rest of `config` as it is.
    pub(crate) fn apply(&self, config: &mut ExecutorConfig) {
        config.threads = self.threads;
        config.pin = self.pin;
        config.spin = Duration::from_micros(self.spin_us);
        config.executing_buffer = self.queue;
        config.check_every = self.check_every;
    }
}

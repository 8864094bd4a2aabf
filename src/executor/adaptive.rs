//! Which way to run a batch: sequentially or ahead of turn, judged by what was faster lately.
//!
//! Batches are judged by size class (powers of two), because what pays at 4096 operations may cost at 16. For each class
//! the governor keeps the time per operation of both ways, uses the better one, and now and then tries the other in a
//! short burst. The first run of a burst does not count where it is short, because it pays for waking the workers. A
//! burst is measured in time, not in operations, so that heavy operations are not tried for seconds. The pause until the
//! next burst is a multiple of what the last one took, and doubles while bursts lose, so that together they cost less
//! than one percent.
//!
//! The choice changes no result, so every replica makes its own.

use std::time::Duration;

use crate::retire::Counts;

/// How to run one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// One operation after the other.
    Sequential,
    /// Ahead of turn, taking this many positions at once.
    Speculate {
        /// Positions that a thread takes at once.
        chunk: usize,
    },
}

/// Operations that a thread takes at once should be worth about this much.
const CHUNK_NS: f64 = 4_000.0;
/// But no more than this many, so that later ones see earlier ones' writes.
const MAX_CHUNK: usize = 32;
/// A batch worth less than this is over before a worker has come.
const WORTH_SPREADING_NS: f64 = 2_500.0;
/// How long a burst lasts, without its first run.
const BURST_NS: f64 = 150_000.0;
/// The pause after a burst, in bursts: at first, and when they have lost again and again.
const FIRST_PAUSE: f64 = 32.0;
const LONGEST_PAUSE: f64 = 512.0;
/// The other way must be this much better to be adopted.
const BETTER: f64 = 0.98;
/// The weight of the newest measurement.
const WEIGHT: f64 = 0.25;

/// A running average; `None` before the first value.
#[derive(Clone, Copy, Debug, Default)]
struct Average(Option<f64>);

impl Average {
    fn add(&mut self, value: f64) {
        self.0 = Some(self.0.map_or(value, |average| average + WEIGHT * (value - average)));
    }
}

#[derive(Clone, Copy, Debug)]
struct Burst {
    /// A short first run is not counted.
    warm: bool,
    total_ns: f64,
    counted_ns: f64,
    operations: f64,
}

impl Burst {
    const BEGIN: Burst = Burst { warm: false, total_ns: 0.0, counted_ns: 0.0, operations: 0.0 };
}

/// What is known of one size class.
#[derive(Clone, Copy, Debug)]
struct Class {
    sequential: Average,
    speculative: Average,
    speculates: bool,
    burst: Option<Burst>,
    until_burst_ns: f64,
    pause: f64,
}

impl Default for Class {
    fn default() -> Self {
        Class {
            sequential: Average::default(),
            speculative: Average::default(),
            speculates: false,
            burst: None,
            until_burst_ns: 0.0,
            pause: FIRST_PAUSE,
        }
    }
}

/// Decides for one executor.
#[derive(Debug)]
pub(crate) struct Governor {
    classes: [Class; 32],
    threads: usize,
    /// The share of units that had to be replayed.
    replayed: Average,
}

impl Governor {
    /// For an engine with this many threads.
    pub(crate) fn new(threads: usize) -> Self {
        Governor { classes: [Class::default(); 32], threads, replayed: Average::default() }
    }

    /// How to run a batch of `len` operations.
    pub(crate) fn plan(&mut self, len: usize) -> Plan {
        if len < 2 || self.threads < 2 {
            return Plan::Sequential;
        }
        let class = &mut self.classes[size_class(len)];
        let Some(per_operation) = class.sequential.0 else {
            return Plan::Sequential;
        };
        if per_operation * (len as f64) < WORTH_SPREADING_NS {
            return Plan::Sequential;
        }
        if class.burst.is_none() && class.until_burst_ns <= 0.0 {
            class.burst = Some(Burst::BEGIN);
        }
        if class.speculates != class.burst.is_some() {
            Plan::Speculate { chunk: self.chunk(len) }
        } else {
            Plan::Sequential
        }
    }

    /// How many of `len` positions a thread should take at once.
    pub(crate) fn chunk(&self, len: usize) -> usize {
        let class = &self.classes[size_class(len)];
        // Without a sequential measurement, the threads' common time tells an upper bound.
        let together = class.speculative.0.map(|ns| ns * self.threads as f64);
        let per_operation = class.sequential.0.or(together).unwrap_or(CHUNK_NS).max(1.0);
        let calm = (1.0 - 4.0 * self.replayed.0.unwrap_or(0.0)).max(0.0);
        let share = len.div_ceil(4 * self.threads);
        ((CHUNK_NS / per_operation * calm) as usize).min(MAX_CHUNK).min(share).max(1)
    }

    /// Takes in how a batch of `len` operations that ran by `plan` went.
    pub(crate) fn record(&mut self, len: usize, plan: Plan, took: Duration, counts: Counts) {
        if len == 0 {
            return;
        }
        let took_ns = took.as_nanos() as f64;
        let speculated = plan != Plan::Sequential;
        if speculated && counts.speculations > 0 {
            self.replayed.add(counts.replays as f64 / counts.speculations as f64);
        }
        let class = &mut self.classes[size_class(len)];
        class.until_burst_ns -= took_ns;
        match &mut class.burst {
            Some(burst) if speculated != class.speculates => {
                burst.total_ns += took_ns;
                if burst.warm || took_ns >= BURST_NS {
                    burst.counted_ns += took_ns;
                    burst.operations += len as f64;
                }
                burst.warm = true;
                if burst.counted_ns >= BURST_NS {
                    let burst = *burst;
                    class.end_burst(burst);
                }
            }
            _ => class.average(speculated).add(took_ns / len as f64),
        }
    }
}

impl Class {
    fn average(&mut self, speculated: bool) -> &mut Average {
        if speculated { &mut self.speculative } else { &mut self.sequential }
    }

    /// Compares what a burst measured with the way in use.
    fn end_burst(&mut self, burst: Burst) {
        self.burst = None;
        let per_operation = burst.counted_ns / burst.operations;
        self.average(!self.speculates).0 = Some(per_operation);
        let in_use = self.average(self.speculates).0.unwrap_or(f64::INFINITY);
        if per_operation < in_use * BETTER {
            self.speculates = !self.speculates;
            self.pause = FIRST_PAUSE;
        } else {
            self.pause = (self.pause * 2.0).min(LONGEST_PAUSE);
        }
        self.until_burst_ns = self.pause * burst.total_ns;
    }
}

fn size_class(len: usize) -> usize {
    (usize::BITS - 1 - len.max(1).leading_zeros()).min(31) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs batches of `len` through a governor whose two ways take the given times, and returns how much longer all
    /// took than the better way would have.
    fn excess(len: usize, batches: usize, sequential_ns: f64, speculative_ns: f64) -> f64 {
        let mut governor = Governor::new(2);
        let mut total = 0.0;
        for _ in 0..batches {
            let plan = governor.plan(len);
            let per_operation = if plan == Plan::Sequential { sequential_ns } else { speculative_ns };
            let took = per_operation * len as f64;
            total += took;
            governor.record(len, plan, Duration::from_nanos(took as u64), Counts::default());
        }
        total / (batches as f64 * len as f64 * sequential_ns.min(speculative_ns))
    }

    #[test]
    fn it_settles_on_the_better_way_and_probing_costs_little() {
        for len in [16, 128, 1024, 8192] {
            for (sequential, speculative) in
                [(1000.0, 600.0), (1000.0, 1200.0), (300.0, 900.0), (9000.0, 5000.0)]
            {
                let batches = (1e9 / (len as f64 * sequential)).max(200.0) as usize;
                let excess = excess(len, batches, sequential, speculative);
                assert!(excess < 1.03, "{len} operations of {sequential} / {speculative} ns: {excess}");
            }
        }
    }

    #[test]
    fn it_recovers_when_the_load_changes() {
        let mut governor = Governor::new(2);
        let mut speculated = [0usize; 2];
        for batch in 0..4000 {
            let contended = batch < 2000;
            let plan = governor.plan(128);
            let speculative_ns = if contended { 1300.0 } else { 600.0 };
            let ns = if plan == Plan::Sequential { 1000.0 } else { speculative_ns };
            speculated[usize::from(!contended)] += usize::from(plan != Plan::Sequential);
            governor.record(128, plan, Duration::from_nanos((ns * 128.0) as u64), Counts::default());
        }
        assert!(speculated[0] < 100 && speculated[1] > 1000, "{speculated:?}");
    }

    #[test]
    fn tiny_batches_and_single_threads_stay_sequential() {
        let mut governor = Governor::new(2);
        governor.record(16, Plan::Sequential, Duration::from_nanos(800), Counts::default());
        assert_eq!(governor.plan(16), Plan::Sequential);
        assert_eq!(governor.plan(1), Plan::Sequential);
        let mut alone = Governor::new(1);
        alone.record(1000, Plan::Sequential, Duration::from_millis(10), Counts::default());
        assert_eq!(alone.plan(1000), Plan::Sequential);
    }

    #[test]
    fn chunks_shrink_with_cost_and_with_replays() {
        let mut governor = Governor::new(2);
        governor.record(1024, Plan::Sequential, Duration::from_micros(1024), Counts::default());
        assert_eq!(governor.chunk(1024), 4);
        let replays = Counts { speculations: 100, replays: 30, ..Counts::default() };
        governor.record(1024, Plan::Speculate { chunk: 4 }, Duration::from_micros(600), replays);
        assert_eq!(governor.chunk(1024), 1);
    }
}

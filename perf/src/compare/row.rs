//! A row of the comparison: what is measured, and what it should reach.

use std::collections::BTreeMap;
use std::time::Duration;

use workloads::trace::Model;

use super::ordered::Ordered;
use super::reads::Reads;
use crate::bench::Setup;
use crate::load::Load;
use crate::stats::Spread;

/// What a row must reach and what it aims at, in its unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// More is better.
    AtLeast { must: f64, aim: f64 },
    /// Less is better.
    AtMost { must: f64, aim: f64 },
}

/// What a value reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Aim,
    Must,
    Neither,
}

impl Goal {
    pub fn must(self) -> f64 {
        let (Goal::AtLeast { must, .. } | Goal::AtMost { must, .. }) = self;
        must
    }

    pub fn aim(self) -> f64 {
        let (Goal::AtLeast { aim, .. } | Goal::AtMost { aim, .. }) = self;
        aim
    }

    /// True if less is better.
    pub fn less_is_better(self) -> bool {
        matches!(self, Goal::AtMost { .. })
    }

    /// What `value` reaches.
    pub fn verdict(self, value: f64) -> Verdict {
        let reaches = |goal| if self.less_is_better() { value <= goal } else { value >= goal };
        match (reaches(self.aim()), reaches(self.must())) {
            (true, _) => Verdict::Aim,
            (false, true) => Verdict::Must,
            (false, false) => Verdict::Neither,
        }
    }
}

/// What a row measures.
#[derive(Clone, Debug)]
pub enum What {
    /// Ordered batches against the sequential loop.
    Ordered(Ordered),
    /// Several of these; the worst one counts.
    Worst(Vec<Ordered>),
    /// Unordered requests against the loop, or against rayon.
    Reads(Reads),
    /// All large recorded blocks under one model.
    TraceTotal { model: Model, setup: Setup },
    /// Every recorded block under every model; the worst one counts.
    TraceBlocks { setup: Setup },
    /// An empty job of the pool after a pause.
    Pool { gap: Duration },
    /// Small batches through the executors' channels.
    Latency { batch: usize },
    /// Batches that wait, through the executors' channels.
    Flood { batch: usize },
    /// The engine's own heap allocations per operation.
    Heap,
    /// The longest stall that a checkpoint causes.
    Stall,
}

/// A row of the table.
#[derive(Clone, Debug)]
pub struct Row {
    pub name: String,
    pub goal: Goal,
    pub what: What,
}

/// What a measurement gave.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The value, in the row's unit.
    pub value: Spread,
    /// The median of a first measurement, where there was a second one, which counts.
    pub first: Option<f64>,
    /// False if state or replies were not the sequential loop's.
    pub equal: bool,
    /// Time of one operation in the sequential loop.
    pub sequential_ns: Option<f64>,
    /// Share of the measured batches that the engine ran sequentially.
    pub sequential_share: Option<f64>,
    /// Share of the units run ahead of their turn that had to run again.
    pub replayed_share: Option<f64>,
    /// What others reach in the row's unit.
    pub baselines: BTreeMap<&'static str, f64>,
}

impl Measured {
    /// A value, and nothing else.
    pub fn new(value: Spread) -> Self {
        Measured {
            value,
            first: None,
            equal: true,
            sequential_ns: None,
            sequential_share: None,
            replayed_share: None,
            baselines: BTreeMap::new(),
        }
    }
}

/// A line of the report: a row, or one of those that a row is the worst of.
#[derive(Clone, Debug)]
pub struct Line {
    pub name: String,
    pub workload: &'static str,
    pub work_ns: u64,
    pub batch: usize,
    pub threads: usize,
    pub unit: &'static str,
    pub goal: Goal,
    pub measured: Measured,
}

impl Line {
    /// A line of something that is not an ordered batch of a workload.
    pub fn other(row: &Row, workload: &'static str, threads: usize, measured: Measured) -> Line {
        Line {
            name: row.name.clone(),
            workload,
            work_ns: 0,
            batch: 1,
            threads,
            unit: "x",
            goal: row.goal,
            measured,
        }
    }

    /// The line of an ordered measurement.
    pub fn ordered(name: String, goal: Goal, row: &Ordered, threads: usize, measured: Measured) -> Line {
        Line {
            name,
            workload: row.load.name(),
            work_ns: row.load.work_ns(),
            batch: row.batch,
            threads: row.setup.threads.unwrap_or(threads),
            unit: "x",
            goal,
            measured,
        }
    }
}

/// A name for an ordered measurement: "transfer, 1000 accounts, 1 us, batch 128".
pub fn describe(load: &Load, batch: usize) -> String {
    let work = |ns: u64| match ns {
        0 => "no work".to_owned(),
        ns => format!("{} us", ns as f64 / 1000.0),
    };
    let what = match load {
        Load::Transfer(t) => format!("{} accounts, {}", t.accounts, work(t.work_ns)),
        Load::Kv(kv) => format!("{} keys", kv.keys),
        Load::Branch(branch) => format!("{} keys, {}", branch.keys, work(branch.work_ns)),
        Load::Trace(trace) => format!("{} blocks", trace.blocks.len()),
    };
    let heavy = matches!(load, Load::Transfer(transfer) if transfer.heavy > 0.0);
    let heavy = if heavy { ", 1% 100x as heavy" } else { "" };
    let counts = matches!(load, Load::Transfer(transfer) if transfer.counts > 0);
    let counts = if counts { ", counting" } else { "" };
    format!("{}, {what}{heavy}{counts}, batch {batch}", load.name())
}

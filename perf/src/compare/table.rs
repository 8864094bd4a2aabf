//! The rows, and what each must reach and aims at: ratios to the sequential loop with two threads on two cores.

use std::time::Duration;

use atlas_smr_execution::executor::ExecutionMode;
use workloads::trace::Model;
use workloads::{Branch, KvMix, Transfer};

use super::ordered::Ordered;
use super::reads::Reads;
use super::row::{Goal, Row, What, describe};
use crate::bench::Setup;
use crate::load::Load;

/// All rows.
pub fn rows() -> Vec<Row> {
    let mut rows = vec![worst("every workload, every batch size", every_workload(), 0.95, 0.97)];
    rows.extend(transfers());
    rows.extend(keys());
    rows.extend(reads());
    rows.extend(traces());
    rows.extend(costs());
    rows
}

/// Ordered batches, as shipped.
fn ordered(load: Load, batch: usize, must: f64, aim: f64) -> Row {
    ordered_as(Setup::ADAPTIVE, load, batch, must, aim)
}

/// Ordered batches with a setup. The baseline runs along where the engine is as shipped.
fn ordered_as(setup: Setup, load: Load, batch: usize, must: f64, aim: f64) -> Row {
    let name = named(describe(&load, batch), setup);
    let baseline = setup.mode == ExecutionMode::Adaptive;
    Row {
        name,
        goal: Goal::AtLeast { must, aim },
        what: What::Ordered(Ordered { load, batch, setup, baseline }),
    }
}

/// A row whose value is the worst of several.
fn worst(name: &str, of: Vec<Ordered>, must: f64, aim: f64) -> Row {
    Row { name: name.to_owned(), goal: Goal::AtLeast { must, aim }, what: What::Worst(of) }
}

/// All large recorded blocks.
fn trace(setup: Setup, model: Model, must: f64, aim: f64) -> Row {
    let name = named(format!("traces, {model}, blocks of at least 4M gas, total"), setup);
    Row { name, goal: Goal::AtLeast { must, aim }, what: What::TraceTotal { model, setup } }
}

fn named(name: String, setup: Setup) -> String {
    if setup.label.is_empty() { name } else { format!("{name}, {}", setup.label) }
}

fn plain(load: Load, batch: usize) -> Ordered {
    Ordered { load, batch, setup: Setup::ADAPTIVE, baseline: false }
}

fn every_workload() -> Vec<Ordered> {
    let loads = [
        Load::transfer(1000, 1000),
        Load::transfer(2, 1000),
        Load::transfer(1000, 0),
        Load::kv(KvMix::Put),
        Load::kv(KvMix::Merge),
        Load::kv(KvMix::YcsbA),
        Load::kv(KvMix::YcsbB),
        Load::Branch(Branch { keys: 1000, work_ns: 1000 }),
    ];
    let sizes = [1, 16, 128, 1024, 8192];
    loads.iter().flat_map(|load| sizes.map(|batch| plain(load.clone(), batch))).collect()
}

fn two_accounts() -> Vec<Ordered> {
    let costs = [0, 1000, 10_000];
    costs
        .into_iter()
        .flat_map(|ns| [16, 128, 1024].map(|batch| plain(Load::transfer(2, ns), batch)))
        .collect()
}

/// Operations that take much longer on all threads than one after the other, each of about a microsecond or two.
fn counting(work_ns: u64) -> Transfer {
    Transfer { accounts: 1000, work_ns, heavy: 0.0, counts: 300 }
}

fn all_counting() -> Vec<Ordered> {
    let costs = [0, 1000];
    costs
        .into_iter()
        .flat_map(|ns| [16, 128, 1024].map(|batch| plain(Load::Transfer(counting(ns)), batch)))
        .collect()
}

fn transfers() -> Vec<Row> {
    let heavy = Transfer { accounts: 1000, work_ns: 2000, heavy: 0.01, counts: 0 };
    vec![
        ordered(Load::transfer(1000, 500), 128, 1.30, 1.45),
        ordered(Load::transfer(1000, 1000), 128, 1.50, 1.70),
        ordered(Load::transfer(1000, 2000), 128, 1.65, 1.80),
        ordered(Load::transfer(1000, 10_000), 128, 1.90, 1.94),
        ordered(Load::transfer(1000, 1000), 16, 1.25, 1.55),
        ordered(Load::transfer(1000, 1000), 1024, 1.55, 1.75),
        ordered(Load::transfer(1000, 1000), 8192, 1.55, 1.75),
        ordered(Load::transfer(100, 1000), 128, 1.50, 1.65),
        ordered(Load::transfer(100, 10_000), 128, 1.80, 1.90),
        ordered_as(Setup::WITHOUT_HINTS, Load::transfer(10, 10_000), 1024, 1.28, 1.50),
        ordered(Load::transfer(10, 10_000), 1024, 1.70, 1.85),
        worst("transfer, 2 accounts, any cost, any batch", two_accounts(), 0.95, 0.98),
        ordered(Load::Branch(Branch { keys: 1000, work_ns: 1000 }), 128, 1.45, 1.65),
        ordered(Load::Transfer(heavy), 1024, 1.85, 1.92),
        worst("transfer, 1000 accounts, all count on one counter, any batch", all_counting(), 0.95, 0.97),
    ]
}

fn keys() -> Vec<Row> {
    vec![
        ordered(Load::kv(KvMix::Put), 128, 0.97, 1.20),
        ordered(Load::kv(KvMix::Put), 1024, 1.25, 1.70),
        ordered(Load::kv(KvMix::Put), 8192, 1.30, 1.70),
        ordered(Load::kv(KvMix::Update), 128, 1.30, 1.65),
        ordered(Load::kv(KvMix::Update), 1024, 1.30, 1.65),
        ordered(Load::kv(KvMix::Update), 8192, 1.30, 1.65),
        ordered(Load::kv(KvMix::Merge), 128, 0.97, 1.20),
        ordered(Load::kv(KvMix::Merge), 1024, 1.25, 1.70),
        ordered(Load::kv(KvMix::Merge), 8192, 1.30, 1.70),
        ordered(Load::kv(KvMix::YcsbA), 1024, 1.15, 1.45),
        ordered(Load::kv(KvMix::YcsbB), 1024, 1.15, 1.45),
    ]
}

fn reads() -> Vec<Row> {
    let row = |batch, against_rayon, must, aim| {
        let against = if against_rayon { ", against rayon's best" } else { "" };
        let name = format!("unordered reads, 1000000 keys, batch {batch}{against}");
        let reads = Reads { load: Load::kv(KvMix::Update), batch, against_rayon };
        Row { name, goal: Goal::AtLeast { must, aim }, what: What::Reads(reads) }
    };
    let counting = |batch| Row {
        name: format!("unordered reads, 1000 accounts, all count on one counter, batch {batch}"),
        goal: Goal::AtLeast { must: 0.95, aim: 0.97 },
        what: What::Reads(Reads { load: Load::Transfer(counting(0)), batch, against_rayon: false }),
    };
    vec![
        row(128, false, 1.40, 1.75),
        row(1024, false, 1.55, 1.80),
        row(8192, false, 1.55, 1.85),
        row(128, true, 1.0, 1.15),
        row(1024, true, 1.0, 1.15),
        row(8192, true, 1.0, 1.15),
        counting(128),
    ]
}

fn traces() -> Vec<Row> {
    vec![
        trace(Setup::ONE_MOMENT, Model::Account, 1.27, 1.35),
        trace(Setup::ONE_MOMENT, Model::Merge, 1.52, 1.58),
        trace(Setup::WITHOUT_HINTS, Model::Account, 1.44, 1.50),
        trace(Setup::WITHOUT_HINTS, Model::Merge, 1.60, 1.66),
        trace(Setup::ADAPTIVE, Model::Account, 1.54, 1.62),
        trace(Setup::ADAPTIVE, Model::Merge, 1.64, 1.72),
        Row {
            name: "traces, every single block, every model".to_owned(),
            goal: Goal::AtLeast { must: 0.95, aim: 0.97 },
            what: What::TraceBlocks { setup: Setup::ADAPTIVE },
        },
    ]
}

/// What the engine costs where it cannot gain, and what users wait for.
fn costs() -> Vec<Row> {
    let at_most = |name: String, what, must, aim| Row { name, goal: Goal::AtMost { must, aim }, what };
    let pool = |when: &str, gap, must, aim| {
        at_most(format!("empty job on all threads, p50 {when}"), What::Pool { gap }, must, aim)
    };
    let latency = |batch| {
        let name = format!("batch of {batch}, 1 us, enqueue to last reply, p99 against single-threaded");
        at_most(name, What::Latency { batch }, 1.10, 1.00)
    };
    let flood = |batch| {
        let name = format!(
            "batches of {batch} that wait, 1 us, first enqueue to last reply, against single-threaded"
        );
        Row { name, goal: Goal::AtLeast { must: 0.95, aim: 1.30 }, what: What::Flood { batch } }
    };
    vec![
        ordered_as(Setup::ALONE, Load::transfer(1000, 1000), 128, 0.92, 0.96),
        ordered_as(Setup::ALONE, Load::transfer(1000, 0), 128, 0.33, 0.60),
        pool("hot", Duration::ZERO, 0.4, 0.25),
        pool("after a gap of 20 us", Duration::from_micros(20), 0.9, 0.4),
        latency(1),
        latency(16),
        latency(64),
        flood(1),
        flood(16),
        flood(128),
        at_most("heap allocations of the engine per operation".to_owned(), What::Heap, 0.0, 0.0),
        at_most("checkpoint of 1000000 keys, longest stall of a batch".to_owned(), What::Stall, 1.0, 0.2),
    ]
}

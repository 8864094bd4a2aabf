//! The rows, and what each must reach and aims at: ratios to the sequential loop with two threads on two cores.

use workloads::{Branch, KvMix, Transfer};

use super::ordered::Ordered;
use super::row::{Goal, Row, What, describe};
use crate::bench::Setup;
use crate::load::Load;

/// All rows.
pub fn rows() -> Vec<Row> {
    let mut rows = vec![worst("every workload, every batch size", every_workload(), 0.95, 0.97)];
    rows.extend(transfers());
    rows.push(worst("transfer, 2 accounts, any cost, any batch", two_accounts(), 0.95, 0.98));
    rows.extend(others());
    rows
}

/// A row of ordered batches with the engine as shipped, and the baseline.
fn ordered(load: Load, batch: usize, must: f64, aim: f64) -> Row {
    let name = describe(&load, batch);
    let goal = Goal::AtLeast { must, aim };
    Row { name, goal, what: What::Ordered(Ordered { load, batch, setup: Setup::ADAPTIVE, baseline: true }) }
}

/// A row whose value is the worst of several.
fn worst(name: &str, of: Vec<Ordered>, must: f64, aim: f64) -> Row {
    Row { name: name.to_owned(), goal: Goal::AtLeast { must, aim }, what: What::Worst(of) }
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

fn transfers() -> Vec<Row> {
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
        ordered(Load::transfer(10, 10_000), 1024, 1.28, 1.50),
    ]
}

fn others() -> Vec<Row> {
    let heavy = Transfer { accounts: 1000, work_ns: 2000, heavy: 0.01 };
    vec![
        ordered(Load::Branch(Branch { keys: 1000, work_ns: 1000 }), 128, 1.45, 1.65),
        ordered(Load::kv(KvMix::Put), 128, 0.97, 1.20),
        ordered(Load::kv(KvMix::Put), 1024, 1.25, 1.70),
        ordered(Load::kv(KvMix::Put), 8192, 1.30, 1.70),
        ordered(Load::kv(KvMix::Update), 128, 1.30, 1.65),
        ordered(Load::kv(KvMix::Update), 1024, 1.30, 1.65),
        ordered(Load::kv(KvMix::Update), 8192, 1.30, 1.65),
        ordered(Load::kv(KvMix::YcsbA), 1024, 1.15, 1.45),
        ordered(Load::kv(KvMix::YcsbB), 1024, 1.15, 1.45),
        ordered(Load::Transfer(heavy), 1024, 1.85, 1.92),
    ]
}

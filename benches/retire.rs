//! The in-order walk: validate, publish, and run again what has seen something old.

mod fixture;
mod parts;

use std::time::Duration;

use atlas_smr_execution::state::Solo;
use criterion::{Criterion, criterion_group, criterion_main};
use fixture::Fixture;
use parts::Phases;
use workloads::{Kv, KvMix, Transfer};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is timed.
const OF: fn(&Phases) -> Duration = |phases| phases.retire;

fn retire(c: &mut Criterion) {
    let kv = |mix| Kv { mix, keys: 10_000, value_size: 100 };
    let transfer = |accounts| Transfer { accounts, work_ns: 0, heavy: 0.0, counts: 0 };
    Fixture::new(&kv(KvMix::YcsbC), 128).bench(c, "retire/reads", OF, &mut Solo);
    Fixture::new(&kv(KvMix::Put), 128).bench(c, "retire/puts", OF, &mut Solo);
    Fixture::new(&transfer(100_000), 128).bench(c, "retire/transfers, no collisions", OF, &mut Solo);
    Fixture::new(&transfer(2), 128).bench(c, "retire/transfers, all collide", OF, &mut Solo);
}

criterion_group!(benches, retire);
criterion_main!(benches);

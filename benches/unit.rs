//! One run of one operation ahead of its turn: reads, blind writes, updates, and the two of a transfer.

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
const OF: fn(&Phases) -> Duration = |phases| phases.speculate;

fn unit(c: &mut Criterion) {
    let kv = |mix| Kv { mix, keys: 10_000, value_size: 100 };
    let transfer = Transfer { accounts: 1000, work_ns: 0, heavy: 0.0, counts: 0 };
    Fixture::new(&kv(KvMix::YcsbC), 128).bench(c, "unit/read", OF, &mut Solo);
    Fixture::new(&kv(KvMix::Put), 128).bench(c, "unit/put", OF, &mut Solo);
    Fixture::new(&kv(KvMix::Update), 128).bench(c, "unit/update", OF, &mut Solo);
    Fixture::new(&transfer, 128).bench(c, "unit/transfer", OF, &mut Solo);
}

criterion_group!(benches, unit);
criterion_main!(benches);

//! The one commit pass: alone, and on two threads.

mod fixture;
mod parts;

use std::time::Duration;

use atlas_smr_execution::internals::pool::{Pool, PoolConfig};
use atlas_smr_execution::state::Solo;
use criterion::{Criterion, criterion_group, criterion_main};
use fixture::Fixture;
use parts::Phases;
use workloads::{Kv, KvMix};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is timed.
const OF: fn(&Phases) -> Duration = |phases| phases.commit;

fn commit(c: &mut Criterion) {
    let spin = Duration::from_micros(200);
    let config = PoolConfig { threads: 2, spin, pin: true, stack_size: None, name: "bench".to_owned() };
    let mut pool = Pool::new(&config).expect("threads");
    pool.pin_caller();
    for batch in [128, 1024] {
        let puts = Kv { mix: KvMix::Put, keys: 100_000, value_size: 100 };
        let mut fixture = Fixture::new(&puts, batch);
        fixture.bench(c, &format!("commit/{batch} puts, one thread"), OF, &mut Solo);
        fixture.bench(c, &format!("commit/{batch} puts, two threads"), OF, &mut pool);
    }
}

criterion_group!(benches, commit);
criterion_main!(benches);

//! The collision resolver: validate what units observed, publish what they wrote.

mod parts;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use parts::{Parts, StampTimes};
use workloads::{Plan, Transfer, Workload};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 128;

/// Transfers: each observes two versions and publishes two.
fn stamp(c: &mut Criterion) {
    let workload = Transfer { accounts: 1000, work_ns: 0, heavy: 0.0, counts: 0 };
    let batch = workload.batches(Plan { seed: 1, batch: BATCH, operations: BATCH as u64 }).next();
    let updates = batch.expect("one batch").into_updates();
    let mut parts = Parts::new(&workload);
    let mut bench = |name: &str, of: fn(&StampTimes) -> Duration| {
        c.bench_function(name, |b| {
            b.iter_custom(|iterations| {
                // Whole batches only, as in `fixture`; per operation.
                let batches = iterations.div_ceil(BATCH as u64);
                let once = |_| {
                    let (valid, times) = parts.stamps(&updates);
                    assert_eq!(valid, BATCH, "nothing was published before");
                    of(&times)
                };
                let total: Duration = (0..batches).map(once).sum();
                total.mul_f64(iterations as f64 / (batches * BATCH as u64) as f64)
            });
        });
    };
    bench("stamp/validate", |times| times.validate);
    bench("stamp/publish", |times| times.publish);
}

criterion_group!(benches, stamp);
criterion_main!(benches);

//! The pool alone: an empty job that both threads take part in.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use atlas_smr_execution::internals::pool::{Pool, PoolConfig};
use criterion::{Criterion, criterion_group, criterion_main};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const THREADS: usize = 2;

fn round_trip(c: &mut Criterion) {
    let spin = Duration::from_micros(200);
    let config = PoolConfig { threads: THREADS, spin, pin: true, stack_size: None, name: "bench".to_owned() };
    let mut pool = Pool::new(&config).expect("threads");
    pool.pin_caller();
    let came = AtomicUsize::new(0);
    let mut jobs = 0;
    c.bench_function("pool/round trip", |b| {
        b.iter(|| {
            jobs += 1;
            let all = jobs * THREADS;
            let job = |_| {
                came.fetch_add(1, Ordering::AcqRel);
                while came.load(Ordering::Acquire) < all {
                    spin_loop();
                }
            };
            assert!(pool.run(std::iter::empty(), &job).is_ok());
        });
    });
    assert_eq!(came.into_inner(), jobs * THREADS, "both threads took part in every job");
}

criterion_group!(benches, round_trip);
criterion_main!(benches);

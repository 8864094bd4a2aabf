//! Sleep and wake-up: `pool/sleep.rs`, steps S1 to S5 of `pool/README.md`, through `Pool` itself.
//!
//! Property: a worker that does not spin but parks at once is never lost. An open job reaches it, or it stays awake;
//! stopping the pool ends its sleep. A lost wake-up is a deadlock, which loom reports.

use std::panic::resume_unwind;
use std::time::Duration;

use atlas_smr_execution::internals::pool::{Pool, PoolConfig};
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread::yield_now;

use crate::harness::{Tracked, run_model};

fn pool(threads: usize) -> Pool {
    let config =
        PoolConfig { threads, spin: Duration::ZERO, pin: false, stack_size: None, name: String::new() };
    Pool::new(&config).expect("loom spawns threads")
}

/// Runs a job in which the caller waits until `workers` workers have come.
fn meet(pool: &mut Pool, workers: usize) {
    let (came, effect) = (AtomicUsize::new(0), Tracked::new(0));
    let job = |thread| {
        if thread == 0 {
            while came.load(Ordering::Acquire) < workers {
                yield_now();
            }
        } else {
            effect.set(1);
            came.fetch_add(1, Ordering::Release);
        }
    };
    pool.run(std::iter::empty(), &job).unwrap_or_else(|panic| resume_unwind(panic));
    assert_eq!(effect.get(), 1, "what the worker did");
}

#[test]
fn a_job_wakes_the_worker() {
    run_model("pool::a_job_wakes_the_worker", 4, &[], |_| {
        let mut pool = pool(2);
        meet(&mut pool, 1);
    });
}

#[test]
fn stopping_wakes_the_worker() {
    run_model("pool::stopping_wakes_the_worker", 5, &[], |_| drop(pool(2)));
}

#[test]
fn stopping_wakes_a_worker_after_a_job() {
    run_model("pool::stopping_wakes_a_worker_after_a_job", 4, &[], |_| {
        let mut pool = pool(2);
        pool.run(std::iter::empty(), &|_| {}).unwrap_or_else(|panic| resume_unwind(panic));
    });
}

#[test]
fn no_worker_hides_another() {
    // One worker may be half asleep while the other one is woken, runs a job and goes to sleep again.
    run_model("pool::no_worker_hides_another", 2, &[], |_| {
        let mut pool = pool(3);
        // Lets the workers fall asleep without counting as a preemption.
        yield_now();
        pool.run(std::iter::empty(), &|_| {}).unwrap_or_else(|panic| resume_unwind(panic));
    });
}

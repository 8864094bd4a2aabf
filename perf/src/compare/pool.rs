//! An empty job on all threads of a pool: how long until everybody was there and is gone again.

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use atlas_smr_execution::executor::ExecutorConfig;
use atlas_smr_execution::internals::pool::{Pool, PoolConfig};

use super::row::Measured;
use crate::bench::{Bench, rounds};
use crate::error::PerfError;
use crate::machine::Crowd;
use crate::stats::{Spread, median};

/// Jobs for each event that a row's effort asks for, if there is no gap between them.
const HOT: usize = 10;

/// Measures jobs with a pause of `gap` before each; in microseconds.
pub fn measure(bench: &Bench, gap: Duration) -> Result<Measured, PerfError> {
    let threads = bench.threads;
    let config = PoolConfig {
        threads,
        spin: ExecutorConfig::default().spin,
        pin: true,
        stack_size: None,
        name: "perf".to_owned(),
    };
    let mut pool = Pool::new(&config)?;
    pool.pin_caller();
    let jobs = bench.effort.events * if gap.is_zero() { HOT } else { 1 };
    let meeting = Meeting::new(threads);
    let own = |pool: &mut Pool| {
        let job = |_| meeting.join();
        median_us(jobs, gap, || {
            assert!(pool.run(std::iter::empty(), &job).is_ok(), "a job of the pool panicked")
        })
    };
    own(&mut pool);
    let samples = rounds(&bench.effort, &bench.probe, Crowd::Anybody, || {
        let ours = own(&mut pool);
        let (scope, broadcast) = bench.rayon.install(|| {
            let scope = median_us(jobs, gap, || {
                rayon::scope(|scope| {
                    (1..threads).for_each(|_| scope.spawn(|_| meeting.join()));
                    meeting.join();
                });
            });
            let all = || drop(rayon::broadcast(|_| meeting.join()));
            (scope, median_us(jobs, gap, all))
        });
        Ok((ours, scope, broadcast))
    })?;
    let of = |which: fn(&(f64, f64, f64)) -> f64| -> Vec<(f64, bool)> {
        samples.iter().map(|(sample, good)| (which(sample), *good)).collect()
    };
    let mut measured = Measured::new(Spread::of(&of(|sample| sample.0)));
    measured.baselines.insert("rayon scope", Spread::of(&of(|sample| sample.1)).median);
    measured.baselines.insert("rayon broadcast", Spread::of(&of(|sample| sample.2)).median);
    Ok(measured)
}

/// Where all threads come together, again and again.
struct Meeting {
    came: AtomicUsize,
    threads: usize,
}

impl Meeting {
    fn new(threads: usize) -> Self {
        Meeting { came: AtomicUsize::new(0), threads }
    }

    /// Waits until all threads have called this as often as this one.
    fn join(&self) {
        // AcqRel and Acquire: as a job would that hands something over. Whoever comes early waits for the last one of its
        // own meeting: nobody begins the next before all have left.
        let last = (self.came.fetch_add(1, Ordering::AcqRel) / self.threads + 1) * self.threads;
        let mut turns = 0u32;
        while self.came.load(Ordering::Acquire) < last {
            turns += 1;
            if turns.is_multiple_of(1 << 14) {
                std::thread::yield_now();
            } else {
                spin_loop();
            }
        }
    }
}

/// The median time of `jobs` jobs in microseconds, without that of the clock.
fn median_us(jobs: usize, gap: Duration, mut job: impl FnMut()) -> f64 {
    let timed = |job: &mut dyn FnMut()| {
        let start = Instant::now();
        job();
        start.elapsed().as_nanos() as f64
    };
    let clock = median((0..1000).map(|_| timed(&mut || black_box(()))));
    let once = |_| {
        let idle = Instant::now();
        while idle.elapsed() < gap {
            spin_loop();
        }
        timed(&mut job)
    };
    (median((0..jobs).map(once)) - clock).max(0.0) / 1000.0
}

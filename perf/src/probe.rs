//! How far apart the two cores are, and how fast: the time that one cache line takes from one to the other, and the time that
//! each takes for a little arithmetic while the other works, too.
//!
//! On shared machines the first flips between about 30 and 150 ns from one minute to the next, and everything that two
//! threads do together flips with it. The second doubles where somebody else runs on a core's other hardware thread, or both
//! cores are the hardware threads of one; then there are no two cores. A sample counts only if the probe was good before and
//! after it.

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use atlas_smr_execution::internals::pool::Place;
use crossbeam::utils::CachePadded;

use crate::stats::median;

/// A one-way latency above this many nanoseconds is a bad one.
pub const LIMIT_NS: f64 = 60.0;
/// Round trips that are timed at once, and how often that is done. The median counts: somebody else may have a core.
const ROUND_TRIPS: usize = 64;
const BLOCKS: usize = 9;
/// A core that is slower than the fastest that was seen by more than this factor is a bad one.
pub const SLOW: f64 = 1.1;
/// Numbers that are scrambled at once: enough to keep all of a core's arithmetic busy; and how often that is done in a block.
const NUMBERS: usize = 16;
const TURNS: u32 = 4000;
/// How often a good moment is looked for.
const LOOK: Duration = Duration::from_millis(10);
/// Turns of a spin loop after which the core is offered to others.
const PATIENCE: u32 = 1 << 14;

/// The two cores that engines of two threads are pinned to.
pub struct Probe {
    places: Vec<Option<Place>>,
    /// How long workers go on spinning after a job: until then the other core is not free.
    idle: Duration,
    /// The shortest time for a turn so far, in nanoseconds.
    fastest: Mutex<f64>,
}

/// An atomic that two threads bounce, counting up.
#[derive(Default)]
struct Ball(CachePadded<AtomicUsize>);

impl Ball {
    /// Waits until the count is `count`, and passes the ball back.
    fn play(&self, count: usize) {
        let mut turns = 0;
        // Acquire and Release, as in what is measured with it; nothing else is looked at.
        while self.0.load(Ordering::Acquire) != count {
            turns += 1;
            if turns % PATIENCE == 0 {
                std::thread::yield_now();
            } else {
                spin_loop();
            }
        }
        self.0.store(count + 1, Ordering::Release);
    }
}

impl Probe {
    /// Takes the two cores. Call it before any thread is pinned.
    pub fn new(idle: Duration) -> Self {
        Probe { places: Place::reserve(2), idle, fastest: Mutex::new(f64::INFINITY) }
    }

    /// Finds out how fast the cores can be, as far as that shows in this time.
    pub fn calibrate(&self, time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {
            self.is_fast();
        }
    }

    /// Pins the calling thread to the first of the two cores.
    pub fn pin_caller(&self) {
        self.pin(0);
    }

    fn pin(&self, core: usize) {
        if let Some(Some(place)) = self.places.get(core) {
            place.pin_current();
        }
    }

    /// True if the cores are near each other now, and both as fast as they can be.
    pub fn is_good(&self) -> bool {
        std::thread::sleep(self.idle + Duration::from_micros(100));
        self.is_fast() && self.one_way_ns() <= LIMIT_NS
    }

    /// Waits for a good moment, but no longer than `patience`, from which the time is taken; false if there was none.
    pub fn wait_until_good(&self, patience: &mut Duration) -> bool {
        loop {
            let start = Instant::now();
            if self.is_good() {
                return true;
            }
            if patience.is_zero() {
                return false;
            }
            std::thread::sleep(LOOK);
            *patience = patience.saturating_sub(start.elapsed());
        }
    }

    /// True if both cores work at full speed at the same time, as far as that has been seen.
    fn is_fast(&self) -> bool {
        let arrived = AtomicUsize::new(0);
        let turns = std::thread::scope(|scope| {
            let threads = [0, 1].map(|core| {
                let arrived = &arrived;
                scope.spawn(move || {
                    self.pin(core);
                    // Relaxed: only the time counts.
                    arrived.fetch_add(1, Ordering::Relaxed);
                    while arrived.load(Ordering::Relaxed) < 2 {
                        std::thread::yield_now();
                    }
                    turn_ns()
                })
            });
            threads.map(|thread| thread.join().unwrap_or(f64::INFINITY))
        });
        let mut fastest = self.fastest.lock().unwrap_or_else(PoisonError::into_inner);
        *fastest = turns.iter().copied().fold(*fastest, f64::min);
        turns.iter().all(|turn| *turn <= *fastest * SLOW)
    }

    /// The one-way latency between the two cores in nanoseconds, by two threads of its own.
    fn one_way_ns(&self) -> f64 {
        let ball = Ball::default();
        // One block more than counts: the threads meet in the first.
        let hits = ROUND_TRIPS * (BLOCKS + 1);
        let blocks: Vec<f64> = std::thread::scope(|scope| {
            scope.spawn(|| {
                self.pin(1);
                (0..hits).for_each(|hit| ball.play(2 * hit + 1));
            });
            let first = scope.spawn(|| {
                self.pin(0);
                let mut starts = Vec::with_capacity(BLOCKS + 2);
                for hit in 0..hits {
                    if hit % ROUND_TRIPS == 0 {
                        starts.push(Instant::now());
                    }
                    ball.play(2 * hit);
                }
                starts
            });
            let starts = first.join().unwrap_or_default();
            starts.windows(2).skip(1).map(|pair| (pair[1] - pair[0]).as_nanos() as f64).collect()
        });
        median(blocks) / (2 * ROUND_TRIPS) as f64
    }
}

/// Nanoseconds that this thread takes for one turn of a loop that a core could not do faster.
fn turn_ns() -> f64 {
    let mut numbers: [u64; NUMBERS] = std::array::from_fn(|n| black_box(n as u64 + 1));
    let mut block = || {
        let start = Instant::now();
        for _ in 0..TURNS {
            for number in &mut numbers {
                *number ^= *number << 13;
                *number ^= *number >> 7;
                *number ^= *number << 17;
            }
        }
        black_box(&mut numbers);
        start.elapsed().as_nanos() as f64 / f64::from(TURNS)
    };
    median((0..BLOCKS).map(|_| block()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ball_comes_back_each_time() {
        let probe = Probe::new(Duration::ZERO);
        assert!((0..5).all(|_| probe.one_way_ns() > 0.0));
    }

    #[test]
    fn a_core_is_measured_by_the_fastest_that_was_seen() {
        let probe = Probe::new(Duration::ZERO);
        probe.calibrate(Duration::from_millis(1));
        let seen = *probe.fastest.lock().unwrap();
        assert!(0.0 < seen && seen.is_finite());
        *probe.fastest.lock().unwrap() = 1e-9;
        let mut patience = 2 * LOOK;
        assert!(!probe.is_fast() && !probe.is_good() && !probe.wait_until_good(&mut patience));
        assert!(patience.is_zero());
    }
}

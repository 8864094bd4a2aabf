//! How far apart the two cores are: the time that one cache line takes from one to the other.
//!
//! On shared machines this flips between about 30 and 150 ns from one minute to the next, and everything that two
//! threads do together flips with it. A sample counts only if the probe was good before and after it.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use atlas_smr_execution::internals::pool::Place;
use crossbeam::utils::CachePadded;

use crate::stats::median;

/// A one-way latency above this many nanoseconds is a bad one.
pub const LIMIT_NS: f64 = 60.0;
/// Round trips that are timed at once, and how often that is done. The median counts: somebody else may have a core.
const ROUND_TRIPS: usize = 64;
const BLOCKS: usize = 9;
/// Turns of a spin loop after which the core is offered to others.
const PATIENCE: u32 = 1 << 14;

/// The two cores that engines of two threads are pinned to.
pub struct Probe {
    places: Vec<Option<Place>>,
    /// How long workers go on spinning after a job: until then the other core is not free.
    idle: Duration,
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
        Probe { places: Place::reserve(2), idle }
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

    /// True if the cores are near each other now.
    pub fn is_near(&self) -> bool {
        self.one_way_ns() <= LIMIT_NS
    }

    /// The one-way latency between the two cores in nanoseconds, by two threads of its own.
    pub fn one_way_ns(&self) -> f64 {
        std::thread::sleep(self.idle + Duration::from_micros(100));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ball_comes_back_each_time() {
        let probe = Probe::new(Duration::ZERO);
        assert!((0..5).all(|_| probe.one_way_ns() > 0.0));
    }
}

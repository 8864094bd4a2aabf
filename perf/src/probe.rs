//! How far apart the two cores are: the time that one cache line takes from one to the other.
//!
//! On shared machines this flips between about 30 and 150 ns from one minute to the next, and everything that two
//! threads do together flips with it. A sample counts only if the probe was good before and after it.

use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use atlas_smr_execution::internals::pool::Place;
use crossbeam::utils::CachePadded;

/// A one-way latency above this many nanoseconds is a bad one.
pub const LIMIT_NS: f64 = 60.0;
/// Round trips that are timed at once, and how often that is done. The median counts: now and then somebody else has a core.
const ROUND_TRIPS: usize = 64;
const BLOCKS: usize = 9;
/// Turns of a spin loop after which the core is offered to others.
const PATIENCE: u32 = 1 << 14;

/// Two pinned threads that bounce an atomic: the caller and a partner that sleeps in between.
pub struct Probe {
    table: Arc<Table>,
    partner: Option<JoinHandle<()>>,
    /// The core of the thread that calls [`one_way_ns`](Probe::one_way_ns).
    place: Option<Place>,
}

#[derive(Default)]
struct Table {
    /// Odd: the ball is with the partner. Counts up for ever.
    ball: CachePadded<AtomicUsize>,
    /// How far the ball goes in the current rally.
    until: AtomicUsize,
    closed: AtomicBool,
}

impl Table {
    fn wait_for(&self, ball: usize) {
        let mut turns = 0;
        // Acquire: pairs with the other player's Release, though nothing but the ball itself is looked at.
        while self.ball.load(Ordering::Acquire) != ball {
            turns += 1;
            if turns % PATIENCE == 0 {
                std::thread::yield_now();
            } else {
                spin_loop();
            }
        }
    }

    fn play(&self) {
        let mut ball = 1;
        while !self.closed.load(Ordering::Acquire) {
            // Acquire: pairs with the Release in `one_way_ns`.
            if ball > self.until.load(Ordering::Acquire) {
                std::thread::park();
                continue;
            }
            self.wait_for(ball);
            self.ball.store(ball + 1, Ordering::Release);
            ball += 2;
        }
    }
}

impl Probe {
    /// Spawns the partner. Call it before any thread is pinned, so that it may run on another core.
    pub fn new() -> std::io::Result<Self> {
        let mut places = Place::reserve(2).into_iter();
        let (place, other) = (places.next().flatten(), places.next().flatten());
        let table = Arc::new(Table::default());
        let its = Arc::clone(&table);
        let partner = std::thread::Builder::new().name("probe".to_owned()).spawn(move || {
            other.as_ref().map(Place::pin_current);
            its.play();
        })?;
        Ok(Probe { table, partner: Some(partner), place })
    }

    /// Pins the calling thread to the core that the probe starts from, which is also the engines' first.
    pub fn pin_caller(&self) {
        self.place.as_ref().map(Place::pin_current);
    }

    /// True if the cores are near each other now; see [`one_way_ns`](Probe::one_way_ns).
    pub fn is_near(&self, idle: Duration) -> bool {
        self.one_way_ns(idle) <= LIMIT_NS
    }

    /// The one-way latency between this thread's core and the partner's, in nanoseconds.
    ///
    /// `idle` is how long workers go on spinning after a job: until then the other core is not free.
    pub fn one_way_ns(&self, idle: Duration) -> f64 {
        std::thread::sleep(idle + Duration::from_micros(100));
        let table = &self.table;
        let first = table.ball.load(Ordering::Acquire);
        // Release: pairs with the Acquire in `play`.
        table.until.store(first + 2 * ROUND_TRIPS * (BLOCKS + 1), Ordering::Release);
        if let Some(partner) = &self.partner {
            partner.thread().unpark();
        }
        let mut ball = first;
        let mut rally = || {
            let start = Instant::now();
            for _ in 0..ROUND_TRIPS {
                table.ball.store(ball + 1, Ordering::Release);
                table.wait_for(ball + 2);
                ball += 2;
            }
            start.elapsed().as_nanos() as f64 / (2 * ROUND_TRIPS) as f64
        };
        // The partner wakes up in the first one.
        rally();
        let mut blocks: Vec<f64> = (0..BLOCKS).map(|_| rally()).collect();
        blocks.sort_unstable_by(f64::total_cmp);
        blocks[BLOCKS / 2]
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.table.closed.store(true, Ordering::Release);
        if let Some(partner) = self.partner.take() {
            partner.thread().unpark();
            // It has nothing to report.
            let _ = partner.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ball_comes_back_each_time() {
        let probe = Probe::new().expect("a thread");
        for _ in 0..5 {
            assert!(probe.one_way_ns(Duration::ZERO) > 0.0);
        }
    }
}

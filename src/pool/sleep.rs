//! How an idle worker waits: it spins for a bounded time, then parks; and how it is woken.
//!
//! The steps S1 to S5 are those of `pool/README.md`.

use std::time::Duration;

use crate::sync::{AtomicBool, AtomicUsize, Instant, Ordering, Thread, fence, park, spin_loop, yield_now};

/// Who sleeps.
pub struct Sleepers {
    /// At least as many as `asleep` are set: raised before a flag is set, lowered after it is taken back.
    count: AtomicUsize,
    asleep: Box<[AtomicBool]>,
}

impl Sleepers {
    /// Nobody of `workers` workers sleeps.
    pub fn new(workers: usize) -> Self {
        Sleepers {
            count: AtomicUsize::new(0),
            asleep: (0..workers).map(|_| AtomicBool::new(false)).collect(),
        }
    }

    /// Parks worker `worker`, unless `called` says that there is something to do; returns when it was woken.
    pub fn sleep(&self, worker: usize, called: impl Fn() -> bool) {
        // S1. Relaxed: ordered by S2. The flag is set with Release, so that whoever takes it back lowers the count after
        // it was raised: were the count ever below the number of flags, another worker's sleep could be overlooked.
        self.count.fetch_add(1, Ordering::Relaxed);
        self.asleep[worker].swap(true, Ordering::Release);
        // S2. Either this fence comes before the waker's S4, then the waker sees S1 and wakes this worker; or after it,
        // then `called` sees what the waker published.
        fence(Ordering::SeqCst);
        if called() && self.wake_one(worker) {
            return;
        }
        // S3. Relaxed: what the worker acts on it loads again at the gate. A left-over token makes `park` return at
        // once; the loop takes care of that.
        while self.asleep[worker].load(Ordering::Relaxed) {
            park();
        }
    }

    /// Wakes all sleepers. Call it after publishing what `called` looks at.
    pub fn wake_all<'a>(&self, threads: impl Iterator<Item = &'a Thread>) {
        // S4.
        fence(Ordering::SeqCst);
        // Relaxed: a sleeper that is not counted yet has its S2 still to come, and will see what was published.
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        for (worker, thread) in threads.enumerate() {
            // S5.
            if self.wake_one(worker) {
                thread.unpark();
            }
        }
    }

    /// Takes worker `worker` off the sleepers; true if it was one.
    fn wake_one(&self, worker: usize) -> bool {
        // Acquire: pairs with S1, see there. The exchange alone decides who wakes it.
        let was_asleep =
            self.asleep[worker].compare_exchange(true, false, Ordering::Acquire, Ordering::Relaxed).is_ok();
        if was_asleep {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        was_asleep
    }
}

/// A wait that begins with short pauses, soon gives way to other threads, and is over after a set time.
pub struct Spin {
    limit: Duration,
    started: Option<Instant>,
    rounds: u32,
}

impl Spin {
    /// Pauses before the clock is read and the thread gives way for the first time: some microseconds.
    const PAUSES: u32 = if cfg!(shuttle) { 2 } else { 256 };

    /// A wait of at most `limit`; zero means none at all.
    pub fn new(limit: Duration) -> Self {
        Spin { limit, started: None, rounds: 0 }
    }

    /// Waits a moment; false when the time is over.
    #[inline]
    pub fn wait(&mut self) -> bool {
        if self.limit.is_zero() {
            return false;
        }
        self.rounds = self.rounds.wrapping_add(1);
        if !self.rounds.is_multiple_of(Self::PAUSES) {
            spin_loop();
            return true;
        }
        // Other threads may need this core: the caller itself, on a machine with fewer cores than threads.
        yield_now();
        match self.started {
            None => self.started = Some(Instant::now()),
            Some(started) => return started.elapsed() < self.limit,
        }
        true
    }
}

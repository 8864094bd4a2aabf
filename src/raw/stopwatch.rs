//! Timing single operations: a look at the system's clock takes as long as a few reads of the state.
//!
//! # Semantics
//!
//! A stopwatch counts ticks of the processor's own counter. How long one is, it does not know: who wants a time compares with
//! the system's clock over something longer. Where the processor has no such counter that is known here, and in models, a tick
//! is a nanosecond of the system's clock.
//!
//! The counters of different cores may differ, so what was started on one and is read on another may be off by anything, but is
//! never negative. It is for estimates.

#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(any(loom, shuttle, miri))))]
mod imp {
    /// A counter's value when it was started.
    #[derive(Clone, Copy, Debug)]
    pub struct Stopwatch(u64);

    impl Stopwatch {
        /// Starts now.
        #[inline(always)]
        pub fn start() -> Self {
            Stopwatch(count())
        }

        /// Ticks since it was started.
        #[inline(always)]
        pub fn ticks(self) -> u64 {
            count().saturating_sub(self.0)
        }
    }

    #[inline(always)]
    fn count() -> u64 {
        #[cfg(target_arch = "x86_64")]
        {
            // SAFETY: every x86-64 processor has the instruction, and it does nothing but count.
            unsafe { std::arch::x86_64::_rdtsc() }
        }
        #[cfg(target_arch = "aarch64")]
        {
            let count: u64;
            // SAFETY: the register can be read by any program, and reading it does nothing else.
            unsafe {
                std::arch::asm!("mrs {0}, cntvct_el0", out(reg) count, options(nomem, nostack, preserves_flags));
            }
            count
        }
    }
}

#[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(any(loom, shuttle, miri)))))]
mod imp {
    use crate::sync::Instant;

    /// When it was started.
    #[derive(Clone, Copy, Debug)]
    pub struct Stopwatch(Instant);

    impl Stopwatch {
        /// Starts now.
        pub fn start() -> Self {
            Stopwatch(Instant::now())
        }

        /// Nanoseconds since it was started.
        pub fn ticks(self) -> u64 {
            self.0.elapsed().as_nanos() as u64
        }
    }
}

use std::time::Duration;

use crate::sync::Instant;
pub use imp::Stopwatch;

/// What some operations took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    ticks: u64,
    operations: u64,
}

impl Measured {
    /// What so many operations took.
    pub fn of(operations: usize, ticks: u64) -> Self {
        Measured { ticks, operations: operations as u64 }
    }

    /// These operations and one more.
    pub fn with(self, ticks: u64) -> Self {
        self.and(Measured::of(1, ticks))
    }

    /// These operations and others.
    pub fn and(self, other: Self) -> Self {
        Measured {
            ticks: self.ticks.saturating_add(other.ticks),
            operations: self.operations + other.operations,
        }
    }
}

/// How long a tick is, found out over some time.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    start: Instant,
    watch: Stopwatch,
}

impl Scale {
    /// The time begins.
    pub fn begin() -> Self {
        Scale { start: Instant::now(), watch: Stopwatch::start() }
    }

    /// What `len` operations took together, by those that were `measured`, if so many threads have run them since the time
    /// began, and a tick was as long as it was on average.
    pub fn time_of(self, measured: Measured, len: usize, threads: usize) -> Duration {
        let (time, ticks) = (self.start.elapsed(), self.watch.ticks());
        time.mul_f64(share(measured, ticks, len).min(threads as f64))
    }
}

/// For how many threads the work of `len` operations would have been enough in so many ticks. Where a counter has jumped, for any
/// number.
fn share(Measured { ticks, operations }: Measured, of: u64, len: usize) -> f64 {
    (ticks as f64 / of.max(1) as f64) * (len as f64 / operations.max(1) as f64)
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn it_counts_while_the_clock_goes() {
        let (watch, start) = (Stopwatch::start(), Instant::now());
        while start.elapsed().as_millis() < 5 {}
        // The slowest counters in use have a tick of a microsecond.
        assert!(watch.ticks() >= 2_500, "{watch:?}");
    }

    #[test]
    fn what_some_took_stands_for_all() {
        let none = Measured::default();
        assert_eq!(share(none, 1000, 10), 0.0);
        let two = none.with(100).and(none.with(300));
        assert_eq!(share(two, 1000, 10), 2.0);
        assert_eq!(share(two, 0, 2), 400.0);
        assert_eq!(share(two.and(Measured::of(6, 400)), 1000, 10), 1.0);
        assert_eq!(two.with(u64::MAX).ticks, u64::MAX);
    }

    #[test]
    fn a_counter_that_jumps_shows_no_more_than_all_threads_can_do() {
        let scale = Scale::begin();
        let time = scale.time_of(Measured::default().with(u64::MAX), 100, 3);
        assert!(time <= 3 * scale.start.elapsed(), "{time:?}");
    }
}

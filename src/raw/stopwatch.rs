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

    /// So many ticks as a time, if a tick is as long as it was on average since the time began.
    pub fn time_of(self, ticks: u64) -> Duration {
        let (time, of) = (self.start.elapsed(), self.watch.ticks());
        part(time, ticks, of)
    }
}

/// The part of a time that `ticks` are, of so many; more than a million times as much is a counter that has jumped.
fn part(time: Duration, ticks: u64, of: u64) -> Duration {
    time.mul_f64((ticks as f64 / of.max(1) as f64).min(1e6))
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
    fn ticks_are_a_part_of_the_time() {
        let time = Duration::from_micros(100);
        assert_eq!(part(time, 500, 1000), time / 2);
        // On two threads, operations take longer than the batch.
        assert_eq!(part(time, 1500, 1000), time * 3 / 2);
        assert_eq!([part(time, 0, 1000), part(time, 0, 0)], [Duration::ZERO; 2]);
        assert_eq!(part(time, u64::MAX, 0), time * 1_000_000);
    }
}

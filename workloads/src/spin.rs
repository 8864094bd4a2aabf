//! Busy work of a chosen length: what an operation costs besides touching the state.

use std::hint::black_box;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A number of turns of the spin loop, calibrated to a time on this machine.
///
/// The time is a matter of this process alone; nothing that the loop computes reaches the state or a reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    turns: u64,
}

impl Cost {
    /// No work at all.
    pub const NONE: Cost = Cost { turns: 0 };

    /// Work of about `ns` nanoseconds. The first call in a process measures the machine, for some milliseconds.
    #[must_use]
    pub fn of_ns(ns: f64) -> Cost {
        if ns.is_nan() || ns <= 0.0 {
            return Cost::NONE;
        }
        Cost { turns: (ns * turns_per_ns()).round() as u64 }
    }

    /// `factor` times this work.
    #[must_use]
    pub fn times(self, factor: u64) -> Cost {
        Cost { turns: self.turns.saturating_mul(factor) }
    }

    /// `part` of `whole` of this work.
    ///
    /// # Panics
    ///
    /// If `whole` is zero.
    #[inline]
    #[must_use]
    pub fn share(self, part: u64, whole: u64) -> Cost {
        let turns = u128::from(self.turns) * u128::from(part) / u128::from(whole);
        Cost { turns: u64::try_from(turns).unwrap_or(u64::MAX) }
    }

    /// This work in `parts` parts of the same length, to within a turn; together they are all of it.
    pub fn in_parts(self, parts: u64) -> impl Iterator<Item = Cost> {
        let up_to = move |part| self.share(part, parts).turns;
        (0..parts).map(move |part| Cost { turns: up_to(part + 1) - up_to(part) })
    }

    /// Does the work.
    #[inline]
    pub fn spin(self) {
        if self.turns > 0 {
            black_box(turn(self.turns));
        }
    }
}

/// A chain of dependent multiplications: it cannot be reordered, vectorized or shortened.
#[inline(never)]
fn turn(turns: u64) -> u64 {
    let mut x = black_box(0x2545_f491_4f6c_dd1d_u64);
    for _ in 0..turns {
        x = x.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
    }
    x
}

/// Measured once per process. The fastest of many short samples counts: whatever disturbs a sample makes it slower.
fn turns_per_ns() -> f64 {
    const TURNS: u64 = 50_000;
    const SAMPLES: usize = 60;
    static RATE: OnceLock<f64> = OnceLock::new();
    *RATE.get_or_init(|| {
        let sample = || {
            let start = Instant::now();
            black_box(turn(TURNS));
            start.elapsed()
        };
        let best = (0..SAMPLES).map(|_| sample()).min().unwrap_or_default();
        TURNS as f64 / best.max(Duration::from_nanos(1)).as_nanos() as f64
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_is_longer() {
        let turns = |ns| Cost::of_ns(ns).turns;
        assert_eq!(Cost::of_ns(0.0), Cost::NONE);
        assert_eq!(Cost::of_ns(f64::NAN), Cost::NONE);
        assert!(turns(1000.0) > 0);
        assert!(turns(10_000.0) > turns(1000.0) * 9);
        assert_eq!(Cost::of_ns(1000.0).times(100).turns, turns(1000.0) * 100);
        assert_eq!(Cost { turns: 1000 }.share(1, 4), Cost { turns: 250 });
        assert_eq!(Cost { turns: 10 }.in_parts(3).map(|part| part.turns).collect::<Vec<_>>(), [3, 3, 4]);
        assert_eq!(Cost { turns: 10 }.in_parts(0).count(), 0);
        assert_eq!(Cost { turns: u64::MAX }.share(u64::MAX, 1), Cost { turns: u64::MAX });
    }

    #[test]
    fn a_millisecond_is_at_least_about_one() {
        let cost = Cost::of_ns(1e6);
        let start = Instant::now();
        cost.spin();
        // Only a lower bound: another process may hold the core. Half, because the clock rate may rise meanwhile.
        assert!(start.elapsed() > Duration::from_micros(500));
    }
}

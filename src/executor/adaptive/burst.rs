//! Trying a way for a while.

use super::Way;
use super::cost::Cost;
use super::inflation::Lengths;

/// What counts of a burst lasts so long.
pub const BURST_NS: f64 = 300_000.0;
/// Before that, so much does not count: workers wake up, and state moves between the cores' caches.
const COLD_NS: f64 = 300_000.0;
/// A run that takes so long counts all the same, unless memory still grows.
const LONG_NS: f64 = 2_000_000.0;
/// From this share of a burst's time on, it ends early if it takes `HOPELESS` times as long as the way in use.
const EARLY: f64 = 0.2;
const HOPELESS: f64 = 1.2;
/// Runs in a row that were disturbed, after which a burst is given up.
const DISTURBED: u32 = 8;
/// The slowest run may cost so many times as much as the others; what it takes beyond that says nothing about the work.
const SLOWEST: f64 = 2.0;

/// Some runs in a row in a way that is not in use.
#[derive(Clone, Copy, Debug)]
pub struct Burst {
    /// The way.
    pub way: Way,
    /// Runs that count.
    pub runs: u32,
    /// Runs yet to come that do not count.
    cold: u32,
    cold_ns: f64,
    /// Runs that were disturbed since one was not.
    disturbed: u32,
    /// Of those that count.
    total: Cost,
    slowest: Cost,
    /// How long operations are.
    pub lengths: Lengths,
}

impl Burst {
    /// A burst whose first `cold` runs do not count.
    pub fn begin(way: Way, cold: u32) -> Burst {
        Burst {
            way,
            runs: 0,
            cold,
            cold_ns: COLD_NS,
            disturbed: 0,
            total: Cost::default(),
            slowest: Cost::default(),
            lengths: Lengths::default(),
        }
    }

    /// Takes in that a run was disturbed; false if it is no use to go on.
    pub fn bears_disturbance(&mut self) -> bool {
        self.disturbed += 1;
        self.disturbed < DISTURBED
    }

    /// Takes in a run of `len` operations.
    pub fn add(&mut self, len: usize, took_ns: f64, amount: f64) {
        self.disturbed = 0;
        if self.cold > 1 || (took_ns < LONG_NS && (self.cold > 0 || self.cold_ns > 0.0)) {
            self.cold = self.cold.saturating_sub(1);
            self.cold_ns -= took_ns;
            return;
        }
        self.runs += 1;
        self.lengths.add(amount / len as f64, 1.0);
        self.total.add(took_ns, amount, 1.0);
        if self.slowest.get().is_none_or(|slowest| took_ns / amount > slowest) {
            self.slowest = Cost { took_ns, amount };
        }
    }

    /// What the way costs, without the slowest run: a thread that was not on its core for a while says nothing about the work.
    pub fn cost(&self) -> f64 {
        self.others().get().unwrap_or(f64::INFINITY)
    }

    fn others(&self) -> Cost {
        let Burst { total, slowest, .. } = self;
        Cost { took_ns: total.took_ns - slowest.took_ns, amount: total.amount - slowest.amount }
    }

    /// What all runs cost, for batches of which some gain less than others: to leave the worst one out would be a bias.
    pub fn all(&self) -> Cost {
        let most = SLOWEST * self.cost() * self.slowest.amount;
        Cost { took_ns: self.others().took_ns + self.slowest.took_ns.min(most), ..self.total }
    }

    /// How long all runs would have taken at this cost.
    pub fn typical_ns(&self, cost: f64) -> f64 {
        cost * self.total.amount
    }

    /// True if enough is known after at least `least` runs, or so much that it cannot become better than `in_use`.
    pub fn is_over(&self, in_use: f64, least: u32) -> bool {
        let counted_ns = self.total.took_ns;
        let hopeless = || counted_ns >= EARLY * BURST_NS && self.cost() > HOPELESS * in_use;
        self.runs > least / 2 && (self.runs >= least && counted_ns >= BURST_NS || hopeless())
    }
}

//! What ways cost, lately and on average.

use super::inflation::Inflation;
use super::{Consent, Way};

/// The weight of the newest measurement.
pub const WEIGHT: f64 = 0.25;

/// A running average; `None` before the first value.
#[derive(Clone, Copy, Debug, Default)]
pub struct Average(pub Option<f64>);

impl Average {
    /// Takes in a value.
    pub fn add(&mut self, value: f64) {
        self.0 = Some(self.0.map_or(value, |average| average + WEIGHT * (value - average)));
    }
}

/// What batches cost lately, for what they were worth.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Their time in nanoseconds.
    pub took_ns: f64,
    /// Their worth: operations, or the time that these take one after the other.
    pub amount: f64,
}

impl Cost {
    /// Takes in a batch, after only `kept` of what was known before is left.
    pub fn add(&mut self, took_ns: f64, amount: f64, kept: f64) {
        self.took_ns = self.took_ns * kept + took_ns;
        self.amount = self.amount * kept + amount;
    }

    /// Time for what is worth one; `None` if nothing is known.
    pub fn get(self) -> Option<f64> {
        (self.amount > 0.0).then(|| self.took_ns / self.amount)
    }

    /// With what `common` says, as if that were known of something worth `amount`.
    pub fn and(mut self, common: Cost, amount: f64) -> Cost {
        if let Some(cost) = common.get() {
            self.add(cost * amount, amount, 1.0);
        }
        self
    }
}

/// What holds for all classes: the application's consent, and what is known of batches of all sizes whose operations are
/// measured. A class begins with that, and for a while it outweighs what few batches of its own say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Common {
    /// Which ways may be tried.
    pub consent: Consent,
    /// There is one thread, so no way that shares a batch among several.
    pub alone: bool,
    /// Others want cores, too: a way that takes all of them has to gain much.
    pub considerate: bool,
    /// What they cost by way.
    pub cost: [Cost; Way::ALL.len()],
    /// How much longer operations take ahead of turn, by what was found last.
    pub inflation: Inflation,
    /// The share of units that had to be replayed, by way.
    pub replayed: [Average; Way::ALL.len()],
}

impl Common {
    /// True if such batches ran ahead of turn.
    pub fn is_known(&self) -> bool {
        let sequential = Way::Sequential as usize;
        self.cost.iter().enumerate().any(|(way, cost)| way != sequential && cost.get().is_some())
    }
}

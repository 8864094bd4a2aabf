//! Which of two ways is better.

use super::Class;
use crate::executor::adaptive::Way;
use crate::executor::adaptive::burst::Burst;
use crate::executor::adaptive::cost::Common;
use crate::executor::adaptive::inflation::Inflation;

/// Where others want cores, too, what takes all of them costs so much more against the loop.
const ALL_CORES: f64 = 1.2;
/// A way that may take so many times as long as the loop, by what is not sure, has to be compared with that again soon.
const MAY_LOSE: f64 = 1.25;
/// Where much is stale, operations are measured to take still longer, because what they look at was just written by another core:
/// on recorded blocks of short operations, about so much for each that is stale. Such ways would look better than those that
/// avoid it.
const STALE_NS: f64 = 1_000.0;

impl Class {
    /// What is known of a way's cost.
    pub(super) fn cost_of(&self, way: Way, common: &Common) -> Option<f64> {
        let cost = self.cost[way as usize];
        match (self.measured, way) {
            (0, _) => cost.get(),
            (_, Way::Sequential) => Some(1.0),
            _ => {
                let amount = self.common[way as usize] * self.worth.0.unwrap_or(1.0);
                cost.and(common.cost[way as usize], amount).get()
            }
        }
    }

    /// What one way costs for what the other costs; less than 1 if it is better.
    pub(super) fn judged(
        &self,
        (way, cost): (Way, f64),
        (other, other_cost): (Way, f64),
        common: &Common,
    ) -> f64 {
        let against_loop = way == Way::Sequential || other == Way::Sequential;
        let taken = |way| if common.considerate && way != Way::Sequential { ALL_CORES } else { 1.0 };
        let plain = cost / other_cost * taken(way) / taken(other);
        match self.operation_ns.0 {
            Some(ns) if self.measured > 0 => {
                let stale = |way| 1.0 + self.stale(way, common) * STALE_NS / ns;
                let inflated = |way| self.inflation.of(way, common.inflation);
                let measured = |way| if against_loop { inflated(way) } else { stale(way) };
                let judged = plain * measured(way) / measured(other);
                // Who is not better than the loop is not better than anybody: else ways could take turns.
                if against_loop { judged } else { judged.max(cost * taken(way) * inflated(way)) }
            }
            _ => plain,
        }
    }

    pub(super) fn cost_in_use(&self, common: &Common) -> f64 {
        self.cost_of(self.in_use, common).unwrap_or(f64::INFINITY)
    }

    /// Compares how long operations are in the loop and ahead of turn, if one is the way in use and the other that of a burst.
    pub(super) fn compare_lengths(&mut self, burst: &Burst, common: &mut Common) {
        let (ahead, in_turn) = match (burst.way, self.in_use) {
            (Way::Sequential, _) => (&self.lengths, &burst.lengths),
            (_, Way::Sequential) => (&burst.lengths, &self.lengths),
            _ => return,
        };
        if let Some(found) = Inflation::compare(ahead, in_turn) {
            (self.inflation, common.inflation) = (found, found);
        }
    }

    /// Whether it is sure that the way in use does not take much longer than the loop, where operations are measured.
    pub(super) fn is_no_great_loss(&self, common: &Common) -> bool {
        self.cost_in_use(common) * self.inflation.at_most() < MAY_LOSE
    }
}

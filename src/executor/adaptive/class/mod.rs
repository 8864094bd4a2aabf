//! What is known of batches of about one size.

mod judging;

use std::time::Duration;

use crate::executor::adaptive::Way;
use crate::executor::adaptive::burst::Burst;
use crate::executor::adaptive::cost::{Average, Common, Cost, WEIGHT};
use crate::executor::adaptive::inflation::{Inflation, Lengths};
use crate::executor::adaptive::measuring::{Difference, LONG_NS};
use crate::executor::adaptive::sharing::Sharing;
use crate::executor::adaptive::trials::{Outcome, Trials};
use crate::retire::Counts;

/// A batch worth less than this is over before a worker has come.
const WORTH_SPREADING_NS: f64 = 2_500.0;
/// Runs that a burst has at least, and where operations are measured, because batches differ there.
const RUNS: u32 = 3;
const MEASURED_RUNS: u32 = 6;
/// The pause after a class has begun with what others know: so many bursts, and at most so long.
const BURSTS_KNOWN: f64 = 4.0;
const KNOWN_NS: f64 = 500_000_000.0;
/// Runs of a way's first burst that do not count, because memory grows.
const FIRST_COLD: u32 = 3;
/// Timing a short batch, and judging by it, would be noticed. After one that ran sequentially and took less than `SHORT_NS`,
/// so many are not timed.
const SHORT_NS: f64 = 20_000.0;
const UNTIMED: u32 = 32;
/// What it costs to plan a batch and to take it in, which is not in its time. Short ones in the loop are spared that.
const DECIDING_NS: f64 = 150.0;
/// A batch that seems to have taken this many times as long as expected (or as a short one) counts as so much and no more:
/// the process was stopped for a while, or its clock jumped.
const SURPRISE: f64 = 100.0;
/// One batch counts as at most this many times the average.
const MOST_RISE: f64 = 2.0;
/// The other way must be this much better to be adopted.
const BETTER: f64 = 0.98;
/// From this share of replayed units on, it is worth a thought how to avoid them.
const CONTENDED: f64 = 0.03;
/// What is left of a measured batch's weight with the next one. Batches differ, so more of them count.
const KEPT: f64 = 0.95;
/// What is known of all measured batches counts in each class as much as so many of its own, before it has any.
const COMMON: f64 = 4.0;

/// What is known of one size class.
#[derive(Clone, Copy, Debug)]
pub struct Class {
    /// Time of an operation, on one thread.
    operation_ns: Average,
    /// How far from that batches are.
    difference: Difference,
    /// Operations are measured whose position is a multiple of this; none if it is 0.
    measured: usize,
    /// What a batch takes one operation after the other, where they are measured.
    worth: Average,
    /// What a batch costs by way: time per operation, or, where they are measured, the share of their time.
    cost: [Cost; Way::ALL.len()],
    /// How many batches what all sizes have shown counts for: the fewer, the more is known of this one.
    common: [f64; Way::ALL.len()],
    /// The share of units that had to be replayed, by way.
    replayed: [Average; Way::ALL.len()],
    in_use: Way,
    /// How long operations are in the way in use, where they are measured.
    lengths: Lengths,
    inflation: Inflation,
    trials: Trials,
    burst: Option<Burst>,
    /// So many batches to come, of no more operations than `longest_untimed`, run sequentially and are not timed.
    untimed: u32,
    longest_untimed: usize,
}

impl Default for Class {
    fn default() -> Self {
        Class {
            operation_ns: Average::default(),
            difference: Difference::default(),
            measured: 0,
            worth: Average::default(),
            cost: Default::default(),
            common: [COMMON; Way::ALL.len()],
            replayed: Default::default(),
            in_use: Way::Sequential,
            lengths: Lengths::default(),
            inflation: Inflation::default(),
            trials: Trials::default(),
            burst: None,
            untimed: 0,
            longest_untimed: 0,
        }
    }
}

impl Class {
    /// Takes all batches for contended, until measurements say otherwise.
    #[cfg(any(test, shuttle, feature = "internals"))]
    pub fn expect_contention(&mut self) {
        self.replayed[Way::OneMoment as usize].add(1.0);
    }

    /// True if a batch has been taken in.
    #[cfg(test)]
    pub fn knows(&self) -> bool {
        self.operation_ns.0.is_some()
    }

    /// How to run a batch of `len` operations.
    pub fn way(&mut self, len: usize, common: &Common) -> Way {
        let Some(per_operation) = self.operation_ns.0 else {
            return Way::Sequential;
        };
        if per_operation * (len as f64) < WORTH_SPREADING_NS {
            return Way::Sequential;
        }
        let ahead = self.in_use != Way::Sequential;
        let compares = self.measured > 0 && self.lengths.are_known();
        if self.burst.is_none()
            // What operations take ahead of turn has to be compared with something.
            && (ahead || compares || self.measured == 0)
            && self.trials.are_due(ahead && compares)
            && let Some(way) =
                self.trials.next(Way::ALL.map(|way| self.is_worth_a_try(way, common)), ahead && compares)
        {
            let cold = if self.cost_of(way, common).is_none() { FIRST_COLD } else { 1 };
            self.burst = Some(Burst::begin(way, cold));
        }
        self.burst.map_or(self.in_use, |burst| burst.way)
    }

    /// True if a batch of `len` operations runs sequentially, and is not timed: it counts as one like the last that was.
    #[inline]
    pub fn passes(&mut self, len: usize) -> bool {
        let passes = self.untimed > 0 && len <= self.longest_untimed;
        self.untimed -= u32::from(passes);
        passes
    }

    /// How to share out a batch of `len` operations to this many threads.
    pub fn sharing(&self, way: Way, len: usize, threads: usize, common: &Common) -> Sharing {
        Sharing::of(self.operation_ns.0, self.stale(way, common), len, threads)
    }

    /// The share of units that are stale at their turn.
    pub fn stale(&self, way: Way, common: &Common) -> f64 {
        self.replayed[way as usize].0.or(common.replayed[way as usize].0).unwrap_or(0.0)
    }

    /// Operations are measured whose position is a multiple of this; none if it is 0. As long as nothing is known, all are.
    pub fn measured(&self) -> usize {
        if self.operation_ns.0.is_none() { 1 } else { self.measured }
    }

    /// Takes in how a batch of `len` operations that ran in `way` went.
    pub fn record(&mut self, len: usize, way: Way, took: Duration, counts: Counts, common: &mut Common) {
        // Where threads share a batch, far more is at stake.
        let on_one_thread = matches!(way, Way::AtTurn | Way::Prefetched);
        let deciding_ns = if on_one_thread { DECIDING_NS } else { 0.0 };
        let took_ns = (took.as_nanos() as f64 + deciding_ns).min(self.longest(len));
        let worked_ns = counts.worked.as_nanos() as f64;
        if counts.speculations > 0 {
            let share = counts.replays as f64 / counts.speculations as f64;
            self.replayed[way as usize].add(share);
            if self.measured > 0 {
                common.replayed[way as usize].add(share);
            }
        }
        self.trials.pass(took_ns);
        self.learn(len, way, took_ns, worked_ns, common);
        let Some(amount) = self.amount(len, way, took_ns, worked_ns) else {
            return;
        };
        if self.measured > 0 {
            self.worth.add(amount);
        }
        let in_use = self.cost_in_use(common);
        let (least, kept) = if self.measured > 0 { (MEASURED_RUNS, KEPT) } else { (RUNS, 1.0 - WEIGHT) };
        match &mut self.burst {
            Some(burst) if burst.way == way => {
                burst.add(len, took_ns, amount);
                if burst.is_over(in_use, least) {
                    let burst = *burst;
                    self.end_burst(burst, common);
                }
            }
            _ => {
                // A thread may not have been on its core for a while; the next batches tell.
                let known = self.cost[way as usize].get();
                let most = known.map_or(f64::INFINITY, |cost| MOST_RISE * cost * amount);
                if way == self.in_use && self.measured > 0 {
                    self.lengths.add(amount / len as f64, kept);
                }
                self.add(way, Cost { took_ns: took_ns.min(most), amount }, kept, common);
                self.reconsider(common);
            }
        }
        if way == Way::Sequential {
            self.leave_untimed(len, common);
        }
    }

    /// Times none of the next few batches like this sequential one, if they are short and nothing else is to be tried soon.
    fn leave_untimed(&mut self, len: usize, common: &Common) {
        let expected = self.operation_ns.0.map_or(f64::INFINITY, |ns| ns * len as f64);
        let waits =
            || self.trials.is_paused() || !Way::ALL.into_iter().any(|way| self.is_worth_a_try(way, common));
        let pauses = self.in_use == Way::Sequential && self.burst.is_none() && waits();
        if expected < WORTH_SPREADING_NS || (pauses && expected < SHORT_NS) {
            (self.untimed, self.longest_untimed) = (UNTIMED, len);
            self.trials.pass(f64::from(UNTIMED) * expected);
        }
    }

    /// Takes in what batches cost in a way, after only `kept` of what was known before is left.
    fn add(&mut self, way: Way, Cost { took_ns, amount }: Cost, kept: f64, common: &mut Common) {
        let way = way as usize;
        self.cost[way].add(took_ns, amount, kept);
        if self.measured > 0 {
            self.common[way] *= kept;
            common.cost[way].add(took_ns, amount, kept);
        }
    }

    /// Takes in that a batch of `len` operations took so long, and not because of its way.
    pub fn pass_over(&mut self, len: usize, took: Duration) {
        self.trials.pass((took.as_nanos() as f64).min(self.longest(len)));
        if self.burst.as_mut().is_some_and(|burst| !burst.bears_disturbance()) {
            self.burst = None;
            self.trials.give_up();
        }
    }

    /// How long a batch of `len` operations can have taken, in nanoseconds.
    fn longest(&self, len: usize) -> f64 {
        self.operation_ns.0.map_or(f64::INFINITY, |ns| SURPRISE * SHORT_NS.max(ns * len as f64))
    }

    /// Takes in what a run says about the operations themselves.
    fn learn(&mut self, len: usize, way: Way, took_ns: f64, worked_ns: f64, common: &Common) {
        let taken = if way == Way::Sequential { took_ns } else { worked_ns };
        if taken > 0.0 {
            // A batch may be slow because the thread was not on its core; the next ones tell.
            let most = self.operation_ns.0.map_or(f64::INFINITY, |ns| ns * MOST_RISE);
            let ns = (taken / len as f64).min(most);
            if let Some(average) = self.operation_ns.0 {
                self.difference.add(ns, average);
            }
            self.operation_ns.add(ns);
        }
        // One thread runs all of a batch whatever its way, so there is nothing to measure operations for.
        let measures = self.operation_ns.0.filter(|_| !common.alone);
        let measured = measures.map_or(0, |ns| self.difference.measured(ns, self.measured > 0));
        if (measured > 0) != (self.measured > 0) {
            // Costs are in another measure from here on.
            (self.cost, self.common) = (Default::default(), [COMMON; Way::ALL.len()]);
            (self.burst, self.lengths, self.inflation) = (None, Lengths::default(), Inflation::default());
            self.measured = measured;
            self.reconsider(common);
            let knows = measured > 0 && common.is_known();
            let pause_ns = BURSTS_KNOWN * f64::from(MEASURED_RUNS) * took_ns;
            self.trials.start_over(if knows { pause_ns.min(KNOWN_NS) } else { 0.0 });
        }
        self.measured = measured;
    }

    /// What a run's time is divided by to compare it with others; `None` if it was not measured.
    fn amount(&self, len: usize, way: Way, took_ns: f64, worked_ns: f64) -> Option<f64> {
        match (self.measured, way) {
            (0, _) => Some(len as f64),
            (_, Way::Sequential) => (took_ns > 0.0).then_some(took_ns),
            _ => (worked_ns > 0.0).then_some(worked_ns),
        }
    }

    /// Where operations are measured, each batch says something about the way in use that holds against all others. Where
    /// they are not, another may have been better only because operations were: then it is tried again soon.
    fn reconsider(&mut self, common: &Common) {
        let known = Way::ALL.iter().filter_map(|&way| Some((way, self.cost_of(way, common)?)));
        let (in_use, bound) = match self.cost_of(self.in_use, common) {
            Some(cost) => ((self.in_use, cost), BETTER),
            // Anything known is better; the loop's cost is, where operations are measured.
            None => ((Way::Sequential, 1.0), f64::INFINITY),
        };
        let judged = known.map(|known| (known.0, self.judged(known, in_use, common)));
        let best = judged.min_by(|a, b| a.1.total_cmp(&b.1)).filter(|best| best.1 < bound);
        let better = best.map(|(way, _)| way);
        match better {
            Some(way) if self.measured > 0 => {
                if self.in_use == Way::Sequential {
                    self.trials.compare_anew();
                }
                (self.in_use, self.lengths) = (way, Lengths::default());
                self.trials.hurry();
            }
            _ => self.trials.promise(better.filter(|&way| self.is_worth_a_try(way, common))),
        }
    }

    /// True if batches run one operation after the other only to compare what these take.
    pub fn compares(&self) -> bool {
        self.measured > 0 && self.burst.is_some_and(|burst| burst.way == Way::Sequential)
    }

    /// True if many units had to be replayed that ran on one moment.
    pub fn is_contended(&self, common: &Common) -> bool {
        self.stale(Way::OneMoment, common) >= CONTENDED
    }

    /// Of longer operations, waiting for keys is no noticeable part.
    fn mostly_waits(&self) -> bool {
        self.measured == 0 && self.operation_ns.0.is_some_and(|ns| ns < LONG_NS)
    }

    /// Whether to try a way now and then.
    fn is_worth_a_try(&self, way: Way, common: &Common) -> bool {
        let consented = match way {
            // What it costs is known where operations are measured.
            Way::Sequential => self.measured == 0,
            Way::OneMoment => !common.alone,
            Way::Forwarding => !common.alone && common.consent.forwarding && self.is_contended(common),
            Way::ByHints => !common.alone && common.consent.hints && self.is_contended(common),
            Way::AtTurn => common.consent.in_place && self.mostly_waits(),
            Way::Prefetched => common.consent.prefetching && self.mostly_waits(),
        };
        consented && way != self.in_use
    }

    /// Compares what a burst measured with the way in use.
    fn end_burst(&mut self, burst: Burst, common: &mut Common) {
        self.burst = None;
        let first = self.cost[burst.way as usize].get().is_none();
        if self.measured > 0 {
            self.add(burst.way, burst.all(), KEPT.powf(f64::from(burst.runs)), common);
            self.compare_lengths(&burst, common);
        } else {
            self.cost[burst.way as usize] = Cost { took_ns: burst.cost(), amount: 1.0 };
        }
        let cost = self.cost_of(burst.way, common).unwrap_or(f64::INFINITY);
        let in_use = self.cost_in_use(common);
        let mut took_ns = burst.typical_ns(burst.cost());
        if self.trials.are_new() {
            // The first time, it is not yet believed that it takes that much longer than in the way in use.
            took_ns = took_ns.min(burst.typical_ns(in_use));
        }
        let left = (self.in_use, in_use);
        let wins = self.judged((burst.way, cost), left, common) < BETTER;
        // What this one has lost is time; that others want cores is not.
        let plain = Common { considerate: false, ..*common };
        let lost = (!wins).then(|| self.judged((burst.way, burst.cost()), left, &plain) - 1.0);
        if wins {
            (self.in_use, self.lengths) = (burst.way, burst.lengths);
        }
        let sure = self.is_no_great_loss(common);
        self.trials.end(Outcome { lost, took_ns, first, measured: self.measured > 0, sure });
        if wins && left.0 == Way::Sequential && self.measured > 0 {
            // This was a comparison. A burst for that alone will lose what is gained now.
            let gained = self.judged(left, (burst.way, burst.cost()), &plain) - 1.0;
            self.trials.compare_anew();
            self.trials.compared(gained, took_ns, sure);
        }
        // Each way gets its first burst at once.
        let untried = |way| self.is_worth_a_try(way, common) && self.cost_of(way, common).is_none();
        if Way::ALL.into_iter().any(untried) {
            self.trials.hurry();
        }
    }
}

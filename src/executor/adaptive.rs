//! Which way to run a batch: sequentially or ahead of turn, and how, judged by what was faster lately.
//!
//! Batches are judged by size class (powers of two), because what pays at 4096 operations may cost at 16. For each class
//! the governor keeps the time per operation of each way, uses the best one, and now and then tries another in a
//! short burst. The first run of a burst does not count where it is short, because it pays for waking the workers. A
//! burst is measured in time, not in operations, so that heavy operations are not tried for seconds; one that is clearly
//! losing ends early. The pause until the next burst doubles while bursts lose, so that together they cost less than one
//! percent. Forwarding and hints cost something for each operation, so they are tried only where a noticeable share
//! of units had to be replayed without them.
//!
//! What is compared is time per operation, as long as operations are short. Long ones may differ much from batch to batch, so
//! that two batches say nothing about two ways. There, clock readings around each operation do not matter, and tell what the
//! batch would have taken one after the other: what is compared is the share of that which it did take.
//!
//! The choice changes no result, so every replica makes its own.

use std::time::Duration;

use crate::retire::Counts;

/// A way to run a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// One operation after the other.
    Sequential,
    /// Ahead of turn, in chunks, each unit on one moment.
    OneMoment,
    /// Ahead of turn, in chunks, each unit on the newest values, retired or not.
    Forwarding,
    /// Ahead of turn, each operation when the keys that it will probably touch are free; on the newest values, where that is
    /// allowed.
    ByHints,
}

impl Way {
    const ALL: [Way; 4] = [Way::Sequential, Way::OneMoment, Way::Forwarding, Way::ByHints];
}

/// Which of the ways that need the application's consent it gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Consent {
    pub(crate) forwarding: bool,
    pub(crate) hints: bool,
}

/// How to run one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) way: Way,
    /// Positions that a thread takes at once.
    pub(crate) chunk: usize,
    /// Let idle threads run stale units again.
    pub(crate) again: bool,
    /// Whether the governor wants to know how long it took.
    pub(crate) timed: bool,
    /// Whether it wants to know how long each operation took.
    pub(crate) measured: bool,
}

/// Operations that a thread takes at once should be worth about this much.
const CHUNK_NS: f64 = 4_000.0;
/// But no more than this many, so that later ones see earlier ones' writes.
const MAX_CHUNK: usize = 32;
/// A batch worth less than this is over before a worker has come.
const WORTH_SPREADING_NS: f64 = 2_500.0;
/// How long a burst lasts, without its first run.
const BURST_NS: f64 = 150_000.0;
/// The pause after a burst, in bursts: at first, and when they have lost again and again.
const FIRST_PAUSE: f64 = 32.0;
const LONGEST_PAUSE: f64 = 512.0;
/// From this share of a burst's time on, it ends early if it takes `HOPELESS` times as long as the way in use.
const EARLY: f64 = 0.2;
const HOPELESS: f64 = 1.2;
/// Reading the clock costs some 50 ns a batch. Of batches that take less than `SHORT_NS` and run sequentially, one in
/// `SAMPLED` is timed.
const SHORT_NS: f64 = 20_000.0;
const SAMPLED: u32 = 16;
/// A batch that seems to have taken this many times as long as expected (or as a short one) counts as so much and no more:
/// the process was stopped for a while, or its clock jumped.
const SURPRISE: f64 = 100.0;
/// One batch counts as at most this many times the average.
const MOST_RISE: f64 = 2.0;
/// From this time per operation on, operations are long; they stop being so at half of it.
const LONG_NS: f64 = 4_000.0;
/// The other way must be this much better to be adopted.
const BETTER: f64 = 0.98;
/// From this share of replayed units on, it is worth a thought how to avoid them.
const CONTENDED: f64 = 0.03;
/// The weight of the newest measurement.
const WEIGHT: f64 = 0.25;

/// A running average; `None` before the first value.
#[derive(Clone, Copy, Debug, Default)]
struct Average(Option<f64>);

impl Average {
    fn add(&mut self, value: f64) {
        self.0 = Some(self.0.map_or(value, |average| average + WEIGHT * (value - average)));
    }
}

/// Some runs in a row in a way that is not in use. The slowest one is left out of account: a thread that was not on its core
/// for a while says nothing about the work.
#[derive(Clone, Copy, Debug)]
struct Burst {
    way: Way,
    /// A short first run is not counted.
    warm: bool,
    /// Of the runs that count.
    runs: u32,
    counted_ns: f64,
    operations: f64,
    /// Time and operations of the slowest of them.
    slowest: (f64, f64),
}

impl Burst {
    fn begin(way: Way) -> Burst {
        let slowest = (0.0, 1.0);
        Burst { way, warm: false, runs: 0, counted_ns: 0.0, operations: 0.0, slowest }
    }

    fn add(&mut self, took_ns: f64, operations: f64) {
        if self.warm || took_ns >= BURST_NS {
            self.runs += 1;
            self.counted_ns += took_ns;
            self.operations += operations;
            if took_ns / operations > self.slowest.0 / self.slowest.1 {
                self.slowest = (took_ns, operations);
            }
        }
        self.warm = true;
    }

    /// Nanoseconds for an operation.
    fn cost(&self) -> f64 {
        (self.counted_ns - self.slowest.0) / (self.operations - self.slowest.1)
    }

    /// True if enough is known, or so much that it cannot become better than `in_use` nanoseconds for an operation.
    fn is_over(&self, in_use: f64) -> bool {
        let hopeless = || self.counted_ns >= EARLY * BURST_NS && self.cost() > HOPELESS * in_use;
        self.runs > 1 && (self.counted_ns >= BURST_NS || hopeless())
    }
}

/// What is known of one size class.
#[derive(Clone, Copy, Debug)]
struct Class {
    /// Time of an operation, on one thread.
    operation_ns: Average,
    /// Operations are long.
    long: bool,
    /// What a batch costs by way: time per operation, or, where they are long, the share of their time.
    cost: [Average; Way::ALL.len()],
    /// The share of units that had to be replayed, by way.
    replayed: [Average; Way::ALL.len()],
    in_use: Way,
    last_tried: Way,
    burst: Option<Burst>,
    until_burst_ns: f64,
    pause: f64,
    /// Batches until the next one that is timed, while they run sequentially.
    until_timed: u32,
}

impl Default for Class {
    fn default() -> Self {
        Class {
            operation_ns: Average::default(),
            long: false,
            cost: Default::default(),
            replayed: Default::default(),
            in_use: Way::Sequential,
            last_tried: Way::Sequential,
            burst: None,
            until_burst_ns: 0.0,
            pause: FIRST_PAUSE,
            until_timed: 0,
        }
    }
}

/// Decides for one executor.
#[derive(Debug)]
pub(crate) struct Governor {
    classes: [Class; 32],
    threads: usize,
    consent: Consent,
}

impl Governor {
    /// For an engine with this many threads.
    pub(crate) fn new(threads: usize, consent: Consent) -> Self {
        Governor { classes: [Class::default(); 32], threads, consent }
    }

    /// Takes all batches for contended, until measurements say otherwise.
    #[cfg(any(shuttle, feature = "internals"))]
    pub(crate) fn expect_contention(&mut self) {
        self.classes.iter_mut().for_each(|class| class.replayed[Way::OneMoment as usize].add(1.0));
    }

    /// How to run a batch of `len` operations.
    pub(crate) fn plan(&mut self, len: usize) -> Plan {
        let way = self.way(len);
        if way == Way::Sequential {
            let timed = self.times(len);
            return Plan { way, chunk: 1, again: false, timed, measured: false };
        }
        self.plan_by(way, len)
    }

    /// Whether to time a batch that runs sequentially. If not, it counts as one of average cost.
    fn times(&mut self, len: usize) -> bool {
        let class = &mut self.classes[size_class(len)];
        let Some(cost) = class.operation_ns.0.filter(|_| class.burst.is_none()) else {
            return true;
        };
        let expected = cost * len as f64;
        if expected >= SHORT_NS || class.until_timed == 0 {
            class.until_timed = SAMPLED;
            return true;
        }
        class.until_timed -= 1;
        class.until_burst_ns -= expected;
        false
    }

    /// How to run a batch of `len` operations in a given way.
    pub(crate) fn plan_by(&self, way: Way, len: usize) -> Plan {
        // With two threads there is nobody to spare.
        let again = self.threads > 2 && self.classes[size_class(len)].is_contended();
        let measured = self.classes[size_class(len)].long;
        Plan { way, chunk: self.chunk(way, len), again, timed: true, measured }
    }

    fn way(&mut self, len: usize) -> Way {
        if len < 2 || self.threads < 2 {
            return Way::Sequential;
        }
        let class = &mut self.classes[size_class(len)];
        let Some(per_operation) = class.operation_ns.0 else {
            return Way::Sequential;
        };
        if per_operation * (len as f64) < WORTH_SPREADING_NS {
            return Way::Sequential;
        }
        if class.burst.is_none() && class.until_burst_ns <= 0.0 {
            class.last_tried = class.next_to_try(self.consent);
            class.burst = Some(Burst::begin(class.last_tried));
        }
        class.burst.map_or(class.in_use, |burst| burst.way)
    }

    /// How many of `len` positions a thread should take at once.
    fn chunk(&self, way: Way, len: usize) -> usize {
        let class = &self.classes[size_class(len)];
        let per_operation = class.operation_ns.0.unwrap_or(CHUNK_NS).max(1.0);
        let calm = (1.0 - 4.0 * class.replayed[way as usize].0.unwrap_or(0.0)).max(0.0);
        let share = len.div_ceil(2 * self.threads);
        ((CHUNK_NS / per_operation * calm).round() as usize).min(MAX_CHUNK).min(share).max(1)
    }

    /// Takes in how a batch of `len` operations that ran in `way` went.
    pub(crate) fn record(&mut self, len: usize, way: Way, took: Duration, counts: Counts) {
        if len == 0 {
            return;
        }
        let class = &mut self.classes[size_class(len)];
        let took_ns = (took.as_nanos() as f64).min(class.longest(len));
        if counts.speculations > 0 {
            class.replayed[way as usize].add(counts.replays as f64 / counts.speculations as f64);
        }
        class.until_burst_ns -= took_ns;
        class.learn(len, way, took_ns, counts.worked.as_nanos() as f64);
        let Some(amount) = class.amount(len, way, took_ns, counts.worked.as_nanos() as f64) else {
            return;
        };
        let in_use = class.cost_in_use();
        match &mut class.burst {
            Some(burst) if burst.way == way => {
                burst.add(took_ns, amount);
                if burst.is_over(in_use) {
                    let burst = *burst;
                    class.end_burst(burst, self.consent);
                }
            }
            _ => class.cost[way as usize].add(took_ns / amount),
        }
    }
}

impl Class {
    /// How long a batch of `len` operations can have taken, in nanoseconds.
    fn longest(&self, len: usize) -> f64 {
        self.operation_ns.0.map_or(f64::INFINITY, |ns| SURPRISE * SHORT_NS.max(ns * len as f64))
    }

    /// Takes in what a run says about the operations themselves.
    fn learn(&mut self, len: usize, way: Way, took_ns: f64, worked_ns: f64) {
        let taken = if way == Way::Sequential { took_ns } else { worked_ns };
        if taken > 0.0 {
            // A batch may be slow because the thread was not on its core; the next ones tell.
            let most = self.operation_ns.0.map_or(f64::INFINITY, |ns| ns * MOST_RISE);
            self.operation_ns.add((taken / len as f64).min(most));
        }
        let bound = if self.long { LONG_NS / 2.0 } else { LONG_NS };
        let long = self.operation_ns.0.is_some_and(|ns| ns >= bound);
        if long != self.long {
            // Costs are in another measure from here on.
            (self.long, self.cost, self.burst) = (long, Default::default(), None);
            self.until_burst_ns = 0.0;
        }
    }

    /// What a run's time is divided by to compare it with others; `None` if it was not measured.
    fn amount(&self, len: usize, way: Way, took_ns: f64, worked_ns: f64) -> Option<f64> {
        match (self.long, way) {
            (false, _) => Some(len as f64),
            (true, Way::Sequential) => (took_ns > 0.0).then_some(took_ns),
            (true, _) => (worked_ns > 0.0).then_some(worked_ns),
        }
    }

    fn cost_in_use(&self) -> f64 {
        // Where operations are long, they take what they take if nothing is gained.
        let unknown = if self.long && self.in_use == Way::Sequential { 1.0 } else { f64::INFINITY };
        self.cost[self.in_use as usize].0.unwrap_or(unknown)
    }

    /// True if many units had to be replayed that ran on one moment.
    fn is_contended(&self) -> bool {
        self.replayed[Way::OneMoment as usize].0.is_some_and(|share| share >= CONTENDED)
    }

    /// Whether to try a way now and then.
    fn is_worth_a_try(&self, way: Way, consent: Consent) -> bool {
        let consented = match way {
            Way::Sequential | Way::OneMoment => true,
            Way::Forwarding => consent.forwarding && self.is_contended(),
            Way::ByHints => consent.hints && self.is_contended(),
        };
        consented && way != self.in_use
    }

    /// The way to try next, after the last one tried.
    fn next_to_try(&self, consent: Consent) -> Way {
        let mut others = Way::ALL.iter().cycle().skip(self.last_tried as usize + 1);
        *others.find(|&&way| self.is_worth_a_try(way, consent)).expect("of the first two, one is not in use")
    }

    /// Compares what a burst measured with the way in use.
    fn end_burst(&mut self, burst: Burst, consent: Consent) {
        self.burst = None;
        let cost = burst.cost();
        self.cost[burst.way as usize].0 = Some(cost);
        let in_use = self.cost_in_use();
        if cost < in_use * BETTER {
            self.in_use = burst.way;
            self.pause = FIRST_PAUSE;
        } else {
            self.pause = (self.pause * 2.0).min(LONGEST_PAUSE);
        }
        let untried = |&way: &Way| self.is_worth_a_try(way, consent) && self.cost[way as usize].0.is_none();
        // Each way gets its first burst at once.
        let pause = if Way::ALL.iter().any(untried) { 0.0 } else { self.pause };
        // Without what its slowest run took more than others.
        let typical_ns = cost * burst.operations;
        self.until_burst_ns = pause * typical_ns.max(BURST_NS);
    }
}

fn size_class(len: usize) -> usize {
    (usize::BITS - 1 - len.max(1).leading_zeros()).min(31) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a run tells of its units, if it is measured: that one after the other they take `ns` each.
    fn measured(plan: Plan, len: usize, ns: f64) -> Counts {
        let worked = if plan.measured { ns * len as f64 } else { 0.0 };
        Counts { worked: Duration::from_nanos(worked as u64), ..Counts::default() }
    }

    /// Runs batches of `len` through a governor whose two ways take the given times, and returns how much longer all
    /// took than the better way would have.
    fn excess(len: usize, batches: usize, sequential_ns: f64, speculative_ns: f64) -> f64 {
        let mut governor = Governor::new(2, Consent::default());
        let mut total = 0.0;
        for _ in 0..batches {
            let plan = governor.plan(len);
            let per_operation = if plan.way == Way::Sequential { sequential_ns } else { speculative_ns };
            let took = per_operation * len as f64;
            total += took;
            if plan.timed {
                let counts = measured(plan, len, sequential_ns);
                governor.record(len, plan.way, Duration::from_nanos(took as u64), counts);
            }
        }
        total / (batches as f64 * len as f64 * sequential_ns.min(speculative_ns))
    }

    #[test]
    fn it_settles_on_the_better_way_and_probing_costs_little() {
        for len in [16, 128, 1024, 8192] {
            for (sequential, speculative) in
                [(1000.0, 600.0), (1000.0, 1200.0), (300.0, 900.0), (9000.0, 5000.0)]
            {
                let batches = (1e9 / (len as f64 * sequential)).max(200.0) as usize;
                let excess = excess(len, batches, sequential, speculative);
                assert!(excess < 1.03, "{len} operations of {sequential} / {speculative} ns: {excess}");
            }
        }
    }

    #[test]
    fn it_recovers_when_the_load_changes() {
        let mut governor = Governor::new(2, Consent::default());
        let mut speculated = [0usize; 2];
        for batch in 0..4000 {
            let contended = batch < 2000;
            let plan = governor.plan(128);
            let speculative_ns = if contended { 1300.0 } else { 600.0 };
            let ns = if plan.way == Way::Sequential { 1000.0 } else { speculative_ns };
            speculated[usize::from(!contended)] += usize::from(plan.way != Way::Sequential);
            governor.record(128, plan.way, Duration::from_nanos((ns * 128.0) as u64), Counts::default());
        }
        assert!(speculated[0] < 100 && speculated[1] > 1000, "{speculated:?}");
    }

    #[test]
    fn a_clock_that_jumps_does_not_bind_it_for_long() {
        let mut governor = Governor::new(2, Consent::default());
        let (mut jumps, mut speculated) = ([true; 2], 0);
        for batch in 0..20_000 {
            let plan = governor.plan(128);
            let ahead = plan.way != Way::Sequential;
            let ns = match (ahead, batch < 2000) {
                (false, _) => 1000.0,
                (true, true) => 1200.0,
                (true, false) => 600.0,
            };
            speculated += usize::from(ahead);
            let took = Duration::from_nanos((ns * 128.0) as u64);
            // Once on each way, after the first measurement.
            let jump = batch > 0 && std::mem::take(&mut jumps[usize::from(ahead)]);
            let jump = if jump { Duration::from_secs(3600) } else { Duration::ZERO };
            governor.record(128, plan.way, took + jump, Counts::default());
        }
        assert!(jumps == [false; 2] && speculated > 10_000, "{jumps:?} {speculated}");
    }

    /// Runs 3000 batches whose ways take the given times, with this share of replays on one moment; returns how often each
    /// way was taken.
    fn ways(consent: Consent, ns: [f64; 4], replays: u64) -> [usize; 4] {
        let mut governor = Governor::new(2, consent);
        let mut taken = [0; 4];
        for _ in 0..3000 {
            let plan = governor.plan(128);
            let way = plan.way;
            taken[way as usize] += 1;
            let replays = if way == Way::OneMoment { replays } else { 0 };
            let counts = Counts { speculations: 100, replays, ..measured(plan, 128, ns[0]) };
            governor.record(128, way, Duration::from_nanos((ns[way as usize] * 128.0) as u64), counts);
        }
        taken
    }

    #[test]
    fn hints_and_forwarding_are_used_where_they_help_and_not_tried_where_nothing_collides() {
        let all = Consent { forwarding: true, hints: true };
        assert!(ways(all, [10_000.0, 8_000.0, 7_000.0, 6_000.0], 30)[3] > 2000);
        assert!(ways(all, [10_000.0, 8_000.0, 6_000.0, 7_000.0], 30)[2] > 2000);
        assert_eq!(ways(Consent::default(), [10_000.0, 8_000.0, 6_000.0, 6_000.0], 30)[2..], [0, 0]);
        assert_eq!(ways(all, [10_000.0, 6_000.0, 5_000.0, 5_000.0], 1)[2..], [0, 0]);
        let [sequential, _, forwarding, by_hints] = ways(all, [1_000.0, 1_200.0, 1_500.0, 1_500.0], 30);
        assert!(sequential > 2700 && forwarding > 0 && by_hints > 0, "{sequential} {forwarding} {by_hints}");
    }

    #[test]
    fn batches_of_different_work_are_compared_with_themselves() {
        let mut governor = Governor::new(2, Consent::default());
        let mut ahead = 0;
        for batch in 0..500 {
            // No two batches in a row are alike; ahead of turn each takes three quarters of its time.
            let ns = 5_000.0 + 7_000.0 * ((batch * 7) % 11) as f64;
            let plan = governor.plan(128);
            let share = if plan.way == Way::Sequential { 1.0 } else { 0.75 };
            ahead += usize::from(plan.way != Way::Sequential);
            let took = Duration::from_nanos((ns * share * 128.0) as u64);
            governor.record(128, plan.way, took, measured(plan, 128, ns));
        }
        assert!(ahead > 450, "{ahead}");
    }

    #[test]
    fn tiny_batches_and_single_threads_stay_sequential() {
        let mut governor = Governor::new(2, Consent::default());
        governor.record(16, Way::Sequential, Duration::from_nanos(800), Counts::default());
        assert_eq!(governor.plan(16).way, Way::Sequential);
        assert_eq!(governor.plan(1).way, Way::Sequential);
        let mut alone = Governor::new(1, Consent::default());
        alone.record(1000, Way::Sequential, Duration::from_millis(10), Counts::default());
        assert_eq!(alone.plan(1000).way, Way::Sequential);
    }

    #[test]
    fn chunks_shrink_with_cost_and_with_replays() {
        let mut governor = Governor::new(2, Consent::default());
        governor.record(1024, Way::Sequential, Duration::from_micros(1024), Counts::default());
        assert_eq!(governor.chunk(Way::OneMoment, 1024), 4);
        let replays = Counts { speculations: 100, replays: 30, ..Counts::default() };
        governor.record(1024, Way::OneMoment, Duration::from_micros(600), replays);
        assert_eq!(governor.chunk(Way::OneMoment, 1024), 1);
    }
}

//! Which way to run a batch: sequentially or ahead of turn, and how, judged by what was faster lately.
//!
//! Batches are judged by size class (powers of two), because what pays at 4096 operations may cost at 16. For each class
//! the governor keeps the time per operation of each way, uses the best one, and now and then tries another in a
//! short burst. The first runs of a burst do not count where they are short, because they pay for waking the workers and for
//! moving the state to the other caches; of a way's first burst, some more, in which the state's memory grows. Batches for
//! which the engine's own grows are passed over. A burst is measured in time,
//! not in operations, and has some runs at least; one that is clearly losing ends early. The pause until
//! the next burst is the longer the more was lost, and doubles while bursts lose, so that together they cost less than one
//! percent; only after a way's first loss, which may be chance, the next burst comes soon. So it does for a way that was
//! better than the one in use is now; among ways that look alike there often is one, so that leaves all others' turns alone.
//! Forwarding and hints cost something for each operation, so they are tried only where a noticeable share of units had to be
//! replayed without them. Where operations are short, one thread alone may be faster through units than in place: a commit fetches
//! many keys at once. And where the application gives hints, the loop itself may be: keys are asked for before operations are run.
//! Both are tried as well.
//!
//! What is compared is time per operation, as long as operations are short. Longer ones, and shorter ones where that shows, may
//! differ much from batch to batch, so that two batches say nothing about two ways. There, clock readings around each operation, or every few, do not matter,
//! and tell what the batch would have taken one after the other: what is compared is the share of that which it did take.
//! Of one operation after the other that share is one, so that way need not be tried to be judged. But operations may take longer ahead
//! of turn than one after the other, by more than the engine's part, which is known: by how much shows where now and then
//! some batches run that way (inflation.rs), at first a few times more than that percent allows if there is doubt.
//! Such batches differ also in what they gain, so that a handful of them says little. Therefore what batches of all sizes have shown counts in each class like some that it
//! had before its first own, and of two ways that look alike the one is preferred whose units are not stale.
//!
//! A batch that is one chain, by its hints, is run one operation after the other, whatever pays for others of its size
//! (`executor/speculative/chain.rs`).
//!
//! Joined batches and unordered requests have governors of their own (`executor/speculative/`). Of unordered requests, whole chunks are
//! measured.
//!
//! The choice changes no result, so every replica makes its own.

mod burst;
mod class;
mod cost;
mod inflation;
mod measuring;
mod sharing;
#[cfg(test)]
mod tests;
mod trials;

use std::time::Duration;

use self::class::Class;
use self::cost::Common;
use self::sharing::Sharing;
use super::ExecutorConfig;
use crate::app::ScalableApp;
use crate::metrics::Counter;
use crate::retire::Counts;
use crate::state::CRUDState;

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
    /// One operation after the other, but each through a unit: what the batch changed is written by one commit, which fetches many
    /// keys at once, where the loop waits for each.
    AtTurn,
    /// One operation after the other, in place, but the state is asked for the keys of some at once before they are run
    /// (`executor/speculative/prefetched.rs`).
    Prefetched,
}

impl Way {
    const ALL: [Way; 6] =
        [Way::Sequential, Way::OneMoment, Way::Forwarding, Way::ByHints, Way::AtTurn, Way::Prefetched];

    /// True if one thread runs one operation after the other.
    pub(crate) fn walks(self) -> bool {
        matches!(self, Way::Sequential | Way::AtTurn | Way::Prefetched)
    }

    /// What counts the batches that are run so.
    pub(crate) fn counter(self) -> Option<Counter> {
        match self {
            Way::Sequential | Way::AtTurn | Way::Prefetched => Some(Counter::sequential_batches),
            Way::OneMoment => None,
            Way::Forwarding => Some(Counter::forwarding_batches),
            Way::ByHints => Some(Counter::hinted_batches),
        }
    }
}

/// What the application and its state have to allow, and do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Consent {
    pub(crate) forwarding: bool,
    pub(crate) hints: bool,
    /// Operations that run one after the other change the state in place, so that there is a difference if they do not.
    pub(crate) in_place: bool,
    /// Before operations run one after the other, their keys can be looked up.
    pub(crate) prefetching: bool,
}

impl Consent {
    /// What `A` and `S` allow, unless it is switched off.
    pub(crate) fn of<A: ScalableApp<S>, S: CRUDState>(config: &ExecutorConfig) -> Self {
        let hints = A::HINTS && config.hints;
        Consent {
            forwarding: A::FORWARDING && config.forwarding,
            hints,
            in_place: S::IN_PLACE,
            prefetching: hints && S::IN_PLACE,
        }
    }

    /// What unordered requests allow: there is nothing to forward, no key that is not free, and nothing to commit.
    pub(crate) fn unordered(hints: bool) -> Self {
        Consent { prefetching: hints, ..Consent::default() }
    }
}

/// How to run one batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) way: Way,
    /// Positions that a thread takes at once.
    pub(crate) chunk: usize,
    /// The share of units that will probably be stale at their turn.
    pub(crate) stale: f32,
    /// See first whether the batch is one chain, by its hints.
    pub(crate) looks_for_chain: bool,
    /// Let idle threads run stale units again.
    pub(crate) again: bool,
    /// Let each thread retire what it has run.
    pub(crate) own: bool,
    /// Whether the governor wants to know how long it took.
    pub(crate) timed: bool,
    /// It wants to know how long each operation took whose position is a multiple of this; none if it is 0.
    pub(crate) measured: usize,
}

/// Decides for one executor.
#[derive(Debug)]
pub(crate) struct Governor {
    classes: [Class; 32],
    common: Common,
    threads: usize,
    /// Each thread retires what it has run, whatever is stale.
    always_own: bool,
}

impl Governor {
    /// For an engine with this many threads.
    pub(crate) fn new(threads: usize, consent: Consent) -> Self {
        let common = Common { consent, alone: threads < 2, ..Common::default() };
        Governor { classes: [Class::default(); 32], common, threads, always_own: false }
    }

    /// The same where others want cores, too, so that taking all of them has to gain much. It only decides about that.
    pub(crate) fn considerate(threads: usize, consent: Consent) -> Self {
        let mut governor = Governor::new(threads, Consent { in_place: false, prefetching: false, ..consent });
        governor.common.considerate = true;
        governor
    }

    /// Takes all batches for contended, until measurements say otherwise.
    #[cfg(any(test, shuttle, feature = "internals"))]
    pub(crate) fn expect_contention(&mut self) {
        self.classes.iter_mut().for_each(Class::expect_contention);
    }

    /// True if something is known of batches of `len` operations.
    #[cfg(test)]
    pub(crate) fn knows(&self, len: usize) -> bool {
        self.classes[size_class(len)].knows()
    }

    /// Lets each thread retire what it has run.
    #[cfg(any(test, shuttle, feature = "internals"))]
    pub(crate) fn always_retire_own(&mut self) {
        self.always_own = true;
    }

    /// True if a batch of `len` operations is to run sequentially, and nothing else about it matters.
    #[inline]
    pub(crate) fn passes(&mut self, len: usize) -> bool {
        let Consent { in_place, prefetching, .. } = self.common.consent;
        // One thread alone has nothing else to choose.
        (self.common.alone && !in_place && !prefetching) || self.classes[size_class(len)].passes(len)
    }

    /// How to run a batch of `len` operations.
    pub(crate) fn plan(&mut self, len: usize) -> Plan {
        let timed = !self.passes(len);
        let class = &mut self.classes[size_class(len)];
        let decided = len < 2 || !timed;
        let way = if decided { Way::Sequential } else { class.way(len, &self.common) };
        let (contended, compares) = (class.is_contended(&self.common), class.compares());
        let plan = self.plan_by(way, len);
        // Short operations, which are not measured, would notice the look.
        let looks_for_chain = contended && self.common.consent.hints && (plan.measured > 0 || compares);
        Plan { looks_for_chain, timed, ..plan }
    }

    /// How to run a batch of `len` operations in a given way.
    pub(crate) fn plan_by(&self, way: Way, len: usize) -> Plan {
        let class = &self.classes[size_class(len)];
        let Sharing { chunk, own } = class.sharing(way, len, self.threads, &self.common);
        Plan {
            way,
            chunk,
            stale: class.stale(way, &self.common) as f32,
            looks_for_chain: false,
            // With two threads there is nobody to spare.
            again: self.threads > 2 && class.is_contended(&self.common),
            own: own || self.always_own,
            timed: true,
            measured: if way.walks() { 0 } else { class.measured() },
        }
    }

    /// Takes in that a batch of `len` operations took so long, and not because of its way.
    pub(crate) fn pass_over(&mut self, len: usize, took: Duration) {
        self.classes[size_class(len)].pass_over(len, took);
    }

    /// Takes in how a batch of `len` operations that ran in `way` went.
    pub(crate) fn record(&mut self, len: usize, way: Way, took: Duration, counts: Counts) {
        if len > 0 {
            let class = &mut self.classes[size_class(len)];
            class.record(len, way, took, counts, &mut self.common);
        }
    }
}

fn size_class(len: usize) -> usize {
    (usize::BITS - 1 - len.max(1).leading_zeros()).min(31) as usize
}

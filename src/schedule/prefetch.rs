//! Prefetching: the keys of a chunk of operations are brought near before any of them is run.
//!
//! An operation whose key lies far away waits for memory, and a processor overlaps such waits only as far as it looks ahead:
//! an operation or two. Told of many keys at once, a state can ask for all of them before it waits for any
//! ([`CRUDState::prefetch`]). Where keys are near, that is in vain.
//!
//! So the engine asks now and then: each thread looks ahead in every other chunk, times all, and each pair of neighbours
//! casts a vote. A pair that was disturbed has one vote like any other. What two thirds say holds for a while.
//!
//! Where one thread runs all of them in place, it looks up the keys of all or of none; whether it does, the governor decides as about
//! any way (`executor/speculative/prefetched.rs`). Then the keys that operations write blindly are looked up, too.
//!
//! A chunk of ordered operations is claimed before its keys are looked up: until then, it is open to the walker, who would
//! come along meanwhile and run it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use smallvec::SmallVec;

use crate::app::{Hints, Request, ScalableApp};
use crate::batch::Update;
use crate::error::dispose;
use crate::state::{CRUDState, Whereabouts};
use crate::sync::Instant;

/// So many votes decide.
const VOTES: u32 = 30;
/// For so many operations.
const HELD: u64 = 1 << 16;
/// A chunk must take less than this share of the other's time: where keys are near, the look itself costs three or four percent.
const GAIN: f64 = 0.93;
/// A thread votes from its third chunk on.
const TO_VOTE: usize = 3;
/// In so many chunks it gets its share, at least.
const TO_SHARE: usize = 2;
/// In chunks of fewer operations there is little to overlap.
pub const LEAST: usize = 4;

/// What to do with the operations of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Run them.
    Leave,
    /// Look up their keys first.
    Prefetch,
    /// Every other chunk, and see what that gives.
    Try {
        /// Beginning with the first.
        first: bool,
    },
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Operations whose keys were looked up.
    pub operations: u64,
    /// Votes of pairs of chunks.
    yes: u32,
    no: u32,
    /// The application panicked when it was asked for its keys.
    panicked: bool,
}

impl Seen {
    /// Adds up.
    pub fn add(&mut self, other: Seen) {
        self.operations += other.operations;
        self.yes += other.yes;
        self.no += other.no;
        self.panicked |= other.panicked;
    }
}

/// Decides, for one kind of operations of one executor.
#[derive(Debug)]
pub struct Prefetching {
    allowed: bool,
    threads: usize,
    pays: bool,
    /// Operations that the decision still holds for.
    left: u64,
    seen: Seen,
    /// Whether the next batch that tries begins with a look. It takes turns: the first chunk of a batch is unlike the others, and in
    /// a short one there is but one pair.
    first: bool,
}

impl Prefetching {
    /// Nothing is known yet. Where it is not `allowed`, it will never be.
    pub fn new(allowed: bool, threads: usize) -> Self {
        Prefetching { allowed, threads, pays: false, left: 0, seen: Seen::default(), first: true }
    }

    /// How many operations a thread should take at once, of a batch of so many, if otherwise `chunk`: fewer if the threads are
    /// to vote and could not, or if one would get more than its share: whoever looks ahead claims all of a chunk.
    pub fn chunk(&self, operations: usize, chunk: usize) -> usize {
        let chunks = if self.left == 0 { TO_VOTE } else { TO_SHARE };
        let less = operations / (chunks * self.threads);
        if self.allowed && (self.left == 0 || self.pays) && less >= LEAST { chunk.min(less) } else { chunk }
    }

    /// What to do with a batch of so many operations, of which a thread takes `chunk` at once.
    pub fn plan(&mut self, operations: usize, chunk: usize) -> Plan {
        if !self.allowed || chunk < LEAST {
            return Plan::Leave;
        }
        if self.left == 0 {
            let votes = operations >= TO_VOTE * chunk * self.threads;
            if !votes {
                return Plan::Leave;
            }
            let first = self.first;
            self.first = !first;
            return Plan::Try { first };
        }
        self.left = self.left.saturating_sub(operations as u64);
        if self.pays { Plan::Prefetch } else { Plan::Leave }
    }

    /// For one thread that looks up all keys, if that is allowed.
    pub fn part(&self) -> Part {
        Part::new(if self.allowed { Plan::Prefetch } else { Plan::Leave })
    }

    /// Learns from a batch.
    pub fn count(&mut self, seen: Seen) {
        self.seen.add(seen);
        let Seen { yes, no, panicked, .. } = self.seen;
        if panicked && self.allowed {
            tracing::warn!(
                "hints or the state's whereabouts or prefetch panicked; keys are not looked up beforehand any more"
            );
            self.allowed = false;
        }
        if yes + no >= VOTES {
            let pays = yes >= 2 * no;
            (self.pays, self.left, self.seen) = (pays, HELD, Seen::default());
        }
    }
}

/// So many keys are brought near together, at most.
const TOGETHER: usize = 64;

/// What operations will probably look at.
struct Looked<'s, S> {
    state: &'s S,
    keys: SmallVec<[Whereabouts; TOGETHER]>,
    /// Blind writes look, too: they are done in place.
    in_place: bool,
}

impl<S: CRUDState> Looked<'_, S> {
    fn bring_near(&mut self) {
        if !self.keys.is_empty() {
            self.state.prefetch(&self.keys);
        }
        self.keys.clear();
    }
}

impl<S: CRUDState> Hints for Looked<'_, S> {
    #[inline]
    fn reads(&mut self, column: &str, key: &[u8]) {
        if self.keys.len() == TOGETHER {
            self.bring_near();
        }
        self.keys.extend(self.state.whereabouts(column, key));
    }

    #[inline]
    fn writes(&mut self, column: &str, key: &[u8]) {
        if self.in_place {
            self.reads(column, key);
        }
    }

    #[inline]
    fn merges(&mut self, column: &str, key: &[u8]) {
        if self.in_place {
            self.reads(column, key);
        }
    }

    fn weighs(&mut self, _weight: u64) {}
}

/// One thread's part of a batch, chunk by chunk.
#[derive(Debug)]
pub struct Part {
    plan: Plan,
    chunks: u32,
    began: Option<Instant>,
    /// What the first chunk of the pair at hand took.
    first: Option<Duration>,
    /// What came of it.
    pub seen: Seen,
}

impl Part {
    /// No chunk has begun.
    pub fn new(plan: Plan) -> Self {
        // See `next`.
        let chunks = if plan == (Plan::Try { first: false }) { 2 } else { 0 };
        Part { plan, chunks, began: None, first: None, seen: Seen::default() }
    }

    /// A chunk begins, and with it ends the one before; true if its keys are to be looked up.
    #[inline]
    pub fn begins(&mut self) -> bool {
        match self.plan {
            Plan::Leave => false,
            Plan::Prefetch => true,
            Plan::Try { .. } => {
                let took = self.began.map(|began| began.elapsed());
                self.began = Some(Instant::now());
                self.next(took)
            }
        }
    }

    /// Looks up the keys of some requests if that is this one's to do.
    pub fn look_if_due<A, S>(&mut self, app: &A, state: &S, some: &[Update<Request<A, S>>], in_place: bool)
    where
        A: ScalableApp<S>,
        S: CRUDState,
    {
        if self.begins() {
            self.look(app, state, some.iter(), in_place);
        }
    }

    /// Looks up the keys that a chunk will observe; those that it will write, too, if that is done `in_place`.
    pub fn look<'u, A, S>(
        &mut self,
        app: &A,
        state: &S,
        chunk: impl Iterator<Item = &'u Update<Request<A, S>>>,
        in_place: bool,
    ) where
        A: ScalableApp<S>,
        S: CRUDState,
        Request<A, S>: 'u,
    {
        let look = || {
            let mut looked = Looked { state, keys: SmallVec::new(), in_place };
            for update in chunk {
                app.hints(update.operation(), &mut looked);
                self.seen.operations += 1;
            }
            looked.bring_near();
        };
        // Unwind safety: nothing was changed; hints change no result, and neither does it that there are none.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(look)) {
            dispose(panic);
            self.plan = Plan::Leave;
            self.seen.panicked = true;
        }
    }

    /// A chunk begins, and the one before `took` so long; true if its keys are to be looked up. Which of a pair comes first
    /// takes turns.
    fn next(&mut self, took: Option<Duration>) -> bool {
        let looks = |chunk: u32| matches!(chunk % 4, 0 | 3);
        if let Some(took) = took {
            match self.first.take() {
                None => self.first = Some(took),
                Some(first) => {
                    let last_looked = looks(self.chunks - 1);
                    let (with, without) = if last_looked { (took, first) } else { (first, took) };
                    let yes = with < without.mul_f64(GAIN);
                    self.seen.yes += u32::from(yes);
                    self.seen.no += u32::from(!yes);
                }
            }
        }
        self.chunks += 1;
        looks(self.chunks - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The votes of a thread whose chunks take so many microseconds: with a look ahead, and without.
    fn votes(with: u64, without: u64, chunks: u32, first: bool) -> Seen {
        let mut part = Part::new(Plan::Try { first });
        let mut took = None;
        for _ in 0..chunks {
            let looks = part.next(took);
            took = Some(Duration::from_micros(if looks { with } else { without }));
        }
        part.seen
    }

    #[test]
    fn pairs_vote() {
        // The last chunk's end is not seen.
        let Seen { yes, no, .. } = votes(1, 2, 9, true);
        assert_eq!((yes, no), (4, 0));
        let Seen { yes, no, .. } = votes(2, 1, 10, false);
        assert_eq!((yes, no), (0, 4));
        let Seen { yes, no, .. } = votes(2, 1, 2, true);
        assert_eq!((yes, no), (0, 0));
    }

    #[test]
    fn in_short_batches_either_comes_first() {
        let looks = |first| {
            let mut part = Part::new(Plan::Try { first });
            [part.begins(), part.begins(), part.begins()]
        };
        assert_eq!(looks(true), [true, false, false]);
        assert_eq!(looks(false), [false, true, true]);
        for first in [true, false] {
            let Seen { yes, no, .. } = votes(1, 2, 3, first);
            assert_eq!((yes, no), (1, 0));
        }
    }

    #[test]
    fn what_two_thirds_say_holds_for_a_while() {
        for (with, without, expected) in [(1, 2, Plan::Prefetch), (2, 1, Plan::Leave)] {
            let mut prefetching = Prefetching::new(true, 2);
            for first in [true, false, true] {
                assert_eq!(prefetching.plan(100, 16), Plan::Try { first });
                prefetching.count(votes(with, without, 21, true));
            }
            let pays = expected == Plan::Prefetch;
            assert_eq!(prefetching.chunk(48, 16), if pays { 12 } else { 16 }, "nobody needs to vote");
            assert_eq!(prefetching.chunk(15, 8), 8, "too few to share");
            assert_eq!(prefetching.plan(HELD as usize - 1, 16), expected);
            assert_eq!(prefetching.plan(1, 16), expected);
            assert_eq!(prefetching.plan(95, 16), Plan::Leave, "too few to vote");
            assert_eq!(prefetching.plan(96, 16), Plan::Try { first: false });
            assert_eq!([95, 96, 48, 24, 23].map(|len| prefetching.chunk(len, 16)), [15, 16, 8, 4, 16]);
        }
        let mut prefetching = Prefetching::new(true, 2);
        prefetching.count(Seen { yes: 18, no: 12, ..Seen::default() });
        assert_eq!(prefetching.plan(1, 16), Plan::Leave, "that might be chance");
    }

    #[test]
    fn who_panics_is_not_asked_again() {
        let mut prefetching = Prefetching::new(true, 2);
        prefetching.count(Seen { panicked: true, ..Seen::default() });
        assert_eq!(prefetching.plan(1, 16), Plan::Leave);
        assert_eq!(Prefetching::new(false, 2).plan(1, 16), Plan::Leave);
    }
}

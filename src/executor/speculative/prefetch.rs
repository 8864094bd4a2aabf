//! Prefetching: the keys of a chunk of requests are looked up before any of the requests is answered.
//!
//! A request whose key lies far away waits for memory, and a processor overlaps such waits only as far as it looks ahead:
//! a request or two. Looked up one after the other with nothing in between, many keys are waited for at once (group
//! prefetching: Chen, Ailamaki, Gibbons, Mowry, ICDE 2004). Where keys are near, the look is in vain.
//!
//! So the engine asks now and then: each thread looks ahead in every other chunk, times all, and each pair of neighbours
//! casts a vote. A pair that was disturbed has one vote like any other. What two thirds say holds for a while.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::app::{Hints, Request, ScalableApp};
use crate::batch::Update;
use crate::state::CRUDState;
use crate::sync::Instant;

/// So many votes decide.
const VOTES: u32 = 30;
/// For so many requests.
const HELD: u64 = 1 << 16;

/// What to do with the requests of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Answer them.
    Leave,
    /// Look up their keys first.
    Prefetch,
    /// Every other chunk, and see what that gives.
    Try,
}

/// The votes of some pairs of chunks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Votes {
    yes: u32,
    no: u32,
    /// The application panicked when it was asked for its keys.
    panicked: bool,
}

impl Votes {
    /// Adds up.
    pub fn add(&mut self, other: Votes) {
        self.yes += other.yes;
        self.no += other.no;
        self.panicked |= other.panicked;
    }
}

/// Decides, for one executor.
#[derive(Debug)]
pub struct Prefetching {
    allowed: bool,
    pays: bool,
    /// Requests that the decision still holds for.
    left: u64,
    votes: Votes,
}

impl Prefetching {
    /// Nothing is known yet. Where it is not `allowed`, it will never be.
    pub fn new(allowed: bool) -> Self {
        Prefetching { allowed, pays: false, left: 0, votes: Votes::default() }
    }

    /// What to do with a batch of so many requests.
    pub fn plan(&mut self, requests: usize) -> Plan {
        if !self.allowed {
            return Plan::Leave;
        }
        if self.left == 0 {
            return Plan::Try;
        }
        self.left = self.left.saturating_sub(requests as u64);
        if self.pays { Plan::Prefetch } else { Plan::Leave }
    }

    /// Learns from a batch.
    pub fn count(&mut self, votes: Votes) {
        self.votes.add(votes);
        let Votes { yes, no, panicked } = self.votes;
        if panicked && self.allowed {
            tracing::warn!("hints panicked; they are not asked for again before unordered requests");
            self.allowed = false;
        }
        if yes + no >= VOTES {
            *self = Prefetching {
                allowed: self.allowed,
                pays: yes >= 2 * no,
                left: HELD,
                votes: Votes::default(),
            };
        }
    }
}

/// Brings near what a request will probably look at.
struct Near<'s, S>(&'s S);

impl<S: CRUDState> Hints for Near<'_, S> {
    #[inline]
    fn reads(&mut self, column: &str, key: &[u8]) {
        self.0.prefetch(column, key);
    }

    /// Unordered requests change nothing.
    fn writes(&mut self, _column: &str, _key: &[u8]) {}

    fn merges(&mut self, _column: &str, _key: &[u8]) {}

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
    /// What its pairs say.
    pub votes: Votes,
}

impl Part {
    /// No chunk has begun.
    pub fn new(plan: Plan) -> Self {
        Part { plan, chunks: 0, began: None, first: None, votes: Votes::default() }
    }

    /// A chunk begins, and with it ends the one before: look up its keys if that is the plan. Returns how many requests that
    /// were.
    pub fn begin<'u, A, S>(
        &mut self,
        app: &A,
        state: &S,
        chunk: impl Iterator<Item = &'u Update<Request<A, S>>>,
    ) -> u64
    where
        A: ScalableApp<S>,
        S: CRUDState,
        Request<A, S>: 'u,
    {
        let looks = match self.plan {
            Plan::Leave => false,
            Plan::Prefetch => true,
            Plan::Try => self.next(Instant::now()),
        };
        if !looks {
            return 0;
        }
        let mut requests = 0;
        let look = || {
            for update in chunk {
                app.hints(update.operation(), &mut Near(state));
                requests += 1;
            }
        };
        // Unwind safety: nothing was changed; hints change no result, and neither does it that there are none.
        if catch_unwind(AssertUnwindSafe(look)).is_err() {
            self.plan = Plan::Leave;
            self.votes.panicked = true;
        }
        requests
    }

    /// A chunk begins at `now`; true if its keys are to be looked up. Which of a pair comes first takes turns.
    fn next(&mut self, now: Instant) -> bool {
        let looks = |chunk: u32| matches!(chunk % 4, 0 | 3);
        if let Some(began) = self.began.replace(now) {
            let took = now.saturating_duration_since(began);
            match self.first.take() {
                None => self.first = Some(took),
                Some(first) => {
                    let last_looked = looks(self.chunks - 1);
                    let yes = if last_looked { took < first } else { first < took };
                    self.votes.yes += u32::from(yes);
                    self.votes.no += u32::from(!yes);
                }
            }
        }
        self.chunks += 1;
        looks(self.chunks - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Speculative;
    use super::*;
    use crate::app::{Application, ApplicationData};
    use crate::batch::{NodeId, SeqNo, UnorderedBatch};
    use crate::error::BoxError;
    use crate::executor::engine::Engine;
    use crate::executor::{ExecutionMode, ExecutorConfig};
    use crate::metrics::{Counters, Metrics};
    use crate::sync::{Arc, AtomicU64, Ordering};

    /// Every key's value is the key; counts the looks ahead.
    #[derive(Default)]
    struct Echo {
        looks: AtomicU64,
    }

    impl CRUDState for Echo {
        fn read(&self, _column: &str, key: &[u8]) -> Option<Vec<u8>> {
            Some(key.to_vec())
        }

        fn create(&mut self, _column: &str, _key: &[u8], _value: &[u8]) -> bool {
            false
        }

        fn update(&mut self, _column: &str, _key: &[u8], _value: &[u8]) -> Option<Vec<u8>> {
            None
        }

        fn delete(&mut self, _column: &str, _key: &[u8]) -> Option<Vec<u8>> {
            None
        }

        fn prefetch(&self, column: &str, key: &[u8]) {
            assert_eq!((column, key.len()), ("numbers", 4));
            self.looks.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Reads the key that is asked for, and names it beforehand, or panics.
    struct Reader<const PANICS: bool>;

    impl<const PANICS: bool> ApplicationData for Reader<PANICS> {
        type Request = u32;
        type Reply = Option<Vec<u8>>;
    }

    impl<const PANICS: bool> Application<Echo> for Reader<PANICS> {
        type AppData = Self;

        fn initial_state() -> Result<Echo, BoxError> {
            Ok(Echo::default())
        }

        fn unordered_execution(&self, state: &Echo, request: u32) -> Option<Vec<u8>> {
            state.read("numbers", &request.to_le_bytes())
        }

        fn update(&self, state: &mut Echo, request: u32) -> Option<Vec<u8>> {
            self.unordered_execution(state, request)
        }
    }

    impl<const PANICS: bool> ScalableApp<Echo> for Reader<PANICS> {
        const HINTS: bool = true;

        fn hints(&self, request: &u32, hints: &mut impl Hints) {
            assert!(!PANICS || request % 50 != 49);
            hints.weighs(3);
            hints.reads("numbers", &request.to_le_bytes());
            hints.writes("numbers", b"other");
            hints.merges("numbers", b"other");
        }

        fn speculatively_execute(&self, state: &mut impl CRUDState, request: u32) -> Option<Vec<u8>> {
            state.read("numbers", &request.to_le_bytes())
        }
    }

    /// Answers 40 batches of 500 requests; the counters, and how many keys the state was asked to bring near.
    fn answered<const PANICS: bool>(hints: bool) -> (Counters, u64) {
        let config = ExecutorConfig {
            threads: Some(2),
            mode: ExecutionMode::Speculate,
            pin: false,
            hints,
            ..ExecutorConfig::default()
        };
        let report = config.validate().expect("valid");
        let mut engine: Speculative<Reader<PANICS>, Echo> =
            Engine::new(&config, &report, Arc::new(Metrics::new())).expect("threads");
        let state = Echo::default();
        for _ in 0..40 {
            let requests =
                (0..500).map(|id| Update::new(NodeId(1), SeqNo(1), SeqNo(id), id as u32)).collect();
            let batch = UnorderedBatch::from_requests(requests);
            let replies = engine.execute_unordered(&Reader::<PANICS>, &state, batch).expect("no failure");
            for (id, reply) in replies.replies().iter().enumerate() {
                assert_eq!(reply.payload().as_deref(), Some(&(id as u32).to_le_bytes()[..]));
            }
        }
        (engine.metrics.counters(), state.looks.load(Ordering::Relaxed))
    }

    #[test]
    fn keys_are_brought_near_where_hints_are_given() {
        let (counters, looks) = answered::<false>(true);
        assert!(looks > 0, "it was never tried");
        assert_eq!(counters.prefetched, looks, "of each request the key that is read, and nothing else");
        let (counters, looks) = answered::<false>(false);
        assert_eq!((counters.prefetched, looks), (0, 0), "hints are not wanted");
    }

    #[test]
    fn hints_that_panic_are_given_up() {
        let (_, looks) = answered::<true>(true);
        // A thread that has met a panic looks at nothing more, and neither does the next batch.
        assert!(looks < 500, "{looks} looks");
    }

    /// The votes of a thread whose chunks take so many microseconds: with a look ahead, and without.
    fn votes(with: u64, without: u64, chunks: u32) -> Votes {
        let mut part = Part::new(Plan::Try);
        let mut now = Instant::now();
        for _ in 0..chunks {
            let looks = part.next(now);
            now += Duration::from_micros(if looks { with } else { without });
        }
        part.votes
    }

    #[test]
    fn pairs_vote() {
        // The last chunk's end is not seen.
        let Votes { yes, no, .. } = votes(1, 2, 9);
        assert_eq!((yes, no), (4, 0));
        let Votes { yes, no, .. } = votes(2, 1, 10);
        assert_eq!((yes, no), (0, 4));
        let Votes { yes, no, .. } = votes(2, 1, 2);
        assert_eq!((yes, no), (0, 0));
    }

    #[test]
    fn what_two_thirds_say_holds_for_a_while() {
        for (with, without, expected) in [(1, 2, Plan::Prefetch), (2, 1, Plan::Leave)] {
            let mut prefetching = Prefetching::new(true);
            for _ in 0..3 {
                assert_eq!(prefetching.plan(100), Plan::Try);
                prefetching.count(votes(with, without, 21));
            }
            assert_eq!(prefetching.plan(HELD as usize - 1), expected);
            assert_eq!(prefetching.plan(1), expected);
            assert_eq!(prefetching.plan(1), Plan::Try);
        }
        let mut prefetching = Prefetching::new(true);
        prefetching.count(Votes { yes: 18, no: 12, panicked: false });
        assert_eq!(prefetching.plan(1), Plan::Leave, "that might be chance");
    }

    #[test]
    fn who_panics_is_not_asked_again() {
        let mut prefetching = Prefetching::new(true);
        prefetching.count(Votes { panicked: true, ..Votes::default() });
        assert_eq!(prefetching.plan(1), Plan::Leave);
        assert_eq!(Prefetching::new(false).plan(1), Plan::Leave);
    }
}

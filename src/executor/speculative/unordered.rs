//! Unordered requests: in place, perhaps with a look ahead at their keys (prefetched.rs), or on all threads.
//!
//! A governor of its own learns by a batch's length what all threads gain. To it, ahead of turn means on all threads: nothing is
//! ever stale.

use std::time::Duration;

use super::{Consent, Governor, Plan, Speculative, Way};
use crate::app::{Reply, Request, ScalableApp, answer};
use crate::batch::UnorderedBatch;
use crate::error::{Failure, caught};
use crate::executor::ExecutionMode;
use crate::executor::sequential::answer_in_place;
use crate::metrics::Counter;
use crate::raw::exchange::Exchange;
use crate::raw::stopwatch::{Measured, Scale, Stopwatch};
use crate::reply::BatchReplies;
use crate::retire::Counts;
use crate::schedule::prefetch::{LEAST, Part, Plan as Looks, Prefetching, Seen};
use crate::state::CRUDState;
use crate::sync::{Instant, Mutex};

/// Of short requests, a thread takes so many at once: what one takes in place, where it waits for memory, says little about what it
/// takes where its key was brought near with others. In small batches it takes fewer, but not so few that nothing is brought near.
const SHORT: usize = 16;

/// What an engine knows of unordered requests.
pub(super) struct Unordered {
    pub(super) governor: Governor,
    pub(super) prefetching: Prefetching,
}

impl Unordered {
    /// Nothing yet. Keys are looked up beforehand only where `hints` are given.
    pub(super) fn new(threads: usize, hints: bool) -> Self {
        let governor = Governor::new(threads, Consent::unordered(hints));
        Unordered { governor, prefetching: Prefetching::new(hints, threads) }
    }
}

/// What one thread's chunks take, with the looks beforehand.
#[derive(Default)]
struct Clock {
    worked: Measured,
    /// The chunk at hand: how many requests, and since when.
    chunk: Option<(usize, Stopwatch)>,
}

impl Clock {
    /// A chunk of so many requests begins, and with it ends the one before.
    fn begins(&mut self, requests: usize) {
        self.stop();
        self.chunk = Some((requests, Stopwatch::start()));
    }

    /// What all chunks took so far; the last one ends.
    fn stop(&mut self) -> Measured {
        let last = self.chunk.take().map(|(requests, since)| Measured::of(requests, since.ticks()));
        self.worked = self.worked.and(last.unwrap_or_default());
        self.worked
    }
}

impl<A, S> Speculative<A, S>
where
    A: ScalableApp<S>,
    S: CRUDState + Sync + 'static,
{
    /// Answers unordered requests as is planned for them, in their order.
    pub(super) fn answer(
        &mut self,
        app: &A,
        state: &S,
        batch: UnorderedBatch<Request<A, S>>,
    ) -> Result<BatchReplies<Reply<A, S>>, Failure> {
        let len = batch.len();
        let decided = len < 2 || self.mode == ExecutionMode::Sequential;
        if decided || self.unordered.governor.passes(len) {
            return answer_in_place(app, state, batch);
        }
        let plan = Self::planned_by(self.mode, Consent::default(), &mut self.unordered.governor, len);
        let start = Instant::now();
        let (replies, worked) = match plan.way {
            Way::Sequential => (answer_in_place(app, state, batch)?, Duration::ZERO),
            Way::Prefetched => (self.answer_prefetched(app, state, batch)?, Duration::ZERO),
            _ => self.answer_in_parallel(app, state, batch, plan)?,
        };
        let counts = Counts { worked, ..Counts::default() };
        self.unordered.governor.record(len, plan.way, start.elapsed(), counts);
        Ok(replies)
    }

    /// Answers them on all threads; with the time that they took together, if the plan is to measure it.
    fn answer_in_parallel(
        &mut self,
        app: &A,
        state: &S,
        batch: UnorderedBatch<Request<A, S>>,
        Plan { chunk, measured, .. }: Plan,
    ) -> Result<(BatchReplies<Reply<A, S>>, Duration), Failure> {
        let (len, prefetching) = (batch.len(), &mut self.unordered.prefetching);
        let least = if self.consent.hints { LEAST } else { 1 };
        let chunk = if measured > 0 { chunk } else { SHORT.min(len.div_ceil(2 * self.threads)).max(least) };
        let chunk = self.chunk.unwrap_or_else(|| prefetching.chunk(len, chunk)).min(len);
        let looks = prefetching.plan(len, chunk);
        let exchange = Exchange::new(batch.into_requests(), chunk);
        let sum = Mutex::new((Seen::default(), Measured::default()));
        let scale = (measured > 0).then(Scale::begin);
        let work = |_| {
            let (mut part, mut clock) = (Part::new(looks), Clock::default());
            exchange.work(
                |chunk| {
                    if measured > 0 {
                        clock.begins(chunk.iter().len());
                    }
                    if part.begins() {
                        part.look::<A, S>(app, state, chunk.iter(), false);
                    }
                },
                |request| answer(request, |request| app.unordered_execution(state, request)),
            );
            let worked = clock.stop();
            if looks != Looks::Leave || measured > 0 {
                let mut sum = sum.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                sum.0.add(part.seen);
                sum.1 = sum.1.and(worked);
            }
        };
        self.pool
            .run(std::iter::empty(), &work)
            .map_err(|panic| Failure::UnorderedPanicked { message: caught(panic) })?;
        let (seen, worked) = sum.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        let worked = scale.map_or(Duration::ZERO, |scale| scale.time_of(worked, len, self.threads));
        self.unordered.prefetching.count(seen);
        self.metrics.add_alone(Counter::prefetched, seen.operations);
        self.metrics.add_alone(Counter::unordered_in_parallel, len as u64);
        let replies = exchange.finish().expect("without a panic, every request was answered");
        Ok((replies.into(), worked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{Application, ApplicationData, Hints};
    use crate::batch::{NodeId, SeqNo, Update, UpdateBatch};
    use crate::error::BoxError;
    use crate::executor::engine::Engine;
    use crate::executor::{ExecutionMode, ExecutorConfig};
    use crate::metrics::{Counters, Metrics};
    use crate::state::Whereabouts;
    use crate::sync::{Arc, AtomicU64, Ordering, yield_now};

    /// Every key's value is the key; counts the looks ahead, and panics when there are too many.
    struct Echo {
        looks: AtomicU64,
        most: u64,
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

        fn whereabouts(&self, column: &str, key: &[u8]) -> Option<Whereabouts> {
            assert_eq!((column, key.len()), ("numbers", 4));
            assert!(self.most > 0, "the state panics");
            Some(Whereabouts([0, 1]))
        }

        fn prefetch(&self, keys: &[Whereabouts]) {
            for key in keys {
                assert_eq!(key.0, [0, 1]);
                let looks = self.looks.fetch_add(1, Ordering::Relaxed) + 1;
                assert!(looks < self.most, "the state panics");
            }
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
            Err("begun by the test".into())
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

    /// Answers 40 batches of 500 requests, or executes them; the counters, and how many keys the state was asked to bring near.
    fn run<const PANICS: bool>(hints: bool, ordered: bool, most: u64) -> (Counters, u64) {
        let config = ExecutorConfig {
            threads: Some(2),
            mode: ExecutionMode::Speculate,
            pin: false,
            hints,
            chunk: Some(16),
            ..ExecutorConfig::default()
        };
        let report = config.validate().expect("valid");
        let mut engine: Speculative<Reader<PANICS>, Echo> =
            Engine::new(&config, &report, Arc::new(Metrics::new())).expect("threads");
        let mut state = Echo { looks: AtomicU64::new(0), most };
        for seq in 1..=40 {
            let requests = (0..500).map(|id| Update::new(NodeId(1), SeqNo(1), SeqNo(id), id as u32));
            let replies = if ordered {
                let batch = UpdateBatch::from_updates(SeqNo(seq), requests.collect());
                engine.execute(&Reader::<PANICS>, &mut state, batch, &mut |_| {}).expect("no failure")
            } else {
                let batch = UnorderedBatch::from_requests(requests.collect());
                engine.execute_unordered(&Reader::<PANICS>, &state, batch).expect("no failure")
            };
            for (id, reply) in replies.replies().iter().enumerate() {
                assert_eq!(reply.payload().as_deref(), Some(&(id as u32).to_le_bytes()[..]));
            }
        }
        (engine.metrics.counters(), state.looks.load(Ordering::Relaxed))
    }

    /// Two requests that wait for each other.
    struct Meeting(AtomicU64);

    impl ApplicationData for Meeting {
        type Request = ();
        type Reply = u64;
    }

    impl Application<Echo> for Meeting {
        type AppData = Self;

        fn initial_state() -> Result<Echo, BoxError> {
            Err("begun by the test".into())
        }

        fn unordered_execution(&self, _: &Echo, (): ()) -> u64 {
            self.0.fetch_add(1, Ordering::AcqRel);
            let start = Instant::now();
            while self.0.load(Ordering::Acquire) < 2 && start.elapsed().as_secs() < 20 {
                yield_now();
            }
            self.0.load(Ordering::Acquire)
        }

        fn update(&self, state: &mut Echo, (): ()) -> u64 {
            self.unordered_execution(state, ())
        }
    }

    impl ScalableApp<Echo> for Meeting {
        fn speculatively_execute(&self, _: &mut impl CRUDState, (): ()) -> u64 {
            0
        }
    }

    #[test]
    fn few_long_requests_are_shared_out() {
        let config = ExecutorConfig {
            threads: Some(2),
            mode: ExecutionMode::Speculate,
            pin: false,
            ..ExecutorConfig::default()
        };
        let report = config.validate().expect("valid");
        let mut engine: Speculative<Meeting, Echo> =
            Engine::new(&config, &report, Arc::new(Metrics::new())).expect("threads");
        let state = Echo { looks: AtomicU64::new(0), most: 0 };
        let requests = (0..2).map(|id| Update::new(NodeId(1), SeqNo(1), SeqNo(id), ()));
        let batch = UnorderedBatch::from_requests(requests.collect());
        let replies =
            engine.execute_unordered(&Meeting(AtomicU64::new(0)), &state, batch).expect("no failure");
        assert_eq!(replies.replies().iter().map(|reply| *reply.payload()).collect::<Vec<_>>(), [2, 2]);
    }

    #[test]
    fn all_threads_are_tried_where_that_is_not_forced() {
        let config = ExecutorConfig { threads: Some(2), pin: false, ..ExecutorConfig::default() };
        let report = config.validate().expect("valid");
        let mut engine: Speculative<Reader<false>, Echo> =
            Engine::new(&config, &report, Arc::new(Metrics::new())).expect("threads");
        let state = Echo { looks: AtomicU64::new(0), most: u64::MAX };
        let in_parallel = [0; 10].map(|_: u64| {
            let requests = (0..5000).map(|id| Update::new(NodeId(1), SeqNo(1), SeqNo(id), id as u32));
            let batch = UnorderedBatch::from_requests(requests.collect());
            engine.execute_unordered(&Reader::<false>, &state, batch).expect("no failure");
            assert!(engine.unordered.governor.knows(5000) && !engine.governor.knows(5000));
            engine.metrics.counters().unordered_in_parallel
        });
        assert_eq!(in_parallel[0], 0, "nothing is known yet");
        assert!(in_parallel[9] >= 5000, "{in_parallel:?}");
    }

    #[test]
    fn what_chunks_take_is_added_up() {
        let mut clock = Clock::default();
        assert_eq!(clock.stop(), Measured::default());
        clock.begins(7);
        clock.begins(5);
        let worked = clock.stop();
        assert!(format!("{worked:?}").contains("operations: 12"), "{worked:?}");
        assert_eq!(clock.stop(), worked, "nothing runs any more");
    }

    #[test]
    fn keys_are_brought_near_where_hints_are_given() {
        for ordered in [false, true] {
            let (counters, looks) = run::<false>(true, ordered, u64::MAX);
            assert!(looks > 0, "it was never tried");
            assert_eq!(
                counters.prefetched, looks,
                "of each operation the key that is read, and nothing else"
            );
            assert_eq!(counters.unordered_in_parallel, if ordered { 0 } else { 40 * 500 });
            let (counters, looks) = run::<false>(false, ordered, u64::MAX);
            assert_eq!((counters.prefetched, looks), (0, 0), "hints are not wanted");
        }
    }

    #[test]
    fn looks_that_panic_are_given_up() {
        for ordered in [false, true] {
            // A thread that has met a panic looks at nothing more, and neither does the next batch.
            let (_, looks) = run::<true>(true, ordered, u64::MAX);
            assert!(looks < 500, "{looks} looks at what was hinted");
            let (_, looks) = run::<false>(true, ordered, 3);
            assert!((3..500).contains(&looks), "{looks} looks at the state");
            let (_, looks) = run::<false>(true, ordered, 0);
            assert_eq!(looks, 0, "it cannot tell where its keys are");
        }
    }
}

//! The loop, with a look ahead: the keys of some requests are asked for at once before they are executed in place.
//!
//! What a request takes that looks at a key or two in a large state is mostly waiting for memory. One thread that asks for many
//! keys before it waits for any takes much less, and needs no units for that. How much, perf/results/README.md says; how a state
//! is asked, schedule/prefetch.rs.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Speculative;
use crate::app::{Reply, Request, ScalableApp, answer};
use crate::batch::{UnorderedBatch, Update, UpdateBatch};
use crate::error::{Failure, Text, caught, dispose};
use crate::metrics::Counter;
use crate::reply::{BatchReplies, UpdateReply};
use crate::retire::Counts;
use crate::state::CRUDState;

/// So many requests are looked at together.
const SOME: usize = 32;

impl<A, S> Speculative<A, S>
where
    A: ScalableApp<S>,
    S: CRUDState + Sync + 'static,
{
    /// Runs an ordered batch one operation after the other, directly on the state.
    ///
    /// # Errors
    ///
    /// The application panicked. The state may then hold a part of the batch.
    #[inline(never)]
    pub(super) fn update_prefetched(
        &mut self,
        app: &A,
        state: &mut S,
        batch: UpdateBatch<Request<A, S>>,
    ) -> Result<BatchReplies<Reply<A, S>>, Failure> {
        let seq = batch.sequence_number();
        let mut part = self.prefetching.part();
        let look = |state: &S, some: &[_]| part.look_if_due(app, state, some, true);
        let update = |state: &mut S, request| app.update(state, request);
        // After a panic the executor fails, and nobody looks at the state again.
        let replies = some_at_a_time(state, batch.into_updates(), look, update).map_err(
            |Stopped { position, message }| Failure::OperationPanicked {
                batch: seq,
                position: Some(position),
                message,
                poisoned: true,
            },
        )?;
        self.count(Counts::default(), part.seen);
        Ok(replies.into())
    }

    /// Answers unordered requests one after the other.
    ///
    /// # Errors
    ///
    /// The application panicked.
    #[inline(never)]
    pub(super) fn answer_prefetched(
        &mut self,
        app: &A,
        mut state: &S,
        batch: UnorderedBatch<Request<A, S>>,
    ) -> Result<BatchReplies<Reply<A, S>>, Failure> {
        let mut part = self.unordered.prefetching.part();
        // What "changes" is where the state is, and that does not.
        let look = |state: &&S, some: &[_]| part.look_if_due(app, *state, some, false);
        let answer = |state: &mut &S, request| app.unordered_execution(state, request);
        let replies = some_at_a_time(&mut state, batch.into_requests(), look, answer)
            .map_err(|Stopped { message, .. }| Failure::UnorderedPanicked { message })?;
        self.unordered.prefetching.count(part.seen);
        self.metrics.add_alone(Counter::prefetched, part.seen.operations);
        Ok(replies.into())
    }
}

/// A request panicked.
struct Stopped {
    position: usize,
    message: Text,
}

/// Executes one request after the other, but looks at some of them before it executes these.
fn some_at_a_time<S, O, R>(
    state: &mut S,
    requests: Vec<Update<O>>,
    mut look: impl FnMut(&S, &[Update<O>]),
    mut execute: impl FnMut(&mut S, O) -> R,
) -> Result<Vec<UpdateReply<R>>, Stopped> {
    let mut replies = Vec::with_capacity(requests.len());
    let mut requests = requests.into_iter();
    let run = || {
        while !requests.as_slice().is_empty() {
            let rest = requests.as_slice();
            look(state, &rest[..rest.len().min(SOME)]);
            for request in requests.by_ref().take(SOME) {
                replies.push(answer(request, |request| execute(state, request)));
            }
        }
    };
    // Unwind safety: what the caller says about the state; of all else only the number of replies is looked at.
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        // Requests whose destructors panic must not hide the cause. Unwind safety: they are gone.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(requests))) {
            dispose(panic);
        }
        Stopped { position: replies.len(), message: caught(panic) }
    })?;
    Ok(replies)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{Application, ApplicationData, Hints};
    use crate::batch::{NodeId, SeqNo, UpdateBatch};
    use crate::error::BoxError;
    use crate::executor::ExecutorConfig;
    use crate::executor::engine::Engine;
    use crate::metrics::Metrics;
    use crate::state::Whereabouts;
    use crate::sync::{Arc, Mutex};

    #[derive(Debug, PartialEq, Eq)]
    enum Event {
        /// The state was asked for keys.
        Asked(Vec<u64>),
        /// The operation with this number was run.
        Ran(u64),
    }

    /// Holds nothing and remembers what happened.
    #[derive(Default)]
    struct Log(Mutex<Vec<Event>>);

    impl Log {
        fn happened(&self, event: Event) {
            self.0.lock().expect("no panic").push(event);
        }

        fn take(&self) -> Vec<Event> {
            std::mem::take(&mut self.0.lock().expect("no panic"))
        }
    }

    impl CRUDState for Log {
        fn read(&self, _column: &str, _key: &[u8]) -> Option<Vec<u8>> {
            None
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
            assert_eq!(column, "numbers");
            key.first().map(|&key| Whereabouts([0, u64::from(key)]))
        }

        fn prefetch(&self, keys: &[Whereabouts]) {
            self.happened(Event::Asked(keys.iter().map(|&Whereabouts([_, key])| key).collect()));
        }
    }

    const PANICKING: u64 = 1_000;
    const UNHINTED: u64 = 2_000;

    struct Counting;

    impl ApplicationData for Counting {
        type Request = u64;
        type Reply = u64;
    }

    impl Application<Log> for Counting {
        type AppData = Self;

        fn initial_state() -> Result<Log, BoxError> {
            Ok(Log::default())
        }

        fn unordered_execution(&self, state: &Log, request: u64) -> u64 {
            assert!(request != PANICKING, "a request panics");
            state.happened(Event::Ran(request));
            request + 1
        }

        fn update(&self, state: &mut Log, request: u64) -> u64 {
            self.unordered_execution(state, request)
        }
    }

    impl ScalableApp<Log> for Counting {
        const HINTS: bool = true;

        /// Each third number is read, written, merged into.
        fn hints(&self, request: &u64, hints: &mut impl Hints) {
            assert!(*request != UNHINTED, "the hints panic");
            let key = [*request as u8];
            match request % 3 {
                0 => hints.reads("numbers", &key),
                1 => hints.writes("numbers", &key),
                _ => hints.merges("numbers", &key),
            }
            // A key of which the state does not know where it is.
            hints.reads("numbers", &[]);
        }

        fn speculatively_execute(&self, _: &mut impl CRUDState, request: u64) -> u64 {
            request + 1
        }
    }

    fn engine() -> Speculative<Counting, Log> {
        let config = ExecutorConfig { threads: Some(1), pin: false, ..ExecutorConfig::default() };
        let report = config.validate().expect("valid");
        Engine::new(&config, &report, Arc::new(Metrics::new())).expect("no threads")
    }

    fn batch(requests: impl Iterator<Item = u64>) -> UpdateBatch<u64> {
        let mut batch = UpdateBatch::new(SeqNo(5));
        requests.for_each(|request| batch.add(NodeId(1), SeqNo(1), SeqNo(request), request));
        batch
    }

    #[test]
    fn keys_are_asked_for_some_operations_at_a_time_before_these_run() {
        let (mut engine, mut state, together) = (engine(), Log::default(), SOME as u64);
        let len = 2 * together + 3;
        let replies = engine.update_prefetched(&Counting, &mut state, batch(0..len)).expect("no failure");
        for (request, reply) in (0..len).zip(replies.replies()) {
            assert_eq!((reply.operation_id(), *reply.payload()), (SeqNo(request), request + 1));
        }
        assert_eq!(replies.len() as u64, len);
        let mut expected = Vec::new();
        for some in [0..together, together..2 * together, 2 * together..len] {
            expected.push(Event::Asked(some.clone().collect()));
            expected.extend(some.map(Event::Ran));
        }
        assert_eq!(state.take(), expected);
        assert_eq!(engine.metrics.get(Counter::prefetched), len);
    }

    #[test]
    fn who_panics_when_asked_for_hints_is_not_asked_again() {
        let (mut engine, mut state) = (engine(), Log::default());
        let requests = || (0..10).chain([UNHINTED]).chain(10..200);
        for asked in [10, 10, 10] {
            let replies =
                engine.update_prefetched(&Counting, &mut state, batch(requests())).expect("no failure");
            assert!(replies.replies().iter().map(|reply| *reply.payload()).eq(requests().map(|n| n + 1)));
            assert!(state.take().into_iter().eq(requests().map(Event::Ran)), "nothing is asked for");
            assert_eq!(engine.metrics.get(Counter::prefetched), asked);
        }
    }

    #[test]
    fn a_panicking_operation_leaves_its_position_and_a_part_of_the_batch() {
        let (mut engine, mut state) = (engine(), Log::default());
        let requests = (0..40).chain([PANICKING]).chain(41..60);
        let failure = engine.update_prefetched(&Counting, &mut state, batch(requests)).expect_err("a panic");
        let Failure::OperationPanicked { batch, position, message, poisoned } = failure else {
            panic!("{failure:?}");
        };
        assert_eq!((batch, position, poisoned), (SeqNo(5), Some(40), true));
        assert!(message.to_string().contains("a request panics"), "{message}");
        assert!(state.take().contains(&Event::Ran(39)));
    }

    #[test]
    fn keys_that_unordered_requests_read_are_asked_for() {
        let (mut engine, state, together) = (engine(), Log::default(), SOME as u64);
        let len = together + 3;
        let requests = || UnorderedBatch::from_requests(batch(0..len).into_updates());
        let replies = engine.answer_prefetched(&Counting, &state, requests()).expect("no failure");
        assert!(replies.replies().iter().map(|reply| *reply.payload()).eq(1..=len));
        let mut expected = Vec::new();
        for some in [0..together, together..len] {
            expected.push(Event::Asked(some.clone().filter(|n| n % 3 == 0).collect()));
            expected.extend(some.map(Event::Ran));
        }
        assert_eq!(state.take(), expected);
        assert_eq!(engine.metrics.get(Counter::prefetched), len);
    }

    #[test]
    fn a_panicking_unordered_request_is_the_cause() {
        let (mut engine, state) = (engine(), Log::default());
        let requests = UnorderedBatch::from_requests(batch([1, PANICKING, 2].into_iter()).into_updates());
        let failure = engine.answer_prefetched(&Counting, &state, requests).expect_err("a panic");
        let Failure::UnorderedPanicked { message } = failure else { panic!("{failure:?}") };
        assert!(message.to_string().contains("a request panics"), "{message}");
    }
}

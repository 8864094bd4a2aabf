//! Unordered requests on all threads.

use super::Speculative;
use crate::app::{Reply, Request, ScalableApp, answer};
use crate::batch::UnorderedBatch;
use crate::error::{Failure, caught};
use crate::metrics::Counter;
use crate::raw::exchange::Exchange;
use crate::reply::BatchReplies;
use crate::schedule::prefetch::{Part, Plan, Seen};
use crate::state::CRUDState;
use crate::sync::Mutex;

/// Unordered requests that a thread takes at once.
const CHUNK: usize = 16;

impl<A, S> Speculative<A, S>
where
    A: ScalableApp<S>,
    S: CRUDState + Sync + 'static,
{
    /// Answers unordered requests, in their order.
    pub(super) fn answer_in_parallel(
        &mut self,
        app: &A,
        state: &S,
        batch: UnorderedBatch<Request<A, S>>,
    ) -> Result<BatchReplies<Reply<A, S>>, Failure> {
        let plan = self.unordered_prefetching.plan(batch.len(), CHUNK);
        let exchange = Exchange::new(batch.into_requests(), CHUNK);
        let seen = Mutex::new(Seen::default());
        let work = |_| {
            let mut part = Part::new(plan);
            exchange.work(
                |chunk| {
                    if part.begins() {
                        part.look::<A, S>(app, state, chunk.iter());
                    }
                },
                |request| answer(request, |request| app.unordered_execution(state, request)),
            );
            if plan != Plan::Leave {
                seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).add(part.seen);
            }
        };
        self.pool
            .run(std::iter::empty(), &work)
            .map_err(|panic| Failure::UnorderedPanicked { message: caught(panic) })?;
        let seen = seen.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        self.unordered_prefetching.count(seen);
        self.metrics.add_alone(Counter::prefetched, seen.operations);
        let replies = exchange.finish().expect("without a panic, every request was answered");
        Ok(replies.into())
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
    use crate::sync::{Arc, AtomicU64, Ordering};

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

    #[test]
    fn keys_are_brought_near_where_hints_are_given() {
        for ordered in [false, true] {
            let (counters, looks) = run::<false>(true, ordered, u64::MAX);
            assert!(looks > 0, "it was never tried");
            assert_eq!(
                counters.prefetched, looks,
                "of each operation the key that is read, and nothing else"
            );
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

//! How a batch is executed: one axis of the four executors.

use std::time::Duration;

use super::config::{ConfigReport, ExecutorConfig};
use crate::app::{Application, Reply, Request};
use crate::batch::{UnorderedBatch, UpdateBatch};
use crate::error::{ConfigError, Failure, InitError};
use crate::metrics::Metrics;
use crate::reply::BatchReplies;
use crate::schedule::Aside;
use crate::sync::Arc;

/// How much is joined at most: batches that are answered together, and executed together where that pays.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limit {
    /// Operations; 0 if nothing is.
    pub operations: usize,
    /// The time that executing them should take, in which the first batch waits for the last.
    pub time: Option<Duration>,
}

/// How long the first batch should wait for the last, and where each commit may take long.
const WAIT: Duration = Duration::from_micros(500);
const WAIT_FOR_COMMIT: Duration = Duration::from_millis(50);

impl Limit {
    /// So many operations on a state in memory.
    pub fn in_memory(operations: usize) -> Self {
        Limit { operations, time: Some(WAIT) }
    }

    /// So many operations on a state that takes its time to commit.
    pub fn durable(operations: usize) -> Self {
        Limit { operations, time: Some(WAIT_FOR_COMMIT) }
    }
}

/// Why batches were not executed together.
pub enum Unjoined {
    /// Nothing has been done, and no operation is lost: they are to be executed one by one.
    Apart,
    /// The executor has to end.
    Failed(Failure),
}

/// Executes batches on a state. Implemented by [`Sequential`](super::sequential::Sequential) and
/// [`Speculative`](super::speculative::Speculative).
///
/// A failure ends the executor: no method is called after one. Batches that come `Apart` have not failed.
pub trait Engine<A: Application<S>, S>: Send + Sized + 'static {
    /// Refuses what such an engine cannot work with, though the configuration is valid.
    fn check(_config: &ExecutorConfig) -> Result<(), ConfigError> {
        Ok(())
    }

    /// An engine for a valid configuration that was checked. Spawns the threads that it needs besides the executor's.
    fn new(config: &ExecutorConfig, report: &ConfigReport, metrics: Arc<Metrics>) -> Result<Self, InitError>;

    /// Called once, on the executor's thread, before anything is executed.
    fn enter(&mut self) {}

    /// Executes an ordered batch: state and replies equal those of the loop over `Application::update`.
    ///
    /// `aside` may be called now and then on the executor's thread, with the state before the batch, for what can be done
    /// beside it. If it unwinds, the batch is not committed, and the result is an error.
    fn execute(
        &mut self,
        app: &A,
        state: &mut S,
        batch: UpdateBatch<Request<A, S>>,
        aside: Aside<'_, S>,
    ) -> Result<BatchReplies<Reply<A, S>>, Failure>;

    /// How much to join.
    fn limit(&self) -> Limit;

    /// Whether to execute several batches, of so many operations, together now.
    fn joins(&mut self, _operations: usize) -> bool {
        false
    }

    /// Executes several batches as one, which keeps its operations.
    fn execute_joined(
        &mut self,
        _app: &A,
        _state: &mut S,
        _batch: &UpdateBatch<Request<A, S>>,
        _batches: u64,
        _aside: Aside<'_, S>,
    ) -> Result<BatchReplies<Reply<A, S>>, Unjoined> {
        Err(Unjoined::Apart)
    }

    /// Takes in that batches which it did not want together took so long one by one.
    fn executed_apart(&mut self, _operations: usize, _took: Duration) {}

    /// Answers read-only requests in their order.
    fn execute_unordered(
        &mut self,
        app: &A,
        state: &S,
        batch: UnorderedBatch<Request<A, S>>,
    ) -> Result<BatchReplies<Reply<A, S>>, Failure>;
}

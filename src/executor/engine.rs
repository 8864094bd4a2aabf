//! How a batch is executed: one axis of the four executors.

use super::config::{ConfigReport, ExecutorConfig};
use crate::app::{Application, Reply, Request};
use crate::batch::{UnorderedBatch, UpdateBatch};
use crate::error::{ConfigError, Failure, InitError};
use crate::metrics::Metrics;
use crate::reply::BatchReplies;
use crate::schedule::Aside;
use crate::sync::Arc;

/// Executes batches on a state. Implemented by [`Sequential`](super::sequential::Sequential) and
/// [`Speculative`](super::speculative::Speculative).
///
/// A failure ends the executor: no method is called after one.
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

    /// Answers read-only requests in their order.
    fn execute_unordered(
        &mut self,
        app: &A,
        state: &S,
        batch: UnorderedBatch<Request<A, S>>,
    ) -> Result<BatchReplies<Reply<A, S>>, Failure>;
}

//! The consensus engine's end of an executor.

use std::convert::Infallible;
use std::time::Instant;

use super::channel::{ChannelSyncRx, ChannelSyncTx, ExecutorEnd, Life, channel};
use super::message::ExecutionRequest;
use super::seam::Sender;
use crate::batch::{MaybeVec, NodeId, SeqNo, UnorderedBatch, UpdateBatch};
use crate::error::{Failure, QueueError, Text};
use crate::metrics::Metrics;
use crate::sync::Arc;

/// Feeds an executor. Clones feed the same one; when the last is dropped, it finishes what is queued and stops.
///
/// Every method that queues waits while the queue is full; its `try_` variant hands the request back instead. After a
/// failure both return the cause.
#[derive(Debug)]
pub struct ExecutorHandle<O> {
    work: ChannelSyncTx<ExecutionRequest<O>>,
    /// Tells the executor that a handle is left, also while it cannot look to the end of its queue.
    alive: Sender<Infallible>,
}

impl<O> Clone for ExecutorHandle<O> {
    fn clone(&self) -> Self {
        ExecutorHandle { work: self.work.clone(), alive: self.alive.clone() }
    }
}

/// A queueing method and its `try_` variant, which differ in nothing but the wait.
macro_rules! queueing {
    ($(#[$doc:meta])* $name:ident, $try_name:ident, $argument:ident: $type:ty, $request:expr, $back:pat => $returned:expr) => {
        $(#[$doc])*
        ///
        /// # Errors
        ///
        /// The executor has failed or stopped. What was to be queued comes back.
        pub fn $name(&self, $argument: $type) -> Result<(), QueueError<$type>> {
            self.work.send($request).map_err(|error| error.map(|request| match request {
                $back => $returned,
                _ => unreachable!("the channel hands back what was sent"),
            }))
        }

        /// The same without waiting.
        ///
        /// # Errors
        ///
        /// The queue is full, or the executor has failed or stopped. What was to be queued comes back.
        pub fn $try_name(&self, $argument: $type) -> Result<(), QueueError<$type>> {
            self.work.try_send($request).map_err(|error| error.map(|request| match request {
                $back => $returned,
                _ => unreachable!("the channel hands back what was sent"),
            }))
        }
    };
}

impl<O> ExecutorHandle<O> {
    /// A handle, and the end of the queue that the executor takes its work from.
    pub(crate) fn new(capacity: usize) -> (Self, ChannelSyncRx<ExecutionRequest<O>>) {
        let (life, alive) = Life::new();
        let (work, receiver) = channel(capacity, &life);
        (ExecutorHandle { work, alive }, receiver)
    }

    queueing! {
        /// Queues decided batches that this replica missed. They are executed, but nobody is answered.
        catch_up_to_quorum, try_catch_up_to_quorum, batches: MaybeVec<UpdateBatch<O>>,
        ExecutionRequest::CatchUp(batches), ExecutionRequest::CatchUp(batches) => batches
    }

    queueing! {
        /// Queues a batch.
        queue_update, try_queue_update, batch: UpdateBatch<O>,
        ExecutionRequest::Update((batch, Instant::now())), ExecutionRequest::Update((batch, _)) => batch
    }

    queueing! {
        /// Queues a batch after which a checkpoint is to be delivered.
        queue_update_and_get_appstate, try_queue_update_and_get_appstate, batch: UpdateBatch<O>,
        ExecutionRequest::UpdateAndGetAppstate((batch, Instant::now())),
        ExecutionRequest::UpdateAndGetAppstate((batch, _)) => batch
    }

    queueing! {
        /// Queues read-only requests. They see the state before or after a batch, never inside one. Requests that are
        /// queued behind a batch may be answered before it, on the state before it: wait for its replies to see it.
        queue_update_unordered, try_queue_update_unordered, requests: UnorderedBatch<O>,
        ExecutionRequest::ExecuteUnordered(requests), ExecutionRequest::ExecuteUnordered(requests) => requests
    }

    queueing! {
        /// Asks for the state as of the last batch executed before this request, for node `node`.
        read_state, try_read_state, node: NodeId,
        ExecutionRequest::Read(node), ExecutionRequest::Read(node) => node
    }

    /// Tells the executor that a state to install is on its way through the state channel.
    ///
    /// # Errors
    ///
    /// The executor has failed or stopped.
    pub fn poll_state_channel(&self) -> Result<(), QueueError> {
        self.work.send(ExecutionRequest::PollStateChannel).map_err(|error| error.map(drop))
    }

    /// The same without waiting.
    ///
    /// # Errors
    ///
    /// The queue is full, or the executor has failed or stopped.
    pub fn try_poll_state_channel(&self) -> Result<(), QueueError> {
        self.work.try_send(ExecutionRequest::PollStateChannel).map_err(|error| error.map(drop))
    }

    /// The executor's counters and histograms; readable at any time, also after the end.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.work.life.metrics)
    }

    /// The last batch that was executed or installed.
    pub fn last_executed(&self) -> SeqNo {
        self.work.life.last_executed()
    }

    /// The cause, if the executor has failed.
    pub fn failure(&self) -> Option<Failure> {
        self.work.life.failure()
    }

    /// Why the last state offered for installation was refused; `None` if it was not.
    pub fn install_error(&self) -> Option<Text> {
        self.work.life.install_error()
    }

    /// Drops this handle and waits until the executor has ended, which it does when all other handles are gone too,
    /// or when it fails.
    ///
    /// All replies have been sent then, and every checkpoint was delivered or counted as dropped. Returns at once if
    /// the executor was never started.
    ///
    /// # Errors
    ///
    /// The cause, if it failed.
    pub fn join(self) -> Result<ExecutorEnd, Failure> {
        let life = Arc::clone(&self.work.life);
        drop(self);
        life.wait()
    }
}

impl<T> QueueError<T> {
    /// The same error with what comes back changed by `f`.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> QueueError<U> {
        match self {
            QueueError::Full(request) => QueueError::Full(f(request)),
            QueueError::Failed { cause, request } => QueueError::Failed { cause, request: f(request) },
            QueueError::Stopped(request) => QueueError::Stopped(f(request)),
        }
    }

    /// What could not be queued.
    pub fn into_request(self) -> T {
        match self {
            QueueError::Full(request) | QueueError::Stopped(request) | QueueError::Failed { request, .. } => {
                request
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::app::{Application, ApplicationData};
    use crate::error::BoxError;
    use crate::executor::{ExecutorConfig, SingleThreadedMonExecutor, TMonolithicStateExecutor};
    use crate::metrics::EXECUTION_LATENCY_ID;
    use crate::reply::{ReplicaReplier, ReplyNode, RequestType, UpdateReply};
    use crate::state::ShardedState;

    struct Echo;

    impl ApplicationData for Echo {
        type Request = u64;
        type Reply = u64;
    }

    impl Application<ShardedState> for Echo {
        type AppData = Echo;

        fn initial_state() -> Result<ShardedState, BoxError> {
            Ok(ShardedState::new())
        }

        fn unordered_execution(&self, _: &ShardedState, request: u64) -> u64 {
            request
        }

        fn update(&self, _: &mut ShardedState, request: u64) -> u64 {
            request
        }
    }

    impl ReplyNode<u64> for Echo {
        fn send(&self, _: RequestType, _: UpdateReply<u64>, _: bool) -> Result<(), BoxError> {
            Ok(())
        }
    }

    /// Beyond the longest latency that is kept apart, and ahead of the executor's own clock.
    #[test]
    fn a_decision_in_the_future_or_long_ago_is_a_latency_like_any() {
        type Executor = SingleThreadedMonExecutor<Echo, ShardedState, Echo>;
        let (handle, work) = Executor::init_handle();
        let config = ExecutorConfig::default();
        let _channels =
            Executor::init_with::<ReplicaReplier>(config, work, None, Echo, Arc::new(Echo)).expect("threads");
        let (now, hours) = (Instant::now(), Duration::from_secs(2 * 3600));
        // A clock that began later than that cannot tell such a past.
        let moments = [now.checked_add(hours), Some(now), now.checked_sub(hours)];
        for (seq, decided) in (1..).map(SeqNo).zip(moments) {
            let mut batch = UpdateBatch::new(seq);
            batch.add(NodeId(1), SeqNo(1), seq, 7);
            handle.work.send(ExecutionRequest::Update((batch, decided.unwrap_or(now)))).expect("alive");
        }
        let metrics = handle.metrics();
        assert_eq!(handle.join().expect("a good end").last_executed, SeqNo(3));
        let latency = metrics.histogram(EXECUTION_LATENCY_ID).expect("a histogram");
        assert_eq!((latency.len(), latency.min()), (3, 0));
        assert!(
            latency.max() <= latency.highest_equivalent(3_600_000_000),
            "at most an hour: {}",
            latency.max()
        );
    }
}

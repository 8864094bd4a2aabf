//! The four executors behind one face.

use std::fmt;
use std::sync::Arc;

use atlas_smr_execution::batch::{MaybeVec, NodeId, UnorderedBatch, UpdateBatch};
use atlas_smr_execution::error::{InitError, QueueError, StateError};
use atlas_smr_execution::executor::{
    AppState, AppStateMessage, ChannelSyncRx, ChannelSyncTx, ExecutorConfig, ExecutorHandle, InstallState,
    InstallStateMessage, MultiThreadedDivExecutor, MultiThreadedMonExecutor, SingleThreadedDivExecutor,
    SingleThreadedMonExecutor, TDivisibleStateExecutor, TMonolithicStateExecutor,
};
use atlas_smr_execution::reply::{ExecutorReplier, FollowerReplier, ReplicaReplier};
use atlas_smr_execution::state::{DivisibleState, ShardedState};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::kind::ExecutorKind;
use super::reached;
use super::replies::{Collector, Replies};
use crate::session::{Operation, Service, Sessions};
use crate::snapshot::Snapshot;

/// States in and out of the executor.
#[derive(Clone, Debug)]
pub(super) enum Channels {
    Monolithic(
        ChannelSyncTx<InstallStateMessage<ShardedState>>,
        ChannelSyncRx<AppStateMessage<ShardedState>>,
    ),
    Divisible(
        ChannelSyncTx<InstallStateMessage<InstallState<ShardedState>>>,
        ChannelSyncRx<AppStateMessage<AppState<ShardedState>>>,
    ),
}

/// A running executor. Clones are the same one; it ends when the last is dropped.
pub(crate) struct Executor<A: Service> {
    handle: ExecutorHandle<Operation<A>>,
    channels: Channels,
    replies: Replies,
    answers: bool,
    /// Of reads that are not answered.
    places: Arc<Semaphore>,
    /// Whoever holds it may read the checkpoint channel.
    pub(super) checkpoints: Arc<tokio::sync::Mutex<Tickets>>,
}

/// Numbers of those who asked for the state.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    last: u32,
}

impl Tickets {
    pub(super) fn next(&mut self) -> NodeId {
        self.last = self.last.wrapping_add(1);
        NodeId(self.last)
    }
}

impl<A: Service> Clone for Executor<A> {
    fn clone(&self) -> Self {
        Executor {
            handle: self.handle.clone(),
            channels: self.channels.clone(),
            replies: self.replies.clone(),
            answers: self.answers,
            places: Arc::clone(&self.places),
            checkpoints: Arc::clone(&self.checkpoints),
        }
    }
}

impl<A: Service> fmt::Debug for Executor<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor")
            .field("last_executed", &self.handle.last_executed())
            .finish_non_exhaustive()
    }
}

/// What an executor begins with.
pub(crate) struct Load {
    state: ShardedState,
}

/// Why an executor could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The state is not that of the snapshot.
    #[error("{0}")]
    State(StateError),
    /// The application has no initial state.
    #[error("the application has no initial state: {0}")]
    Initial(atlas_smr_execution::error::BoxError),
    /// The engine refused.
    #[error("{0}")]
    Init(#[from] InitError),
}

impl Load {
    /// The state of a replica that has executed nothing.
    pub(crate) fn initial<A: Service>() -> Result<Load, StartError> {
        Ok(Load { state: A::initial_state().map_err(StartError::Initial)? })
    }

    /// The state of a snapshot, every part checked. Blocks on the disk.
    pub(crate) fn of<A: Service>(snapshot: &Snapshot) -> Result<Load, StartError> {
        let mut load = Self::initial::<A>()?;
        let parts: Result<Vec<_>, _> = snapshot.read_parts().collect();
        let parts = parts.map_err(|error| StartError::State(StateError::Io(error)))?;
        load.state.install(snapshot.descriptor(), parts).map_err(StartError::State)?;
        Ok(load)
    }

    pub(super) fn into_state(self) -> ShardedState {
        self.state
    }
}

/// Starts the executor that one of the engine's types names.
macro_rules! start {
    ($executor:ident, $interface:ident, $channels:ident, $replier:ty, $given:expr) => {{
        type Kind<A> = $executor<Sessions<A>, ShardedState, Collector>;
        let (config, load, app, node) = $given;
        let (handle, work) =
            <Kind<A> as $interface<_, _, _>>::init_handle_with(&config).map_err(InitError::Config)?;
        let initial = Some((load.into_state(), Vec::new()));
        let channels =
            <Kind<A> as $interface<_, _, _>>::init_with::<$replier>(config, work, initial, app, node)?;
        (handle, Channels::$channels(channels.0, channels.1))
    }};
}

impl<A: Service> Executor<A> {
    /// Starts an executor on the state in `load`, which stands for `snapshot`.
    pub(crate) fn start(
        kind: ExecutorKind,
        learner: bool,
        mut config: ExecutorConfig,
        (load, snapshot): (Load, Option<&Snapshot>),
        app: A,
    ) -> Result<Self, StartError> {
        config.initial_seq = snapshot.map(|snapshot| reached(snapshot.meta().last_log_id));
        if learner {
            Self::start_as::<FollowerReplier>(kind, false, config, load, app)
        } else {
            Self::start_as::<ReplicaReplier>(kind, true, config, load, app)
        }
    }

    fn start_as<R: ExecutorReplier>(
        kind: ExecutorKind,
        answers: bool,
        config: ExecutorConfig,
        load: Load,
        app: A,
    ) -> Result<Self, StartError> {
        let replies = Replies::default();
        let places = Arc::new(Semaphore::new((config.executing_buffer / 2).max(1)));
        let given = (config, load, Sessions::new(app), Arc::new(Collector::new(&replies)));
        let (handle, channels) = match kind {
            ExecutorKind::SingleMonolithic => {
                start!(SingleThreadedMonExecutor, TMonolithicStateExecutor, Monolithic, R, given)
            }
            ExecutorKind::MultiMonolithic => {
                start!(MultiThreadedMonExecutor, TMonolithicStateExecutor, Monolithic, R, given)
            }
            ExecutorKind::SingleDivisible => {
                start!(SingleThreadedDivExecutor, TDivisibleStateExecutor, Divisible, R, given)
            }
            ExecutorKind::MultiDivisible => {
                start!(MultiThreadedDivExecutor, TDivisibleStateExecutor, Divisible, R, given)
            }
        };
        Ok(Executor { handle, channels, replies, answers, places, checkpoints: Arc::default() })
    }

    pub(super) fn handle(&self) -> &ExecutorHandle<Operation<A>> {
        &self.handle
    }

    pub(super) fn into_handle(self) -> ExecutorHandle<Operation<A>> {
        self.handle
    }

    pub(super) fn channels(&self) -> &Channels {
        &self.channels
    }

    pub(super) fn replies(&self) -> &Replies {
        &self.replies
    }

    /// True if ordered requests are answered here.
    pub(super) fn answers(&self) -> bool {
        self.answers
    }

    /// Why the executor does nothing any more, for people.
    pub(super) fn cause(&self) -> String {
        match self.handle.failure() {
            Some(failure) => format!("the executor has failed: {failure}"),
            None => "the executor has stopped".to_owned(),
        }
    }

    /// Queues something: at once if there is room, else on a thread that may wait.
    async fn queue<T: Send + 'static>(
        &self,
        tried: Result<(), QueueError<T>>,
        wait: impl FnOnce(&ExecutorHandle<Operation<A>>, T) -> Result<(), QueueError<T>> + Send + 'static,
    ) -> Result<(), String> {
        let request = match tried {
            Ok(()) => return Ok(()),
            Err(QueueError::Full(request)) => request,
            Err(error) => return Err(error.to_string()),
        };
        let handle = self.handle.clone();
        let queued =
            tokio::task::spawn_blocking(move || wait(&handle, request).map_err(|error| error.to_string()));
        queued.await.unwrap_or_else(|error| Err(error.to_string()))
    }

    pub(super) async fn update(&self, batch: UpdateBatch<Operation<A>>) -> Result<(), String> {
        self.queue(self.handle.try_queue_update(batch), ExecutorHandle::queue_update).await
    }

    pub(super) async fn catch_up(&self, batches: MaybeVec<UpdateBatch<Operation<A>>>) -> Result<(), String> {
        self.queue(self.handle.try_catch_up_to_quorum(batches), ExecutorHandle::catch_up_to_quorum).await
    }

    /// A place for a read: there are about half as many as in the queue. A read has it until it is answered, so that those which
    /// nobody waits for any more, and the threads that wait for room in the queue, are no more than these.
    pub(super) async fn place(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.places).acquire_owned().await.expect("nobody closes it")
    }

    pub(super) async fn unordered(&self, requests: UnorderedBatch<Operation<A>>) -> Result<(), String> {
        let tried = self.handle.try_queue_update_unordered(requests);
        self.queue(tried, ExecutorHandle::queue_update_unordered).await
    }

    pub(super) async fn read_state(&self, ticket: NodeId) -> Result<(), String> {
        self.queue(self.handle.try_read_state(ticket), ExecutorHandle::read_state).await
    }
}

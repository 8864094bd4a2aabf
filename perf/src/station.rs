//! An executor with its channels, driven from outside, one batch at a time.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use atlas_smr_execution::batch::{NodeId, UpdateBatch};
use atlas_smr_execution::error::BoxError;
use atlas_smr_execution::executor::{
    AppStateMessage, ChannelSyncRx, ChannelSyncTx, ExecutorConfig, ExecutorHandle, InstallStateMessage,
    MultiThreadedMonExecutor, SingleThreadedMonExecutor, TMonolithicStateExecutor,
};
use atlas_smr_execution::reply::{ReplicaReplier, ReplyNode, RequestType, UpdateReply};
use atlas_smr_execution::state::ShardedState;
use workloads::{Logic, ReplyDigest, Service};

use crate::error::PerfError;

/// How often a wait looks whether the executor still lives.
const GLANCE: Duration = Duration::from_millis(20);

/// The network of one client: notes when the last reply of a batch comes.
struct Node {
    /// Replies that the current batch still lacks.
    lacking: AtomicUsize,
    digest: AtomicU64,
    /// The client, and when its batch was complete.
    client: OnceLock<Thread>,
    complete: Mutex<Option<Instant>>,
}

impl ReplyNode<u64> for Node {
    fn send(&self, _: RequestType, reply: UpdateReply<u64>, _: bool) -> Result<(), BoxError> {
        // Relaxed: only the reply thread writes it; it is read after the lock below was taken.
        let mut digest = ReplyDigest::from_value(self.digest.load(Ordering::Relaxed));
        digest.push(reply.into_payload());
        self.digest.store(digest.value(), Ordering::Relaxed);
        // AcqRel: the client's store of the number happened before the batch was queued.
        if self.lacking.fetch_sub(1, Ordering::AcqRel) == 1 {
            *self.complete.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            if let Some(client) = self.client.get() {
                client.unpark();
            }
        }
        Ok(())
    }
}

/// A running executor.
pub struct Station<L: Logic> {
    handle: ExecutorHandle<L::Request>,
    node: Arc<Node>,
    _install: ChannelSyncTx<InstallStateMessage<ShardedState>>,
    /// Where checkpoints come out.
    pub checkpoints: ChannelSyncRx<AppStateMessage<ShardedState>>,
}

impl<L: Logic> Station<L> {
    /// The multi-threaded executor.
    pub fn multi(logic: L, state: ShardedState, config: ExecutorConfig) -> Result<Self, PerfError> {
        Self::start::<MultiThreadedMonExecutor<_, _, _>>(logic, state, config)
    }

    /// The single-threaded executor.
    pub fn single(logic: L, state: ShardedState, config: ExecutorConfig) -> Result<Self, PerfError> {
        Self::start::<SingleThreadedMonExecutor<_, _, _>>(logic, state, config)
    }

    fn start<E>(logic: L, state: ShardedState, config: ExecutorConfig) -> Result<Self, PerfError>
    where
        E: TMonolithicStateExecutor<Service<L>, ShardedState, Node>,
    {
        let node = Arc::new(Node {
            lacking: AtomicUsize::new(0),
            digest: AtomicU64::new(ReplyDigest::new().value()),
            client: OnceLock::new(),
            complete: Mutex::new(None),
        });
        let (handle, work) = E::init_handle_with(&config)?;
        let initial = Some((state, Vec::new()));
        let (install, checkpoints) =
            E::init_with::<ReplicaReplier>(config, work, initial, Service(logic), Arc::clone(&node))?;
        Ok(Station { handle, node, _install: install, checkpoints })
    }

    /// Executes one batch, and returns the time from queueing it to its last reply. Call it always on one thread.
    /// With `checkpoint`, the executor is to deliver its state after it.
    pub fn run(&self, batch: UpdateBatch<L::Request>, checkpoint: bool) -> Result<Duration, PerfError> {
        self.timed(batch.len(), || {
            if checkpoint {
                self.handle.queue_update_and_get_appstate(batch).is_ok()
            } else {
                self.handle.queue_update(batch).is_ok()
            }
        })
    }

    /// Queues `batches` as fast as that can be done, and returns the time from the first one to the last reply. Call it always
    /// on one thread.
    pub fn flood(&self, batches: Vec<UpdateBatch<L::Request>>) -> Result<Duration, PerfError> {
        self.timed(batches.iter().map(UpdateBatch::len).sum(), || {
            batches.into_iter().all(|batch| self.handle.queue_update(batch).is_ok())
        })
    }

    /// The time from before `queue`, which queues so many operations and says if it could, to their last reply.
    fn timed(&self, operations: usize, queue: impl FnOnce() -> bool) -> Result<Duration, PerfError> {
        self.node.client.get_or_init(std::thread::current);
        if operations == 0 {
            return Ok(Duration::ZERO);
        }
        self.node.lacking.store(operations, Ordering::Release);
        let start = Instant::now();
        let queued = queue();
        while queued && self.handle.failure().is_none() {
            let mut complete = self.node.complete.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(end) = complete.take() {
                return Ok(end - start);
            }
            drop(complete);
            std::thread::park_timeout(GLANCE);
        }
        Err(self.cause())
    }

    /// Digest of all replies so far.
    pub fn replies(&self) -> ReplyDigest {
        ReplyDigest::from_value(self.node.digest.load(Ordering::Relaxed))
    }

    /// Asks for the state as it is now; it comes out where checkpoints do.
    pub fn ask(&self) -> Result<(), PerfError> {
        self.handle.read_state(NodeId(0)).map_err(|_| self.cause())
    }

    /// The state as it is now, and the end of the executor. No checkpoint may be on its way.
    pub fn finish(self) -> Result<ShardedState, PerfError> {
        self.ask()?;
        let state = self.checkpoints.recv().map_err(|_| self.cause())?.into_state();
        self.handle.join()?;
        Ok(state)
    }

    fn cause(&self) -> PerfError {
        self.handle.failure().map_or(PerfError::Stopped, PerfError::Failed)
    }
}

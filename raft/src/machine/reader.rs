//! Reads beside the log.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use atlas_smr_execution::batch::{NodeId, SeqNo, UnorderedBatch};
use atlas_smr_execution::metrics::Metrics;
use atlas_smr_execution::state::{DivisibleState, ShardedState};
use bytes::Bytes;
use tokio::sync::oneshot;

use super::Progress;
use super::executor::Executor;
use crate::session::{Operation, Service, last_batch};
use crate::types::Answer;

/// How long a read that came too early sleeps before it looks again.
const LOOK: Duration = Duration::from_micros(100);
/// How often it only gives way before it begins to sleep.
const YIELDS: u32 = 16;

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The executor has failed; this is the cause.
    #[error("{0}")]
    Failed(String),
    /// The node was stopped.
    #[error("the node is stopped")]
    Stopped,
}

/// Reads the state of a [`Machine`](super::Machine), and tells how far it is. Clones read the same one.
///
/// It keeps the executor running: it ends when the machine and all readers are gone.
#[derive(Debug)]
pub struct Reader<A: Service> {
    executor: Executor<A>,
    progress: Arc<Progress>,
    incarnation: u64,
}

impl<A: Service> Clone for Reader<A> {
    fn clone(&self) -> Self {
        let (executor, progress) = (self.executor.clone(), Arc::clone(&self.progress));
        Reader { executor, progress, incarnation: self.incarnation }
    }
}

impl<A: Service> Reader<A> {
    pub(super) fn new(executor: Executor<A>, progress: Arc<Progress>, incarnation: u64) -> Self {
        Reader { executor, progress, incarnation }
    }

    fn error(&self) -> ReadError {
        match self.executor.handle().failure() {
            Some(failure) => ReadError::Failed(format!("the executor has failed: {failure}")),
            None => ReadError::Stopped,
        }
    }

    /// Answers read-only requests on one moment of the state, which contains every entry that was applied before the call.
    ///
    /// After openraft's read index was awaited, that makes the read linearizable.
    ///
    /// # Errors
    ///
    /// The executor has failed or stopped.
    pub async fn read(&self, operations: Vec<Bytes>) -> Result<Vec<Answer>, ReadError> {
        let batch = SeqNo(self.progress.batch.load(Ordering::Acquire));
        let mut looked = 0;
        while self.executor.handle().last_executed() < batch {
            if self.executor.handle().failure().is_some() {
                return Err(self.error());
            }
            looked += 1;
            if looked < YIELDS {
                tokio::task::yield_now().await;
            } else {
                tokio::time::sleep(LOOK).await;
            }
        }
        self.read_stale(operations).await
    }

    /// Answers read-only requests on the state as it happens to be.
    ///
    /// # Errors
    ///
    /// The executor has failed or stopped.
    pub async fn read_stale(&self, operations: Vec<Bytes>) -> Result<Vec<Answer>, ReadError> {
        if operations.is_empty() {
            return Ok(Vec::new());
        }
        let place = self.executor.place().await;
        let expected = self.executor.replies().expect_reads(operations.len(), place);
        self.ask(expected, operations.iter().map(|bytes| Operation::read(bytes))).await
    }

    /// The state as it is; shares its data with the executor's.
    async fn state(&self) -> Result<ShardedState, ReadError> {
        let place = self.executor.place().await;
        let expected = self.executor.replies().expect_state(place);
        self.ask(expected, std::iter::once(Operation::State)).await
    }

    /// Queues what is expected already, and waits for what is told.
    async fn ask<T>(
        &self,
        (ticket, told): (u64, oneshot::Receiver<T>),
        operations: impl Iterator<Item = Operation<A>>,
    ) -> Result<T, ReadError> {
        let mut requests = UnorderedBatch::new();
        for (position, operation) in (0..).zip(operations) {
            requests.add(NodeId(0), SeqNo(ticket), SeqNo(position), operation);
        }
        self.executor.unordered(requests).await.map_err(|_| self.error())?;
        told.await.map_err(|_| self.error())
    }

    /// The index of the last entry with operations that the state contains, 0 if there was none, and the digest of the state
    /// with the session table. Replicas for which the first is equal have equal digests. Hashes what changed since the last
    /// time, off the executor's thread.
    ///
    /// # Errors
    ///
    /// The executor has failed or stopped.
    pub async fn digest(&self) -> Result<(u64, String), ReadError> {
        let state = self.state().await?;
        let digest = move || {
            let digest = blake3::Hash::from(state.descriptor().digest());
            (last_batch(&state), digest.to_hex().to_string())
        };
        tokio::task::spawn_blocking(digest).await.map_err(|_| ReadError::Stopped)
    }

    /// The executor's counters and histograms.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.executor.handle().metrics()
    }

    /// The number of this run of the process: what a batch that is proposed here carries as its proposer.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The index of the last entry that was applied; 0 if there was none.
    pub fn applied(&self) -> u64 {
        self.progress.applied.load(Ordering::Acquire).saturating_sub(1)
    }

    /// The index of the last entry with operations that was executed; 0 if there was none.
    pub fn executed(&self) -> u64 {
        self.executor.handle().last_executed().0.saturating_sub(1)
    }

    /// Why the executor has failed, if it has.
    pub fn failure(&self) -> Option<String> {
        self.executor.handle().failure().map(|failure| failure.to_string())
    }

    /// Waits until the executor has executed all that was queued, and has ended. The machine and all other readers must be
    /// gone, or go: it waits for them.
    ///
    /// # Errors
    ///
    /// The executor has failed.
    pub async fn shutdown(self) -> Result<(), ReadError> {
        let handle = self.executor.into_handle();
        let joined = tokio::task::spawn_blocking(move || handle.join()).await;
        match joined {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(failure)) => Err(ReadError::Failed(format!("the executor has failed: {failure}"))),
            Err(_) => Err(ReadError::Stopped),
        }
    }
}

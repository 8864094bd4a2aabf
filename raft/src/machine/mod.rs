//! The state machine: an executor under openraft.
//!
//! ```text
//! entries ──► apply ──► batches ──► ExecutorHandle ──► executor ──► replies ──► answers of this node's own batches
//!                                        │                 │
//!                        `read_state` at the moment        └──► checkpoint channel ──► builder ──► snapshot on disk
//!                        when a snapshot is asked for
//! ```
//!
//! A batch that this run of the process proposed is queued as an update, and `apply` waits for its replies, since clients
//! wait for them; a learner's executor answers nobody, so a learner that was promoted and leads fails here instead. All others only change the state: they are queued as what the node missed, and executed behind `apply`'s
//! back. All entries of one call are queued before the first is waited for. Entries without a batch get an empty answer, and
//! every entry gets exactly one.
//!
//! The number of a batch is the index of its entry plus one, as indexes begin at 0, which means "nothing" to the executor.
//!
//! A snapshot is asked for by a request in the executor's own queue, so it holds exactly what `apply` was given before. It
//! leaves through the checkpoint channel while execution goes on. A snapshot that another node sent goes in through the
//! state channel.

mod builder;
mod executor;
mod install;
mod kind;
mod reader;
mod replies;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use atlas_smr_execution::batch::{MaybeVec, NodeId, SeqNo, UpdateBatch};
use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, OptionalSend, StorageIOError};
use tokio::sync::oneshot;

use crate::session::{Operation, Service};
use crate::snapshot::{Snapshot, SnapshotStore};
use crate::types::{
    Answer, Answers, Batch, Entry, LogId, SnapshotMeta, StorageError, StoredMembership, TypeConfig,
};

pub use self::builder::Builder;
pub(crate) use self::executor::{Executor, Load, StartError};
pub use self::kind::{ExecutorKind, UnknownKind};
pub use self::reader::{ReadError, Reader};

/// The number of the batch of an entry.
fn sequence(index: u64) -> SeqNo {
    SeqNo(index + 1)
}

/// What a state that stands for `id` contains.
fn reached(id: Option<LogId>) -> SeqNo {
    id.map_or(SeqNo::ZERO, |id| sequence(id.index))
}

/// What finished calls of `apply` have come to; shared with the readers.
#[derive(Debug, Default)]
struct Progress {
    /// The index after the last entry.
    applied: AtomicU64,
    /// The number of the last batch among what was applied.
    batch: AtomicU64,
}

/// An application under an executor, as openraft's state machine.
#[derive(Debug)]
pub struct Machine<A: Service> {
    executor: Executor<A>,
    snapshots: SnapshotStore,
    progress: Arc<Progress>,
    incarnation: u64,
    applied: Option<LogId>,
    membership: StoredMembership,
    /// The last batch that was queued.
    queued: SeqNo,
    /// How many snapshots were begun.
    built: u64,
}

/// The replies that an entry waits for.
type Waiting = Option<oneshot::Receiver<Vec<Answer>>>;

impl<A: Service> Machine<A> {
    /// The machine over an executor that holds the state of `meta`.
    pub(crate) fn new(
        executor: Executor<A>,
        snapshots: SnapshotStore,
        meta: &SnapshotMeta,
        incarnation: u64,
    ) -> Self {
        let machine = Machine {
            executor,
            snapshots,
            progress: Arc::default(),
            incarnation,
            applied: meta.last_log_id,
            membership: meta.last_membership.clone(),
            queued: reached(meta.last_log_id),
            built: 0,
        };
        machine.publish();
        machine
    }

    /// What reads the state without going through the log.
    pub(crate) fn reader(&self) -> Reader<A> {
        Reader::new(self.executor.clone(), Arc::clone(&self.progress), self.incarnation)
    }

    /// Tells the readers how far the machine is.
    fn publish(&self) {
        self.progress.batch.store(self.queued.0, Ordering::Release);
        self.progress.applied.store(self.applied.map_or(0, |id| id.index + 1), Ordering::Release);
    }

    /// Queues the batch of the entry at `id`; the receiver is told its answers.
    async fn queue(&mut self, id: LogId, batch: Batch) -> Result<Waiting, StorageError> {
        let failed =
            |error: String| StorageError::from(StorageIOError::apply(id, openraft::AnyError::error(error)));
        if sequence(id.index) <= reached(self.applied) {
            return Err(failed(format!("the entry was applied before: the state is at {:?}", self.applied)));
        }
        let own = batch.proposer == self.incarnation;
        if own && !self.executor.answers() {
            let what =
                "this node leads, but it was set up as a learner, which answers nobody: set it up as a voter";
            return Err(failed(what.to_owned()));
        }
        let count = batch.commands.len();
        let mut updates = UpdateBatch::with_capacity(sequence(id.index), count);
        for (position, command) in batch.commands.iter().enumerate() {
            let last_of = (position + 1 == count).then_some(id.index);
            let operation = Operation::command(command, last_of);
            updates.add(NodeId(0), SeqNo(id.index), SeqNo(position as u64), operation);
        }
        let waiting = if own {
            let waiting = self.executor.replies().expect_ordered(id.index, count);
            self.executor.update(updates).await.map_err(failed)?;
            Some(waiting)
        } else {
            self.executor.catch_up(MaybeVec::One(updates)).await.map_err(failed)?;
            None
        };
        self.queued = sequence(id.index);
        Ok(waiting)
    }

    /// Queues an entry's batch, if it has one, and counts it as applied.
    async fn take(&mut self, entry: Entry) -> Result<(LogId, Waiting), StorageError> {
        let Entry { log_id, payload } = entry;
        let waiting = match payload {
            EntryPayload::Blank => None,
            EntryPayload::Normal(batch) => self.queue(log_id, batch).await?,
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(log_id), membership);
                None
            }
        };
        self.applied = Some(log_id);
        Ok((log_id, waiting))
    }
}

impl<A: Service> RaftStateMachine<TypeConfig> for Machine<A> {
    type SnapshotBuilder = Builder<A>;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Answers>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut taken = Vec::new();
        for entry in entries {
            taken.push(self.take(entry).await?);
        }
        let mut answers = Vec::with_capacity(taken.len());
        for (id, waiting) in taken {
            answers.push(match waiting {
                None => Answers::default(),
                Some(waiting) => Answers(waiting.await.map_err(|_| {
                    let cause = openraft::AnyError::error(self.executor.cause());
                    StorageError::from(StorageIOError::apply(id, cause))
                })?),
            });
        }
        self.publish();
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Builder<A> {
        let meta = SnapshotMeta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
            snapshot_id: format!("{:x}-{}", self.incarnation, self.built),
        };
        self.built += 1;
        Builder::begin(self.executor.clone(), self.snapshots.clone(), meta, self.queued).await
    }

    /// Snapshots come through [`SnapshotStore::receive`]; this one is a place holder.
    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Snapshot>, StorageError> {
        Ok(Box::new(Snapshot::nothing()))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Snapshot>,
    ) -> Result<(), StorageError> {
        self.install(meta, *snapshot).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<openraft::Snapshot<TypeConfig>>, StorageError> {
        let newest = self.snapshots.newest();
        Ok(newest.map(|snapshot| openraft::Snapshot {
            meta: snapshot.meta().clone(),
            snapshot: Box::new(snapshot),
        }))
    }
}

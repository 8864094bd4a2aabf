//! Builds a snapshot while execution goes on.

use std::time::Duration;

use atlas_smr_execution::batch::{NodeId, SeqNo};
use atlas_smr_execution::executor::{AppState, RecvError};
use atlas_smr_execution::state::{DivisibleState, PartId, ShardedState, StateDescriptor};
use openraft::{AnyError, RaftSnapshotBuilder, StorageIOError};
use tokio::sync::OwnedMutexGuard;

use super::executor::{Channels, Executor, Tickets};
use crate::session::Service;
use crate::snapshot::{Snapshot, SnapshotStore, Writer};
use crate::types::{SnapshotMeta, StorageError, TypeConfig};

/// A snapshot of the state as it was when the builder was made. One is built at a time.
#[derive(Debug)]
pub struct Builder<A: Service> {
    meta: SnapshotMeta,
    /// `None` once it was built.
    order: Result<Option<Order<A>>, String>,
}

/// A state that was asked for.
#[derive(Debug)]
struct Order<A: Service> {
    executor: Executor<A>,
    snapshots: SnapshotStore,
    ticket: NodeId,
    /// The last batch that the state contains.
    expected: SeqNo,
    /// Nobody else reads the checkpoint channel.
    _turn: OwnedMutexGuard<Tickets>,
}

/// How often a builder looks whether the executor is still there.
const LOOK: Duration = Duration::from_millis(500);

impl<A: Service> Builder<A> {
    /// Asks for the state as it is now. Waits while another snapshot is built.
    pub(super) async fn begin(
        executor: Executor<A>,
        snapshots: SnapshotStore,
        meta: SnapshotMeta,
        expected: SeqNo,
    ) -> Self {
        let mut turn = executor.checkpoints.clone().lock_owned().await;
        let ticket = turn.next();
        let order = executor.read_state(ticket).await;
        let order = order.map(|()| Some(Order { executor, snapshots, ticket, expected, _turn: turn }));
        Builder { meta, order }
    }
}

impl<A: Service> RaftSnapshotBuilder<TypeConfig> for Builder<A> {
    /// # Errors
    ///
    /// The executor has failed, or the snapshot cannot be written. A second call fails too.
    async fn build_snapshot(&mut self) -> Result<openraft::Snapshot<TypeConfig>, StorageError> {
        let failed =
            |what: String| StorageError::from(StorageIOError::write_snapshot(None, AnyError::error(what)));
        let order = match &mut self.order {
            Ok(order) => order.take().ok_or_else(|| failed("the snapshot was built already".to_owned()))?,
            Err(error) => return Err(failed(error.clone())),
        };
        let meta = self.meta.clone();
        let built = tokio::task::spawn_blocking(move || order.build(meta)).await;
        let snapshot = built.unwrap_or_else(|error| Err(error.to_string())).map_err(failed)?;
        tracing::info!(meta = %snapshot.meta(), "snapshot built");
        Ok(openraft::Snapshot { meta: self.meta.clone(), snapshot: Box::new(snapshot) })
    }
}

impl<A: Service> Order<A> {
    /// Receives the state and writes it. Blocks.
    fn build(self, meta: SnapshotMeta) -> Result<Snapshot, String> {
        match self.executor.channels() {
            Channels::Monolithic(_, states) => {
                let state = self.next(|| {
                    let message = states.recv_timeout(LOOK)?;
                    Ok((message.to(), message.sequence_number(), message.into_state()))
                })?;
                self.write_whole(meta, &state)
            }
            Channels::Divisible(_, pieces) => {
                let next = || {
                    self.next(|| {
                        let message = pieces.recv_timeout(LOOK)?;
                        Ok((message.to(), message.sequence_number(), message.into_state()))
                    })
                };
                self.write_pieces(meta, next)
            }
        }
    }

    /// The next message that is for this builder. Others are what is left of snapshots that nobody took.
    fn next<T>(
        &self,
        receive: impl Fn() -> Result<(Option<NodeId>, SeqNo, T), RecvError>,
    ) -> Result<T, String> {
        loop {
            match receive() {
                Ok((to, seq, state)) if to == Some(self.ticket) => {
                    if seq != self.expected {
                        return Err(format!("asked for the state of {}, got that of {seq}", self.expected));
                    }
                    return Ok(state);
                }
                Ok(_) => {}
                Err(RecvError::Empty) if self.executor.handle().failure().is_none() => {}
                Err(_) => return Err(self.executor.cause()),
            }
        }
    }

    /// Writes a state that came as a whole: the parts that are new.
    fn write_whole(&self, meta: SnapshotMeta, state: &ShardedState) -> Result<Snapshot, String> {
        let mut writer = self.snapshots.begin(meta, state.descriptor());
        for key in writer.missing() {
            let part = state.part(PartId(key.part)).map_err(|error| error.to_string())?;
            writer.add(key.part, part.bytes()).map_err(|error| error.to_string())?;
        }
        writer.finish().map_err(|error| error.to_string())
    }

    /// Writes a state that comes in pieces: the parts that are new.
    fn write_pieces(
        &self,
        meta: SnapshotMeta,
        next: impl Fn() -> Result<AppState<ShardedState>, String>,
    ) -> Result<Snapshot, String> {
        let begin = |descriptor: StateDescriptor| {
            let writer: Writer = self.snapshots.begin(meta, descriptor);
            let missing: std::collections::HashSet<u32> =
                writer.missing().iter().map(|key| key.part).collect();
            (writer, missing)
        };
        let AppState::StateDescriptor(descriptor) = next()? else {
            return Err("parts of a state before its descriptor".to_owned());
        };
        let (mut writer, missing) = begin(descriptor);
        loop {
            match next()? {
                AppState::StatePart(parts) => {
                    for part in parts.into_iter().filter(|part| missing.contains(&part.id().0)) {
                        writer.add(part.id().0, part.bytes()).map_err(|error| error.to_string())?;
                    }
                }
                AppState::Done => return writer.finish().map_err(|error| error.to_string()),
                AppState::StateDescriptor(_) => {
                    return Err("another state began before this one's end".to_owned());
                }
            }
        }
    }
}

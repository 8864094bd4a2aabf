//! Takes on the state of another node.

use std::time::Duration;

use atlas_smr_execution::batch::{MaybeVec, SeqNo};
use atlas_smr_execution::executor::{InstallState, InstallStateMessage};
use atlas_smr_execution::state::ShardedState;
use openraft::{AnyError, StorageIOError};

use super::executor::{Channels, Executor, Load};
use super::{Machine, reached};
use crate::session::Service;
use crate::snapshot::{Snapshot, SnapshotStore};
use crate::types::{SnapshotMeta, StorageError};

/// Parts that one message holds at most.
const PARTS: usize = 16;
/// How often the end of an installation is looked for.
const LOOK: Duration = Duration::from_millis(1);

impl<A: Service> Machine<A> {
    /// Becomes the state of `snapshot`, and keeps no other.
    pub(super) async fn install(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Snapshot,
    ) -> Result<(), StorageError> {
        let failed = |what: String| {
            let cause = AnyError::error(what);
            StorageError::from(StorageIOError::write_snapshot(Some(meta.signature()), cause))
        };
        let seq = reached(meta.last_log_id);
        let known = reached(self.applied);
        if snapshot.meta().last_log_id != meta.last_log_id {
            return Err(failed("the snapshot is another one than its description says".to_owned()));
        }
        if seq < known {
            return Err(failed(format!(
                "the snapshot of {seq} is older than the state, which is of {known}"
            )));
        }
        let (executor, snapshots) = (self.executor.clone(), self.snapshots.clone());
        let install = move || -> Result<(), String> {
            let snapshot = own(&snapshots, snapshot)?;
            if seq > known {
                executor.install(seq, &snapshot)?;
            }
            snapshots.keep_only(&snapshot);
            Ok(())
        };
        let installed = tokio::task::spawn_blocking(install).await;
        installed.unwrap_or_else(|error| Err(error.to_string())).map_err(failed)?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.queued = seq;
        self.publish();
        tracing::info!(%meta, "snapshot installed");
        Ok(())
    }
}

/// The snapshot as one of this node's own: copied, if it lies elsewhere.
fn own(snapshots: &SnapshotStore, snapshot: Snapshot) -> Result<Snapshot, String> {
    if snapshots.owns(&snapshot) {
        return Ok(snapshot);
    }
    let copy = || {
        let mut incoming = snapshots.receive(&snapshot.manifest_bytes())?;
        for key in incoming.missing() {
            incoming.add(&snapshot.read_part(key)?)?;
        }
        incoming.finish()
    };
    copy().map_err(|error| error.to_string())
}

impl<A: Service> Executor<A> {
    /// Has the executor install the state of a snapshot, and waits for it. Blocks.
    fn install(&self, seq: SeqNo, snapshot: &Snapshot) -> Result<(), String> {
        let stopped = || self.cause();
        match self.channels() {
            Channels::Monolithic(states, _) => {
                let load = Load::of::<A>(snapshot).map_err(|error| error.to_string())?;
                let message = InstallStateMessage::new(seq, load.into_state());
                states.send(message).map_err(|_| stopped())?;
                self.handle().poll_state_channel().map_err(|_| stopped())?;
            }
            Channels::Divisible(pieces, _) => {
                let send = |piece: InstallState<ShardedState>| {
                    pieces.send(InstallStateMessage::new(seq, piece)).map_err(|_| stopped())
                };
                send(InstallState::StateDescriptor(snapshot.descriptor().clone()))?;
                // From here on the executor takes what comes, and ends when it is whole.
                self.handle().poll_state_channel().map_err(|_| stopped())?;
                let mut parts = Vec::with_capacity(PARTS);
                for part in snapshot.read_parts() {
                    parts.push(part.map_err(|error| error.to_string())?);
                    if parts.len() == PARTS {
                        send(InstallState::StatePart(MaybeVec::Several(std::mem::take(&mut parts))))?;
                    }
                }
                send(InstallState::StatePart(MaybeVec::Several(parts)))?;
                send(InstallState::Done)?;
            }
        }
        self.installed(seq)
    }

    /// Waits until the state of `seq` is there, or was refused.
    fn installed(&self, seq: SeqNo) -> Result<(), String> {
        loop {
            if self.handle().last_executed() >= seq {
                return Ok(());
            }
            if self.handle().failure().is_some() {
                return Err(self.cause());
            }
            if let Some(reason) = self.handle().install_error() {
                return Err(format!("the executor refused the state: {reason}"));
            }
            std::thread::sleep(LOOK);
        }
    }
}

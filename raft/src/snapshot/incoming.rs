//! A snapshot that comes from another node.

use std::collections::HashMap;

use atlas_smr_execution::state::Digest;

use super::manifest::Manifest;
use super::{PartKey, Snapshot, SnapshotError, SnapshotStore, Writer};
use crate::types::SnapshotMeta;

/// A snapshot that is being received; from [`SnapshotStore::receive`].
///
/// Parts go to the disk as they come. Dropped before [`finish`](Incoming::finish), it leaves nothing.
#[derive(Debug)]
pub struct Incoming {
    writer: Writer,
    missing: HashMap<Digest, u32>,
}

impl Incoming {
    pub(super) fn begin(store: SnapshotStore, manifest: &[u8]) -> Result<Incoming, SnapshotError> {
        let Manifest { meta, descriptor, .. } = Manifest::from_bytes(manifest)?;
        let mut writer = Writer::with(store, meta, descriptor);
        writer.distrust();
        // A part's bytes name its keys, and a key belongs to one part: no two that are not empty are equal.
        let missing = writer.missing().into_iter().map(|key| (key.digest, key.part)).collect();
        Ok(Incoming { writer, missing })
    }

    /// What the snapshot stands for.
    pub fn meta(&self) -> &SnapshotMeta {
        self.writer.meta()
    }

    /// The parts that this node has in no kept snapshot, and that have not been added.
    pub fn missing(&self) -> Vec<PartKey> {
        let mut missing: Vec<PartKey> =
            self.missing.iter().map(|(&digest, &part)| PartKey { part, digest }).collect();
        missing.sort_unstable();
        missing
    }

    /// Adds the bytes of a part, which are recognised by their digest. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// The bytes are no missing part, or writing failed. What was added before stays.
    pub fn add(&mut self, bytes: &[u8]) -> Result<PartKey, SnapshotError> {
        let digest = blake3::hash(bytes);
        let Some(&part) = self.missing.get(digest.as_bytes()) else {
            return Err(SnapshotError::Unwanted { digest: digest.to_hex().to_string() });
        };
        self.writer.add(part, bytes)?;
        self.missing.remove(digest.as_bytes());
        Ok(PartKey { part, digest: *digest.as_bytes() })
    }

    /// Makes it one of the node's own snapshots: whole, and synced. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// Parts are missing, or writing failed; then nothing of it is left.
    pub fn finish(self) -> Result<Snapshot, SnapshotError> {
        self.writer.finish()
    }
}

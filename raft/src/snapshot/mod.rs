//! Snapshots on disk: written piece by piece, whole or absent, checked before they are believed.
//!
//! ```text
//! snapshots/
//!   00000000000000000007.manifest    what the snapshot stands for, the digest of each part, and where each part lies
//!   00000000000000000007.segment     the parts that were new in it, one after the other
//!   00000000000000000005.manifest    an older snapshot: falls back to, if the newer one is damaged
//!   00000000000000000005.segment     parts of both
//! ```
//!
//! The state comes in parts, and parts are named by what they hold, [`PartKey`]. A snapshot writes only the parts that no
//! kept snapshot has; the others are referred to where they lie. What nobody refers to is deleted. Parts that lie among
//! mostly unused bytes are written anew, so that a snapshot's segments are at least half in use.
//!
//! A snapshot is valid once its manifest has its name: the segment was synced before, and the manifest is written aside,
//! synced and renamed. A crash in between leaves files that the next opening deletes. A manifest ends with its own digest
//! and holds those of all parts, so damage is found whenever a byte is used.
//!
//! Two snapshots share the parts that did not change between them, so keeping two guards against one that was damaged in
//! being written, not against a disk that loses what it held.

mod incoming;
mod manifest;
mod segment;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use atlas_smr_execution::state::{Digest, DivisibleState, PartId, ShardedState, StateDescriptor, StatePart};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use self::manifest::Manifest;
use self::segment::Segment;
use crate::types::SnapshotMeta;

pub use self::incoming::Incoming;
pub use self::store::SnapshotStore;
pub(crate) use self::writer::Writer;

/// Names a part by its content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartKey {
    /// The index of the part in its state.
    pub part: u32,
    /// The digest of its bytes.
    pub digest: Digest,
}

impl fmt::Debug for PartKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.part, blake3::Hash::from(self.digest).to_hex())
    }
}

/// Why a snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// Reading or writing failed.
    #[error("snapshot: {0}")]
    Io(#[from] io::Error),
    /// Bytes that are not what was written.
    #[error("damaged snapshot: {what}")]
    Damaged {
        /// What is wrong.
        what: String,
    },
    /// A part that does not belong to the snapshot, or came already.
    #[error("a part that is not missing: {digest}")]
    Unwanted {
        /// The digest of its bytes.
        digest: String,
    },
    /// The end came before all parts.
    #[error("{missing} parts of the snapshot are missing")]
    Incomplete {
        /// How many.
        missing: usize,
    },
}

fn damaged(what: impl Into<String>) -> SnapshotError {
    SnapshotError::Damaged { what: what.into() }
}

/// Where a part lies.
#[derive(Clone, Debug)]
struct Place {
    segment: Arc<Segment>,
    offset: u64,
    len: u64,
}

/// A snapshot that was written whole.
#[derive(Debug)]
struct Whole {
    meta: SnapshotMeta,
    descriptor: StateDescriptor,
    /// Of the parts that are not empty.
    places: BTreeMap<u32, Place>,
    /// The number in its file's name.
    number: u64,
}

/// A snapshot that was written whole. Clones share it; it stays readable while one is left, also when the store has gone on
/// and deleted it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    whole: Arc<Whole>,
}

/// The digest of an empty part, which is never written or sent.
fn empty_digest() -> Digest {
    *blake3::hash(&[]).as_bytes()
}

/// The parts of a state that are not empty.
fn keys(descriptor: &StateDescriptor) -> impl Iterator<Item = PartKey> + '_ {
    let empty = empty_digest();
    descriptor
        .parts()
        .filter(move |&(_, digest)| digest != empty)
        .map(|(PartId(part), digest)| PartKey { part, digest })
}

impl Snapshot {
    /// A snapshot of nothing at all; for an interface that wants one before there is any.
    pub(crate) fn nothing() -> Snapshot {
        let state = ShardedState::builder().shards(1).build();
        let descriptor = state.unwrap_or_default().descriptor();
        let (meta, places) = (SnapshotMeta::default(), BTreeMap::new());
        Snapshot { whole: Arc::new(Whole { meta, descriptor, places, number: 0 }) }
    }

    /// What the snapshot stands for.
    pub fn meta(&self) -> &SnapshotMeta {
        &self.whole.meta
    }

    /// All parts of its state by their digests.
    pub fn descriptor(&self) -> &StateDescriptor {
        &self.whole.descriptor
    }

    /// What another node needs to [`receive`](SnapshotStore::receive) it, but for the parts.
    pub fn manifest_bytes(&self) -> Bytes {
        let (meta, descriptor) = (self.whole.meta.clone(), self.whole.descriptor.clone());
        Manifest { meta, descriptor, places: Vec::new() }.to_bytes().into()
    }

    /// The parts that are not empty.
    pub fn parts(&self) -> Vec<PartKey> {
        keys(&self.whole.descriptor).collect()
    }

    /// The length of a part in bytes; `None` if the snapshot has no such part.
    pub fn part_len(&self, key: PartKey) -> Option<u64> {
        self.place(key).map(|place| place.len)
    }

    fn place(&self, key: PartKey) -> Option<&Place> {
        let known = self.whole.descriptor.part_digest(PartId(key.part)) == Some(key.digest);
        self.whole.places.get(&key.part).filter(|_| known)
    }

    /// Reads a part. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// The snapshot has no such part, reading failed, or the bytes do not match the digest.
    pub fn read_part(&self, key: PartKey) -> io::Result<Bytes> {
        let place = self.place(key).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("no part {key:?} in the snapshot"))
        })?;
        place.read(key).map(Bytes::from)
    }

    /// Reads all parts that are not empty, one at a time. Blocks on the disk.
    pub(crate) fn read_parts(&self) -> impl Iterator<Item = io::Result<StatePart>> + '_ {
        let read = |key: PartKey| {
            let place =
                self.whole.places.get(&key.part).ok_or_else(|| io::Error::other("a part without a place"))?;
            let bytes = place.read(key)?;
            Ok(StatePart::from_bytes(PartId(key.part), key.digest, bytes))
        };
        keys(&self.whole.descriptor).map(read)
    }
}

impl Place {
    fn read(&self, key: PartKey) -> io::Result<Vec<u8>> {
        let bytes = self.segment.read(self.offset, self.len)?;
        if *blake3::hash(&bytes).as_bytes() != key.digest {
            let what = format!("part {} of a snapshot does not match its digest", key.part);
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(bytes)
    }
}

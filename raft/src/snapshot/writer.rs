//! Writing a snapshot: only what the store does not have.

use std::collections::BTreeMap;
use std::sync::Arc;

use atlas_smr_execution::state::StateDescriptor;

use super::segment::{Segment, SegmentWriter};
use super::store::SnapshotStore;
use super::{Place, Snapshot, SnapshotError, keys};
use crate::types::SnapshotMeta;

/// A snapshot refers to at most this many segments of older ones, so that the number of files stays bounded.
const SEGMENTS: usize = 64;

/// A snapshot that is being written.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(super) store: SnapshotStore,
    meta: SnapshotMeta,
    descriptor: StateDescriptor,
    places: BTreeMap<u32, Place>,
    number: u64,
    segment: Option<SegmentWriter>,
    /// Offset and length of the parts in `segment`.
    fresh: BTreeMap<u32, (u64, u64)>,
}

/// Parts that are better written anew go: those in segments that are mostly garbage, and in too many small ones.
fn compact(places: &mut BTreeMap<u32, Place>) {
    let mut used: BTreeMap<u64, (u64, Arc<Segment>)> = BTreeMap::new();
    for place in places.values() {
        used.entry(place.segment.number).or_insert_with(|| (0, Arc::clone(&place.segment))).0 += place.len;
    }
    let mut dense: Vec<(u64, u64)> = used
        .values()
        .filter(|(live, segment)| *live * 2 >= segment.len)
        .map(|(live, segment)| (*live, segment.number))
        .collect();
    dense.sort_unstable_by(|a, b| b.cmp(a));
    dense.truncate(SEGMENTS);
    places.retain(|_, place| dense.iter().any(|&(_, number)| number == place.segment.number));
}

impl Writer {
    /// Begins a snapshot of the node's own.
    pub(super) fn begin(store: SnapshotStore, meta: SnapshotMeta, descriptor: StateDescriptor) -> Self {
        let mut writer = Self::with(store, meta, descriptor);
        compact(&mut writer.places);
        writer
    }

    /// Begins one that refers to whatever the store has.
    pub(super) fn with(store: SnapshotStore, meta: SnapshotMeta, descriptor: StateDescriptor) -> Self {
        let mut places = store.places(&descriptor);
        places.retain(|_, place| place.len > 0);
        let number = store.next_number();
        Writer { store, meta, descriptor, places, number, segment: None, fresh: BTreeMap::new() }
    }

    pub(super) fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    /// Forgets the parts of older snapshots that cannot be read as what they should be.
    pub(super) fn distrust(&mut self) {
        let descriptor = self.descriptor.clone();
        for key in keys(&descriptor) {
            if let Some(error) = self.places.get(&key.part).and_then(|place| place.read(key).err()) {
                tracing::warn!(part = key.part, %error, "a part of an older snapshot is damaged");
                self.places.remove(&key.part);
            }
        }
    }

    /// The parts that have to be added.
    pub(crate) fn missing(&self) -> Vec<super::PartKey> {
        keys(&self.descriptor)
            .filter(|key| !self.places.contains_key(&key.part) && !self.fresh.contains_key(&key.part))
            .collect()
    }

    /// Adds a part whose bytes the caller has checked.
    ///
    /// # Errors
    ///
    /// Writing failed.
    pub(crate) fn add(&mut self, part: u32, bytes: &[u8]) -> Result<(), SnapshotError> {
        let segment = match &mut self.segment {
            Some(segment) => segment,
            none => {
                let (folder, disk) = self.store.place_of_files();
                none.insert(SegmentWriter::create(folder, disk, self.number)?)
            }
        };
        let offset = segment.add(bytes)?;
        self.fresh.insert(part, (offset, bytes.len() as u64));
        Ok(())
    }

    /// Makes the snapshot valid.
    ///
    /// # Errors
    ///
    /// Parts are missing, or writing failed; then it is as if it had never been begun.
    pub(crate) fn finish(mut self) -> Result<Snapshot, SnapshotError> {
        let missing = self.missing().len();
        if missing > 0 {
            return Err(SnapshotError::Incomplete { missing });
        }
        if let Some(segment) = self.segment.take() {
            let segment = Arc::new(segment.finish()?);
            for (part, (offset, len)) in std::mem::take(&mut self.fresh) {
                self.places.insert(part, Place { segment: Arc::clone(&segment), offset, len });
            }
        }
        self.store.keep(super::Whole {
            meta: self.meta,
            descriptor: self.descriptor,
            places: self.places,
            number: self.number,
        })
    }
}

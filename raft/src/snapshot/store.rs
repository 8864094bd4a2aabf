//! The folder of snapshots: which are kept, and which files are in use.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use atlas_smr_execution::state::{PartId, StateDescriptor};

use super::manifest::{Manifest, PlaceRecord};
use super::segment::{ENDING as SEGMENT, Segment, file_name};
use super::{Incoming, Place, Snapshot, SnapshotError, Whole, Writer, damaged, keys};
use crate::disk::{Disk, DiskWrite, TEMPORARY, create_folder, sync_folder};
use crate::log::HoldBack;
use crate::types::{LogId, SnapshotMeta};

/// How the names of manifests end.
const MANIFEST: &str = ".manifest";

/// The snapshots of a node. Clones are the same store.
///
/// Methods that read or write parts block on the disk: no task should call them on a thread that others need.
#[derive(Clone)]
pub struct SnapshotStore {
    inner: Arc<Inner>,
}

struct Inner {
    folder: PathBuf,
    disk: Disk,
    /// How many snapshots are kept.
    keep: usize,
    hold: HoldBack,
    /// One snapshot at a time becomes valid, or is deleted.
    changes: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Ascending by what they stand for, and then by number.
    kept: Vec<Arc<Whole>>,
    /// The number of the next snapshot.
    next: u64,
    /// All segments with a file, by number. Those that nobody holds are deleted.
    segments: BTreeMap<u64, Weak<Segment>>,
    /// The numbers of damaged snapshots. They stay, for whoever wants to look, until there is a new one.
    refused: Vec<u64>,
}

impl fmt::Debug for SnapshotStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept: Vec<u64> = self.state().kept.iter().map(|whole| whole.number).collect();
        f.debug_struct("SnapshotStore").field("folder", &self.inner.folder).field("kept", &kept).finish()
    }
}

/// A snapshot that was found damaged.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    /// Its file.
    pub(crate) file: String,
    /// What is wrong with it.
    pub(crate) reason: String,
}

fn order(whole: &Whole) -> (Option<LogId>, u64) {
    (whole.meta.last_log_id, whole.number)
}

/// The number in the name of a file that ends with `ending`.
fn number(name: &str, ending: &str) -> Option<u64> {
    name.strip_suffix(ending)?.parse().ok()
}

impl SnapshotStore {
    /// Opens `folder`, deletes what a crash left there, and returns what was found damaged.
    ///
    /// Manifests are checked here, and that their segments are there; parts are when they are read.
    pub(crate) fn open(
        folder: &Path,
        disk: Disk,
        keep: usize,
        hold: HoldBack,
    ) -> io::Result<(SnapshotStore, Vec<Refused>)> {
        create_folder(folder)?;
        // A name that an ended process gave may be in the system's memory only.
        sync_folder(folder)?;
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        for name in names.iter().filter(|name| name.ends_with(TEMPORARY)) {
            fs::remove_file(folder.join(name))?;
        }
        let mut state = State::default();
        let mut refused = Vec::new();
        let mut open = BTreeMap::new();
        for name in &names {
            let numbers = [number(name, MANIFEST), number(name, SEGMENT)];
            state.next = numbers.into_iter().flatten().map(|n| n + 1).max().unwrap_or(0).max(state.next);
            if let Some(number) = number(name, SEGMENT) {
                state.segments.insert(number, Weak::new());
            }
            if let Some(number) = number(name, MANIFEST) {
                match load(folder, number, &mut open) {
                    Ok(whole) => state.kept.push(Arc::new(whole)),
                    Err(error) => {
                        state.refused.push(number);
                        refused.push(Refused { file: name.clone(), reason: error.to_string() });
                    }
                }
            }
        }
        for (number, segment) in open {
            state.segments.insert(number, Arc::downgrade(&segment));
        }
        state.kept.sort_unstable_by_key(|whole| order(whole));
        let folder = folder.to_owned();
        let (changes, state) = (Mutex::new(()), Mutex::new(state));
        let store = SnapshotStore { inner: Arc::new(Inner { folder, disk, keep, hold, changes, state }) };
        store.hold_back();
        Ok((store, refused))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn changes(&self) -> MutexGuard<'_, ()> {
        self.inner.changes.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The newest snapshot.
    pub fn newest(&self) -> Option<Snapshot> {
        self.state().kept.last().map(|whole| Snapshot { whole: Arc::clone(whole) })
    }

    /// Begins to receive the snapshot of this manifest. Reads the parts that are here already, to be sure of them: blocks
    /// on the disk.
    ///
    /// # Errors
    ///
    /// The manifest is damaged.
    pub fn receive(&self, manifest: &[u8]) -> Result<Incoming, SnapshotError> {
        Incoming::begin(self.clone(), manifest)
    }

    /// Begins a snapshot of this node's own.
    pub(crate) fn begin(&self, meta: SnapshotMeta, descriptor: StateDescriptor) -> Writer {
        Writer::begin(self.clone(), meta, descriptor)
    }

    /// True if `snapshot` lies in this folder.
    pub(crate) fn owns(&self, snapshot: &Snapshot) -> bool {
        self.state().kept.iter().any(|whole| Arc::ptr_eq(whole, &snapshot.whole))
    }

    pub(super) fn place_of_files(&self) -> (&Path, &Disk) {
        (&self.inner.folder, &self.inner.disk)
    }

    pub(super) fn next_number(&self) -> u64 {
        let mut state = self.state();
        state.next += 1;
        state.next - 1
    }

    /// Where parts of such a state lie already.
    pub(super) fn places(&self, descriptor: &StateDescriptor) -> BTreeMap<u32, Place> {
        let state = self.state();
        let mut places = BTreeMap::new();
        for key in keys(descriptor) {
            let known =
                |whole: &&Arc<Whole>| whole.descriptor.part_digest(PartId(key.part)) == Some(key.digest);
            let place = state.kept.iter().rev().find(known).and_then(|whole| whole.places.get(&key.part));
            if let Some(place) = place {
                places.insert(key.part, place.clone());
            }
        }
        places
    }

    /// Makes a snapshot whose segments are synced valid, and deletes what is too old.
    pub(super) fn keep(&self, whole: Whole) -> Result<Snapshot, SnapshotError> {
        let _one = self.changes();
        let record = |(&part, place): (&u32, &Place)| {
            let (segment, offset, len) = (place.segment.number, place.offset, place.len);
            PlaceRecord { part, segment, offset, len }
        };
        let places = whole.places.iter().map(record).collect();
        let (meta, descriptor) = (whole.meta.clone(), whole.descriptor.clone());
        let manifest = Manifest { meta, descriptor, places }.to_bytes();
        let (folder, disk) = self.place_of_files();
        let written =
            disk.write_whole(DiskWrite::Manifest, folder, &file_name(whole.number, MANIFEST), &manifest);
        let whole = Arc::new(whole);
        let gone = {
            let mut state = self.state();
            for place in whole.places.values() {
                state.segments.insert(place.segment.number, Arc::downgrade(&place.segment));
            }
            written.map(|()| {
                let same = |kept: &Arc<Whole>| kept.meta.last_log_id == whole.meta.last_log_id;
                let mut gone: Vec<_> = state.kept.extract_if(.., |kept| same(kept)).collect();
                state.kept.push(Arc::clone(&whole));
                state.kept.sort_unstable_by_key(|whole| order(whole));
                // The oldest go, but neither this one, as it may be about to be installed over newer ones that never were, nor
                // one that is newer: it may be installed, and this one a late comer.
                let surplus = state.kept.len().saturating_sub(self.inner.keep);
                let older = state.kept.extract_if(.., |kept| order(kept) < order(&whole));
                gone.extend(older.take(surplus));
                let refused = std::mem::take(&mut state.refused);
                gone.iter().map(|whole| whole.number).chain(refused).collect::<Vec<_>>()
            })
        };
        self.hold_back();
        match gone {
            Ok(gone) => {
                self.delete(&gone);
                Ok(Snapshot { whole })
            }
            Err(error) => {
                drop(whole);
                self.delete(&[]);
                Err(error.into())
            }
        }
    }

    /// Deletes all snapshots but this one: it was installed, and the log does not reach from the others to it.
    pub(crate) fn keep_only(&self, snapshot: &Snapshot) {
        let _one = self.changes();
        let gone: Vec<u64> = {
            let mut state = self.state();
            let others = state.kept.extract_if(.., |kept| !Arc::ptr_eq(kept, &snapshot.whole));
            others.map(|whole| whole.number).collect()
        };
        self.hold_back();
        self.delete(&gone);
    }

    /// Leaves out a snapshot whose parts turned out to be damaged.
    pub(crate) fn refuse(&self, snapshot: &Snapshot) {
        let mut state = self.state();
        state.kept.retain(|kept| !Arc::ptr_eq(kept, &snapshot.whole));
        state.refused.push(snapshot.whole.number);
        drop(state);
        self.hold_back();
    }

    /// Tells the log from where it has to reach.
    fn hold_back(&self) {
        self.inner.hold.set(self.state().kept.iter().find_map(|whole| whole.meta.last_log_id));
    }

    /// Deletes the files of snapshots that are not kept, and segments that nobody holds. What cannot be deleted costs space,
    /// and is tried again.
    fn delete(&self, gone: &[u64]) {
        let folder = &self.inner.folder;
        let remove = |name: String| match fs::remove_file(folder.join(&name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(name, %error, "a file of an old snapshot cannot be deleted");
            }
            _ => {}
        };
        for &number in gone {
            remove(file_name(number, MANIFEST));
        }
        // Before their segments, so that no manifest refers to one that is gone.
        if let Err(error) = sync_folder(folder) {
            tracing::warn!(%error, "the folder of snapshots cannot be synced");
            return;
        }
        let unused: BTreeSet<u64> = {
            let mut state = self.state();
            state.segments.extract_if(.., |_, segment| segment.strong_count() == 0).map(|(n, _)| n).collect()
        };
        for number in unused {
            remove(file_name(number, SEGMENT));
        }
    }

    /// Deletes what a crash left. Not while a damaged snapshot is there: its segments may be of use to somebody.
    pub(crate) fn sweep(&self) {
        let _one = self.changes();
        if self.state().refused.is_empty() {
            self.delete(&[]);
        }
    }
}

/// Reads a manifest, and opens the segments that it refers to.
fn load(folder: &Path, number: u64, open: &mut BTreeMap<u64, Arc<Segment>>) -> Result<Whole, SnapshotError> {
    let bytes = fs::read(folder.join(file_name(number, MANIFEST)))?;
    let Manifest { meta, descriptor, places: records } = Manifest::from_bytes(&bytes)?;
    let mut places = BTreeMap::new();
    for PlaceRecord { part, segment: number, offset, len } in records {
        let segment = match open.get(&number) {
            Some(segment) => Arc::clone(segment),
            None => {
                let segment = Segment::open(folder, number)
                    .map_err(|error| damaged(format!("its segment {number}: {error}")))?;
                let segment = Arc::new(segment);
                open.insert(number, Arc::clone(&segment));
                segment
            }
        };
        if offset.checked_add(len).is_none_or(|end| end > segment.len) {
            return Err(damaged(format!("its segment {number} is cut short")));
        }
        places.insert(part, Place { segment, offset, len });
    }
    let nowhere = keys(&descriptor).find(|key| !places.contains_key(&key.part));
    match nowhere {
        Some(key) => Err(damaged(format!("its part {} lies nowhere", key.part))),
        None => Ok(Whole { meta, descriptor, places, number }),
    }
}

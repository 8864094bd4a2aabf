//! The store by itself.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use atlas_smr_execution::state::CRUDState;
use openraft::CommittedLeaderId;
use tempfile::TempDir;

use super::*;
use crate::disk::{Disk, DiskWrite};
use crate::log::HoldBack;
use crate::types::LogId;

const SHARDS: usize = 32;

fn id(index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(1, 0), index)
}

fn meta(index: u64) -> SnapshotMeta {
    SnapshotMeta {
        last_log_id: Some(id(index)),
        snapshot_id: format!("test-{index}"),
        ..SnapshotMeta::default()
    }
}

fn empty() -> ShardedState {
    ShardedState::builder().shards(SHARDS).build().expect("a state")
}

/// 1000 keys with values of 100 bytes: about 4 kB a part.
fn full() -> ShardedState {
    let mut state = empty();
    (0..1000).for_each(|key| put(&mut state, key, 1));
    state
}

fn put(state: &mut ShardedState, key: u32, value: u8) {
    state.put("column", &key.to_be_bytes(), &[value; 100]);
}

fn open_with(dir: &TempDir, disk: Disk) -> (SnapshotStore, Vec<store::Refused>) {
    let (store, refused) = SnapshotStore::open(dir.path(), disk, 2, HoldBack::default()).expect("a store");
    store.sweep();
    (store, refused)
}

fn open(dir: &TempDir) -> SnapshotStore {
    open_with(dir, Disk::default()).0
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// Writes a snapshot and returns it, and how many parts were written for it.
fn save(store: &SnapshotStore, index: u64, state: &ShardedState) -> Result<(Snapshot, usize), SnapshotError> {
    let mut writer = store.begin(meta(index), state.descriptor());
    let missing = writer.missing();
    for key in &missing {
        writer.add(key.part, state.part(PartId(key.part)).expect("a part").bytes())?;
    }
    Ok((writer.finish()?, missing.len()))
}

fn load(snapshot: &Snapshot) -> ShardedState {
    let mut state = empty();
    let parts = snapshot.read_parts().collect::<io::Result<Vec<_>>>().expect("parts");
    state.install(snapshot.descriptor(), parts).expect("a state");
    state
}

fn files(dir: &TempDir, ending: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir.path()).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> = paths.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    files.sort();
    files
}

fn bytes(files: &[PathBuf]) -> u64 {
    files.iter().map(|path| path.metadata().expect("a file").len()).sum()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("a file");
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("written");
}

#[test]
fn a_snapshot_comes_back_as_it_was() {
    let dir = folder();
    let state = full();
    let (snapshot, _) = save(&open(&dir), 7, &state).expect("saved");
    assert_eq!(load(&snapshot).digest(), state.digest());
    let newest = open(&dir).newest().expect("a snapshot");
    assert_eq!((newest.meta(), newest.meta().last_log_id), (snapshot.meta(), Some(id(7))));
    assert_eq!(load(&newest).digest(), state.digest());
}

#[test]
fn only_changed_parts_are_written() {
    let dir = folder();
    let store = open(&dir);
    let mut state = full();
    let (_, all) = save(&store, 1, &state).expect("saved");
    assert_eq!(all, SHARDS, "every part holds keys");
    let whole = bytes(&files(&dir, ".segment"));
    put(&mut state, 5, 2);
    let (snapshot, few) = save(&store, 2, &state).expect("saved");
    assert_eq!(few, 1, "one key was changed");
    let segments = files(&dir, ".segment");
    assert_eq!(segments.len(), 2);
    let fresh = bytes(&segments[1..]);
    assert!(fresh * 10 < whole, "{fresh} bytes for one part of {whole}");
    let (_, none) = save(&store, 3, &state).expect("saved");
    assert_eq!((none, files(&dir, ".segment").len()), (0, 2), "nothing new, no segment");
    assert_eq!(load(&snapshot).digest(), state.digest());
    assert_eq!(load(&open(&dir).newest().expect("a snapshot")).digest(), state.digest());
}

#[test]
fn garbage_is_collected() {
    let dir = folder();
    let store = open(&dir);
    let mut state = full();
    save(&store, 0, &state).expect("saved");
    let whole = bytes(&files(&dir, ".segment"));
    for round in 1..200u32 {
        (0..10).for_each(|i| put(&mut state, (round * 37 + i * 111) % 1000, round as u8));
        let (snapshot, _) = save(&store, u64::from(round), &state).expect("saved");
        assert_eq!(load(&snapshot).digest(), state.digest(), "round {round}");
        assert!(files(&dir, ".manifest").len() <= 2);
        let now = bytes(&files(&dir, ".segment"));
        // Each of the two snapshots refers to at most its own size and as much garbage.
        assert!(now <= 4 * whole, "{now} bytes for a state of {whole} in round {round}");
    }
    let numbers = |ending| -> BTreeSet<_> {
        files(&dir, ending).iter().filter_map(|p| p.file_stem().map(ToOwned::to_owned)).collect()
    };
    assert!(numbers(".segment").len() < 70, "segments stay few");
    drop(store);
    assert_eq!(load(&open(&dir).newest().expect("a snapshot")).digest(), state.digest());
}

#[test]
fn many_small_segments_are_put_together() {
    let dir = folder();
    let store = open(&dir);
    let mut state = ShardedState::builder().shards(1024).build().expect("a state");
    let mut most = 0;
    for round in 0..300u32 {
        put(&mut state, round, 1);
        save(&store, u64::from(round), &state).expect("saved");
        most = most.max(files(&dir, ".segment").len());
    }
    assert!((20..=140).contains(&most), "{most} segments: 64 and the last one, for each of two snapshots");
    assert_eq!(load(&store.newest().expect("a snapshot")).digest(), state.digest());
}

#[test]
fn a_snapshot_stays_readable_after_its_files_are_gone() {
    let dir = folder();
    let store = open(&dir);
    let mut state = full();
    let (old, _) = save(&store, 1, &state).expect("saved");
    let digest = state.digest();
    for round in 2..6 {
        (0..1000).for_each(|key| put(&mut state, key, round as u8));
        save(&store, round, &state).expect("saved");
    }
    assert_eq!(files(&dir, ".manifest").len(), 2);
    assert_eq!(load(&old).digest(), digest);
    drop(old);
    (0..1000).for_each(|key| put(&mut state, key, 9));
    save(&store, 9, &state).expect("saved");
    assert_eq!(files(&dir, ".segment").len(), 2, "nobody holds the others");
}

#[test]
fn what_a_crash_leaves_is_harmless() {
    let dir = folder();
    let store = open(&dir);
    let mut state = full();
    save(&store, 1, &state).expect("saved");
    let digest = state.digest();
    put(&mut state, 5, 2);
    save(&store, 2, &state).expect("saved");
    drop(store);
    // Before the manifest had its name: a segment that nobody refers to, and pieces of files.
    let manifests = files(&dir, ".manifest");
    fs::remove_file(&manifests[1]).expect("removed");
    for name in ["00000000000000000007.segment.tmp", "00000000000000000007.manifest.tmp"] {
        fs::write(dir.path().join(name), b"half of").expect("written");
    }
    let (store, refused) = open_with(&dir, Disk::default());
    assert!(refused.is_empty(), "{refused:?}");
    let newest = store.newest().expect("the first one");
    assert_eq!((newest.meta().last_log_id, load(&newest).digest()), (Some(id(1)), digest));
    assert_eq!((files(&dir, ".tmp").len(), files(&dir, ".segment").len()), (0, 1), "swept");
    save(&store, 2, &state).expect("saved");
    assert_eq!(load(&open(&dir).newest().expect("a snapshot")).digest(), state.digest());
}

/// Every write of a second snapshot fails in turn: the first one stands, and a later try succeeds.
#[test]
fn a_failed_write_leaves_the_older_snapshot() {
    for failing in 0.. {
        let dir = folder();
        let count = std::sync::Arc::new(AtomicU32::new(u32::MAX));
        let seen = std::sync::Arc::new(Mutex::new(Vec::new()));
        let hook = {
            let (count, seen) = (count.clone(), seen.clone());
            move |what: DiskWrite| match count.fetch_sub(1, Ordering::SeqCst) {
                0 => {
                    seen.lock().expect("not poisoned").push(what);
                    Err(io::Error::other("no space left"))
                }
                _ => Ok(()),
            }
        };
        let (store, _) = open_with(&dir, Disk::failing(hook));
        let mut state = full();
        save(&store, 1, &state).expect("saved");
        let digest = state.digest();
        put(&mut state, 5, 2);
        put(&mut state, 6, 2);
        count.store(failing, Ordering::SeqCst);
        let outcome = save(&store, 2, &state);
        count.store(u32::MAX, Ordering::SeqCst);
        if seen.lock().expect("not poisoned").is_empty() {
            assert!(outcome.is_ok() && failing >= 4, "{failing} writes that can fail");
            break;
        }
        let error = outcome.expect_err("the disk is full").to_string();
        assert!(error.contains("no space left"), "{error}");
        assert_eq!(load(&store.newest().expect("the first one")).digest(), digest);
        assert_eq!((files(&dir, ".tmp").len(), files(&dir, ".segment").len()), (0, 1), "nothing is left");
        save(&store, 2, &state).expect("room again");
        assert_eq!(load(&open(&dir).newest().expect("a snapshot")).digest(), state.digest());
    }
}

#[test]
fn a_damaged_manifest_is_refused() {
    let dir = folder();
    let mut state = full();
    let store = open(&dir);
    save(&store, 1, &state).expect("saved");
    put(&mut state, 5, 2);
    save(&store, 2, &state).expect("saved");
    drop(store);
    let manifest = files(&dir, ".manifest").remove(1);
    let whole = fs::read(&manifest).expect("a file");
    for at in (0..whole.len()).step_by(97) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(&manifest, &damaged).expect("written");
        let (store, refused) = open_with(&dir, Disk::default());
        assert_eq!(refused.len(), 1, "byte {at}");
        assert_eq!(store.newest().expect("the older one").meta().last_log_id, Some(id(1)));
        fs::write(&manifest, &whole[..at]).expect("written");
        assert_eq!(open_with(&dir, Disk::default()).1.len(), 1, "cut to {at} bytes");
    }
    // The next snapshot ends it.
    let store = open(&dir);
    save(&store, 3, &state).expect("saved");
    drop(store);
    assert!(open_with(&dir, Disk::default()).1.is_empty());
}

#[test]
fn a_missing_or_short_segment_is_refused() {
    let dir = folder();
    let mut state = full();
    let store = open(&dir);
    save(&store, 1, &state).expect("saved");
    put(&mut state, 5, 2);
    save(&store, 2, &state).expect("saved");
    drop(store);
    let segment = files(&dir, ".segment").remove(1);
    let whole = fs::read(&segment).expect("a file");
    fs::write(&segment, &whole[1..]).expect("written");
    let (store, refused) = open_with(&dir, Disk::default());
    assert!(refused[0].reason.contains("cut short"), "{refused:?}");
    assert_eq!(store.newest().expect("the older one").meta().last_log_id, Some(id(1)));
    fs::remove_file(&segment).expect("removed");
    assert_eq!(open_with(&dir, Disk::default()).1.len(), 1);
}

#[test]
fn a_damaged_part_is_not_given_out() {
    let dir = folder();
    let (snapshot, _) = save(&open(&dir), 1, &full()).expect("saved");
    flip(&files(&dir, ".segment")[0], 10);
    let bad: Vec<_> = snapshot.parts().into_iter().filter(|&key| snapshot.read_part(key).is_err()).collect();
    assert_eq!(bad.len(), 1);
    let unknown = PartKey { part: 0, digest: [7; 32] };
    assert_eq!(snapshot.read_part(unknown).expect_err("unknown").kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_follower_receives_only_what_it_lacks() {
    let (there, here) = (folder(), folder());
    let (leader, follower) = (open(&there), open(&here));
    let mut state = full();
    save(&leader, 1, &state).expect("saved");
    save(&follower, 1, &state).expect("saved");
    (0..3).for_each(|key| put(&mut state, key, 2));
    let (snapshot, changed) = save(&leader, 2, &state).expect("saved");
    let mut incoming = follower.receive(&snapshot.manifest_bytes()).expect("a manifest");
    assert_eq!(incoming.meta(), snapshot.meta());
    let missing = incoming.missing();
    assert_eq!(missing.len(), changed);
    assert!(missing.iter().all(|key| snapshot.part_len(*key).is_some()));
    let mut wrong = snapshot.read_part(missing[0]).expect("a part").to_vec();
    wrong[30] ^= 1;
    assert!(matches!(incoming.add(&wrong), Err(SnapshotError::Unwanted { .. })));
    for &key in &missing {
        let part = snapshot.read_part(key).expect("a part");
        assert_eq!(incoming.add(&part).expect("wanted"), key);
        assert!(matches!(incoming.add(&part), Err(SnapshotError::Unwanted { .. })), "twice");
    }
    assert!(incoming.missing().is_empty());
    let received = incoming.finish().expect("whole");
    assert!(follower.owns(&received) && !follower.owns(&snapshot));
    assert_eq!(load(&received).digest(), state.digest());
    drop(follower);
    assert_eq!(load(&open(&here).newest().expect("a snapshot")).digest(), state.digest());
}

#[test]
fn an_unfinished_arrival_leaves_nothing() {
    let (there, here) = (folder(), folder());
    let (snapshot, _) = save(&open(&there), 1, &full()).expect("saved");
    let follower = open(&here);
    let mut incoming = follower.receive(&snapshot.manifest_bytes()).expect("a manifest");
    incoming.add(&snapshot.read_part(snapshot.parts()[0]).expect("a part")).expect("wanted");
    assert!(matches!(incoming.finish(), Err(SnapshotError::Incomplete { missing }) if missing == SHARDS - 1));
    assert!(follower.newest().is_none());
    assert_eq!(fs::read_dir(here.path()).expect("a folder").count(), 0);
    let manifest = snapshot.manifest_bytes();
    for len in [0, 10, manifest.len() - 1] {
        assert!(matches!(follower.receive(&manifest[..len]), Err(SnapshotError::Damaged { .. })));
    }
}

/// Otherwise the damage would travel into the new snapshot.
#[test]
fn a_damaged_part_of_an_older_snapshot_is_asked_for_again() {
    let (there, here) = (folder(), folder());
    let (leader, follower) = (open(&there), open(&here));
    let state = full();
    save(&follower, 1, &state).expect("saved");
    let (snapshot, _) = save(&leader, 2, &state).expect("saved");
    flip(&files(&here, ".segment")[0], 10);
    let mut incoming = follower.receive(&snapshot.manifest_bytes()).expect("a manifest");
    let missing = incoming.missing();
    assert_eq!(missing.len(), 1);
    incoming.add(&snapshot.read_part(missing[0]).expect("a part")).expect("wanted");
    assert_eq!(load(&incoming.finish().expect("whole")).digest(), state.digest());
}

/// While a snapshot arrives, those it refers to may be deleted.
#[test]
fn parts_that_an_arrival_refers_to_are_kept_for_it() {
    let (there, here) = (folder(), folder());
    let (leader, follower) = (open(&there), open(&here));
    let mut state = full();
    save(&follower, 1, &state).expect("saved");
    put(&mut state, 5, 2);
    let (snapshot, _) = save(&leader, 9, &state).expect("saved");
    let mut incoming = follower.receive(&snapshot.manifest_bytes()).expect("a manifest");
    let mut other = empty();
    for index in 2..5 {
        put(&mut other, index as u32, 7);
        save(&follower, index, &other).expect("saved");
    }
    for key in incoming.missing() {
        incoming.add(&snapshot.read_part(key).expect("a part")).expect("wanted");
    }
    incoming.finish().expect("whole");
    drop(follower);
    assert_eq!(load(&open(&here).newest().expect("a snapshot")).digest(), state.digest());
}

#[test]
fn what_is_kept_tells_the_log_where_to_begin() {
    let dir = folder();
    let hold = HoldBack::default();
    let (store, _) = SnapshotStore::open(dir.path(), Disk::default(), 2, hold.clone()).expect("a store");
    assert_eq!(hold.get(), None);
    let mut state = full();
    let mut newest = None;
    for index in [10, 20, 30] {
        put(&mut state, 5, index as u8);
        newest = Some(save(&store, index, &state).expect("saved").0);
    }
    assert_eq!(hold.get(), Some(id(20)));
    drop(store);
    let hold = HoldBack::default();
    let (store, _) = SnapshotStore::open(dir.path(), Disk::default(), 2, hold.clone()).expect("a store");
    assert_eq!(hold.get(), Some(id(20)), "also after opening");
    let newest = store.newest().or(newest).expect("a snapshot");
    store.keep_only(&newest);
    assert_eq!((hold.get(), files(&dir, ".manifest").len()), (Some(id(30)), 1));
    // The same place again replaces it.
    save(&store, 30, &state).expect("saved");
    assert_eq!(files(&dir, ".manifest").len(), 1);
}

/// Newer ones may have arrived and never been installed; what is installed now must be on the disk at the next start.
#[test]
fn a_snapshot_is_kept_although_newer_ones_are_there() {
    let dir = folder();
    let store = open(&dir);
    let mut state = full();
    save(&store, 20, &state).expect("saved");
    save(&store, 30, &state).expect("saved");
    put(&mut state, 5, 2);
    let (older, _) = save(&store, 10, &state).expect("saved");
    assert!(store.owns(&older));
    assert_eq!(older.meta().last_log_id, Some(id(10)));
    assert_eq!(store.newest().expect("a snapshot").meta().last_log_id, Some(id(30)));
    assert_eq!(files(&dir, ".manifest").len(), 3, "no newer one went for an older one");
    save(&store, 40, &state).expect("saved");
    assert_eq!(files(&dir, ".manifest").len(), 2, "the next one puts that right");
    let (older, _) = save(&store, 10, &state).expect("saved");
    store.keep_only(&older);
    drop((store, older));
    let newest = open(&dir).newest().expect("a snapshot");
    assert_eq!((newest.meta().last_log_id, load(&newest).digest()), (Some(id(10)), state.digest()));
}

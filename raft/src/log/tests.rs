//! The log by itself.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use openraft::storage::RaftLogStorageExt;
use openraft::{CommittedLeaderId, StorageError as AnyStorageError};
use tempfile::TempDir;

use super::*;
use crate::types::Command;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, 0), index)
}

/// An entry that tells its index and its term by what it carries.
fn entry(term: u64, index: u64) -> Entry {
    let command = Command { client: term, serial: index, operation: Bytes::from(vec![7; 100]) };
    let payload = EntryPayload::Normal(Batch { proposer: 1, commands: vec![command] });
    Entry { log_id: id(term, index), payload }
}

fn entries(term: u64, indexes: std::ops::Range<u64>) -> Vec<Entry> {
    indexes.map(|index| entry(term, index)).collect()
}

fn open_with(dir: &TempDir, disk: Disk) -> LogStore {
    LogStore::open(&dir.path().join("log"), 1 << 16, 1 << 12, disk, HoldBack::default()).expect("a log")
}

fn open(dir: &TempDir) -> LogStore {
    open_with(dir, Disk::default())
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// The terms of the entries from the first on that the log returns.
async fn terms(log: &mut LogStore) -> Vec<(u64, u64)> {
    let entries = log.try_get_log_entries(..).await.expect("read");
    entries
        .into_iter()
        .map(|entry| {
            let EntryPayload::Normal(batch) = &entry.payload else { panic!("another kind") };
            assert_eq!(batch.commands[0].serial, entry.log_id.index, "the payload of this very entry");
            assert_eq!(batch.commands[0].client, entry.log_id.leader_id.term);
            (entry.log_id.leader_id.term, entry.log_id.index)
        })
        .collect()
}

fn of_term(term: u64, indexes: std::ops::Range<u64>) -> Vec<(u64, u64)> {
    indexes.map(|index| (term, index)).collect()
}

#[tokio::test]
async fn what_an_ended_process_wrote_is_synced_before_it_counts() {
    let dir = folder();
    let mut log = open(&dir);
    log.blocking_append(entries(1, 1..4)).await.expect("appended");
    drop(log);
    // A log that cannot be synced is not opened: what is in it might never reach the disk.
    let failing = Disk::failing(|_| Err(io::Error::other("no sync")));
    let opened = LogStore::open(&dir.path().join("log"), 1, 1, failing, HoldBack::default());
    assert_eq!(opened.err().map(|error| error.to_string()), Some("no sync".to_owned()));
    assert_eq!(terms(&mut open(&dir)).await, of_term(1, 1..4));
}

#[tokio::test]
async fn everything_is_there_after_reopening() -> Outcome {
    let dir = folder();
    let mut log = open(&dir);
    log.save_vote(&Vote::new_committed(3, 1)).await?;
    log.blocking_append(entries(1, 0..200)).await?;
    log.save_committed(Some(id(1, 150))).await?;
    log.close().await.expect("synced");
    drop(log);
    let mut log = open(&dir);
    assert_eq!(log.read_vote().await?, Some(Vote::new_committed(3, 1)));
    assert_eq!(log.read_committed().await?, Some(id(1, 150)));
    assert_eq!(terms(&mut log).await, of_term(1, 0..200));

    log.truncate(id(1, 180)).await?;
    log.blocking_append(entries(2, 180..190)).await?;
    log.purge(id(1, 99)).await?;
    drop(log);
    let mut log = open(&dir);
    let expected = [of_term(1, 100..180), of_term(2, 180..190)].concat();
    assert_eq!(terms(&mut log).await, expected);
    let state = log.get_log_state().await?;
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(id(1, 99)), Some(id(2, 189))));
    assert_eq!(log.read_vote().await?, Some(Vote::new_committed(3, 1)));
    Ok(())
}

/// Files of 4 KiB hold about 25 of these entries.
#[tokio::test]
async fn files_of_purged_entries_are_deleted() -> Outcome {
    let dir = folder();
    let files = || std::fs::read_dir(dir.path().join("log")).expect("a folder").count();
    let mut log = open(&dir);
    log.blocking_append(entries(1, 0..1000)).await?;
    let before = files();
    log.purge(id(1, 990)).await?;
    log.close().await.expect("synced");
    drop(log);
    assert!(before > 20 && files() < 6, "{before} files before, {} after", files());
    assert_eq!(terms(&mut open(&dir)).await, of_term(1, 991..1000));
    Ok(())
}

#[tokio::test]
async fn what_is_handed_over_twice_is_sorted_out() -> Outcome {
    let dir = folder();
    let mut log = open(&dir);
    log.blocking_append(entries(1, 0..20)).await?;
    log.purge(id(1, 9)).await?;
    // At or below the purged one: dropped, and yet acknowledged.
    log.blocking_append(entries(2, 5..10)).await?;
    assert_eq!(terms(&mut log).await, of_term(1, 10..20));
    // Overlaps the end.
    log.blocking_append(entries(2, 15..18)).await?;
    assert_eq!(terms(&mut log).await, [of_term(1, 10..15), of_term(2, 15..18)].concat());
    // Committed and the same: nothing to do.
    log.save_committed(Some(id(2, 17))).await?;
    log.blocking_append(entries(2, 16..19)).await?;
    assert_eq!(terms(&mut log).await, [of_term(1, 10..15), of_term(2, 15..19)].concat());
    drop(log);
    assert_eq!(terms(&mut open(&dir)).await, [of_term(1, 10..15), of_term(2, 15..19)].concat());
    Ok(())
}

#[tokio::test]
async fn a_gap_is_refused() {
    let dir = folder();
    let mut log = open(&dir);
    log.blocking_append(entries(1, 0..5)).await.expect("appended");
    log.blocking_append(entries(1, 7..8)).await.expect_err("6 is missing");
    log.blocking_append(entries(1, 5..6)).await.expect_err("nothing after a failure");
    assert!(log.failure().is_some());
    drop(log);
    assert_eq!(terms(&mut open(&dir)).await, of_term(1, 0..5));
}

#[tokio::test]
async fn the_log_reaches_from_the_oldest_snapshot() -> Outcome {
    let dir = folder();
    let mut log = open(&dir);
    log.blocking_append(entries(1, 0..100)).await?;
    log.hold.set(Some(id(1, 30)));
    log.purge(id(1, 80)).await?;
    assert_eq!(log.purged(), Some(id(1, 30)));
    log.purge(id(1, 85)).await?;
    assert_eq!(log.purged(), Some(id(1, 30)), "held at what is purged exactly");
    assert_eq!(terms(&mut log).await, of_term(1, 31..100));
    log.hold.set(Some(id(1, 60)));
    log.purge(id(1, 20)).await?;
    assert_eq!(log.purged(), Some(id(1, 30)), "below what is purged");
    log.purge(id(1, 50)).await?;
    assert_eq!(log.purged(), Some(id(1, 50)), "no more than asked for");
    log.purge(id(1, 80)).await?;
    assert_eq!(log.purged(), Some(id(1, 60)));
    log.hold.set(None);
    log.purge(id(1, 80)).await?;
    assert_eq!(log.purged(), Some(id(1, 80)));
    Ok(())
}

/// A snapshot was installed: its last entry is not in the log, or another one is in its place.
#[tokio::test]
async fn a_snapshot_takes_the_place_of_the_log() -> Outcome {
    let dir = folder();
    let mut log = open(&dir);
    log.blocking_append(entries(1, 0..20)).await?;
    log.save_committed(Some(id(1, 15))).await?;
    log.hold.set(Some(id(1, 10)));
    log.purge(id(3, 500)).await?;
    assert_eq!(terms(&mut log).await, []);
    log.blocking_append(entries(3, 501..503)).await?;
    drop(log);
    let mut log = open(&dir);
    assert_eq!(terms(&mut log).await, of_term(3, 501..503));

    log.save_committed(Some(id(3, 501))).await?;
    log.blocking_append(entries(4, 503..520)).await?;
    log.purge(id(5, 510)).await?;
    assert_eq!(
        log.log().read(0, u64::MAX).count(),
        0,
        "what follows entries that were not decided was not either"
    );
    log.blocking_append(entries(5, 511..513)).await?;
    drop(log);
    assert_eq!(terms(&mut open(&dir)).await, of_term(5, 511..513));
    Ok(())
}

/// The last entry is of a higher term than the snapshot, and below it: it was never decided.
#[tokio::test]
async fn a_snapshot_of_a_lower_term_takes_the_place_of_the_log() -> Outcome {
    for (committed, at_start) in
        [(None, false), (Some(id(3, 70)), false), (None, true), (Some(id(3, 70)), true)]
    {
        let dir = folder();
        let mut log = open(&dir);
        log.blocking_append([entries(3, 0..75), entries(5, 75..81)].concat()).await?;
        log.save_committed(committed).await?;
        if at_start {
            drop(log);
            log = open(&dir);
            log.lead_to(id(3, 100))?;
        } else {
            log.purge(id(3, 100)).await?;
        }
        let state = log.get_log_state().await?;
        assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(id(3, 100)), Some(id(3, 100))));
        log.blocking_append(entries(6, 101..103)).await?;
        drop(log);
        assert_eq!(terms(&mut open(&dir)).await, of_term(6, 101..103));
    }
    Ok(())
}

#[tokio::test]
async fn a_log_that_leads_to_the_state_is_left_alone() -> Outcome {
    let dir = folder();
    let mut log = open(&dir);
    log.blocking_append(entries(1, 0..20)).await?;
    log.lead_to(id(1, 15))?;
    assert_eq!(terms(&mut log).await, of_term(1, 0..20));
    log.purge(id(1, 9)).await?;
    log.lead_to(id(1, 5))?;
    assert_eq!(terms(&mut log).await, of_term(1, 10..20));
    // Another entry is in the state's place.
    log.lead_to(id(2, 15))?;
    assert_eq!((log.purged(), terms(&mut log).await), (Some(id(2, 15)), vec![]));
    Ok(())
}

#[tokio::test]
async fn old_entries_come_from_the_disk() -> Outcome {
    let dir = folder();
    let mut log = open(&dir);
    let count = WARM * 3;
    log.blocking_append(entries(1, 0..count)).await?;
    // Eviction comes with the appends after a sync.
    log.blocking_append(entries(1, count..count + 10)).await?;
    assert_eq!(terms(&mut log).await, of_term(1, 0..count + 10));
    assert!(log.log().stat().payload_cache_miss > 0, "something was read from the disk");
    let some = log.try_get_log_entries(3..70).await?;
    assert_eq!((some.len(), some[0].log_id.index), (67, 3));
    Ok(())
}

#[tokio::test]
async fn a_limited_read_ends_in_time() -> Outcome {
    let dir = folder();
    let mut log = open(&dir);
    let big = |index| {
        let command = Command { client: 1, serial: index, operation: Bytes::from(vec![7; READ_BYTES / 4]) };
        let payload = EntryPayload::Normal(Batch { proposer: 1, commands: vec![command] });
        Entry { log_id: id(1, index), payload }
    };
    log.blocking_append((0..10).map(big)).await?;
    let read = log.limited_get_log_entries(2, 10).await?;
    assert_eq!((read.len(), read[0].log_id.index), (3, 2));
    let command = Command { client: 1, serial: 10, operation: Bytes::from(vec![7; READ_BYTES * 2]) };
    let payload = EntryPayload::Normal(Batch { proposer: 1, commands: vec![command] });
    log.blocking_append([Entry { log_id: id(1, 10), payload }]).await?;
    assert_eq!(log.limited_get_log_entries(10, 11).await?.len(), 1, "one, however big");
    Ok(())
}

fn is_full<T: Debug>(result: Result<T, StorageError>) {
    let error: AnyStorageError<u64> = result.expect_err("the disk is full");
    assert!(error.to_string().contains("no space left"), "{error}");
}

#[tokio::test]
async fn a_full_disk_is_reported_and_nothing_is_acknowledged_after_it() {
    let full = Arc::new(AtomicBool::new(false));
    let hook = {
        let full = Arc::clone(&full);
        move |_| match full.load(Ordering::SeqCst) {
            true => Err(io::Error::new(io::ErrorKind::StorageFull, "no space left")),
            false => Ok(()),
        }
    };
    let dir = folder();
    let mut log = open_with(&dir, Disk::failing(hook));
    log.blocking_append(entries(1, 0..10)).await.expect("room");
    full.store(true, Ordering::SeqCst);
    is_full(log.blocking_append(entries(1, 10..20)).await);
    // Room again does not help: nobody knows what is on the disk.
    full.store(false, Ordering::SeqCst);
    is_full(log.blocking_append(entries(1, 10..20)).await);
    is_full(log.save_vote(&Vote::new(9, 9)).await);
    is_full(log.truncate(id(1, 5)).await);
    assert!(log.close().await.is_err());
    assert!(log.failure().is_some_and(|what| what.contains("no space left")));
    drop(log);
    let mut log = open(&dir);
    assert_eq!(terms(&mut log).await, of_term(1, 0..10));
    assert_eq!(log.read_vote().await.expect("read"), None);
}

/// The write is refused in the flush thread, after `append` has returned.
#[tokio::test]
async fn a_sync_that_fails_is_told_to_all_who_wait_for_it() {
    let writes = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let hook = {
        let writes = Arc::clone(&writes);
        // An append asks once, and so does each sync.
        move |_| match writes.fetch_add(1, Ordering::SeqCst) {
            0 => Ok(()),
            _ => Err(io::Error::other("no space left")),
        }
    };
    let dir = folder();
    let mut log = open_with(&dir, Disk::failing(hook));
    is_full(log.blocking_append(entries(1, 0..10)).await);
    assert_eq!(writes.load(Ordering::SeqCst), 2, "the sync was tried, and not again");
    is_full(log.blocking_append(entries(1, 10..11)).await);
}

#[tokio::test]
async fn a_flush_thread_that_panics_lets_go_of_all_who_wait() {
    let hook = |_| {
        let here = std::thread::current();
        if here.name() == Some("raft-log-flush") { panic!("asked to") } else { Ok(()) }
    };
    let dir = folder();
    let mut log = open_with(&dir, Disk::failing(hook));
    log.blocking_append(entries(1, 0..10)).await.expect_err("never synced");
    log.close().await.expect_err("nobody syncs");
    log.blocking_append(entries(1, 10..11)).await.expect_err("nothing is taken any more");
    assert!(log.failure().is_some_and(|what| what.contains("flush thread")));
}

#[tokio::test]
async fn one_sync_serves_all_that_waits() -> Outcome {
    let syncs = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let open_gate = Arc::new(AtomicBool::new(false));
    let hook = {
        let (syncs, open_gate) = (Arc::clone(&syncs), Arc::clone(&open_gate));
        move |_| {
            if std::thread::current().name() == Some("raft-log-flush") {
                syncs.fetch_add(1, Ordering::SeqCst);
                while !open_gate.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
            }
            Ok(())
        }
    };
    let dir = folder();
    let log = open_with(&dir, Disk::failing(hook));
    let mut calls = tokio::task::JoinSet::new();
    let mut call = || {
        let log = log.clone();
        calls.spawn(async move { log.close().await });
    };
    call();
    while syncs.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    (0..99).for_each(|_| call());
    while log.flusher.waiting() < 99 {
        tokio::task::yield_now().await;
    }
    open_gate.store(true, Ordering::SeqCst);
    while let Some(call) = calls.join_next().await {
        call.expect("no panic").expect("synced");
    }
    assert_eq!(syncs.load(Ordering::SeqCst), 2, "one for the first call, one for the others");
    Ok(())
}

#[tokio::test]
async fn a_log_has_one_owner() {
    let dir = folder();
    let _log = open(&dir);
    let second = LogStore::open(&dir.path().join("log"), 1, 1, Disk::default(), HoldBack::default());
    assert!(second.is_err(), "the first still has it");
}

#[tokio::test]
async fn a_damaged_log_is_an_error() {
    let dir = folder();
    let mut log = open(&dir);
    log.blocking_append(entries(1, 0..100)).await.expect("appended");
    drop(log);
    let mut files: Vec<_> = std::fs::read_dir(dir.path().join("log"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "wal"))
        .collect();
    files.sort();
    let mut bytes = std::fs::read(&files[1]).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&files[1], bytes).expect("written");
    let reopened = LogStore::open(&dir.path().join("log"), 1, 1, Disk::default(), HoldBack::default());
    assert!(reopened.is_err(), "not a shorter log");
}

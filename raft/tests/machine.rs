//! The machine: answers, equal states on all executors, restarts, snapshots while it goes on, failures.

mod common;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use atlas_smr_raft::disk::{Disk, DiskWrite};
use atlas_smr_raft::machine::ExecutorKind;
use atlas_smr_raft::snapshot::Snapshot;
use atlas_smr_raft::storage::{Identity, OpenError, Storage, open};
use atlas_smr_raft::types::{Answers, Entry};
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::{RaftLogReader, RaftSnapshotBuilder, StorageHelper};

use common::{
    Numbers, Request, apply, batch, blank, command, config, encode, id, log_with_conflicts, membership, read,
    replies, storage,
};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

async fn snapshot(storage: &mut Storage<Numbers>) -> Snapshot {
    let mut builder = storage.machine.get_snapshot_builder().await;
    *builder.build_snapshot().await.expect("a snapshot").snapshot
}

/// The digest once everything that was applied is executed.
async fn digest(storage: &Storage<Numbers>) -> (u64, String) {
    storage.reader.read(vec![encode(&Request::get("a"))]).await.expect("read");
    storage.reader.digest().await.expect("a digest")
}

#[tokio::test]
async fn every_entry_gets_one_answer() {
    for kind in ExecutorKind::ALL {
        let dir = folder();
        let mut storage = storage(dir.path(), kind);
        let own = storage.reader.incarnation();
        let add = |serial| command(1, serial, &Request::add("a", 1));
        let entries = [
            membership(0, &[1]),
            blank(1),
            batch(2, own, vec![add(1), add(2)]),
            batch(3, own + 1, vec![add(3), add(4), add(5)]),
            batch(4, own, vec![]),
            batch(5, own, vec![add(6)]),
            membership(6, &[1, 2]),
        ];
        let answers = storage.machine.apply(entries).await.expect("applied");
        assert_eq!(answers.len(), 7, "{kind}");
        for nobody in [0, 1, 3, 4, 6] {
            assert_eq!(answers[nobody], Answers::default(), "{kind}, entry {nobody}");
        }
        assert_eq!(replies(&answers[2]), [Some(1), Some(2)]);
        // What others proposed changed the state all the same.
        assert_eq!(replies(&answers[5]), [Some(6)]);
        let (applied, members) = storage.machine.applied_state().await.expect("a state");
        assert_eq!((applied, *members.log_id()), (Some(id(1, 6)), Some(id(1, 6))));
        assert_eq!((storage.reader.applied(), storage.reader.executed()), (6, 5));
        storage
            .machine
            .apply([batch(6, own, vec![add(7)])])
            .await
            .expect_err("an entry that was applied before");
    }
}

#[tokio::test]
async fn a_learner_answers_reads_only() {
    let dir = folder();
    let mut config = config(dir.path(), ExecutorKind::MultiDivisible);
    config.learner = true;
    let mut storage = open(config, Numbers).expect("a storage");
    let own = storage.reader.incarnation();
    let entry = |index, proposer| batch(index, proposer, vec![command(1, index, &Request::add("a", 5))]);
    let answers = storage.machine.apply([entry(1, own + 1)]).await.expect("applied");
    assert_eq!(answers, [Answers::default()]);
    assert_eq!(read(&storage, "a").await, Some(5));
    // It was promoted, and leads: it has no answers for those who wait.
    let error = storage.machine.apply([entry(2, own)]).await.expect_err("it cannot lead").to_string();
    assert!(error.contains("learner"), "{error}");
    assert_eq!(read(&storage, "a").await, Some(5));
}

/// The same log, on every executor, proposed here or elsewhere, in calls of different sizes, ends in the same state.
#[tokio::test]
async fn all_executors_end_alike() {
    let log = |proposer| log_with_conflicts(7, 1, 300, proposer);
    let mut ends = Vec::new();
    for (kind, own, step) in [
        (ExecutorKind::SingleMonolithic, true, 300),
        (ExecutorKind::MultiMonolithic, true, 1),
        (ExecutorKind::SingleDivisible, false, 7),
        (ExecutorKind::MultiDivisible, true, 50),
        (ExecutorKind::MultiMonolithic, false, 300),
    ] {
        let dir = folder();
        let mut storage = storage(dir.path(), kind);
        let proposer = if own { storage.reader.incarnation() } else { 0 };
        let mut answers = Vec::new();
        for entries in log(proposer).chunks(step) {
            answers.extend(storage.machine.apply(entries.to_vec()).await.expect("applied"));
        }
        assert_eq!(answers.len(), 300);
        ends.push((kind, digest(&storage).await, own.then_some(answers)));
    }
    let (_, end, answers) = &ends[0];
    for (kind, other, replies) in &ends[1..] {
        assert_eq!(other, end, "{kind}");
        assert!(replies.is_none() || replies == answers, "{kind} answers alike");
    }
}

/// Appends and applies, as openraft does.
async fn append(storage: &mut Storage<Numbers>, entries: &[Entry]) {
    storage.log.blocking_append(entries.to_vec()).await.expect("appended");
    storage.machine.apply(entries.to_vec()).await.expect("applied");
}

/// Applies the log from where the state ends, as openraft does after a start.
async fn reapply(storage: &mut Storage<Numbers>) {
    let (applied, _) = storage.machine.applied_state().await.expect("a state");
    let from = applied.map_or(0, |id| id.index + 1);
    let entries = storage.log.try_get_log_entries(from..).await.expect("entries");
    assert!(entries.first().is_none_or(|entry| entry.log_id.index == from), "no gap");
    storage.machine.apply(entries).await.expect("applied");
}

fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("snapshots")).expect("a folder");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect();
    files.sort();
    files
}

fn damage(path: &Path) {
    let mut bytes = fs::read(path).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    fs::write(path, bytes).expect("written");
}

/// Two snapshots, and entries after each; the log is purged as far as openraft would.
async fn two_snapshots(dir: &Path, kind: ExecutorKind) -> (u64, String) {
    let mut storage = storage(dir, kind);
    append(&mut storage, &log_with_conflicts(1, 0, 50, 0)).await;
    snapshot(&mut storage).await;
    append(&mut storage, &log_with_conflicts(2, 50, 50, 0)).await;
    let newest = snapshot(&mut storage).await;
    assert_eq!(newest.meta().last_log_id, Some(id(1, 99)));
    append(&mut storage, &log_with_conflicts(3, 100, 50, 0)).await;
    storage.log.purge(id(1, 99)).await.expect("purged");
    storage.log.close().await.expect("synced");
    digest(&storage).await
}

#[tokio::test]
async fn a_restart_takes_the_snapshot_and_the_log() {
    for (kind, then) in [
        (ExecutorKind::SingleMonolithic, ExecutorKind::MultiDivisible),
        (ExecutorKind::MultiDivisible, ExecutorKind::SingleMonolithic),
        (ExecutorKind::SingleDivisible, ExecutorKind::MultiMonolithic),
        (ExecutorKind::MultiMonolithic, ExecutorKind::SingleDivisible),
    ] {
        let dir = folder();
        let end = two_snapshots(dir.path(), kind).await;
        let mut storage = storage(dir.path(), then);
        let (applied, members) = storage.machine.applied_state().await.expect("a state");
        assert_eq!(applied, Some(id(1, 99)), "the newest snapshot");
        assert!(members.log_id().is_some());
        reapply(&mut storage).await;
        assert_eq!(digest(&storage).await, end, "{kind}, then {then}");
    }
}

#[tokio::test]
async fn a_damaged_snapshot_gives_way_to_the_older_one() {
    for ending in [".manifest", ".segment"] {
        let dir = folder();
        let end = two_snapshots(dir.path(), ExecutorKind::MultiDivisible).await;
        damage(&files(dir.path(), ending)[1]);
        let mut storage = storage(dir.path(), ExecutorKind::MultiDivisible);
        let (applied, _) = storage.machine.applied_state().await.expect("a state");
        assert_eq!(applied, Some(id(1, 49)), "the older one: {ending}");
        reapply(&mut storage).await;
        assert_eq!(digest(&storage).await, end, "the log reached from there");
        // Goes on, and the damaged one is gone.
        snapshot(&mut storage).await;
        drop(storage);
        let mut storage = common::storage(dir.path(), ExecutorKind::SingleMonolithic);
        assert_eq!(storage.machine.applied_state().await.expect("a state").0, Some(id(1, 149)));
        assert_eq!(digest(&storage).await, end);
    }
}

#[tokio::test]
async fn nothing_is_made_up_when_all_snapshots_are_damaged() {
    let dir = folder();
    two_snapshots(dir.path(), ExecutorKind::MultiDivisible).await;
    for manifest in files(dir.path(), ".manifest") {
        damage(&manifest);
    }
    let open = || open(config(dir.path(), ExecutorKind::MultiDivisible), Numbers);
    let error = open().expect_err("all are damaged");
    assert!(matches!(&error, OpenError::Damaged { reasons } if reasons.len() == 2), "{error}");
    // Not even when they are gone.
    fs::remove_dir_all(dir.path().join("snapshots")).expect("removed");
    let error = open().expect_err("the log begins later");
    assert!(matches!(error, OpenError::Gap { purged: 49, state: None }), "{error}");
}

#[tokio::test]
async fn a_whole_log_makes_up_for_a_damaged_snapshot() {
    for ending in [".manifest", ".segment"] {
        let dir = folder();
        let kind = ExecutorKind::MultiDivisible;
        let mut before = storage(dir.path(), kind);
        append(&mut before, &log_with_conflicts(1, 0, 50, 0)).await;
        snapshot(&mut before).await;
        append(&mut before, &log_with_conflicts(2, 50, 10, 0)).await;
        let end = digest(&before).await;
        drop(before);
        damage(&files(dir.path(), ending)[0]);
        let mut after = storage(dir.path(), kind);
        assert_eq!(after.machine.applied_state().await.expect("a state").0, None, "{ending}");
        reapply(&mut after).await;
        assert_eq!(digest(&after).await, end, "{ending}");
        drop(after);
        // Not if the log is lost too.
        fs::remove_dir_all(dir.path().join("log")).expect("removed");
        let error = open(config(dir.path(), kind), Numbers).expect_err("nothing is left");
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    }
}

#[test]
fn a_directory_belongs_to_one_node() {
    let dir = folder();
    let open_as = |cluster: &str, node| {
        let mut config = config(dir.path(), ExecutorKind::default());
        config.identity = Some(Identity { cluster: cluster.to_owned(), node });
        open(config, Numbers)
    };
    drop(storage(dir.path(), ExecutorKind::default()));
    drop(open_as("one", 1).expect("nobody's until now"));
    drop(open_as("one", 1).expect("its own"));
    for (cluster, node) in [("one", 2), ("two", 1)] {
        let error = open_as(cluster, node).expect_err("another one's");
        assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
        assert!(error.to_string().contains("node 1 of cluster \"one\""), "{error}");
    }
    drop(open_as("one", 1).expect("still its own"));
}

#[tokio::test]
async fn a_snapshot_is_of_the_moment_when_it_was_asked_for() {
    for kind in ExecutorKind::ALL {
        let dir = folder();
        let mut storage = storage(dir.path(), kind);
        storage.machine.apply(log_with_conflicts(1, 0, 40, 0)).await.expect("applied");
        let mut builder = storage.machine.get_snapshot_builder().await;
        let before = storage.machine.applied_state().await.expect("a state");
        let building = tokio::spawn(async move { builder.build_snapshot().await });
        for index in 40..80 {
            let entries = log_with_conflicts(index, index, 1, 0);
            storage.machine.apply(entries).await.expect("applied");
        }
        let built = building.await.expect("no panic").expect("a snapshot");
        assert_eq!((built.meta.last_log_id, built.meta.last_membership.clone()), before);
        // The same entries, and no more, give that state.
        let other = folder();
        let mut reference = common::storage(other.path(), ExecutorKind::SingleMonolithic);
        reference.machine.apply(log_with_conflicts(1, 0, 40, 0)).await.expect("applied");
        let expected = digest(&reference).await.1;
        let got = built.snapshot.descriptor().digest();
        assert_eq!(blake3::Hash::from(got).to_hex().to_string(), expected, "{kind}");
        assert_ne!(digest(&storage).await.1, expected, "applying went on");
    }
}

/// A second snapshot after few changes writes few bytes, also where the state comes as a whole.
#[tokio::test]
async fn snapshots_are_incremental() {
    for kind in ExecutorKind::ALL {
        let dir = folder();
        let mut storage = storage(dir.path(), kind);
        for index in 0..20 {
            let many = (0..100).map(|i| command(index, i, &Request::add(&format!("key {index} {i}"), 1)));
            apply(&mut storage, index, many.collect()).await;
        }
        snapshot(&mut storage).await;
        apply(&mut storage, 20, vec![command(0, 0, &Request::add("key 0 0", 1))]).await;
        apply(&mut storage, 21, vec![command(0, 500, &Request::add("key 0 0", 1))]).await;
        snapshot(&mut storage).await;
        let size = |path: &PathBuf| path.metadata().expect("a file").len();
        let segments = files(dir.path(), ".segment");
        assert_eq!(segments.len(), 2, "{kind}");
        // The number, its slot, and the mark of the last batch: 3 parts of 64.
        assert!(size(&segments[1]) * 10 < size(&segments[0]), "{kind}: {} bytes", size(&segments[1]));
    }
}

#[tokio::test]
async fn a_snapshot_of_one_kind_is_installed_into_another() {
    for (from, to) in [
        (ExecutorKind::MultiDivisible, ExecutorKind::SingleMonolithic),
        (ExecutorKind::MultiMonolithic, ExecutorKind::SingleDivisible),
        (ExecutorKind::SingleDivisible, ExecutorKind::MultiMonolithic),
        (ExecutorKind::SingleMonolithic, ExecutorKind::MultiDivisible),
    ] {
        let (there, here) = (folder(), folder());
        let (mut leader, mut follower) = (storage(there.path(), from), storage(here.path(), to));
        let log = log_with_conflicts(5, 0, 100, 0);
        append(&mut leader, &log).await;
        append(&mut follower, &log[..20]).await;
        snapshot(&mut follower).await;
        let sent = snapshot(&mut leader).await;
        let mut incoming = follower.snapshots.receive(&sent.manifest_bytes()).expect("a manifest");
        for key in incoming.missing() {
            incoming.add(&sent.read_part(key).expect("a part")).expect("wanted");
        }
        let received = incoming.finish().expect("whole");
        let meta = received.meta().clone();
        follower.machine.install_snapshot(&meta, Box::new(received)).await.expect("installed");
        follower.log.purge(id(1, 99)).await.expect("purged");
        assert_eq!(follower.machine.applied_state().await.expect("a state").0, Some(id(1, 99)));
        assert_eq!(files(here.path(), ".manifest").len(), 1, "no other is kept");
        assert_eq!(digest(&follower).await, digest(&leader).await, "{from} into {to}");
        // Both go on alike, and the follower can restart from it.
        let more = log_with_conflicts(6, 100, 30, 0);
        append(&mut leader, &more).await;
        append(&mut follower, &more).await;
        let end = digest(&leader).await;
        assert_eq!(digest(&follower).await, end, "{from} into {to}");
        drop(follower);
        let mut follower = storage(here.path(), to);
        reapply(&mut follower).await;
        assert_eq!(digest(&follower).await, end, "{from} into {to}, restarted");
    }
}

/// A crash between the arrival of a snapshot and its installation: it is of committed entries, and the log begins anew.
#[tokio::test]
async fn a_snapshot_that_arrived_is_taken_at_the_next_start() {
    let (there, here) = (folder(), folder());
    let kind = ExecutorKind::MultiDivisible;
    let (mut leader, mut follower) = (storage(there.path(), kind), storage(here.path(), kind));
    let log = log_with_conflicts(5, 0, 100, 0);
    append(&mut leader, &log).await;
    append(&mut follower, &log[..20]).await;
    let sent = snapshot(&mut leader).await;
    let mut incoming = follower.snapshots.receive(&sent.manifest_bytes()).expect("a manifest");
    for key in incoming.missing() {
        incoming.add(&sent.read_part(key).expect("a part")).expect("wanted");
    }
    incoming.finish().expect("whole");
    drop(follower);
    let mut follower = storage(here.path(), kind);
    let (mut log, machine) = (follower.log.clone(), &mut follower.machine);
    let initial = StorageHelper::new(&mut log, machine).get_initial_state().await.expect("a state");
    assert_eq!(initial.committed, Some(id(1, 99)));
    let state = log.get_log_state().await.expect("a state");
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(id(1, 99)), Some(id(1, 99))));
    append(&mut follower, &log_with_conflicts(6, 100, 5, 0)).await;
    append(&mut leader, &log_with_conflicts(6, 100, 5, 0)).await;
    assert_eq!(digest(&follower).await, digest(&leader).await);
}

/// The same, and the log ends below the snapshot with entries of a higher term that were never decided.
#[tokio::test]
async fn a_snapshot_of_a_lower_term_that_arrived_is_taken_at_the_next_start() {
    let (there, here) = (folder(), folder());
    let kind = ExecutorKind::MultiDivisible;
    let (mut leader, mut follower) = (storage(there.path(), kind), storage(here.path(), kind));
    let log = log_with_conflicts(5, 0, 100, 0);
    append(&mut leader, &log).await;
    append(&mut follower, &log[..20]).await;
    let undecided = Entry { log_id: id(5, 20), ..blank(20) };
    follower.log.blocking_append([undecided]).await.expect("appended");
    let sent = snapshot(&mut leader).await;
    let mut incoming = follower.snapshots.receive(&sent.manifest_bytes()).expect("a manifest");
    for key in incoming.missing() {
        incoming.add(&sent.read_part(key).expect("a part")).expect("wanted");
    }
    incoming.finish().expect("whole");
    drop(follower);
    let mut follower = storage(here.path(), kind);
    let (mut log, machine) = (follower.log.clone(), &mut follower.machine);
    StorageHelper::new(&mut log, machine).get_initial_state().await.expect("a state");
    let state = log.get_log_state().await.expect("a state");
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(id(1, 99)), Some(id(1, 99))));
    append(&mut follower, &log_with_conflicts(6, 100, 5, 0)).await;
    append(&mut leader, &log_with_conflicts(6, 100, 5, 0)).await;
    assert_eq!(digest(&follower).await, digest(&leader).await);
}

#[tokio::test]
async fn an_older_snapshot_is_not_installed() {
    let (there, here) = (folder(), folder());
    let kind = ExecutorKind::MultiDivisible;
    let (mut leader, mut follower) = (storage(there.path(), kind), storage(here.path(), kind));
    leader.machine.apply(log_with_conflicts(5, 0, 50, 0)).await.expect("applied");
    follower.machine.apply(log_with_conflicts(5, 0, 60, 0)).await.expect("applied");
    let sent = snapshot(&mut leader).await;
    let meta = sent.meta().clone();
    let error = follower.machine.install_snapshot(&meta, Box::new(sent)).await.expect_err("older");
    assert!(error.to_string().contains("older than the state"), "{error}");
    assert_eq!(follower.machine.applied_state().await.expect("a state").0, Some(id(1, 59)));
}

#[tokio::test]
async fn an_application_that_fails_stops_the_machine_with_its_cause() {
    for kind in ExecutorKind::ALL {
        let dir = folder();
        let mut storage = storage(dir.path(), kind);
        let own = storage.reader.incarnation();
        apply(&mut storage, 1, vec![command(1, 1, &Request::add("a", 1))]).await;
        let entry = batch(2, own, vec![command(1, 2, &Request::Panic)]);
        // Whoever waits is let go.
        let applied = tokio::time::timeout(Duration::from_secs(60), storage.machine.apply([entry])).await;
        let error = applied.expect("an end").expect_err("it panics").to_string();
        assert!(error.contains("asked to"), "{error}");
        let next = batch(3, own, vec![command(1, 3, &Request::add("a", 1))]);
        let error = storage.machine.apply([next]).await.expect_err("it has stopped").to_string();
        assert!(error.contains("asked to"), "{error}");
        let error =
            storage.reader.read(vec![encode(&Request::get("a"))]).await.expect_err("stopped").to_string();
        assert!(error.contains("asked to"), "{error}");
        assert!(storage.reader.digest().await.is_err());
        assert!(storage.reader.failure().is_some_and(|cause| cause.contains("asked to")));
        let mut builder = storage.machine.get_snapshot_builder().await;
        let error = builder.build_snapshot().await.expect_err("stopped").to_string();
        assert!(error.contains("asked to"), "{error}");
        drop((builder, storage.machine));
        let error = storage.reader.shutdown().await.expect_err("it failed").to_string();
        assert!(error.contains("asked to"), "{error}");
    }
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_written_is_an_error_and_the_machine_goes_on() {
    for kind in ExecutorKind::ALL {
        let dir = folder();
        let full = Arc::new(AtomicBool::new(true));
        let mut config = config(dir.path(), kind);
        let hook = Arc::clone(&full);
        config.disk = Disk::failing(move |what| match what {
            DiskWrite::Segment if hook.load(Ordering::SeqCst) => Err(io::Error::other("no space left")),
            _ => Ok(()),
        });
        let mut storage = open(config, Numbers).expect("a storage");
        apply(&mut storage, 1, vec![command(1, 1, &Request::add("a", 1))]).await;
        let mut builder = storage.machine.get_snapshot_builder().await;
        let error = builder.build_snapshot().await.expect_err("no room").to_string();
        assert!(error.contains("no space left"), "{error}");
        drop(builder);
        full.store(false, Ordering::SeqCst);
        let answers = apply(&mut storage, 2, vec![command(1, 2, &Request::add("a", 1))]).await;
        assert_eq!(replies(&answers), [Some(2)]);
        snapshot(&mut storage).await;
        drop(storage);
        assert_eq!(read(&common::storage(dir.path(), kind), "a").await, Some(2));
    }
}

/// A builder that nobody uses leaves its messages in the channel; the next one passes them over.
#[tokio::test]
async fn a_builder_that_is_dropped_costs_the_next_one_nothing() {
    for kind in ExecutorKind::ALL {
        let dir = folder();
        let mut storage = storage(dir.path(), kind);
        storage.machine.apply(log_with_conflicts(1, 0, 30, 0)).await.expect("applied");
        drop(storage.machine.get_snapshot_builder().await);
        storage.machine.apply(log_with_conflicts(2, 30, 30, 0)).await.expect("applied");
        let end = digest(&storage).await.1;
        let snapshot = snapshot(&mut storage).await;
        assert_eq!(blake3::Hash::from(snapshot.descriptor().digest()).to_hex().to_string(), end, "{kind}");
    }
}

/// The multi-threaded executors may answer a read beside a batch that was queued before it.
#[tokio::test]
async fn reads_see_what_was_applied_before_them() {
    let dir = folder();
    let mut storage = storage(dir.path(), ExecutorKind::MultiMonolithic);
    for index in 1..100 {
        // Nobody waits for these.
        let commands = (0..500).map(|i| command(1, index * 500 + i, &Request::add("a", 1)));
        storage.machine.apply([batch(index, 0, commands.collect())]).await.expect("applied");
        assert_eq!(read(&storage, "a").await, Some(index * 500));
    }
    assert!(storage.reader.read(Vec::new()).await.expect("nothing").is_empty());
    assert_eq!(storage.reader.read_stale(vec![encode(&Request::get("a"))]).await.expect("read").len(), 1);
}

/// More entries than the executor's queue holds, in one call.
#[tokio::test]
async fn a_full_queue_is_waited_for() {
    for own in [true, false] {
        let dir = folder();
        let mut config = config(dir.path(), ExecutorKind::MultiDivisible);
        config.executor_config.executing_buffer = 1;
        let mut storage = open(config, Numbers).expect("a storage");
        let proposer = if own { storage.reader.incarnation() } else { 0 };
        let entry = |index| batch(index, proposer, vec![command(1, index, &Request::add("a", 1))]);
        let answers = storage.machine.apply((1..=300).map(entry)).await.expect("applied");
        assert_eq!((answers.len(), read(&storage, "a").await), (300, Some(300)));
    }
}

#[tokio::test]
async fn the_end_waits_for_what_was_queued() {
    let dir = folder();
    let Storage { log, mut machine, reader, snapshots } = storage(dir.path(), ExecutorKind::MultiMonolithic);
    machine.apply(log_with_conflicts(4, 0, 200, 0)).await.expect("applied");
    let metrics = reader.metrics();
    drop((log, machine, snapshots));
    reader.shutdown().await.expect("a good end");
    let batches = log_with_conflicts(4, 0, 200, 0);
    let batches =
        batches.iter().filter(|entry| matches!(entry.payload, openraft::EntryPayload::Normal(_))).count();
    assert_eq!(metrics.counters().batches, batches as u64);
}

#[test]
fn settings_that_cannot_work_are_named() {
    let dir = folder();
    let wrong = |change: fn(&mut atlas_smr_raft::storage::StorageConfig)| {
        let mut config = config(dir.path(), ExecutorKind::default());
        change(&mut config);
        open(config, Numbers).expect_err("wrong").to_string()
    };
    assert!(wrong(|c| c.snapshots_kept = 1).contains("`snapshots_kept`"));
    assert!(wrong(|c| c.log_chunk_bytes = 0).contains("`log_chunk_bytes`"));
    assert!(wrong(|c| c.dir = PathBuf::new()).contains("`dir`"));
    assert!(wrong(|c| c.executor_config.threads = Some(0)).contains("`threads`"));
}

#[test]
fn a_directory_has_one_owner() {
    let dir = folder();
    let _first = storage(dir.path(), ExecutorKind::default());
    let second = open(config(dir.path(), ExecutorKind::default()), Numbers);
    assert!(matches!(second, Err(OpenError::Log { .. })), "{second:?}");
}

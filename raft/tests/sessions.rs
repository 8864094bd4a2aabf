//! Exactly once: what the session table promises to clients.

mod common;

use std::time::Duration;

use atlas_smr_raft::machine::ExecutorKind;
use atlas_smr_raft::session::SLOTS;
use atlas_smr_raft::storage::open;
use atlas_smr_raft::types::{Answer, Command};
use bytes::Bytes;
use openraft::RaftSnapshotBuilder;
use openraft::storage::RaftStateMachine;

use common::{Numbers, Request, apply, command, config, read, replies, reply, storage};

fn add(client: u64, serial: u64, key: &str) -> Command {
    command(client, serial, &Request::add(key, 1))
}

#[tokio::test]
async fn a_duplicate_is_executed_once_and_answered_again() {
    for kind in ExecutorKind::ALL {
        let dir = tempfile::tempdir().expect("a folder");
        let mut storage = storage(dir.path(), kind);
        let first = apply(&mut storage, 1, vec![add(1, 1, "a"), add(1, 2, "a")]).await;
        assert_eq!(replies(&first), [Some(1), Some(2)]);
        // In a later batch.
        let again = apply(&mut storage, 2, vec![add(1, 2, "a"), add(1, 1, "a"), add(1, 3, "a")]).await;
        assert_eq!(replies(&again), [Some(2), Some(1), Some(3)], "{kind}");
        // Within one batch.
        let twice = apply(&mut storage, 3, vec![add(1, 4, "a"), add(2, 4, "a"), add(1, 4, "a")]).await;
        assert_eq!(replies(&twice), [Some(4), Some(5), Some(4)], "{kind}");
        assert_eq!(read(&storage, "a").await, Some(5), "{kind}");
    }
}

#[tokio::test]
async fn a_duplicate_is_recognised_after_a_snapshot_and_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut before = storage(dir.path(), ExecutorKind::MultiDivisible);
    apply(&mut before, 1, (0..50).map(|serial| add(9, serial, "a")).collect()).await;
    before.machine.get_snapshot_builder().await.build_snapshot().await.expect("a snapshot");
    drop(before);
    let mut after = storage(dir.path(), ExecutorKind::SingleMonolithic);
    let again = apply(&mut after, 2, vec![add(9, 7, "a"), add(9, 49, "a"), add(9, 50, "a")]).await;
    assert_eq!(replies(&again), [Some(8), Some(50), Some(51)]);
}

#[tokio::test]
async fn what_is_too_old_is_stale_and_not_executed() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut storage = storage(dir.path(), ExecutorKind::MultiMonolithic);
    let answers = apply(&mut storage, 1, vec![add(1, 5, "a"), add(1, 5 + SLOTS, "a"), add(1, 5, "a")]).await;
    assert_eq!((reply(&answers.0[0]), reply(&answers.0[1])), (Some(1), Some(2)));
    assert_eq!(answers.0[2], Answer::Stale);
    let late = apply(&mut storage, 2, vec![add(1, 5, "a"), add(1, 6, "a")]).await;
    assert_eq!(
        (&late.0[0], reply(&late.0[1])),
        (&Answer::Stale, Some(3)),
        "its neighbour has a slot of its own"
    );
    assert_eq!(read(&storage, "a").await, Some(3));
}

#[tokio::test]
async fn clients_do_not_share_numbers() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut storage = storage(dir.path(), ExecutorKind::SingleDivisible);
    let commands =
        [0, 1, u64::MAX].into_iter().flat_map(|client| [add(client, 0, "a"), add(client, u64::MAX, "a")]);
    let answers = apply(&mut storage, 1, commands.collect()).await;
    assert_eq!(replies(&answers), (1..=6).map(Some).collect::<Vec<_>>());
}

#[tokio::test]
async fn malformed_bytes_cost_their_sender_an_answer_and_nobody_else_anything() {
    for kind in ExecutorKind::ALL {
        let dir = tempfile::tempdir().expect("a folder");
        let mut storage = storage(dir.path(), kind);
        let malformed = |serial, operation: &'static [u8]| Command {
            client: 1,
            serial,
            operation: Bytes::from_static(operation),
        };
        let mut trailing = add(1, 4, "a");
        trailing.operation = [&trailing.operation[..], b"more"].concat().into();
        let commands =
            vec![add(1, 1, "a"), malformed(2, b""), malformed(3, b"\xff\xff"), trailing, add(1, 5, "a")];
        let answers = apply(&mut storage, 1, commands).await;
        assert_eq!((reply(&answers.0[0]), reply(&answers.0[4])), (Some(1), Some(2)), "{kind}");
        assert!(answers.0[1..4].iter().all(|answer| *answer == Answer::Malformed), "{answers:?}");
        // The number is not used up.
        assert_eq!(replies(&apply(&mut storage, 2, vec![add(1, 3, "a")]).await), [Some(3)]);
        let read = storage.reader.read(vec![Bytes::from_static(b"\xff")]).await.expect("an answer");
        assert_eq!(read, [Answer::Malformed]);
    }
}

/// One client's operations on keys of their own run ahead without a single replay; on one key they do not.
///
/// How much runs ahead is up to the scheduler, so there are as many batches as it takes.
#[tokio::test]
async fn numbers_of_one_client_do_not_collide() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut config = config(dir.path(), ExecutorKind::MultiMonolithic);
    config.executor_config.spin = Duration::from_millis(2);
    let mut storage = open(config, Numbers).expect("a storage");
    let mut serials = 0..;
    let mut indexes = 1..=20_000;
    let metrics = storage.reader.metrics();
    while metrics.counters().speculations < 2000 {
        let own = |serial: u64| add(1, serial, &format!("key {}", serial % 512));
        let commands = serials.by_ref().take(256).map(own).collect();
        apply(&mut storage, indexes.next().expect("enough batches"), commands).await;
    }
    assert_eq!(metrics.counters().replays, 0);
    let mut hot = 0;
    while metrics.counters().replays == 0 {
        let commands = serials.by_ref().take(256).map(|serial| add(1, serial, "hot")).collect();
        apply(&mut storage, indexes.next().expect("enough batches"), commands).await;
        hot += 256;
    }
    assert_eq!(read(&storage, "hot").await, Some(hot));
}

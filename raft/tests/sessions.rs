//! Exactly once: what the session table promises to clients.

mod common;

use std::time::Duration;

use atlas_smr_execution::app::{Application, ApplicationData, ScalableApp};
use atlas_smr_execution::error::BoxError;
use atlas_smr_execution::state::{CRUDState, ShardedState};
use atlas_smr_raft::machine::ExecutorKind;
use atlas_smr_raft::session::{MAX_KEPT_REPLY, SLOTS};
use atlas_smr_raft::storage::open;
use atlas_smr_raft::types::{Answer, Command};
use bytes::Bytes;
use openraft::RaftSnapshotBuilder;
use openraft::storage::RaftStateMachine;

use common::{Numbers, Request, apply, batch, command, config, read, replies, reply, storage};

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
async fn a_number_that_was_used_for_another_operation_is_refused() {
    for kind in ExecutorKind::ALL {
        let dir = tempfile::tempdir().expect("a folder");
        let mut storage = storage(dir.path(), kind);
        apply(&mut storage, 1, vec![add(1, 1, "a"), add(1, 2, "a")]).await;
        // The client begins anew under its old identity.
        let answers = apply(&mut storage, 2, vec![add(1, 1, "b"), add(1, 2, "a"), add(1, 3, "b")]).await;
        assert_eq!(answers.0[0], Answer::NumberTaken, "{kind}");
        assert_eq!((reply(&answers.0[1]), reply(&answers.0[2])), (Some(2), Some(1)), "{kind}");
        // Nor does it take the place of what was executed.
        assert_eq!(replies(&apply(&mut storage, 3, vec![add(1, 1, "a")]).await), [Some(1)], "{kind}");
        let within = apply(&mut storage, 4, vec![add(1, 4, "a"), add(1, 4, "b"), add(1, 4, "a")]).await;
        assert_eq!(within.0[1], Answer::NumberTaken, "{kind}");
        assert_eq!((reply(&within.0[0]), reply(&within.0[2])), (Some(3), Some(3)), "{kind}");
        assert_eq!((read(&storage, "a").await, read(&storage, "b").await), (Some(3), Some(1)), "{kind}");
    }
}

/// Counts how often it was asked, and answers with as many bytes as it is asked for.
#[derive(Clone, Debug)]
struct Long;

impl ApplicationData for Long {
    type Request = usize;
    type Reply = (u64, Vec<u8>);

    fn same_reply(a: &Self::Reply, b: &Self::Reply) -> bool {
        a == b
    }
}

fn count(state: &mut impl CRUDState, len: usize) -> (u64, Vec<u8>) {
    let count = state.read_with("count", b"", |bytes| bytes.map_or(0, |bytes| u64::from(bytes[0]))) + 1;
    state.put("count", b"", &[count as u8]);
    (count, vec![7; len])
}

impl Application<ShardedState> for Long {
    type AppData = Long;

    fn initial_state() -> Result<ShardedState, BoxError> {
        Ok(ShardedState::builder().shards(4).build()?)
    }

    fn unordered_execution(&self, _: &ShardedState, _: usize) -> (u64, Vec<u8>) {
        (0, Vec::new())
    }

    fn update(&self, state: &mut ShardedState, len: usize) -> (u64, Vec<u8>) {
        count(state, len)
    }
}

impl ScalableApp<ShardedState> for Long {
    fn speculatively_execute(&self, state: &mut impl CRUDState, len: usize) -> (u64, Vec<u8>) {
        count(state, len)
    }
}

#[tokio::test]
async fn a_reply_that_is_too_long_is_given_once() {
    // The count takes a byte, and the length of the bytes three.
    let longest = MAX_KEPT_REPLY - 4;
    for kind in ExecutorKind::ALL {
        let dir = tempfile::tempdir().expect("a folder");
        let mut storage = open(config(dir.path(), kind), Long).expect("a storage");
        let own = storage.reader.incarnation();
        let ask = |serial, len: usize| Command {
            client: 1,
            serial,
            operation: postcard::to_allocvec(&len).expect("a request").into(),
        };
        let commands = vec![ask(1, longest), ask(2, longest + 1), ask(1, longest), ask(2, longest + 1)];
        let more = vec![ask(2, longest + 1), ask(2, 1), ask(3, 1)];
        let entries = [batch(1, own, commands), batch(2, own, more)];
        let answers = storage.machine.apply(entries).await.expect("applied");
        let done = |count: u64, len| {
            Answer::Done(postcard::to_allocvec(&(count, vec![7u8; len])).expect("a reply").into())
        };
        let first = [done(1, longest), done(2, longest + 1), done(1, longest), Answer::ReplyNotKept];
        assert!(answers[0].0 == first, "{kind}");
        assert!(answers[1].0 == [Answer::ReplyNotKept, Answer::NumberTaken, done(3, 1)], "{kind}");
    }
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

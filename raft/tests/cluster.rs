//! Three nodes, real connections: what clients see while nodes come and go.

mod common;
mod nodes;

use atlas_smr_raft::client::{Client, ClientConfig, ClientError, Consistency};
use atlas_smr_raft::config::MemberConfig;
use atlas_smr_raft::disk::{Disk, DiskWrite};
use atlas_smr_raft::node::{Node, NodeError, StartError};
use atlas_smr_raft::storage::StorageConfig;
use atlas_smr_raft::types::Answer;
use nodes::{Cluster, add, addresses, eventually, get, reply};

use common::{Fragile, Numbers, Request};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_reaches_all_nodes() {
    let cluster = Cluster::start(3, |_| {}).await;
    let client = cluster.client();
    for round in 1..=20 {
        let operations =
            vec![add("a", 1), add("b", round), nodes::encode(&Request::Sum("a".into(), "c".into()))];
        let answers = client.execute(operations).await.expect("executed");
        assert_eq!(reply(&answers[0]), Some(round));
    }
    cluster.assert_equal().await;
    for index in 0..3 {
        let address = cluster.client_address(index);
        let answers = client.read_at(&address, vec![get("a")], Consistency::Stale).await.expect("a node");
        assert_eq!(reply(&answers[0]), Some(20));
        let status = client.status(&address, true).await.expect("a node");
        assert_eq!((status.id, status.nodes.len()), (index as u64 + 1, 3));
        assert_eq!(status.executor, cluster.configs[index].executor.kind.to_string());
        assert_eq!(status.digest.map(|digest| digest.hex.len()), Some(64));
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_takes_over_and_nothing_is_executed_twice() {
    let mut cluster = Cluster::start(3, |_| {}).await;
    let client = cluster.client();
    for expected in 1..=10 {
        let answers = client.execute(vec![add("a", 1)]).await.expect("executed");
        assert_eq!(reply(&answers[0]), Some(expected));
    }
    let old = cluster.leader().await;
    cluster.abort(old).await;
    for expected in 11..=20 {
        let answers = client.execute(vec![add("a", 1)]).await.expect("executed by the next leader");
        assert_eq!(reply(&answers[0]), Some(expected), "each exactly once");
    }
    assert_ne!(cluster.leader().await, old);
    cluster.run(old).await;
    cluster.assert_equal().await;
    let answers = client.read(vec![get("a")], Consistency::Linearizable).await.expect("read");
    assert_eq!(reply(&answers[0]), Some(20));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_survives_its_leader() {
    let mut cluster = Cluster::start(3, |_| {}).await;
    let client = cluster.client();
    let pipeline = client.pipeline();
    let asking = tokio::spawn(async move {
        let mut sum = 0;
        for _ in 0..50 {
            let pending = pipeline.submit(vec![add("a", 1); 10]).await.expect("room");
            let next = pipeline.submit(vec![add("a", 1); 10]).await.expect("room");
            for pending in [pending, next] {
                let answers = pending.answers().await.expect("answered");
                assert_eq!(answers.len(), 10);
                sum += answers.iter().filter(|answer| reply(answer).is_some()).count();
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        sum
    });
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let old = cluster.leader().await;
    cluster.abort(old).await;
    assert_eq!(asking.await.expect("no panic"), 1000);
    let answers = client.read(vec![get("a")], Consistency::Linearizable).await.expect("read");
    assert_eq!(reply(&answers[0]), Some(1000), "each exactly once");
    cluster.run(old).await;
    cluster.assert_equal().await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_far_behind_gets_a_snapshot_and_only_what_it_lacks() {
    let mut cluster = Cluster::start(3, |config| {
        config.raft.snapshot_every = 10;
        config.raft.entries_kept = 0;
    })
    .await;
    let client = cluster.client();
    for key in 0..200 {
        client.execute(vec![add(&format!("key-{key}"), key)]).await.expect("executed");
    }
    let leader = cluster.leader().await;
    let follower = (leader + 1) % 3;
    // It must not lag: what it lacks now would travel too.
    cluster.assert_equal().await;
    // In order, so that it has a snapshot of nearly all parts.
    cluster.nodes[follower].take().expect("it runs").shutdown().await.expect("an orderly end");
    // The same operation again and again, as from a client that gets no answers: entries, but no more changes.
    for _ in 0..60 {
        let again = ClientConfig { client: Some(7), first_serial: Some(1), ..cluster.client_config() };
        let again = Client::new(again).expect("valid");
        let answers = again.execute(vec![add("key-0", 1)]).await.expect("executed");
        assert_eq!(reply(&answers[0]), Some(1), "executed once, and answered alike each time");
    }
    let leader = cluster.leader().await;
    let (purged, last) = {
        let metrics = cluster.node(leader).raft().metrics();
        let purged = eventually("a purge", async || {
            let purged = metrics.borrow().purged.map_or(0, |id| id.index);
            (purged > 230).then_some(purged)
        })
        .await;
        let last = metrics.borrow().last_log_index;
        (purged, last)
    };
    cluster.run(follower).await;
    assert!(cluster.node(follower).raft().metrics().borrow().last_applied.is_none_or(|id| id.index < purged));
    cluster.assert_equal().await;
    let node = cluster.node(follower);
    let snapshot = node.raft().metrics().borrow().snapshot.map_or(0, |id| id.index);
    assert!(snapshot >= purged, "by snapshot: {snapshot}, {purged}, {last:?}");
    let transfers = node.transfers();
    assert!(transfers.snapshots >= 1, "{transfers:?}");
    assert!(
        transfers.parts_received >= 1 && transfers.parts_received <= 4 && transfers.parts_offered > 40,
        "the parts that it has do not travel: {transfers:?}"
    );
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_linearizable_unless_asked_otherwise() {
    let cluster = Cluster::start(3, |_| {}).await;
    let client = cluster.client();
    let other = cluster.client();
    for expected in 1..=30 {
        client.execute(vec![add("a", 1)]).await.expect("executed");
        let answers = other.read(vec![get("a"), get("b")], Consistency::Linearizable).await.expect("read");
        assert_eq!((reply(&answers[0]), reply(&answers[1])), (Some(expected), None));
    }
    let leader = cluster.leader().await;
    let follower = cluster.client_address((leader + 1) % 3);
    let refused = client.read_at(&follower, vec![get("a")], Consistency::Linearizable).await;
    assert!(
        matches!(&refused, Err(ClientError::Unavailable(why)) if why.contains("does not lead")),
        "{refused:?}"
    );
    eventually("the value on a follower", async || {
        let answers =
            client.read_at(&follower, vec![get("a")], Consistency::Stale).await.expect("a follower");
        (reply(&answers[0]) == Some(30)).then_some(())
    })
    .await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_up_its_number_again_has_its_operations_executed() {
    let cluster = Cluster::start(1, |_| {}).await;
    for expected in 1..=3 {
        let config = ClientConfig { client: Some(7), ..cluster.client_config() };
        let answers = Client::new(config).expect("valid").execute(vec![add("a", 1)]).await.expect("executed");
        assert_eq!(reply(&answers[0]), Some(expected), "another operation, not the first one again");
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_follows_but_does_not_lead() {
    let fourth = addresses(2);
    let learner = MemberConfig {
        id: 4,
        peer_address: fourth[0].clone(),
        client_address: fourth[1].clone(),
        learner: true,
    };
    let mut cluster = Cluster::start(3, |config| config.members.push(learner.clone())).await;
    let mut config = cluster.configs[0].clone();
    config.id = 4;
    config.bootstrap = false;
    config.data_dir = config.data_dir.with_file_name("4");
    cluster.configs.push(config);
    cluster.nodes.push(None);
    cluster.run(3).await;
    let client = cluster.client();
    client.execute(vec![add("a", 5)]).await.expect("executed");
    eventually("the value on the learner", async || {
        let read = client.read_at(&learner.client_address, vec![get("a")], Consistency::Stale).await;
        read.is_ok_and(|answers| reply(&answers[0]) == Some(5)).then_some(())
    })
    .await;
    let status = client.status(&learner.client_address, false).await.expect("the learner");
    assert_eq!(status.role, "learner");
    assert!(status.nodes.iter().any(|node| node.id == 4 && node.learner));
    let linearizable =
        client.read_at(&learner.client_address, vec![get("a")], Consistency::Linearizable).await;
    assert!(matches!(linearizable, Err(ClientError::Unavailable(_))), "{linearizable:?}");
    // A client that knows the learner only is told who leads.
    let addresses = vec![learner.client_address.clone()];
    let told = Client::new(ClientConfig { addresses, timeout_ms: 60_000, ..ClientConfig::default() })
        .expect("valid");
    let answers = told.execute(vec![add("a", 1)]).await.expect("executed by the leader");
    assert_eq!(reply(&answers[0]), Some(6));
    cluster.assert_equal().await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_a_call_ends_at_its_deadline_and_its_outcome_is_unknown() {
    let mut cluster = Cluster::start(3, |_| {}).await;
    cluster.client().execute(vec![add("a", 1)]).await.expect("executed");
    let leader = cluster.leader().await;
    for index in [(leader + 1) % 3, (leader + 2) % 3] {
        cluster.abort(index).await;
    }
    let config = ClientConfig { timeout_ms: 1_500, attempt_timeout_ms: 700, ..cluster.client_config() };
    let hasty = Client::new(config).expect("valid");
    let outcome = hasty.execute(vec![add("a", 1)]).await;
    assert!(matches!(outcome, Err(ClientError::Unknown(_))), "{outcome:?}");
    let read = hasty.read(vec![get("a")], Consistency::Linearizable).await;
    assert!(matches!(read, Err(ClientError::Unknown(_))), "{read:?}");
    let address = cluster.client_address(leader);
    let answers = hasty.read_at(&address, vec![get("a")], Consistency::Stale).await.expect("it still runs");
    assert_eq!(reply(&answers[0]), Some(1), "nothing is executed without a quorum");
    for index in [(leader + 1) % 3, (leader + 2) % 3] {
        cluster.run(index).await;
    }
    let answers = cluster.client().execute(vec![add("a", 0)]).await.expect("executed");
    assert!(matches!(reply(&answers[0]), Some(1 | 2)), "executed once or never: {answers:?}");
    cluster.assert_equal().await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_everything_and_a_stop_leaves_a_snapshot() {
    let mut cluster = Cluster::start(1, |config| config.listen.http = "127.0.0.1:0".parse().ok()).await;
    let client = cluster.client();
    client.execute(vec![add("a", 7), nodes::encode(&Request::Get("a".into()))]).await.expect("executed");
    cluster.nodes[0].take().expect("it runs").shutdown().await.expect("an orderly end");
    cluster.run(0).await;
    let newest = cluster.node(0).snapshots().newest().expect("a snapshot");
    assert!(newest.meta().last_log_id.is_some_and(|id| id.index >= 1), "{:?}", newest.meta());
    let answers = client.read(vec![get("a")], Consistency::Linearizable).await.expect("read");
    assert_eq!(reply(&answers[0]), Some(7));
    cluster.abort(0).await;
    cluster.run(0).await;
    let answers = client.execute(vec![add("a", 1)]).await.expect("executed");
    assert_eq!(reply(&answers[0]), Some(8));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_stops_the_node_and_it_says_why() {
    let cluster = Cluster::start(1, |_| {}).await;
    let mut config = cluster.configs[0].clone();
    let own = addresses(2);
    config.data_dir = config.data_dir.with_file_name("failing");
    config.members[0].peer_address.clone_from(&own[0]);
    config.members[0].client_address.clone_from(&own[1]);
    let broken = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut storage = StorageConfig::new(&config.data_dir, config.executor.kind);
    storage.disk = Disk::failing({
        let broken = broken.clone();
        move |write| match write {
            DiskWrite::Log if broken.load(std::sync::atomic::Ordering::SeqCst) => {
                Err(std::io::Error::other("no space left, says the test"))
            }
            _ => Ok(()),
        }
    });
    let node = Node::start_with(config, storage, Numbers).await.expect("it starts");
    let addresses = vec![own[1].clone()];
    let client =
        Client::new(ClientConfig { addresses, timeout_ms: 5_000, ..ClientConfig::default() }).expect("valid");
    client.execute(vec![add("a", 1)]).await.expect("executed");
    broken.store(true, std::sync::atomic::Ordering::SeqCst);
    let (outcome, failure) = tokio::join!(client.execute(vec![add("a", 1)]), node.failed());
    assert!(matches!(outcome, Err(ClientError::Unknown(_))), "{outcome:?}");
    assert!(matches!(&failure, NodeError::Failed(cause) if cause.contains("says the test")), "{failure}");
    node.abort().await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_cannot_be_stored_stops_the_node_and_it_says_why() {
    let mut cluster = Cluster::start(3, |config| {
        config.raft.snapshot_every = 10;
        config.raft.entries_kept = 0;
    })
    .await;
    let leader = cluster.leader().await;
    let follower = (leader + 1) % 3;
    cluster.abort(follower).await;
    let client = cluster.client();
    for key in 0..40 {
        client.execute(vec![add(&format!("key-{key}"), key)]).await.expect("executed");
    }
    let leader = cluster.leader().await;
    let metrics = cluster.node(leader).raft().metrics();
    eventually("a purge", async || metrics.borrow().purged.is_some_and(|id| id.index > 20).then_some(()))
        .await;
    // It has lost its disk, and the next one fails too.
    let mut config = cluster.configs[follower].clone();
    config.data_dir = config.data_dir.with_file_name("empty");
    config.bootstrap = false;
    let mut storage = StorageConfig::new(&config.data_dir, config.executor.kind);
    storage.disk = Disk::failing(|write| match write {
        DiskWrite::Segment => Err(std::io::Error::other("no space left, says the test")),
        _ => Ok(()),
    });
    let node = Node::start_with(config, storage, Numbers).await.expect("it starts");
    let failure = tokio::time::timeout(nodes::PATIENCE, node.failed()).await.expect("it stops");
    let NodeError::Failed(cause) = &failure else { panic!("{failure}") };
    assert!(cause.contains("snapshot from another node") && cause.contains("says the test"), "{cause}");
    node.abort().await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_whose_application_panics_stops_and_says_why() {
    let mut cluster = Cluster::start(3, |config| config.listen.http = "127.0.0.1:0".parse().ok()).await;
    let client = cluster.client();
    client.execute(vec![add("a", 1)]).await.expect("executed");
    let follower = (cluster.leader().await + 1) % 3;
    cluster.abort(follower).await;
    let node = Node::start(cluster.configs[follower].clone(), Fragile).await.expect("it starts");
    client.execute(vec![add("a", 1)]).await.expect("executed by the others");
    // Nobody asks it for anything, and nothing else is ordered.
    let failure = tokio::time::timeout(nodes::PATIENCE, node.failed()).await.expect("it stops");
    assert!(matches!(&failure, NodeError::Failed(cause) if cause.contains("asked to")), "{failure}");
    let health = nodes::page(node.addresses().http.expect("it listens"), "/health").await;
    assert!(health.starts_with("HTTP/1.1 503") && health.contains("asked to"), "{health}");
    node.abort().await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_request_are_answered_and_change_nothing() {
    let cluster = Cluster::start(3, |_| {}).await;
    let client = cluster.client();
    let operations = vec![add("a", 1), vec![0xff; 40].into(), add("a", 1)];
    let answers = client.execute(operations).await.expect("executed");
    assert_eq!(answers[1], Answer::Malformed);
    assert_eq!((reply(&answers[0]), reply(&answers[2])), (Some(1), Some(2)));
    let answers =
        client.read(vec![vec![0xff; 40].into(), get("a")], Consistency::Linearizable).await.expect("read");
    assert_eq!((&answers[0], reply(&answers[1])), (&Answer::Malformed, Some(2)));
    cluster.assert_equal().await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_does_not_start_with_wrong_settings_or_a_taken_address() {
    let cluster = Cluster::start(1, |_| {}).await;
    let mut config = cluster.configs[0].clone();
    config.data_dir = config.data_dir.with_file_name("other");
    let taken = Node::start(config.clone(), Numbers).await;
    assert!(matches!(taken.err(), Some(StartError::Listen { .. })));
    config.batch.in_flight = 0;
    let wrong = Node::start(config, Numbers).await;
    assert!(matches!(wrong.err(), Some(StartError::Config(_))));
    cluster.shutdown().await;
}

//! The storage under openraft itself: three nodes in one process, each with another executor, joined by function calls.

mod common;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atlas_smr_raft::disk::{Disk, DiskWrite};
use atlas_smr_raft::log::LogStore;
use atlas_smr_raft::machine::{ExecutorKind, Reader};
use atlas_smr_raft::snapshot::SnapshotStore;
use atlas_smr_raft::storage::{Storage, open};
use atlas_smr_raft::types::{Answers, Batch, Command, Member, Raft, TypeConfig, Vote};
use openraft::error::{Fatal, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::storage::RaftLogStorage;
use openraft::{Config, ServerState, Snapshot, SnapshotPolicy};
use tempfile::TempDir;

use common::{Numbers, Random, Request, command, encode, replies, reply, storage};

/// A bound on waits that end at once, or never.
const HANG: Option<Duration> = Some(Duration::from_secs(60));

/// Who can be reached.
#[derive(Clone, Default)]
struct Router(Arc<Mutex<HashMap<u64, (Raft, SnapshotStore)>>>);

struct Link {
    router: Router,
    to: u64,
}

type Remote = RaftError<u64>;

impl Router {
    fn node(&self, id: u64) -> Option<(Raft, SnapshotStore)> {
        self.0.lock().expect("not poisoned").get(&id).cloned()
    }
}

fn gone() -> Unreachable {
    Unreachable::new(&std::io::Error::other("the node is not there"))
}

impl RaftNetworkFactory<TypeConfig> for Router {
    type Network = Link;

    async fn new_client(&mut self, to: u64, _: &Member) -> Link {
        Link { router: self.clone(), to }
    }
}

impl RaftNetwork<TypeConfig> for Link {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, Member, Remote>> {
        let (raft, _) = self.router.node(self.to).ok_or_else(gone)?;
        raft.append_entries(rpc).await.map_err(|_| gone().into())
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        _: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, Member, Remote>> {
        let (raft, _) = self.router.node(self.to).ok_or_else(gone)?;
        raft.vote(rpc).await.map_err(|_| gone().into())
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<TypeConfig>,
        _cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<TypeConfig, Fatal<u64>>> {
        let (raft, store) = self.router.node(self.to).ok_or_else(gone)?;
        let receive = move || {
            let sent = snapshot.snapshot;
            let mut incoming = store.receive(&sent.manifest_bytes()).expect("a manifest");
            for key in incoming.missing() {
                incoming.add(&sent.read_part(key).expect("a part")).expect("wanted");
            }
            incoming.finish().expect("whole")
        };
        let received = tokio::task::spawn_blocking(receive).await.expect("no panic");
        let snapshot = Snapshot { meta: received.meta().clone(), snapshot: Box::new(received) };
        raft.install_full_snapshot(vote, snapshot).await.map_err(|_| gone().into())
    }
}

struct Node {
    id: u64,
    raft: Raft,
    reader: Reader<Numbers>,
    log: LogStore,
}

impl Node {
    async fn start(id: u64, dir: &Path, kind: ExecutorKind, router: &Router) -> Node {
        Self::start_on(id, storage(dir, kind), router).await
    }

    async fn start_on(id: u64, storage: Storage<Numbers>, router: &Router) -> Node {
        let config = Config {
            heartbeat_interval: 100,
            election_timeout_min: 500,
            election_timeout_max: 1000,
            install_snapshot_timeout: 60_000,
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: 0,
            ..Config::default()
        };
        let config = Arc::new(config.validate().expect("settings"));
        let Storage { log, machine, reader, snapshots } = storage;
        let raft = Raft::new(id, config, router.clone(), log.clone(), machine).await.expect("a node");
        router.0.lock().expect("not poisoned").insert(id, (raft.clone(), snapshots));
        Node { id, raft, reader, log }
    }

    async fn stop(self, router: &Router) {
        router.0.lock().expect("not poisoned").remove(&self.id);
        self.raft.shutdown().await.expect("stopped");
        drop(self.raft);
        self.log.close().await.expect("synced");
        self.reader.shutdown().await.expect("a good end");
    }

    async fn write(&self, commands: Vec<Command>) -> Answers {
        let batch = Batch { proposer: self.reader.incarnation(), commands };
        self.raft.client_write(batch).await.expect("written").data
    }

    async fn snapshot(&self) {
        let before = self.raft.metrics().borrow().last_applied;
        self.raft.trigger().snapshot().await.expect("triggered");
        self.raft
            .wait(HANG)
            .metrics(|metrics| metrics.snapshot >= before, "a snapshot")
            .await
            .expect("built");
    }

    /// The digest when this node has executed everything up to `index`.
    async fn digest(&self, index: u64) -> (u64, String) {
        self.raft.wait(HANG).applied_index_at_least(Some(index), "all of the log").await.expect("applied");
        self.reader.read(vec![encode(&Request::get("a"))]).await.expect("read");
        self.reader.digest().await.expect("a digest")
    }
}

fn members() -> BTreeMap<u64, Member> {
    (1..=3).map(|id| (id, Member::default())).collect()
}

const KINDS: [ExecutorKind; 3] =
    [ExecutorKind::SingleMonolithic, ExecutorKind::MultiDivisible, ExecutorKind::MultiMonolithic];

async fn cluster(dirs: &[TempDir; 3], router: &Router) -> Vec<Node> {
    let mut nodes = Vec::new();
    for (id, (dir, kind)) in (1..).zip(dirs.iter().zip(KINDS)) {
        nodes.push(Node::start(id, dir.path(), kind, router).await);
    }
    nodes
}

/// The position of the leader in `nodes`, once it can write.
async fn leader(nodes: &[Node]) -> usize {
    let metrics =
        nodes[0].raft.wait(HANG).metrics(|metrics| metrics.current_leader.is_some(), "a leader").await;
    let id = metrics.expect("elected").current_leader.expect("one");
    let at = nodes.iter().position(|node| node.id == id).expect("it is one of these");
    nodes[at].raft.wait(HANG).state(ServerState::Leader, "it knows").await.expect("leads");
    at
}

/// Writes `count` batches with conflicts; the index of the last.
async fn write(node: &Node, seed: u64, count: u64) -> u64 {
    let mut random = Random(seed);
    for round in 0..count {
        let commands = (0..20).map(|i| {
            let (a, b) = (format!("k{}", random.below(5)), format!("k{}", random.below(50)));
            let request =
                if random.below(3) == 0 { Request::Sum(a, b) } else { Request::Add(a, random.below(9)) };
            command(seed, round * 20 + i, &request)
        });
        node.write(commands.collect()).await;
    }
    node.reader.applied()
}

async fn alike(nodes: &[Node], index: u64) -> (u64, String) {
    let end = nodes[0].digest(index).await;
    for node in &nodes[1..] {
        assert_eq!(node.digest(index).await, end, "node {} against node {}", node.id, nodes[0].id);
    }
    end
}

fn folders() -> [TempDir; 3] {
    std::array::from_fn(|_| tempfile::tempdir().expect("a folder"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mixed_cluster_ends_alike_and_restarts() {
    let (dirs, router) = (folders(), Router::default());
    let nodes = cluster(&dirs, &router).await;
    nodes[0].raft.initialize(members()).await.expect("initialized");
    let at = leader(&nodes).await;
    write(&nodes[at], 1, 40).await;
    for node in &nodes {
        node.snapshot().await;
    }
    write(&nodes[at], 2, 40).await;
    let known = command(2, 40 * 20, &Request::add("k0", 1));
    let first = nodes[at].write(vec![known.clone()]).await;
    assert!(replies(&first)[0].is_some());
    let last = nodes[at].reader.applied();
    let end = alike(&nodes, last).await;
    for node in nodes {
        node.stop(&router).await;
    }
    let nodes = cluster(&dirs, &router).await;
    let at = leader(&nodes).await;
    assert_eq!(alike(&nodes, last).await, end, "as before the restart");
    // A client that sends its last operation again gets the same answer.
    assert_eq!(nodes[at].write(vec![known]).await, first);
    let after = alike(&nodes, last + 1).await;
    assert!(after.0 > end.0);
    nodes[at].raft.ensure_linearizable().await.expect("the leader");
    let read = nodes[at].reader.read(vec![encode(&Request::get("k0"))]).await.expect("read");
    assert!(reply(&read[0]).is_some());
    for node in nodes {
        node.stop(&router).await;
    }
}

/// One node is away while the others go on and purge their logs; it comes back with what it had, and with nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_far_behind_catches_up_by_a_snapshot() {
    for empty in [false, true] {
        let (mut dirs, router) = (folders(), Router::default());
        let mut nodes = cluster(&dirs, &router).await;
        nodes[0].raft.initialize(members()).await.expect("initialized");
        let at = leader(&nodes).await;
        let last = write(&nodes[at], 1, 30).await;
        alike(&nodes, last).await;
        let away = (at + 1) % 3;
        let kind = KINDS[away];
        nodes[away].snapshot().await;
        let left = nodes.remove(away);
        let id = left.id;
        left.stop(&router).await;
        let at = leader(&nodes).await;
        let mut last = 0;
        for seed in 2..6 {
            last = write(&nodes[at], seed, 20).await;
            for node in &nodes {
                node.snapshot().await;
                // As far as the snapshot reaches; two are kept, so the log reaches further back.
                node.raft.trigger().purge_log(last).await.expect("purged");
            }
        }
        let purged =
            |metrics: &openraft::RaftMetrics<u64, Member>| metrics.purged.is_some_and(|id| id.index > 40);
        nodes[at].raft.wait(HANG).metrics(purged, "purged").await.expect("purged");
        let state = nodes[at].log.clone().get_log_state().await.expect("a state");
        assert!(
            state.last_purged_log_id.is_some_and(|id| id.index > 40),
            "the log alone is not enough: {state:?}"
        );
        if empty {
            dirs[id as usize - 1] = tempfile::tempdir().expect("a folder");
        }
        let back = Node::start(id, dirs[id as usize - 1].path(), kind, &router).await;
        nodes.push(back);
        let end = alike(&nodes, last).await;
        let installs = nodes[2].reader.metrics().counters().installs;
        assert!(installs > 0, "it went through the executor's state channel");
        let at = leader(&nodes).await;
        let more = write(&nodes[at], 9, 10).await;
        assert_ne!(alike(&nodes, more).await, end);
        for node in nodes {
            node.stop(&router).await;
        }
        // From what was installed, and the log after it.
        let nodes = cluster(&dirs, &router).await;
        leader(&nodes).await;
        alike(&nodes, more).await;
        for node in nodes {
            node.stop(&router).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_the_node_with_a_clear_message_and_loses_nothing_acknowledged() {
    let (dir, router) = (tempfile::tempdir().expect("a folder"), Router::default());
    let kind = ExecutorKind::MultiDivisible;
    let full = Arc::new(AtomicBool::new(false));
    let mut config = common::config(dir.path(), kind);
    let hook = Arc::clone(&full);
    config.disk = Disk::failing(move |what| match what {
        DiskWrite::Log if hook.load(Ordering::SeqCst) => Err(std::io::Error::other("no space left")),
        _ => Ok(()),
    });
    let node = Node::start_on(1, open(config, Numbers).expect("a storage"), &router).await;
    node.raft.initialize(BTreeMap::from([(1, Member::default())])).await.expect("initialized");
    node.raft.wait(HANG).state(ServerState::Leader, "alone").await.expect("leads");
    let add = |serial| command(1, serial, &Request::add("a", 1));
    assert_eq!(replies(&node.write(vec![add(1), add(2)]).await), [Some(1), Some(2)]);
    full.store(true, Ordering::SeqCst);
    let batch = Batch { proposer: node.reader.incarnation(), commands: vec![add(3)] };
    node.raft.client_write(batch).await.expect_err("not acknowledged");
    let stopped = |metrics: &openraft::RaftMetrics<u64, Member>| metrics.running_state.is_err();
    // Waiting for a stopped node may be an error of its own.
    let _ = node.raft.wait(HANG).metrics(stopped, "stopped").await;
    let cause = node.raft.metrics().borrow().running_state.clone().expect_err("stopped").to_string();
    assert!(cause.contains("no space left"), "{cause}");
    assert!(node.log.failure().is_some_and(|cause| cause.contains("no space left")));
    router.0.lock().expect("not poisoned").clear();
    let _ = node.raft.shutdown().await;
    let Node { raft, reader, log, .. } = node;
    drop((raft, log));
    reader.shutdown().await.expect("the executor is well");

    let node = Node::start(1, dir.path(), kind, &router).await;
    node.raft.wait(HANG).state(ServerState::Leader, "alone").await.expect("leads");
    let again = node.write(vec![add(1), add(2), add(3), add(4)]).await;
    assert_eq!(replies(&again), [Some(1), Some(2), Some(3), Some(4)], "each once");
    node.stop(&router).await;
}

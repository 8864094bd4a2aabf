//! Clients that give up, and nodes that do not answer.

mod common;
mod nodes;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use atlas_smr_execution::app::{Application, ScalableApp};
use atlas_smr_execution::error::BoxError;
use atlas_smr_execution::state::{CRUDState, ShardedState};
use atlas_smr_raft::client::{Client, ClientConfig};
use atlas_smr_raft::config::{MemberConfig, NodeConfig};
use atlas_smr_raft::node::Node;
use atlas_smr_raft::proto::client::client_client::ClientClient;
use atlas_smr_raft::proto::client::client_server::{Client as Service, ClientServer};
use atlas_smr_raft::proto::client::{self as proto, execute_response, failure, read_response};
use common::{Numbers, Reply, Request as Operation};
use nodes::{add, addresses, eventually, get};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// Numbers that take so long.
#[derive(Clone, Debug)]
struct Slow {
    read: Duration,
    update: Duration,
}

impl Application<ShardedState> for Slow {
    type AppData = Numbers;

    fn initial_state() -> Result<ShardedState, BoxError> {
        Numbers::initial_state()
    }

    fn unordered_execution(&self, state: &ShardedState, operation: Operation) -> Reply {
        std::thread::sleep(self.read);
        Numbers.unordered_execution(state, operation)
    }

    fn update(&self, state: &mut ShardedState, operation: Operation) -> Reply {
        self.speculatively_execute(state, operation)
    }
}

impl ScalableApp<ShardedState> for Slow {
    fn speculatively_execute(&self, state: &mut impl CRUDState, operation: Operation) -> Reply {
        std::thread::sleep(self.update);
        Numbers.speculatively_execute(state, operation)
    }
}

/// The settings of a cluster's first node; it is alone if there are no others.
fn settings(others: u64, learner: bool) -> (TempDir, NodeConfig) {
    let dir = tempfile::tempdir().expect("a folder");
    let addresses = addresses(2 * (others as usize + 1));
    let member = |(id, pair): (u64, &[String])| MemberConfig {
        id,
        peer_address: pair[0].clone(),
        client_address: pair[1].clone(),
        learner: learner && id == others + 1,
    };
    let members: Vec<_> = (1..).zip(addresses.chunks(2)).map(member).collect();
    let mut config = NodeConfig {
        id: 1,
        cluster: "test".to_owned(),
        data_dir: dir.path().join("of/the/node"),
        bootstrap: true,
        members,
        ..NodeConfig::default()
    };
    config.executor.threads = Some(2);
    (dir, config)
}

/// A client that waits long.
fn client(addresses: Vec<String>, attempt_timeout_ms: u64) -> Client {
    Client::new(ClientConfig { addresses, timeout_ms: 60_000, attempt_timeout_ms, ..ClientConfig::default() })
        .expect("a client")
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_nobody_waits_for_take_no_more_than_their_places() {
    let (_dir, mut config) = settings(0, false);
    config.executor.queue = 16;
    let address = config.members[0].client_address.clone();
    let slow = Slow { read: Duration::from_millis(25), update: Duration::ZERO };
    let node = Node::start(config, slow).await.expect("started");
    let client = client(vec![address.clone()], 60_000);
    client.execute(vec![add("a", 1)]).await.expect("executed");
    let service = ClientClient::connect(format!("http://{address}")).await.expect("connected");
    let read = move |_| {
        let mut service = service.clone();
        let operations = vec![get("a")];
        let request = proto::ReadRequest { operations, consistency: 1, timeout_ms: 20 };
        tokio::spawn(async move { service.read(request).await.expect("an answer").into_inner() })
    };
    let mut late = 0;
    for call in (0..400).map(read).collect::<Vec<_>>() {
        let outcome = call.await.expect("no panic").outcome;
        late += u64::from(!matches!(outcome, Some(read_response::Outcome::Answers(_))));
    }
    assert!(late > 200, "{late}");
    // Behind all that is queued.
    client.execute(vec![add("a", 1)]).await.expect("executed");
    let executed = node.reader().metrics().counters().unordered_operations;
    assert!(executed < 200, "{late} were late, {executed} executed");
    node.shutdown().await.expect("ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_a_stream_that_has_broken_are_not_proposed() {
    let (_dir, mut config) = settings(0, false);
    (config.batch.in_flight, config.batch.max_operations) = (1, 1);
    let address = config.members[0].client_address.clone();
    let slow = Slow { read: Duration::ZERO, update: Duration::from_millis(200) };
    let node = Node::start(config, slow).await.expect("started");
    let client = client(vec![address.clone()], 60_000);
    client.execute(vec![add("a", 1)]).await.expect("executed");
    let mut service = ClientClient::connect(format!("http://{address}")).await.expect("connected");
    let (requests, stream) = tokio::sync::mpsc::channel(8);
    for tag in 0..8 {
        let operations = vec![add("a", 1)];
        let request =
            proto::ExecuteRequest { tag, client: 77, first_serial: 1 + tag, operations, timeout_ms: 60_000 };
        requests.send(request).await.expect("room");
    }
    let mut answers = service.pipeline(ReceiverStream::new(stream)).await.expect("open").into_inner();
    // The others are queued by now.
    answers.message().await.expect("an answer").expect("not the end");
    drop((answers, requests, service));
    client.execute(vec![add("a", 1)]).await.expect("executed");
    let executed = node.reader().metrics().counters().operations;
    // The two of this client, and those that were under way.
    assert!(executed <= 2 + 5, "{executed}");
    node.shutdown().await.expect("ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_waits_to_add_learners_ends_when_it_is_dropped() {
    let (_dir, config) = settings(3, true);
    let node = Node::start(config.clone(), Numbers).await.expect("started");
    drop(node);
    let again = eventually("the log is free", async || Node::start(config.clone(), Numbers).await.ok()).await;
    again.abort().await;
}

/// A node that answers all requests, or knows the outcome of none.
#[derive(Clone)]
struct Fake {
    asked: Arc<AtomicU64>,
    knows: bool,
}

#[tonic::async_trait]
impl Service for Fake {
    async fn execute(
        &self,
        request: Request<proto::ExecuteRequest>,
    ) -> Result<Response<proto::ExecuteResponse>, Status> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let proto::ExecuteRequest { tag, operations, .. } = request.into_inner();
        let answers = operations.into_iter().map(|reply| proto::Answer { kind: 1, reply }).collect();
        let unknown = proto::Failure {
            kind: failure::Kind::Unknown.into(),
            message: "no quorum".to_owned(),
            leader: None,
        };
        let outcome = match self.knows {
            true => execute_response::Outcome::Answers(proto::Answers { answers }),
            false => execute_response::Outcome::Failure(unknown),
        };
        Ok(Response::new(proto::ExecuteResponse { tag, outcome: Some(outcome) }))
    }

    type PipelineStream = Pin<Box<dyn Stream<Item = Result<proto::ExecuteResponse, Status>> + Send>>;

    async fn pipeline(
        &self,
        _: Request<Streaming<proto::ExecuteRequest>>,
    ) -> Result<Response<Self::PipelineStream>, Status> {
        Err(Status::unimplemented("no pipelines"))
    }

    async fn read(&self, _: Request<proto::ReadRequest>) -> Result<Response<proto::ReadResponse>, Status> {
        Err(Status::unimplemented("no reads"))
    }

    async fn status(
        &self,
        _: Request<proto::StatusRequest>,
    ) -> Result<Response<proto::StatusResponse>, Status> {
        Err(Status::unimplemented("no status"))
    }
}

/// Starts one, and returns its address.
async fn fake(knows: bool, asked: &Arc<AtomicU64>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let service = ClientServer::new(Fake { asked: asked.clone(), knows });
    let incoming = TcpListenerStream::new(listener);
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_knows_no_outcome_is_left() {
    let (isolated, other) = (Arc::default(), Arc::default());
    let client = client(vec![fake(false, &isolated).await, fake(true, &other).await], 60_000);
    for _ in 0..2 {
        client.execute(vec![add("a", 1)]).await.expect("executed");
    }
    assert_eq!((isolated.load(Ordering::Relaxed), other.load(Ordering::Relaxed)), (1, 2));
}

/// As many as there are nodes: each of them finds out that the node is silent, and none may take that for another one's silence.
#[tokio::test(flavor = "multi_thread")]
async fn calls_that_run_late_together_leave_a_silent_node() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let asked = Arc::default();
    let known = vec![
        silent.local_addr().expect("bound").to_string(),
        fake(true, &asked).await,
        fake(true, &asked).await,
    ];
    let client = client(known, 500);
    let call = |_| {
        let client = client.clone();
        tokio::spawn(async move { client.execute(vec![add("a", 1)]).await })
    };
    for call in (0..3).map(call).collect::<Vec<_>>() {
        call.await.expect("no panic").expect("executed");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 3);
}

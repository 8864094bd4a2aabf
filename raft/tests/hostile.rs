//! What strangers and broken clients can do: harm themselves.

mod common;
mod nodes;

use atlas_smr_raft::client::{Client, ClientConfig, ClientError, Consistency};
use atlas_smr_raft::proto::client::client_client::ClientClient;
use atlas_smr_raft::proto::client::execute_response::Outcome;
use atlas_smr_raft::proto::client::{self as proto, failure};
use atlas_smr_raft::proto::peer::peer_client::PeerClient;
use atlas_smr_raft::proto::peer::{Envelope, Message, SnapshotOffer, SnapshotPiece, snapshot_piece};
use bytes::Bytes;
use nodes::{Cluster, add, get, reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

/// The cluster still serves, and its nodes are equal.
async fn assert_well(cluster: &Cluster) {
    let answers = cluster.client().execute(vec![add("well", 1)]).await.expect("executed");
    assert!(reply(&answers[0]).is_some());
    cluster.assert_equal().await;
}

fn request(operations: Vec<Bytes>) -> proto::ExecuteRequest {
    proto::ExecuteRequest { tag: 9, client: 1, first_serial: 1, operations, timeout_ms: 30_000 }
}

fn failure_of(response: proto::ExecuteResponse) -> failure::Kind {
    match response.outcome {
        Some(Outcome::Failure(failure)) => failure.kind(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_limits_cost_their_sender_an_error() {
    let cluster = Cluster::start(3, |config| {
        config.batch.max_operations = 100;
        config.batch.max_bytes = 10_000;
    })
    .await;
    let client = cluster.client();
    let many = client.execute(vec![add("a", 1); 101]).await;
    assert!(matches!(many, Err(ClientError::TooLarge(_))), "{many:?}");
    let large = client.execute(vec![vec![0; 10_001].into()]).await;
    assert!(matches!(large, Err(ClientError::TooLarge(_))), "{large:?}");
    // So large that it is not even read: whoever refuses the call as such does not say what became of it.
    let huge = client.execute(vec![vec![0; 40 << 20].into()]).await;
    assert!(matches!(huge, Err(ClientError::Unknown(_))), "{huge:?}");
    let reads = client.read(vec![get("a"); 101], Consistency::Stale).await;
    assert!(matches!(reads, Err(ClientError::TooLarge(_))), "{reads:?}");
    let pipeline = client.pipeline();
    let refused = pipeline.submit(vec![add("a", 1); 101]).await.expect("room").answers().await;
    assert!(matches!(refused, Err(ClientError::TooLarge(_))), "{refused:?}");
    let taken =
        pipeline.submit(vec![add("a", 1); 100]).await.expect("room").answers().await.expect("answered");
    assert_eq!(reply(&taken[99]), Some(100), "the others of its pipeline are answered");
    assert_well(&cluster).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_whose_answers_are_too_large_is_refused() {
    let cluster = Cluster::start(1, |config| config.limits.max_answer_bytes = 20).await;
    let client = cluster.client();
    client.execute(vec![add("a", 1)]).await.expect("executed");
    let large = client.read(vec![get("a"); 11], Consistency::Linearizable).await;
    assert!(matches!(&large, Err(ClientError::TooLarge(why)) if why.contains("22 bytes")), "{large:?}");
    let fits = client.read(vec![get("a"); 10], Consistency::Linearizable).await.expect("read");
    assert_eq!(reply(&fits[9]), Some(1));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_sense_are_refused_by_name() {
    let cluster = Cluster::start(1, |_| {}).await;
    cluster.client().execute(vec![add("a", 1)]).await.expect("executed");
    let address = format!("http://{}", cluster.client_address(0));
    let mut service = ClientClient::connect(address).await.expect("a node");
    let empty = service.execute(request(Vec::new())).await.expect("answered").into_inner();
    assert_eq!(empty.tag, 9);
    assert_eq!(failure_of(empty), failure::Kind::Malformed);
    let beyond = proto::ExecuteRequest { first_serial: u64::MAX, ..request(vec![add("a", 1)]) };
    let beyond = service.execute(beyond).await.expect("answered").into_inner();
    assert_eq!(failure_of(beyond), failure::Kind::Malformed);
    let read = proto::ReadRequest { operations: vec![get("a")], consistency: 17, timeout_ms: 0 };
    let read = service.read(read).await.expect("answered").into_inner();
    let Some(proto::read_response::Outcome::Failure(failure)) = read.outcome else { panic!("{read:?}") };
    assert_eq!(failure.kind(), failure::Kind::Malformed);
    assert_well(&cluster).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_serial_is_executed_once_and_answered_alike() {
    let cluster = Cluster::start(1, |_| {}).await;
    cluster.client().execute(vec![add("a", 1)]).await.expect("executed");
    let address = format!("http://{}", cluster.client_address(0));
    let mut service = ClientClient::connect(address).await.expect("a node");
    let first =
        service.execute(request(vec![add("a", 1), add("a", 1)])).await.expect("answered").into_inner();
    let again =
        service.execute(request(vec![add("a", 1), add("a", 1)])).await.expect("answered").into_inner();
    assert_eq!(first, again);
    // Another operation under a number that was used is not executed, and told so.
    let other = service.execute(request(vec![add("b", 9)])).await.expect("answered").into_inner();
    let Some(Outcome::Answers(other)) = other.outcome else { panic!("not answered") };
    assert_eq!(other.answers[0].kind(), proto::answer::Kind::NumberTaken);
    let answers =
        cluster.client().read(vec![get("a"), get("b")], Consistency::Linearizable).await.expect("read");
    assert_eq!((reply(&answers[0]), reply(&answers[1])), (Some(3), None));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_is_kept_by_the_server() {
    let mut cluster = Cluster::start(3, |_| {}).await;
    cluster.client().execute(vec![add("a", 1)]).await.expect("executed");
    let leader = cluster.leader().await;
    for index in [(leader + 1) % 3, (leader + 2) % 3] {
        cluster.abort(index).await;
    }
    let address = format!("http://{}", cluster.client_address(leader));
    let mut service = ClientClient::connect(address).await.expect("a node");
    let hasty = proto::ExecuteRequest { timeout_ms: 50, ..request(vec![add("a", 1)]) };
    let answer = service.execute(hasty).await.expect("answered").into_inner();
    let kind = failure_of(answer);
    assert!(matches!(kind, failure::Kind::Unknown | failure::Kind::NotLeader), "{kind:?}");
    cluster.abort(leader).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_for_another_node_or_cluster_or_of_no_node_are_refused() {
    let cluster = Cluster::start(3, |_| {}).await;
    assert_well(&cluster).await;
    let address = format!("http://{}", cluster.configs[0].members[0].peer_address);
    let mut peer = PeerClient::connect(address).await.expect("a node");
    let envelope = |cluster: &str, target| Some(Envelope { cluster: cluster.to_owned(), target });
    let garbage = Bytes::from_static(&[0xff; 64]);
    let cases = [
        (envelope("other", 1), Code::FailedPrecondition),
        (envelope("test", 2), Code::FailedPrecondition),
        (None, Code::InvalidArgument),
        (envelope("test", 1), Code::InvalidArgument),
    ];
    for (envelope, code) in cases {
        let message = Message { envelope: envelope.clone(), payload: garbage.clone() };
        let append = peer.append(message.clone()).await.expect_err("refused");
        let vote = peer.vote(message).await.expect_err("refused");
        assert_eq!((append.code(), vote.code()), (code, code));
        let offer = SnapshotOffer { envelope, vote: garbage.clone(), manifest: garbage.clone() };
        let piece = SnapshotPiece { piece: Some(snapshot_piece::Piece::Offer(offer)) };
        let mut replies = peer.snapshot(tokio_stream::once(piece)).await.expect("a stream").into_inner();
        assert_eq!(replies.message().await.expect_err("refused").code(), code);
    }
    assert_well(&cluster).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_protocol_end_their_connection() {
    let cluster = Cluster::start(3, |_| {}).await;
    for address in [cluster.client_address(0), cluster.configs[0].members[0].peer_address.clone()] {
        let mut stranger = TcpStream::connect(&address).await.expect("a listener");
        let noise: Vec<u8> = (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        // It may be closed while this is written.
        let _ = stranger.write_all(&noise).await;
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(nodes::PATIENCE, stranger.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "the connection is closed");
    }
    assert_well(&cluster).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_keeps_silent_keeps_nobody_else_from_it() {
    let cluster = Cluster::start(1, |_| {}).await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(cluster.client_address(0)).await.expect("a listener"));
    }
    assert_well(&cluster).await;
    // Nor do they keep the node from its end.
    cluster.shutdown().await;
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_health_are_served() {
    let cluster = Cluster::start(1, |config| config.listen.http = "127.0.0.1:0".parse().ok()).await;
    // Before there is a leader an attempt may be made twice, which counts.
    cluster.leader().await;
    cluster.client().execute(vec![add("a", 1); 5]).await.expect("executed");
    let http = cluster.node(0).addresses().http.expect("it listens");
    let page = async |path: &str| nodes::page(http, path).await;
    let health = page("/health").await;
    assert!(health.starts_with("HTTP/1.1 200") && health.contains("node 1 leads"), "{health}");
    assert!(page("/nothing").await.starts_with("HTTP/1.1 404"));
    let metrics = page("/metrics").await;
    for line in [
        "atlas_raft_is_leader 1",
        "atlas_raft_leader 1",
        "atlas_operations_executed_total 5",
        "atlas_execution_time_taken_microseconds_count 1",
        "# TYPE atlas_execution_latency_microseconds summary",
        "atlas_raft_running 1",
    ] {
        assert!(metrics.lines().any(|other| other == line), "{line}\n{metrics}");
    }
    let (_, body) = metrics.split_once("\r\n\r\n").expect("a body");
    for line in body.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        assert!(!name.is_empty() && value.parse::<f64>().is_ok(), "{line}");
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_wrong_settings_is_told_so() {
    let wrong = |config: ClientConfig| Client::new(config).expect_err("wrong");
    assert!(matches!(wrong(ClientConfig::default()), ClientError::Address(_)));
    let addresses = vec!["no address at all".to_owned()];
    assert!(matches!(wrong(ClientConfig { addresses, ..ClientConfig::default() }), ClientError::Address(_)));
    let addresses = vec!["127.0.0.1:1".to_owned()];
    let hasty = ClientConfig { addresses, timeout_ms: 300, ..ClientConfig::default() };
    assert!(matches!(
        wrong(ClientConfig { timeout_ms: 0, ..hasty.clone() }),
        ClientError::Zero("timeout_ms")
    ));
    let nobody = Client::new(hasty).expect("valid");
    let outcome = nobody.execute(vec![add("a", 1)]).await;
    assert!(matches!(outcome, Err(ClientError::Unknown(_))), "{outcome:?}");
    let none = nobody.execute(Vec::new()).await;
    assert!(matches!(none, Err(ClientError::TooLarge(_))), "{none:?}");
}

/// As many as there may be. Whoever has said nothing for some seconds has to go.
#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_do_not_keep_their_places() {
    let cluster = Cluster::start(1, |config| config.limits.connections = 4).await;
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(TcpStream::connect(cluster.client_address(0)).await.expect("a listener"));
    }
    let config = ClientConfig { timeout_ms: 60_000, ..cluster.client_config() };
    let client = Client::new(config).expect("a client");
    client.execute(vec![add("a", 1)]).await.expect("executed");
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_request_for_a_page_does_not_keep_a_node_from_ending() {
    let mut cluster = Cluster::start(1, |config| config.listen.http = "127.0.0.1:0".parse().ok()).await;
    cluster.leader().await;
    let http = cluster.node(0).addresses().http.expect("it listens");
    let mut half = TcpStream::connect(http).await.expect("a listener");
    half.write_all(b"GET /hea").await.expect("sent");
    // Its connection is accepted by now.
    assert!(nodes::page(http, "/health").await.starts_with("HTTP/1.1"));
    cluster.nodes[0].take().expect("it runs").shutdown().await.expect("nothing is left");
    cluster.run(0).await;
    assert_well(&cluster).await;
}

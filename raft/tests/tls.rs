//! Certificates on both sides: who has none of the right authority does not get in.

mod common;
mod nodes;

use std::path::Path;

use atlas_smr_raft::client::{Client, ClientConfig, ClientError};
use atlas_smr_raft::config::{NodeConfig, NodeConfigError};
use atlas_smr_raft::node::{Node, StartError};
use atlas_smr_raft::proto::peer::peer_client::PeerClient;
use atlas_smr_raft::proto::peer::{Envelope, Message};
use atlas_smr_raft::tls::TlsFiles;
use nodes::{Cluster, add, reply};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use tempfile::TempDir;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use common::Numbers;

/// An authority, and a certificate by it for nodes and clients on loopback.
fn authority(dir: &Path, name: &str) -> TlsFiles {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer =
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, &issuer).expect("a certificate");
    let write = |kind: &str, text: String| {
        let path = dir.join(format!("{name}-{kind}.pem"));
        std::fs::write(&path, text).expect("written");
        path
    };
    TlsFiles {
        authority: write("authority", issuer.pem()),
        certificate: write("certificate", certificate.pem()),
        key: write("key", key.serialize_pem()),
        server_name: None,
    }
}

struct Setup {
    _dir: TempDir,
    peers: TlsFiles,
    clients: TlsFiles,
    strangers: TlsFiles,
}

fn setup() -> Setup {
    let dir = tempfile::tempdir().expect("a folder");
    let [peers, clients, strangers] =
        ["peers", "clients", "strangers"].map(|name| authority(dir.path(), name));
    Setup { _dir: dir, peers, clients, strangers }
}

impl Setup {
    async fn cluster(&self) -> Cluster {
        Cluster::start(3, |config: &mut NodeConfig| {
            config.tls.peers = Some(self.peers.clone());
            config.tls.clients = Some(self.clients.clone());
        })
        .await
    }
}

fn client(cluster: &Cluster, tls: Option<TlsFiles>, timeout_ms: u64) -> Client {
    Client::new(ClientConfig { tls, timeout_ms, ..cluster.client_config() }).expect("valid")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_right_certificates_get_in_and_no_others() {
    let setup = setup();
    let cluster = setup.cluster().await;
    let right = client(&cluster, Some(setup.clients.clone()), 60_000);
    let answers = right.execute(vec![add("a", 1)]).await.expect("executed");
    assert_eq!(reply(&answers[0]), Some(1));
    // A foreign certificate under the right authority's eyes, a node's, and none at all.
    let pretender = TlsFiles { authority: setup.clients.authority.clone(), ..setup.strangers.clone() };
    let node = TlsFiles { authority: setup.clients.authority.clone(), ..setup.peers.clone() };
    for foreign in [Some(pretender), Some(node), Some(setup.strangers.clone()), None] {
        let outcome = client(&cluster, foreign.clone(), 1_000).execute(vec![add("a", 1)]).await;
        assert!(matches!(outcome, Err(ClientError::Unknown(_))), "{foreign:?} {outcome:?}");
    }
    let answers = right.execute(vec![add("a", 0)]).await.expect("executed");
    assert_eq!(reply(&answers[0]), Some(1), "nothing of the others was executed");
    cluster.assert_equal().await;
    cluster.shutdown().await;
}

/// Speaks to a node as another node would.
async fn vote(cluster: &Cluster, authority: &Path, identity: Option<&TlsFiles>) -> Result<(), String> {
    let read = |path: &Path| std::fs::read(path).expect("a file");
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(authority)));
    if let Some(files) = identity {
        tls = tls.identity(Identity::from_pem(read(&files.certificate), read(&files.key)));
    }
    let address = format!("https://{}", cluster.configs[0].members[0].peer_address);
    let endpoint = Endpoint::from_shared(address).expect("an address").tls_config(tls).expect("valid");
    let channel = endpoint.connect().await.map_err(|error| error.to_string())?;
    let envelope = Some(Envelope { cluster: "test".to_owned(), target: 1 });
    let message = Message { envelope, payload: vec![0xff; 9].into() };
    match PeerClient::new(channel).vote(message).await {
        // It came as far as being understood.
        Err(status) if status.code() == tonic::Code::InvalidArgument => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_nodes_are_heard_as_nodes() {
    let setup = setup();
    let cluster = setup.cluster().await;
    let authority = setup.peers.authority.as_path();
    assert_eq!(vote(&cluster, authority, Some(&setup.peers)).await, Ok(()));
    for foreign in [Some(&setup.strangers), Some(&setup.clients), None] {
        let outcome = vote(&cluster, authority, foreign).await;
        assert!(outcome.is_err(), "{foreign:?} {outcome:?}");
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_foreign_certificates_gets_nothing_until_it_has_the_right_ones() {
    let setup = setup();
    let mut cluster = setup.cluster().await;
    let right = client(&cluster, Some(setup.clients.clone()), 60_000);
    right.execute(vec![add("a", 1)]).await.expect("executed");
    let follower = (cluster.leader().await + 1) % 3;
    cluster.abort(follower).await;
    right.execute(vec![add("a", 1)]).await.expect("executed by the other two");
    let before = cluster.configs[follower].clone();
    cluster.configs[follower].tls.peers = Some(setup.strangers.clone());
    cluster.run(follower).await;
    let last = || cluster.node(follower).raft().metrics().borrow().last_log_index;
    let lagging = last();
    for _ in 0..5 {
        right.execute(vec![add("a", 1)]).await.expect("executed by the other two");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    assert_eq!(last(), lagging, "it is sent nothing");
    cluster.abort(follower).await;
    cluster.configs[follower] = before;
    cluster.run(follower).await;
    cluster.assert_equal().await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_certificates_only_loopback_is_listened_on() {
    let setup = setup();
    let cluster = setup.cluster().await;
    let mut config = cluster.configs[0].clone();
    config.tls.clients = None;
    config.listen.clients = "0.0.0.0:0".parse().ok();
    let refused = Node::start(config.clone(), Numbers).await.err();
    assert!(
        matches!(refused, Some(StartError::Config(NodeConfigError::Insecure { listener: "clients", .. }))),
        "{refused:?}"
    );
    config.tls.clients = Some(TlsFiles { key: "/nowhere".into(), ..setup.clients.clone() });
    let missing = Node::start(config, Numbers).await.err();
    assert!(matches!(missing, Some(StartError::TlsFile(_))), "{missing:?}");
    cluster.shutdown().await;
}

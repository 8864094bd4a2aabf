//! Clusters of nodes in this process, over real connections on loopback.
#![allow(dead_code)]

use std::net::SocketAddr;
use std::time::Duration;

use atlas_smr_raft::client::{Client, ClientConfig};
use atlas_smr_raft::config::{MemberConfig, NodeConfig};
use atlas_smr_raft::loopback;
use atlas_smr_raft::machine::ExecutorKind;
use atlas_smr_raft::node::Node;
use atlas_smr_raft::types::Answer;
use bytes::Bytes;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::{Numbers, Reply, Request};

/// Against hangs only.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Nodes, some of which may not run.
pub struct Cluster {
    pub configs: Vec<NodeConfig>,
    pub nodes: Vec<Option<Node<Numbers>>>,
    _dir: TempDir,
}

/// So many addresses on loopback that nobody uses at the moment.
pub fn addresses(count: usize) -> Vec<String> {
    loopback::addresses(count).expect("ports").iter().map(ToString::to_string).collect()
}

impl Cluster {
    /// Voters with different executors, all of them running. `change` is applied to each node's settings.
    pub async fn start(voters: usize, change: impl Fn(&mut NodeConfig)) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let addresses = addresses(2 * voters);
        let member = |(id, pair): (u64, &[String])| MemberConfig {
            id,
            peer_address: pair[0].clone(),
            client_address: pair[1].clone(),
            learner: false,
        };
        let members: Vec<_> = (1..).zip(addresses.chunks(2)).map(member).collect();
        let mut configs = Vec::new();
        for member in &members {
            let mut config = NodeConfig {
                id: member.id,
                cluster: "test".to_owned(),
                data_dir: dir.path().join(member.id.to_string()),
                bootstrap: true,
                members: members.clone(),
                ..NodeConfig::default()
            };
            config.executor.kind = ExecutorKind::ALL[(4 - member.id as usize) % 4];
            config.executor.threads = Some(2);
            config.executor.spin_us = 0;
            config.raft.heartbeat_ms = 150;
            config.raft.election_min_ms = 600;
            config.raft.election_max_ms = 1_200;
            change(&mut config);
            configs.push(config);
        }
        let mut cluster = Cluster { nodes: configs.iter().map(|_| None).collect(), configs, _dir: dir };
        for index in 0..voters {
            cluster.run(index).await;
        }
        cluster
    }

    /// Starts a node.
    pub async fn run(&mut self, index: usize) {
        let node = Node::start(self.configs[index].clone(), Numbers).await.expect("it starts");
        self.nodes[index] = Some(node);
    }

    pub fn node(&self, index: usize) -> &Node<Numbers> {
        self.nodes[index].as_ref().expect("it runs")
    }

    /// Ends a node at once, as far as that is possible inside a process.
    pub async fn abort(&mut self, index: usize) {
        self.nodes[index].take().expect("it runs").abort().await;
    }

    pub fn running(&self) -> impl Iterator<Item = &Node<Numbers>> {
        self.nodes.iter().flatten()
    }

    pub fn client_config(&self) -> ClientConfig {
        let addresses = self.configs[0].members.iter().map(|member| member.client_address.clone()).collect();
        ClientConfig { addresses, timeout_ms: 60_000, ..ClientConfig::default() }
    }

    pub fn client(&self) -> Client {
        Client::new(self.client_config()).expect("valid")
    }

    pub fn client_address(&self, index: usize) -> String {
        self.configs[index].listen.clients.map_or_else(
            || self.configs[index].members[index].client_address.clone(),
            |address| address.to_string(),
        )
    }

    /// The leader that a majority of the running nodes knows.
    pub async fn leader(&self) -> usize {
        eventually("a leader", async || {
            let mut votes = vec![0; self.nodes.len() + 1];
            for node in self.running() {
                let leader = node.raft().metrics().borrow().current_leader;
                votes[leader.unwrap_or(0) as usize] += 1;
            }
            let index = (0..self.nodes.len()).find(|index| votes[index + 1] * 2 > self.nodes.len())?;
            self.nodes[index].as_ref().map(|_| index)
        })
        .await
    }

    /// Waits until all running nodes have executed the same, and compares their states.
    pub async fn assert_equal(&self) {
        let digests = eventually("all at rest", async || {
            let mut digests = Vec::new();
            let mut last = 0;
            for node in self.running() {
                last = last.max(node.raft().metrics().borrow().last_log_index.unwrap_or(0));
            }
            for node in self.running() {
                let applied = node.raft().metrics().borrow().last_applied.map_or(0, |id| id.index);
                digests.push(node.reader().digest().await.expect("a digest"));
                if applied != last {
                    return None;
                }
            }
            digests.windows(2).all(|pair| pair[0].0 == pair[1].0).then_some(digests)
        })
        .await;
        assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "{digests:?}");
    }

    pub async fn shutdown(self) {
        for node in self.nodes.into_iter().flatten() {
            node.shutdown().await.expect("an orderly end");
        }
    }
}

/// A page, with its head.
pub async fn page(http: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(http).await.expect("a listener");
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut page = String::new();
    stream.read_to_string(&mut page).await.expect("text");
    page
}

/// Looks again and again until there is something.
pub async fn eventually<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let looked = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looked).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

pub fn encode(request: &Request) -> Bytes {
    postcard::to_allocvec(request).expect("plain data").into()
}

pub fn add(key: &str, n: u64) -> Bytes {
    encode(&Request::Add(key.to_owned(), n))
}

pub fn get(key: &str) -> Bytes {
    encode(&Request::Get(key.to_owned()))
}

pub fn reply(answer: &Answer) -> Reply {
    match answer {
        Answer::Done(bytes) => postcard::from_bytes(bytes).expect("a reply"),
        other => panic!("{other:?}"),
    }
}

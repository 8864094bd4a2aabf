//! Three nodes as processes, a proxy in front of each.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use atlas_smr_raft::client::{Client, ClientError, NodeStatus};
use atlas_smr_raft::loopback;

use crate::connection::{account, client};
use crate::error::{ChaosError, io};
use crate::origin::Processes;
use crate::process::Process;
use crate::proxy::{Links, NodeId, Proxy};
use crate::request::Request;
use crate::workload::funds;

/// Against hangs: far more than anything here takes.
pub const LIMIT: Duration = Duration::from_secs(120);
/// How long one question to one node may take.
const QUESTION: Duration = Duration::from_secs(2);
/// Between two looks.
const POLL: Duration = Duration::from_millis(10);

/// How the nodes are set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The program.
    pub program: PathBuf,
    /// Holds everything that the nodes write.
    pub folder: PathBuf,
    /// The executor of each node, and its threads.
    pub executors: Vec<(&'static str, usize)>,
    /// Entries between snapshots.
    pub snapshot_every: u64,
    /// Entries that stay in the log behind a snapshot.
    pub entries_kept: u64,
}

impl Settings {
    /// A single-threaded node and two multi-threaded ones, which snapshot often.
    pub fn new(program: PathBuf, folder: PathBuf) -> Self {
        let executors = vec![("single-divisible", 1), ("multi-divisible", 2), ("multi-monolithic", 3)];
        Settings { program, folder, executors, snapshot_every: 200, entries_kept: 50 }
    }
}

#[derive(Debug)]
struct Node {
    config: PathBuf,
    log: PathBuf,
    data: PathBuf,
    client_address: String,
    http_address: SocketAddr,
    process: Option<Process>,
    _proxy: Proxy,
}

/// The cluster. Dropped, its processes are killed.
#[derive(Debug)]
pub struct Cluster {
    program: PathBuf,
    nodes: BTreeMap<NodeId, Node>,
    processes: Processes,
    /// The links between the nodes.
    pub links: Links,
    admin: Client,
    prober: Client,
    probes: u64,
}

impl Cluster {
    /// Starts the nodes, and returns once they serve and accounts are funded.
    ///
    /// # Errors
    ///
    /// See [`ChaosError`].
    pub async fn start(settings: &Settings) -> Result<Cluster, ChaosError> {
        let count = settings.executors.len();
        let ports = loopback::addresses(3 * count).map_err(io("free ports"))?;
        let (links, processes) = (Links::default(), Processes::default());
        let mut nodes = BTreeMap::new();
        let mut members = String::new();
        for (id, ports) in (1..).zip(ports.chunks(3)) {
            let proxy = Proxy::start(id, ports[0], links.clone(), processes.origin());
            let proxy = proxy.await.map_err(io("a proxy"))?;
            let (peer, client) = (proxy.address(), ports[1]);
            // Writing into a string does not fail.
            let _ = writeln!(
                members,
                "[[members]]\nid = {id}\npeer_address = \"{peer}\"\nclient_address = \"{client}\""
            );
            let path = |name: &str| settings.folder.join(format!("node-{id}{name}"));
            let node = Node {
                config: path(".toml"),
                log: path(".log"),
                data: path(""),
                client_address: client.to_string(),
                http_address: ports[2],
                process: None,
                _proxy: proxy,
            };
            nodes.insert(id, node);
        }
        for ((&id, node), (ports, executor)) in
            nodes.iter().zip(ports.chunks(3).zip(settings.executors.iter()))
        {
            let text = config(id, node, ports, *executor, settings) + &members;
            std::fs::write(&node.config, text).map_err(io("a configuration"))?;
        }
        let addresses: Vec<_> = nodes.values().map(|node| node.client_address.clone()).collect();
        let (admin, prober) = (client(&addresses, QUESTION)?, client(&addresses, LIMIT)?);
        let program = settings.program.clone();
        let mut cluster = Cluster { program, nodes, processes, links, admin, prober, probes: 0 };
        for id in cluster.ids() {
            cluster.run(id)?;
        }
        cluster.serves().await?;
        cluster.fund().await?;
        Ok(cluster)
    }

    async fn fund(&self) -> Result<(), ChaosError> {
        let puts = funds().into_iter().map(|(number, balance)| {
            Request::Put { key: account(number), value: balance.to_string().into_bytes() }.encode()
        });
        self.prober.execute(puts.collect()).await?;
        Ok(())
    }

    /// All nodes.
    pub fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// Where clients reach the nodes.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.values().map(|node| node.client_address.clone()).collect()
    }

    /// Where clients reach one.
    pub fn address(&self, id: NodeId) -> String {
        self.nodes[&id].client_address.clone()
    }

    /// Where a node keeps its data.
    pub fn data(&self, id: NodeId) -> PathBuf {
        self.nodes[&id].data.clone()
    }

    /// Starts a node's process, unless it runs.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub fn run(&mut self, id: NodeId) -> Result<(), ChaosError> {
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        if node.process.is_none() {
            let config = node.config.to_string_lossy();
            let arguments = ["serve", "--until-eof", "--config", &config].map(str::to_owned);
            let process = Process::start(&self.program, &arguments, &node.log)?;
            self.processes.set(id, process.id());
            node.process = Some(process);
        }
        Ok(())
    }

    /// The process of a node that runs.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub fn process(&mut self, id: NodeId) -> Result<&mut Process, ChaosError> {
        let process = self.nodes.get_mut(&id).and_then(|node| node.process.as_mut());
        process.ok_or_else(|| ChaosError::Missed(format!("node {id} does not run")))
    }

    /// Kills a node at once.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub fn kill(&mut self, id: NodeId) -> Result<(), ChaosError> {
        self.process(id)?.kill()?;
        self.forget(id);
        Ok(())
    }

    /// A node's process has ended; it can be started again.
    pub fn forget(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.process = None;
        }
    }

    /// # Errors
    ///
    /// A node that should run has ended.
    pub fn check_running(&mut self) -> Result<(), ChaosError> {
        for (&node, state) in &mut self.nodes {
            let Some(process) = &mut state.process else { continue };
            if let Some(status) = process.ended()? {
                let (status, messages) = (status.to_string(), process.messages().join("\n"));
                return Err(ChaosError::Ended { node, status, messages });
            }
        }
        Ok(())
    }

    /// What a node says of itself.
    ///
    /// # Errors
    ///
    /// It does not answer.
    pub async fn status(&self, id: NodeId, digest: bool) -> Result<NodeStatus, ClientError> {
        self.admin.status(&self.nodes[&id].client_address, digest).await
    }

    /// A number from a node's metrics.
    ///
    /// # Errors
    ///
    /// It does not answer, or has no such number.
    pub async fn metric(&self, id: NodeId, name: &str) -> Result<u64, ChaosError> {
        let page = crate::http::get(self.nodes[&id].http_address, "/metrics").await.map_err(io("metrics"))?;
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.trim().parse().ok())
            .ok_or_else(|| ChaosError::Missed(format!("node {id} has no metric {name}")))
    }

    /// Waits until `ready` says so.
    ///
    /// # Errors
    ///
    /// It does not within [`LIMIT`], or a node has ended.
    pub async fn wait<T>(
        &mut self,
        what: &str,
        mut ready: impl AsyncFnMut(&mut Cluster) -> Option<T>,
    ) -> Result<T, ChaosError> {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(ready) = ready(self).await {
                return Ok(ready);
            }
            self.check_running()?;
            if Instant::now() > deadline {
                return Err(ChaosError::TooLate { what: what.to_owned(), limit: LIMIT });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The leader, once those who answer agree on one that is among them and leads in the newest term.
    ///
    /// # Errors
    ///
    /// There is none within [`LIMIT`].
    pub async fn leader(&mut self) -> Result<NodeId, ChaosError> {
        self.wait("a leader", async |cluster| {
            let mut best = None;
            for id in cluster.ids() {
                let Ok(status) = cluster.status(id, false).await else { continue };
                if status.role == "leader" {
                    best = best.max(Some((status.term, id)));
                }
            }
            best.map(|(_, id)| id)
        })
        .await
    }

    /// Waits until a new operation is executed.
    ///
    /// # Errors
    ///
    /// None is within [`LIMIT`].
    pub async fn serves(&mut self) -> Result<(), ChaosError> {
        self.probes += 1;
        let value = self.probes.to_string().into_bytes();
        let put = Request::Put { key: b"probe".to_vec(), value }.encode();
        if let Err(error) = self.prober.execute(vec![put]).await {
            // A node that ended says more than the client's time-out.
            self.check_running()?;
            return Err(error.into());
        }
        Ok(())
    }

    /// Waits until all nodes have executed the same entries, and compares their states; nobody may write meanwhile. Returns
    /// the digest.
    ///
    /// # Errors
    ///
    /// The states differ, or a node does not catch up within [`LIMIT`].
    pub async fn digest(&mut self) -> Result<String, ChaosError> {
        let all = self.wait("all nodes at one entry", async |cluster| {
            let mut all = Vec::new();
            for id in cluster.ids() {
                let digest = cluster.status(id, true).await.ok()?.digest?;
                all.push((digest.applied, digest.hex));
            }
            all.iter().all(|(applied, _)| *applied == all[0].0).then_some(all)
        });
        let all = all.await?;
        if all.iter().any(|(_, hex)| *hex != all[0].1) {
            return Err(ChaosError::Digests(format!("{all:?}")));
        }
        Ok(all[0].1.clone())
    }
}

fn config(
    id: NodeId,
    node: &Node,
    ports: &[SocketAddr],
    (kind, threads): (&str, usize),
    settings: &Settings,
) -> String {
    let Settings { snapshot_every, entries_kept, .. } = settings;
    let (peers, clients, http) = (ports[0], ports[1], node.http_address);
    format!(
        "id = {id}\ncluster = \"chaos\"\ndata_dir = {data:?}\nbootstrap = true\n\
         [listen]\npeers = \"{peers}\"\nclients = \"{clients}\"\nhttp = \"{http}\"\n\
         [executor]\nkind = \"{kind}\"\nthreads = {threads}\nspin_us = 0\n\
         [raft]\nsnapshot_every = {snapshot_every}\nentries_kept = {entries_kept}\n",
        data = node.data.to_string_lossy(),
    )
}

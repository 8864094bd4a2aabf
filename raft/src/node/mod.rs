//! One node: storage, consensus, listeners.

mod causes;
mod start;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};

pub(crate) use causes::{Causes, Reports};
use start::{Parts, Proposer, Sockets, bootstrap, raft_config};

use crate::batcher::Batcher;
use crate::config::{NodeConfig, NodeConfigError, RaftSettings};
use crate::log::LogStore;
use crate::machine::Reader;
use crate::network::Network;
pub use crate::server::TransferCounts;
use crate::server::{Stage, Transfers};
use crate::session::Service;
use crate::snapshot::SnapshotStore;
use crate::storage::{Identity, OpenError, Storage, StorageConfig, open};
use crate::tls::{TlsError, TlsFiles};
use crate::types::Raft;

/// How long a listener that ends waits for the other ends of its connections.
const DRAIN: Duration = Duration::from_millis(300);

/// How long a node that ends at once waits for each of its parts.
const ABORT: Duration = Duration::from_secs(5);
/// How often a node looks whether its executor has failed.
const LOOK: Duration = Duration::from_millis(100);

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting.
    #[error(transparent)]
    Config(#[from] NodeConfigError),
    /// A certificate or key.
    #[error("{0}")]
    TlsFile(#[from] TlsError),
    /// Certificates or keys that cannot be used.
    #[error("TLS: {0}")]
    Tls(#[source] tonic::transport::Error),
    /// An address that cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// What is on disk, or the executor.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Consensus could not start.
    #[error("raft: {0}")]
    Raft(String),
}

/// Why a node that ran does not any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The disk, or the executor.
    #[error("the node has stopped: {0}")]
    Failed(String),
    /// It was stopping, and something took longer than `raft.shutdown_ms`, or failed.
    #[error("while stopping: {0}")]
    Shutdown(String),
}

/// A running node. Dropping it lets go of everything, without order and in its own time; nothing that was acknowledged is
/// lost. [`shutdown`](Node::shutdown) is the orderly way.
pub struct Node<A: Service> {
    raft: Raft,
    reader: Reader<A>,
    log: LogStore,
    snapshots: SnapshotStore,
    transfers: Arc<Transfers>,
    batcher: Batcher,
    causes: Causes,
    feeder: JoinHandle<()>,
    stop_clients: watch::Sender<Stage>,
    stop_peers: watch::Sender<Stage>,
    /// The listeners for clients and for HTTP, then the one for peers.
    listeners: [Vec<JoinHandle<()>>; 2],
    /// Adds learners. Ends when the node is dropped.
    _learners: JoinSet<()>,
    addresses: Addresses,
    settings: RaftSettings,
}

/// Where a node listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// For other nodes.
    pub peers: SocketAddr,
    /// For clients.
    pub clients: SocketAddr,
    /// For `/metrics` and `/health`.
    pub http: Option<SocketAddr>,
}

impl<A: Service> Node<A> {
    /// Starts a node that serves `app`: checks the settings, opens what is on disk, joins the consensus and listens. If the
    /// settings say so and there is no data yet, it forms the cluster.
    ///
    /// # Errors
    ///
    /// See [`StartError`]; nothing runs then.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with time and I/O.
    pub async fn start(config: NodeConfig, app: A) -> Result<Self, StartError> {
        let storage = StorageConfig::new(&config.data_dir, config.executor.kind);
        Node::start_with(config, storage, app).await
    }

    /// The same with storage settings that [`NodeConfig`] does not have. What it has overrides them.
    ///
    /// # Errors
    ///
    /// See [`start`](Node::start).
    ///
    /// # Panics
    ///
    /// See [`start`](Node::start).
    pub async fn start_with(
        config: NodeConfig,
        mut storage: StorageConfig,
        app: A,
    ) -> Result<Self, StartError> {
        config.validate()?;
        let read = |files: &Option<TlsFiles>| files.as_ref().map(TlsFiles::read).transpose();
        let tls = (read(&config.tls.peers)?, read(&config.tls.clients)?);
        let sockets = Sockets::bind(&config).await?;
        storage.dir.clone_from(&config.data_dir);
        storage.identity = Some(Identity { cluster: config.cluster.clone(), node: config.id });
        storage.executor = config.executor.kind;
        config.executor.apply(&mut storage.executor_config);
        storage.learner = config.own().is_some_and(|own| own.learner);
        storage.snapshots_kept = config.raft.snapshots_kept;
        let opened = tokio::task::spawn_blocking(move || open(storage, app)).await;
        let opened = opened.map_err(|error| StartError::Raft(error.to_string()))??;
        let Storage { log, machine, reader, snapshots } = opened;
        let network = Network::new(&config, tls.0.clone());
        let raft_config = Arc::new(raft_config(&config)?);
        let raft = Raft::new(config.id, raft_config, network, log.clone(), machine).await;
        let raft = raft.map_err(|error| StartError::Raft(error.to_string()))?;
        let (batcher, feeder) =
            Batcher::start(config.batch.clone(), reader.incarnation(), Proposer(raft.clone()))
                .map_err(NodeConfigError::from)?;
        let addresses = sockets.addresses;
        let transfers = Arc::new(Transfers::default());
        let causes = Causes::new(&log, &reader);
        let parts = Parts {
            causes: &causes,
            config: &config,
            raft: &raft,
            reader: &reader,
            snapshots: &snapshots,
            transfers: &transfers,
            batcher: &batcher,
        };
        let (stop_clients, stop_peers) = (watch::Sender::new(Stage::Serve), watch::Sender::new(Stage::Serve));
        let listeners = parts.listen(sockets, tls, &stop_clients, &stop_peers)?;
        let learners = if config.bootstrap { bootstrap(&raft, &config).await? } else { JoinSet::new() };
        let settings = config.raft;
        Ok(Node {
            raft,
            reader,
            log,
            snapshots,
            transfers,
            batcher,
            causes,
            feeder,
            stop_clients,
            stop_peers,
            listeners,
            _learners: learners,
            addresses,
            settings,
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The consensus engine: its metrics, and changes of the membership.
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The executor's side: reads without consensus, the state's digest, the engine's metrics.
    pub fn reader(&self) -> &Reader<A> {
        &self.reader
    }

    /// The node's snapshots.
    pub fn snapshots(&self) -> &SnapshotStore {
        &self.snapshots
    }

    /// What snapshots have come from other nodes.
    pub fn transfers(&self) -> TransferCounts {
        self.transfers.counts()
    }

    /// Returns once the node cannot go on, with the cause.
    pub async fn failed(&self) -> NodeError {
        let mut metrics = self.raft.metrics();
        loop {
            let fatal = metrics.borrow_and_update().running_state.clone().err();
            // The causes closest to the failure say most. An executor that fails where nobody waits for answers tells nobody.
            let cause = self.causes.find().or_else(|| fatal.map(|fatal| fatal.to_string()));
            if let Some(cause) = cause {
                return NodeError::Failed(cause);
            }
            if let Ok(Err(_)) = timeout(LOOK, metrics.changed()).await {
                let cause = self.causes.find();
                return NodeError::Failed(cause.unwrap_or_else(|| "consensus has ended".to_owned()));
            }
        }
    }

    /// Ends at once: nobody is answered any more, no snapshot is built. Returns when the node's tasks have let go of its data.
    pub async fn abort(self) {
        self.stop_clients.send_replace(Stage::Cut);
        self.stop_peers.send_replace(Stage::Cut);
        self.batcher.close();
        for task in self.listeners.into_iter().flatten() {
            task.abort();
        }
        self.feeder.abort();
        // There is nobody to tell what fails.
        let _ = timeout(ABORT, self.raft.shutdown()).await;
        let _ = timeout(ABORT, self.log.close()).await;
        drop((self.raft, self.batcher, self.causes));
        let _ = timeout(ABORT, self.reader.shutdown()).await;
    }

    /// Stops: takes no more requests, answers those that it has taken, builds a snapshot, and ends.
    ///
    /// # Errors
    ///
    /// What did not work, or not in time; all the rest is done nevertheless, and nothing that was acknowledged is lost.
    pub async fn shutdown(self) -> Result<(), NodeError> {
        let limit = Duration::from_millis(self.settings.shutdown_ms);
        let mut faults = Vec::new();
        self.stop_clients.send_replace(Stage::Drain);
        self.batcher.close();
        let mut feeder = self.feeder;
        if timeout(limit, &mut feeder).await.is_err() {
            feeder.abort();
            faults.push("requests that were taken are not answered".to_owned());
        }
        drop((self.batcher, self.causes));
        let [clients, peers] = self.listeners;
        end(clients, &self.stop_clients).await;
        if let Err(fault) = snapshot(&self.raft, limit).await {
            faults.push(fault);
        }
        end(peers, &self.stop_peers).await;
        match timeout(limit, self.raft.shutdown()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => faults.push(error.to_string()),
            Err(_) => faults.push("consensus does not end".to_owned()),
        }
        drop(self.raft);
        match timeout(limit, self.log.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => faults.push(error.to_string()),
            Err(_) => faults.push("the log does not close".to_owned()),
        }
        match timeout(limit, self.reader.shutdown()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => faults.push(error.to_string()),
            Err(_) => faults.push("the executor does not end".to_owned()),
        }
        if faults.is_empty() { Ok(()) } else { Err(NodeError::Shutdown(faults.join("; "))) }
    }
}

/// Lets listeners finish what they can finish soon, then closes their connections.
async fn end(listeners: Vec<JoinHandle<()>>, stage: &watch::Sender<Stage>) {
    stage.send_replace(Stage::Drain);
    let mut deadline = Instant::now() + DRAIN;
    for mut listener in listeners {
        if timeout_at(deadline, &mut listener).await.is_ok() {
            continue;
        }
        stage.send_replace(Stage::Cut);
        deadline = Instant::now() + DRAIN;
        if timeout_at(deadline, &mut listener).await.is_err() {
            listener.abort();
        }
    }
    stage.send_replace(Stage::Cut);
}

/// Builds a snapshot of what is applied, unless there is one.
async fn snapshot(raft: &Raft, limit: Duration) -> Result<(), String> {
    let mut metrics = raft.metrics();
    let applied = metrics.borrow().last_applied;
    if applied.is_none() || metrics.borrow().running_state.is_err() {
        return Ok(());
    }
    let deadline = Instant::now() + limit;
    loop {
        // Before the request: the answer may be there before anybody waits for it.
        let before = metrics.borrow_and_update().snapshot;
        if before >= applied {
            return Ok(());
        }
        raft.trigger().snapshot().await.map_err(|error| error.to_string())?;
        // One that is being built already is not enough: then the next one is asked for.
        let changed = async {
            metrics
                .wait_for(|metrics| metrics.snapshot != before || metrics.running_state.is_err())
                .await
                .is_ok()
        };
        match timeout_at(deadline, changed).await {
            _ if metrics.borrow().snapshot >= applied => {}
            Ok(true) if metrics.borrow().running_state.is_ok() => {}
            Ok(_) => return Err("consensus has ended before the snapshot was built".to_owned()),
            Err(_) => return Err("the snapshot was not built in time".to_owned()),
        }
    }
}

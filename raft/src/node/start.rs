//! What a node is made of, before it runs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use openraft::error::{ClientWriteError, InitializeError, RaftError};
use openraft::{Config, ServerState, SnapshotPolicy};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};
use tokio::task::{JoinHandle, JoinSet};
use tonic::service::Routes;

use super::causes::Causes;
use super::{Addresses, StartError};
use crate::batcher::{Batcher, Propose, ProposeError};
use crate::config::NodeConfig;
use crate::machine::Reader;
use crate::proto::client::client_server::ClientServer;
use crate::proto::peer::peer_server::PeerServer;
use crate::server::{
    ClientService, HttpState, Listening, PeerService, ReadIndex, Shared, Stage, Transfers, serve, serve_http,
};
use crate::session::Service;
use crate::snapshot::SnapshotStore;
use crate::tls::Tls;
use crate::types::{Answers, Batch, Member, Raft};

/// Consensus, as the batcher sees it.
pub(super) struct Proposer(pub(super) Raft);

impl Propose for Proposer {
    async fn propose(&self, batch: Batch) -> Result<Answers, ProposeError> {
        let mut metrics = self.0.metrics();
        let term = metrics.borrow_and_update().current_term;
        // What a leader had not committed when another one took over may be in no log any more, or in a snapshot; openraft then
        // answers it never. Whoever asked asks again under the same serials.
        let deposed = metrics.wait_for(|metrics| metrics.current_term > term);
        let written = tokio::select! {
            biased;
            written = self.0.client_write(batch) => written,
            deposed = deposed => {
                let stopped = |_| ProposeError::Stopped("consensus has stopped".to_owned());
                return deposed.map_or_else(|error| Err(stopped(error)), |_| Err(ProposeError::NotLeader));
            }
        };
        match written {
            Ok(response) => Ok(response.data),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Err(ProposeError::NotLeader),
            Err(error) => Err(ProposeError::Stopped(error.to_string())),
        }
    }
}

/// The sockets, before anything is served on them.
pub(super) struct Sockets {
    peers: TcpListener,
    clients: TcpListener,
    http: Option<TcpListener>,
    pub(super) addresses: Addresses,
}

impl Sockets {
    pub(super) async fn bind(config: &NodeConfig) -> Result<Self, StartError> {
        let (peers, peer_address) = bind(config.peer_listener()?).await?;
        let (clients, client_address) = bind(config.client_listener()?).await?;
        let (http, http_address) = match config.listen.http {
            Some(address) => Some(bind(address).await?).unzip(),
            None => (None, None),
        };
        let addresses = Addresses { peers: peer_address, clients: client_address, http: http_address };
        Ok(Sockets { peers, clients, http, addresses })
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// What the listeners are made of.
pub(super) struct Parts<'a, A: Service> {
    pub(super) causes: &'a Causes,
    pub(super) config: &'a NodeConfig,
    pub(super) raft: &'a Raft,
    pub(super) reader: &'a Reader<A>,
    pub(super) snapshots: &'a SnapshotStore,
    pub(super) transfers: &'a Arc<Transfers>,
    pub(super) batcher: &'a Batcher,
}

/// So many connections of other nodes may be, at least: a limit that is meant for clients must not keep out who asks for votes.
const PEERS: usize = 256;

impl<A: Service> Parts<'_, A> {
    pub(super) fn listen(
        &self,
        sockets: Sockets,
        (peer_tls, client_tls): (Option<Tls>, Option<Tls>),
        stop_clients: &watch::Sender<Stage>,
        stop_peers: &watch::Sender<Stage>,
    ) -> Result<[Vec<JoinHandle<()>>; 2], StartError> {
        let limits = &self.config.limits;
        let listening = |listener, tls, connections| Listening {
            listener,
            tls,
            connections,
            calls_per_connection: limits.calls_per_connection,
        };
        let message = limits.peer_message_bytes;
        let peers = PeerServer::new(self.peers())
            .max_decoding_message_size(message)
            .max_encoding_message_size(message);
        let peers = listening(sockets.peers, peer_tls, limits.connections.max(PEERS))
            .spawn(Routes::new(peers), stop_peers)?;
        let clients = ClientServer::new(self.clients(stop_clients))
            .max_decoding_message_size(self.config.client_message_bytes());
        let clients = listening(sockets.clients, client_tls, limits.connections)
            .spawn(Routes::new(clients), stop_clients)?;
        let mut outward = vec![clients];
        if let Some(listener) = sockets.http {
            let state = HttpState {
                id: self.config.id,
                raft: self.raft.clone(),
                causes: self.causes.clone(),
                metrics: self.reader.metrics(),
                batcher: self.batcher.clone(),
                transfers: self.transfers.clone(),
            };
            outward.push(tokio::spawn(serve_http(listener, state, stop_clients.subscribe())));
        }
        Ok([outward, vec![peers]])
    }

    fn peers(&self) -> PeerService {
        PeerService {
            id: self.config.id,
            cluster: self.config.cluster.as_str().into(),
            raft: self.raft.clone(),
            snapshots: self.snapshots.clone(),
            snapshot_limit: Duration::from_millis(self.config.raft.snapshot_timeout_ms),
            reports: self.causes.reports(),
            receiving: Arc::new(Mutex::new(())),
            transfers: self.transfers.clone(),
        }
    }

    fn clients(&self, stop: &watch::Sender<Stage>) -> ClientService<A> {
        let limit = Duration::from_millis(self.config.limits.max_timeout_ms.into());
        ClientService(Arc::new(Shared {
            id: self.config.id,
            cluster: self.config.cluster.clone(),
            raft: self.raft.clone(),
            reader: self.reader.clone(),
            batcher: self.batcher.clone(),
            read_index: ReadIndex::start(self.raft.clone(), limit),
            limits: self.config.limits.clone(),
            read_operations: self.config.batch.max_operations,
            executor: self.config.executor.clone(),
            stage: stop.subscribe(),
        }))
    }
}

impl Listening {
    fn spawn(self, routes: Routes, stop: &watch::Sender<Stage>) -> Result<JoinHandle<()>, StartError> {
        let serving = serve(self, routes, stop.subscribe()).map_err(StartError::Tls)?;
        Ok(tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!("a listener has ended: {error}");
            }
        }))
    }
}

pub(super) fn raft_config(config: &NodeConfig) -> Result<Config, StartError> {
    let raft = &config.raft;
    let settings = Config {
        cluster_name: config.cluster.clone(),
        heartbeat_interval: raft.heartbeat_ms,
        election_timeout_min: raft.election_min_ms,
        election_timeout_max: raft.election_max_ms,
        install_snapshot_timeout: raft.snapshot_timeout_ms,
        max_payload_entries: raft.entries_per_message,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(raft.snapshot_every),
        max_in_snapshot_log_to_keep: raft.entries_kept,
        replication_lag_threshold: raft.snapshot_every.saturating_add(raft.entries_kept),
        // Each purge is a write of its own.
        purge_batch_size: (raft.snapshot_every / 4).max(1),
        ..Config::default()
    };
    settings.validate().map_err(|error| StartError::Raft(error.to_string()))
}

/// Forms the cluster if there is none, and has learners added once this node leads.
///
/// Returns the task that does that, which must not outlive the node: it keeps consensus running.
pub(super) async fn bootstrap(raft: &Raft, config: &NodeConfig) -> Result<JoinSet<()>, StartError> {
    let (learners, voters): (Vec<_>, Vec<_>) = config.members.iter().partition(|member| member.learner);
    let voters: BTreeMap<u64, Member> =
        voters.into_iter().map(|member| (member.id, member.member())).collect();
    match raft.initialize(voters).await {
        Ok(()) => tracing::info!("formed the cluster `{}`", config.cluster),
        Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
        Err(error) => return Err(StartError::Raft(error.to_string())),
    }
    let mut tasks = JoinSet::new();
    if !learners.is_empty() {
        let learners = learners.into_iter().map(|member| (member.id, member.member())).collect();
        tasks.spawn(add_learners(raft.clone(), learners));
    }
    Ok(tasks)
}

/// Adds the learners that are no members yet, whenever this node leads; ends once all are.
async fn add_learners(raft: Raft, learners: BTreeMap<u64, Member>) {
    let mut metrics = raft.metrics();
    loop {
        let (leads, missing) = {
            let metrics = metrics.borrow_and_update();
            let membership = metrics.membership_config.membership();
            let missing = learners.iter().find(|(id, _)| membership.get_node(id).is_none());
            (metrics.state == ServerState::Leader, missing.map(|(id, member)| (*id, member.clone())))
        };
        let Some((id, member)) = missing else { return };
        if leads {
            if let Err(error) = raft.add_learner(id, member, false).await {
                tracing::warn!("learner {id} was not added: {error}");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        } else if metrics.changed().await.is_err() {
            return;
        }
    }
}

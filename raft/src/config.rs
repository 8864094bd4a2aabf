//! How a node is set up.
//!
//! Every part has defaults except `id`, `data_dir` and the addresses. The structs read from any serde format; the program
//! uses TOML. Times are whole numbers with their unit in the name.

mod executor;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use atlas_smr_execution::error::ConfigError as ExecutorConfigError;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

pub use executor::ExecutorSettings;

use crate::batcher::{BatchConfig, BatchConfigError};
use crate::client::MAX_ANSWER_BYTES;
use crate::tls::TlsFiles;
use crate::types::Member;

/// One node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeConfig {
    /// This node's number; no other node of the cluster has it, ever.
    pub id: u64,
    /// The cluster's name. Nodes of clusters with different names refuse each other.
    pub cluster: String,
    /// Holds the log and the snapshots of this node, and nothing else.
    pub data_dir: PathBuf,
    /// Form a cluster of `members` if this node has no data yet. Harmless on any later start, and on more than one node as
    /// long as their lists are equal.
    pub bootstrap: bool,
    /// Where this node listens.
    pub listen: ListenConfig,
    /// The executor.
    pub executor: ExecutorSettings,
    /// How requests are grouped into entries.
    pub batch: BatchConfig,
    /// What requests may be.
    pub limits: Limits,
    /// Consensus.
    pub raft: RaftSettings,
    /// Certificates.
    pub tls: TlsSettings,
    /// The nodes that the cluster starts with.
    pub members: Vec<MemberConfig>,
}

/// A node that the cluster starts with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberConfig {
    /// Its number.
    pub id: u64,
    /// `host:port` that other nodes connect to.
    pub peer_address: String,
    /// `host:port` that clients connect to.
    pub client_address: String,
    /// It gets the log, but has no vote.
    #[serde(default)]
    pub learner: bool,
}

impl MemberConfig {
    /// What the log knows of it.
    pub fn member(&self) -> Member {
        Member { peer_address: self.peer_address.clone(), client_address: self.client_address.clone() }
    }
}

/// Where a node listens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenConfig {
    /// For other nodes; by default this node's address in `members`.
    pub peers: Option<SocketAddr>,
    /// For clients; by default this node's address in `members`.
    pub clients: Option<SocketAddr>,
    /// For Prometheus (`/metrics`) and health checks (`/health`), by plain HTTP; by default nowhere.
    pub http: Option<SocketAddr>,
    /// Listen beyond loopback without TLS: whoever reaches the ports is trusted.
    pub allow_insecure: bool,
}

/// What requests may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// How long a request may take that does not say so itself, in milliseconds.
    pub default_timeout_ms: u32,
    /// How long a request may take at most, in milliseconds.
    pub max_timeout_ms: u32,
    /// Bytes of the answers to one request, at most. A read with more is refused; of ordered operations, which were executed
    /// all the same, replies beyond it are left out.
    pub max_answer_bytes: usize,
    /// Bytes of one message between nodes, at most.
    pub peer_message_bytes: usize,
    /// Requests of one pipeline that are on their way at once, at most.
    pub pipeline_depth: usize,
    /// Calls of one connection that are on their way at once, at most.
    pub calls_per_connection: u32,
    /// Connections of clients at once, at most.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            default_timeout_ms: 5_000,
            max_timeout_ms: 60_000,
            max_answer_bytes: 16 << 20,
            peer_message_bytes: 64 << 20,
            pipeline_depth: 64,
            calls_per_connection: 256,
            connections: 1024,
        }
    }
}

/// Consensus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RaftSettings {
    /// From one sign of life of the leader to the next, in milliseconds; a message to a follower may take as long.
    pub heartbeat_ms: u64,
    /// A node that has heard no leader for so long stands for election, in milliseconds; each waits for a random time
    /// between this
    pub election_min_ms: u64,
    /// and this.
    pub election_max_ms: u64,
    /// A snapshot is built every so many entries.
    pub snapshot_every: u64,
    /// Snapshots kept; at least 2.
    pub snapshots_kept: usize,
    /// Entries that stay in the log though a snapshot has them. A follower that lags less gets entries, not a snapshot.
    pub entries_kept: u64,
    /// Entries in one message to a follower, at most.
    pub entries_per_message: u64,
    /// How long a snapshot may take to reach and to be installed on a follower, in milliseconds.
    pub snapshot_timeout_ms: u64,
    /// How long a stopping node waits for what it has accepted, and then for its snapshot, in milliseconds.
    pub shutdown_ms: u64,
}

impl Default for RaftSettings {
    fn default() -> Self {
        RaftSettings {
            heartbeat_ms: 100,
            election_min_ms: 500,
            election_max_ms: 1_000,
            snapshot_every: 5_000,
            snapshots_kept: 2,
            entries_kept: 1_000,
            entries_per_message: 32,
            snapshot_timeout_ms: 300_000,
            shutdown_ms: 20_000,
        }
    }
}

/// Certificates, for each listener and for whoever connects to it; none: plain connections, and loopback only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSettings {
    /// Between nodes.
    pub peers: Option<TlsFiles>,
    /// Between clients and nodes.
    pub clients: Option<TlsFiles>,
}

/// A setting that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeConfigError {
    /// It has no default.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// Zero makes no sense.
    #[error("`{0}` must be at least 1")]
    Zero(&'static str),
    /// More than is possible.
    #[error("`{name}` must be at most {most}")]
    TooLarge {
        /// The setting.
        name: &'static str,
        /// What is possible.
        most: u64,
    },
    /// One snapshot leaves nothing to fall back on.
    #[error("`raft.snapshots_kept` must be at least 2")]
    SnapshotsKept,
    /// Two members with one number.
    #[error("`members` has {0} twice")]
    TwoMembers(u64),
    /// A cluster without this node, or without any voter.
    #[error("`bootstrap` needs `members` with this node ({0}) as a voter")]
    Bootstrap(u64),
    /// An address that is none.
    #[error("`{name}`: `{address}` is not an address of the form host:port")]
    Address {
        /// The setting.
        name: &'static str,
        /// What it says.
        address: String,
    },
    /// A listener that everybody may reach and nobody has to show a certificate to.
    #[error(
        "`listen.{listener}`: {address} is not loopback and has no TLS; give certificates, or set `allow_insecure`"
    )]
    Insecure {
        /// The listener.
        listener: &'static str,
        /// Where.
        address: SocketAddr,
    },
    /// Times that contradict each other.
    #[error("`raft`: heartbeat_ms < election_min_ms < election_max_ms must hold")]
    Elections,
    /// A default above the bound.
    #[error("`limits.default_timeout_ms` is above `limits.max_timeout_ms`")]
    Timeouts,
    /// Messages to followers that would be refused.
    #[error(
        "`limits.peer_message_bytes` must be at least {needed}: `raft.entries_per_message` entries of the largest size"
    )]
    PeerMessage {
        /// What the largest message takes.
        needed: usize,
    },
    /// Entries.
    #[error("`batch`: {0}")]
    Batch(#[from] BatchConfigError),
    /// The executor.
    #[error("`executor`: {0}")]
    Executor(#[from] ExecutorConfigError),
}

/// Bytes that an operation takes in a message besides its own, at most: numbers, lengths, tags.
pub(crate) const OPERATION_OVERHEAD: usize = 40;
/// Bytes of a message that are no operations, at most.
pub(crate) const MESSAGE_OVERHEAD: usize = 4096;

impl NodeConfig {
    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// The first that cannot work.
    pub fn validate(&self) -> Result<(), NodeConfigError> {
        if self.id == 0 {
            return Err(NodeConfigError::Zero("id"));
        }
        if self.data_dir.as_os_str().is_empty() {
            return Err(NodeConfigError::Missing("data_dir"));
        }
        self.validate_members()?;
        if self.cluster.is_empty() {
            return Err(NodeConfigError::Missing("cluster"));
        }
        let listen = &self.listen;
        let listeners = [
            ("peers", Some(self.peer_listener()?), self.tls.peers.is_some()),
            ("clients", Some(self.client_listener()?), self.tls.clients.is_some()),
            ("http", listen.http, false),
        ];
        for (listener, address, tls) in listeners {
            let Some(address) = address else { continue };
            if !(address.ip().is_loopback() || tls || listen.allow_insecure) {
                return Err(NodeConfigError::Insecure { listener, address });
            }
        }
        self.batch.validate()?;
        self.executor.executor_config().validate()?;
        self.validate_numbers()
    }

    fn validate_members(&self) -> Result<(), NodeConfigError> {
        let mut ids = BTreeSet::new();
        for member in &self.members {
            if !ids.insert(member.id) {
                return Err(NodeConfigError::TwoMembers(member.id));
            }
            for (name, address) in
                [("peer_address", &member.peer_address), ("client_address", &member.client_address)]
            {
                let port =
                    address.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then_some(port));
                if port.is_none_or(|port| port.parse::<u16>().is_err()) {
                    return Err(NodeConfigError::Address { name, address: address.clone() });
                }
            }
        }
        if self.bootstrap && self.own().is_none_or(|own| own.learner) {
            return Err(NodeConfigError::Bootstrap(self.id));
        }
        Ok(())
    }

    fn validate_numbers(&self) -> Result<(), NodeConfigError> {
        let (raft, limits) = (&self.raft, &self.limits);
        let positive = [
            ("raft.heartbeat_ms", raft.heartbeat_ms),
            ("raft.snapshot_every", raft.snapshot_every),
            ("raft.entries_per_message", raft.entries_per_message),
            ("raft.snapshot_timeout_ms", raft.snapshot_timeout_ms),
            ("limits.default_timeout_ms", limits.default_timeout_ms.into()),
            ("limits.max_answer_bytes", limits.max_answer_bytes as u64),
            ("limits.pipeline_depth", limits.pipeline_depth as u64),
            ("limits.calls_per_connection", limits.calls_per_connection.into()),
            ("limits.connections", limits.connections as u64),
        ];
        if let Some((name, _)) = positive.into_iter().find(|&(_, value)| value == 0) {
            return Err(NodeConfigError::Zero(name));
        }
        let bounded = [
            ("raft.snapshot_every", raft.snapshot_every, i64::MAX as u64),
            // What surrounds the answers takes some, too.
            ("limits.max_answer_bytes", limits.max_answer_bytes as u64, (MAX_ANSWER_BYTES / 2) as u64),
            ("limits.pipeline_depth", limits.pipeline_depth as u64, Semaphore::MAX_PERMITS as u64),
        ];
        if let Some((name, _, most)) = bounded.into_iter().find(|&(_, value, most)| value > most) {
            return Err(NodeConfigError::TooLarge { name, most });
        }
        if raft.snapshots_kept < 2 {
            return Err(NodeConfigError::SnapshotsKept);
        }
        if raft.heartbeat_ms >= raft.election_min_ms || raft.election_min_ms >= raft.election_max_ms {
            return Err(NodeConfigError::Elections);
        }
        if limits.default_timeout_ms > limits.max_timeout_ms {
            return Err(NodeConfigError::Timeouts);
        }
        let entry = self.batch.max_bytes + self.batch.max_operations * OPERATION_OVERHEAD;
        let entries = usize::try_from(raft.entries_per_message).unwrap_or(usize::MAX);
        let needed = entry.saturating_mul(entries).saturating_add(MESSAGE_OVERHEAD);
        if needed > limits.peer_message_bytes {
            return Err(NodeConfigError::PeerMessage { needed });
        }
        Ok(())
    }

    /// This node in `members`.
    pub(crate) fn own(&self) -> Option<&MemberConfig> {
        self.members.iter().find(|member| member.id == self.id)
    }

    /// Where to listen for nodes.
    ///
    /// # Errors
    ///
    /// No address, or one that is a name: then `listen.peers` has to say.
    pub fn peer_listener(&self) -> Result<SocketAddr, NodeConfigError> {
        let own = self.own().map(|own| &own.peer_address);
        listener("listen.peers", self.listen.peers, own)
    }

    /// Where to listen for clients.
    ///
    /// # Errors
    ///
    /// No address, or one that is a name: then `listen.clients` has to say.
    pub fn client_listener(&self) -> Result<SocketAddr, NodeConfigError> {
        let own = self.own().map(|own| &own.client_address);
        listener("listen.clients", self.listen.clients, own)
    }

    /// The largest request of a client, as it arrives.
    pub(crate) fn client_message_bytes(&self) -> usize {
        self.batch.max_bytes + self.batch.max_operations * OPERATION_OVERHEAD + MESSAGE_OVERHEAD
    }
}

fn listener(
    name: &'static str,
    set: Option<SocketAddr>,
    own: Option<&String>,
) -> Result<SocketAddr, NodeConfigError> {
    match (set, own) {
        (Some(address), _) => Ok(address),
        (None, Some(own)) => own.parse().map_err(|_| NodeConfigError::Address { name, address: own.clone() }),
        (None, None) => Err(NodeConfigError::Missing(name)),
    }
}

#[cfg(test)]
mod tests {
    use atlas_smr_execution::executor::ExecutorConfig;

    use super::*;

    fn valid() -> NodeConfig {
        let member = |id: u64| MemberConfig {
            id,
            peer_address: format!("127.0.0.1:{}", 7100 + id),
            client_address: format!("127.0.0.1:{}", 7200 + id),
            learner: false,
        };
        NodeConfig {
            id: 1,
            cluster: "test".to_owned(),
            data_dir: "data".into(),
            bootstrap: true,
            members: (1..=3).map(member).collect(),
            ..NodeConfig::default()
        }
    }

    fn wrong(change: impl FnOnce(&mut NodeConfig)) -> String {
        let mut config = valid();
        change(&mut config);
        config.validate().expect_err("wrong").to_string()
    }

    #[test]
    fn defaults_and_a_list_of_members_are_enough() {
        let config = valid();
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(config.peer_listener(), Ok("127.0.0.1:7101".parse().expect("an address")));
        assert_eq!(config.client_listener(), Ok("127.0.0.1:7201".parse().expect("an address")));
    }

    #[test]
    fn what_cannot_work_is_named() {
        assert_eq!(wrong(|c| c.data_dir = PathBuf::new()), "`data_dir` is missing");
        assert_eq!(wrong(|c| c.id = 0), "`id` must be at least 1");
        assert_eq!(wrong(|c| c.cluster.clear()), "`cluster` is missing");
        assert_eq!(wrong(|c| c.members[1].id = 1), "`members` has 1 twice");
        assert!(wrong(|c| c.id = 9).contains("(9) as a voter"));
        assert!(wrong(|c| c.members[0].learner = true).contains("(1) as a voter"));
        assert!(
            wrong(|c| c.members[2].client_address = "nowhere".to_owned())
                .contains("`nowhere` is not an address")
        );
        assert!(wrong(|c| c.members[2].client_address = ":80".to_owned()).contains("is not an address"));
        assert!(wrong(|c| c.members[0].peer_address = "host:7101".to_owned()).starts_with("`listen.peers`"));
        assert!(wrong(|c| c.raft.heartbeat_ms = 500).contains("heartbeat_ms < election_min_ms"));
        assert!(wrong(|c| c.raft.election_max_ms = 500).contains("election_min_ms < election_max_ms"));
        assert_eq!(wrong(|c| c.raft.snapshots_kept = 1), "`raft.snapshots_kept` must be at least 2");
        assert_eq!(wrong(|c| c.limits.pipeline_depth = 0), "`limits.pipeline_depth` must be at least 1");
        assert!(wrong(|c| c.limits.default_timeout_ms = 70_000).contains("above `limits.max_timeout_ms`"));
        assert!(
            wrong(|c| c.limits.peer_message_bytes = 1 << 20).contains("`limits.peer_message_bytes` must be")
        );
        assert_eq!(wrong(|c| c.batch.in_flight = 0), "`batch`: `in_flight` must be at least 1");
        assert_eq!(wrong(|c| c.executor.threads = Some(0)), "`executor`: `threads` must be at least 1");
        assert!(
            wrong(|c| c.raft.snapshot_every = u64::MAX).contains("`raft.snapshot_every` must be at most")
        );
        assert!(wrong(|c| c.limits.max_answer_bytes = usize::MAX).contains("must be at most 33554432"));
        assert!(wrong(|c| c.limits.pipeline_depth = usize::MAX).contains("`limits.pipeline_depth`"));
    }

    #[test]
    fn the_executor_gets_these_settings_and_keeps_its_others() {
        let settings = ExecutorSettings { queue: 3, threads: Some(5), ..ExecutorSettings::default() };
        let mut config = ExecutorConfig::default();
        (config.reply_buffer, config.initial_seq) = (7, None);
        settings.apply(&mut config);
        assert_eq!((config.executing_buffer, config.threads, config.reply_buffer), (3, Some(5), 7));
        let default = ExecutorSettings::default().executor_config();
        assert_eq!(default.executing_buffer, 64, "each place may hold an entry of 1 MiB");
        assert!(wrong(|c| c.executor.queue = 0).contains("must be at least 1"));
    }

    #[test]
    fn beyond_loopback_certificates_are_needed_unless_told_otherwise() {
        let open = |listener: &'static str| {
            move |c: &mut NodeConfig| {
                let address = "0.0.0.0:1".parse().ok();
                match listener {
                    "peers" => c.listen.peers = address,
                    "clients" => c.listen.clients = address,
                    _ => c.listen.http = address,
                }
            }
        };
        for listener in ["peers", "clients", "http"] {
            assert!(
                wrong(open(listener)).starts_with(&format!("`listen.{listener}`: 0.0.0.0:1 is not loopback"))
            );
            let mut config = valid();
            open(listener)(&mut config);
            config.listen.allow_insecure = true;
            assert_eq!(config.validate(), Ok(()));
        }
        let mut config = valid();
        open("clients")(&mut config);
        let files = || TlsFiles {
            authority: "a".into(),
            certificate: "b".into(),
            key: "c".into(),
            server_name: None,
        };
        config.tls.clients = Some(files());
        assert_eq!(config.validate(), Ok(()));
        open("peers")(&mut config);
        assert!(config.validate().is_err(), "one listener's certificates do not protect the other");
    }
}

//! The options of `serve`, `client`, `status` and `cluster`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use atlas_smr_raft::client::ClientConfig;
use atlas_smr_raft::config::MemberConfig;
use atlas_smr_raft::machine::ExecutorKind;
use atlas_smr_raft::tls::TlsFiles;
use clap::{Args, Subcommand, ValueEnum};

use crate::error::CliError;

/// Options of `serve`. Each overrides what the file says.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The node's settings, as TOML; raft/README.md shows all of them.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// This node's number.
    #[arg(long)]
    pub id: Option<u64>,
    /// The cluster's name.
    #[arg(long)]
    pub cluster: Option<String>,
    /// The folder of this node's log and snapshots.
    #[arg(long)]
    pub data_dir: Option<PathBuf>,
    /// A node that the cluster starts with: ID=PEER_ADDRESS,CLIENT_ADDRESS, and ",learner" after that if it has no vote; may be
    /// given more than once.
    #[arg(long = "member")]
    pub members: Vec<MemberArg>,
    /// Form the cluster of these members, unless there is one already.
    #[arg(long)]
    pub init: bool,
    /// single-monolithic, multi-monolithic, single-divisible or multi-divisible.
    #[arg(long)]
    pub executor: Option<ExecutorKind>,
    /// Threads that execute operations.
    #[arg(long)]
    pub threads: Option<usize>,
    /// Where to listen for other nodes [default: the member's address].
    #[arg(long)]
    pub listen_peers: Option<SocketAddr>,
    /// Where to listen for clients [default: the member's address].
    #[arg(long)]
    pub listen_clients: Option<SocketAddr>,
    /// Where to serve /metrics and /health.
    #[arg(long)]
    pub http: Option<SocketAddr>,
    /// Listen beyond loopback without TLS.
    #[arg(long)]
    pub allow_insecure: bool,
    /// Stop when standard input ends, as it does when the process that started this one is gone.
    #[arg(long, hide = true)]
    pub until_eof: bool,
}

/// A member on the command line.
#[derive(Clone, Debug)]
pub struct MemberArg(pub MemberConfig);

impl FromStr for MemberArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not of the form ID=PEER_ADDRESS,CLIENT_ADDRESS[,learner]");
        let (id, addresses) = text.split_once('=').ok_or_else(wrong)?;
        let parts: Vec<&str> = addresses.split(',').collect();
        let (peer_address, client_address, learner) = match parts[..] {
            [peer, client] => (peer, client, false),
            [peer, client, "learner"] => (peer, client, true),
            _ => return Err(wrong()),
        };
        Ok(MemberArg(MemberConfig {
            id: id.parse().map_err(|_| wrong())?,
            peer_address: peer_address.to_owned(),
            client_address: client_address.to_owned(),
            learner,
        }))
    }
}

/// How a cluster is reached.
#[derive(Clone, Debug, Args)]
pub struct ReachArgs {
    /// host:port of one or more nodes, with commas between them.
    // Needed, which a global option cannot be to clap; `config` asks for it.
    #[arg(long, env = "ATLAS_ADDRESSES", value_delimiter = ',', global = true)]
    pub addresses: Vec<String>,
    /// Milliseconds that an operation may take, with all attempts.
    #[arg(long, default_value_t = 10_000, global = true)]
    pub timeout_ms: u64,
    /// The authority that must have signed the nodes' certificates (PEM). With it connections use TLS.
    #[arg(long, requires_all = ["tls_certificate", "tls_key"], global = true)]
    pub tls_authority: Option<PathBuf>,
    /// This client's certificate (PEM).
    #[arg(long, requires = "tls_authority", global = true)]
    pub tls_certificate: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, requires = "tls_authority", global = true)]
    pub tls_key: Option<PathBuf>,
    /// The name in the nodes' certificates [default: the host that is connected to].
    #[arg(long, requires = "tls_authority", global = true)]
    pub tls_name: Option<String>,
}

impl ReachArgs {
    /// The client's settings.
    pub fn config(&self) -> Result<ClientConfig, CliError> {
        if self.addresses.is_empty() {
            return Err(CliError::Usage("`--addresses` is missing".to_owned()));
        }
        let tls = match (&self.tls_authority, &self.tls_certificate, &self.tls_key) {
            (Some(authority), Some(certificate), Some(key)) => Some(TlsFiles {
                authority: authority.clone(),
                certificate: certificate.clone(),
                key: key.clone(),
                server_name: self.tls_name.clone(),
            }),
            _ => None,
        };
        Ok(ClientConfig {
            addresses: self.addresses.clone(),
            tls,
            timeout_ms: self.timeout_ms,
            ..ClientConfig::default()
        })
    }
}

/// Options of `client`.
#[derive(Debug, Args)]
pub struct ClientArgs {
    #[command(flatten)]
    pub reach: ReachArgs,
    #[command(subcommand)]
    pub operation: Operation,
}

/// What a client asks for.
#[derive(Debug, Subcommand)]
pub enum Operation {
    /// Print a key's value; exit code 1 if it has none.
    Get {
        key: String,
        /// Ask any node, which may not know the newest value.
        #[arg(long)]
        stale: bool,
    },
    /// Set a key's value.
    Put { key: String, value: String },
    /// Remove a key, and print its value; exit code 1 if it had none.
    Delete { key: String },
    /// Move an amount from one key's value to another's; exit code 1 if there is too little.
    Transfer {
        from: String,
        to: String,
        amount: u64,
        /// Busy work of each replica, in nanoseconds.
        #[arg(long, default_value_t = 0)]
        work_ns: u32,
    },
    /// Ask for much, and measure.
    Bench {
        #[command(flatten)]
        load: LoadArgs,
        /// Operations altogether.
        #[arg(long, default_value_t = 1_000_000)]
        operations: u64,
        /// Print one JSON document instead of text.
        #[arg(long)]
        json: bool,
    },
}

/// What a load consists of.
#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    /// What each operation is.
    #[arg(long, value_enum, default_value_t = Mix::Nothing)]
    pub mix: Mix,
    /// Operations in one request.
    #[arg(long, default_value_t = 256)]
    pub per_request: usize,
    /// Clients.
    #[arg(long, default_value_t = 4)]
    pub clients: usize,
    /// Requests that each client has on its way at once.
    #[arg(long, default_value_t = 4)]
    pub in_flight: usize,
    /// Keys that `put` and `transfer` choose from: fewer of them collide more often.
    #[arg(long, default_value_t = 1000)]
    pub keys: u64,
    /// Busy work of a transfer, in nanoseconds.
    #[arg(long, default_value_t = 0)]
    pub work_ns: u32,
    /// Bytes of a value that is put.
    #[arg(long, default_value_t = 100)]
    pub value_size: usize,
    /// Seed of the choice.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// What the operations of a load are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mix {
    /// Nothing: what the replication itself costs.
    Nothing,
    /// Values for random keys.
    Put,
    /// Transfers between random keys.
    Transfer,
}

/// Options of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    pub reach: ReachArgs,
    /// Leave out the digests, which cost the nodes some work.
    #[arg(long)]
    pub no_digest: bool,
    /// Print one JSON document instead of the table.
    #[arg(long)]
    pub json: bool,
}

/// Options of `cluster`.
#[derive(Debug, Args)]
pub struct ClusterArgs {
    /// Operations altogether [default: 100000, with --bench 1000000].
    #[arg(long)]
    pub operations: Option<u64>,
    /// Measure what the replication itself costs: empty operations, 256 in each entry of the log.
    #[arg(long)]
    pub bench: bool,
    /// An executor for each node, with commas between them.
    #[arg(long, value_delimiter = ',', default_value = "multi-divisible,single-monolithic,multi-monolithic")]
    pub executors: Vec<ExecutorKind>,
    /// Threads of the multi-threaded ones.
    #[arg(long, default_value_t = 2)]
    pub threads: usize,
    /// What each operation is [default: transfer, with --bench nothing].
    #[arg(long, value_enum)]
    pub mix: Option<Mix>,
    /// Operations in one request.
    #[arg(long, default_value_t = 256)]
    pub per_request: usize,
    /// Clients.
    #[arg(long, default_value_t = 4)]
    pub clients: usize,
    /// Requests that each client has on its way at once.
    #[arg(long, default_value_t = 4)]
    pub in_flight: usize,
    /// Keys to choose from.
    #[arg(long, default_value_t = 1000)]
    pub keys: u64,
    /// Busy work of a transfer, in nanoseconds [default: 1000].
    #[arg(long, default_value_t = 1000)]
    pub work_ns: u32,
    /// A snapshot every so many entries.
    #[arg(long, default_value_t = 1000)]
    pub snapshot_every: u64,
    /// Seed of the load.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Where the nodes keep their data [default: a temporary folder, deleted at the end].
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Print one JSON document at the end instead of tables.
    #[arg(long)]
    pub json: bool,
}

impl ClusterArgs {
    /// How much is asked for.
    pub fn operations(&self) -> u64 {
        self.operations.unwrap_or(if self.bench { 1_000_000 } else { 100_000 })
    }

    /// What is asked for.
    pub fn load(&self) -> LoadArgs {
        LoadArgs {
            mix: self.mix.unwrap_or(if self.bench { Mix::Nothing } else { Mix::Transfer }),
            per_request: self.per_request,
            clients: self.clients,
            in_flight: self.in_flight,
            keys: self.keys,
            work_ns: self.work_ns,
            value_size: 100,
            seed: self.seed,
        }
    }
}

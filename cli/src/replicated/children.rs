//! Replicas as processes of this same program. They end when this one does, however it does: each holds the end of a pipe
//! from here as its standard input, and stops when that closes.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use atlas_smr_raft::config::{ExecutorSettings, MemberConfig, NodeConfig};
use atlas_smr_raft::loopback;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use super::args::ClusterArgs;
use crate::error::CliError;

/// How long a node may take to listen, and to stop. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A replica.
pub struct Node {
    id: u64,
    process: Child,
    log: PathBuf,
    /// Kept open, so that the node can write.
    _output: BufReader<ChildStdout>,
}

/// The nodes' settings: addresses on loopback that nobody uses at the moment, and data in folders of `dir`.
pub fn settings(args: &ClusterArgs, dir: &Path) -> Result<Vec<NodeConfig>, CliError> {
    let count = args.executors.len();
    let addresses = loopback::addresses(2 * count).map_err(CliError::Runtime)?;
    let member = |(id, pair): (u64, &[SocketAddr])| MemberConfig {
        id,
        peer_address: pair[0].to_string(),
        client_address: pair[1].to_string(),
        learner: false,
    };
    let members: Vec<_> = (1..).zip(addresses.chunks(2)).map(member).collect();
    let node = |(id, kind): (u64, &_)| {
        let mut config = NodeConfig {
            id,
            cluster: "local".to_owned(),
            data_dir: dir.join(format!("node-{id}")),
            bootstrap: true,
            members: members.clone(),
            executor: ExecutorSettings {
                kind: *kind,
                threads: Some(args.threads),
                ..ExecutorSettings::default()
            },
            ..NodeConfig::default()
        };
        // All share this machine: idle threads must not keep others from work, and elections must wait longer than that.
        config.executor.spin_us = 0;
        config.raft.heartbeat_ms = 200;
        config.raft.election_min_ms = 1_000;
        config.raft.election_max_ms = 2_000;
        config.raft.snapshot_every = args.snapshot_every;
        if args.bench {
            config.batch.max_operations = 256;
        }
        config.batch.max_operations = config.batch.max_operations.max(args.per_request);
        config.validate().map(|()| config)
    };
    let configs: Result<Vec<_>, _> = (1..).zip(&args.executors).map(node).collect();
    Ok(configs.map_err(atlas_smr_raft::node::StartError::Config)?)
}

impl Node {
    /// Starts a node, and waits until it listens.
    pub async fn start(config: &NodeConfig, dir: &Path) -> Result<Node, CliError> {
        let id = config.id;
        let failed = |what: String| CliError::Cluster(format!("node {id}: {what}"));
        let file = dir.join(format!("node-{id}.toml"));
        let text = toml::to_string(config).map_err(|error| failed(error.to_string()))?;
        std::fs::write(&file, text).map_err(CliError::Runtime)?;
        let log = dir.join(format!("node-{id}.log"));
        let program = std::env::current_exe().map_err(CliError::Runtime)?;
        let mut process = Command::new(program)
            .arg("serve")
            .arg("--until-eof")
            .arg("--config")
            .arg(&file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).map_err(CliError::Runtime)?)
            .kill_on_drop(true)
            .spawn()
            .map_err(CliError::Runtime)?;
        let output = process.stdout.take().ok_or_else(|| failed("no output".to_owned()))?;
        let mut node = Node { id, process, log, _output: BufReader::new(output) };
        let mut line = String::new();
        match timeout(PATIENCE, node._output.read_line(&mut line)).await {
            Ok(Ok(read)) if read > 0 => Ok(node),
            Ok(_) => Err(failed(format!("did not start: {}", node.complaint()))),
            Err(_) => Err(failed("does not listen".to_owned())),
        }
    }

    /// Fails if the node has ended.
    pub fn check(&mut self) -> Result<(), CliError> {
        match self.process.try_wait().map_err(CliError::Runtime)? {
            None => Ok(()),
            Some(status) => {
                Err(CliError::Cluster(format!("node {} has ended ({status}): {}", self.id, self.complaint())))
            }
        }
    }

    /// Asks the node to end, and waits for that.
    pub async fn stop(mut self) -> Result<ExitStatus, CliError> {
        let pid = self.process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            kill_process(pid, Signal::TERM).map_err(|error| CliError::Runtime(error.into()))?;
        }
        let stopped = timeout(PATIENCE, self.process.wait()).await;
        let late = |_| CliError::Cluster(format!("node {} does not stop", self.id));
        let status = stopped.map_err(late)?.map_err(CliError::Runtime)?;
        if status.success() {
            return Ok(status);
        }
        Err(CliError::Cluster(format!("node {} stopped with {status}: {}", self.id, self.complaint())))
    }

    /// What it wrote last to standard error.
    fn complaint(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().last().unwrap_or("no reason given").to_owned()
    }
}

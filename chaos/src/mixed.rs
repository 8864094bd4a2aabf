//! Nodes of different kinds under one log: one single-threaded, the others with different numbers of threads, many
//! operations that conflict. In the end all must hold the same bytes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use atlas_smr_raft::client::{Client, ClientConfig, Pending};
use atlas_smr_raft::types::Answer;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::cluster::{Cluster, Settings};
use crate::connection::account;
use crate::error::ChaosError;
use crate::proxy::NodeId;
use crate::request::{Reply, Request};
use crate::workload::{ACCOUNTS, BALANCE};

/// Who works at the same time.
const CLIENTS: u64 = 8;
/// Operations in one request.
const BATCH: u64 = 128;
/// Requests of one client on their way.
const DEPTH: usize = 4;
/// Busy work in each operation: enough that it pays to run several at once.
const WORK_NS: u32 = 2_000;
/// Accounts that the operations touch, besides the few that are hot.
const COLD: u64 = 10_000;
/// Out of a hundred operations, so many touch a hot account.
const HOT: u64 = 30;

/// What one node did.
#[derive(Clone, Debug, Serialize)]
pub struct NodeReport {
    /// The node.
    pub id: NodeId,
    /// Its executor.
    pub executor: String,
    /// Its threads.
    pub threads: u32,
    /// Operations that it executed,
    pub operations: u64,
    /// and those of them that had seen something that an earlier one changed.
    pub collisions: u64,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct MixedReport {
    /// The seed.
    pub seed: u64,
    /// Operations that were answered.
    pub operations: u64,
    /// How long they took, in milliseconds.
    pub elapsed_ms: u64,
    /// The nodes.
    pub nodes: Vec<NodeReport>,
    /// The digest of all nodes.
    pub digest: String,
}

/// Runs `operations` transfers, rounded up to whole requests.
///
/// # Errors
///
/// The nodes end with different states, an operation is lost, or the harness fails.
pub async fn run(settings: &Settings, seed: u64, operations: u64) -> Result<MixedReport, ChaosError> {
    let mut cluster = Cluster::start(settings).await?;
    let start = Instant::now();
    let requests = operations.div_ceil(BATCH);
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let config = ClientConfig {
            addresses: cluster.addresses(),
            timeout_ms: 120_000,
            attempt_timeout_ms: 30_000,
            ..ClientConfig::default()
        };
        let own = requests / CLIENTS + u64::from(number < requests % CLIENTS);
        let random = Pcg64Mcg::seed_from_u64(seed ^ (number << 32));
        clients.spawn(work(Client::new(config)?, own, random));
    }
    let mut answered = 0;
    while let Some(task) = clients.join_next().await {
        answered += task.map_err(|error| ChaosError::Refused(error.to_string()))??;
    }
    let elapsed = start.elapsed();
    let digest = cluster.digest().await?;
    if answered != requests * BATCH {
        return Err(ChaosError::Refused(format!("{answered} answers to {} operations", requests * BATCH)));
    }
    let mut nodes = Vec::new();
    for id in cluster.ids() {
        let status = cluster.status(id, false).await?;
        let counters = status.counters.unwrap_or_default();
        let (executor, threads) = (status.executor, status.threads);
        let (operations, collisions) = (counters.operations, counters.collisions);
        nodes.push(NodeReport { id, executor, threads, operations, collisions });
    }
    let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    Ok(MixedReport { seed, operations: answered, elapsed_ms, nodes, digest })
}

async fn work(client: Client, requests: u64, mut random: Pcg64Mcg) -> Result<u64, ChaosError> {
    let pipeline = client.pipeline();
    let mut pending = VecDeque::new();
    let mut answered = 0;
    for _ in 0..requests {
        if pending.len() == DEPTH {
            answered += answers(pending.pop_front()).await?;
        }
        let operations = (0..BATCH).map(|_| transfer(&mut random).encode()).collect();
        pending.push_back(pipeline.submit(operations).await?);
    }
    while !pending.is_empty() {
        answered += answers(pending.pop_front()).await?;
    }
    Ok(answered)
}

/// How many answers came, all of them of a transfer.
async fn answers(pending: Option<Pending>) -> Result<u64, ChaosError> {
    let Some(pending) = pending else { return Ok(0) };
    let answers = pending.answers().await?;
    for answer in &answers {
        let reply = match answer {
            Answer::Done(reply) => Reply::decode(reply),
            _ => None,
        };
        if !matches!(reply, Some(Reply::Transferred { .. } | Reply::TooLittle { .. })) {
            return Err(ChaosError::Refused(format!("{answer:?}")));
        }
    }
    Ok(answers.len() as u64)
}

fn transfer(random: &mut Pcg64Mcg) -> Request {
    let mut any = || {
        let is_hot = random.random_range(0..100) < HOT;
        account(if is_hot { random.random_range(0..ACCOUNTS) } else { 1_000 + random.random_range(0..COLD) })
    };
    let (from, to) = (any(), any());
    Request::Transfer { from, to, amount: random.random_range(0..BALANCE / 100), work_ns: WORK_NS }
}

/// Nodes for such a run: snapshots now and then.
pub fn settings(program: std::path::PathBuf, folder: std::path::PathBuf) -> Settings {
    Settings { snapshot_every: 1_000, entries_kept: 500, ..Settings::new(program, folder) }
}

/// A line for people.
pub fn line(report: &MixedReport) -> String {
    let seconds = Duration::from_millis(report.elapsed_ms.max(1)).as_secs_f64();
    let rate = report.operations as f64 / seconds;
    let MixedReport { seed, operations, digest, .. } = report;
    format!("{operations} operations in {seconds:.1} s ({rate:.0}/s), seed {seed}; all nodes hold {digest}")
}

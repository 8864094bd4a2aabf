//! `atlas-smr cluster`: three replicas, load, and the verdict.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use atlas_smr_raft::client::{Client, ClientConfig};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::args::ClusterArgs;
use super::children::{Node, settings};
use super::load::{self, Latency, Outcome, Progress};
use super::watch::{NodeRow, Row, ask, table};
use super::{asked_to_end, block_on};
use crate::error::CliError;
use crate::print;

/// How often the live table is drawn.
const DRAW: Duration = Duration::from_millis(500);
/// How long nodes may take to elect a leader, and to come to rest. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// The document of `--json`.
#[derive(Serialize)]
struct Document {
    nodes: Vec<Member>,
    operations: u64,
    operations_per_s: f64,
    latency_us: Latency,
    equal: bool,
}

/// A node at the end.
#[derive(Serialize)]
struct Member {
    id: u64,
    executor: String,
    threads: u32,
    applied: u64,
    digest: String,
}

/// True if all states are equal.
pub fn run(args: &ClusterArgs) -> Result<bool, CliError> {
    if args.executors.is_empty() {
        return Err(CliError::Usage("`--executors` names no node".to_owned()));
    }
    let temporary = match &args.dir {
        Some(dir) => {
            std::fs::create_dir_all(dir).map_err(CliError::Runtime)?;
            None
        }
        None => Some(tempfile::tempdir().map_err(CliError::Runtime)?),
    };
    let dir = temporary.as_ref().map_or_else(|| args.dir.as_deref(), |dir| Some(dir.path()));
    let Some(dir) = dir else { return Err(CliError::Usage("no folder".to_owned())) };
    block_on(async {
        // Whatever ends it, the nodes are dropped with the task, and killed by that.
        tokio::select! {
            outcome = whole(args, dir) => outcome,
            asked = asked_to_end() => asked.and_then(|()| Err(CliError::Cluster("interrupted".to_owned()))),
        }
    })
}

async fn whole(args: &ClusterArgs, dir: &Path) -> Result<bool, CliError> {
    let configs = settings(args, dir)?;
    let mut nodes = Vec::new();
    for config in &configs {
        nodes.push(Node::start(config, dir).await?);
    }
    let addresses: Vec<String> =
        configs[0].members.iter().map(|member| member.client_address.clone()).collect();
    let config = ClientConfig { addresses: addresses.clone(), timeout_ms: 30_000, ..ClientConfig::default() };
    let client = Client::new(config.clone())?;
    elected(&client, &addresses, &mut nodes).await?;
    let progress = Arc::new(Progress::new(args.operations()));
    let loaded = {
        let load = args.load();
        let load = load::run(&load, &config, &progress);
        let live = live(args, &client, &addresses, &progress, &mut nodes);
        tokio::select! {
            outcome = load => outcome?,
            ended = live => return ended.map(|()| false),
        }
    };
    let rows = at_rest(&client, &addresses, &mut nodes).await?;
    let equal = rows.windows(2).all(|pair| pair[0].digest == pair[1].digest);
    for node in nodes {
        node.stop().await?;
    }
    report(args, rows, &loaded, equal)?;
    Ok(equal && loaded.failed == 0)
}

/// Waits until a leader is known to all.
async fn elected(client: &Client, addresses: &[String], nodes: &mut [Node]) -> Result<(), CliError> {
    let begin = Instant::now();
    loop {
        let rows = ask(client, addresses, false).await;
        let leader = |row: &Row| row.node.as_ref().and_then(|node| node.leader);
        if rows.iter().all(|row| leader(row).is_some()) {
            return Ok(());
        }
        check(nodes)?;
        if begin.elapsed() > PATIENCE {
            return Err(CliError::Cluster("no leader was elected".to_owned()));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn check(nodes: &mut [Node]) -> Result<(), CliError> {
    nodes.iter_mut().try_for_each(Node::check)
}

/// Draws the table again and again; ends only with an error.
async fn live(
    args: &ClusterArgs,
    client: &Client,
    addresses: &[String],
    progress: &Progress,
    nodes: &mut [Node],
) -> Result<(), CliError> {
    let target = if args.json { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(None, target);
    if let Ok(style) = ProgressStyle::with_template("{msg}") {
        bar.set_style(style);
    }
    let (mut before, mut at) = (0, Instant::now());
    loop {
        tokio::time::sleep(DRAW).await;
        check(nodes)?;
        if bar.is_hidden() {
            continue;
        }
        let rows = ask(client, addresses, true).await;
        let done = progress.done();
        let rate = (done - before) as f64 / at.elapsed().as_secs_f64();
        (before, at) = (done, Instant::now());
        let Latency { p50, p99, .. } = progress.latency();
        let all = args.operations();
        let head = format!(
            "{done} of {all} operations, {rate:.0}/s; a request takes {p50} us (p50), {p99} us (p99)"
        );
        bar.set_message(format!("{head}\n{}", table(&rows)));
        bar.tick();
    }
}

/// Waits until all nodes have executed the same, and returns what they are then.
async fn at_rest(
    client: &Client,
    addresses: &[String],
    nodes: &mut [Node],
) -> Result<Vec<NodeRow>, CliError> {
    let begin = Instant::now();
    loop {
        let rows = ask(client, addresses, true).await;
        let rows: Vec<NodeRow> = rows.into_iter().filter_map(|row| row.node).collect();
        let last = rows.iter().map(|node| node.last_log).max();
        let rest = |node: &NodeRow| {
            Some(node.applied) == last
                && node.digest.is_some()
                && node.digest_applied == rows[0].digest_applied
        };
        if rows.len() == addresses.len() && rows.iter().all(rest) {
            return Ok(rows);
        }
        check(nodes)?;
        if begin.elapsed() > PATIENCE {
            return Err(CliError::Cluster(format!("the nodes do not come to rest:\n{rows:#?}")));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn report(args: &ClusterArgs, rows: Vec<NodeRow>, loaded: &Outcome, equal: bool) -> Result<(), CliError> {
    if !args.json {
        let all: Vec<Row> = rows
            .into_iter()
            .map(|node| Row { address: String::new(), node: Some(node), error: None })
            .collect();
        let verdict = if equal { "All states are equal." } else { "THE STATES DIFFER." };
        return print(&format!("{}\n{}\n{verdict}", table(&all), loaded.text()));
    }
    let member = |node: NodeRow| Member {
        id: node.id,
        executor: node.executor,
        threads: node.threads,
        applied: node.applied,
        digest: node.digest.unwrap_or_default(),
    };
    let document = Document {
        nodes: rows.into_iter().map(member).collect(),
        operations: loaded.operations,
        operations_per_s: loaded.operations_per_s,
        latency_us: loaded.latency_us,
        equal,
    };
    print(&serde_json::to_string_pretty(&document)?)
}

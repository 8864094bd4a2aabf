//! A whole run: clients at work, one fault after another, and the judgement.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use atlas_smr_raft::client::Client as Reached;
use clap::ValueEnum;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::cluster::{Cluster, LIMIT, Settings};
use crate::connection::{Connection, Reads, client};
use crate::error::ChaosError;
use crate::history::{History, Recorder};
use crate::judge::{Fault, judge};
use crate::request::Request;
use crate::scenario::{self, Outcome, Scenario};
use crate::workload::{AUDITOR, CLIENTS, Client, Pace};

/// How long the judge may take for one key.
const JUDGEMENT: Duration = Duration::from_secs(60);
/// Ballast that makes snapshots take a while: so many keys,
const BALLAST_KEYS: u64 = 2_000;
/// of so many bytes,
const BALLAST_BYTES: usize = 2_048;
/// so many of them written at once.
const BALLAST_BATCH: u64 = 32;

/// Between two looks at the clock.
const TICK: Duration = Duration::from_millis(20);

/// What is run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What everything is drawn from that the harness decides. What the system's scheduler decides differs each time.
    pub seed: u64,
    /// How many faults.
    pub rounds: u32,
    /// Only these; all, if empty.
    pub scenarios: Vec<Scenario>,
    /// How the clients work.
    pub pace: Pace,
    /// The cluster.
    pub settings: Settings,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The faults, in order.
    pub rounds: Vec<Outcome>,
    /// Operations that clients asked for,
    pub operations: usize,
    /// and whose outcome they never learned.
    pub unknown: usize,
    /// The digest of all nodes.
    pub digest: Option<String>,
    /// Connections between nodes that were closed because nobody knew whose they were.
    pub strangers: u64,
    /// How long the judge took, in milliseconds.
    pub judged_ms: u64,
    /// What is wrong with the history.
    pub faults: Vec<Fault>,
    /// Why the run ended early, if it did.
    pub error: Option<String>,
    /// Where the history is, if something is wrong.
    pub history: Option<PathBuf>,
}

impl Report {
    /// Whether everything was as it should be.
    pub fn is_right(&self) -> bool {
        self.faults.is_empty() && self.error.is_none() && self.digest.is_some()
    }
}

/// The faults of a plan, in order: each scenario comes once before any comes again.
pub fn draw(plan: &Plan, random: &mut Pcg64Mcg) -> Vec<Scenario> {
    let all: &[Scenario] =
        if plan.scenarios.is_empty() { Scenario::value_variants() } else { &plan.scenarios };
    let mut drawn = Vec::new();
    while drawn.len() < plan.rounds as usize {
        let mut turn = all.to_vec();
        turn.shuffle(random);
        drawn.extend(turn);
    }
    drawn.truncate(plan.rounds as usize);
    drawn
}

/// Runs a plan; `progress` is told each fault's outcome.
pub async fn run(plan: &Plan, mut progress: impl FnMut(&Outcome)) -> (Report, History) {
    let recorder = Recorder::default();
    let mut rounds = Vec::new();
    let ended = live(plan, &recorder, |outcome| {
        progress(&outcome);
        rounds.push(outcome);
    });
    let ended = ended.await;
    let names: Vec<_> = rounds.iter().map(|outcome| format!("{:?}", outcome.scenario)).collect();
    let history = recorder.history(plan.seed, &names.join(" "));
    let mut report = Report {
        seed: plan.seed,
        rounds,
        operations: history.records.len(),
        unknown: history.records.iter().filter(|record| record.returned.is_none()).count(),
        digest: None,
        strangers: 0,
        judged_ms: 0,
        faults: Vec::new(),
        error: None,
        history: None,
    };
    match ended {
        Err(error) => report.error = Some(error.to_string()),
        Ok((digest, strangers)) => {
            (report.digest, report.strangers) = (Some(digest), strangers);
            let start = Instant::now();
            report.faults = judge(&history, JUDGEMENT);
            report.judged_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        }
    }
    (report, history)
}

/// All clients and who writes ballast, while they work.
struct Clients {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Result<(), String>>,
}

impl Clients {
    fn start(cluster: &Cluster, plan: &Plan, recorder: &Recorder) -> Result<Clients, ChaosError> {
        let mut clients = Clients { stop: Arc::default(), tasks: JoinSet::new() };
        let addresses = cluster.addresses();
        for number in 0..CLIENTS {
            let store = Connection::new(&addresses, plan.pace, Reads::Linearizable)?;
            let client = Client::new(number, store, recorder.clone(), plan.seed, plan.pace);
            clients.tasks.spawn(client.run(Arc::clone(&clients.stop)));
        }
        clients.tasks.spawn(ballast(client(&addresses, plan.pace.patience)?, Arc::clone(&clients.stop)));
        Ok(clients)
    }

    async fn end(mut self) -> Result<(), ChaosError> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(task) = self.tasks.join_next().await {
            let ended = task.map_err(|error| ChaosError::Refused(error.to_string()))?;
            ended.map_err(ChaosError::Refused)?;
        }
        Ok(())
    }
}

/// Writes large values, so that there is something to snapshot. Nobody reads them, but they count in digests.
async fn ballast(client: Reached, stop: Arc<AtomicBool>) -> Result<(), String> {
    let count = AtomicU64::new(0);
    while !stop.load(Ordering::Relaxed) {
        let puts = (0..BALLAST_BATCH).map(|_| {
            let number = count.fetch_add(1, Ordering::Relaxed);
            let key = format!("ballast-{}", number % BALLAST_KEYS).into_bytes();
            Request::Put { key, value: vec![number as u8; BALLAST_BYTES] }.encode()
        });
        // Whether it succeeds is nobody's concern.
        let _ = client.execute(puts.collect()).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

/// Notices when this program does not run for a while.
struct StallWatch {
    longest: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl StallWatch {
    fn start() -> StallWatch {
        let (longest, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen, stopped) = (Arc::clone(&longest), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let start = Instant::now();
                std::thread::sleep(TICK);
                let over = start.elapsed().saturating_sub(TICK).as_millis();
                seen.fetch_max(u64::try_from(over).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
        });
        StallWatch { longest, thread: Some(thread), stop }
    }

    /// The longest stall since it was last asked for, in milliseconds.
    fn longest(&self) -> u64 {
        self.longest.swap(0, Ordering::Relaxed)
    }
}

impl Drop for StallWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It does nothing that could panic.
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// Everything up to the judgement. Returns the digest of all nodes, and the number of strangers.
async fn live(
    plan: &Plan,
    recorder: &Recorder,
    mut ended: impl FnMut(Outcome),
) -> Result<(String, u64), ChaosError> {
    let mut random = Pcg64Mcg::seed_from_u64(plan.seed);
    let scenarios = draw(plan, &mut random);
    let mut cluster = Cluster::start(&plan.settings).await?;
    recorder.note("the cluster serves");
    let clients = Clients::start(&cluster, plan, recorder)?;
    let watch = StallWatch::start();
    for scenario in scenarios {
        tokio::time::sleep(Duration::from_millis(random.random_range(300..1_500))).await;
        watch.longest();
        let outcome = scenario::inflict(scenario, &mut cluster, &mut random, recorder).await?;
        ended(Outcome { stall_ms: watch.longest(), ..outcome });
        cluster.check_running()?;
    }
    clients.end().await?;
    let store = Connection::new(&cluster.addresses(), plan.pace, Reads::Linearizable)?;
    let audit = Client::new(AUDITOR, store, recorder.clone(), plan.seed, plan.pace).audit().await;
    audit.map_err(ChaosError::Refused)?;
    let digest = cluster.digest().await?;
    Ok((digest, cluster.links.strangers()))
}

/// Reads stale values on purpose: the leader is cut off while clients write to the others and read from it, whatever it
/// knows. The judge must complain.
///
/// # Errors
///
/// See [`ChaosError`].
pub async fn stale(plan: &Plan) -> Result<History, ChaosError> {
    let recorder = Recorder::default();
    let mut cluster = Cluster::start(&plan.settings).await?;
    let leader = cluster.leader().await?;
    let others: Vec<_> = cluster.ids().into_iter().filter(|&id| id != leader).collect();
    cluster.links.isolate(leader, others.iter().copied(), crate::proxy::Cut::Stall);
    let addresses: Vec<_> = others.iter().map(|&id| cluster.address(id)).collect();
    let deadline = tokio::time::Instant::now() + LIMIT;
    let mut clients = JoinSet::new();
    let stop = Arc::new(AtomicBool::new(false));
    for number in 0..CLIENTS {
        let store = Connection::new(&addresses, plan.pace, Reads::Stale(cluster.address(leader)))?;
        let client = Client::new(number, store, recorder.clone(), plan.seed, plan.pace);
        clients.spawn(client.run(Arc::clone(&stop)));
    }
    while recorder.answered() < 400 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Clients { stop, tasks: clients }.end().await?;
    let store = Connection::new(&cluster.addresses(), plan.pace, Reads::Linearizable)?;
    cluster.links.heal();
    let audit = Client::new(AUDITOR, store, recorder.clone(), plan.seed, plan.pace).audit().await;
    audit.map_err(ChaosError::Refused)?;
    Ok(recorder.history(plan.seed, "stale"))
}

//! What more threads of the executor bring under consensus: one embedded node, transfers of 20 us, its log synced.
//!
//! `cargo bench -p atlas-smr-raft --bench embedded [-- PAIRS]`
//!
//! Runs of a single-threaded and of a multi-threaded executor alternate, each on a node and a directory of its own. Batches
//! are handed to openraft in this process, a few at a time, so that nothing but consensus, the log and the executor is
//! measured. Prints each pair, and the median of the ratios.

use std::error::Error;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use atlas_smr_execution::app::{Application, ApplicationData, ScalableApp};
use atlas_smr_execution::error::BoxError;
use atlas_smr_execution::state::{CRUDState, ShardedState};
use atlas_smr_raft::config::{MemberConfig, NodeConfig};
use atlas_smr_raft::machine::ExecutorKind;
use atlas_smr_raft::node::Node;
use atlas_smr_raft::types::{Batch, Command};
use bytes::Bytes;
use tokio::task::JoinSet;
use workloads::spin::Cost;

/// Operations in an entry, entries in a run, and entries that are on their way at once.
const BATCH: u64 = 256;
const ENTRIES: u64 = 150;
const IN_FLIGHT: usize = 4;
/// Accounts to choose from: few transfers of a batch collide.
const ACCOUNTS: u64 = 100_000;
const WORK_NS: f64 = 20_000.0;

/// Transfers between accounts.
struct Transfers(Cost);

impl ApplicationData for Transfers {
    type Request = (u64, u64);
    type Reply = u64;
}

impl Transfers {
    fn execute(&self, state: &mut impl CRUDState, &(from, to): &(u64, u64)) -> u64 {
        self.0.spin();
        let balance = |state: &mut _, account: u64| {
            CRUDState::read_with(state, "accounts", &account.to_be_bytes(), |bytes| {
                bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes)
            })
        };
        let (payer, payee) = (balance(state, from).wrapping_sub(1), balance(state, to).wrapping_add(1));
        state.put("accounts", &from.to_be_bytes(), &payer.to_be_bytes());
        state.put("accounts", &to.to_be_bytes(), &payee.to_be_bytes());
        payer
    }
}

impl Application<ShardedState> for Transfers {
    type AppData = Transfers;

    fn initial_state() -> Result<ShardedState, BoxError> {
        Ok(ShardedState::new())
    }

    fn unordered_execution(&self, _: &ShardedState, _: (u64, u64)) -> u64 {
        0
    }

    fn update(&self, state: &mut ShardedState, request: (u64, u64)) -> u64 {
        self.execute(state, &request)
    }
}

impl ScalableApp<ShardedState> for Transfers {
    fn speculatively_execute(&self, state: &mut impl CRUDState, request: (u64, u64)) -> u64 {
        self.execute(state, &request)
    }
}

/// The entry with this number; the same in each run.
fn batch(number: u64, proposer: u64) -> Result<Batch, postcard::Error> {
    let command = |serial: u64| {
        // Any fixed spread of accounts will do.
        let from = serial.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let to = serial.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 40;
        let operation = Bytes::from(postcard::to_allocvec(&(from % ACCOUNTS, to % ACCOUNTS))?);
        Ok(Command { client: 1, serial, operation })
    };
    let commands = (number * BATCH..(number + 1) * BATCH).map(command).collect::<Result<_, _>>()?;
    Ok(Batch { proposer, commands })
}

/// Runs all entries on a new node; how long that took, and the digest of its state.
async fn run(kind: ExecutorKind) -> Result<(Duration, String), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let any = || "127.0.0.1:0".to_owned();
    let member = MemberConfig { id: 1, peer_address: any(), client_address: any(), learner: false };
    let mut config = NodeConfig {
        id: 1,
        cluster: "embedded".to_owned(),
        data_dir: folder.path().to_owned(),
        bootstrap: true,
        members: vec![member],
        ..NodeConfig::default()
    };
    config.executor.kind = kind;
    let node = Node::start(config, Transfers(Cost::of_ns(WORK_NS))).await?;
    let proposer = node.reader().incarnation();
    node.raft().wait(Some(Duration::from_secs(10))).current_leader(1, "elects itself").await?;

    let batches = (0..ENTRIES).map(|number| batch(number, proposer)).collect::<Result<Vec<_>, _>>()?;
    let start = Instant::now();
    let mut on_their_way = JoinSet::new();
    for batch in batches {
        if on_their_way.len() == IN_FLIGHT {
            on_their_way.join_next().await.expect("some are")??;
        }
        let raft = node.raft().clone();
        on_their_way.spawn(async move { raft.client_write(batch).await.map(drop) });
    }
    while let Some(written) = on_their_way.join_next().await {
        written??;
    }
    let took = start.elapsed();
    let (_, digest) = node.reader().digest().await?;
    node.shutdown().await?;
    Ok((took, digest))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let pairs = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(7);
    let mut out = io::stdout();
    let mut ratios = Vec::new();
    for pair in 1..=pairs {
        let (single, expected) = run(ExecutorKind::SingleDivisible).await?;
        let (multi, digest) = run(ExecutorKind::MultiDivisible).await?;
        if digest != expected {
            return Err("the states differ".into());
        }
        let per_s = |took: Duration| (ENTRIES * BATCH) as f64 / took.as_secs_f64();
        let ratio = single.as_secs_f64() / multi.as_secs_f64();
        writeln!(out, "{pair}: {:.0} and {:.0} operations/s, {ratio:.2} x", per_s(single), per_s(multi))?;
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    if let Some(median) = ratios.get(ratios.len() / 2) {
        writeln!(out, "median: the multi-threaded executor has {median:.2} times the throughput")?;
    }
    Ok(())
}

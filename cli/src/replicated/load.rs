//! Many clients that ask as fast as they are answered.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use atlas_smr_raft::client::{Client, ClientConfig, Pipeline};
use atlas_smr_raft::types::Answer;
use bytes::Bytes;
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::task::JoinSet;

use super::args::{LoadArgs, Mix};
use crate::error::CliError;
use crate::served::Request;

/// What every account owns at first.
const FUNDS: &str = "1000";
/// A transfer moves less than this.
const MOST_AMOUNT: u64 = 10;

/// How far a load is; read while it runs.
pub struct Progress {
    operations: u64,
    begun: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
    latency: Mutex<Histogram<u64>>,
}

/// From sending a request to its last answer, in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Latency {
    pub p50: u64,
    pub p99: u64,
    pub p999: u64,
}

/// What a load came to.
#[derive(Debug, Serialize)]
pub struct Outcome {
    pub operations: u64,
    pub failed: u64,
    pub seconds: f64,
    pub operations_per_s: f64,
    pub latency_us: Latency,
}

impl Outcome {
    pub fn json(&self) -> Result<String, CliError> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    pub fn text(&self) -> String {
        let Latency { p50, p99, p999 } = self.latency_us;
        format!(
            "{} operations in {:.2} s: {:.0}/s, {} failed; a request took {p50} us (p50), {p99} us (p99), {p999} us (p99.9)",
            self.operations, self.seconds, self.operations_per_s, self.failed
        )
    }
}

impl Progress {
    pub fn new(operations: u64) -> Self {
        Progress {
            operations,
            begun: AtomicU64::new(0),
            done: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            // Resizes itself; up to the longest time that there is.
            latency: Mutex::new(
                Histogram::new(3).unwrap_or_else(|_| unreachable!("three digits are possible")),
            ),
        }
    }

    /// Operations answered.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    fn histogram(&self) -> MutexGuard<'_, Histogram<u64>> {
        self.latency.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn latency(&self) -> Latency {
        let histogram = self.histogram();
        let at = |quantile| histogram.value_at_quantile(quantile);
        Latency { p50: at(0.5), p99: at(0.99), p999: at(0.999) }
    }

    fn count(&self, answers: &[Answer], took: Duration) {
        let failed = answers.iter().filter(|answer| !matches!(answer, Answer::Done(_))).count();
        self.failed.fetch_add(failed as u64, Ordering::Relaxed);
        self.done.fetch_add(answers.len() as u64, Ordering::Relaxed);
        // It resizes itself; only a time beyond 500,000 years would not fit.
        let _ = self.histogram().record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// How many operations the next request has; 0 once there are enough.
    fn next(&self, most: u64) -> u64 {
        let begun = self.begun.fetch_add(most, Ordering::Relaxed);
        self.operations.saturating_sub(begun).min(most)
    }
}

/// Asks for as many operations as `progress` says; accounts are opened before.
///
/// # Errors
///
/// What a client was told; one failed request ends the load.
pub async fn run(
    load: &LoadArgs,
    config: &ClientConfig,
    progress: &Arc<Progress>,
) -> Result<Outcome, CliError> {
    let positive = [
        ("per-request", load.per_request as u64),
        ("clients", load.clients as u64),
        ("in-flight", load.in_flight as u64),
        ("keys", load.keys),
    ];
    if let Some((name, _)) = positive.into_iter().find(|&(_, value)| value == 0) {
        return Err(CliError::Usage(format!("`--{name}` must be at least 1")));
    }
    let mut pipelines = Vec::new();
    for _ in 0..load.clients {
        let config = ClientConfig { pipeline_depth: load.in_flight, client: None, ..config.clone() };
        pipelines.push(Client::new(config)?.pipeline());
    }
    if load.mix == Mix::Transfer {
        open_accounts(load, &pipelines[0]).await?;
    }
    let begin = Instant::now();
    let load = Arc::new(load.clone());
    let mut workers = JoinSet::new();
    for (client, pipeline) in (0..).zip(&pipelines) {
        for lane in 0..load.in_flight as u64 {
            let dice = Dice::new(load.seed, client << 32 | lane);
            workers.spawn(work(load.clone(), progress.clone(), pipeline.clone(), dice));
        }
    }
    while let Some(worker) = workers.join_next().await {
        worker.map_err(|error| CliError::Answer(error.to_string()))??;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let operations = progress.done();
    Ok(Outcome {
        operations,
        failed: progress.failed.load(Ordering::Relaxed),
        seconds,
        operations_per_s: operations as f64 / seconds,
        latency_us: progress.latency(),
    })
}

async fn open_accounts(load: &LoadArgs, pipeline: &Pipeline) -> Result<(), CliError> {
    let keys: Vec<u64> = (0..load.keys).collect();
    for some in keys.chunks(load.per_request) {
        let put = |key: &u64| Request::Put { key: name(*key), value: FUNDS.into() }.encode();
        pipeline.submit(some.iter().map(put).collect()).await?.answers().await?;
    }
    Ok(())
}

/// One request after the other.
async fn work(
    load: Arc<LoadArgs>,
    progress: Arc<Progress>,
    pipeline: Pipeline,
    mut dice: Dice,
) -> Result<(), CliError> {
    loop {
        let count = progress.next(load.per_request as u64);
        if count == 0 {
            return Ok(());
        }
        let operations: Vec<Bytes> = (0..count).map(|_| operation(&load, &mut dice)).collect();
        let begin = Instant::now();
        let answers = pipeline.submit(operations).await?.answers().await?;
        progress.count(&answers, begin.elapsed());
    }
}

fn name(key: u64) -> Vec<u8> {
    format!("key-{key}").into_bytes()
}

fn operation(load: &LoadArgs, dice: &mut Dice) -> Bytes {
    match load.mix {
        Mix::Nothing => Request::Nothing,
        Mix::Put => Request::Put {
            key: name(dice.below(load.keys)),
            value: vec![dice.below(256) as u8; load.value_size],
        },
        Mix::Transfer => Request::Transfer {
            from: name(dice.below(load.keys)),
            to: name(dice.below(load.keys)),
            amount: dice.below(MOST_AMOUNT),
            work_ns: load.work_ns,
        },
    }
    .encode()
}

/// Numbers that look random: Steele, Lea and Flood's SplitMix64.
struct Dice(u64);

impl Dice {
    fn new(seed: u64, stream: u64) -> Self {
        let mut dice = Dice(seed ^ stream.wrapping_mul(0xd134_2543_de82_ef95));
        dice.next();
        dice
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

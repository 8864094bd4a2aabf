//! Batches through the executors' channels: from queueing a batch, or many, to the last reply.

use std::time::{Duration, Instant};

use atlas_smr_execution::batch::UpdateBatch;
use workloads::{Plan, Transfer, TransferLogic, TransferRequest, Workload};

use super::race::ratio;
use super::row::Measured;
use crate::bench::{Bench, Setup, rounds};
use crate::error::PerfError;
use crate::load::populated;
use crate::machine::Crowd;
use crate::sample::plain_loop;
use crate::station::Station;
use crate::stats::Spread;
use workloads::ReplyDigest;

/// What is executed: a thousand accounts, a microsecond of work.
pub const LOAD: Transfer = Transfer { accounts: 1000, work_ns: 1000, heavy: 0.0, counts: 0 };
/// Operations in a flood of batches.
const FLOOD: usize = 16_384;
/// Batches that one executor gets before it is the other one's turn.
const TURN: usize = 100;

/// Latencies of the multi-threaded and of the single-threaded executor.
pub struct Latencies {
    pub multi: Vec<Duration>,
    pub single: Vec<Duration>,
}

/// The two executors, and the loop that says what they must answer.
pub struct Duel {
    multi: Station<TransferLogic>,
    single: Station<TransferLogic>,
    batches: Box<dyn Iterator<Item = UpdateBatch<TransferRequest>>>,
    executed: Vec<UpdateBatch<TransferRequest>>,
}

impl Duel {
    /// Batches of `batch` operations.
    pub fn new(bench: &Bench, batch: usize) -> Result<Self, PerfError> {
        let config = Setup::ADAPTIVE.config(bench.threads);
        let plan = Plan { seed: 3, batch, operations: u64::MAX / 2 };
        Ok(Duel {
            multi: Station::multi(LOAD.logic(), populated(&LOAD)?, config.clone())?,
            single: Station::single(LOAD.logic(), populated(&LOAD)?, config)?,
            batches: Box::new(LOAD.batches(plan)),
            executed: Vec::new(),
        })
    }

    /// Runs `count` batches through each, in turns.
    pub fn run(&mut self, count: usize) -> Result<Latencies, PerfError> {
        let mut latencies = Latencies { multi: Vec::new(), single: Vec::new() };
        while latencies.multi.len() < count {
            let batches: Vec<_> = self.batches.by_ref().take(TURN).collect();
            for batch in &batches {
                latencies.multi.push(self.multi.run(batch.clone(), false)?);
            }
            for batch in &batches {
                latencies.single.push(self.single.run(batch.clone(), false)?);
            }
            self.executed.extend(batches);
        }
        Ok(latencies)
    }

    /// Floods each with the same batches of `batch` operations, and returns how many times as fast the multi-threaded one is.
    fn flood(&mut self, batch: usize) -> Result<f64, PerfError> {
        let batches: Vec<_> = self.batches.by_ref().take(FLOOD / batch).collect();
        let multi = self.multi.flood(batches.clone())?;
        let single = self.single.flood(batches.clone())?;
        self.executed.extend(batches);
        Ok(ratio(single, multi))
    }

    /// True if replies and states are the loop's.
    pub fn finish(self) -> Result<bool, PerfError> {
        let mut expected = populated(&LOAD)?;
        let (app, mut digest) = (Transfer { work_ns: 0, ..LOAD }.app(), ReplyDigest::new());
        for batch in self.executed {
            let replies = plain_loop(&app, &mut expected, batch);
            replies.into_inner().into_iter().for_each(|reply| digest.push(reply.into_payload()));
        }
        let replies = self.multi.replies() == digest && self.single.replies() == digest;
        let states = [self.multi.finish()?, self.single.finish()?];
        Ok(replies && states.iter().all(|state| state.iter().eq(expected.iter())))
    }
}

/// The p99 of the multi-threaded executor as a multiple of the single-threaded one's.
pub fn measure(bench: &Bench, batch: usize) -> Result<Measured, PerfError> {
    let mut duel = Duel::new(bench, batch)?;
    duel.run(bench.effort.events / 4)?;
    let samples = rounds(&bench.effort, &bench.probe, Crowd::Host, || {
        let Latencies { multi, single } = duel.run(bench.effort.events)?;
        Ok(quantile(multi, 0.99).as_secs_f64() / quantile(single, 0.99).as_secs_f64())
    })?;
    let mut measured = Measured::new(Spread::of(&samples));
    measured.equal = duel.finish()?;
    Ok(measured)
}

/// How many times as fast as the single-threaded executor the multi-threaded one gets through batches that wait.
pub fn throughput(bench: &Bench, batch: usize) -> Result<Measured, PerfError> {
    let mut duel = Duel::new(bench, batch)?;
    let mut warmed_up = Duration::ZERO;
    while warmed_up < bench.effort.warm_up * 2 {
        let start = Instant::now();
        duel.flood(batch)?;
        warmed_up += start.elapsed();
    }
    let samples = rounds(&bench.effort, &bench.probe, Crowd::Host, || duel.flood(batch))?;
    let mut measured = Measured::new(Spread::of(&samples));
    measured.equal = duel.finish()?;
    Ok(measured)
}

/// The `q` quantile of `values`; zero for none.
pub fn quantile(mut values: Vec<Duration>, q: f64) -> Duration {
    values.sort_unstable();
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * q).round() as usize).copied().unwrap_or_default()
}

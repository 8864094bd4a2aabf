//! Checkpoints of a large state under load: by how much the longest batch after one is longer than usual.

use std::time::Duration;

use workloads::{Kv, KvMix, Plan, ReplyDigest, Workload};

use super::latency::quantile;
use super::row::Measured;
use crate::bench::{Bench, Setup, rounds};
use crate::error::PerfError;
use crate::load::Load;
use crate::machine::Crowd;
use crate::sample::plain_loop;
use crate::station::Station;
use crate::stats::Spread;

/// Operations in a batch.
pub const BATCH: usize = 128;
/// What is executed: blind puts, which have to go beside the shards that a checkpoint shares, and in the end have them copied.
pub const LOAD: Kv = Kv { mix: KvMix::Put, keys: 1_000_000, value_size: 100 };

/// Checkpoints before any counts. The first ones fill memory that the process never had before, which on a virtual machine
/// may have to be found by its host: that took 5 to 8 ms for each 2 MB where this was written.
const WARM_UPS: usize = 6;

/// Measures the longest stall, in milliseconds: each time over a number of batches of which the first asks for a
/// checkpoint, which lives for half of them, less the median of as many batches before it.
///
/// The baselines are what the longest batch takes without a checkpoint, which is what the machine itself does to it, and
/// the longest stall in the warm-up.
pub fn measure(bench: &mut Bench) -> Result<Measured, PerfError> {
    let load = Load::Kv(LOAD);
    let mut states = bench.states.take(&load, &LOAD, 3)?;
    let mut expected = states.pop().expect("three were taken");
    let state = states.pop().expect("three were taken");
    let Bench { effort, threads, probe, .. } = &*bench;
    let station = Station::multi(LOAD.logic(), state, Setup::ADAPTIVE.config(*threads))?;
    let mut source = LOAD.batches(Plan { seed: 4, batch: BATCH, operations: u64::MAX / 2 });
    let (app, mut digest) = (LOAD.app(), ReplyDigest::new());
    let mut run = |checkpoint: bool| -> Result<Vec<Duration>, PerfError> {
        let batches: Vec<_> = source.by_ref().take(effort.events / 2).collect();
        let mut latencies = Vec::with_capacity(batches.len());
        for (number, batch) in batches.iter().enumerate() {
            latencies.push(station.run(batch.clone(), checkpoint && number == 0)?);
        }
        for batch in batches {
            let replies = plain_loop(&app, &mut expected, batch);
            replies.into_inner().into_iter().for_each(|reply| digest.push(reply.into_payload()));
        }
        Ok(latencies)
    };
    let mut sample = || {
        let mut without = run(false)?;
        without.extend(run(false)?);
        let mut with = run(true)?;
        // It is kept while batches run, as by whoever sends it to another replica.
        drop(station.checkpoints.recv().map_err(|_| PerfError::Stopped)?);
        with.extend(run(false)?);
        let typical = quantile(without.clone(), 0.5);
        let stall = |latencies: Vec<Duration>| {
            quantile(latencies, 1.0).saturating_sub(typical).as_secs_f64() * 1000.0
        };
        Ok((stall(with), stall(without)))
    };
    let mut first: f64 = 0.0;
    for _ in 0..WARM_UPS {
        first = first.max(sample()?.0);
    }
    let samples = rounds(effort, probe, Crowd::Host, sample)?;
    let of = |which: fn(&(f64, f64)) -> f64| -> Vec<(f64, bool)> {
        samples.iter().map(|(sample, good)| (which(sample), *good)).collect()
    };
    let mut measured = Measured::new(Spread::of(&of(|sample| sample.0)));
    measured.baselines.insert("without a checkpoint", Spread::of(&of(|sample| sample.1)).median);
    measured.baselines.insert("warm-up", first);
    measured.equal = station.replies() == digest && station.finish()?.iter().eq(expected.iter());
    Ok(measured)
}

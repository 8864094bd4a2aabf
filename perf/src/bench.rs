//! What all measurements share: the instrument's threads, its states, and how much effort it makes.

use std::path::PathBuf;
use std::time::Duration;

use atlas_smr_execution::executor::{ExecutionMode, ExecutorConfig};
use atlas_smr_execution::internals::pool::Place;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::args::CommonArgs;
use crate::error::PerfError;
use crate::load::States;
use crate::machine::{Crowd, RAYON, Watch};
use crate::probe::Probe;

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Good pairs of samples that are wanted.
    pub pairs: usize,
    /// Pairs beyond these that may be taken to get them.
    pub more_pairs: usize,
    /// For how long a row waits for good moments.
    pub patience: Duration,
    /// For how long the cores are watched beforehand, to know how fast they can be.
    pub calibration: Duration,
    /// Time of one sample, measured on the loop.
    pub sample: Duration,
    /// Time, and batches, that an adaptive engine gets to make up its mind.
    pub warm_up: Duration,
    pub warm_up_batches: u64,
    /// Warm-ups that may be tried to get one that nobody disturbs, at least 1.
    pub warm_ups: usize,
    /// Batches in a sample, at least.
    pub batches: usize,
    /// Repetitions of what is measured in single events, such as latencies.
    pub events: usize,
    /// Rows that had no good pair are measured once more at the end; the least of many, too.
    pub again: bool,
}

impl Effort {
    /// For numbers to keep.
    pub const FULL: Effort = Effort {
        pairs: 7,
        more_pairs: 21,
        patience: Duration::from_secs(3),
        calibration: Duration::from_secs(2),
        sample: Duration::from_millis(15),
        warm_up: Duration::from_millis(200),
        warm_up_batches: 150,
        warm_ups: 3,
        batches: 4,
        events: 2000,
        again: true,
    };
    /// For a look at all rows in less than two minutes.
    pub const QUICK: Effort = Effort {
        pairs: 3,
        more_pairs: 0,
        patience: Duration::ZERO,
        calibration: Duration::from_millis(200),
        sample: Duration::from_millis(10),
        warm_up: Duration::from_millis(100),
        warm_up_batches: 50,
        warm_ups: 1,
        batches: 2,
        events: 500,
        again: false,
    };
}

/// How an engine is set up for a row.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// What a row's name says of it; empty for "as shipped".
    pub label: &'static str,
    /// Threads; `None`: as many as the whole run is about.
    pub threads: Option<usize>,
    pub mode: ExecutionMode,
    /// What else is set.
    pub tune: fn(&mut ExecutorConfig),
}

impl Setup {
    /// As shipped.
    pub const ADAPTIVE: Setup =
        Setup { label: "", threads: None, mode: ExecutionMode::Adaptive, tune: |_| {} };
    /// As shipped, but without hints.
    pub const WITHOUT_HINTS: Setup =
        Setup { label: "without hints", tune: |config| config.hints = false, ..Setup::ADAPTIVE };
    /// As shipped, for an application that allows neither forwarding nor gives hints.
    pub const ONE_MOMENT: Setup = Setup {
        label: "one-moment reads",
        tune: |config| (config.forwarding, config.hints) = (false, false),
        ..Setup::ADAPTIVE
    };
    /// Speculation on all threads, whether it pays or not.
    pub const FORCED: Setup = Setup { label: "forced", mode: ExecutionMode::Speculate, ..Setup::ADAPTIVE };
    /// Speculation where there is nobody to do it with: its price per operation.
    pub const ALONE: Setup = Setup { label: "forced, one thread", threads: Some(1), ..Setup::FORCED };

    /// The configuration for a run with `threads` threads.
    pub fn config(&self, threads: usize) -> ExecutorConfig {
        let mut config = ExecutorConfig::with_threads(self.threads.unwrap_or(threads));
        config.mode = self.mode;
        (self.tune)(&mut config);
        config
    }
}

/// The instrument.
pub struct Bench {
    pub effort: Effort,
    /// Threads of the engines, where a row does not say otherwise.
    pub threads: usize,
    pub probe: Probe,
    /// Rayon's threads, pinned to the cores that the engines use.
    pub rayon: ThreadPool,
    pub states: States,
    pub trace_dir: PathBuf,
}

impl Bench {
    /// Spawns the instrument's threads. Call it before any thread is pinned: threads inherit that.
    ///
    /// # Errors
    ///
    /// The system refuses a thread.
    pub fn new(effort: Effort, common: &CommonArgs) -> Result<Self, PerfError> {
        let CommonArgs { threads, trace_dir } = common.clone();
        let probe = Probe::new(ExecutorConfig::default().spin);
        let places = Place::reserve(threads);
        let rayon = ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|thread| format!("{RAYON}{thread}"))
            .start_handler(move |thread| {
                places[thread].as_ref().map(Place::pin_current);
            })
            .build()
            .map_err(|error| PerfError::Thread(std::io::Error::other(error)))?;
        Ok(Bench { effort, threads, probe, rayon, states: States::default(), trace_dir })
    }
}

/// Repeats `round` until as many of its results are good as `effort` wants, or there were enough of them; each with
/// whether the moment was good.
pub fn rounds<T>(
    effort: &Effort,
    probe: &Probe,
    crowd: Crowd,
    mut round: impl FnMut() -> Result<T, PerfError>,
) -> Result<Vec<(T, bool)>, PerfError> {
    let mut results: Vec<(T, bool)> = Vec::new();
    let enough = |results: &[(T, bool)]| {
        results.len() >= effort.pairs + effort.more_pairs
            || results.iter().filter(|result| result.1).count() >= effort.pairs
    };
    let mut patience = effort.patience;
    while !enough(&results) {
        results.push(in_good_moment(probe, crowd, &mut patience, &mut round)?);
    }
    Ok(results)
}

/// Warms up by `attempt`, which begins with an engine that knows nothing and is told how often that was done before: what one has
/// learned in a bad moment is worth nothing, so then another starts over.
pub fn warmed_up<T>(
    effort: &Effort,
    probe: &Probe,
    mut attempt: impl FnMut(usize) -> Result<T, PerfError>,
) -> Result<T, PerfError> {
    let (mut patience, mut attempts) = (effort.patience, 0);
    loop {
        let (result, good) = in_good_moment(probe, Crowd::Anybody, &mut patience, || attempt(attempts))?;
        attempts += 1;
        if good || attempts >= effort.warm_ups {
            return Ok(result);
        }
    }
}

/// Waits for a good moment, as long as there is `patience`, and runs `round`. Its result, and whether the moment was good: the
/// cores were near each other and fast before and after it, and no `crowd` wanted them.
fn in_good_moment<T>(
    probe: &Probe,
    crowd: Crowd,
    patience: &mut Duration,
    round: impl FnOnce() -> Result<T, PerfError>,
) -> Result<(T, bool), PerfError> {
    let good = probe.wait_until_good(patience);
    let watch = Watch::start(crowd);
    let result = round()?;
    let crowded = watch.was_crowded();
    Ok((result, good && !crowded && probe.is_good()))
}

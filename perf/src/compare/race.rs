//! The sequential loop, the engine and the baselines, on equal states and the same batches.

use std::time::Duration;

use atlas_smr_execution::batch::UpdateBatch;
use atlas_smr_execution::error::Failure;
use atlas_smr_execution::executor::engines::{Engine, Speculative};
use atlas_smr_execution::metrics::{Counters, Metrics};
use atlas_smr_execution::state::ShardedState;
use rayon::ThreadPool;
use std::sync::Arc;
use workloads::{Logic, Service};

use super::row::Measured;
use crate::baseline;
use crate::bench::{Effort, Setup, warmed_up};
use crate::error::PerfError;
use crate::load::all_equal;
use crate::probe::Probe;
use crate::sample::{Sample, plain_loop, sample};

/// Who takes part, in the order of the samples that a round returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    Loop,
    Engine,
    Phased,
}

type EngineOf<L> = Speculative<Service<L>, ShardedState>;

/// A race between the contenders.
pub struct Race<'p, L: Logic> {
    app: Service<L>,
    setup: Setup,
    threads: usize,
    engine: EngineOf<L>,
    metrics: Arc<Metrics>,
    /// One for each contender. They change places after each round, so that nobody profits from a better placed state.
    states: Vec<ShardedState>,
    rayon: &'p ThreadPool,
    rounds: usize,
    equal: bool,
    batches: u64,
    /// The baseline need not learn anything: until samples count, its state is kept up by the loop.
    warming_up: bool,
}

impl<'p, L: Logic> Race<'p, L> {
    /// A race on `states`, which are equal and two, or three if the baseline takes part. The calling thread becomes the
    /// executor's.
    pub fn new(
        logic: L,
        states: Vec<ShardedState>,
        setup: Setup,
        threads: usize,
        rayon: &'p ThreadPool,
    ) -> Result<Self, PerfError> {
        let (engine, metrics) = Self::engine(setup, threads)?;
        Ok(Race {
            app: Service(logic),
            setup,
            threads,
            engine,
            metrics,
            states,
            rayon,
            rounds: 0,
            equal: true,
            batches: 0,
            warming_up: true,
        })
    }

    fn engine(setup: Setup, threads: usize) -> Result<(EngineOf<L>, Arc<Metrics>), PerfError> {
        let config = setup.config(threads);
        let report = config.validate()?;
        let metrics = Arc::new(Metrics::new());
        let mut engine = <EngineOf<L> as Engine<Service<L>, _>>::new(&config, &report, Arc::clone(&metrics))?;
        engine.enter();
        Ok((engine, metrics))
    }

    /// Warms up by `warm_up`, in a bad moment with a new engine once more.
    pub fn warm_up<R>(
        &mut self,
        effort: &Effort,
        probe: &Probe,
        mut warm_up: impl FnMut(&mut Self) -> Result<R, PerfError>,
    ) -> Result<R, PerfError> {
        warmed_up(effort, probe, |attempt| {
            if attempt > 0 {
                (self.engine, self.metrics) = Self::engine(self.setup, self.threads)?;
                self.batches = 0;
            }
            warm_up(self)
        })
    }

    /// All contenders execute `batches`, in an order that alternates from round to round. The samples are in the
    /// contenders' order.
    pub fn round(
        &mut self,
        batches: &[UpdateBatch<L::Request>],
        group: usize,
    ) -> Result<Vec<Sample>, PerfError> {
        let contenders = &[Contender::Loop, Contender::Engine, Contender::Phased][..self.states.len()];
        let mut order: Vec<Contender> = contenders.to_vec();
        if self.rounds % 2 == 1 {
            order.swap(0, 1);
        }
        let mut samples = vec![None; order.len()];
        for contender in order {
            // The copy is made beforehand: only executing it is timed.
            let copy = batches.to_vec();
            samples[contender as usize] = Some(self.run(contender, copy, group)?);
        }
        self.rounds += 1;
        self.batches += batches.len() as u64;
        self.states.rotate_left(1);
        let samples: Vec<Sample> = samples.into_iter().flatten().collect();
        self.equal &= samples.windows(2).all(|pair| pair[0].replies == pair[1].replies);
        Ok(samples)
    }

    fn run(
        &mut self,
        contender: Contender,
        batches: Vec<UpdateBatch<L::Request>>,
        group: usize,
    ) -> Result<Sample, Failure> {
        let Race { app, engine, states, rayon, .. } = self;
        let state = &mut states[contender as usize];
        match contender {
            Contender::Phased if self.warming_up => {
                sample(batches, group, |batch| Ok(plain_loop(app, state, batch)))
            }
            Contender::Loop => sample(batches, group, |batch| Ok(plain_loop(app, state, batch))),
            Contender::Engine => {
                sample(batches, group, |batch| engine.execute(app, state, batch, &mut |_| {}))
            }
            Contender::Phased => {
                rayon.install(|| sample(batches, group, |batch| Ok(baseline::phased(app, state, batch))))
            }
        }
    }

    /// Batches that the engine has executed so far.
    pub fn batches(&self) -> u64 {
        self.batches
    }

    /// Ends the warm-up: all samples from here on count.
    pub fn start(&mut self) -> Start {
        self.warming_up = false;
        Start { batches: self.batches, counters: self.metrics.counters() }
    }

    /// Notes what the engine has done with its batches since `start`.
    pub fn describe(&self, start: &Start, measured: &mut Measured) {
        let (before, now) = (start.counters, self.metrics.counters());
        let share = |part: u64, whole: u64| Some(part as f64 / whole.max(1) as f64);
        let sequential = now.sequential_batches - before.sequential_batches;
        measured.sequential_share = share(sequential, self.batches - start.batches);
        measured.replayed_share = share(now.replays - before.replays, now.speculations - before.speculations);
    }

    /// The states, if they and all replies were equal.
    pub fn finish(self) -> Option<Vec<ShardedState>> {
        (self.equal && all_equal(&self.states)).then_some(self.states)
    }
}

/// The samples of a round, in the contenders' order, and whether they are good.
pub type Round = (Vec<Sample>, bool);

/// How far a race was when samples began to count.
pub struct Start {
    batches: u64,
    counters: Counters,
}

/// How many times as fast as `a` is `b`?
pub fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::CommonArgs;
    use crate::bench::Bench;
    use crate::load::populated;
    use atlas_smr_execution::state::CRUDState;
    use workloads::{Plan, Transfer, Workload};

    const LOAD: Transfer = Transfer { accounts: 5, work_ns: 0, heavy: 0.0, counts: 0 };

    /// What a race says at its end whose second state was changed by `change` beforehand.
    fn ends_equal(change: impl FnOnce(&mut ShardedState)) -> bool {
        let common = CommonArgs { threads: 2, trace_dir: "none".into() };
        let bench = Bench::new(Effort::QUICK, &common).expect("threads");
        let mut states: Vec<_> = (0..3).map(|_| populated(&LOAD).expect("valid")).collect();
        change(&mut states[1]);
        let mut race = Race::new(LOAD.logic(), states, Setup::FORCED, 2, &bench.rayon).expect("threads");
        let batches: Vec<_> = LOAD.batches(Plan { seed: 1, batch: 20, operations: 2000 }).collect();
        race.start();
        for some in batches.chunks(25) {
            let samples = race.round(some, 10).expect("nothing fails");
            assert_eq!(samples.len(), 3);
            assert!(samples.iter().all(|sample| sample.operations == 15 * 20 && sample.groups.len() == 2));
        }
        race.finish().is_some()
    }

    #[test]
    fn equal_states_stay_equal() {
        assert!(ends_equal(|_| {}));
    }

    #[test]
    fn a_wrong_state_is_noticed_though_nobody_reads_it() {
        assert!(!ends_equal(|state| state.put("other", b"key", b"value")));
    }

    #[test]
    fn a_wrong_reply_is_noticed() {
        assert!(!ends_equal(|state| state.put("accounts", &0u64.to_be_bytes(), &7u64.to_le_bytes())));
    }
}

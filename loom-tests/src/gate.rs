//! The gate: `raw/gate.rs`, steps 1 to 6 of `pool/README.md`.
//!
//! Property: a worker that comes in sees what the owner wrote before `run`; the owner sees what the worker did when
//! `run` returns; nobody uses a job after that; each worker runs each job at most once; a stopped gate lets go of its
//! workers. The jobs outlive their runs here, and their data is tracked: a late worker is a reported race, not a crash.

use std::panic::resume_unwind;

use atlas_smr_execution::internals::raw::gate::{Found, Owner, WorkerKey, gate};
use loom::thread::yield_now;

use crate::harness::{Marks, Part, Tracked, run_model, scope};

fn serve(mut key: WorkerKey) {
    loop {
        match key.try_run() {
            Found::Stopped => return,
            Found::Job => {}
            Found::Nothing => yield_now(),
        }
    }
}

fn look_once(mut key: WorkerKey) {
    key.try_run();
}

/// What one job works on: one pair of cells per thread.
struct Round {
    number: u64,
    input: Tracked,
    outputs: Vec<Tracked>,
}

impl Round {
    fn new(number: u64, threads: usize) -> Self {
        let outputs = (0..threads).map(|_| Tracked::new(0)).collect();
        Round { number, input: Tracked::new(0), outputs }
    }

    fn job(&self, thread: usize) {
        assert_eq!(self.input.get(), self.number, "the job of this round, with its data");
        assert_eq!(self.outputs[thread].get(), 0, "each thread runs a job once");
        self.outputs[thread].set(self.number * 10);
    }

    /// Runs the round's job; returns how many workers took part.
    fn run(&self, owner: &mut Owner, job: &(dyn Fn(usize) + Sync)) -> usize {
        self.input.set(self.number);
        owner.run(job, || {}).unwrap_or_else(|panic| resume_unwind(panic));
        // The owner may now do what it likes with all that the job borrowed.
        self.input.set(0);
        let ran = self.outputs.iter().filter(|output| output.get() == self.number * 10).count();
        self.outputs.iter().for_each(|output| output.set(0));
        assert!(ran >= 1, "the owner itself");
        ran - 1
    }
}

/// As many jobs as `rounds`, with `workers` workers who do as `serve` says.
fn jobs_in_a_row(marks: &Marks, workers: usize, rounds: u64, serve: fn(WorkerKey)) {
    let (mut owner, keys) = gate(workers);
    let rounds: Vec<Round> = (1..=rounds).map(|number| Round::new(number, workers + 1)).collect();
    let jobs: Vec<_> = rounds.iter().map(|round| move |thread| round.job(thread)).collect();
    let serving = keys.into_iter().map(|key| Box::new(move || serve(key)) as Part<'_>).collect();
    scope(serving, || {
        let helped: Vec<usize> =
            rounds.iter().zip(&jobs).map(|(round, job)| round.run(&mut owner, job)).collect();
        marks.mark("all workers took part in every job", helped.iter().all(|&count| count == workers));
        marks.mark("a worker came too late", helped.iter().any(|&count| count < workers));
        owner.stop();
    });
}

const MARKS: &[&str] = &["all workers took part in every job", "a worker came too late"];

#[test]
fn two_jobs_one_worker() {
    run_model("gate::two_jobs_one_worker", 4, MARKS, |marks| jobs_in_a_row(marks, 1, 2, serve));
}

#[test]
fn one_job_two_workers() {
    // The second worker reads the word from the first one's entry or exit: the release sequence must go on.
    // Each looks once: schedules in which it looks again and again add nothing but their number.
    run_model("gate::one_job_two_workers", 3, MARKS, |marks| jobs_in_a_row(marks, 2, 1, look_once));
}

#[test]
fn a_worker_s_panic_reaches_the_owner() {
    const MARKS: &[&str] = &["the worker panicked"];
    run_model("gate::a_worker_s_panic_reaches_the_owner", 2, MARKS, |marks| {
        let (mut owner, keys) = gate(1);
        let entered = Tracked::new(0);
        let job = |thread: usize| {
            if thread == 1 {
                entered.set(1);
                // Not `panic!`: the message would be printed for every schedule.
                resume_unwind(Box::new("a worker's panic"));
            }
        };
        let serving = keys.into_iter().map(|key| Box::new(move || serve(key)) as Part<'_>).collect();
        scope(serving, || {
            let result = owner.run(&job, || {});
            assert_eq!(result.is_err(), entered.get() == 1, "a panic is neither lost nor made up");
            marks.mark("the worker panicked", result.is_err());
            owner.run(&|_| {}, || {}).unwrap_or_else(|panic| resume_unwind(panic));
            owner.stop();
        });
    });
}

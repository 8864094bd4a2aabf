//! Runs a model under many schedules, and says how to run a failing one again.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

pub use crate::marks::Marks;
use crate::schedule::{Progress, Seeded};

/// Steps after which a schedule counts as endless.
const STEPS: usize = 400_000;
/// Of each thread of a model.
const STACK: usize = 1 << 18;

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} must be a number, and is {value}")))
}

/// Runs `model` under `schedules` schedules, and prints how many that were.
///
/// Events of `marks` that did not happen in any of them fail the model, unless it was told to run fewer schedules than its
/// own number: a property of what never happens is not worth much.
///
/// # Panics
///
/// If `model` does, under any schedule.
pub fn explore(
    name: &str,
    schedules: u64,
    marks: &'static [&'static str],
    model: impl Fn(&Marks) + Send + Sync + 'static,
) {
    let first = number("SHUTTLE_SEED").unwrap_or(1);
    let count = number("SHUTTLE_SCHEDULES").unwrap_or(schedules);
    let started = Instant::now();
    let seen = Arc::new(Marks::new(marks));
    let (progress, marks) = (Arc::new(Progress::default()), Arc::clone(&seen));
    let scheduler = Seeded::new(first..first + count, Arc::clone(&progress));
    if let Err(panic) = run(scheduler, move || model(&marks)) {
        let seed = progress.seed.load(Ordering::Relaxed);
        eprintln!(
            "model {name} failed at seed {seed}; to run this schedule again:\n    \
             SHUTTLE_SEED={seed} SHUTTLE_SCHEDULES=1 bash shuttle-tests/run.sh {name}"
        );
        resume_unwind(panic);
    }
    println!(
        "model {name}: {count} iterations of {} choices, {:.1} s, seeds from {first}{seen}",
        progress.choices.load(Ordering::Relaxed) / count.max(1),
        started.elapsed().as_secs_f64(),
    );
    if count >= schedules {
        seen.check(name);
    }
}

/// Runs `model` as `scheduler` has it.
///
/// # Errors
///
/// The payload of the first panic.
pub fn run(scheduler: Seeded, model: impl Fn() + Send + Sync + 'static) -> std::thread::Result<()> {
    let mut config = Config::new();
    config.stack_size = STACK;
    config.max_steps = MaxSteps::FailAfter(STEPS);
    // The seed says it all.
    config.failure_persistence = FailurePersistence::None;
    config.silence_warnings = true;
    catch_unwind(AssertUnwindSafe(|| {
        Runner::new(scheduler, config).run(model);
    }))
}

//! What all models need: bounded runs, data whose accesses loom watches, and threads that borrow.

use std::panic::{resume_unwind, set_hook, take_hook};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::Instant;

use loom::cell::UnsafeCell;
use loom::model::Builder;

pub use crate::marks::Marks;

/// Thread switches in one execution before loom calls it endless.
const BRANCHES: usize = 20_000;

/// Ends the process when loom gives up a schedule as endless, which fails the model: who goes round in it may do so for minutes
/// while loom takes the model down.
fn end_with_endless_schedules() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = take_hook();
        set_hook(Box::new(move |panic| {
            report(panic);
            if panic.payload_as_str().is_some_and(|text| text.starts_with("Model exceeded maximum number of"))
            {
                std::process::exit(101);
            }
        }));
    });
}

/// Runs `model` under every schedule with at most `preemptions` preemptions, and prints how many that were.
///
/// `LOOM_MAX_PREEMPTIONS` and `LOOM_MAX_BRANCHES` override the bounds. Marks that were not reached in any schedule fail
/// the model: a property of something that never happens is not worth much.
///
/// # Panics
///
/// If any schedule does.
pub fn run_model(name: &str, preemptions: usize, marks: &'static [&'static str], model: fn(&Marks)) {
    end_with_endless_schedules();
    let mut builder = Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.max_threads = 5;
    if std::env::var_os("LOOM_MAX_BRANCHES").is_none() {
        builder.max_branches = BRANCHES;
    }
    let iterations = Arc::new(AtomicU64::new(0));
    let seen = Arc::new(Marks::new(marks));
    let started = Instant::now();
    let (counter, marks) = (Arc::clone(&iterations), Arc::clone(&seen));
    builder.check(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        model(&marks);
    });
    println!(
        "model {name}: {} iterations, {:.1} s, at most {} preemptions",
        iterations.load(Ordering::Relaxed),
        started.elapsed().as_secs_f64(),
        builder.preemption_bound.unwrap_or(preemptions),
    );
    seen.check(name);
}

/// A value whose accesses loom watches: an access that races with another fails the model.
#[derive(Debug)]
pub struct Tracked(UnsafeCell<u64>);

// SAFETY: loom checks every access, and its threads take turns on one thread of the system.
unsafe impl Sync for Tracked {}

impl Tracked {
    /// A value.
    pub fn new(value: u64) -> Self {
        Tracked(UnsafeCell::new(value))
    }

    /// Reads it.
    pub fn get(&self) -> u64 {
        self.0.with(|value| {
            // SAFETY: loom has just checked that no write races with this read.
            unsafe { *value }
        })
    }

    /// Writes it.
    pub fn set(&self, value: u64) {
        self.0.with_mut(|place| {
            // SAFETY: loom has just checked that no access races with this write.
            unsafe { *place = value }
        });
    }
}

/// A thread's part of a model.
pub type Part<'a> = Box<dyn FnOnce() + Send + 'a>;

/// Runs each of `others` on a thread of its own, and `own` here; returns when all are done.
///
/// # Panics
///
/// If any of them does. The model is over then, and its threads never run again.
pub fn scope<'a>(others: Vec<Part<'a>>, own: impl FnOnce() + 'a) {
    let spawn = |part: Part<'a>| {
        // SAFETY: only the lifetime changes. All threads are joined below, while everything in 'a is alive; if `own`
        // panics before that, loom ends the execution and resumes none of them.
        let part = unsafe { std::mem::transmute::<Part<'a>, Part<'static>>(part) };
        loom::thread::spawn(part)
    };
    let threads: Vec<_> = others.into_iter().map(spawn).collect();
    own();
    for thread in threads {
        if let Err(panic) = thread.join() {
            resume_unwind(panic);
        }
    }
}

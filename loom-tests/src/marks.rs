//! Events that a model waits for. Shared with `shuttle-tests`.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Events that a model counts over all its schedules. No scheduler sees them.
#[derive(Debug)]
pub struct Marks {
    names: &'static [&'static str],
    counts: Vec<AtomicU64>,
}

impl Marks {
    /// Counts nothing.
    pub const NONE: Marks = Marks { names: &[], counts: Vec::new() };

    /// Counts these events; none has happened.
    pub fn new(names: &'static [&'static str]) -> Self {
        Marks { names, counts: names.iter().map(|_| AtomicU64::new(0)).collect() }
    }

    /// Counts the event `name` if it `happened` and the model waits for it.
    pub fn mark(&self, name: &str, happened: bool) {
        if let Some(index) = self.names.iter().position(|known| *known == name) {
            self.counts[index].fetch_add(u64::from(happened), Ordering::Relaxed);
        }
    }

    /// Demands that each event happened: a property of what never happens is not worth much.
    ///
    /// # Panics
    ///
    /// If one did not.
    pub fn check(&self, model: &str) {
        for (mark, count) in self.names.iter().zip(&self.counts) {
            assert!(count.load(Ordering::Relaxed) > 0, "{model}: never happened: {mark}");
        }
    }
}

impl fmt::Display for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (mark, count) in self.names.iter().zip(&self.counts) {
            write!(f, ", {mark}: {}", count.load(Ordering::Relaxed))?;
        }
        Ok(())
    }
}

//! The lock that nobody waits for: `raw/try_lock.rs`.
//!
//! Property: one holder at a time, who sees what the last holder did; the first attempt on a free lock succeeds.

use atlas_smr_execution::internals::raw::try_lock::TryLock;
use loom::sync::atomic::{AtomicU64, Ordering};

use crate::harness::{Part, Tracked, run_model, scope};

#[test]
fn one_holder_after_the_other() {
    const MARKS: &[&str] = &["an attempt failed", "all attempts succeeded"];
    run_model("try_lock::one_holder_after_the_other", 3, MARKS, |marks| {
        let lock = TryLock::new(Tracked::new(0));
        let held = AtomicU64::new(0);
        let attempt = || {
            if let Some(data) = lock.try_lock() {
                // Two accesses: a second holder in between would be seen.
                data.set(data.get() + 1);
                drop(data);
                held.fetch_add(1, Ordering::Relaxed);
            }
        };
        let others: Vec<Part<'_>> = vec![Box::new(attempt), Box::new(attempt)];
        scope(others, attempt);
        let held = held.load(Ordering::Relaxed);
        assert!(held >= 1, "somebody got it");
        assert_eq!(lock.into_inner().get(), held, "no holder's work is lost");
        marks.mark("an attempt failed", held < 3);
        marks.mark("all attempts succeeded", held == 3);
    });
}

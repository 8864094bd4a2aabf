//! A schedule is its seed.
//!
//! Property: the same seeds make the same choices, step by step, so that a failure can be run again from its seed alone.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use atlas_smr_execution::executor::ExecutionMode;

use crate::app::Twist;
use crate::harness::{Marks, run};
use crate::schedule::{Progress, Seeded};
use crate::trial::Model;

fn trace(first: u64) -> u64 {
    let progress = Arc::new(Progress::default());
    let model = Model {
        mode: ExecutionMode::Adaptive,
        forwarding: true,
        again: true,
        twists: &[Twist::None, Twist::Stall(20), Twist::Raise(0), Twist::Expect(0)],
        ..Model::PLAIN
    };
    let scheduler = Seeded::new(first..first + 100, Arc::clone(&progress));
    run(scheduler, move || model.run(&Marks::NONE)).expect("no failure");
    progress.trace.load(Ordering::Relaxed)
}

#[test]
fn the_same_seed_is_the_same_schedule() {
    let first = trace(1000);
    assert_eq!(first, trace(1000));
    assert_ne!(first, trace(1001));
}

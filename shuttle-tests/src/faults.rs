//! Faults inside of batches.
//!
//! Property: a panic ahead of turn leaves no trace. A panic at its turn drops the batch whole: the state is what it was
//! before, the failure names the first operation that panics in batch order, and no thread is lost.

use atlas_smr_execution::executor::ExecutionMode;

use crate::app::Twist;
use crate::harness::explore;
use crate::trial::Model;

#[test]
fn panics_ahead_of_turn() {
    const MARKS: &[&str] = &["a panic or a budget ahead of turn", "no replay"];
    const TWISTS: &[Twist] = &[Twist::Raise(0), Twist::Expect(0), Twist::Stall(9)];
    let model = Model { twists: TWISTS, ..Model::PLAIN };
    explore("faults::panics_ahead_of_turn", 10_000, MARKS, move |marks| model.run(marks));
}

#[test]
fn panics_ahead_of_turn_by_hints_and_again() {
    const MARKS: &[&str] = &["a panic or a budget ahead of turn", "a rerun"];
    const TWISTS: &[Twist] = &[Twist::Raise(0), Twist::Expect(0), Twist::Stall(9)];
    let mode = ExecutionMode::SpeculateByHints;
    let model = Model { mode, forwarding: true, again: true, threads: 3..=4, twists: TWISTS, ..Model::PLAIN };
    explore("faults::panics_ahead_of_turn_by_hints_and_again", 10_000, MARKS, move |marks| model.run(marks));
}

#[test]
fn panics_at_turn() {
    const MARKS: &[&str] = &["a failure", "a replay"];
    const TWISTS: &[Twist] =
        &[Twist::None, Twist::Stall(9), Twist::Stall(40), Twist::Raise(0), Twist::Expect(0), Twist::Panic];
    let model = Model { forwarding: true, twists: TWISTS, ..Model::PLAIN };
    explore("faults::panics_at_turn", 10_000, MARKS, move |marks| model.run(marks));
}

#[test]
fn panics_at_turn_while_stale_units_run_again() {
    const MARKS: &[&str] = &["a failure", "a rerun"];
    const TWISTS: &[Twist] = &[Twist::None, Twist::None, Twist::Stall(9), Twist::None, Twist::Panic];
    let model = Model { again: true, threads: 3..=4, twists: TWISTS, ..Model::PLAIN };
    explore("faults::panics_at_turn_while_stale_units_run_again", 10_000, MARKS, move |marks| {
        model.run(marks)
    });
}

#[test]
fn merges_that_panic_where_the_engine_folds_them() {
    const MARKS: &[&str] = &["a failure", "a replay"];
    const TWISTS: &[Twist] = &[Twist::None, Twist::Trap, Twist::Stall(9)];
    let model = Model { twists: TWISTS, ..Model::PLAIN };
    explore("faults::merges_that_panic_where_the_engine_folds_them", 10_000, MARKS, move |marks| {
        model.run(marks)
    });
}

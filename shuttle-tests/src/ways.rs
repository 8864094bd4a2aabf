//! The three ways to run a batch ahead of turn, stale units that run again, and the engine's own choice.
//!
//! Property: whatever the schedule, the number of threads, the window and the chunk, replies and state are the sequential
//! loop's; what a unit sees without forwarding is one moment; no thread is lost, and the engine ends.

use atlas_smr_execution::executor::ExecutionMode;

use crate::app::Twist;
use crate::harness::explore;
use crate::trial::Model;

const STALLS: &[Twist] = &[Twist::None, Twist::None, Twist::Stall(40)];

#[test]
fn one_moment() {
    const MARKS: &[&str] = &["a replay", "no replay", "a panic or a budget ahead of turn"];
    let model = Model { twists: STALLS, ..Model::PLAIN };
    explore("ways::one_moment", 20_000, MARKS, move |marks| model.run(marks));
}

#[test]
fn forwarding() {
    const MARKS: &[&str] = &["a replay", "no replay", "a panic or a budget ahead of turn"];
    let model = Model { forwarding: true, twists: STALLS, ..Model::PLAIN };
    explore("ways::forwarding", 20_000, MARKS, move |marks| model.run(marks));
}

#[test]
fn by_hints() {
    const MARKS: &[&str] = &["a replay", "no replay", "a batch by hints"];
    let model = Model { mode: ExecutionMode::SpeculateByHints, twists: STALLS, ..Model::PLAIN };
    explore("ways::by_hints", 20_000, MARKS, move |marks| model.run(marks));
}

#[test]
fn by_hints_with_forwarding() {
    const MARKS: &[&str] = &["a replay", "no replay", "a batch by hints"];
    let model =
        Model { mode: ExecutionMode::SpeculateByHints, forwarding: true, twists: STALLS, ..Model::PLAIN };
    explore("ways::by_hints_with_forwarding", 20_000, MARKS, move |marks| model.run(marks));
}

#[test]
fn again_on_one_moment() {
    const MARKS: &[&str] = &["a replay", "no replay", "a rerun"];
    let model = Model { again: true, threads: 3..=4, twists: STALLS, ..Model::PLAIN };
    explore("ways::again_on_one_moment", 20_000, MARKS, move |marks| model.run(marks));
}

#[test]
fn again_with_forwarding() {
    const MARKS: &[&str] = &["a replay", "no replay", "a rerun"];
    let model = Model { again: true, forwarding: true, threads: 3..=4, twists: STALLS, ..Model::PLAIN };
    explore("ways::again_with_forwarding", 20_000, MARKS, move |marks| model.run(marks));
}

#[test]
fn again_by_hints() {
    const MARKS: &[&str] = &["a replay", "a rerun", "a batch by hints"];
    let mode = ExecutionMode::SpeculateByHints;
    let model = Model { mode, again: true, forwarding: true, threads: 3..=4, twists: STALLS, ..Model::PLAIN };
    explore("ways::again_by_hints", 20_000, MARKS, move |marks| model.run(marks));
}

#[test]
fn as_the_engine_chooses() {
    // The clock shows any time whenever it is looked at, so the choice is arbitrary.
    const MARKS: &[&str] = &["a replay", "a sequential batch", "a batch by hints"];
    let mode = ExecutionMode::Adaptive;
    let model = Model { mode, forwarding: true, again: true, batches: 300, operations: 3, ..Model::PLAIN };
    explore("ways::as_the_engine_chooses", 3_000, MARKS, move |marks| model.run(marks));
}

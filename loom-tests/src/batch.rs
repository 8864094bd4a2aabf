//! Whole small batches: pool, queue seam, arenas, units, scheduling, retirement, commit, all as shipped.
//!
//! Property: whatever the schedule, the result is the sequential loop's, also for a second batch on the same engine, and
//! the pool ends; a batch that cannot go on lets go of every thread. The same with operations that are started by hints, and
//! with stale units that run again before their turn.

use std::panic::resume_unwind;
use std::time::Duration;

use atlas_smr_execution::internals::pool::{Pool, PoolConfig};

use crate::glue::{Op, Setup};
use crate::harness::{Marks, run_model};

/// `batches` times what `setup` says, on a pool of two threads.
fn run_on_a_pool(marks: &Marks, setup: Setup, window: usize, batches: usize, by_hints: bool) {
    let config =
        PoolConfig { threads: 2, spin: Duration::ZERO, pin: false, stack_size: None, name: String::new() };
    let mut pool = Pool::new(&config).expect("loom spawns threads");
    let mut setup = setup.on(pool.queue(), window);
    for _ in 0..batches {
        let counts = setup.batch(|batch, _| {
            let tasks = if by_hints { 0 } else { batch.updates.len() };
            pool.run((0..tasks).step_by(batch.spread.chunk), &|thread| batch.work(thread))
                .unwrap_or_else(|panic| resume_unwind(panic));
        });
        marks.mark("a replay", counts.replays > 0);
        marks.mark("no replay", counts.replays == 0);
        marks.mark("a rerun", counts.reruns > 0);
    }
}

fn on_a_pool(marks: &Marks, ops: &[Op], window: usize, batches: usize) {
    run_on_a_pool(marks, Setup::new(ops), window, batches, false);
}

const MARKS: &[&str] = &["a replay", "no replay"];
const OPS: &[Op] =
    &[Op { reads: &[1], writes: &[1], ..Op::NONE }, Op { reads: &[1], writes: &[1], ..Op::NONE }];

#[test]
fn equals_the_sequential_loop() {
    run_model("batch::equals_the_sequential_loop", 2, MARKS, |marks| on_a_pool(marks, OPS, 2, 1));
}

#[test]
fn and_so_does_the_next_batch() {
    run_model("batch::and_so_does_the_next_batch", 2, MARKS, |marks| on_a_pool(marks, OPS, 2, 2));
}

#[test]
fn a_narrow_window_lets_all_through() {
    run_model("batch::a_narrow_window_lets_all_through", 2, &MARKS[1..], |marks| on_a_pool(marks, OPS, 1, 1));
}

#[test]
fn a_chunk_is_claimed_while_its_keys_are_looked_up() {
    // One thread has the whole batch; the other comes along and finds all or some of it claimed.
    run_model("batch::a_chunk_is_claimed_while_its_keys_are_looked_up", 2, MARKS, |marks| {
        run_on_a_pool(marks, Setup::new(OPS).prefetching(), 2, 1, false);
    });
}

#[test]
fn each_thread_retires_what_it_has_run() {
    run_model("batch::each_thread_retires_what_it_has_run", 2, MARKS, |marks| {
        run_on_a_pool(marks, Setup::new(OPS).retiring_its_own(), 2, 1, false);
    });
}

#[test]
fn a_panic_lets_go_of_every_thread() {
    const OPS: &[Op] = &[Op { panics: true, ..Op::NONE }, Op { reads: &[1], writes: &[1], ..Op::NONE }];
    run_model("batch::a_panic_lets_go_of_every_thread", 3, &[], |marks| on_a_pool(marks, OPS, 1, 1));
}

#[test]
fn by_hints_it_is_the_same() {
    run_model("batch::by_hints_it_is_the_same", 2, &MARKS[1..], |marks| {
        run_on_a_pool(marks, Setup::new(OPS).by_hints().forwarding(), 2, 1, true);
    });
}

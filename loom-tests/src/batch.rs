//! Whole small batches: pool, queue seam, arenas, units, retirement, commit.
//!
//! Property: whatever the schedule, the result is the sequential loop's, also for a second batch on the same engine, and
//! the pool ends; a batch that cannot go on lets go of every thread. The threads' parts are those of
//! `executor/speculative.rs` (`work`, `wait_for_window`, `help_out`).

use std::panic::resume_unwind;
use std::time::Duration;

use atlas_smr_execution::internals::arena::{Lent, Workspace};
use atlas_smr_execution::internals::pool::{Pool, PoolConfig, Queue};
use loom::thread::yield_now;

use crate::glue::{Batch, Op, Setup};
use crate::harness::{Marks, run_model};

fn work<'b>(batch: &Batch<'_, 'b>, lent: &Lent<'b>, queue: &Queue, window: usize, thread: usize) {
    let mut memory = lent.take(thread);
    while let Some(position) = queue.take() {
        if !wait_for_window(batch, position, window, &mut memory) {
            return;
        }
        let snapshot = batch.retirement.frontier();
        batch.speculate(position, snapshot, &mut memory);
        batch.advance(&mut memory);
    }
    help_out(batch, &mut memory);
}

fn wait_for_window<'b>(
    batch: &Batch<'_, 'b>,
    position: usize,
    window: usize,
    memory: &mut Workspace<'b>,
) -> bool {
    while position >= batch.retirement.frontier() + window {
        if batch.retirement.is_stopped() {
            return false;
        }
        batch.advance(memory);
        yield_now();
    }
    !batch.retirement.is_stopped()
}

fn help_out<'b>(batch: &Batch<'_, 'b>, memory: &mut Workspace<'b>) {
    let mut position = batch.retirement.frontier();
    while position < batch.len() && !batch.retirement.is_stopped() {
        let snapshot = batch.retirement.frontier();
        position = position.max(snapshot);
        if position < batch.len() && batch.speculate(position, snapshot, memory) {
            batch.advance(memory);
        }
        position += 1;
    }
}

/// `batches` times `ops`, on a pool of two threads.
fn on_a_pool(marks: &Marks, ops: &[Op], window: usize, batches: usize) {
    let config = PoolConfig { threads: 2, spin: Duration::ZERO, pin: false, name: String::new() };
    let mut pool = Pool::new(&config).expect("loom spawns threads");
    let queue = pool.queue();
    let mut setup = Setup::new(ops);
    for _ in 0..batches {
        let counts = setup.batch(|batch, lent| {
            pool.run(0..batch.len(), &|thread| work(batch, lent, &queue, window, thread))
                .unwrap_or_else(|panic| resume_unwind(panic));
        });
        marks.mark("a replay", counts.replays > 0);
        marks.mark("no replay", counts.replays == 0);
    }
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
fn a_panic_lets_go_of_every_thread() {
    const OPS: &[Op] = &[Op { panics: true, ..Op::NONE }, Op { reads: &[1], writes: &[1], ..Op::NONE }];
    run_model("batch::a_panic_lets_go_of_every_thread", 3, &[], |marks| on_a_pool(marks, OPS, 1, 1));
}

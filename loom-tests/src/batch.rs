//! A whole small batch: pool, queue seam, arenas, units, retirement.
//!
//! Property: whatever the schedule, the result is the sequential loop's, and the pool ends. The threads' parts are those
//! of `executor/speculative.rs` (`work`, `help_out`).

use std::panic::resume_unwind;
use std::time::Duration;

use atlas_smr_execution::internals::arena::Lent;
use atlas_smr_execution::internals::pool::{Pool, PoolConfig, Queue};

use crate::glue::{Batch, Op, Setup};
use crate::harness::{Marks, run_model};

fn work<'b>(batch: &Batch<'_, 'b>, lent: &Lent<'b>, queue: &Queue, thread: usize) {
    let mut memory = lent.take(thread);
    while let Some(position) = queue.take() {
        let snapshot = batch.retirement.frontier();
        batch.speculate(position, snapshot, &mut memory);
        batch.advance(&mut memory);
    }
    let mut position = batch.retirement.frontier();
    while position < batch.len() {
        let snapshot = batch.retirement.frontier();
        position = position.max(snapshot);
        if position < batch.len() && batch.speculate(position, snapshot, &mut memory) {
            batch.advance(&mut memory);
        }
        position += 1;
    }
}

fn on_a_pool(marks: &Marks, ops: &[Op]) {
    let config = PoolConfig { threads: 2, spin: Duration::ZERO, pin: false, name: String::new() };
    let mut pool = Pool::new(&config).expect("loom spawns threads");
    let queue = pool.queue();
    let counts = Setup::new(ops).batch(|batch, lent| {
        pool.run(0..batch.len(), &|thread| work(batch, lent, &queue, thread))
            .unwrap_or_else(|panic| resume_unwind(panic));
    });
    marks.mark("a replay", counts.replays > 0);
    marks.mark("no replay", counts.replays == 0);
}

#[test]
fn equals_the_sequential_loop() {
    const MARKS: &[&str] = &["a replay", "no replay"];
    const OPS: &[Op] = &[Op { reads: &[1], writes: &[1] }, Op { reads: &[1], writes: &[1] }];
    run_model("batch::equals_the_sequential_loop", 2, MARKS, |marks| on_a_pool(marks, OPS));
}

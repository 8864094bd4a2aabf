//! Arenas: `arena.rs`, lent to a gate's job twice, with result slots in them.
//!
//! Property: what a thread put into its arena is the owner's to see after the job; a second loan reuses the memory only
//! after everybody has left the first one's job.

use std::panic::resume_unwind;

use atlas_smr_execution::internals::arena::Arenas;
use atlas_smr_execution::internals::raw::gate::{Found as Called, Owner, WorkerKey, gate};
use atlas_smr_execution::internals::raw::slots::{Found, slots};
use loom::thread::yield_now;

use crate::harness::{Part, Tracked, run_model, scope};

fn serve(mut key: WorkerKey) {
    while let called = key.try_run()
        && called != Called::Stopped
    {
        if called == Called::Nothing {
            yield_now();
        }
    }
}

/// Each thread that takes part leaves its own result; returns where the worker's lay, if it came.
fn batch(owner: &mut Owner, arenas: &mut Arenas, number: u64) -> Option<usize> {
    let (lent, memory) = arenas.lend();
    let (slots, mut taker) = slots(&memory.arena, 2, 2, false);
    let job = |thread: usize| {
        let memory = lent.take(thread);
        let claim = slots.claim(thread).expect("the slots of this batch are all idle at first");
        let result = memory.arena.alloc(Tracked::new(0));
        result.set(number * 10 + thread as u64);
        claim.finish(result);
    };
    owner.run(&job, || {}).unwrap_or_else(|panic| resume_unwind(panic));
    let mut take = |thread: usize| match taker.take(thread) {
        Found::Done(result) => {
            assert_eq!(result.get(), number * 10 + thread as u64, "this batch's result");
            result.set(0);
            Some(std::ptr::from_ref(result).addr())
        }
        Found::Idle => None,
        Found::Claimed => panic!("a worker is still at it after `run`"),
    };
    take(0).expect("the owner's own result");
    take(1)
}

#[test]
fn lent_twice() {
    const MARKS: &[&str] = &["the worker came twice", "the worker came to the second batch only"];
    run_model("arena::lent_twice", 4, MARKS, |marks| {
        let (mut owner, keys) = gate(1);
        let mut arenas = Arenas::new(2);
        let serving = keys.into_iter().map(|key| Box::new(move || serve(key)) as Part<'_>).collect();
        scope(serving, || {
            let first = batch(&mut owner, &mut arenas, 1);
            let second = batch(&mut owner, &mut arenas, 2);
            if let (Some(first), Some(second)) = (first, second) {
                assert_eq!(first, second, "the memory is used again");
            }
            marks.mark("the worker came twice", first.is_some() && second.is_some());
            marks.mark("the worker came to the second batch only", first.is_none() && second.is_some());
            owner.stop();
        });
    });
}

//! Result slots: `raw/slots.rs`.
//!
//! Property: a position is claimed by one thread; its result comes out of one `take`, with all that was written to it;
//! a walker that races with a claimer, or with somebody who reopens the unit, either gets the claim, or the result, or neither,
//! and nothing is lost.

use atlas_smr_execution::internals::arena::Arenas;
use atlas_smr_execution::internals::raw::slots::{Found, Slots, Taker, slots};
use atlas_smr_execution::internals::raw::try_lock::TryLock;
use loom::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::{Part, Tracked, run_model, scope};

/// A walker's look at position 0, if nobody else is at it.
fn walk<'a>(taker: &TryLock<Taker<'a, Tracked>>, take: impl FnOnce(Found<'a, Tracked>)) {
    if let Some(mut taker) = taker.try_lock() {
        take(taker.take(0));
    }
}

#[test]
fn claimed_once_taken_once() {
    const MARKS: &[&str] = &["taken while others ran", "claimed by a walker", "left for the end"];
    run_model("slots::claimed_once_taken_once", 4, MARKS, |marks| {
        let mut result = Tracked::new(0);
        let mut arenas = Arenas::new(1);
        let (_lent, memory) = arenas.lend();
        let (slots, taker) = slots(&memory.arena, 1, 1, false);
        let taker = TryLock::new(taker);
        let (taken, claimed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let walk = || {
            walk(&taker, |found| match found {
                Found::Idle => drop(claimed.fetch_add(1, Ordering::Relaxed)),
                Found::Claimed => {}
                Found::Done(result) => {
                    assert_eq!(result.get(), 7, "the result's contents");
                    result.set(8);
                    taken.fetch_add(1, Ordering::Relaxed);
                }
            });
        };
        // Handed over by value: for as long as the slots live, not for the time of a call.
        let mut result = Some(&mut result);
        let run = || {
            if let (Some(claim), Some(result)) = (slots.claim(0), result.take()) {
                claimed.fetch_add(1, Ordering::Relaxed);
                result.set(7);
                claim.finish(result);
            }
        };
        let others: Vec<Part<'_>> = vec![Box::new(run), Box::new(walk)];
        scope(others, walk);
        assert_eq!(claimed.load(Ordering::Relaxed), 1, "claimed once");
        let early = taken.load(Ordering::Relaxed);
        walk();
        let all = taken.load(Ordering::Relaxed);
        assert!(all <= 1, "taken once");
        marks.mark("taken while others ran", early == 1);
        marks.mark("left for the end", all > early);
        marks.mark("claimed by a walker", all == 0);
    });
}

#[test]
fn reopened_or_taken() {
    const MARKS: &[&str] = &["taken as it was", "taken after it was given back", "left for the end"];
    run_model("slots::reopened_or_taken", 5, MARKS, |marks| {
        let mut result = Tracked::new(0);
        let mut arenas = Arenas::new(1);
        let (_lent, memory) = arenas.lend();
        let (slots, taker) = slots(&memory.arena, 1, 1, true);
        let claim = slots.claim(0).expect("idle");
        let taker = TryLock::new(taker);
        let taken = AtomicUsize::new(0);
        let walk = || {
            walk(&taker, |found| match found {
                Found::Idle => panic!("it was claimed"),
                Found::Claimed => {}
                Found::Done(result) => {
                    assert_eq!(taken.swap(result.get() as usize, Ordering::Relaxed), 0, "taken once");
                    result.set(0);
                }
            });
        };
        let result = &mut result;
        let run = || {
            result.set(7);
            claim.finish(result);
        };
        let run_again = || {
            if let Some((result, claim)) = slots.reopen(0) {
                result.set(result.get() + 1);
                claim.finish(result);
            }
        };
        let others: Vec<Part<'_>> = vec![Box::new(run), Box::new(run_again)];
        scope(others, walk);
        let early = taken.load(Ordering::Relaxed);
        walk();
        let all = taken.load(Ordering::Relaxed);
        assert!(all == 7 || all == 8, "what one of the runs left");
        marks.mark("taken as it was", early == 7);
        marks.mark("taken after it was given back", early == 8);
        marks.mark("left for the end", early == 0);
    });
}

fn run<'a>(slots: &Slots<'a, Tracked>, position: usize, result: &'a mut Tracked) {
    let claim = slots.claim(position).expect("nobody else claims it");
    result.set(position as u64 + 1);
    claim.finish(result);
}

#[test]
fn neighbours_do_not_disturb_each_other() {
    const MARKS: &[&str] = &["taken while the other one was run"];
    run_model("slots::neighbours_do_not_disturb_each_other", 5, MARKS, |marks| {
        let mut results = [Tracked::new(0), Tracked::new(0)];
        let mut arenas = Arenas::new(1);
        let (_lent, memory) = arenas.lend();
        let (slots, mut taker) = slots(&memory.arena, 2, 2, false);
        let [first, second] = &mut results;
        let other: Part<'_> = Box::new(|| run(&slots, 0, first));
        scope(vec![other], || {
            run(&slots, 1, second);
            if let Found::Done(result) = taker.take(1) {
                assert_eq!(result.get(), 2);
            }
            if slots.is_done(0) {
                let Found::Done(result) = taker.take(0) else { panic!("a result that was there is gone") };
                assert_eq!(result.get(), 1);
                marks.mark("taken while the other one was run", true);
            }
        });
    });
}

//! Result slots: `raw/slots.rs`.
//!
//! Property: a position is claimed by one thread; its result comes out of one `take`, with all that was written to it;
//! a walker that races with a claimer either gets the claim, or the result, or neither, and nothing is lost.

use atlas_smr_execution::internals::raw::slots::{Found, Line, Slots};
use loom::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::{Part, Tracked, run_model, scope};

#[test]
fn claimed_once_taken_once() {
    const MARKS: &[&str] = &["taken while others ran", "claimed by a walker", "left for the end"];
    run_model("slots::claimed_once_taken_once", 4, MARKS, |marks| {
        let mut result = Tracked::new(0);
        let mut lines = [Line::<Tracked>::default()];
        let slots = Slots::new(&mut lines, 1, 1);
        let (taken, claimed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let walk = || match slots.take(0) {
            Found::Idle(_claim) => drop(claimed.fetch_add(1, Ordering::Relaxed)),
            Found::Claimed => {}
            Found::Done(result, _claim) => {
                assert_eq!(result.get(), 7, "the result's contents");
                result.set(8);
                taken.fetch_add(1, Ordering::Relaxed);
            }
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
        let mut lines = [Line::<Tracked>::default()];
        let slots = Slots::new(&mut lines, 2, 2);
        let [first, second] = &mut results;
        let other: Part<'_> = Box::new(|| run(&slots, 0, first));
        scope(vec![other], || {
            run(&slots, 1, second);
            if let Found::Done(result, _claim) = slots.take(1) {
                assert_eq!(result.get(), 2);
            }
            if slots.is_done(0) {
                let Found::Done(result, _claim) = slots.take(0) else {
                    panic!("a result that was there is gone")
                };
                assert_eq!(result.get(), 1);
                marks.mark("taken while the other one was run", true);
            }
        });
    });
}

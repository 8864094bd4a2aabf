//! Retirement: `retire.rs`, steps R1 to R6, with the real slots, lock, overlay, table and units.
//!
//! Property: when all threads are done, no unit is left unretired; nobody retires one twice; replies come in batch
//! order and are those of the sequential loop; the head progresses even if nobody has started it; a unit sees exactly
//! one moment. `glue.rs` checks all of that on every schedule.

use std::sync::Mutex;

use atlas_smr_execution::internals::schedule::stock::Stock;

use crate::glue::{Op, Setup};
use crate::harness::{Marks, Part, run_model, scope};

/// Two threads: each runs the units at its positions, and retires after each.
fn two_threads(marks: &Marks, ops: &[Op], mine: &[usize], theirs: &[usize]) {
    run_two_threads(marks, Setup::new(ops), mine, theirs);
}

/// Also returns the number of replays, and at which moments units began, as (position, moment).
fn run_two_threads(
    marks: &Marks,
    mut setup: Setup,
    mine: &[usize],
    theirs: &[usize],
) -> (Setup, u64, Vec<(usize, usize)>) {
    // Loom does not see it.
    let moments = Mutex::new(Vec::new());
    let counts = setup.batch(|batch, lent| {
        let part = |thread: usize, positions: &[usize]| {
            let mut stock = Stock::new(lent.take(thread));
            for &position in positions {
                let snapshot = batch.retirement.frontier().min(position);
                if batch.speculate(position, snapshot, &mut stock) {
                    moments.lock().expect("nobody panics here").push((position, snapshot));
                }
                batch.advance(&mut stock);
            }
        };
        let other: Part<'_> = Box::new(|| part(1, theirs));
        scope(vec![other], || part(0, mine));
        let ended = batch.retirement.frontier() == batch.updates.len() || batch.retirement.is_stopped();
        assert!(ended, "no finished unit is left unretired");
    });
    marks.mark("a replay", counts.replays > 0);
    marks.mark("no replay", counts.replays == 0);
    marks.mark("overtaken", counts.overtaken > 0);
    (setup, counts.replays, moments.into_inner().expect("nobody panics there"))
}

#[test]
fn independent_units_all_retire() {
    const MARKS: &[&str] = &["no replay"];
    const OPS: &[Op] =
        &[Op { reads: &[], writes: &[1], ..Op::NONE }, Op { reads: &[2], writes: &[2], ..Op::NONE }];
    run_model("retire::independent_units_all_retire", 4, MARKS, |marks| two_threads(marks, OPS, &[0], &[1]));
}

#[test]
fn a_collision_is_replayed() {
    const MARKS: &[&str] = &["a replay", "no replay"];
    // The second operation reads two keys that the first one writes: it must see both or neither.
    const OPS: &[Op] =
        &[Op { reads: &[1], writes: &[1, 2], ..Op::NONE }, Op { reads: &[1, 2], writes: &[1], ..Op::NONE }];
    run_model("retire::a_collision_is_replayed", 4, MARKS, |marks| two_threads(marks, OPS, &[0], &[1]));
}

#[test]
fn an_idle_head_is_run_by_the_walker() {
    // The head is started by nobody but the walker, so what runs ahead of it always collides.
    const MARKS: &[&str] = &["a replay"];
    const OPS: &[Op] = &[
        Op { reads: &[], writes: &[1], ..Op::NONE },
        Op { reads: &[1], writes: &[2], ..Op::NONE },
        Op { reads: &[2], writes: &[2], ..Op::NONE },
    ];
    run_model("retire::an_idle_head_is_run_by_the_walker", 3, MARKS, |marks| {
        two_threads(marks, OPS, &[1], &[2]);
    });
}

#[test]
fn two_claimers_of_one_unit() {
    const MARKS: &[&str] = &["a replay", "no replay"];
    const OPS: &[Op] =
        &[Op { reads: &[1], writes: &[1], ..Op::NONE }, Op { reads: &[1], writes: &[1], ..Op::NONE }];
    run_model("retire::two_claimers_of_one_unit", 3, MARKS, |marks| two_threads(marks, OPS, &[0, 1], &[1]));
}

#[test]
fn older_versions_stay() {
    // The third operation may start when the first one has retired, and read one of its keys before and the other after the
    // second one has, too: it must then find the first one's version of both.
    const OPS: &[Op] = &[
        Op { writes: &[1, 2], ..Op::NONE },
        Op { reads: &[1], writes: &[1, 2], ..Op::NONE },
        Op { reads: &[1, 2], writes: &[2], ..Op::NONE },
    ];
    const MARKS: &[&str] = &["a replay", "no replay"];
    run_model("retire::older_versions_stay", 3, MARKS, |marks| two_threads(marks, OPS, &[0, 1], &[2]));
}

#[test]
fn a_unit_moves_on() {
    // The third operation may begin before the others have ended, and find the second one's key written when it comes to
    // it. If it has looked at nothing that has changed, it need not be replayed.
    const OPS: &[Op] = &[
        Op { writes: &[1], ..Op::NONE },
        Op { writes: &[2], ..Op::NONE },
        Op { reads: &[2, 1], writes: &[3], ..Op::NONE },
    ];
    const MARKS: &[&str] = &["a replay", "no replay", "moved on"];
    run_model("retire::a_unit_moves_on", 3, MARKS, |marks| {
        let (_, replays, moments) = run_two_threads(marks, Setup::new(OPS), &[0, 1], &[2]);
        let began_at = |position| moments.iter().find(|&&(other, _)| other == position).map(|&(_, at)| at);
        marks.mark("moved on", replays == 0 && began_at(2) == Some(0));
    });
}

#[test]
fn merges_form_a_chain() {
    const OPS: &[Op] = &[
        Op { merges: &[1], ..Op::NONE },
        Op { merges: &[1, 2], ..Op::NONE },
        Op { reads: &[2], merges: &[1], ..Op::NONE },
    ];
    const MARKS: &[&str] = &["a replay", "no replay"];
    run_model("retire::merges_form_a_chain", 3, MARKS, |marks| two_threads(marks, OPS, &[0, 1], &[2]));
}

#[test]
fn a_panic_ends_the_batch() {
    const OPS: &[Op] =
        &[Op { writes: &[1], ..Op::NONE }, Op { panics: true, ..Op::NONE }, Op { reads: &[1], ..Op::NONE }];
    run_model("retire::a_panic_ends_the_batch", 3, &[], |marks| two_threads(marks, OPS, &[0, 2], &[1]));
}

#[test]
fn values_are_forwarded() {
    // The third operation may read what the second one wrote before that one retires, and keep it, as the first one does
    // not touch it.
    const OPS: &[Op] = &[
        Op { writes: &[1], ..Op::NONE },
        Op { reads: &[2], writes: &[2], ..Op::NONE },
        Op { reads: &[2], writes: &[3], ..Op::NONE },
    ];
    const MARKS: &[&str] = &["a replay", "no replay", "a value was forwarded"];
    run_model("retire::values_are_forwarded", 3, MARKS, |marks| {
        let (setup, replays, _) = run_two_threads(marks, Setup::new(OPS).forwarding(), &[1, 0], &[2]);
        // The third ended before the first, so the second had not retired.
        marks.mark("a value was forwarded", replays == 0 && setup.ended_before(3, 1));
    });
}

#[test]
fn forwarded_values_that_change_are_refused() {
    // The second operation may run before the first one, and the third on its value; then the second is replayed, and
    // writes another one under the same position.
    const OPS: &[Op] = &[
        Op { writes: &[1], ..Op::NONE },
        Op { reads: &[1], writes: &[1], ..Op::NONE },
        Op { reads: &[1], writes: &[1], ..Op::NONE },
    ];
    const MARKS: &[&str] = &["a replay"];
    run_model("retire::forwarded_values_that_change_are_refused", 3, MARKS, |marks| {
        run_two_threads(marks, Setup::new(OPS).forwarding(), &[1, 0], &[2]);
    });
}

#[test]
fn stale_units_run_again() {
    // The walker is at the first operation while the other thread finds the second and the third finished: it may take the
    // third away, run it again, and give it back while the walker looks for it.
    const OPS: &[Op] = &[
        Op { writes: &[1], ..Op::NONE },
        Op { reads: &[1], writes: &[2], ..Op::NONE },
        Op { reads: &[1], writes: &[1], ..Op::NONE },
    ];
    const MARKS: &[&str] = &["a replay", "no replay", "a rerun"];
    run_model("retire::stale_units_run_again", 3, MARKS, |marks| {
        let mut setup = Setup::new(OPS).again();
        let counts = setup.batch(|batch, lent| {
            let other: Part<'_> = Box::new(|| {
                let mut stock = Stock::new(lent.take(1));
                batch.speculate(2, 0, &mut stock);
                batch.advance(&mut stock);
                batch.run_one_again(&mut stock);
            });
            scope(vec![other], || {
                let mut stock = Stock::new(lent.take(0));
                for position in [0, 1] {
                    let snapshot = batch.retirement.frontier().min(position);
                    batch.speculate(position, snapshot, &mut stock);
                    batch.advance(&mut stock);
                }
            });
            assert_eq!(batch.retirement.frontier(), 3, "no unit that was taken away is left unretired");
        });
        marks.mark("a replay", counts.replays > 0);
        marks.mark("no replay", counts.replays == 0);
        marks.mark("a rerun", counts.reruns > 0);
    });
}

#[test]
fn a_running_unit_is_overtaken() {
    // The walker may come to the second operation while the other thread runs it. That one then starts the third, on a moment
    // before or after the second has retired.
    const OPS: &[Op] = &[
        Op { reads: &[1], writes: &[1], ..Op::NONE },
        Op { reads: &[1], writes: &[1], ..Op::NONE },
        Op { reads: &[1], writes: &[2], ..Op::NONE },
    ];
    const MARKS: &[&str] = &["a replay", "no replay", "overtaken"];
    run_model("retire::a_running_unit_is_overtaken", 3, MARKS, |marks| {
        run_two_threads(marks, Setup::new(OPS).expecting_collisions(), &[0], &[1, 2]);
    });
}

//! Units that run while others retire, on one thread.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::arena::Arenas;
use crate::state::{CRUDState, ShardedState};
use crate::unit::{ExecutionUnit, Fingerprints, Surroundings};

/// A unit reads keys 0 to 39. When it has read three, the one before it retires, which wrote the keys `written`. Returns the
/// key at which it was abandoned, if it was, and whether it is right at its turn.
fn run_while_another_retires(forwards: bool, abandons: bool, written: &[u32]) -> (Option<u32>, bool) {
    let (state, fingerprints) = (ShardedState::new(), Fingerprints::new());
    let (mut arenas, mut table) = (Arenas::new(2), Table::new());
    let (lent, memory) = arenas.lend();
    let (stamps, mut overlay) = begin(&mut table, memory, 2, forwards, 1);
    let around = Surroundings {
        state: &state,
        versions: stamps,
        fingerprints: &fingerprints,
        steps: u32::MAX,
        places: false,
        abandons,
    };
    let (mut other, mut own) = (lent.take(0), lent.take(1));
    let (mut before, mut outcome) = (Outcome::default(), Outcome::default());
    let mut unit = ExecutionUnit::new(around, &mut other, &mut before, 0, 0);
    written.iter().for_each(|key| unit.put("column", &key.to_le_bytes(), b"new"));
    let unit = ExecutionUnit::new(around, &mut own, &mut outcome, 1, 0);
    let mut read = |key: u32| {
        if key == 3 {
            overlay.publish(&before.writes, &other, |_, _| unreachable!("nothing is merged"));
            overlay.frontier().move_to(1);
        }
        unit.read_with("column", &key.to_le_bytes(), |_| ());
    };
    let at = (0..40).find(|&key| catch_unwind(AssertUnwindSafe(|| read(key))).is_err());
    assert_eq!(outcome.is_abandoned(), at.is_some());
    (at, overlay.confirms(&outcome))
}

#[test]
fn a_unit_of_one_moment_is_abandoned_where_it_comes_to_what_has_been_written_since() {
    assert_eq!(run_while_another_retires(false, true, &[0, 5]), (Some(5), false));
    assert_eq!(run_while_another_retires(false, false, &[0, 5]), (None, false));
    // It might as well have begun later.
    assert_eq!(run_while_another_retires(false, true, &[5]), (None, true));
    // It does not come to it.
    assert_eq!(run_while_another_retires(false, true, &[0]), (None, false));
}

#[test]
fn a_unit_of_the_newest_values_is_abandoned_where_it_looks_back() {
    assert_eq!(run_while_another_retires(true, true, &[0]), (Some(15), false));
    assert_eq!(run_while_another_retires(true, false, &[0]), (None, false));
    // It has read the new value.
    assert_eq!(run_while_another_retires(true, true, &[5]), (None, true));
}

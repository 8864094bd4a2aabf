//! Units that run while others retire, on one thread.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::arena::Arenas;
use crate::state::{CRUDState, ShardedState};
use crate::unit::{ExecutionUnit, Fingerprints, Surroundings};

/// What a unit of `state` shares with others, if it may be abandoned or not.
fn around<'r, 'b>(
    state: &'r ShardedState,
    fingerprints: &'r Fingerprints,
    versions: Stamps<'b>,
    abandons: bool,
) -> Surroundings<'r, ShardedState, Stamps<'b>> {
    Surroundings { state, versions, fingerprints, steps: u32::MAX, places: false, abandons }
}

/// A unit reads keys 0 to 39. When it has read three, the one before it retires, which wrote the keys `written`. Returns the
/// key at which it was abandoned, if it was, and whether it is right at its turn.
fn run_while_another_retires(forwards: bool, abandons: bool, written: &[u32]) -> (Option<u32>, bool) {
    let (state, fingerprints) = (ShardedState::new(), Fingerprints::new());
    let (mut arenas, mut table) = (Arenas::new(2), Table::new());
    let (lent, memory) = arenas.lend();
    let (stamps, mut overlay) = begin(&mut table, memory, 2, forwards, 1);
    let around = around(&state, &fingerprints, stamps, abandons);
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
    assert_eq!(run_while_another_retires(true, true, &[0]), (Some(3), false));
    assert_eq!(run_while_another_retires(true, false, &[0]), (None, false));
    // It has read the new value.
    assert_eq!(run_while_another_retires(true, true, &[5]), (None, true));
}

#[test]
fn what_a_retired_unit_did_not_write_in_the_end_abandons_nobody() {
    let (state, fingerprints) = (ShardedState::new(), Fingerprints::new());
    let (mut arenas, mut table) = (Arenas::new(2), Table::new());
    let (lent, memory) = arenas.lend();
    let (stamps, overlay) = begin(&mut table, memory, 3, true, 1);
    let around = around(&state, &fingerprints, stamps, true);
    let (mut other, mut own) = (lent.take(0), lent.take(1));
    let (mut ahead, mut outcome) = (Outcome::default(), Outcome::default());
    // What it wrote ahead of its turn could be read; at its turn, it wrote nothing.
    ExecutionUnit::new(around, &mut other, &mut ahead, 0, 0).put("column", b"key", b"in vain");
    stamps.forward(&ahead.writes);
    overlay.frontier().move_to(1);
    let unit = ExecutionUnit::new(around, &mut own, &mut outcome, 2, 1);
    for key in [&b"key"[..], b"another", b"a third", b"a fourth"] {
        assert_eq!(unit.read("column", key), None);
    }
    assert!(overlay.confirms(&outcome) && !outcome.is_abandoned());
}

/// Reads a key when it is dropped.
struct Reads<'u, U: CRUDState>(&'u U, u32);

impl<U: CRUDState> Drop for Reads<'_, U> {
    fn drop(&mut self) {
        self.0.read("column", &self.1.to_le_bytes());
    }
}

#[test]
fn a_unit_that_unwinds_already_is_not_abandoned() {
    for forwards in [false, true] {
        let (state, fingerprints) = (ShardedState::new(), Fingerprints::new());
        let (mut arenas, mut table) = (Arenas::new(2), Table::new());
        let (lent, memory) = arenas.lend();
        let (stamps, mut overlay) = begin(&mut table, memory, 2, forwards, 1);
        let around = around(&state, &fingerprints, stamps, true);
        let (mut other, mut own) = (lent.take(0), lent.take(1));
        let (mut before, mut outcome) = (Outcome::default(), Outcome::default());
        let mut unit = ExecutionUnit::new(around, &mut other, &mut before, 0, 0);
        (0..2_u32).for_each(|key| unit.put("column", &key.to_le_bytes(), b"new"));
        let unit = ExecutionUnit::new(around, &mut own, &mut outcome, 1, 0);
        unit.read("column", &0_u32.to_le_bytes());
        overlay.publish(&before.writes, &other, |_, _| unreachable!("nothing is merged"));
        overlay.frontier().move_to(1);
        let ended = catch_unwind(AssertUnwindSafe(|| {
            let _reads = Reads(&unit, 1);
            std::panic::resume_unwind(Box::new("the application panics"));
        }));
        let panic = ended.expect_err("it panics");
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"the application panics"));
        assert!(!outcome.is_abandoned() && !overlay.confirms(&outcome));
    }
}

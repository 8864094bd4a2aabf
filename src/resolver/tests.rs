//! Units that run while others retire, on one thread.

use super::*;
use crate::arena::Arenas;
use crate::state::{CRUDState, ShardedState};
use crate::unit::{ExecutionUnit, Fingerprints, Surroundings};

/// What a unit of `state` shares with others.
fn around<'r, 'b>(
    state: &'r ShardedState,
    fingerprints: &'r Fingerprints,
    versions: Stamps<'b>,
) -> Surroundings<'r, ShardedState, Stamps<'b>> {
    Surroundings { state, versions, fingerprints, steps: u32::MAX, places: false }
}

/// A unit reads keys 0 to 2. Then the one before it retires, which wrote the key `written`. Returns whether the unit is taken
/// for stale, and whether it is right at its turn.
fn retire_another(forwards: bool, written: u8) -> (bool, bool) {
    let (state, fingerprints) = (ShardedState::new(), Fingerprints::new());
    let (mut arenas, mut table) = (Arenas::new(2), Table::new());
    let (lent, memory) = arenas.lend();
    let (stamps, mut overlay) = begin(&mut table, memory, 2, forwards, 1);
    let around = around(&state, &fingerprints, stamps);
    let (mut other, mut own) = (lent.take(0), lent.take(1));
    let (mut before, mut outcome) = (Outcome::default(), Outcome::default());
    ExecutionUnit::new(around, &mut other, &mut before, 0, 0).put("column", &[written], b"new");
    let unit = ExecutionUnit::new(around, &mut own, &mut outcome, 1, 0);
    (0..3).for_each(|key| assert_eq!(unit.read("column", &[key]), None));
    assert!(!stamps.is_stale(&outcome, 1));
    overlay.publish(&before.writes, &other, |_, _| unreachable!("nothing is merged"));
    overlay.frontier().move_to(1);
    (stamps.is_stale(&outcome, 1), overlay.confirms(&outcome))
}

#[test]
fn a_unit_is_stale_when_what_it_has_read_is_replaced() {
    for forwards in [false, true] {
        assert_eq!(retire_another(forwards, 1), (true, false));
        assert_eq!(retire_another(forwards, 5), (false, true));
    }
}

/// The unit at position 0 writes a key ahead of its turn, which others may read, and nothing at its turn. Another one reads the
/// key before or after that; returns whether it is taken for stale, and whether it is right at its turn.
fn write_in_vain(read_before: bool) -> (bool, bool) {
    let (state, fingerprints) = (ShardedState::new(), Fingerprints::new());
    let (mut arenas, mut table) = (Arenas::new(2), Table::new());
    let (lent, memory) = arenas.lend();
    let (stamps, overlay) = begin(&mut table, memory, 3, true, 1);
    let around = around(&state, &fingerprints, stamps);
    let (mut other, mut own) = (lent.take(0), lent.take(1));
    let (mut ahead, mut outcome) = (Outcome::default(), Outcome::default());
    ExecutionUnit::new(around, &mut other, &mut ahead, 0, 0).put("column", b"key", b"in vain");
    stamps.forward(&ahead.writes);
    if !read_before {
        overlay.frontier().move_to(1);
    }
    let unit = ExecutionUnit::new(around, &mut own, &mut outcome, 2, u32::from(!read_before));
    assert_eq!(unit.read("column", b"key").is_some(), read_before);
    assert!(!stamps.is_stale(&outcome, 2));
    overlay.frontier().move_to(1);
    (stamps.is_stale(&outcome, 2), overlay.confirms(&outcome))
}

#[test]
fn what_a_retired_unit_did_not_write_in_the_end_makes_those_stale_that_have_read_it() {
    assert_eq!(write_in_vain(true), (true, false));
    assert_eq!(write_in_vain(false), (false, true));
}

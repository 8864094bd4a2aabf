//! The table of version stamps: `raw/table.rs`, and steps R5 and R6 of `retire.rs` in the models' own frontier.
//!
//! Property: a reader that learned of an entry through a frontier (Release, Acquire) finds it, or a newer one of the
//! same fingerprint; whatever it finds, it also sees the contents of; it never finds another epoch's entry, also when
//! epoch numbers come around again.

use atlas_smr_execution::internals::raw::table::{Reader, Table, Writer};
use loom::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::{Part, Tracked, run_model, scope};

/// Fingerprints that start their probe at the same slot.
const A: u64 = 1 << 20;
const B: u64 = 2 << 20;
/// One whose slot nobody else needs: what was stored there stays until it is cleared.
const C: u64 = (3 << 20) | (1 << 16);

fn store<'b>(writer: &mut Writer<'b, Tracked>, fingerprint: u64, entry: &'b Tracked) {
    let place = writer.find(fingerprint);
    writer.store(place, fingerprint, entry);
}

/// The contents under `fingerprint`, or zero.
fn look_up(reader: Reader<'_, Tracked>, fingerprint: u64) -> u64 {
    reader.get(fingerprint).map_or(0, Tracked::get)
}

fn entries() -> [Tracked; 3] {
    [Tracked::new(0), Tracked::new(0), Tracked::new(0)]
}

#[test]
fn what_the_frontier_covers_is_found() {
    const MARKS: &[&str] = &["seen ahead of the frontier"];
    run_model("table::what_the_frontier_covers_is_found", 5, MARKS, |marks| {
        let entries = entries();
        let mut table = Table::new();
        let (reader, mut writer) = table.begin::<Tracked>(1);
        let frontier = AtomicUsize::new(0);
        let look = || {
            let covered = frontier.load(Ordering::Acquire);
            let (a, b) = (look_up(reader, A), look_up(reader, B));
            assert!(a == 1 || (a == 0 && covered < 1), "frontier {covered}, A {a}");
            assert!(b == 2 || (b == 0 && covered < 2), "frontier {covered}, B {b}");
            marks.mark("seen ahead of the frontier", a == 1 && covered == 0);
        };
        let other: Part<'_> = Box::new(look);
        scope(vec![other], || {
            for (done, fingerprint) in [A, B].into_iter().enumerate() {
                entries[done].set(done as u64 + 1);
                store(&mut writer, fingerprint, &entries[done]);
                frontier.store(done + 1, Ordering::Release);
            }
        });
    });
}

#[test]
fn newer_versions_win() {
    const MARKS: &[&str] = &["old version", "new version"];
    run_model("table::newer_versions_win", 5, MARKS, |marks| {
        let entries = entries();
        let mut table = Table::new();
        let (reader, mut writer) = table.begin::<Tracked>(1);
        entries[0].set(1);
        store(&mut writer, A, &entries[0]);
        let frontier = AtomicUsize::new(1);
        let look = || {
            let covered = frontier.load(Ordering::Acquire);
            let a = look_up(reader, A);
            assert!(a as usize >= covered, "frontier {covered}, version {a}");
            marks.mark("old version", a == 1);
            marks.mark("new version", a == 2);
        };
        let others: Vec<Part<'_>> = vec![Box::new(look), Box::new(look)];
        scope(others, || {
            entries[1].set(2);
            store(&mut writer, A, &entries[1]);
            frontier.store(2, Ordering::Release);
        });
    });
}

#[test]
fn growth_hides_nothing() {
    const MARKS: &[&str] = &["before growth", "after growth"];
    run_model("table::growth_hides_nothing", 5, MARKS, |marks| {
        let entries = entries();
        let mut table = Table::new();
        let (reader, mut writer) = table.begin::<Tracked>(0);
        let frontier = AtomicUsize::new(0);
        let look = || {
            let covered = frontier.load(Ordering::Acquire);
            let (a, b) = (look_up(reader, A), look_up(reader, B));
            assert!(a == 1 || (a == 0 && covered < 1), "frontier {covered}, A {a}");
            assert!(b == 2 || (b == 0 && covered < 2), "frontier {covered}, B {b}");
            marks.mark("before growth", a == 1 && b == 0);
            marks.mark("after growth", b == 2);
        };
        let other: Part<'_> = Box::new(look);
        scope(vec![other], || {
            entries[0].set(1);
            store(&mut writer, A, &entries[0]);
            frontier.store(1, Ordering::Release);
            assert!(writer.must_grow(), "two slots hold one fingerprint");
            writer.grow([A].into_iter());
            entries[1].set(2);
            store(&mut writer, B, &entries[1]);
            frontier.store(2, Ordering::Release);
        });
    });
}

/// One epoch: A is stored, while a reader looks; it must find either nothing or this epoch's entry.
fn epoch(table: &mut Table, entry: &Tracked, number: u64) {
    let (reader, mut writer) = table.begin::<Tracked>(1);
    let other: Part<'_> = Box::new(move || {
        let (a, c) = (look_up(reader, A), look_up(reader, C));
        assert!(a == 0 || a == number, "epoch {number} found an entry of epoch {a}");
        assert_eq!(c, 0, "nobody stored C in epoch {number}");
    });
    scope(vec![other], || {
        entry.set(number);
        store(&mut writer, A, entry);
    });
}

#[test]
fn an_epoch_sees_only_its_own() {
    run_model("table::an_epoch_sees_only_its_own", 5, &[], |_| {
        let entries = entries();
        let mut table = Table::new();
        let (_, mut writer) = table.begin::<Tracked>(1);
        entries[0].set(1);
        store(&mut writer, C, &entries[0]);
        epoch(&mut table, &entries[1], 2);
        epoch(&mut table, &entries[2], 3);
    });
}

#[test]
fn epoch_numbers_come_around() {
    run_model("table::epoch_numbers_come_around", 5, &[], |_| {
        let entries = entries();
        let mut table = Table::new();
        let (_, mut writer) = table.begin::<Tracked>(1);
        entries[0].set(1);
        // Epoch 1, which comes again.
        store(&mut writer, C, &entries[0]);
        table.skip_to_last_epoch();
        epoch(&mut table, &entries[1], 2);
        epoch(&mut table, &entries[2], 3);
    });
}

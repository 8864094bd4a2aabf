//! An open-addressing table from fingerprints to references, cleared by counting.
//!
//! # Semantics
//!
//! One writer, any number of readers, no locks. The table outlives the batch; what its slots refer to does not: each
//! [`Table::begin`] starts an epoch, and a slot counts only if its tag carries the epoch's number. References go in
//! for `'b` and come out for `'b`, and `'b` ends before the next epoch begins.
//!
//! A slot is a tag, {48 bits of fingerprint | 16 bits of epoch}, and a pointer. What a reader is promised: it finds
//! every entry that was stored before the event by which it learned of the entry (for the engine: the retirement
//! frontier), and never an entry of another epoch. Two fingerprints that agree in their upper 48 bits may share a slot;
//! the caller compares keys.

use std::marker::PhantomData;
use std::ptr;

use crate::sync::{AtomicPtr, AtomicU64, Ordering};

const EPOCH_BITS: u32 = 16;
const EPOCH_MASK: u64 = (1 << EPOCH_BITS) - 1;
const LEAST_SLOTS: usize = if cfg!(any(loom, shuttle)) { 2 } else { 64 };
/// Slots per expected fingerprint. Four slots share a cache line, and whoever stores into one of them takes the line away from
/// those who look at the others; so a table that fits into a near cache has more.
const SLOTS_EACH: usize = 4;
const SPARSE_SLOTS_EACH: usize = if cfg!(any(loom, shuttle)) { 4 } else { 16 };
/// The largest table that is sparse: 128 KiB.
const MOST_SPARSE: usize = 1 << 13;

#[derive(Debug)]
struct Slot {
    tag: AtomicU64,
    entry: AtomicPtr<()>,
}

/// A power-of-two number of slots, of which an epoch uses the first `mask + 1`.
#[derive(Debug)]
struct Slots {
    mask: usize,
    slots: Box<[Slot]>,
}

impl Slots {
    fn boxed(len: usize) -> *mut Slots {
        let empty = |_| Slot { tag: AtomicU64::new(0), entry: AtomicPtr::new(ptr::null_mut()) };
        Box::into_raw(Box::new(Slots { mask: len - 1, slots: (0..len).map(empty).collect() }))
    }

    /// The slot of `tag`, or the empty one where it would go, and whether it was found.
    #[inline]
    fn probe(&self, fingerprint: u64, tag: u64) -> (usize, bool) {
        // From the bits that are in the tag: fingerprints that share a tag share a slot, in every table.
        let mut index = (fingerprint >> EPOCH_BITS) as usize & self.mask;
        loop {
            // Acquire: pairs with the Release store of the tag, so that the entry stored before it is visible.
            let seen = self.slots[index].tag.load(Ordering::Acquire);
            if seen == tag {
                return (index, true);
            }
            if (seen ^ tag) & EPOCH_MASK != 0 {
                return (index, false);
            }
            index = (index + 1) & self.mask;
        }
    }
}

/// The table between batches.
#[derive(Debug)]
pub struct Table {
    /// All tables of the epoch, the newest (and largest) last. Readers may still be in the older ones.
    tables: Vec<*mut Slots>,
    current: AtomicPtr<Slots>,
    epoch: u64,
}

// SAFETY: the pointers in `tables` are owned boxes; the slots hold no thread's data.
unsafe impl Send for Table {}
// SAFETY: through `&Table` only atomics are reached.
unsafe impl Sync for Table {}

/// Looks entries up. Any thread's.
pub struct Reader<'b, T> {
    current: &'b AtomicPtr<Slots>,
    epoch: u64,
    _entries: PhantomData<&'b T>,
}

/// Stores entries. There is one per epoch.
pub struct Writer<'b, T> {
    tables: &'b mut Vec<*mut Slots>,
    current: &'b AtomicPtr<Slots>,
    epoch: u64,
    /// How many more fingerprints fit: half of the slots stay empty, as probes end there.
    room: usize,
    /// Invariant in `'b`: entries go in for `'b` and come out for `'b`.
    _entries: PhantomData<fn(&'b T) -> &'b T>,
}

// SAFETY: a writer reaches atomics and owned boxes, and hands out `&T` (hence `T: Sync`).
unsafe impl<T: Sync> Send for Writer<'_, T> {}

/// Where a fingerprint is, or would go. Valid until the next `store` or `grow`.
#[derive(Debug)]
pub struct Place<'b, T> {
    index: usize,
    found: bool,
    /// What is stored there.
    pub entry: Option<&'b T>,
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        for table in self.tables.drain(..) {
            // SAFETY: every pointer in `tables` came from `Box::into_raw` and is dropped once; `&mut self` means that
            // no reader is left.
            drop(unsafe { Box::from_raw(table) });
        }
    }
}

impl Table {
    /// An empty table.
    pub fn new() -> Self {
        let first = Slots::boxed(LEAST_SLOTS);
        Table { tables: vec![first], current: AtomicPtr::new(first), epoch: 0 }
    }

    /// Starts an epoch that expects about `expected` fingerprints: everything stored before is gone.
    pub fn begin<'b, T>(&'b mut self, expected: usize) -> (Reader<'b, T>, Writer<'b, T>) {
        let sparse = expected.saturating_mul(SPARSE_SLOTS_EACH).min(MOST_SPARSE);
        let wanted = expected.saturating_mul(SLOTS_EACH).max(sparse).next_power_of_two().max(LEAST_SLOTS);
        let &newest = self.tables.last().expect("a table from its making to its end");
        let last = self.tables.len() - 1;
        for older in self.tables.drain(..last) {
            // SAFETY: from `Box::into_raw`, removed from the list here; `&mut self` means that no reader is left.
            drop(unsafe { Box::from_raw(older) });
        }
        // SAFETY: tables in the list are alive, and `&mut self` means that nobody else reaches this one.
        let slots = unsafe { &mut *newest };
        let table = if slots.slots.len() < wanted {
            let larger = Slots::boxed(wanted);
            self.tables[0] = larger;
            // SAFETY: as for the older ones.
            drop(unsafe { Box::from_raw(newest) });
            larger
        } else {
            slots.mask = wanted - 1;
            newest
        };
        self.start_epoch(table);
        // Relaxed: readers are handed to other threads by something that orders it (the gate).
        self.current.store(table, Ordering::Relaxed);
        let Table { tables, current, epoch } = self;
        let (current, epoch) = (&*current, *epoch);
        let reader = Reader { current, epoch, _entries: PhantomData };
        (reader, Writer { tables, current, epoch, room: wanted / 2, _entries: PhantomData })
    }

    /// Numbers the epoch; when the numbers are used up, clears the tags once.
    fn start_epoch(&mut self, table: *mut Slots) {
        self.epoch += 1;
        if self.epoch > EPOCH_MASK {
            self.epoch = 1;
            // SAFETY: `table` is the only one of `tables`, alive, and `&mut self` means that nobody else reaches it.
            let slots = unsafe { &*table };
            for slot in &slots.slots {
                slot.tag.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Makes the next epoch but one wrap; for tests of the wrap.
    #[cfg(any(test, loom, shuttle, feature = "internals"))]
    pub fn skip_to_last_epoch(&mut self) {
        self.epoch = EPOCH_MASK - 1;
    }
}

fn tag(fingerprint: u64, epoch: u64) -> u64 {
    (fingerprint & !EPOCH_MASK) | epoch
}

/// The entry in `slot`.
///
/// # Safety
///
/// This thread has found the slot by a tag of the epoch of a [`Writer<'b, T>`], which has not ended.
#[inline]
unsafe fn entry<'b, T>(slot: &Slot) -> &'b T {
    // Acquire: pairs with the writer's Release store of a newer entry.
    let entry = slot.entry.load(Ordering::Acquire);
    // SAFETY: the entry is stored before the tag by which the caller found it; within the epoch only
    // `Writer<'b, T>::store` stores entries, from `&'b T`.
    unsafe { &*entry.cast::<T>() }
}

impl<T> Clone for Reader<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Reader<'_, T> {}

impl<'b, T> Reader<'b, T> {
    /// The newest entry stored under `fingerprint`.
    #[inline]
    pub fn get(&self, fingerprint: u64) -> Option<&'b T> {
        // Acquire: pairs with `grow`, so that the table's contents are visible.
        let table = self.current.load(Ordering::Acquire);
        // SAFETY: tables of this epoch live until the next `begin`, which needs 'b to have ended.
        let table = unsafe { &*table };
        let (index, found) = table.probe(fingerprint, tag(fingerprint, self.epoch));
        found.then(|| {
            // SAFETY: found by the tag of this reader's epoch, whose writer `begin` made for the same 'b and T.
            unsafe { entry(&table.slots[index]) }
        })
    }
}

impl<'b, T> Writer<'b, T> {
    fn slots(&self) -> &Slots {
        // Relaxed: only the writer moves it.
        let table = self.current.load(Ordering::Relaxed);
        // SAFETY: tables of this epoch live until the next `begin`, which needs 'b to have ended.
        unsafe { &*table }
    }

    /// Where `fingerprint` is, or would go.
    #[inline]
    pub fn find(&self, fingerprint: u64) -> Place<'b, T> {
        let slots = self.slots();
        let (index, found) = slots.probe(fingerprint, tag(fingerprint, self.epoch));
        let entry = found.then(|| {
            // SAFETY: found by the tag of this writer's epoch.
            unsafe { entry(&slots.slots[index]) }
        });
        Place { index, found, entry }
    }

    /// Stores `value` as the newest entry of `fingerprint`, at the place that `find` returned for it.
    ///
    /// # Panics
    ///
    /// If the table [must grow](Writer::must_grow) first, or the place is another fingerprint's.
    #[inline]
    pub fn store(&mut self, place: Place<'b, T>, fingerprint: u64, value: &'b T) {
        let slot = &self.slots().slots[place.index];
        let value = ptr::from_ref(value).cast_mut().cast::<()>();
        let tag = tag(fingerprint, self.epoch);
        if place.found {
            assert_eq!(slot.tag.load(Ordering::Relaxed), tag, "a place of another fingerprint");
            // Release: publishes the entry to readers that find the tag.
            slot.entry.store(value, Ordering::Release);
        } else {
            assert!(!self.must_grow(), "an empty slot must remain, or probes never end");
            // Relaxed, then Release: whoever sees the tag sees the entry.
            slot.entry.store(value, Ordering::Relaxed);
            slot.tag.store(tag, Ordering::Release);
            self.room -= 1;
        }
    }

    /// True if a new fingerprint needs a larger table first.
    #[inline]
    pub fn must_grow(&self) -> bool {
        self.room == 0
    }

    /// Moves the entries of `fingerprints`, which must be all that were stored, to a table of twice the size.
    pub fn grow(&mut self, fingerprints: impl Iterator<Item = u64>) {
        let old = self.slots();
        let table = Slots::boxed((old.mask + 1) * 2);
        let mut room = old.mask + 1;
        // SAFETY: just made, and reached by nobody else yet.
        let new = unsafe { &*table };
        for fingerprint in fingerprints {
            let tag = tag(fingerprint, self.epoch);
            let (from, found) = old.probe(fingerprint, tag);
            debug_assert!(found, "only stored fingerprints move");
            let (to, already) = new.probe(fingerprint, tag);
            if found && !already {
                let entry = old.slots[from].entry.load(Ordering::Relaxed);
                new.slots[to].entry.store(entry, Ordering::Relaxed);
                new.slots[to].tag.store(tag, Ordering::Relaxed);
                room -= 1;
            }
        }
        self.room = room;
        self.tables.push(table);
        // Release: publishes the new table's contents. Readers still in the old one find what they may know of.
        self.current.store(table, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn put<'b>(writer: &mut Writer<'b, u64>, all: &mut Vec<u64>, fingerprint: u64, value: &'b u64) {
        if writer.must_grow() {
            writer.grow(all.iter().copied());
        }
        let place = writer.find(fingerprint);
        if place.entry.is_none() {
            all.push(fingerprint);
        }
        writer.store(place, fingerprint, value);
    }

    #[test]
    fn an_epoch_forgets_the_one_before_also_when_the_numbers_wrap() {
        let mut table = Table::new();
        let values: Vec<u64> = (0..4).collect();
        table.skip_to_last_epoch();
        for (round, value) in values.iter().enumerate() {
            let (reader, mut writer) = table.begin::<u64>(4);
            assert_eq!(reader.get(round as u64 + (1 << 20)), None, "round {round}");
            // Each round stores what the next one must not find.
            let fingerprint = round as u64 + 1 + (1 << 20);
            let place = writer.find(fingerprint);
            writer.store(place, fingerprint, value);
            assert_eq!(reader.get(fingerprint), Some(value));
        }
    }

    #[test]
    fn when_the_numbers_wrap_slots_are_forgotten_that_small_batches_do_not_reach() {
        let mut table = Table::new();
        let value = 7;
        table.begin::<u64>(1);
        // What the second epoch stores in a large table, the second after the wrap must not find.
        let (_, mut writer) = table.begin::<u64>(1 << 12);
        for fingerprint in (1..=1u64 << 12).map(|n| n << EPOCH_BITS) {
            let place = writer.find(fingerprint);
            writer.store(place, fingerprint, &value);
        }
        table.skip_to_last_epoch();
        table.begin::<u64>(1);
        table.begin::<u64>(1);
        let (reader, _) = table.begin::<u64>(1 << 12);
        assert_eq!(reader.epoch, 2);
        assert!((1..=1u64 << 12).all(|n| reader.get(n << EPOCH_BITS).is_none()));
    }

    #[test]
    fn growth_keeps_all_entries_and_newer_ones_win() {
        let mut table = Table::new();
        let values: Vec<u64> = (0..5000).collect();
        let (reader, mut writer) = table.begin::<u64>(1);
        let mut all = Vec::new();
        for value in &values {
            put(&mut writer, &mut all, value << 16, value);
        }
        put(&mut writer, &mut all, 7 << 16, &values[0]);
        for value in &values {
            let expected = if *value == 7 { 0 } else { *value };
            assert_eq!(reader.get(value << 16), Some(&expected));
        }
        assert_eq!(reader.get(1 << 60), None);
    }
}

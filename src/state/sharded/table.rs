//! A hash table of 8-byte slots over one byte buffer.
//!
//! ```text
//! slots   [ tag:24 | record:40 ] ...    open addressing, linear probing, 0 = free, at most 3/4 full
//!                        |
//! data    ... [ record ] [ record ] ...                             8-byte aligned (record.rs)
//! ```
//!
//! A read is one look at the slots and one at the record: the tag is the top 24 bits of the hash, so nearly every
//! other key is ruled out without touching its record. Copying a table is two copies of plain memory, and there is no
//! allocation per key.
//!
//! Values that fit their room are overwritten in place. Those that do not are appended, and the old record becomes
//! dead; when more than half of the buffer is dead, the living records are moved together inside the same buffer. A
//! workload whose values keep their sizes, even one that deletes and inserts, thus stops allocating after a while.
//!
//! A slot's position follows from the top bits of the hash. As long as a table has at most 2^24 slots these are in
//! the tag, so that growing and deleting need not look at any record; a larger one hashes its keys again.

use ahash::RandomState;

use super::key::Key;
use super::record::{DEAD, GRAIN, HEADER, Header, length, record_size};
use crate::raw::prefetch::{CACHE_LINE, prefetch};

/// Bits of a slot that hold the record's position, in grains, plus one.
const POSITION_BITS: u32 = 40;
const POSITION_MASK: u64 = (1 << POSITION_BITS) - 1;
/// The largest table whose slots can be placed by their tags alone. Small in tests, so that they see both ways.
const TAGS_SUFFICE: usize = if cfg!(test) { 1 << 10 } else { 1 << (64 - POSITION_BITS) };
/// So many cache lines of a record are asked for; the rest of a long one is fetched by the processor in order.
const PREFETCHED: usize = 2;
/// Slots of the smallest table.
const MIN_SLOTS: usize = 8;
/// A value that shrinks to less than a quarter of its room gives the room back if that is at least this much. Below,
/// values that change between two sizes should stay in place.
const CUT: usize = 4096;

/// See the module's documentation.
// The order of the fields keeps what a read needs in one cache line.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Table {
    slots: Vec<u64>,
    data: Vec<u8>,
    /// Keys present.
    len: usize,
    /// Bytes of `data` in dead records.
    dead: usize,
}

/// Where a key was found. Good until the table changes.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    slot: usize,
    at: usize,
}

/// Where the record of a taken slot starts.
#[inline]
fn position(word: u64) -> usize {
    ((word & POSITION_MASK) as usize - 1) * GRAIN
}

impl Table {
    /// Keys present.
    pub fn len(&self) -> usize {
        self.len
    }

    /// An empty table with room for so many bytes of records, and so many keys.
    pub fn with_capacity(bytes: usize, keys: usize) -> Self {
        let slots = (keys * 4).div_ceil(3).next_power_of_two().max(MIN_SLOTS);
        Table { slots: vec![0; slots], data: Vec::with_capacity(bytes), ..Table::default() }
    }

    /// A copy to be written to: with room to append so many bytes, and some more.
    pub fn copy(&self, room: usize) -> Self {
        let more = room.max(self.data.len().min(1 << 16) / 16) + 64;
        let mut data = Vec::with_capacity(self.data.len() + more);
        data.extend_from_slice(&self.data);
        Table { slots: self.slots.clone(), data, len: self.len, dead: self.dead }
    }

    /// Bytes of the records of all keys.
    pub fn size(&self) -> usize {
        self.data.len() - self.dead
    }

    /// Bytes of a key's record; none if it is absent.
    pub fn size_of(&self, key: Key<'_>) -> usize {
        self.locate(key).map_or(0, |found| self.header(found).record())
    }

    /// The key's place, if it is present. Expected O(1).
    #[inline]
    pub fn locate(&self, key: Key<'_>) -> Option<Found> {
        if self.slots.is_empty() {
            return None;
        }
        let mask = self.slots.len() - 1;
        let mut slot = self.home(key.hash);
        loop {
            let word = self.slots[slot & mask];
            if word == 0 {
                return None;
            }
            if (word ^ key.hash) >> POSITION_BITS == 0 {
                let at = position(word);
                let header = Header::read(&self.data, at);
                let bytes = &self.data[at + HEADER..at + HEADER + header.key];
                if header.column == key.column && bytes == key.bytes {
                    return Some(Found { slot: slot & mask, at });
                }
            }
            slot += 1;
        }
    }

    #[inline]
    fn header(&self, found: Found) -> Header {
        Header::read(&self.data, found.at)
    }

    /// The value at `found`.
    #[inline]
    pub fn value(&self, found: Found) -> &[u8] {
        let Header { key, value, .. } = self.header(found);
        let start = found.at + HEADER + key;
        &self.data[start..start + value]
    }

    /// The value of a key.
    #[inline]
    pub fn get(&self, key: Key<'_>) -> Option<&[u8]> {
        self.locate(key).map(|found| self.value(found))
    }

    /// Asks for the slot where the search for a key begins.
    #[inline]
    pub fn prefetch_slot(&self, hash: u64) {
        if !self.slots.is_empty() {
            prefetch(&self.slots[self.home(hash)]);
        }
    }

    /// Asks for the record of a key, if it is present; seldom, for that of another. `ask` asks for a cache line.
    #[inline]
    pub fn prefetch_record(&self, hash: u64, ask: impl Fn(&u8)) {
        if self.slots.is_empty() {
            return;
        }
        let mask = self.slots.len() - 1;
        let mut slot = self.home(hash);
        loop {
            match self.slots[slot & mask] {
                0 => return,
                word if (word ^ hash) >> POSITION_BITS == 0 => {
                    let record = &self.data[position(word)..];
                    return record.iter().step_by(CACHE_LINE).take(PREFETCHED).for_each(ask);
                }
                _ => slot += 1,
            }
        }
    }

    /// Sets a key. Expected O(1), amortized.
    #[inline]
    pub fn set(&mut self, hasher: &RandomState, key: Key<'_>, value: &[u8]) {
        match self.locate(key) {
            Some(found) => self.overwrite(hasher, found, key, value),
            None => self.insert(hasher, key, value),
        }
    }

    /// Sets the key that was found at `found`, in place if the value fits.
    #[inline]
    pub fn overwrite(&mut self, hasher: &RandomState, found: Found, key: Key<'_>, value: &[u8]) {
        let Header { value: old_len, room, .. } = self.header(found);
        if value.len() > room {
            self.unlink(hasher, found);
            return self.insert(hasher, key, value);
        }
        let start = found.at + HEADER + key.bytes.len();
        self.data[start..start + value.len()].copy_from_slice(value);
        if value.len() != old_len {
            self.resize(hasher, found, value.len());
        }
    }

    /// Notes a new length of a value that was overwritten in place.
    #[cold]
    fn resize(&mut self, hasher: &RandomState, found: Found, value: usize) {
        let old = self.header(found);
        let mut new = Header { value, ..old };
        if value < old.room / 4 && old.room - value >= CUT {
            // The tail becomes a dead record of its own, so that walks over the buffer stay simple.
            new.room = (HEADER + old.key + value).next_multiple_of(GRAIN) - HEADER - old.key;
            let tail = old.record() - new.record();
            Header { column: DEAD, key: 0, value: 0, room: tail - HEADER }
                .write(&mut self.data, found.at + new.record());
            self.dead += tail;
        }
        new.write(&mut self.data, found.at);
        self.compact_if_worthwhile(hasher);
    }

    /// Adds a key that is known to be absent.
    pub fn insert(&mut self, hasher: &RandomState, key: Key<'_>, value: &[u8]) {
        let Key { hash, column, bytes } = key;
        length(bytes.len());
        length(value.len());
        let record = record_size(bytes, value);
        let room = (record - HEADER - bytes.len()).min(u32::MAX as usize);
        self.make_room(hasher, record);
        let at = self.data.len();
        self.data.resize(at + HEADER, 0);
        Header { column, key: bytes.len(), value: value.len(), room }.write(&mut self.data, at);
        self.data.extend_from_slice(bytes);
        self.data.extend_from_slice(value);
        self.data.resize(at + record, 0);
        self.len += 1;
        self.link(hash, at);
    }

    /// Removes the key that was found at `found`.
    pub fn remove(&mut self, hasher: &RandomState, found: Found) {
        self.unlink(hasher, found);
        if self.len == 0 {
            self.data.clear();
            self.dead = 0;
        }
        self.compact_if_worthwhile(hasher);
    }

    /// All entries `(column, key, value)`, in the order of the buffer, which depends on the history.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &[u8], &[u8])> {
        let mut at = 0;
        std::iter::from_fn(move || {
            while at < self.data.len() {
                let header = Header::read(&self.data, at);
                let start = at + HEADER;
                at += header.record();
                if header.column != DEAD {
                    let (key, value) =
                        self.data[start..start + header.key + header.value].split_at(header.key);
                    return Some((header.column, key, value));
                }
            }
            None
        })
    }

    /// Makes sure that `record` more bytes and one more key fit.
    fn make_room(&mut self, hasher: &RandomState, record: usize) {
        if self.data.capacity() - self.data.len() < record {
            // A quarter is enough to pay for moving the rest, and saves the growth.
            if self.dead > 0 && self.dead >= self.data.len() / 4 {
                self.compact(hasher);
            }
            if self.data.capacity() - self.data.len() < record {
                self.data.reserve_exact(record.max(self.data.len() / 2));
            }
            // Positions have 40 bits of 8 bytes each.
            assert!(self.data.capacity() < 1 << (POSITION_BITS + 2), "a table holds at most 4 TiB");
        }
        if (self.len + 1) * 4 > self.slots.len() * 3 {
            self.grow(hasher);
        }
    }

    /// Doubles the slots.
    #[cold]
    fn grow(&mut self, hasher: &RandomState) {
        let old = std::mem::take(&mut self.slots);
        self.slots = vec![0; (old.len() * 2).max(MIN_SLOTS)];
        for word in old.into_iter().filter(|&word| word != 0) {
            let hash = self.hash_of(hasher, word);
            self.link(hash, position(word));
        }
    }

    /// The hash of the key that a slot holds; the tag alone if that is enough to place it.
    fn hash_of(&self, hasher: &RandomState, word: u64) -> u64 {
        if self.slots.len() <= TAGS_SUFFICE {
            return word & !POSITION_MASK;
        }
        let at = position(word);
        let header = Header::read(&self.data, at);
        Key::new(hasher, header.column, &self.data[at + HEADER..at + HEADER + header.key]).hash
    }

    /// The slot where the search for a hash starts.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        // At least `MIN_SLOTS`, so the shift is below 64.
        (hash >> (64 - self.slots.len().trailing_zeros())) as usize
    }

    /// Enters a record into the slots.
    fn link(&mut self, hash: u64, at: usize) {
        let mask = self.slots.len() - 1;
        let mut slot = self.home(hash);
        while self.slots[slot] != 0 {
            slot = (slot + 1) & mask;
        }
        self.slots[slot] = (hash & !POSITION_MASK) | ((at / GRAIN) as u64 + 1);
    }

    /// Takes a record out of the slots and marks it dead.
    fn unlink(&mut self, hasher: &RandomState, found: Found) {
        let record = self.header(found).record();
        self.data[found.at..found.at + 4].copy_from_slice(&DEAD.to_le_bytes());
        self.dead += record;
        self.len -= 1;
        self.close_gap(hasher, found.slot);
    }

    /// Empties a slot and moves later ones of its run up, so that searches need no tombstones.
    fn close_gap(&mut self, hasher: &RandomState, mut gap: usize) {
        let mask = self.slots.len() - 1;
        let mut slot = gap;
        loop {
            slot = (slot + 1) & mask;
            let word = self.slots[slot];
            if word == 0 {
                break;
            }
            let home = self.home_of(hasher, word);
            // It may move to the gap unless its home lies between the two.
            if slot.wrapping_sub(home) & mask >= slot.wrapping_sub(gap) & mask {
                self.slots[gap] = word;
                gap = slot;
            }
        }
        self.slots[gap] = 0;
    }

    /// Where the search for the key in a taken slot starts.
    #[inline]
    fn home_of(&self, hasher: &RandomState, word: u64) -> usize {
        self.home(self.hash_of(hasher, word))
    }

    fn compact_if_worthwhile(&mut self, hasher: &RandomState) {
        if self.dead * 2 > self.data.len() {
            self.compact(hasher);
        }
    }

    /// Moves the living records together, in the same buffer, and enters them into the slots again.
    #[cold]
    fn compact(&mut self, hasher: &RandomState) {
        self.slots.fill(0);
        let (mut from, mut to) = (0, 0);
        while from < self.data.len() {
            let header = Header::read(&self.data, from);
            let record = header.record();
            if header.column != DEAD {
                self.data.copy_within(from..from + record, to);
                let key = &self.data[to + HEADER..to + HEADER + header.key];
                self.link(Key::new(hasher, header.column, key).hash, to);
                to += record;
            }
            from += record;
        }
        self.data.truncate(to);
        self.dead = 0;
        // One huge value that has gone should not hold its memory for ever; a table that empties and fills up in
        // turn should not allocate. The factor decides between them.
        if self.data.capacity() > 16 * self.data.len() + (1 << 16) {
            self.data.shrink_to(2 * self.data.len());
        }
    }
}

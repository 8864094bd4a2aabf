//! One run of one operation.
//!
//! An [`ExecutionUnit`] is a [`CRUDState`] over the state and the overlay. It reads its own writes first, then the
//! newest retired version below its snapshot position, then the state before the batch; it never shows the
//! application two moments at once. It logs what it observed and keeps what it wrote; nothing that it does is visible
//! to anybody until it is retired.
//!
//! ```text
//!   read --> own writes? --> overlay: newest version < snapshot? --> state
//!                              \--> log (fingerprint, version seen)
//!   write -> record in the thread's arena
//! ```

pub mod bytes;
pub mod reads;
pub mod set;
pub mod writes;

use std::hash::{BuildHasher, Hasher};

use crate::arena::Workspace;
use crate::state::{CRUDState, MergeOperator};
use crate::sync::RefCell;
use bytes::Bytes;
use reads::{Read, ReadSet};
use writes::{Record, WriteSet, Written};

/// Makes 64-bit fingerprints of (column, key), with random keys of this process: clients cannot choose collisions.
#[derive(Clone, Debug)]
pub struct Fingerprints {
    hasher: ahash::RandomState,
    mask: u64,
}

impl Fingerprints {
    /// Randomly keyed fingerprints.
    pub fn new() -> Self {
        // Loom replays schedules, so models need the same fingerprints each time.
        let hasher =
            if cfg!(loom) { ahash::RandomState::with_seeds(1, 2, 3, 4) } else { ahash::RandomState::new() };
        Fingerprints { hasher, mask: u64::MAX }
    }

    /// Fingerprints of which only the bits in `mask` differ: for tests of what happens when keys share one.
    #[cfg(any(test, loom, feature = "internals"))]
    pub fn with_mask(mask: u64) -> Self {
        Fingerprints { mask, ..Self::new() }
    }

    /// The fingerprint of `key` in `column`.
    #[inline]
    pub fn of(&self, column: &str, key: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(column.as_bytes());
        hasher.write(key);
        // The lengths keep ("ab", "c") and ("a", "bc") apart more often than not; equality is compared in full.
        hasher.finish() & self.mask
    }
}

impl Default for Fingerprints {
    fn default() -> Self {
        Self::new()
    }
}

/// Where a unit finds the versions that other units of its batch have published.
pub trait Versions<'b>: Copy + Send {
    /// The newest version under this fingerprint, of whatever key and position.
    fn newest(&self, fingerprint: u64) -> Option<&'b Record<'b>>;
}

/// What a unit observed and wrote, for retirement. It stays where it was filled, in the thread's arena.
#[derive(Default)]
pub struct Outcome<'b> {
    /// What was observed, if the unit ran ahead of its turn.
    pub reads: ReadSet<'b>,
    /// What was written.
    pub writes: WriteSet<'b>,
}

impl Outcome<'_> {
    /// As if nothing had been run.
    pub fn clear(&mut self) {
        self.reads.clear();
        self.writes.clear();
    }
}

/// One run of one operation. See the module's documentation.
pub struct ExecutionUnit<'u, 'b, S, V> {
    state: &'u S,
    versions: V,
    fingerprints: &'u Fingerprints,
    memory: &'u mut Workspace<'b>,
    position: u32,
    snapshot: u32,
    reads: RefCell<&'u mut ReadSet<'b>>,
    writes: &'u mut WriteSet<'b>,
}

impl<'u, 'b, S: CRUDState, V: Versions<'b>> ExecutionUnit<'u, 'b, S, V> {
    /// A run of the operation at `position`, on the state after the first `snapshot` operations of the batch. With
    /// `snapshot == position` it runs at its turn: what it observes is final, and is not logged. What it does is added
    /// to `outcome`, which is empty.
    pub fn new(
        state: &'u S,
        versions: V,
        fingerprints: &'u Fingerprints,
        memory: &'u mut Workspace<'b>,
        outcome: &'u mut Outcome<'b>,
        position: u32,
        snapshot: u32,
    ) -> Self {
        debug_assert!(snapshot <= position);
        ExecutionUnit {
            state,
            versions,
            fingerprints,
            memory,
            position,
            snapshot,
            reads: RefCell::new(&mut outcome.reads),
            writes: &mut outcome.writes,
        }
    }

    /// Observes the newest version of a key that this unit has not written, and passes its value to `f`.
    #[inline]
    fn observe<R>(
        &self,
        fingerprint: u64,
        column: &str,
        key: &[u8],
        f: impl FnOnce(Option<&[u8]>) -> R,
    ) -> R {
        let newest = self.versions.newest(fingerprint);
        let seen = newest.and_then(|version| version.newest_before(self.snapshot));
        if self.snapshot < self.position {
            let mut reads = self.reads.borrow_mut();
            if reads.find(fingerprint, |_| true).is_none() {
                reads.push(&self.memory.arena, Read::new(fingerprint, seen));
            }
        }
        match seen.and_then(|version| version.newest_of(column, key)).map(|version| &version.written) {
            None => self.state.read_with(column, key, f),
            Some(Written::Value(value)) => f(Some(value.get())),
            Some(Written::Tombstone) => f(None),
            Some(Written::Operand(operand)) => {
                let operator = self.state.merge_operator(column);
                let merged = self.memory.build(|merged| {
                    self.state.read_with(column, key, |value| operator.fold(value, operand.get(), merged));
                });
                f(Some(merged))
            }
        }
    }

    /// The position in the write set of this unit's own write to a key.
    #[inline]
    fn own(&self, fingerprint: u64, column: &str, key: &[u8]) -> Option<usize> {
        self.writes.find(fingerprint, |record| record.is_of(column, key))
    }

    /// Passes the value that an operation sees now to `f`.
    #[inline]
    fn see<R>(&self, fingerprint: u64, column: &str, key: &[u8], f: impl FnOnce(Option<&[u8]>) -> R) -> R {
        let Some(position) = self.own(fingerprint, column, key) else {
            return self.observe(fingerprint, column, key, f);
        };
        match &self.writes.get(position).written {
            Written::Value(value) => f(Some(value.get())),
            Written::Tombstone => f(None),
            Written::Operand(operand) => {
                let operator = self.state.merge_operator(column);
                let merged = self.observe(fingerprint, column, key, |value| {
                    self.memory.build(|merged| operator.fold(value, operand.get(), merged))
                });
                f(Some(merged))
            }
        }
    }

    /// Sets this unit's write to a key.
    #[inline]
    fn write(&mut self, fingerprint: u64, column: &str, key: &[u8], written: Written<'b>) {
        match self.own(fingerprint, column, key) {
            Some(position) => self.writes.get_mut(position).written = written,
            None => {
                let arena = &self.memory.arena;
                let record = arena.alloc(Record {
                    fingerprint,
                    position: self.position,
                    rank: 0,
                    column: self.memory.column(column),
                    key: Bytes::copy(arena, key),
                    written,
                    previous: None,
                });
                self.writes.push(arena, record);
            }
        }
    }

    #[inline]
    fn value(&self, value: &[u8]) -> Written<'b> {
        Written::Value(Bytes::copy(&self.memory.arena, value))
    }
}

impl<'b, S: CRUDState + Sync, V: Versions<'b>> CRUDState for ExecutionUnit<'_, 'b, S, V> {
    fn read(&self, column: &str, key: &[u8]) -> Option<Vec<u8>> {
        self.read_with(column, key, |value| value.map(<[u8]>::to_vec))
    }

    fn create(&mut self, column: &str, key: &[u8], value: &[u8]) -> bool {
        let fingerprint = self.fingerprints.of(column, key);
        let absent = self.see(fingerprint, column, key, |present| present.is_none());
        if absent {
            let value = self.value(value);
            self.write(fingerprint, column, key, value);
        }
        absent
    }

    fn update(&mut self, column: &str, key: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        let fingerprint = self.fingerprints.of(column, key);
        let previous = self.see(fingerprint, column, key, |value| value.map(<[u8]>::to_vec));
        let value = self.value(value);
        self.write(fingerprint, column, key, value);
        previous
    }

    fn delete(&mut self, column: &str, key: &[u8]) -> Option<Vec<u8>> {
        let fingerprint = self.fingerprints.of(column, key);
        let previous = self.see(fingerprint, column, key, |value| value.map(<[u8]>::to_vec));
        // What is absent needs no removal; the observation alone is checked.
        if previous.is_some() {
            self.write(fingerprint, column, key, Written::Tombstone);
        }
        previous
    }

    #[inline]
    fn read_with<R>(&self, column: &str, key: &[u8], f: impl FnOnce(Option<&[u8]>) -> R) -> R {
        self.see(self.fingerprints.of(column, key), column, key, f)
    }

    #[inline]
    fn put(&mut self, column: &str, key: &[u8], value: &[u8]) {
        let value = self.value(value);
        self.write(self.fingerprints.of(column, key), column, key, value);
    }

    fn remove(&mut self, column: &str, key: &[u8]) {
        self.write(self.fingerprints.of(column, key), column, key, Written::Tombstone);
    }

    fn merge_operator(&self, column: &str) -> MergeOperator {
        self.state.merge_operator(column)
    }

    fn merge(&mut self, column: &str, key: &[u8], operand: &[u8]) {
        let fingerprint = self.fingerprints.of(column, key);
        let own = self.own(fingerprint, column, key).map(|position| self.writes.get(position).written);
        let written = match own {
            None => Written::Operand(Bytes::copy(&self.memory.arena, operand)),
            Some(before) => {
                let operator = self.state.merge_operator(column);
                before.fold(operator, operand, self.memory)
            }
        };
        self.write(fingerprint, column, key, written);
    }
}

impl<'b> Written<'b> {
    /// What is left when `operand` is merged into what `self` left.
    pub fn fold(self, operator: MergeOperator, operand: &[u8], memory: &Workspace<'b>) -> Written<'b> {
        let value = match &self {
            Written::Value(value) | Written::Operand(value) => Some(value.get()),
            Written::Tombstone => None,
        };
        let folded = memory.with_scratch(|folded| operator.fold(value, operand, folded), Bytes::copy);
        if matches!(self, Written::Operand(_)) { Written::Operand(folded) } else { Written::Value(folded) }
    }
}

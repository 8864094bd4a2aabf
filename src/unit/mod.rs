//! One run of one operation.
//!
//! An [`ExecutionUnit`] is a [`CRUDState`] over the state and the overlay. It reads its own writes first, then the
//! newest retired version below its snapshot position, then the state before the batch; it never shows the
//! application two moments at once. It logs what it observed and keeps what it wrote. Where a key was written since
//! that moment, it moves on to a newer one if it can (`moment.rs`).
//!
//! ```text
//!   read --> own writes? --> overlay: newest version < snapshot? --> state
//!                              \--> log (fingerprint)
//!   write -> record in the thread's arena
//! ```
//!
//! # Forwarding
//!
//! An application may declare that it ends, without harm, on any values
//! ([`FORWARDING`](crate::app::ScalableApp::FORWARDING)). Its units read the newest value below their position, also that
//! of a finished unit that has not retired yet, and log which record they saw. Such a unit may see values that never stood
//! together; then retirement finds one of them replaced, and replays it.
//!
//! # Abandoned units
//!
//! What an application sees ahead of its turn is right, but old; code that waits for a value to change would wait for
//! ever. So a unit may take a bounded number of steps (calls of its state) ahead of its turn. Beyond that it is abandoned:
//! it unwinds, and is replayed at its turn, without a bound. It goes on instead where unwinding would end the process: where
//! panics abort, and in destructors that run because the thread unwinds already. The application may catch the unwinding
//! and reply all the same; so that it happened is kept in the outcome.

pub mod bytes;
mod fingerprint;
mod moment;
pub mod reads;
pub mod set;
mod surroundings;
pub mod version;
pub mod writes;

use crate::arena::Workspace;
use crate::state::{CRUDState, MergeOperator};
use crate::sync::{Cell, RefCell};
use bytes::Bytes;
pub use fingerprint::Fingerprints;
use moment::Moment;
use reads::{Read, ReadSet};
pub use surroundings::Surroundings;
use version::Version;
use writes::{Content, Kind, Of, Record, WriteSet, Written};

/// Where a unit finds what other units of its batch have written.
pub trait Versions<'b>: Copy + Send {
    /// The newest version under this fingerprint, of whatever key and position.
    fn newest(&self, fingerprint: u64) -> Option<&'b Version<'b>>;

    /// How many units have retired: the versions of all of them are found.
    fn retired(&self) -> u32;

    /// True if units read the newest value instead of one moment.
    fn forwards(&self) -> bool;

    /// The write to `key` of the last finished unit in `after..before`, if it is known and has not retired.
    fn forwarded(
        &self,
        fingerprint: u64,
        column: &str,
        key: &[u8],
        range: std::ops::Range<u32>,
    ) -> Option<&'b Record<'b>>;
}

/// What a unit observed and wrote, for retirement. It stays where it was filled, in the thread's arena.
#[derive(Default)]
pub struct Outcome<'b> {
    /// What was observed, if the unit ran ahead of its turn.
    pub reads: ReadSet<'b>,
    /// What was written.
    pub writes: WriteSet<'b>,
    /// The moment that was observed: the state after so many operations.
    pub snapshot: u32,
    /// How often the unit was run before.
    pub runs: u32,
    /// How long the operation takes is known, or does not matter.
    pub timed: bool,
    abandoned: bool,
}

impl Outcome<'_> {
    /// Forgets what was observed and written.
    pub fn clear(&mut self) {
        self.runs += 1;
        self.reads.clear();
        self.writes.clear();
        self.abandoned = false;
    }

    /// True if the unit was abandoned: whatever it has done, it has not run to its end.
    #[inline]
    pub fn is_abandoned(&self) -> bool {
        self.abandoned
    }
}

/// What a unit unwinds with when it is abandoned.
struct Abandoned;

/// One run of one operation. See the module's documentation.
pub struct ExecutionUnit<'u, 'b, S, V> {
    around: Surroundings<'u, S, V>,
    memory: &'u mut Workspace<'b>,
    position: u32,
    moment: Moment<'u>,
    /// Runs ahead of its turn: what it observes is logged.
    ahead: bool,
    /// Steps left ahead of its turn.
    steps: Cell<u32>,
    abandoned: RefCell<&'u mut bool>,
    reads: RefCell<&'u mut ReadSet<'b>>,
    writes: &'u mut WriteSet<'b>,
}

impl<'u, 'b, S: CRUDState, V: Versions<'b>> ExecutionUnit<'u, 'b, S, V> {
    /// A run of the operation at `position`, on the state after the first `snapshot` operations of the batch. With
    /// `snapshot == position` it runs at its turn: what it observes is final, and is not logged. What it does is added
    /// to `outcome`, which is empty.
    pub fn new(
        around: Surroundings<'u, S, V>,
        memory: &'u mut Workspace<'b>,
        outcome: &'u mut Outcome<'b>,
        position: u32,
        snapshot: u32,
    ) -> Self {
        debug_assert!(snapshot <= position);
        let ahead = snapshot < position;
        ExecutionUnit {
            around,
            memory,
            position,
            moment: Moment::new(snapshot, &mut outcome.snapshot),
            ahead,
            steps: Cell::new(around.steps),
            abandoned: RefCell::new(&mut outcome.abandoned),
            reads: RefCell::new(&mut outcome.reads),
            writes: &mut outcome.writes,
        }
    }

    /// Ends the unit: it unwinds, and is replayed. If the application goes on instead, it has as many steps again.
    #[cold]
    fn abandon(&self) -> ! {
        **self.abandoned.borrow_mut() = true;
        self.steps.set(self.around.steps);
        // Not `panic!`: nothing is wrong, and no panic hook should say so.
        std::panic::resume_unwind(Box::new(Abandoned))
    }

    /// Counts a step, and gives the key's fingerprint.
    #[inline]
    fn step(&self, column: &str, key: &[u8]) -> u64 {
        if self.ahead {
            match self.steps.get().checked_sub(1) {
                Some(left) => self.steps.set(left),
                // Unwinding would end the process.
                None if cfg!(panic = "abort") || std::thread::panicking() => (),
                None => self.abandon(),
            }
        }
        self.around.fingerprints.of(column, key)
    }

    /// The write that this unit sees of a key that it has not written itself, and the same for logging: that of whatever
    /// key is the newest under this fingerprint.
    #[inline(always)]
    fn seen(
        &self,
        fingerprint: u64,
        column: &str,
        key: &[u8],
    ) -> (Option<&'b Record<'b>>, Option<&'b Record<'b>>) {
        let versions = self.around.versions;
        let mut newest = versions.newest(fingerprint);
        if newest.is_none() && !versions.forwards() {
            return (None, None);
        }
        if !versions.forwards() || !self.ahead {
            let is_newer = |version: &Version<'b>| version.position >= self.moment.get();
            if self.ahead
                && newest.is_some_and(is_newer)
                && self.moment.moves_on(self.position, versions, &self.reads.borrow())
            {
                // What is below the new moment may be newer than what was found first.
                newest = versions.newest(fingerprint);
            }
            let seen = newest.and_then(|version| version.newest_before(self.moment.get()));
            return (
                seen.and_then(|version| version.newest_of(column, key)).map(|version| version.record),
                None,
            );
        }
        let snapshot = self.moment.get();
        let after = newest.map_or(snapshot, |version| snapshot.max(version.position + 1));
        match versions.forwarded(fingerprint, column, key, after..self.position) {
            Some(record) => (Some(record), Some(record)),
            None => {
                let version = newest.and_then(|version| version.newest_of(column, key));
                (version.map(|version| version.record), newest.map(|version| version.record))
            }
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
        let (seen, newest) = self.seen(fingerprint, column, key);
        if self.ahead {
            let mut reads = self.reads.borrow_mut();
            let read = Read::new(fingerprint, newest);
            // With forwarding, a second look may show another value than the first: both are checked.
            if reads.find(fingerprint, |known| known.saw(newest)).is_none() {
                reads.push(&self.memory.arena, read);
            }
        }
        match seen {
            Some(record) if record.kind() == Kind::Operand => self.see_merged(record, f),
            Some(record) => f(record.value()),
            None => self.around.state.read_with(column, key, f),
        }
    }

    /// Passes to `f` what an operand that was left to the commit will leave.
    #[inline]
    fn see_merged<R>(&self, operand: &Record<'b>, f: impl FnOnce(Option<&[u8]>) -> R) -> R {
        let state = self.around.state;
        let operator = state.merge_operator(operand.column());
        state.read_with(operand.column(), operand.key(), |value| {
            f(Some(operator.folded(value, operand.bytes(), &mut Vec::new()).as_ref()))
        })
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
        let own = self.writes.get(position);
        if own.kind() != Kind::Operand {
            return f(own.value());
        }
        let operator = self.around.state.merge_operator(column);
        let merged = self.observe(fingerprint, column, key, |value| {
            self.memory.build(|merged| operator.fold(value, own.bytes(), merged))
        });
        f(Some(merged))
    }

    /// Sets this unit's write to a key. Not inlined into each operation, so that what it calls is inlined here.
    #[inline(never)]
    fn write(&mut self, fingerprint: u64, column: &str, key: &[u8], kind: Kind, bytes: &[u8]) {
        let arena = &self.memory.arena;
        match self.own(fingerprint, column, key) {
            Some(position) => self.write_again(position, Written { kind, bytes: Bytes::copy(arena, bytes) }),
            None => {
                let place = if self.around.places { self.around.state.place(column, key) } else { None };
                let column = self.memory.column(column);
                let of = Of { fingerprint, position: self.position, place };
                let record = Content::record(arena, of, (column, key), (kind, bytes));
                self.writes.push(arena, record);
            }
        }
    }

    /// Replaces this unit's write at `position` of its set: records do not change.
    #[inline(never)]
    fn write_again(&mut self, position: usize, written: Written<'b>) {
        let own = self.writes.get_mut(position);
        let before = *own;
        *own = self.memory.arena.alloc_with(|| before.with(written));
    }
}

impl<'b, S: CRUDState + Sync, V: Versions<'b>> CRUDState for ExecutionUnit<'_, 'b, S, V> {
    fn read(&self, column: &str, key: &[u8]) -> Option<Vec<u8>> {
        self.read_with(column, key, |value| value.map(<[u8]>::to_vec))
    }

    fn create(&mut self, column: &str, key: &[u8], value: &[u8]) -> bool {
        let fingerprint = self.step(column, key);
        let absent = self.see(fingerprint, column, key, |present| present.is_none());
        if absent {
            self.write(fingerprint, column, key, Kind::Value, value);
        }
        absent
    }

    fn update(&mut self, column: &str, key: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        let fingerprint = self.step(column, key);
        let previous = self.see(fingerprint, column, key, |value| value.map(<[u8]>::to_vec));
        self.write(fingerprint, column, key, Kind::Value, value);
        previous
    }

    fn delete(&mut self, column: &str, key: &[u8]) -> Option<Vec<u8>> {
        let fingerprint = self.step(column, key);
        let previous = self.see(fingerprint, column, key, |value| value.map(<[u8]>::to_vec));
        // What is absent needs no removal; the observation alone is checked.
        if previous.is_some() {
            self.write(fingerprint, column, key, Kind::Tombstone, &[]);
        }
        previous
    }

    #[inline]
    fn read_with<R>(&self, column: &str, key: &[u8], f: impl FnOnce(Option<&[u8]>) -> R) -> R {
        self.see(self.step(column, key), column, key, f)
    }

    #[inline]
    fn put(&mut self, column: &str, key: &[u8], value: &[u8]) {
        self.write(self.step(column, key), column, key, Kind::Value, value);
    }

    fn remove(&mut self, column: &str, key: &[u8]) {
        self.write(self.step(column, key), column, key, Kind::Tombstone, &[]);
    }

    fn merge_operator(&self, column: &str) -> MergeOperator {
        self.around.state.merge_operator(column)
    }

    fn merge(&mut self, column: &str, key: &[u8], operand: &[u8]) {
        let fingerprint = self.step(column, key);
        let Some(position) = self.own(fingerprint, column, key) else {
            return self.write(fingerprint, column, key, Kind::Operand, operand);
        };
        let operator = self.around.state.merge_operator(column);
        let before = self.writes.get(position).written();
        self.write_again(position, before.fold(operator, operand, self.memory));
    }
}

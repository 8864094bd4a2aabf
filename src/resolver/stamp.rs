//! Version stamps: which version of a key is the newest, one atomic word per key.
//!
//! The word is the address of the key's newest [`Version`], in the table of `raw/table.rs`; the version says which
//! position wrote it, and "no entry" stands for the state before the batch. Read without locks by every unit, written
//! only by whoever holds the retire lock.

use std::ops::Range;

use super::Frontier;
use crate::raw::pending::Pending;
use crate::raw::table::Reader;
use crate::unit::reads::{Read, ReadSet};
use crate::unit::set::Fingerprinted;
use crate::unit::version::Version;
use crate::unit::writes::{Content, Kind, Record, WriteSet};
use crate::unit::{Outcome, Versions};

/// How many unretired writes of a bucket a reader looks at; beyond that it takes the retired value.
const LOOKS: usize = 16;

/// Every thread's view of the stamps of one batch.
#[derive(Clone, Copy)]
pub struct Stamps<'b> {
    pub(super) table: Reader<'b, Version<'b>>,
    /// The writes of finished units, where units may read them.
    pub(super) pending: Option<Pending<'b, Content<'b>>>,
    pub(super) frontier: &'b Frontier,
}

impl<'b> Stamps<'b> {
    /// Lets others read what a finished unit wrote before it retires, if this batch forwards.
    #[inline]
    pub fn forward(&self, writes: &WriteSet<'b>) {
        if let Some(pending) = &self.pending {
            writes.for_each(|record| pending.push(record.fingerprint, record));
        }
    }
}

impl<'b> Stamps<'b> {
    /// True if the unit at `position`, which has not retired, would see something else now. A guess, by fingerprints
    /// alone; retirement decides.
    pub fn is_stale(&self, outcome: &Outcome<'b>, position: u32) -> bool {
        if self.forwards() {
            return self.has_changed(&outcome.reads, position);
        }
        let newest = |read: &Read<'b>| self.newest(read.fingerprint());
        outcome
            .reads
            .iter()
            .any(|read| newest(read).is_some_and(|version| version.position >= outcome.snapshot))
    }

    /// The same for a unit that reads the newest values: true if something that it has read was replaced. Not every
    /// replacement is found.
    fn has_changed(&self, reads: &ReadSet<'b>, position: u32) -> bool {
        // Before the look at the versions: it finds all those below.
        let retired = self.retired();
        reads.iter().any(|read| {
            let fingerprint = read.fingerprint();
            let newest = self.newest(fingerprint).map(|version| version.record);
            // What is known of units that have retired is what they left; some of them wrote something else in the end.
            let after = newest.map_or(retired, |newest| retired.max(newest.position + 1));
            let last = self.last_pending(fingerprint, after..position, |_| true).or(newest);
            let was_replaced = |last: &Record<'b>| read.position().is_none_or(|seen| seen <= last.position);
            let is_gone = read.position().is_some_and(|seen| seen < retired) && !read.saw(newest);
            // That something is no longer found among the pending ones says nothing.
            is_gone || (!read.saw(last) && last.is_some_and(was_replaced))
        })
    }

    /// The record of the last position in `range` that `is_it` accepts, among those lately finished.
    #[inline]
    fn last_pending(
        &self,
        fingerprint: u64,
        range: Range<u32>,
        is_it: impl Fn(&Record<'b>) -> bool,
    ) -> Option<&'b Record<'b>> {
        let pending = self.pending.as_ref()?.newest(fingerprint).take(LOOKS);
        let fits = |record: &&Record<'b>| {
            record.fingerprint == fingerprint && range.contains(&record.position) && is_it(record)
        };
        // Of several runs of one unit the newest comes first, and is kept.
        pending
            .filter(fits)
            .reduce(|last, record| if record.position > last.position { record } else { last })
    }
}

impl<'b> Versions<'b> for Stamps<'b> {
    #[inline]
    fn newest(&self, fingerprint: u64) -> Option<&'b Version<'b>> {
        self.table.get(fingerprint)
    }

    #[inline]
    fn retired(&self) -> u32 {
        self.frontier.passed() as u32
    }

    #[inline]
    fn forwards(&self) -> bool {
        self.pending.is_some()
    }

    fn forwarded(
        &self,
        fingerprint: u64,
        column: &str,
        key: &[u8],
        range: Range<u32>,
    ) -> Option<&'b Record<'b>> {
        let last = self.last_pending(fingerprint, range, |record| record.is_of(column, key))?;
        // An operand is not a value; what it is merged into is known when it retires.
        (last.kind() != Kind::Operand).then_some(last)
    }
}

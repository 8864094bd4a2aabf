//! The collision resolver: the overlay of retired versions, and their stamps.
//!
//! A batch's retired writes form one chain of versions per fingerprint, newest first. [`Overlay::publish`] puts a
//! retired unit's records on top of their chains, in batch order; [`Overlay::confirms`] tells whether all that a unit
//! observed still is the newest. Both are called by the holder of the retire lock only; units read through
//! [`Stamps`] meanwhile.
//!
//! Two keys may share a fingerprint, by chance once in 2^48 pairs. Then they share a chain: an observation of one is
//! refuted by a write of the other (a needless replay), but a value is returned only after column and key were compared
//! in full.

mod stamp;

pub use stamp::Stamps;

use crate::arena::Workspace;
use crate::raw::table::{Table, Writer};
use crate::state::{CRUDState, MergeOperator};
use crate::unit::reads::ReadSet;
use crate::unit::set::Fingerprinted;
use crate::unit::writes::{Record, WriteSet, Written};

/// The newest retired version of every key touched in a batch. There is one per batch; it lives behind the retire lock.
pub struct Overlay<'b> {
    table: Writer<'b, Record<'b>>,
    /// The newest version of each touched key, in the order of first touch (`Record::rank`).
    latest: &'b mut [Option<&'b Record<'b>>],
    touched: usize,
    memory: Workspace<'b>,
}

/// Starts a batch of `len` operations: an empty overlay, and what units see of it.
pub fn begin<'b>(table: &'b mut Table, memory: Workspace<'b>, len: usize) -> (Stamps<'b>, Overlay<'b>) {
    let (reader, writer) = table.begin(len);
    let latest = memory.arena.fill((len * 2).max(64), |_| None);
    (Stamps { table: reader }, Overlay { table: writer, latest, touched: 0, memory })
}

impl<'b> Overlay<'b> {
    /// True if every version that was observed still is the newest: the unit has seen exactly its prefix.
    pub fn confirms(&self, reads: &ReadSet<'b>) -> bool {
        reads.iter().all(|read| read.saw(self.table.find(read.fingerprint()).entry))
    }

    /// Makes `writes`, of the unit that retires now, the newest versions of their keys.
    pub fn publish(&mut self, writes: &mut WriteSet<'b>, operator: impl Fn(&str) -> MergeOperator) {
        for record in writes.drain() {
            self.publish_one(record, &operator);
        }
    }

    fn publish_one(&mut self, record: &'b mut Record<'b>, operator: &impl Fn(&str) -> MergeOperator) {
        if self.table.must_grow() {
            self.table.grow(self.latest[..self.touched].iter().flatten().map(|record| record.fingerprint));
        }
        let place = self.table.find(record.fingerprint);
        let below = place.entry.and_then(|newest| newest.newest_of(record.column, record.key.get()));
        record.rank = match below {
            Some(below) => below.rank,
            None => self.next_rank(),
        };
        if let (Written::Operand(operand), Some(below)) = (record.written, below) {
            record.written = below.written.fold(operator(record.column), operand.get(), &self.memory);
        }
        record.previous = place.entry;
        let record: &'b Record<'b> = record;
        self.latest[record.rank as usize] = Some(record);
        self.table.store(place, record.fingerprint, record);
    }

    fn next_rank(&mut self) -> u32 {
        if self.touched == self.latest.len() {
            let old = &*self.latest;
            self.latest = self.memory.arena.fill(old.len() * 2, |i| old.get(i).copied().flatten());
        }
        self.touched += 1;
        u32::try_from(self.touched - 1).expect("a batch touches fewer than 2^32 keys")
    }

    /// Ends the batch: the last version of every touched key, in the order of first touch, and the memory.
    pub fn into_latest(self) -> (impl ExactSizeIterator<Item = &'b Record<'b>> + Clone, Workspace<'b>) {
        let latest = &self.latest[..self.touched];
        (latest.iter().map(|latest| latest.expect("every rank below `touched` was published")), self.memory)
    }
}

/// The value that a key's last version leaves in `state`: operands are merged into what is there.
pub fn last_value<'b, S: CRUDState>(
    state: &S,
    last: &'b Record<'b>,
    memory: &Workspace<'b>,
) -> Option<&'b [u8]> {
    match &last.written {
        Written::Value(value) => Some(value.get()),
        Written::Tombstone => None,
        Written::Operand(operand) => {
            let operator = state.merge_operator(last.column);
            Some(memory.build(|merged| {
                state.read_with(last.column, last.key.get(), |value| {
                    operator.fold(value, operand.get(), merged)
                });
            }))
        }
    }
}

//! Version stamps: which version of a key is the newest, one atomic word per key.
//!
//! The word is the address of the key's newest [`Record`], in the table of `raw/table.rs`; the record says which
//! position wrote it, and "no entry" stands for the state before the batch. Read without locks by every unit, written
//! only by whoever holds the retire lock.

use crate::raw::table::Reader;
use crate::unit::Versions;
use crate::unit::writes::Record;

/// Every thread's view of the stamps of one batch.
#[derive(Clone, Copy)]
pub struct Stamps<'b> {
    pub(super) table: Reader<'b, Record<'b>>,
}

impl<'b> Versions<'b> for Stamps<'b> {
    #[inline]
    fn newest(&self, fingerprint: u64) -> Option<&'b Record<'b>> {
        self.table.get(fingerprint)
    }
}

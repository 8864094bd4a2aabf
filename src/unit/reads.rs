//! What a unit observed: one entry per key, with the version stamp that it saw.

use super::set::{ArenaSet, Fingerprinted};
use super::writes::Record;

/// One observation: under this fingerprint, `seen` was the newest version (`None`: the state before the batch).
///
/// The record's address is the stamp. A position alone would not do: a replayed unit writes other values under the
/// same position.
#[derive(Clone, Copy)]
pub struct Read<'b> {
    fingerprint: u64,
    seen: Option<&'b Record<'b>>,
}

impl<'b> Read<'b> {
    /// The observation that `seen` was the newest version under `fingerprint`.
    pub fn new(fingerprint: u64, seen: Option<&'b Record<'b>>) -> Self {
        Read { fingerprint, seen }
    }

    /// True if `newest` is the very version that was seen.
    pub fn saw(&self, newest: Option<&'b Record<'b>>) -> bool {
        match (self.seen, newest) {
            (None, None) => true,
            (Some(seen), Some(newest)) => std::ptr::eq(seen, newest),
            _ => false,
        }
    }
}

impl Fingerprinted for Read<'_> {
    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

/// All observations of one unit.
pub type ReadSet<'b> = ArenaSet<'b, Read<'b>, 4>;

//! What a unit observed: one entry per key.

use super::set::{ArenaSet, Fingerprinted};
use super::writes::Record;

/// One observation.
///
/// A unit of one moment needs no more than the fingerprint: it saw whatever was the newest version at that moment, and is
/// right if nothing was written since. With forwarding there is no such moment, and `seen` is the very record that was
/// the newest (`None`: the state before the batch). Its address is the stamp; a position alone would not do, because a
/// unit that runs again writes other values under the same position.
#[derive(Clone, Copy)]
pub struct Read<'b> {
    fingerprint: u64,
    seen: Option<&'b Record<'b>>,
}

impl<'b> Read<'b> {
    /// The observation that `seen` was the newest write under `fingerprint`.
    #[inline]
    pub fn new(fingerprint: u64, seen: Option<&'b Record<'b>>) -> Self {
        Read { fingerprint, seen }
    }

    /// The position of the write that was seen.
    pub fn position(&self) -> Option<u32> {
        self.seen.map(|seen| seen.position)
    }

    /// True if `newest` is the very write that was seen.
    #[inline]
    pub fn saw(&self, newest: Option<&'b Record<'b>>) -> bool {
        match (self.seen, newest) {
            (None, None) => true,
            (Some(seen), Some(newest)) => std::ptr::eq(seen, newest),
            _ => false,
        }
    }
}

impl Fingerprinted for Read<'_> {
    #[inline]
    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

/// All observations of one unit.
pub type ReadSet<'b> = ArenaSet<'b, Read<'b>, 4>;

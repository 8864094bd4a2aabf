//! What a unit wrote: one record per key, which becomes a version of that key when the unit retires.

use super::bytes::Bytes;
use super::set::{ArenaSet, Fingerprinted};

/// What a write leaves behind.
#[derive(Clone, Copy, Debug)]
pub enum Written<'b> {
    /// A value.
    Value(Bytes<'b>),
    /// Nothing: the key is absent.
    Tombstone,
    /// An operand to merge into whatever was there. In a published record: into the *state's* value, because
    /// publishing folds it into the version below.
    Operand(Bytes<'b>),
}

/// One key's write by one unit. Changed only by the unit, then by retirement; read-only once published.
#[derive(Debug)]
pub struct Record<'b> {
    /// Of column and key.
    pub fingerprint: u64,
    /// The unit's position.
    pub position: u32,
    /// Which of the batch's touched keys this is, in the order of first touch. Set when published.
    pub rank: u32,
    /// The key's column.
    pub column: &'b str,
    /// The key.
    pub key: Bytes<'b>,
    /// What was written.
    pub written: Written<'b>,
    /// The next older version under the same fingerprint. Set when published.
    pub previous: Option<&'b Record<'b>>,
}

impl<'b> Record<'b> {
    /// True if this is a version of `key` in `column`, compared in full.
    #[inline]
    pub fn is_of(&self, column: &str, key: &[u8]) -> bool {
        self.key.is(key) && self.column == column
    }

    /// This version or the newest older one of `key` in `column`.
    #[inline]
    pub fn newest_of(&'b self, column: &str, key: &[u8]) -> Option<&'b Record<'b>> {
        let mut version = Some(self);
        while let Some(record) = version {
            if record.is_of(column, key) {
                return version;
            }
            version = record.previous;
        }
        None
    }

    /// This version or the newest older one that was written before `position`.
    #[inline]
    pub fn newest_before(&'b self, position: u32) -> Option<&'b Record<'b>> {
        let mut version = Some(self);
        while let Some(record) = version {
            if record.position < position {
                return version;
            }
            version = record.previous;
        }
        None
    }
}

impl Fingerprinted for &mut Record<'_> {
    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

/// All writes of one unit, each key once.
pub type WriteSet<'b> = ArenaSet<'b, &'b mut Record<'b>, 4>;

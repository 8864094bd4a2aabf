//! What a unit wrote: one record per key, which becomes a version of that key when the unit retires.

use super::bytes::Bytes;
use super::set::{ArenaSet, Fingerprinted};
use crate::arena::{Name, Workspace};
use crate::raw::arena::Arena;
use crate::raw::pending::Linked;
use crate::state::MergeOperator;

/// How a write changes its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It has a value.
    Value,
    /// It is absent.
    Tombstone,
    /// An operand is merged into whatever was there. Publishing folds it into the version below it. Where there is none, or one
    /// that is an operand, too, it may stay one, which the commit merges into the state.
    Operand,
}

/// What a write leaves behind.
#[derive(Clone, Copy, Debug)]
pub struct Written<'b> {
    /// How to take `bytes`.
    pub kind: Kind,
    /// The value or the operand.
    pub bytes: Bytes<'b>,
}

/// One key's write by one unit, where others can find it: one cache line. Its address is the write's identity.
pub type Record<'b> = Linked<Content<'b>>;

/// What a record says. Nothing in it changes once it is made, so that anybody may read it as soon as it is handed over.
#[derive(Debug)]
pub struct Content<'b> {
    /// Of column and key.
    pub fingerprint: u64,
    /// The unit's position.
    pub position: u32,
    /// Where the state has the key, if it can tell: two fields, to fit.
    place: u16,
    has_place: bool,
    kind: Kind,
    column: Name<'b>,
    key: Bytes<'b>,
    bytes: Bytes<'b>,
}

/// Which write a record is.
#[derive(Clone, Copy, Debug)]
pub struct Of {
    /// Of column and key.
    pub fingerprint: u64,
    /// The unit's position.
    pub position: u32,
    /// Where the state has the key, if it can tell and somebody wants to know.
    pub place: Option<u16>,
}

impl<'b> Content<'b> {
    /// A write to `key` in `column`.
    #[inline]
    pub fn record(
        arena: &Arena<'b>,
        Of { fingerprint, position, place }: Of,
        (column, key): (Name<'b>, &[u8]),
        (kind, bytes): (Kind, &[u8]),
    ) -> &'b Record<'b> {
        let blank = || Content {
            fingerprint,
            position,
            place: place.unwrap_or(0),
            has_place: place.is_some(),
            kind,
            column,
            key: Bytes::EMPTY,
            bytes: Bytes::EMPTY,
        };
        let record = arena.alloc_with(|| Linked::new(blank()));
        record.key.set(arena, key);
        record.bytes.set(arena, bytes);
        record
    }

    /// The key's column.
    #[inline]
    pub fn column(&self) -> &'b str {
        self.column
    }

    /// The key.
    #[inline]
    pub fn key(&self) -> &[u8] {
        self.key.get()
    }

    /// Where the state has the key, if it can tell and somebody wanted to know.
    #[inline]
    pub fn place(&self) -> Option<u16> {
        self.has_place.then_some(self.place)
    }

    /// What was written.
    #[inline]
    pub fn written(&self) -> Written<'b> {
        Written { kind: self.kind, bytes: self.bytes }
    }

    /// How the key changes.
    #[inline]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The value or the operand.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get()
    }

    /// The value that is left; `None` if the key is absent. Not for operands.
    #[inline]
    pub fn value(&self) -> Option<&[u8]> {
        debug_assert_ne!(self.kind, Kind::Operand, "an operand is no value");
        (self.kind != Kind::Tombstone).then(|| self.bytes.get())
    }

    /// True if this is a write to `key` in `column`, compared in full.
    #[inline]
    pub fn is_of(&self, column: &str, key: &[u8]) -> bool {
        self.key.is(key) && *self.column == column
    }

    /// This write with another effect, for a key that is written again or an operand that is folded.
    pub fn with(&self, written: Written<'b>) -> Record<'b> {
        let Written { kind, bytes } = written;
        Linked::new(Content { kind, bytes, ..*self })
    }
}

impl Fingerprinted for &Record<'_> {
    #[inline]
    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

impl<'b> Written<'b> {
    /// What is left when `operand` is merged into what `self` left.
    pub fn fold(self, operator: MergeOperator, operand: &[u8], memory: &Workspace<'b>) -> Written<'b> {
        let value = (self.kind != Kind::Tombstone).then(|| self.bytes.get());
        let bytes = memory.with_scratch(|folded| operator.fold(value, operand, folded), Bytes::copy);
        let kind = if self.kind == Kind::Operand { Kind::Operand } else { Kind::Value };
        Written { kind, bytes }
    }
}

/// All writes of one unit, each key once.
pub type WriteSet<'b> = ArenaSet<'b, &'b Record<'b>, 4>;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_cache_line() {
        assert_eq!(size_of::<Record<'_>>(), 64);
    }
}

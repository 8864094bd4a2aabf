//! Keys and values of a batch: short ones inside the record, long ones in the arena.

use crate::raw::arena::Arena;

/// A byte string that lives for the batch, in 16 bytes.
///
/// A record is read by another thread than the one that wrote it. With short keys and values inside, it is one cache
/// line, fetched at once.
#[derive(Clone, Copy, Debug)]
pub enum Bytes<'b> {
    /// Up to [`INLINE`] bytes.
    Inline {
        /// How many are used.
        len: u8,
        /// The bytes.
        bytes: [u8; INLINE],
    },
    /// Longer ones; the slice lies beside what it refers to.
    Arena(&'b &'b [u8]),
}

/// Bytes that fit in a [`Bytes`].
pub const INLINE: usize = 14;

impl<'b> Bytes<'b> {
    /// No bytes.
    pub const EMPTY: Self = Bytes::Inline { len: 0, bytes: [0; INLINE] };

    /// A copy of `source`.
    pub fn copy(arena: &Arena<'b>, source: &[u8]) -> Self {
        let mut copy = Bytes::EMPTY;
        copy.set(arena, source);
        copy
    }

    /// Becomes a copy of `source`, where it lies: moved elsewhere right after it was written in pieces, it would make the
    /// processor wait until all pieces are in the cache.
    ///
    /// # Panics
    ///
    /// If it has 4 GiB or more.
    #[inline(always)]
    pub fn set(&mut self, arena: &Arena<'b>, source: &[u8]) {
        if source.len() > INLINE {
            assert!(u32::try_from(source.len()).is_ok(), "keys and values have less than 4 GiB");
            let copied: &'b [u8] = arena.copy(source);
            *self = Bytes::Arena(arena.alloc(copied));
            return;
        }
        *self = Bytes::Inline { len: source.len() as u8, bytes: [0; INLINE] };
        let Bytes::Inline { bytes, .. } = self else { unreachable!("it was just set") };
        // Integers are the most common keys and values: one move instead of a call.
        match source.try_into() {
            Ok(word) => {
                let word: [u8; 8] = word;
                bytes[..8].copy_from_slice(&word);
            }
            Err(_) => bytes[..source.len()].copy_from_slice(source),
        }
    }

    /// The bytes.
    #[inline]
    pub fn get(&self) -> &[u8] {
        match self {
            Bytes::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Bytes::Arena(bytes) => bytes,
        }
    }

    /// True if these are the bytes of `other`.
    #[inline]
    pub fn is(&self, other: &[u8]) -> bool {
        let own = self.get();
        match (own.try_into(), other.try_into()) {
            (Ok(own), Ok(other)) => {
                let (own, other): ([u8; 8], [u8; 8]) = (own, other);
                own == other
            }
            _ => own == other,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use bumpalo::Bump;

    #[test]
    fn any_length_is_kept() {
        assert_eq!(size_of::<Bytes>(), 16);
        let mut bump = Bump::new();
        let arena = Arena::new(&mut bump);
        let source: Vec<u8> = (1..=100).collect();
        for len in 0..=100 {
            let bytes = Bytes::copy(&arena, &source[..len]);
            assert_eq!(bytes.get(), &source[..len]);
            assert!(bytes.is(&source[..len]));
            assert!(!bytes.is(&source[..(len + 1) % 101]));
            assert!(len == 0 || !bytes.is(&source[1..=len.min(99)]));
        }
    }
}

//! Keys and their hashes.

use std::hash::{BuildHasher, Hasher};

use ahash::RandomState;

/// A key as a table knows it.
#[derive(Clone, Copy, Debug)]
pub struct Key<'k> {
    /// The hash of the column and the bytes, of this process.
    pub hash: u64,
    /// The column's id.
    pub column: u32,
    /// The key itself.
    pub bytes: &'k [u8],
}

impl<'k> Key<'k> {
    /// The key `bytes` of the column `column`. `hasher` is seeded per process: no client can aim at one slot.
    #[inline]
    pub fn new(hasher: &RandomState, column: u32, bytes: &'k [u8]) -> Self {
        let mut state = hasher.build_hasher();
        state.write(bytes);
        let hash = state.finish() ^ u64::from(column).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Key { hash, column, bytes }
    }
}

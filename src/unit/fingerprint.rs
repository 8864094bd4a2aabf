//! What stands for a key where keys are compared often.

use std::hash::{BuildHasher, Hasher};

/// Makes 64-bit fingerprints of (column, key), with random keys of this process: clients cannot choose collisions.
#[derive(Clone, Debug)]
pub struct Fingerprints {
    hasher: ahash::RandomState,
    mask: u64,
}

impl Fingerprints {
    /// Randomly keyed fingerprints.
    pub fn new() -> Self {
        // Models are run again by their schedules, so they need the same fingerprints each time.
        let hasher = if cfg!(any(loom, shuttle)) {
            ahash::RandomState::with_seeds(1, 2, 3, 4)
        } else {
            ahash::RandomState::new()
        };
        Fingerprints { hasher, mask: u64::MAX }
    }

    /// Fingerprints of which only the bits in `mask` differ: for tests of what happens when keys share one.
    #[cfg(any(test, loom, shuttle, feature = "internals"))]
    pub fn with_mask(mask: u64) -> Self {
        Fingerprints { mask, ..Self::new() }
    }

    /// The fingerprint of `key` in `column`.
    #[inline]
    pub fn of(&self, column: &str, key: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(column.as_bytes());
        hasher.write(key);
        // The lengths keep ("ab", "c") and ("a", "bc") apart more often than not; equality is compared in full.
        hasher.finish() & self.mask
    }
}

impl Default for Fingerprints {
    fn default() -> Self {
        Self::new()
    }
}

//! Small stable hashes: what operations compute from what they read, and the digest of a run's replies.
//!
//! None of this is cryptographic. It has to be cheap, the same everywhere, and sensitive to order.

/// Odd constant of the golden ratio, as splitmix64 uses it (Steele, Lea, Flood: "Fast splittable pseudorandom number
/// generators", OOPSLA 2014).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Mixes `value` into `hash`; not commutative. The finalizer is splitmix64's.
#[inline]
#[must_use]
pub fn mix(hash: u64, value: u64) -> u64 {
    let mut x = hash.rotate_left(23).wrapping_mul(GOLDEN) ^ value.wrapping_add(GOLDEN);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A checksum of `bytes`, and of whether there are any: `None` and the empty value differ.
#[inline]
#[must_use]
pub fn checksum(bytes: Option<&[u8]>) -> u64 {
    let Some(bytes) = bytes else { return GOLDEN };
    let mut hash = mix(1, bytes.len() as u64);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hash = mix(hash, u64::from_le_bytes(*word));
    }
    if !rest.is_empty() {
        hash = mix(hash, number(Some(rest)));
    }
    hash
}

/// The fixed-size big-endian key of number `n`: keys sort as their numbers do.
#[inline]
#[must_use]
pub fn key(n: u64) -> [u8; 8] {
    n.to_be_bytes()
}

/// The little-endian number in the first eight bytes of a value; absent and missing bytes are zero.
#[inline]
#[must_use]
pub fn number(value: Option<&[u8]>) -> u64 {
    let mut bytes = [0; 8];
    if let Some(value) = value {
        let n = value.len().min(8);
        bytes[..n].copy_from_slice(&value[..n]);
    }
    u64::from_le_bytes(bytes)
}

/// The digest of a sequence of replies; depends on their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplyDigest(u64);

impl ReplyDigest {
    /// The digest of no replies.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The digest that [`value`](Self::value) came from.
    #[must_use]
    pub fn from_value(value: u64) -> Self {
        ReplyDigest(value)
    }

    /// Appends the next reply.
    #[inline]
    pub fn push(&mut self, reply: u64) {
        self.0 = mix(self.0, reply);
    }

    /// The digest as a number.
    #[must_use]
    pub fn value(self) -> u64 {
        self.0
    }
}

impl std::fmt::Display for ReplyDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_shows() {
        let digest = |replies: &[u64]| {
            let mut digest = ReplyDigest::new();
            replies.iter().for_each(|&reply| digest.push(reply));
            digest
        };
        assert_ne!(digest(&[1, 2]), digest(&[2, 1]));
        assert_ne!(digest(&[0]), digest(&[0, 0]));
    }

    #[test]
    fn checksums_tell_values_apart() {
        let values: [Option<&[u8]>; 6] =
            [None, Some(b""), Some(b"\0"), Some(b"\0\0"), Some(b"12345678"), Some(b"12345678\0")];
        let mut sums: Vec<_> = values.into_iter().map(checksum).collect();
        sums.sort_unstable();
        sums.dedup();
        assert_eq!(sums.len(), values.len());
    }
}

//! Commutative updates: operators that combine an operand into a value that nobody needs to observe.

use std::fmt;

/// A merge operator of the user's own. It must be associative and commutative ([`check_merge_laws`] tests that), and total:
/// one that panics stops an executor, but where a later operation overwrites the key, only some executors need to call it.
pub trait Merge: Send + Sync {
    /// Appends the combination of `a` and `b` to the empty `out`.
    fn combine(&self, a: &[u8], b: &[u8], out: &mut Vec<u8>);
}

/// How a column's merges combine. Integers are little-endian; shorter byte strings are extended with zeros, longer
/// ones cut, so that every operator is total.
#[derive(Clone, Copy, Default)]
#[non_exhaustive]
pub enum MergeOperator {
    /// Addition of 64-bit integers, wrapping. The default.
    #[default]
    WrappingAdd,
    /// Addition of 128-bit integers, wrapping.
    WrappingAdd128,
    /// Addition of unsigned 64-bit integers, saturating.
    SaturatingAdd,
    /// The smaller of two unsigned 64-bit integers.
    Min,
    /// The larger of two unsigned 64-bit integers.
    Max,
    /// The user's own; an absent key becomes the operand itself.
    Custom(&'static dyn Merge),
}

impl fmt::Debug for MergeOperator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MergeOperator::WrappingAdd => "WrappingAdd",
            MergeOperator::WrappingAdd128 => "WrappingAdd128",
            MergeOperator::SaturatingAdd => "SaturatingAdd",
            MergeOperator::Min => "Min",
            MergeOperator::Max => "Max",
            MergeOperator::Custom(_) => "Custom",
        })
    }
}

impl MergeOperator {
    /// Sets `out` to the combination of `value` (absent: the operator's neutral element) and `operand`.
    pub fn fold(&self, value: Option<&[u8]>, operand: &[u8], out: &mut Vec<u8>) {
        if let Folded::Integer { len, bytes } = self.folded(value, operand, out) {
            out.clear();
            out.extend_from_slice(&bytes[..len]);
        }
    }

    /// What [`fold`](MergeOperator::fold) sets its `out` to. Only operators of the user's own need the buffer, and leave it
    /// there.
    #[inline]
    pub(crate) fn folded<'m>(
        &self,
        value: Option<&[u8]>,
        operand: &[u8],
        buffer: &'m mut Vec<u8>,
    ) -> Folded<'m> {
        match self {
            MergeOperator::Custom(operator) => {
                buffer.clear();
                match value {
                    Some(value) => operator.combine(value, operand, buffer),
                    None => buffer.extend_from_slice(operand),
                }
                Folded::Buffer(buffer)
            }
            MergeOperator::WrappingAdd128 => {
                let sum = u128::from_le_bytes(resize(value.unwrap_or(&[])))
                    .wrapping_add(u128::from_le_bytes(resize(operand)));
                Folded::Integer { len: 16, bytes: sum.to_le_bytes() }
            }
            _ => {
                let b = u64::from_le_bytes(resize(operand));
                let folded = match value {
                    Some(value) => self.combine_u64(u64::from_le_bytes(resize(value)), b),
                    None => b,
                };
                Folded::Integer { len: 8, bytes: u128::from(folded).to_le_bytes() }
            }
        }
    }

    /// True unless it is the user's own: then it does not panic, and what it leaves is short.
    #[inline]
    pub(crate) fn is_built_in(&self) -> bool {
        !matches!(self, MergeOperator::Custom(_))
    }

    fn combine_u64(&self, a: u64, b: u64) -> u64 {
        match self {
            MergeOperator::SaturatingAdd => a.saturating_add(b),
            MergeOperator::Min => a.min(b),
            MergeOperator::Max => a.max(b),
            _ => a.wrapping_add(b),
        }
    }
}

/// What is left of a value and an operand.
pub(crate) enum Folded<'m> {
    /// Of a built-in operator: so many of these bytes.
    Integer { len: usize, bytes: [u8; 16] },
    /// Of the user's own.
    Buffer(&'m [u8]),
}

impl AsRef<[u8]> for Folded<'_> {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        match self {
            Folded::Integer { len, bytes } => &bytes[..*len],
            Folded::Buffer(bytes) => bytes,
        }
    }
}

/// The first `N` bytes, extended with zeros.
fn resize<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut sized = [0; N];
    let n = bytes.len().min(N);
    sized[..n].copy_from_slice(&bytes[..n]);
    sized
}

/// Checks that `operator` is associative and commutative on these three operands; for property tests of one's own
/// operators.
///
/// # Errors
///
/// The law that does not hold.
pub fn check_merge_laws(operator: MergeOperator, a: &[u8], b: &[u8], c: &[u8]) -> Result<(), String> {
    let fold = |x: &[u8], y: &[u8]| {
        let mut out = Vec::new();
        operator.fold(Some(x), y, &mut out);
        out
    };
    if fold(a, b) != fold(b, a) {
        return Err(format!("{operator:?} is not commutative on {a:?} and {b:?}"));
    }
    if fold(&fold(a, b), c) != fold(a, &fold(b, c)) {
        return Err(format!("{operator:?} is not associative on {a:?}, {b:?} and {c:?}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn built_in_operators_are_lawful(a: Vec<u8>, b: Vec<u8>, c: Vec<u8>) {
            use MergeOperator::*;
            for operator in [WrappingAdd, WrappingAdd128, SaturatingAdd, Min, Max] {
                prop_assert_eq!(check_merge_laws(operator, &a, &b, &c), Ok(()));
            }
        }
    }

    #[test]
    fn an_unlawful_operator_is_found() {
        struct Concatenate;
        impl Merge for Concatenate {
            fn combine(&self, a: &[u8], b: &[u8], out: &mut Vec<u8>) {
                out.extend_from_slice(a);
                out.extend_from_slice(b);
            }
        }
        assert!(check_merge_laws(MergeOperator::Custom(&Concatenate), b"a", b"b", b"").is_err());
    }

    #[test]
    fn an_absent_value_is_neutral() {
        let mut out = Vec::new();
        MergeOperator::Min.fold(None, &[7], &mut out);
        assert_eq!(out, 7u64.to_le_bytes());
        MergeOperator::Min.fold(Some(&[9]), &out.clone(), &mut out);
        assert_eq!(out, 7u64.to_le_bytes());
    }
}

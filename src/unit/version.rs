//! A retired write: a version of its key.

use super::writes::Record;

/// One version under a fingerprint, and the way to the older ones. Made by retirement, read-only once published.
#[derive(Debug)]
pub struct Version<'b> {
    /// The write. Its address is the version's identity: a unit that runs again writes other values under the same
    /// position.
    pub record: &'b Record<'b>,
    /// The next older version under the same fingerprint.
    pub previous: Option<&'b Version<'b>>,
    /// The record's position, kept here because chains are walked by it.
    pub position: u32,
    /// Which of the batch's touched keys this is, in the order of first touch.
    pub rank: u32,
}

impl<'b> Version<'b> {
    /// This version or the newest older one of `key` in `column`.
    #[inline]
    pub fn newest_of(&'b self, column: &str, key: &[u8]) -> Option<&'b Version<'b>> {
        self.walk(|version| version.record.is_of(column, key))
    }

    /// This version or the newest older one that was written before `position`.
    #[inline]
    pub fn newest_before(&'b self, position: u32) -> Option<&'b Version<'b>> {
        self.walk(|version| version.position < position)
    }

    #[inline(always)]
    fn walk(&'b self, is_it: impl Fn(&Version<'b>) -> bool) -> Option<&'b Version<'b>> {
        let mut next = Some(self);
        while let Some(version) = next {
            if is_it(version) {
                return next;
            }
            next = version.previous;
        }
        None
    }
}

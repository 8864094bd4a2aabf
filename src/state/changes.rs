//! What a batch changed, as a state sees it when it commits.

use std::fmt;
use std::ops::Range;

use crate::raw::prefetch::prefetch_all;

/// What a batch leaves of one key that it touched: its last value, or what is to be merged into it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change<'a> {
    /// The key's column.
    pub column: &'a str,
    /// The key.
    pub key: &'a [u8],
    /// Its value after the batch; `None` if the batch removed it, or if there is an operand.
    pub value: Option<&'a [u8]>,
    /// What is to be merged into the value that the state has, by the column's
    /// [`merge_operator`](super::CRUDState::merge_operator): all that the batch has merged into this key, folded together. Always
    /// `None` for a state that does not ask for it ([`COMMITS_OPERANDS`](super::CRUDState::COMMITS_OPERANDS)).
    pub operand: Option<&'a [u8]>,
}

/// The keys that a batch touched, in the order of first touch, where they lie.
pub trait Touched: Sync {
    /// How many there are.
    fn len(&self) -> usize;

    /// One of them, and its last value.
    fn get(&self, index: usize) -> Change<'_>;

    /// Brings one of them near.
    fn prefetch(&self, index: usize);

    /// Brings near what says where they lie.
    fn prefetch_list(&self);
}

/// What a batch changed: each touched key once, in the order in which the batch first touched them.
#[derive(Clone, Copy)]
pub struct Changes<'a> {
    changes: Source<'a>,
    groups: Groups<'a>,
}

#[derive(Clone, Copy)]
enum Source<'a> {
    Slice(&'a [Change<'a>]),
    Batch(&'a dyn Touched),
}

impl<'a> Changes<'a> {
    /// These changes, in no groups. The caller upholds that no key occurs twice.
    ///
    /// # Panics
    ///
    /// If a key, a value or an operand has 4 GiB or more.
    pub fn new(changes: &'a [Change<'a>]) -> Self {
        let fits = |bytes: &[u8]| u32::try_from(bytes.len()).is_ok();
        let all = changes.iter().all(|change| {
            fits(change.key) && change.value.is_none_or(fits) && change.operand.is_none_or(fits)
        });
        assert!(all, "keys and values have less than 4 GiB");
        Changes { changes: Source::Slice(changes), groups: Groups::default() }
    }

    /// What a batch has touched.
    pub(crate) fn of_batch(touched: &'a dyn Touched) -> Self {
        Changes { changes: Source::Batch(touched), groups: Groups::default() }
    }

    /// The same changes, in no groups.
    #[must_use]
    pub fn ungrouped(self) -> Self {
        Changes { groups: Groups::default(), ..self }
    }

    /// The same changes, in these groups.
    pub(crate) fn in_groups(self, groups: Groups<'a>) -> Self {
        Changes { groups, ..self }
    }

    /// The changes, in the order of first touch, which is the same on every replica.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Change<'a>> + use<'a> {
        let changes = *self;
        (0..changes.len()).map(move |index| changes.get(index))
    }

    /// The change that [`iter`](Changes::iter) gives at `index`.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[inline]
    pub fn get(&self, index: usize) -> Change<'a> {
        match self.changes {
            Source::Slice(changes) => changes[index],
            Source::Batch(touched) => touched.get(index),
        }
    }

    /// Brings the change at `index` into the processor's caches, from that of the thread whose operation wrote it.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[inline]
    pub fn prefetch(&self, index: usize) {
        if let Source::Batch(touched) = self.changes {
            touched.prefetch(index);
        }
    }

    /// Brings near what says where the changes lie, and in which groups.
    pub(super) fn prefetch_lists(&self) {
        if let Source::Batch(touched) = self.changes {
            touched.prefetch_list();
        }
        prefetch_all(self.groups.heads);
        prefetch_all(self.groups.next);
    }

    /// Number of keys changed.
    #[inline]
    pub fn len(&self) -> usize {
        match self.changes {
            Source::Slice(changes) => changes.len(),
            Source::Batch(touched) => touched.len(),
        }
    }

    /// True if the batch changed nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Into how many groups the changes are sorted by their keys' [`place`](super::CRUDState::place): a power of two, or 0 if
    /// they are not. The places are cut into so many ranges of equal length; a group holds the changes of one range.
    #[inline]
    pub fn groups(&self) -> usize {
        self.groups.heads.len()
    }

    /// The changes of some consecutive groups, as indexes, in no particular order.
    ///
    /// # Panics
    ///
    /// If there are not so many groups.
    #[inline]
    pub fn group(&self, groups: Range<usize>) -> impl Iterator<Item = usize> + use<'a> {
        let Groups { heads, next } = self.groups;
        let mut heads = heads[groups].iter();
        let mut index = END;
        std::iter::from_fn(move || {
            while index == END {
                index = *heads.next()?;
            }
            let this = index as usize;
            index = next[this];
            Some(this)
        })
    }
}

impl fmt::Debug for Changes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The end of a list, and the beginning of an empty one.
pub(crate) const END: u32 = u32::MAX;

/// Changes sorted by place: a list of indexes per group.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Groups<'a> {
    heads: &'a [u32],
    next: &'a [u32],
}

impl<'a> Groups<'a> {
    /// The groups whose lists [`join`] has made.
    pub(crate) fn new(heads: &'a [u32], next: &'a [u32]) -> Self {
        Groups { heads, next }
    }
}

/// Adds the change at `index` to the list of its group; returns what is to be found at `index` in the array of successors. The
/// number of lists is a power of two, from 2 to 65536.
#[inline]
pub(crate) fn join(heads: &mut [u32], index: u32, place: u16) -> u32 {
    let shift = u16::BITS - heads.len().trailing_zeros();
    std::mem::replace(&mut heads[usize::from(place >> shift)], index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_in_the_group_of_its_place() {
        for lists in [2, 8, 1 << 16] {
            let mut heads = vec![END; lists];
            let places = [0, 1, 0x1fff, 0x2000, 0x7fff, 0x8000, 0xfffe, 0xffff, 0];
            let next: Vec<u32> =
                (0..).zip(places).map(|(index, place)| join(&mut heads, index, place)).collect();
            let changes = [Change::default(); 9];
            let changes = Changes::new(&changes).in_groups(Groups::new(&heads, &next));
            assert_eq!((changes.groups(), changes.ungrouped().groups()), (lists, 0));
            let mut found = Vec::new();
            for group in 0..lists {
                for index in changes.group(group..group + 1) {
                    assert_eq!((usize::from(places[index]) * lists) >> 16, group);
                    found.push(index);
                }
            }
            assert_eq!(found, changes.group(0..lists).collect::<Vec<_>>());
            found.sort_unstable();
            assert!(found.into_iter().eq(0..9));
        }
    }
}

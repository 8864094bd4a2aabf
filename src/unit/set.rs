//! Small sets keyed by fingerprint: a linear scan of an inline `smallvec`, beyond that an index in the arena.

use smallvec::SmallVec;

use crate::raw::arena::Arena;

/// Something that has the 64-bit fingerprint of a (column, key).
pub trait Fingerprinted {
    /// The fingerprint, which ahash made: it serves as the hash.
    fn fingerprint(&self) -> u64;
}

/// Items in the order of insertion, found by fingerprint. The first `N` lie inline, all others in the arena.
pub struct ArenaSet<'b, T, const N: usize> {
    small: SmallVec<[T; N]>,
    large: Option<&'b mut Large<'b, T>>,
}

struct Large<'b, T> {
    items: &'b mut [Option<T>],
    len: usize,
    /// Open addressing from fingerprint to position in `items`, plus one; zero is empty. Twice as long as `items`.
    index: &'b mut [u32],
}

impl<'b, T: Fingerprinted, const N: usize> ArenaSet<'b, T, N> {
    /// An empty set.
    #[inline]
    pub fn new() -> Self {
        ArenaSet { small: SmallVec::new(), large: None }
    }

    /// The position of the first item with this fingerprint that `is_it` accepts.
    #[inline(always)]
    pub fn find(&self, fingerprint: u64, is_it: impl Fn(&T) -> bool) -> Option<usize> {
        match &self.large {
            None => {
                for (position, item) in self.small.iter().enumerate() {
                    if item.fingerprint() == fingerprint && is_it(item) {
                        return Some(position);
                    }
                }
                None
            }
            Some(large) => large.find(fingerprint, is_it),
        }
    }

    /// The item at a position that `find` returned.
    #[inline]
    pub fn get_mut(&mut self, position: usize) -> &mut T {
        match &mut self.large {
            None => &mut self.small[position],
            Some(large) => large.items[position].as_mut().expect("a position of an item"),
        }
    }

    /// The item at a position that `find` returned.
    #[inline]
    pub fn get(&self, position: usize) -> &T {
        match &self.large {
            None => &self.small[position],
            Some(large) => large.items[position].as_ref().expect("a position of an item"),
        }
    }

    /// Adds an item. The caller sees to it that it is not there yet, where that matters.
    #[inline]
    pub fn push(&mut self, arena: &Arena<'b>, item: T) {
        match &mut self.large {
            None if self.small.len() < N => self.small.push(item),
            None => {
                let mut large = Large::new(arena, self.small.drain(..), N);
                large.push(arena, item);
                self.large = Some(arena.alloc(large));
            }
            Some(large) => large.push(arena, item),
        }
    }

    /// The items in the order of insertion.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let large = self.large.as_ref().map_or(&[][..], |large| &large.items[..large.len]);
        self.small.iter().chain(large.iter().flatten())
    }

    /// True if all items fit.
    // Two loops, as most sets are small: one over a chain is not inlined.
    #[inline]
    pub fn all(&self, fits: impl Fn(&T) -> bool) -> bool {
        match &self.large {
            None => self.small.iter().all(fits),
            Some(large) => large.items[..large.len].iter().flatten().all(fits),
        }
    }

    /// Calls `f` with each item, in the order of insertion.
    #[inline]
    pub fn for_each(&self, f: impl FnMut(&T)) {
        match &self.large {
            None => self.small.iter().for_each(f),
            Some(large) => large.items[..large.len].iter().flatten().for_each(f),
        }
    }

    /// Forgets the items.
    pub fn clear(&mut self) {
        self.small.clear();
        self.large = None;
    }
}

impl<T: Fingerprinted, const N: usize> Default for ArenaSet<'_, T, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'b, T: Fingerprinted> Large<'b, T> {
    fn new(arena: &Arena<'b>, first: impl Iterator<Item = T>, len: usize) -> Self {
        let mut first = first;
        let capacity = (len * 4).next_power_of_two();
        let items = arena.fill(capacity, |_| first.next());
        let mut large = Large { items, len, index: arena.fill(capacity * 2, |_| 0) };
        large.rebuild_index();
        large
    }

    fn rebuild_index(&mut self) {
        for position in 0..self.len {
            self.index_item(position);
        }
    }

    fn index_item(&mut self, position: usize) {
        let fingerprint = self.items[position].as_ref().map_or(0, Fingerprinted::fingerprint);
        let mask = self.index.len() - 1;
        let mut slot = fingerprint as usize & mask;
        while self.index[slot] != 0 {
            slot = (slot + 1) & mask;
        }
        self.index[slot] = u32::try_from(position + 1).expect("a unit touches fewer than 2^32 keys");
    }

    fn find(&self, fingerprint: u64, is_it: impl Fn(&T) -> bool) -> Option<usize> {
        let mask = self.index.len() - 1;
        let mut slot = fingerprint as usize & mask;
        while self.index[slot] != 0 {
            let position = self.index[slot] as usize - 1;
            let item = self.items[position].as_ref();
            if item.is_some_and(|item| item.fingerprint() == fingerprint && is_it(item)) {
                return Some(position);
            }
            slot = (slot + 1) & mask;
        }
        None
    }

    fn push(&mut self, arena: &Arena<'b>, item: T) {
        if self.len == self.items.len() {
            let old = std::mem::take(&mut self.items);
            self.items = arena.fill(old.len() * 2, |i| old.get_mut(i).and_then(Option::take));
            self.index = arena.fill(old.len() * 4, |_| 0);
            self.rebuild_index();
        }
        self.items[self.len] = Some(item);
        self.len += 1;
        self.index_item(self.len - 1);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use bumpalo::Bump;
    use proptest::prelude::*;

    impl Fingerprinted for (u64, u32) {
        fn fingerprint(&self) -> u64 {
            self.0
        }
    }

    proptest! {
        #[test]
        fn behaves_like_a_list(fingerprints in prop::collection::vec(0u64..300, 0..600)) {
            let mut bump = Bump::new();
            let arena = Arena::new(&mut bump);
            let mut set = ArenaSet::<(u64, u32), 4>::new();
            let mut list: Vec<(u64, u32)> = Vec::new();
            for (i, fingerprint) in fingerprints.into_iter().enumerate() {
                let expected = list.iter().position(|item| item.0 == fingerprint);
                prop_assert_eq!(set.find(fingerprint, |_| true), expected);
                match expected {
                    Some(position) => {
                        list[position].1 += 1;
                        set.get_mut(position).1 += 1;
                    }
                    None => {
                        list.push((fingerprint, i as u32));
                        set.push(&arena, (fingerprint, i as u32));
                    }
                }
                prop_assert_eq!(set.iter().count(), list.len());
            }
            prop_assert!(set.iter().eq(list.iter()));
            let mut each = Vec::new();
            set.for_each(|&item| each.push(item));
            prop_assert_eq!(&each, &list);
            prop_assert!(set.all(|item| list.contains(item)));
            prop_assert_eq!(set.all(|&item| Some(&item) != list.last()), list.is_empty());
            set.clear();
            prop_assert_eq!(set.iter().count(), 0);
        }
    }
}

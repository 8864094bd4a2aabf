//! The collision resolver: the overlay of retired versions, and their stamps.
//!
//! A batch's retired writes form one chain of versions per fingerprint, newest first. [`Overlay::publish`] puts a
//! retired unit's records on top of their chains, in batch order; [`Overlay::confirms`] tells whether all that a unit
//! observed still is the newest. Both are called by the holder of the retire lock only; units read through
//! [`Stamps`] meanwhile.
//!
//! Where an application allows forwarding, there is a second index beside it: the writes of finished units, whether they
//! have retired or not ([`Stamps::forward`]). It is only a source of good guesses: a guess holds if the very record that
//! was guessed is the newest version at the reader's turn.
//!
//! Two keys may share a fingerprint, by chance once in 2^48 pairs. Then they share a chain: an observation of one is
//! refuted by a write of the other (a needless replay), but a value is returned only after column and key were compared
//! in full.

mod frontier;
mod stamp;
#[cfg(all(test, not(loom)))]
mod tests;

pub use frontier::Frontier;
pub use stamp::Stamps;

use crate::arena::Workspace;
use crate::raw::growing::Growing;
use crate::raw::pending::{Head, Pending};
use crate::raw::prefetch::{prefetch, prefetch_all};
use crate::raw::table::{Table, Writer};
use crate::state::{Change, END, Groups, Touched, join};
use crate::unit::Outcome;
use crate::unit::set::Fingerprinted;
use crate::unit::version::Version;
use crate::unit::writes::{Kind, Record, WriteSet, Written};

/// The newest retired version of every key touched in a batch. There is one per batch; it lives behind the retire lock.
pub struct Overlay<'b> {
    table: Writer<'b, Version<'b>>,
    /// The last write to each touched key, in the order of first touch (`Version::rank`).
    latest: Growing<'b, Option<&'b Record<'b>>>,
    grouping: Grouping<'b>,
    forwards: bool,
    frontier: &'b Frontier,
    memory: Workspace<'b>,
}

/// Starts a batch of `len` operations: an empty overlay, and what units see of it. Touched keys are sorted into so many
/// `groups` for the commit, a power of two; if that is 1, into none.
pub fn begin<'b>(
    table: &'b mut Table,
    memory: Workspace<'b>,
    len: usize,
    forwards: bool,
    groups: usize,
) -> (Stamps<'b>, Overlay<'b>) {
    let (reader, writer) = table.begin(len);
    let arena = &memory.arena;
    let [frontier] = arena.fill(1, |_| Frontier::default()) else { unreachable!("one was asked for") };
    let frontier = &*frontier;
    let pending = forwards.then(|| {
        let heads = (len * 2).next_power_of_two().max(64);
        Pending::new(arena.fill(heads, |_| Head::default()))
    });
    let touched = (len * 2).max(64);
    let overlay = Overlay {
        table: writer,
        latest: Growing::with_capacity(&memory.arena, touched),
        grouping: Grouping::new(&memory, touched, groups),
        forwards,
        frontier,
        memory,
    };
    (Stamps { table: reader, pending, frontier }, overlay)
}

/// Touched keys by place, as lists. A key joins one when it is first touched: at the end, what others wrote would have to be
/// fetched for it, while they have nothing to do.
struct Grouping<'b> {
    /// None, if keys are not sorted.
    heads: &'b mut [u32],
    next: Growing<'b, u32>,
}

impl<'b> Grouping<'b> {
    fn new(memory: &Workspace<'b>, touched: usize, groups: usize) -> Self {
        let (groups, touched) = if groups > 1 { (groups, touched) } else { (0, 0) };
        let heads = memory.arena.fill(groups, |_| END);
        Grouping { heads, next: Growing::with_capacity(&memory.arena, touched) }
    }

    /// Adds the key that was touched next.
    #[inline]
    fn add(&mut self, memory: &Workspace<'b>, place: Option<u16>) {
        if self.heads.is_empty() {
            return;
        }
        match place {
            Some(place) => {
                let next = join(self.heads, self.next.as_slice().len() as u32, place);
                self.next.push(&memory.arena, next);
            }
            // One that is in no list would be missed.
            None => self.heads = &mut [],
        }
    }

    fn into_groups(self) -> Groups<'b> {
        Groups::new(self.heads, self.next.into_slice())
    }
}

/// The last write to each key that a batch has touched.
#[derive(Clone, Copy)]
pub struct Latest<'b>(&'b [Option<&'b Record<'b>>]);

impl<'b> Latest<'b> {
    #[inline]
    fn record(&self, index: usize) -> &'b Record<'b> {
        self.0[index].expect("published with its rank")
    }
}

impl Touched for Latest<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, index: usize) -> Change<'_> {
        let record = self.record(index);
        let (kind, bytes) = (record.kind(), record.bytes());
        Change {
            column: record.column(),
            key: record.key(),
            value: (kind == Kind::Value).then_some(bytes),
            operand: (kind == Kind::Operand).then_some(bytes),
        }
    }

    fn prefetch(&self, index: usize) {
        prefetch(self.record(index));
    }

    fn prefetch_list(&self) {
        prefetch_all(self.0);
    }
}

impl<'b> Overlay<'b> {
    /// How many units are retired.
    pub fn frontier(&self) -> &'b Frontier {
        self.frontier
    }

    /// True if every version that was observed still is the newest: the unit, whose turn it is, has seen exactly its
    /// prefix.
    #[inline]
    pub fn confirms(&self, outcome: &Outcome<'b>) -> bool {
        if self.forwards {
            let newest = |fingerprint| self.table.find(fingerprint).entry.map(|version| version.record);
            return outcome.reads.all(|read| read.saw(newest(read.fingerprint())));
        }
        // The versions below the snapshot are what was seen; the question is whether any came after it.
        let newest = |fingerprint| self.table.find(fingerprint).entry;
        let seen = |version: &Version<'b>| version.position < outcome.snapshot;
        outcome.reads.all(|read| newest(read.fingerprint()).is_none_or(seen))
    }

    /// Makes `writes`, of the unit that retires now, the newest versions of their keys. `fold` tells what an operand leaves on
    /// top of the version below it, if there is one; nothing, if it stays as it is. The versions lie in `memory`, the walker's
    /// own: what one thread writes next to each other stays in its cache.
    pub fn publish(
        &mut self,
        writes: &WriteSet<'b>,
        memory: &Workspace<'b>,
        fold: impl Fn(&Record<'b>, Option<&Record<'b>>) -> Option<Written<'b>>,
    ) {
        writes.for_each(|record| self.publish_one(record, memory, &fold));
    }

    #[inline]
    fn publish_one(
        &mut self,
        record: &'b Record<'b>,
        memory: &Workspace<'b>,
        fold: &impl Fn(&Record<'b>, Option<&Record<'b>>) -> Option<Written<'b>>,
    ) {
        if self.table.must_grow() {
            self.grow();
        }
        let place = self.table.find(record.fingerprint);
        let below = place.entry.and_then(|newest| newest.newest_of(record.column(), record.key()));
        let rank = match below {
            Some(below) => below.rank,
            None => self.next_rank(record),
        };
        let record = match record.kind() {
            Kind::Operand => match fold(record, below.map(|below| below.record)) {
                Some(folded) => memory.arena.alloc_with(|| record.with(folded)),
                None => record,
            },
            Kind::Value | Kind::Tombstone => record,
        };
        let (fingerprint, position) = (record.fingerprint, record.position);
        let previous = place.entry;
        let version = &*memory.arena.alloc_with(|| Version { record, previous, position, rank });
        self.latest.set(rank as usize, Some(record));
        self.table.store(place, fingerprint, version);
    }

    #[cold]
    fn grow(&mut self) {
        self.table.grow(self.latest.as_slice().iter().flatten().map(|record| record.fingerprint));
    }

    #[inline]
    fn next_rank(&mut self, record: &Record<'b>) -> u32 {
        self.latest.push(&self.memory.arena, None);
        self.grouping.add(&self.memory, record.place());
        u32::try_from(self.latest.as_slice().len() - 1).expect("a batch touches fewer than 2^32 keys")
    }

    /// All versions of the batch, key by key.
    pub fn versions(&self) -> impl Iterator<Item = &'b Version<'b>> {
        // Keys that share a fingerprint share a chain, in which each looks for its own.
        let of = |version: Option<&'b Version<'b>>, record: &Record<'b>| {
            version?.newest_of(record.column(), record.key())
        };
        self.latest.as_slice().iter().flatten().flat_map(move |record| {
            let newest = of(self.table.find(record.fingerprint).entry, record);
            std::iter::successors(newest, move |version| of(version.previous, record))
        })
    }

    /// Ends the batch: the last write to every touched key, in the order of first touch, and their groups.
    pub(crate) fn into_latest(self) -> (Latest<'b>, Groups<'b>) {
        (Latest(self.latest.into_slice()), self.grouping.into_groups())
    }
}

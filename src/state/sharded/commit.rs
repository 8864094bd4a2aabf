//! The commit pass: a batch's last values into the shards, on several threads if that pays.
//!
//! The shards are cut into pieces, a few per thread or more, and the changes are grouped by piece: a list per piece, as indexes
//! into the changes. Each piece then belongs to whichever thread takes it, so threads share nothing but the changes that
//! they read. As no key occurs twice in the changes, their order does not matter. All buffers are kept for the next
//! batch.
//!
//! Most keys are far away from the processor. So changes are taken in groups, and the memory of a group's keys is asked for at
//! once (`near.rs`), before the first of them is written.

use ahash::RandomState;
use smallvec::SmallVec;

use super::key::Key;
use super::near::bring_near;
use super::shard::Shard;
use super::{ShardedState, shard_index};
use crate::error::StateError;
use crate::state::{Change, Crew, for_each_chunk};
use crate::sync::{AtomicU64, Ordering};

/// Below this many changes, calling the other threads costs more than they save.
const PARALLEL: usize = if cfg!(shuttle) { 4 } else { 64 };
/// Into how many pieces per thread the shards are cut, at least, so that a thread that starts late finds less work, not none.
const PIECES: usize = 4;
/// And so many changes a piece gets on average, at most, so that what they touch stays near.
const PIECE: usize = 256;
/// Changes whose keys are brought near together.
const GROUP: usize = 16;
/// The end of a list.
const END: u32 = u32::MAX;

/// Lists of changes by piece.
#[derive(Debug, Default)]
pub struct Grouping {
    /// Per piece: its first change.
    first: Vec<u32>,
    /// Per change: what to do.
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    /// The next change of the same piece.
    next: u32,
    column: u32,
    /// The shard, counted from the piece's first.
    shard: u32,
}

impl ShardedState {
    /// Applies `changes`, each to another key.
    pub(super) fn apply(&mut self, changes: &[Change<'_>], crew: &mut dyn Crew) -> Result<(), StateError> {
        let too_long = |bytes: &[u8]| u32::try_from(bytes.len()).is_err();
        if changes.iter().any(|change| too_long(change.key) || change.value.is_some_and(too_long)) {
            return Err(StateError::Malformed { what: "a key or a value of 4 GiB or more".into() });
        }
        if crew.threads() < 2 || changes.len() < PARALLEL || changes.len() >= END as usize {
            self.apply_here(changes);
            return Ok(());
        }
        let mut grouping = std::mem::take(&mut self.grouping);
        let pieces = (crew.threads() * PIECES).max(changes.len() / PIECE);
        let pieces = pieces.next_power_of_two().min(self.shards.len());
        self.group(changes, &mut grouping, pieces);
        self.apply_groups(changes, &grouping, crew);
        self.grouping = grouping;
        Ok(())
    }

    /// Applies `changes` on this thread.
    fn apply_here(&mut self, changes: &[Change<'_>]) {
        let mut column = None;
        for changes in changes.chunks(GROUP) {
            let mut group = Group::new();
            for change in changes {
                if let Some(id) = self.column_of(change, &mut column) {
                    let (shard, key) = self.spot(id, self.columns.get(id), change.key);
                    group.push(Target { shard, key, value: change.value });
                }
            }
            let mut writer = Writer { shards: &mut self.shards, hasher: &self.hasher, copies: 0 };
            writer.write(&group);
            self.copies += writer.copies;
        }
    }

    /// The column of a change, which is added if it is new; none if a key is to be removed from a column that there is not.
    /// `last` is the column of the change before, under the very name that this one may have, too.
    #[inline]
    fn column_of<'c>(&mut self, change: &Change<'c>, last: &mut Option<(&'c str, u32)>) -> Option<u32> {
        match *last {
            Some((name, id)) if std::ptr::eq(name, change.column) => Some(id),
            _ => {
                let known = self.columns.find(change.column).map(|(id, _)| id);
                let id = match change.value {
                    Some(_) => known.unwrap_or_else(|| self.add_column(change.column)),
                    None => known?,
                };
                *last = Some((change.column, id));
                Some(id)
            }
        }
    }

    fn group(&mut self, changes: &[Change<'_>], grouping: &mut Grouping, pieces: usize) {
        let Grouping { first, steps } = grouping;
        first.clear();
        first.resize(pieces, END);
        steps.clear();
        // Both are powers of two.
        let piece_len = self.shards.len() / pieces;
        let shift = piece_len.trailing_zeros();
        let mut column = None;
        for (index, change) in changes.iter().enumerate() {
            let step = match self.column_of(change, &mut column) {
                Some(column) => {
                    let shard = shard_index(self.columns.get(column).place(change.key), self.shards.len());
                    let head = &mut first[shard >> shift];
                    let shard = (shard & (piece_len - 1)) as u32;
                    Step { next: std::mem::replace(head, index as u32), column, shard }
                }
                // It only keeps the numbering.
                None => Step { next: END, column: END, shard: 0 },
            };
            steps.push(step);
        }
    }

    fn apply_groups(&mut self, changes: &[Change<'_>], grouping: &Grouping, crew: &mut dyn Crew) {
        let hasher = &self.hasher;
        let copies = AtomicU64::new(0);
        let piece_len = self.shards.len() / grouping.first.len();
        for_each_chunk(crew, &mut self.shards, piece_len, |start, shards: &mut [Shard]| {
            let mut writer = Writer { shards, hasher, copies: 0 };
            let mut next = grouping.first[start / piece_len];
            while next != END {
                let mut group = Group::new();
                while next != END && group.len() < GROUP {
                    let (change, step) = (&changes[next as usize], grouping.steps[next as usize]);
                    let key = Key::new(hasher, step.column, change.key);
                    group.push(Target { shard: step.shard as usize, key, value: change.value });
                    next = step.next;
                }
                writer.write(&group);
            }
            if writer.copies > 0 {
                // Relaxed: a plain sum; the crew's end of work publishes it.
                copies.fetch_add(writer.copies, Ordering::Relaxed);
            }
        });
        self.copies += copies.load(Ordering::Relaxed);
    }
}

/// A change, and where it goes.
struct Target<'c> {
    shard: usize,
    key: Key<'c>,
    value: Option<&'c [u8]>,
}

type Group<'c> = SmallVec<[Target<'c>; GROUP]>;

/// Writes changes into shards.
struct Writer<'s> {
    shards: &'s mut [Shard],
    hasher: &'s RandomState,
    /// Shards that were copied for that.
    copies: u64,
}

impl Writer<'_> {
    fn write(&mut self, group: &Group<'_>) {
        bring_near(self.shards, group.iter().map(|target| (target.shard, target.key.hash)));
        for &Target { shard, key, value } in group {
            let shard = &mut self.shards[shard];
            match value {
                Some(value) => shard.set(self.hasher, &mut self.copies, key, value),
                None => shard.remove(self.hasher, &mut self.copies, key),
            }
        }
    }
}

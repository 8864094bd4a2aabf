//! The commit pass: a batch's last values into the shards, on several threads if that pays.
//!
//! The shards are cut into pieces, a few per thread or more, and the changes are grouped by piece: a list per piece, as indexes
//! into the changes. Each piece then belongs to whichever thread takes it, so threads share nothing but the changes that
//! they read. As no key occurs twice in the changes, their order does not matter. All buffers are kept for the next
//! batch.
//!
//! Finding a key is four loads, each of which needs the one before, and most of them miss the nearest cache. So a thread that
//! is alone takes changes in groups: first all keys of a group are found, then all are written. The searches do not depend on
//! each other, and the processor overlaps their waits. (Where threads share the work, the lists are short and the lines come
//! from other cores; there it did not pay.)

use triomphe::Arc;

use super::shard::{Found, Shard, table_hash};
use super::{ShardedState, Spot, own, shard_index};
use crate::error::StateError;
use crate::state::{Change, Crew, for_each_chunk};
use crate::sync::{AtomicU64, Ordering};

/// Below this many changes, calling the other threads costs more than they save.
const PARALLEL: usize = if cfg!(shuttle) { 4 } else { 64 };
/// Into how many pieces per thread the shards are cut, at least, so that a thread that starts late finds less work, not none.
const PIECES: usize = 4;
/// And so many changes a piece gets, at most, so that what they touch stays near.
const PIECE: usize = 256;
/// Changes whose keys are looked for together.
const GROUP: usize = 8;
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
            let mut spots = [None; GROUP];
            let mut found = [None; GROUP];
            for (spot, change) in spots.iter_mut().zip(changes) {
                *spot = self.target(change, &mut column);
            }
            for ((found, spot), change) in found.iter_mut().zip(&spots).zip(changes) {
                *found = spot.and_then(|spot| self.locate(spot, change.key));
            }
            // What was found stays where it is until a record is added, removed or resized.
            let mut moved = false;
            for ((change, spot), found) in changes.iter().zip(&spots).zip(&found) {
                let Some(spot) = *spot else { continue };
                let found = if moved { self.locate(spot, change.key) } else { *found };
                moved |= self.write(change, spot, found);
            }
        }
    }

    /// Where a change goes; nowhere if it removes a key of a column that there is not. `last` is as for `column_of`.
    #[inline]
    fn target<'c>(&mut self, change: &Change<'c>, last: &mut Option<(&'c str, u32)>) -> Option<Spot> {
        let id = self.column_of(change, last)?;
        Some(self.spot(id, self.columns.get(id), change.key))
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

    #[inline]
    fn locate(&self, spot: Spot, key: &[u8]) -> Option<Found> {
        self.shards[spot.shard].locate(spot.hash, spot.column, key)
    }

    /// Writes a change to the place that was found for it; true if others may have moved by that.
    #[inline]
    fn write(&mut self, change: &Change<'_>, spot: Spot, found: Option<Found>) -> bool {
        let (shard, hash, hasher) = (&mut self.shards[spot.shard], spot.hash, &self.hasher);
        match (change.value, found) {
            (Some(value), Some(found)) => {
                let resized = shard.value(found).len() != value.len();
                own(shard, &mut self.copies).overwrite(hasher, hash, found, change.key, value);
                resized
            }
            (Some(value), None) => {
                own(shard, &mut self.copies).insert(hasher, hash, spot.column, change.key, value);
                true
            }
            (None, Some(found)) => {
                own(shard, &mut self.copies).remove(hasher, found);
                true
            }
            (None, None) => false,
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
        for_each_chunk(crew, &mut self.shards, piece_len, |start, shards: &mut [Arc<Shard>]| {
            let mut copied = 0;
            let mut next = grouping.first[start / piece_len];
            while next != END {
                let change = &changes[next as usize];
                let step = grouping.steps[next as usize];
                let shard = &mut shards[step.shard as usize];
                let hash = table_hash(hasher, step.column, change.key);
                match (change.value, shard.locate(hash, step.column, change.key)) {
                    (Some(value), Some(found)) => {
                        own(shard, &mut copied).overwrite(hasher, hash, found, change.key, value);
                    }
                    (Some(value), None) => {
                        own(shard, &mut copied).insert(hasher, hash, step.column, change.key, value);
                    }
                    (None, Some(found)) => own(shard, &mut copied).remove(hasher, found),
                    (None, None) => (),
                }
                next = step.next;
            }
            if copied > 0 {
                // Relaxed: a plain sum; the crew's end of work publishes it.
                copies.fetch_add(copied, Ordering::Relaxed);
            }
        });
        self.copies += copies.load(Ordering::Relaxed);
    }
}

//! The commit pass: a batch's last values into the shards, on several threads if that pays.
//!
//! Changes are grouped by shard: a list per shard, as indexes into the changes. Each shard then belongs to whichever
//! thread takes it, so threads share nothing but the changes that they read. As no key occurs twice in the changes,
//! the order between shards does not matter. All buffers are kept for the next batch.

use super::shard::table_hash;
use super::{ShardedState, own, shard_index};
use crate::error::StateError;
use crate::state::{CRUDState, Change, Crew, for_each_mut};
use crate::sync::{AtomicU64, Ordering};

/// Below this many changes, waking the other threads costs more than they save.
const PARALLEL: usize = 512;
/// Into how many pieces per thread the shards are cut, so that a thread that starts late finds less work, not none.
const PIECES: usize = 8;
/// The end of a list.
const END: u32 = u32::MAX;

/// Lists of changes by shard.
#[derive(Debug, Default)]
pub struct Grouping {
    /// Per shard: its first change.
    first: Vec<u32>,
    /// Per change: what to do.
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    /// The next change of the same shard.
    next: u32,
    column: u32,
}

impl ShardedState {
    /// Applies `changes`, each to another key.
    pub(super) fn apply(&mut self, changes: &[Change<'_>], crew: &mut dyn Crew) -> Result<(), StateError> {
        let too_long = |bytes: &[u8]| u32::try_from(bytes.len()).is_err();
        if changes.iter().any(|change| too_long(change.key) || change.value.is_some_and(too_long)) {
            return Err(StateError::Malformed { what: "a key or a value of 4 GiB or more".into() });
        }
        if crew.threads() < 2 || changes.len() < PARALLEL || changes.len() >= END as usize {
            for change in changes {
                match change.value {
                    Some(value) => self.put(change.column, change.key, value),
                    None => self.remove(change.column, change.key),
                }
            }
            return Ok(());
        }
        let mut grouping = std::mem::take(&mut self.grouping);
        self.group(changes, &mut grouping);
        self.apply_groups(changes, &grouping, crew);
        self.grouping = grouping;
        Ok(())
    }

    fn group(&mut self, changes: &[Change<'_>], grouping: &mut Grouping) {
        let Grouping { first, steps } = grouping;
        first.clear();
        first.resize(self.shards.len(), END);
        steps.clear();
        for (index, change) in changes.iter().enumerate() {
            let known = self.columns.find(change.column).map(|(id, _)| id);
            let id = match (known, change.value) {
                (Some(id), _) => id,
                (None, Some(_)) => self.add_column(change.column),
                (None, None) => {
                    // Nothing of this column is here to be removed. The step only keeps the numbering.
                    steps.push(Step { next: END, column: END });
                    continue;
                }
            };
            let place = self.columns.get(id).place(change.key);
            let head = &mut first[shard_index(place, self.shards.len())];
            steps.push(Step { next: *head, column: id });
            *head = index as u32;
        }
    }

    fn apply_groups(&mut self, changes: &[Change<'_>], grouping: &Grouping, crew: &mut dyn Crew) {
        let hasher = &self.hasher;
        let copies = AtomicU64::new(0);
        let piece = (self.shards.len() / (crew.threads() * PIECES)).max(1);
        for_each_mut(crew, &mut self.shards, piece, |index, shard| {
            let mut copied = 0;
            let mut next = grouping.first[index];
            while next != END {
                let change = &changes[next as usize];
                let Step { next: after, column } = grouping.steps[next as usize];
                let hash = table_hash(hasher, column, change.key);
                match (change.value, shard.locate(hash, column, change.key)) {
                    (Some(value), Some(found)) => {
                        own(shard, &mut copied).overwrite(hasher, hash, found, change.key, value)
                    }
                    (Some(value), None) => {
                        own(shard, &mut copied).insert(hasher, hash, column, change.key, value)
                    }
                    (None, Some(found)) => own(shard, &mut copied).remove(hasher, found),
                    (None, None) => (),
                }
                next = after;
            }
            if copied > 0 {
                // Relaxed: a plain sum; the crew's end of work publishes it.
                copies.fetch_add(copied, Ordering::Relaxed);
            }
        });
        self.copies += copies.load(Ordering::Relaxed);
    }
}

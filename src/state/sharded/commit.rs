//! The commit pass: a batch's last values into the shards, on several threads if that pays.
//!
//! The shards are cut into pieces, of which each belongs to whichever thread takes it. What goes there is known: the engine has
//! sorted the changes by [`place`](crate::state::CRUDState::place), which begins with the number of the shard. So threads share
//! nothing but the changes that they read. As no key occurs twice in the changes, their order does not matter.
//!
//! Most keys are far away from the processor, and so are changes that another thread's operations made. So changes are taken a
//! few at a time, these are asked for at once, and so is the memory of their keys (`near.rs`), before the first of them is
//! written. One thread that has run the whole batch alone asks for nothing where the state is small: it has been there before.

use std::sync::PoisonError;

use ahash::RandomState;
use smallvec::SmallVec;

use super::columns::Columns;
use super::key::Key;
use super::near::bring_near_to_write;
use super::shard::Shard;
use super::{ShardedState, shard_index};
use crate::state::{Change, Changes, Crew, for_each_chunk_after};
use crate::sync::{AtomicU64, Mutex, Ordering};

/// Below this many changes, calling the other threads costs more than they save.
const PARALLEL: usize = if cfg!(shuttle) { 4 } else { 64 };
/// With more threads than this, one needs but a part of the lists' cache lines.
const LISTS: usize = 8;
/// Changes that are brought near together.
const NEAR: usize = 16;
/// A state of this many bytes is near enough for one thread that has run the whole batch.
const SMALL: usize = 1 << 19;

impl ShardedState {
    /// Applies `changes`, each to another key.
    pub(super) fn apply(&mut self, changes: &Changes<'_>, crew: &mut dyn Crew) {
        if crew.threads() > 1 && changes.len() >= PARALLEL && changes.groups() > 0 {
            self.apply_groups(changes, crew);
        } else {
            self.apply_here(changes, 0..changes.len());
        }
    }

    /// Applies those of `changes` that have these `indexes` on this thread. Only if they are in groups, other threads have made some
    /// of them, and have looked at their keys.
    fn apply_here(&mut self, changes: &Changes<'_>, mut indexes: impl Iterator<Item = usize>) {
        let is_shared = changes.groups() > 0;
        let mut column = None;
        let mut is_small = !is_shared;
        loop {
            let near: SmallVec<[usize; NEAR]> = indexes.by_ref().take(NEAR).collect();
            if near.is_empty() {
                return;
            }
            if is_shared {
                near.iter().for_each(|&index| changes.prefetch(index));
            }
            let mut targets = Targets::new();
            for index in near {
                let change = changes.get(index);
                if let Some(id) = self.column_of(&change, &mut column) {
                    let (shard, key) = self.spot(id, self.columns.get(id), change.key);
                    targets.push(Target::new(shard, key, &change));
                }
            }
            let mut writer = Writer::new(&mut self.shards, &self.columns, &self.hasher);
            is_small = is_small && writer.is_small(&targets);
            if !is_small {
                writer.bring_near(&targets);
            }
            writer.write(&targets);
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
                let id = match change.value.or(change.operand) {
                    Some(_) => known.unwrap_or_else(|| self.add_column(change.column)),
                    None => known?,
                };
                *last = Some((change.column, id));
                Some(id)
            }
        }
    }

    /// Applies `changes`, which are in groups, on all threads; those of new columns afterwards, on this one.
    fn apply_groups(&mut self, changes: &Changes<'_>, crew: &mut dyn Crew) {
        let (columns, hasher, len) = (&*self.columns, &self.hasher, self.shards.len());
        let copies = AtomicU64::new(0);
        let new = Mutex::new(Vec::new());
        // All are powers of two.
        let pieces = changes.groups().min(len);
        let (piece_len, groups) = (len / pieces, changes.groups() / pieces);
        // Whoever retired a unit wrote its part of the lists, and a list's next entry is known only when this one is there.
        let nears_lists = crew.threads() <= LISTS;
        let before = || {
            if nears_lists {
                changes.prefetch_lists();
            }
        };
        for_each_chunk_after(crew, &mut self.shards, piece_len, before, |start, shards: &mut [Shard]| {
            let mut writer = Writer::new(shards, columns, hasher);
            let first = start / piece_len * groups;
            let mut indexes = changes.group(first..first + groups);
            loop {
                let near: SmallVec<[usize; NEAR]> = indexes.by_ref().take(NEAR).collect();
                if near.is_empty() {
                    break;
                }
                near.iter().for_each(|&index| changes.prefetch(index));
                let mut targets = Targets::new();
                for &index in &near {
                    let change = changes.get(index);
                    let Some((id, column)) = columns.find(change.column) else {
                        new.lock().unwrap_or_else(PoisonError::into_inner).push(index);
                        continue;
                    };
                    let shard = shard_index(column.place(change.key), len) - start;
                    targets.push(Target::new(shard, Key::new(hasher, id, change.key), &change));
                }
                writer.bring_near(&targets);
                writer.write(&targets);
            }
            if writer.copies > 0 {
                // Relaxed: a plain sum; the crew's end of work publishes it.
                copies.fetch_add(writer.copies, Ordering::Relaxed);
            }
        });
        self.copies += copies.load(Ordering::Relaxed);
        let new = new.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.apply_here(changes, new.into_iter());
    }
}

/// A change, and where it goes.
struct Target<'c> {
    shard: u32,
    /// The value is an operand.
    merges: bool,
    key: Key<'c>,
    value: Option<&'c [u8]>,
}

impl<'c> Target<'c> {
    #[inline]
    fn new(shard: usize, key: Key<'c>, change: &Change<'c>) -> Self {
        let value = change.operand.or(change.value);
        Target { shard: shard as u32, merges: change.operand.is_some(), key, value }
    }
}

type Targets<'c> = SmallVec<[Target<'c>; NEAR]>;

/// Writes changes into shards.
struct Writer<'s> {
    shards: &'s mut [Shard],
    columns: &'s Columns,
    hasher: &'s RandomState,
    /// Shards that were copied for that.
    copies: u64,
    /// For merges by operators of the user's own.
    merged: Vec<u8>,
}

impl<'s> Writer<'s> {
    fn new(shards: &'s mut [Shard], columns: &'s Columns, hasher: &'s RandomState) -> Self {
        Writer { shards, columns, hasher, copies: 0, merged: Vec::new() }
    }

    /// True if all shards together are probably small: if they are like those of the targets.
    fn is_small(&self, targets: &Targets<'_>) -> bool {
        let size: usize = targets.iter().map(|target| self.shards[target.shard as usize].size()).sum();
        size * self.shards.len() <= SMALL * targets.len()
    }

    fn bring_near(&self, targets: &Targets<'_>) {
        bring_near_to_write(
            self.shards,
            targets.iter().map(|target| (target.shard as usize, target.key.hash)),
        );
    }

    fn write(&mut self, targets: &Targets<'_>) {
        let Writer { shards, columns, hasher, copies, merged } = self;
        for &Target { shard, merges, key, value } in targets {
            let shard = &mut shards[shard as usize];
            match value {
                Some(operand) if merges => {
                    let with = (columns.get(key.column).operator, operand);
                    shard.merge(hasher, copies, key, with, merged);
                }
                Some(value) => shard.set(hasher, copies, key, value),
                None => shard.remove(hasher, copies, key),
            }
        }
    }
}

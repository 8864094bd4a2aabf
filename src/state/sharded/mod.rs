//! The built-in state: a hash map in copy-on-write shards.
//!
//! ```text
//! ShardedState ── shards ──► [ Shard │ Shard │ Shard │ ... ]     a key's shard: the top bits of its stable hash
//!                                ▼       ▼       ▼
//!                              Table   Table   Table              slots and one byte buffer each (`table`)
//!                                ▲       ▲       ▲
//! its snapshot ── shards ──► [ Shard │ Shard │ Shard │ ... ]
//! ```
//!
//! A snapshot counts references, one or two per shard, and copies nothing. What is written while it lives goes beside the shared
//! tables; only where that becomes a sixteenth of a table, the table is copied (`shard`). Shards are kept small (about
//! 32 kB at a million entries of 100 bytes and the default of 4096 shards), so that these copies are, too.
//! [`ShardedState::shard_copies`] counts them.
//!
//! Two hashes, for two reasons. The *stable* hash places a key in a shard. It is the same on every machine, because
//! shards are the parts of state transfer. Whoever knows it can crowd one shard, which costs balance only. The
//! *table* hash finds the key inside the shard. It is seeded per process, so nobody outside can make keys collide.
//!
//! Nothing that leaves a state depends on its history, its seed or the order in which it met its columns: not the
//! digests, not the parts (`parts`), not the serialized form (`codec`), not the order of [`ShardedState::iter`].
//!
//! Keys and values are at most 4 GiB - 1 bytes long; writing a longer one panics. Columns are few and stay: the name of one that has
//! been used is kept, also when no key is left in it.

mod codec;
mod columns;
mod commit;
mod key;
mod near;
mod parts;
mod record;
mod shard;
mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::OnceLock;

use ahash::RandomState;
use triomphe::Arc;

use self::columns::{Column, Columns};
use self::key::Key;
use self::near::bring_near;
use self::shard::Shard;
use super::{CRUDState, Changes, Crew, MergeOperator, Whereabouts};
use crate::batch::SeqNo;
use crate::error::{ConfigError, StateError};

pub use self::parts::{PartId, StateDescriptor, StatePart};
pub use self::shard::Digest;

/// Shards of a state that does not choose another number.
const DEFAULT_SHARDS: usize = 4096;
/// More would make a snapshot dear, and no smaller shards are useful.
const MAX_SHARDS: usize = 1 << 16;

/// The built-in state: a hash map in copy-on-write shards.
///
/// `clone` is a snapshot: O(shards), no data is copied. Each operation takes expected O(1) time plus that of copying
/// the bytes it is given or returns; writes are amortized. While a snapshot shares a shard, what is written to it is kept
/// beside it, up to a sixteenth of its size; the write that would exceed that copies the shard.
///
/// Keys and values are at most 4 GiB - 1 bytes long; writing a longer one panics.
pub struct ShardedState {
    shards: Vec<Shard>,
    columns: Arc<Columns>,
    hasher: RandomState,
    copies: u64,
    /// A buffer for reuse; it holds nothing between calls.
    merged: Vec<u8>,
}

/// Settings of a [`ShardedState`]; from [`ShardedState::builder`].
#[derive(Clone, Debug)]
pub struct ShardedStateBuilder {
    shards: usize,
    columns: Columns,
}

impl ShardedStateBuilder {
    /// The number of shards, which is also the number of parts: 1 to 65536, rounded up to a power of two. Default
    /// 4096. More shards make a copy of one shorter, and a snapshot longer; a shard of less than about 16 keys is copied as soon
    /// as it is written to beside a snapshot.
    #[must_use]
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = shards;
        self
    }

    /// How merges combine in `column`; [`MergeOperator::WrappingAdd`] unless told. All replicas must agree.
    #[must_use]
    pub fn merge_operator(mut self, column: &str, operator: MergeOperator) -> Self {
        self.columns.set_operator(column, operator);
        self
    }

    /// The empty state with these settings.
    ///
    /// # Errors
    ///
    /// No shards, or more than 65536.
    pub fn build(self) -> Result<ShardedState, ConfigError> {
        if self.shards == 0 {
            return Err(ConfigError::Zero { name: "shards" });
        }
        if self.shards > MAX_SHARDS {
            return Err(ConfigError::TooLarge { name: "shards", value: self.shards, max: MAX_SHARDS });
        }
        Ok(ShardedState::with(self.shards.next_power_of_two(), self.columns))
    }
}

impl Default for ShardedState {
    fn default() -> Self {
        Self::new()
    }
}

impl Clone for ShardedState {
    fn clone(&self) -> Self {
        self.snapshot()
    }
}

impl fmt::Debug for ShardedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardedState").field("shards", &self.shards.len()).field("len", &self.len()).finish()
    }
}

/// One seed for the whole process, so that snapshots, parts and states can share shards.
fn process_hasher() -> RandomState {
    static HASHER: OnceLock<RandomState> = OnceLock::new();
    HASHER.get_or_init(RandomState::new).clone()
}

/// The index of the shard, of `shards`, where a key of this stable hash lives.
#[inline]
fn shard_index(place: u64, shards: usize) -> usize {
    // The top bits, as `shards` is a power of two of at most 2^16.
    ((place >> 48) as usize * shards) >> 16
}

impl ShardedState {
    /// The empty state with the default settings.
    pub fn new() -> Self {
        Self::with(DEFAULT_SHARDS, Columns::default())
    }

    /// Settings to build a state from.
    pub fn builder() -> ShardedStateBuilder {
        ShardedStateBuilder { shards: DEFAULT_SHARDS, columns: Columns::default() }
    }

    fn with(shards: usize, columns: Columns) -> Self {
        // Each shard is an allocation of its own: a shared one would be copied, and counted, at its first use.
        let shards = (0..shards).map(|_| Shard::default()).collect();
        Self::of(shards, Arc::new(columns))
    }

    fn of(shards: Vec<Shard>, columns: Arc<Columns>) -> Self {
        ShardedState { shards, columns, hasher: process_hasher(), copies: 0, merged: Vec::new() }
    }

    /// A consistent copy that shares all data: O(shards), one reference count each, or two. Its copies count from 0.
    pub fn snapshot(&self) -> Self {
        Self::of(self.shards.clone(), self.columns.clone())
    }

    /// Number of keys in all columns. O(shards).
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.len()).sum()
    }

    /// True if there is no key in any column. O(shards).
    pub fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| shard.len() == 0)
    }

    /// Number of shards.
    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// How many shards this value has copied whole because a snapshot (or the state it was taken from) shared them.
    pub fn shard_copies(&self) -> u64 {
        self.copies
    }

    /// Sets how merges combine in `column`, as the builder does. For states from
    /// [`deserialize`](super::MonolithicState::deserialize), which cannot restore operators of the user's own.
    pub fn set_merge_operator(&mut self, column: &str, operator: MergeOperator) {
        Arc::make_mut(&mut self.columns).set_operator(column, operator);
    }

    /// All entries `(column, key, value)` in ascending order of (stable hash of column and key, column, key): the
    /// same order on every machine, for every number of shards, after every history. Sorts shard by shard, so it
    /// takes O(n log(n / shards)) time and memory for one shard's index.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8], &[u8])> {
        self.shards.iter().flat_map(|shard| {
            let place = |(id, key, value)| {
                let column = self.columns.get(id);
                (column.place(key), &*column.name, key, value)
            };
            let mut entries: Vec<(u64, &str, &[u8], &[u8])> = shard.iter(&self.hasher).map(place).collect();
            entries.sort_unstable();
            entries.into_iter().map(|(_, column, key, value)| (column, key, value))
        })
    }

    /// The digest of all entries: equal if and only if the content is, whatever the number of shards, the seed and
    /// the history. Merge operators are settings, not content. Hashes everything, O(n); for comparing checkpoints,
    /// [`StateDescriptor::digest`] hashes only what changed.
    pub fn digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        let mut block = b"atlas sharded state, content, version 1".to_vec();
        for (column, key, value) in self.iter() {
            for len in [column.len(), key.len(), value.len()] {
                block.extend_from_slice(&(len as u64).to_le_bytes());
            }
            block.extend_from_slice(column.as_bytes());
            block.extend_from_slice(key);
            block.extend_from_slice(value);
            // Long blocks let the hash use wide instructions.
            if block.len() >= 1 << 16 {
                hasher.update(&block);
                block.clear();
            }
        }
        *hasher.update(&block).finalize().as_bytes()
    }

    /// Where a key is looked for: in which shard, and as what.
    // Always in registers: a result in memory is copied in pieces wider than those it was written in, and such a load waits
    // for all stores before it, also for those into the last key's record, which is far away.
    #[inline(always)]
    fn spot<'k>(&self, id: u32, column: &Column, key: &'k [u8]) -> (usize, Key<'k>) {
        (shard_index(column.place(key), self.shards.len()), Key::new(&self.hasher, id, key))
    }

    /// The spot of a key, or nothing if its column was never written.
    #[inline(always)]
    fn find_spot<'k>(&self, column: &str, key: &'k [u8]) -> Option<(usize, Key<'k>)> {
        let (id, column) = self.columns.find(column)?;
        Some(self.spot(id, column, key))
    }

    /// The spot of a key that is about to be written.
    #[inline(always)]
    fn make_spot<'k>(&mut self, column: &str, key: &'k [u8]) -> (usize, Key<'k>) {
        match self.find_spot(column, key) {
            Some(spot) => spot,
            None => {
                let id = self.add_column(column);
                self.spot(id, self.columns.get(id), key)
            }
        }
    }

    #[cold]
    fn add_column(&mut self, column: &str) -> u32 {
        Arc::make_mut(&mut self.columns).intern(column)
    }
}

impl CRUDState for ShardedState {
    const COMMITS_OPERANDS: bool = true;

    fn read(&self, column: &str, key: &[u8]) -> Option<Vec<u8>> {
        self.read_with(column, key, |value| value.map(<[u8]>::to_vec))
    }

    /// False changes, and copies, nothing.
    fn create(&mut self, column: &str, key: &[u8], value: &[u8]) -> bool {
        let (shard, key) = self.make_spot(column, key);
        let shard = &mut self.shards[shard];
        if shard.get(key).is_some() {
            return false;
        }
        shard.insert(&self.hasher, &mut self.copies, key, value);
        true
    }

    fn update(&mut self, column: &str, key: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        let (shard, key) = self.make_spot(column, key);
        self.shards[shard].replace(&self.hasher, &mut self.copies, key, value)
    }

    /// The removal of an absent key changes, and copies, nothing.
    fn delete(&mut self, column: &str, key: &[u8]) -> Option<Vec<u8>> {
        let (shard, key) = self.find_spot(column, key)?;
        self.shards[shard].take(&self.hasher, &mut self.copies, key)
    }

    #[inline]
    fn read_with<R>(&self, column: &str, key: &[u8], f: impl FnOnce(Option<&[u8]>) -> R) -> R {
        f(self.find_spot(column, key).and_then(|(shard, key)| self.shards[shard].get(key)))
    }

    #[inline]
    fn whereabouts(&self, column: &str, key: &[u8]) -> Option<Whereabouts> {
        self.find_spot(column, key).map(|(shard, key)| Whereabouts([shard as u64, key.hash]))
    }

    /// # Panics
    ///
    /// If `keys` are those of a state with more shards.
    fn prefetch(&self, keys: &[Whereabouts]) {
        bring_near(&self.shards, keys.iter().map(|&Whereabouts([shard, hash])| (shard as usize, hash)));
    }

    #[inline]
    fn put(&mut self, column: &str, key: &[u8], value: &[u8]) {
        let (shard, key) = self.make_spot(column, key);
        self.shards[shard].set(&self.hasher, &mut self.copies, key, value);
    }

    /// The removal of an absent key changes, and copies, nothing.
    #[inline]
    fn remove(&mut self, column: &str, key: &[u8]) {
        let Some((shard, key)) = self.find_spot(column, key) else { return };
        self.shards[shard].remove(&self.hasher, &mut self.copies, key);
    }

    fn merge_operator(&self, column: &str) -> MergeOperator {
        self.columns.find(column).map(|(_, column)| column.operator).unwrap_or_default()
    }

    fn merge(&mut self, column: &str, key: &[u8], operand: &[u8]) {
        let (shard, key) = self.make_spot(column, key);
        let with = (self.columns.get(key.column).operator, operand);
        self.shards[shard].merge(&self.hasher, &mut self.copies, key, with, &mut self.merged);
    }

    /// The beginning of the key's stable hash.
    #[inline]
    fn place(&self, column: &str, key: &[u8]) -> Option<u16> {
        Some((self.columns.place(column, key) >> 48) as u16)
    }

    /// Applies the changes; many of them, if they are in groups, shard by shard, on all of the crew's threads.
    fn commit(&mut self, _seq: SeqNo, changes: &Changes<'_>, crew: &mut dyn Crew) -> Result<(), StateError> {
        self.apply(changes, crew);
        Ok(())
    }
}

//! One shard: a table that snapshots share, and beside it what was written since they were taken.
//!
//! ```text
//! Shard ─┬─ base ────► table              all of the shard; or, if there is a `recent`, what it once was
//!        └─ recent ──► written, removed   what changed since; only while a snapshot shares the base, or did
//! ```
//!
//! A batch writes to nearly as many shards as it has operations. If the first write after a snapshot copied its shard, a batch
//! of 128 puts would copy 4 MB (at a million entries of 100 bytes), into memory that the process may have to ask the system for.
//! So what is written goes beside the shared table, where searches look first:
//!
//! - When that has grown to a sixteenth of the table, the table is copied after all, and takes it in. Shards
//!   get there one by one, so a batch meets few of these copies.
//! - A snapshot shares the recent part, too. The next write copies it.
//! - When no snapshot shares the table any more, the next write to the shard moves the recent part into it. Until then, reads
//!   look at both.
//!
//! Where nobody takes snapshots there is nothing beside the table, and a search or a write is that of the table.

use std::sync::OnceLock;

use ahash::RandomState;
use smallvec::SmallVec;
use triomphe::Arc;

use super::key::Key;
use super::record::record_size;
use super::table::Table;
use crate::raw::prefetch::prefetch;
use crate::state::MergeOperator;

/// A blake3 digest.
pub type Digest = [u8; 32];

/// The keys of the recent part take at most the table's size divided by this.
const PART: usize = 16;
/// It begins with room for at most so many bytes and keys: enough for shards of the usual size not to grow it.
const ROOM: (usize, usize) = (4096, 48);
/// Entries that are brought near together.
const TOGETHER: usize = 16;

/// See the module's documentation. Its clone is a snapshot of it.
#[derive(Clone, Debug, Default)]
pub struct Shard {
    base: Arc<Base>,
    recent: Option<Arc<Recent>>,
}

// The order of the fields keeps what a read needs in one cache line.
#[repr(C)]
#[derive(Debug, Default)]
struct Base {
    table: Table,
    /// The digest of the table's canonical bytes, if it is known.
    digest: OnceLock<Digest>,
}

impl Base {
    /// The table, to be changed.
    #[inline]
    fn write(&mut self) -> &mut Table {
        self.digest.take();
        &mut self.table
    }
}

/// How a shard differs from its base.
// The order of the fields: what a read needs first comes first.
#[repr(C)]
#[derive(Debug)]
struct Recent {
    /// Entries that are not in the base, or have another value there.
    written: Table,
    /// Keys of the base that the shard no longer has; without values.
    removed: Table,
    /// Keys of the shard.
    len: usize,
    /// The digest of the shard's canonical bytes, if it is known.
    digest: OnceLock<Digest>,
}

impl Clone for Recent {
    /// A copy to be written to.
    fn clone(&self) -> Self {
        Recent {
            written: self.written.copy(ROOM.0.saturating_sub(self.written.size())),
            removed: self.removed.copy(0),
            len: self.len,
            digest: OnceLock::new(),
        }
    }
}

impl Recent {
    /// No difference.
    fn beside(base: &Table) -> Self {
        Recent {
            written: Table::with_capacity(
                (base.size() / PART).min(ROOM.0),
                (base.len() / PART + 1).min(ROOM.1),
            ),
            removed: Table::default(),
            len: base.len(),
            digest: OnceLock::new(),
        }
    }

    /// Bytes of its records, if that of `key` will have so many.
    fn size_with(&self, key: Key<'_>, record: usize) -> usize {
        self.written.size() + self.removed.size() - self.written.size_of(key) + record
    }

    /// True if the base does not tell what the shard has for this key.
    fn knows(&self, key: Key<'_>) -> bool {
        self.written.locate(key).is_some() || self.removed.locate(key).is_some()
    }

    fn get<'s>(&'s self, base: &'s Table, key: Key<'_>) -> Option<&'s [u8]> {
        match self.written.get(key) {
            None if self.removed.locate(key).is_none() => base.get(key),
            value => value,
        }
    }

    fn set(&mut self, hasher: &RandomState, base: &Table, key: Key<'_>, value: &[u8]) {
        self.digest.take();
        if let Some(found) = self.written.locate(key) {
            return self.written.overwrite(hasher, found, key, value);
        }
        // First, as it panics where the value is too long.
        self.written.insert(hasher, key, value);
        let removed = self.removed.locate(key);
        self.len += usize::from(removed.is_some() || base.locate(key).is_none());
        if let Some(found) = removed {
            self.removed.remove(hasher, found);
        }
    }

    /// Removes a key that the shard has.
    fn remove(&mut self, hasher: &RandomState, base: &Table, key: Key<'_>) {
        self.digest.take();
        self.len -= 1;
        if let Some(found) = self.written.locate(key) {
            self.written.remove(hasher, found);
        }
        if base.locate(key).is_some() {
            self.removed.insert(hasher, key, &[]);
        }
    }

    /// Changes the base to what the shard is.
    fn move_into(&self, hasher: &RandomState, base: &mut Table) {
        if self.removed.len() == base.len() {
            *base = Table::default();
        }
        for (column, key, _) in self.removed.iter() {
            if let Some(found) = base.locate(Key::new(hasher, column, key)) {
                base.remove(hasher, found);
            }
        }
        let mut written =
            self.written.iter().map(|(column, key, value)| (Key::new(hasher, column, key), value));
        loop {
            let group: SmallVec<[_; TOGETHER]> = written.by_ref().take(TOGETHER).collect();
            if group.is_empty() {
                return;
            }
            group.iter().for_each(|(key, _)| base.prefetch_slot(key.hash));
            group.iter().for_each(|(key, _)| base.prefetch_record(key.hash, prefetch));
            group.iter().for_each(|(key, value)| base.set(hasher, *key, value));
        }
    }
}

/// What a write changes.
enum Target<'s> {
    Base(&'s mut Base),
    /// The recent part, beside the base.
    Recent(&'s Table, &'s mut Recent),
}

/// Methods that write take the process's hasher, and count the tables that they copy in `copies`.
impl Shard {
    /// A shard that is this table, of this digest.
    pub fn with_digest(table: Table, digest: Digest) -> Self {
        Shard { base: Arc::new(Base { table, digest: OnceLock::from(digest) }), recent: None }
    }

    /// Keys present.
    pub fn len(&self) -> usize {
        self.recent.as_ref().map_or(self.base.table.len(), |recent| recent.len)
    }

    /// Bytes of its records, without what is beside the base.
    pub fn size(&self) -> usize {
        self.base.table.size()
    }

    /// The digest of the canonical bytes, from `compute` if it is not known. Snapshots share it.
    pub fn digest(&self, compute: impl FnOnce(&Shard) -> Digest) -> Digest {
        let known = self.recent.as_ref().map_or(&self.base.digest, |recent| &recent.digest);
        *known.get_or_init(|| compute(self))
    }

    /// The value of a key. Expected O(1).
    #[inline]
    pub fn get(&self, key: Key<'_>) -> Option<&[u8]> {
        match &self.recent {
            None => self.base.table.get(key),
            Some(recent) => recent.get(&self.base.table, key),
        }
    }

    /// All entries `(column, key, value)`, in an order that depends on the history.
    pub fn iter(&self, hasher: &RandomState) -> impl Iterator<Item = (u32, &[u8], &[u8])> {
        let recent = self.recent.as_deref();
        let stays = move |&(column, key, _): &(u32, &[u8], &[u8])| {
            recent.is_none_or(|recent| !recent.knows(Key::new(hasher, column, key)))
        };
        self.base
            .table
            .iter()
            .filter(stays)
            .chain(recent.into_iter().flat_map(|recent| recent.written.iter()))
    }

    /// The base, if it is the whole shard and nobody shares it.
    ///
    /// The count is only read, as `triomphe` has no weak references: std's `Arc::get_mut` would write to it each time, and
    /// so take the line with the table away from the threads that read it.
    #[inline]
    fn own(&mut self) -> Option<&mut Base> {
        match self.recent {
            None => Arc::get_mut(&mut self.base),
            Some(_) => None,
        }
    }

    /// Makes a shard that is not its own ready for a write that makes a record of `record` bytes.
    #[cold]
    fn prepare(&mut self, hasher: &RandomState, copies: &mut u64, key: Key<'_>, record: usize) -> Target<'_> {
        if !Arc::is_unique(&self.base) {
            let size = self.recent.as_ref().map_or(record, |recent| recent.size_with(key, record));
            if size <= self.base.table.size() / PART {
                let base = &self.base.table;
                let recent = self.recent.get_or_insert_with(|| Arc::new(Recent::beside(base)));
                return Target::Recent(base, Arc::make_mut(recent));
            }
            let recent = self.recent.as_ref().map_or(0, |recent| recent.written.size());
            self.base =
                Arc::new(Base { table: self.base.table.copy(recent + record), digest: OnceLock::new() });
            *copies += 1;
        }
        let base = Arc::get_mut(&mut self.base).expect("nobody shares it");
        if let Some(recent) = self.recent.take() {
            recent.move_into(hasher, base.write());
        }
        Target::Base(base)
    }

    /// `set` for a shard that is not its own.
    fn set_beside(&mut self, hasher: &RandomState, copies: &mut u64, key: Key<'_>, value: &[u8]) {
        match self.prepare(hasher, copies, key, record_size(key.bytes, value)) {
            Target::Base(base) => base.write().set(hasher, key, value),
            Target::Recent(base, recent) => recent.set(hasher, base, key, value),
        }
    }

    /// Sets a key. Expected O(1), amortized.
    #[inline]
    pub fn set(&mut self, hasher: &RandomState, copies: &mut u64, key: Key<'_>, value: &[u8]) {
        match self.own() {
            Some(base) => base.write().set(hasher, key, value),
            None => self.set_beside(hasher, copies, key, value),
        }
    }

    /// Adds a key that is known to be absent.
    pub fn insert(&mut self, hasher: &RandomState, copies: &mut u64, key: Key<'_>, value: &[u8]) {
        match self.own() {
            Some(base) => base.write().insert(hasher, key, value),
            None => self.set_beside(hasher, copies, key, value),
        }
    }

    /// Sets a key; what it was before.
    pub fn replace(
        &mut self,
        hasher: &RandomState,
        copies: &mut u64,
        key: Key<'_>,
        value: &[u8],
    ) -> Option<Vec<u8>> {
        let Some(base) = self.own() else {
            let before = self.get(key).map(<[u8]>::to_vec);
            self.set_beside(hasher, copies, key, value);
            return before;
        };
        let table = base.write();
        let Some(found) = table.locate(key) else {
            table.insert(hasher, key, value);
            return None;
        };
        let before = table.value(found).to_vec();
        table.overwrite(hasher, found, key, value);
        Some(before)
    }

    /// Folds `operand` into a key's value; `buffer` is for reuse.
    #[inline]
    pub fn merge(
        &mut self,
        hasher: &RandomState,
        copies: &mut u64,
        key: Key<'_>,
        (operator, operand): (MergeOperator, &[u8]),
        buffer: &mut Vec<u8>,
    ) {
        let Some(base) = self.own() else {
            let folded = operator.folded(self.get(key), operand, buffer);
            return self.set_beside(hasher, copies, key, folded.as_ref());
        };
        let found = base.table.locate(key);
        let folded = operator.folded(found.map(|found| base.table.value(found)), operand, buffer);
        match found {
            Some(found) => base.write().overwrite(hasher, found, key, folded.as_ref()),
            None => base.write().insert(hasher, key, folded.as_ref()),
        }
    }

    /// Removes a key if it is there. That of an absent key changes, and copies, nothing.
    #[inline]
    pub fn remove(&mut self, hasher: &RandomState, copies: &mut u64, key: Key<'_>) {
        match self.own() {
            Some(base) => {
                if let Some(found) = base.table.locate(key) {
                    base.write().remove(hasher, found);
                }
            }
            None => self.remove_beside(hasher, copies, key),
        }
    }

    /// Removes a key; what it was before.
    pub fn take(&mut self, hasher: &RandomState, copies: &mut u64, key: Key<'_>) -> Option<Vec<u8>> {
        let Some(base) = self.own() else {
            let before = self.get(key)?.to_vec();
            self.remove_beside(hasher, copies, key);
            return Some(before);
        };
        let found = base.table.locate(key)?;
        let before = base.table.value(found).to_vec();
        base.write().remove(hasher, found);
        Some(before)
    }

    /// `remove` for a shard that is not its own.
    fn remove_beside(&mut self, hasher: &RandomState, copies: &mut u64, key: Key<'_>) {
        if self.get(key).is_none() {
            return;
        }
        match self.prepare(hasher, copies, key, record_size(key.bytes, &[])) {
            Target::Base(base) => {
                let found = base.table.locate(key).expect("it is there");
                base.write().remove(hasher, found);
            }
            Target::Recent(base, recent) => recent.remove(hasher, base, key),
        }
    }

    /// Asks for the tables.
    #[inline]
    pub fn prefetch_tables(&self) {
        prefetch(&*self.base);
        if let Some(recent) = &self.recent {
            prefetch(&**recent);
        }
    }

    /// Asks for the slots where the search for a key begins.
    #[inline]
    pub fn prefetch_slots(&self, hash: u64) {
        self.base.table.prefetch_slot(hash);
        if let Some(recent) = &self.recent {
            recent.written.prefetch_slot(hash);
        }
    }

    /// Asks for the records of a key, where it is present; seldom, for that of another. `ask` is for the one that may be written.
    #[inline]
    pub fn prefetch_records(&self, hash: u64, ask: impl Fn(&u8)) {
        match &self.recent {
            None => self.base.table.prefetch_record(hash, ask),
            Some(recent) => {
                self.base.table.prefetch_record(hash, prefetch);
                recent.written.prefetch_record(hash, ask);
            }
        }
    }
}

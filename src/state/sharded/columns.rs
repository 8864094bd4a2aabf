//! The names of a state's columns, and where a key of a column lives.
//!
//! Inside a state a column is a small number, given in order of first use. The numbers differ between replicas, so
//! nothing that leaves the state holds them: parts, digests and the serialized form name their columns.

use ahash::RandomState;
use hashbrown::HashTable;
use rapidhash::v3::{RapidSecrets, rapidhash_v3_nano_inline};

use crate::state::MergeOperator;

/// Fixes the placement of keys; part of the format, never to be changed.
const PLACEMENT: RapidSecrets = RapidSecrets::seed(0x61746c61732d736d);
const MIX: u64 = 0xd6e8_feb8_6659_fd93;
/// Up to here a scan beats a table.
const SCAN: usize = 8;

/// A column.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its name.
    pub name: Box<str>,
    /// How its merges combine.
    pub operator: MergeOperator,
    /// The stable hash of its name.
    salt: u64,
}

impl Column {
    /// The stable hash of a key: the same on every machine. Its top bits choose the shard, whatever the number of
    /// shards, so ascending order of it is the same order for every number of shards.
    #[inline]
    pub fn place(&self, key: &[u8]) -> u64 {
        place(self.salt, key)
    }
}

#[inline]
fn place(salt: u64, key: &[u8]) -> u64 {
    let mixed = (stable_hash(key) ^ salt).wrapping_mul(MIX);
    mixed ^ (mixed >> 32)
}

#[inline]
fn stable_hash(bytes: &[u8]) -> u64 {
    rapidhash_v3_nano_inline::<true, false>(bytes, &PLACEMENT)
}

/// All columns that a state has seen. A column stays when its last key goes.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    list: Vec<Column>,
    /// Ids by name, once there are more than [`SCAN`].
    index: HashTable<u32>,
    hasher: RandomState,
}

impl Columns {
    /// The column of this name and its id. O(1).
    #[inline]
    pub fn find(&self, name: &str) -> Option<(u32, &Column)> {
        if self.list.len() > SCAN {
            return self.find_in_index(name);
        }
        let id = self.list.iter().position(|column| *column.name == *name)?;
        Some((id as u32, &self.list[id]))
    }

    #[cold]
    fn find_in_index(&self, name: &str) -> Option<(u32, &Column)> {
        let same = |&id: &u32| *self.list[id as usize].name == *name;
        let id = *self.index.find(self.hasher.hash_one(name), same)?;
        Some((id, &self.list[id as usize]))
    }

    /// [`Column::place`] of a key of the column of this name, also if that has not been seen yet.
    #[inline]
    pub fn place(&self, name: &str, key: &[u8]) -> u64 {
        match self.find(name) {
            Some((_, column)) => column.place(key),
            None => place(stable_hash(name.as_bytes()), key),
        }
    }

    /// The column with this id.
    #[inline]
    pub fn get(&self, id: u32) -> &Column {
        &self.list[id as usize]
    }

    /// The columns in order of their ids.
    pub fn iter(&self) -> std::slice::Iter<'_, Column> {
        self.list.iter()
    }

    /// The id of the column of this name, which is added if it is new.
    pub fn intern(&mut self, name: &str) -> u32 {
        if let Some((id, _)) = self.find(name) {
            return id;
        }
        let id = self.list.len() as u32;
        self.list.push(Column {
            name: name.into(),
            operator: MergeOperator::default(),
            salt: stable_hash(name.as_bytes()),
        });
        if self.list.len() > SCAN {
            let unindexed = self.index.len()..self.list.len();
            for id in unindexed {
                let hash = self.hasher.hash_one(&*self.list[id].name);
                let (list, hasher) = (&self.list, &self.hasher);
                self.index
                    .insert_unique(hash, id as u32, |&other| hasher.hash_one(&*list[other as usize].name));
            }
        }
        id
    }

    /// Sets how a column's merges combine.
    pub fn set_operator(&mut self, name: &str, operator: MergeOperator) {
        let id = self.intern(name);
        self.list[id as usize].operator = operator;
    }
}

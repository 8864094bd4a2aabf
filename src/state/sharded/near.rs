//! Bringing keys near: asking for the memory of many at once.
//!
//! A key's value is at the end of a chain: the shard, its slots, the record. Each address is in the line before, so a key alone
//! waits three times. The chains of different keys do not depend on each other, but a processor looks only so far ahead, and less
//! far where it shares its core with another thread. So the keys of a group go through the chain together, a link at a time,
//! and each link is only asked for, not waited for (group prefetching: Chen, Ailamaki, Gibbons, Mowry, ICDE 2004).

use super::shard::Shard;
use crate::raw::prefetch::{prefetch, prefetch_to_write};

/// Asks for the memory of keys that will be read, of which the index of the shard in `shards` and the hash are known.
#[inline]
pub fn bring_near(shards: &[Shard], keys: impl Iterator<Item = (usize, u64)> + Clone) {
    bring_near_by(prefetch, shards, keys);
}

/// The same, of keys that will be written to.
#[inline]
pub fn bring_near_to_write(shards: &[Shard], keys: impl Iterator<Item = (usize, u64)> + Clone) {
    bring_near_by(prefetch_to_write, shards, keys);
}

#[inline]
fn bring_near_by(
    ask: impl Fn(&u8) + Copy,
    shards: &[Shard],
    keys: impl Iterator<Item = (usize, u64)> + Clone,
) {
    keys.clone().for_each(|(shard, _)| shards[shard].prefetch_tables());
    keys.clone().for_each(|(shard, hash)| shards[shard].prefetch_slots(hash));
    keys.for_each(|(shard, hash)| shards[shard].prefetch_records(hash, ask));
}

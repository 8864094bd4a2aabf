//! The state in parts: one part per shard, so that a checkpoint sends only the shards that changed.
//!
//! A part's bytes are canonical: equal content gives equal bytes on every machine. All integers are little-endian.
//!
//! ```text
//! for each column with keys in the shard, ascending by name:
//!     name length u32, name, number of keys u64
//!     for each key, ascending: key length u32, value length u32, key, value
//! ```
//!
//! Its digest is the blake3 hash of these bytes; an empty shard's is the hash of nothing, a constant, so empty shards
//! need not be sent. A shard keeps its digest until it is written to, and shares it with its snapshots: describing a
//! state again hashes what changed since.
//!
//! A descriptor travels as `"ASMRDESC"`, version u32, number of parts u32, the parts' digests, and the blake3 hash of
//! all this.

use std::fmt;
use triomphe::Arc;

use ahash::RandomState;

use super::columns::Columns;
use super::key::Key;
use super::shard::{Digest, Shard};
use super::table::Table;
use super::{MAX_SHARDS, ShardedState, shard_index};
use crate::error::StateError;
use crate::state::DivisibleState;

const MAGIC: &[u8; 8] = b"ASMRDESC";
const VERSION: u32 = 1;
const DIGEST: usize = 32;
/// At most this many missing parts are named.
const NAMED: usize = 8;

/// Names a part: the index of its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartId(pub u32);

impl fmt::Display for PartId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {}", self.0)
    }
}

/// All parts of one moment of a state, by their digests. Cloning it counts a reference.
#[derive(Clone, PartialEq, Eq)]
pub struct StateDescriptor {
    digests: Arc<[Digest]>,
}

impl fmt::Debug for StateDescriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = blake3::Hash::from(self.digest()).to_hex();
        f.debug_struct("StateDescriptor")
            .field("parts", &self.len())
            .field("digest", &digest.as_str())
            .finish()
    }
}

impl StateDescriptor {
    /// Number of parts: the state's number of shards.
    pub fn len(&self) -> usize {
        self.digests.len()
    }

    /// False: every state has parts, if only empty ones.
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// The digest of one part, if there is such a part.
    pub fn part_digest(&self, id: PartId) -> Option<Digest> {
        self.digests.get(id.0 as usize).copied()
    }

    /// All parts and their digests, ascending.
    pub fn parts(&self) -> impl Iterator<Item = (PartId, Digest)> + '_ {
        (0..).map(PartId).zip(self.digests.iter().copied())
    }

    /// The digest of the whole: equal if and only if the content and the number of shards are. O(shards).
    pub fn digest(&self) -> Digest {
        *blake3::hash(&self.body()).as_bytes()
    }

    /// The descriptor as bytes; see the module's documentation for the format.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.body();
        let digest = blake3::hash(&bytes);
        bytes.extend_from_slice(digest.as_bytes());
        bytes
    }

    fn body(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16 + (self.digests.len() + 1) * DIGEST);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&(self.digests.len() as u32).to_le_bytes());
        bytes.extend_from_slice(self.digests.as_flattened());
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    ///
    /// Bytes that are cut short, malformed, or do not match their digest.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StateError> {
        let cut =
            |missing: usize| StateError::CutShort { missing: format!("{missing} bytes of the descriptor") };
        let Some((header, rest)) = bytes.split_first_chunk::<16>() else {
            return Err(cut(16 - bytes.len()));
        };
        let word = |i: usize| u32::from_le_bytes([header[i], header[i + 1], header[i + 2], header[i + 3]]);
        let count = word(12) as usize;
        if &header[..8] != MAGIC || word(8) != VERSION {
            return Err(malformed("no descriptor of version 1".into()));
        }
        if !count.is_power_of_two() || count > MAX_SHARDS {
            return Err(malformed(format!("a descriptor of {count} parts")));
        }
        let (digests, tail) = rest.as_chunks::<DIGEST>();
        match digests.len() {
            n if n <= count => return Err(cut((count + 1) * DIGEST - rest.len())),
            n if n == count + 1 && tail.is_empty() => (),
            _ => return Err(malformed("bytes after the descriptor".into())),
        }
        if *blake3::hash(&bytes[..16 + count * DIGEST]).as_bytes() != digests[count] {
            return Err(StateError::WrongDigest { part: "descriptor".into() });
        }
        Ok(StateDescriptor { digests: Arc::from(&digests[..count]) })
    }
}

/// The content of one shard. Its bytes are as received until [`DivisibleState::check_part`] has seen them.
#[derive(Clone, PartialEq, Eq)]
pub struct StatePart {
    id: PartId,
    digest: Digest,
    bytes: Vec<u8>,
}

impl fmt::Debug for StatePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatePart").field("id", &self.id).field("len", &self.len()).finish_non_exhaustive()
    }
}

impl StatePart {
    /// A part as it came over the network. Nothing is checked here.
    pub fn from_bytes(id: PartId, digest: Digest, bytes: Vec<u8>) -> Self {
        StatePart { id, digest, bytes }
    }

    /// The part's name.
    pub fn id(&self) -> PartId {
        self.id
    }

    /// The digest that the part claims.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The canonical bytes; see the module's documentation for the format.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The canonical bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Length of the bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// True for an empty shard's part, which need not be sent.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

fn malformed(what: String) -> StateError {
    StateError::Malformed { what }
}

fn empty_digest() -> Digest {
    *blake3::hash(&[]).as_bytes()
}

/// Sets `bytes` to the canonical bytes of a shard.
fn encode(shard: &Shard, hasher: &RandomState, columns: &Columns, bytes: &mut Vec<u8>) {
    let named = |(id, key, value)| (&*columns.get(id).name, key, value);
    let mut entries: Vec<(&str, &[u8], &[u8])> = shard.iter(hasher).map(named).collect();
    entries.sort_unstable();
    bytes.clear();
    for group in entries.chunk_by(|a, b| a.0 == b.0) {
        let name = group[0].0.as_bytes();
        bytes.extend_from_slice(&(name.len() as u32).to_le_bytes());
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(&(group.len() as u64).to_le_bytes());
        for (_, key, value) in group {
            bytes.extend_from_slice(&(key.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(value);
        }
    }
}

/// The rest of a part's bytes while it is read.
struct Rest<'a> {
    id: PartId,
    bytes: &'a [u8],
}

impl<'a> Rest<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], StateError> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or_else(|| self.malformed("is cut short"))?;
        self.bytes = rest;
        Ok(taken)
    }

    fn integer(&mut self, len: usize) -> Result<u64, StateError> {
        let mut word = [0; 8];
        word[..len].copy_from_slice(self.take(len)?);
        Ok(u64::from_le_bytes(word))
    }

    fn malformed(&self, what: &str) -> StateError {
        malformed(format!("part {} {what}", self.id))
    }
}

/// Reads a part of a state of `shards` shards. Columns that are new are added to `columns`.
fn decode(
    part: &StatePart,
    shards: usize,
    columns: &mut Arc<Columns>,
    hasher: &RandomState,
) -> Result<Table, StateError> {
    let mut table = Table::default();
    let mut rest = Rest { id: part.id, bytes: &part.bytes };
    let mut last_name = None;
    while !rest.bytes.is_empty() {
        let len = rest.integer(4)? as usize;
        let name = std::str::from_utf8(rest.take(len)?)
            .map_err(|_| rest.malformed("has a column that is not UTF-8"))?;
        if last_name.replace(name).is_some_and(|last| last >= name) {
            return Err(rest.malformed("has columns out of order"));
        }
        let keys = rest.integer(8)?;
        if keys == 0 {
            return Err(rest.malformed("has a column without keys"));
        }
        let id = match columns.find(name) {
            Some((id, _)) => id,
            None => Arc::make_mut(columns).intern(name),
        };
        let column = columns.get(id);
        let mut last_key: Option<&[u8]> = None;
        for _ in 0..keys {
            let (key, value) = (rest.integer(4)? as usize, rest.integer(4)? as usize);
            let (key, value) = (rest.take(key)?, rest.take(value)?);
            if last_key.replace(key).is_some_and(|last| last >= key) {
                return Err(rest.malformed("has keys out of order"));
            }
            if shard_index(column.place(key), shards) != part.id.0 as usize {
                return Err(rest.malformed("has a key of another shard"));
            }
            table.insert(hasher, Key::new(hasher, id, key), value);
        }
    }
    Ok(table)
}

impl ShardedState {
    /// The digest of one shard; `scratch` saves allocations between shards.
    fn shard_digest(&self, shard: &Shard, scratch: &mut Vec<u8>) -> Digest {
        shard.digest(|shard| {
            encode(shard, &self.hasher, &self.columns, scratch);
            *blake3::hash(scratch).as_bytes()
        })
    }
}

/// All parts that are missing: the first ones by name, and their number.
fn cut_short(missing: &[PartId]) -> StateError {
    let names: Vec<String> = missing.iter().take(NAMED).map(PartId::to_string).collect();
    let more = if missing.len() > NAMED { ", ..." } else { "" };
    let plural = if missing.len() == 1 { "" } else { "s" };
    StateError::CutShort { missing: format!("{} part{plural} ({}{more})", missing.len(), names.join(", ")) }
}

impl DivisibleState for ShardedState {
    type PartId = PartId;
    type StateDescriptor = StateDescriptor;
    type StatePart = StatePart;

    fn snapshot(&self) -> Self {
        ShardedState::snapshot(self)
    }

    /// Hashes the shards that were written to since they were last described, here or in a snapshot.
    fn descriptor(&self) -> StateDescriptor {
        let mut scratch = Vec::new();
        StateDescriptor {
            digests: self.shards.iter().map(|shard| self.shard_digest(shard, &mut scratch)).collect(),
        }
    }

    /// Compares digests. Without an earlier moment, or one with another number of shards, all parts but the empty
    /// ones, which nobody needs.
    fn changed_parts(&self, now: &StateDescriptor, before: Option<&StateDescriptor>) -> Vec<PartId> {
        let empty = empty_digest();
        let before = before.filter(|before| before.len() == now.len());
        let was = |id| before.and_then(|before| before.part_digest(id)).unwrap_or(empty);
        now.parts().filter(|&(id, digest)| digest != was(id)).map(|(id, _)| id).collect()
    }

    fn part(&self, id: PartId) -> Result<StatePart, StateError> {
        let shard =
            self.shards.get(id.0 as usize).ok_or_else(|| StateError::UnknownPart { part: id.to_string() })?;
        let mut bytes = Vec::new();
        encode(shard, &self.hasher, &self.columns, &mut bytes);
        let digest = shard.digest(|_| *blake3::hash(&bytes).as_bytes());
        Ok(StatePart { id, digest, bytes })
    }

    fn check_part(descriptor: &StateDescriptor, part: &StatePart) -> Result<PartId, StateError> {
        let name = || part.id.to_string();
        if *blake3::hash(&part.bytes).as_bytes() != part.digest {
            return Err(StateError::WrongDigest { part: name() });
        }
        match descriptor.part_digest(part.id) {
            None => Err(StateError::UnknownPart { part: name() }),
            Some(digest) if digest != part.digest => Err(StateError::StalePart { part: name() }),
            Some(_) => Ok(part.id),
        }
    }

    /// Takes parts in any order, and takes on the descriptor's number of shards. Empty parts may be left out. Merge
    /// operators stay.
    ///
    /// # Errors
    ///
    /// Parts that are missing, that [`check_part`](DivisibleState::check_part) refuses, or whose bytes do not follow
    /// the format. The state is then untouched.
    fn install(&mut self, descriptor: &StateDescriptor, parts: Vec<StatePart>) -> Result<(), StateError> {
        let count = descriptor.len();
        let mut columns = self.columns.clone();
        let mut shards: Vec<Option<Shard>> = vec![None; count];
        for part in &parts {
            // Again, although it was checked: the digest is kept in the shard, and must never be wrong there.
            let id = Self::check_part(descriptor, part)?;
            let table = decode(part, count, &mut columns, &self.hasher)?;
            shards[id.0 as usize] = Some(Shard::with_digest(table, part.digest));
        }
        let empty = empty_digest();
        let mut scratch = Vec::new();
        let mut missing = Vec::new();
        for (id, digest) in descriptor.parts() {
            let slot = &mut shards[id.0 as usize];
            let own = self.shards.get(id.0 as usize).filter(|_| self.shards.len() == count);
            if slot.is_some() {
                continue;
            } else if digest == empty {
                *slot = Some(Shard::default());
            } else if let Some(own) = own.filter(|own| self.shard_digest(own, &mut scratch) == digest) {
                *slot = Some(own.clone());
            } else {
                missing.push(id);
            }
        }
        if !missing.is_empty() {
            return Err(cut_short(&missing));
        }
        self.shards = shards.into_iter().flatten().collect();
        self.columns = columns;
        Ok(())
    }
}

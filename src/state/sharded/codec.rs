//! The state as one stream of bytes.
//!
//! ```text
//! "ASMRSTAT", version u32, shards u32, columns u32, bytes of the body u64, entries u64
//! body:   columns, ascending by name:  name length u32, merge operator u8, name
//!         entries, in the order of `ShardedState::iter`:
//!                                      column u32, key length u32, value length u32, key, value
//! the blake3 hash of all this
//! ```
//!
//! Integers are little-endian; `column` counts in the stream's own list, which holds the columns that have keys or a
//! merge operator other than the default. Equal states with equal settings thus write equal bytes.
//!
//! The body's length stands in front, so that a wrong length inside is told from a stream that ends early. Reading
//! believes no length: memory grows with the bytes that really came. Bytes after the digest are left to the caller.
//!
//! Merge operators of the user's own cannot be written. They come back as one that panics when it is used, rather
//! than let the replica diverge; [`ShardedState::set_merge_operator`] puts the right one in its place.

use std::io::{ErrorKind, Read, Write};

use super::columns::Columns;
use super::key::Key;
use super::{MAX_SHARDS, ShardedState, shard_index};
use crate::error::StateError;
use crate::state::{Merge, MergeOperator, MonolithicState};

const MAGIC: &[u8; 8] = b"ASMRSTAT";
const VERSION: u32 = 1;
const HEADER: usize = 36;
/// Bytes that are hashed, read or written at once.
const BLOCK: usize = 1 << 16;
const COLUMN_HEADER: usize = 5;
const ENTRY_HEADER: usize = 12;

/// Stands for an operator of the user's own that was not set again after reading a state.
struct NotSet;

impl Merge for NotSet {
    fn combine(&self, _: &[u8], _: &[u8], _: &mut Vec<u8>) {
        panic!("the column's own merge operator must be set again after deserializing a state");
    }
}

fn operator_code(operator: MergeOperator) -> u8 {
    match operator {
        MergeOperator::WrappingAdd => 0,
        MergeOperator::WrappingAdd128 => 1,
        MergeOperator::SaturatingAdd => 2,
        MergeOperator::Min => 3,
        MergeOperator::Max => 4,
        MergeOperator::Custom(_) => u8::MAX,
    }
}

fn operator_of(code: u8) -> Option<MergeOperator> {
    Some(match code {
        0 => MergeOperator::WrappingAdd,
        1 => MergeOperator::WrappingAdd128,
        2 => MergeOperator::SaturatingAdd,
        3 => MergeOperator::Min,
        4 => MergeOperator::Max,
        u8::MAX => MergeOperator::Custom(&NotSet),
        _ => return None,
    })
}

fn malformed(what: impl Into<String>) -> StateError {
    StateError::Malformed { what: what.into() }
}

/// For each column: must it be in the stream even if it has no keys?
fn with_operators(columns: &Columns) -> Vec<bool> {
    let default = operator_code(MergeOperator::default());
    columns.iter().map(|column| operator_code(column.operator) != default).collect()
}

/// Writes and hashes in blocks.
struct Output<W> {
    writer: W,
    hasher: blake3::Hasher,
    block: Vec<u8>,
}

impl<W: Write> Output<W> {
    fn write(&mut self, pieces: &[&[u8]]) -> Result<(), StateError> {
        for piece in pieces {
            self.block.extend_from_slice(piece);
        }
        if self.block.len() >= BLOCK { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), StateError> {
        self.hasher.update(&self.block);
        self.writer.write_all(&self.block)?;
        self.block.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<(), StateError> {
        self.flush()?;
        self.writer.write_all(self.hasher.finalize().as_bytes())?;
        Ok(self.writer.flush()?)
    }
}

/// Reads and hashes in blocks, never beyond the body.
struct Input<R> {
    reader: R,
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    /// What of `buffer` was taken.
    taken: usize,
    /// Bytes of the body that were not read yet.
    left: u64,
}

impl<R: Read> Input<R> {
    /// The next `len` bytes of the body.
    fn take(&mut self, len: usize, what: &str) -> Result<&[u8], StateError> {
        let buffered = self.buffer.len() - self.taken;
        if len > buffered {
            if (len - buffered) as u64 > self.left {
                return Err(malformed(format!("{what} runs past the end of the body")));
            }
            self.buffer.drain(..self.taken);
            self.taken = 0;
            while self.buffer.len() < len {
                self.read_block()?;
            }
        }
        let start = self.taken;
        self.taken += len;
        Ok(&self.buffer[start..self.taken])
    }

    fn read_block(&mut self) -> Result<(), StateError> {
        let start = self.buffer.len();
        let len = self.left.min(BLOCK as u64) as usize;
        self.buffer.resize(start + len, 0);
        exactly(&mut self.reader, &mut self.buffer[start..], self.left, "body")?;
        self.hasher.update(&self.buffer[start..]);
        self.left -= len as u64;
        Ok(())
    }

    /// True if the body was taken as a whole.
    fn at_end(&self) -> bool {
        self.left == 0 && self.taken == self.buffer.len()
    }
}

/// Fills `buffer`, which is a piece of the `left` bytes of `what` that must still come.
fn exactly(reader: &mut impl Read, buffer: &mut [u8], left: u64, what: &str) -> Result<(), StateError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => {
                let missing = format!("{} bytes of the {what}", left - filled as u64);
                return Err(StateError::CutShort { missing });
            }
            Ok(n) => filled += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The little-endian integer in `bytes`, at most eight.
fn integer(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

struct Header {
    shards: usize,
    columns: u32,
    body: u64,
    entries: u64,
}

impl Header {
    fn to_bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(self.shards as u32).to_le_bytes());
        bytes[16..20].copy_from_slice(&self.columns.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.body.to_le_bytes());
        bytes[28..].copy_from_slice(&self.entries.to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8; HEADER]) -> Result<Self, StateError> {
        if &bytes[..8] != MAGIC {
            return Err(malformed("these are not the bytes of a sharded state"));
        }
        let version = integer(&bytes[8..12]);
        if version != u64::from(VERSION) {
            return Err(malformed(format!("format version {version}; this program reads version {VERSION}")));
        }
        let shards = integer(&bytes[12..16]) as usize;
        if !shards.is_power_of_two() || shards > MAX_SHARDS {
            return Err(malformed(format!("a state of {shards} shards")));
        }
        let columns = integer(&bytes[16..20]) as u32;
        Ok(Header { shards, columns, body: integer(&bytes[20..28]), entries: integer(&bytes[28..]) })
    }
}

impl ShardedState {
    /// The header, the ids of the columns to write in the order of their names, and each id's place in that order.
    fn plan(&self) -> (Header, Vec<u32>, Vec<u32>) {
        let (mut body, mut entries) = (0, 0);
        let mut used = with_operators(&self.columns);
        for (id, key, value) in self.shards.iter().flat_map(|shard| shard.iter(&self.hasher)) {
            used[id as usize] = true;
            body += (ENTRY_HEADER + key.len() + value.len()) as u64;
            entries += 1;
        }
        let mut ids: Vec<u32> = (0..used.len() as u32).filter(|&id| used[id as usize]).collect();
        ids.sort_unstable_by_key(|&id| &self.columns.get(id).name);
        let mut places = vec![0; used.len()];
        for (place, &id) in (0..).zip(&ids) {
            places[id as usize] = place;
            body += (COLUMN_HEADER + self.columns.get(id).name.len()) as u64;
        }
        let header = Header { shards: self.shards.len(), columns: ids.len() as u32, body, entries };
        (header, ids, places)
    }
}

impl MonolithicState for ShardedState {
    fn snapshot(&self) -> Self {
        ShardedState::snapshot(self)
    }

    /// See the module `codec` for the format. One pass to measure, one to write.
    fn serialize<W: Write>(&self, writer: W) -> Result<(), StateError> {
        let (header, ids, places) = self.plan();
        let block = Vec::with_capacity(2 * BLOCK);
        let mut output = Output { writer, hasher: blake3::Hasher::new(), block };
        output.write(&[&header.to_bytes()])?;
        for &id in &ids {
            let column = self.columns.get(id);
            let name = column.name.as_bytes();
            output.write(&[&(name.len() as u32).to_le_bytes(), &[operator_code(column.operator)], name])?;
        }
        let mut last = ("", 0);
        for (column, key, value) in self.iter() {
            if column != last.0 || last.0.is_empty() {
                let id = self.columns.find(column).map_or(0, |(id, _)| id);
                last = (column, places[id as usize]);
            }
            let [key_len, value_len] = [key.len() as u32, value.len() as u32].map(u32::to_le_bytes);
            output.write(&[&last.1.to_le_bytes(), &key_len, &value_len, key, value])?;
        }
        output.finish()
    }

    /// The number of shards and the built-in merge operators come from the stream; others have to be
    /// [set again](ShardedState::set_merge_operator).
    fn deserialize<R: Read>(mut reader: R) -> Result<Self, StateError> {
        let mut bytes = [0; HEADER];
        exactly(&mut reader, &mut bytes, HEADER as u64, "header")?;
        let header = Header::parse(&bytes)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&bytes);
        let mut input = Input { reader, hasher, buffer: Vec::new(), taken: 0, left: header.body };
        let columns = read_columns(&mut input, header.columns)?;
        let mut state = ShardedState::with(header.shards, columns);
        read_entries(&mut input, header.entries, &mut state)?;
        if !input.at_end() {
            return Err(malformed("the body is longer than its columns and entries"));
        }
        let mut digest = [0; 32];
        exactly(&mut input.reader, &mut digest, 32, "digest")?;
        if *input.hasher.finalize().as_bytes() != digest {
            return Err(StateError::WrongDigest { part: "state".into() });
        }
        Ok(state)
    }
}

fn read_columns<R: Read>(input: &mut Input<R>, count: u32) -> Result<Columns, StateError> {
    let mut columns = Columns::default();
    let mut last: Option<String> = None;
    for _ in 0..count {
        let header = input.take(COLUMN_HEADER, "a column")?;
        let (len, code) = (integer(&header[..4]) as usize, header[4]);
        let operator = operator_of(code).ok_or_else(|| malformed(format!("merge operator {code}")))?;
        let name = std::str::from_utf8(input.take(len, "a column's name")?)
            .map_err(|_| malformed("a column's name is not UTF-8"))?;
        if last.as_deref().is_some_and(|last| last >= name) {
            return Err(malformed("columns are out of order"));
        }
        columns.set_operator(name, operator);
        last = Some(name.to_owned());
    }
    Ok(columns)
}

fn read_entries<R: Read>(
    input: &mut Input<R>,
    count: u64,
    state: &mut ShardedState,
) -> Result<(), StateError> {
    let ShardedState { shards, columns, hasher, copies, .. } = state;
    let mut used = with_operators(columns);
    let mut last = (0, 0, Vec::new());
    for number in 0..count {
        let header = input.take(ENTRY_HEADER, "an entry")?;
        let id = integer(&header[..4]) as u32;
        let (key, value) = (integer(&header[4..8]) as usize, integer(&header[8..]) as usize);
        if id as usize >= columns.iter().len() {
            return Err(malformed(format!("entry {number} has an unknown column")));
        }
        let entry = input.take(key.saturating_add(value), "an entry")?;
        let (key, value) = entry.split_at(key);
        let place = columns.get(id).place(key);
        if number > 0 && (last.0, last.1, last.2.as_slice()) >= (place, id, key) {
            return Err(malformed(format!("entry {number} is out of order")));
        }
        used[id as usize] = true;
        (last.0, last.1) = (place, id);
        last.2.clear();
        last.2.extend_from_slice(key);
        let index = shard_index(place, shards.len());
        shards[index].insert(hasher, copies, Key::new(hasher, id, key), value);
    }
    if used.contains(&false) {
        return Err(malformed("a column has neither keys nor an operator of its own"));
    }
    Ok(())
}

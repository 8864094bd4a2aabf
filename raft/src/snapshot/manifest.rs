//! What a snapshot consists of, as bytes; for its file and for the network.
//!
//! ```text
//! "ASMRSNAP", version u32
//! length u32, what the snapshot stands for (postcard)
//! length u32, the state's descriptor
//! number of places u32, then for each: part u32, segment u64, offset u64, length u64     none in the network's form
//! the blake3 hash of all this
//! ```
//!
//! Integers are little-endian.

use atlas_smr_execution::state::StateDescriptor;

use super::{SnapshotError, damaged};
use crate::types::SnapshotMeta;

const MAGIC: &[u8; 8] = b"ASMRSNAP";
const VERSION: u32 = 1;
const DIGEST: usize = 32;

/// Where a part lies, by the number of the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PlaceRecord {
    pub(super) part: u32,
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) len: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Manifest {
    pub(super) meta: SnapshotMeta,
    pub(super) descriptor: StateDescriptor,
    pub(super) places: Vec<PlaceRecord>,
}

impl Manifest {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        // Postcard fails on types that it cannot tell the length of; there is none among these.
        let meta = postcard::to_allocvec(&self.meta).unwrap_or_default();
        for block in [meta, self.descriptor.to_bytes()] {
            bytes.extend_from_slice(&(block.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&block);
        }
        bytes.extend_from_slice(&(self.places.len() as u32).to_le_bytes());
        for place in &self.places {
            bytes.extend_from_slice(&place.part.to_le_bytes());
            for word in [place.segment, place.offset, place.len] {
                bytes.extend_from_slice(&word.to_le_bytes());
            }
        }
        let digest = blake3::hash(&bytes);
        bytes.extend_from_slice(digest.as_bytes());
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let Some((body, digest)) = bytes.split_last_chunk::<DIGEST>() else {
            return Err(damaged("its manifest is cut short"));
        };
        if blake3::hash(body).as_bytes() != digest {
            return Err(damaged("its manifest does not match its digest"));
        }
        let mut rest = Rest(body);
        if rest.take(8)? != MAGIC || rest.u32()? != VERSION {
            return Err(damaged("no manifest of version 1"));
        }
        let len = rest.u32()? as usize;
        let meta = postcard::from_bytes(rest.take(len)?)
            .map_err(|error| damaged(format!("what it stands for is unreadable: {error}")))?;
        let len = rest.u32()? as usize;
        let descriptor =
            StateDescriptor::from_bytes(rest.take(len)?).map_err(|error| damaged(error.to_string()))?;
        let count = rest.u32()?;
        let mut places = Vec::new();
        for _ in 0..count {
            let part = rest.u32()?;
            let (segment, offset, len) = (rest.u64()?, rest.u64()?, rest.u64()?);
            places.push(PlaceRecord { part, segment, offset, len });
        }
        if !rest.0.is_empty() {
            return Err(damaged("bytes after its manifest"));
        }
        Ok(Manifest { meta, descriptor, places })
    }
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], SnapshotError> {
        let (taken, rest) =
            self.0.split_at_checked(len).ok_or_else(|| damaged("its manifest is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, SnapshotError> {
        let mut word = [0; 4];
        word.copy_from_slice(self.take(4)?);
        Ok(u32::from_le_bytes(word))
    }

    fn u64(&mut self) -> Result<u64, SnapshotError> {
        let mut word = [0; 8];
        word.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(word))
    }
}

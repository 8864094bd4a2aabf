//! What the log's files hold, and how it is encoded: postcard behind a length.
//!
//! Damaged bytes give an error, never a panic and never a large allocation: the files' own checksums come first, and a
//! length is believed only as far as bytes follow.

use std::io::{self, Read, Write};
use std::sync::Arc;

use openraft::EntryPayload;
use raft_log::codeq::{Decode, Encode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::types::{LogId, TypeConfig, Vote};

fn write<T: Serialize>(value: &T, mut to: impl Write) -> io::Result<usize> {
    let bytes = postcard::to_allocvec(value).map_err(io::Error::other)?;
    let len = u32::try_from(bytes.len()).map_err(|_| io::Error::other("a log entry of more than 4 GiB"))?;
    to.write_all(&len.to_be_bytes())?;
    to.write_all(&bytes)?;
    Ok(bytes.len() + 4)
}

fn read<T: DeserializeOwned>(mut from: impl Read) -> io::Result<T> {
    let mut len = [0; 4];
    from.read_exact(&mut len)?;
    let len = u32::from_be_bytes(len);
    let mut bytes = Vec::new();
    from.take(u64::from(len)).read_to_end(&mut bytes)?;
    if bytes.len() < len as usize {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a record of the log is cut short"));
    }
    match postcard::take_from_bytes(&bytes) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "bytes after a record of the log")),
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    }
}

/// The place of a record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(pub(crate) LogId);

/// A saved vote.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd)]
pub(crate) struct SavedVote(pub(crate) Vote);

/// What an entry carries; shared with the log's cache.
#[derive(Clone, Debug)]
pub(crate) struct Payload(pub(crate) Arc<EntryPayload<TypeConfig>>);

macro_rules! codec {
    ($name:ident, $value:ident => $plain:expr, $decoded:ident => $wrapped:expr) => {
        impl Encode for $name {
            fn encode<W: Write>(&self, to: W) -> io::Result<usize> {
                let $value = &self.0;
                write($plain, to)
            }
        }

        impl Decode for $name {
            fn decode<R: Read>(from: R) -> io::Result<Self> {
                read(from).map(|$decoded| $name($wrapped))
            }
        }
    };
}

codec!(Place, id => id, id => id);
codec!(SavedVote, vote => vote, vote => vote);
codec!(Payload, payload => &**payload, payload => Arc::new(payload));

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use openraft::CommittedLeaderId;

    use super::*;
    use crate::types::{Batch, Command};

    fn payload() -> Payload {
        let command = |serial| Command { client: 7, serial, operation: Bytes::from_static(b"operation") };
        let batch = Batch { proposer: 3, commands: (0..9).map(command).collect() };
        Payload(Arc::new(EntryPayload::Normal(batch)))
    }

    #[test]
    fn records_come_back_as_they_were() {
        let mut bytes = Vec::new();
        let place = Place(LogId::new(CommittedLeaderId::new(3, 1), 77));
        let vote = SavedVote(Vote::new_committed(5, 2));
        let written = place.encode(&mut bytes).unwrap()
            + vote.encode(&mut bytes).unwrap()
            + payload().encode(&mut bytes).unwrap();
        assert_eq!(written, bytes.len());
        let mut rest = &bytes[..];
        assert_eq!(Place::decode(&mut rest).unwrap(), place);
        assert_eq!(SavedVote::decode(&mut rest).unwrap(), vote);
        let (got, sent) = (Payload::decode(&mut rest).unwrap(), payload());
        let (EntryPayload::Normal(got), EntryPayload::Normal(sent)) = (&*got.0, &*sent.0) else {
            panic!("another kind of entry")
        };
        assert_eq!(got, sent);
        assert!(rest.is_empty());
    }

    #[test]
    fn damaged_bytes_are_an_error() {
        let mut bytes = Vec::new();
        payload().encode(&mut bytes).unwrap();
        for len in 0..bytes.len() {
            assert!(Payload::decode(&bytes[..len]).is_err(), "cut to {len} bytes");
        }
        // Whatever comes out, nothing panics.
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                let _ = Payload::decode(&damaged[..]);
            }
        }
        assert!(Payload::decode(&[0xff; 64][..]).is_err(), "a length beyond the bytes");
        let long = [&[0, 0, 0, 12][..], &[0; 12]].concat();
        assert!(Payload::decode(&long[..]).is_err(), "bytes after the record");
    }
}

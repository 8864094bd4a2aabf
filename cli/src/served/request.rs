//! What clients of the store ask, and what they are answered. On the wire: postcard.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// An operation. `Nothing` and `Get` can also be asked without going through the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Does nothing; for measurements.
    Nothing,
    /// The value of a key.
    Get {
        /// The key.
        key: Vec<u8>,
    },
    /// Sets a key's value.
    Put {
        /// The key.
        key: Vec<u8>,
        /// Its new value.
        value: Vec<u8>,
    },
    /// Removes a key, and returns its value.
    Delete {
        /// The key.
        key: Vec<u8>,
    },
    /// Moves an amount from one key's value to another's. Values are decimal numbers; absent ones are 0.
    Transfer {
        /// Who pays.
        from: Vec<u8>,
        /// Who is paid.
        to: Vec<u8>,
        /// How much.
        amount: u64,
        /// Busy work that every replica does, in nanoseconds: what the operation would cost if it were a real one.
        work_ns: u32,
    },
}

/// The answer to an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It is done.
    Done,
    /// What is, or was, the key's value.
    Value(Option<Vec<u8>>),
    /// What both have now.
    Transferred {
        /// The payer.
        from: u64,
        /// The payee.
        to: u64,
    },
    /// The payer owns less; nothing was moved.
    TooLittle {
        /// What it owns.
        balance: u64,
    },
    /// A value is no number, or would become too large for one; nothing was moved.
    NotANumber,
    /// Only `Get` can be asked without going through the log.
    ReadOnly,
}

impl Request {
    /// As it travels.
    pub fn encode(&self) -> Bytes {
        // Plain data, into memory: there is nothing that could fail.
        postcard::to_allocvec(self).map(Bytes::from).unwrap_or_default()
    }
}

impl Reply {
    /// A reply as it came; `None` if it is none.
    pub fn decode(bytes: &[u8]) -> Option<Reply> {
        postcard::from_bytes(bytes).ok()
    }
}

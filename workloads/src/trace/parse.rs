//! Reads a trace file and checks everything that the models rely on.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Error, IgnoredAny, Visitor};

use super::{Column, TraceKey};
use crate::error::TraceError;

/// One recorded block. Every index in it is valid, and every index of an account names an account.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The block's number.
    pub block: u64,
    /// Gas that it used.
    pub gas: u64,
    pub(super) beneficiary: usize,
    pub(super) keys: Vec<TraceKey>,
    /// For an account's index: the index of its code.
    pub(super) code_of: HashMap<usize, usize>,
    pub(super) transactions: Vec<Transaction>,
}

/// One recorded transaction; the fields are those of the file.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Transaction {
    pub(super) ns: u64,
    pub(super) gas: u64,
    pub(super) from: usize,
    #[serde(deserialize_with = "recipient")]
    pub(super) to: Option<usize>,
    #[serde(rename = "r")]
    pub(super) reads: Vec<(usize, IgnoredAny)>,
    #[serde(rename = "w")]
    pub(super) writes: Vec<(usize, IgnoredAny)>,
    #[serde(rename = "d")]
    pub(super) differences: Vec<(usize, Difference)>,
    #[serde(rename = "bo")]
    pub(super) balances_observed: Vec<usize>,
    #[serde(rename = "no")]
    pub(super) nonces_observed: Vec<usize>,
}

impl Transaction {
    pub(super) fn writes(&self, key: usize) -> bool {
        self.writes.iter().any(|&(written, _)| written == key)
    }

    pub(super) fn difference(&self, key: usize) -> Option<i128> {
        self.differences.iter().find(|&&(account, _)| account == key).map(|(_, difference)| difference.0)
    }
}

/// The recipient's index; where a contract is created there is none, which is written as -1 or as null.
fn recipient<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    match Option::<i64>::deserialize(deserializer)? {
        None | Some(-1) => Ok(None),
        Some(index) => usize::try_from(index).map(Some).map_err(|_| {
            D::Error::custom(format_args!("`to` is {index}, but must be the index of a key, or -1 for none"))
        }),
    }
}

#[derive(Deserialize)]
struct Header {
    block: u64,
    gas: u64,
    txs: usize,
    beneficiary: usize,
    keys: Vec<String>,
}

/// A signed number, written as a decimal string or as a number. Beyond 128 bits it is refused: what a balance would
/// be after it cannot be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Difference(pub(super) i128);

impl<'de> Deserialize<'de> for Difference {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Decimal;
        impl Visitor<'_> for Decimal {
            type Value = Difference;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a difference of at most 128 bits, as a decimal string or an integer")
            }

            fn visit_i64<E: Error>(self, difference: i64) -> Result<Difference, E> {
                Ok(Difference(difference.into()))
            }

            fn visit_u64<E: Error>(self, difference: u64) -> Result<Difference, E> {
                Ok(Difference(difference.into()))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Difference, E> {
                text.parse().map(Difference).map_err(|_| {
                    E::custom(format_args!("difference \"{text}\" is no decimal integer of at most 128 bits"))
                })
            }
        }
        deserializer.deserialize_any(Decimal)
    }
}

impl Recording {
    /// Reads and checks one trace file.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or the first line that is malformed.
    pub fn read(path: &Path) -> Result<Recording, TraceError> {
        let file = File::open(path).map_err(|source| TraceError::Io { path: path.to_owned(), source })?;
        Self::parse(path, BufReader::new(file))
    }

    /// Reads and checks a trace from `lines`; `path` is what errors name.
    ///
    /// # Errors
    ///
    /// The first line that cannot be read or is malformed.
    pub fn parse(path: &Path, lines: impl BufRead) -> Result<Recording, TraceError> {
        let mut lines = Lines { path, lines, line: 0, buffer: Vec::new() };
        let Some(header) = lines.next::<Header>()? else {
            lines.line += 1;
            return Err(lines.error("empty, but a header is expected".to_owned()));
        };
        let announced = header.txs;
        let mut recording = Self::start(header).map_err(|what| lines.error(what))?;
        while let Some(transaction) = lines.next::<Transaction>()? {
            recording.check(&transaction).map_err(|what| lines.error(what))?;
            recording.transactions.push(transaction);
        }
        let found = recording.transactions.len();
        if found != announced {
            return Err(lines.error(format!("{found} transactions here, but the header says {announced}")));
        }
        Ok(recording)
    }

    /// Number of transactions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.transactions.len()
    }

    /// True if the block has no transactions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.transactions.is_empty()
    }

    fn start(header: Header) -> Result<Recording, String> {
        let keys: Vec<TraceKey> = header.keys.iter().map(|key| decode(key)).collect::<Result<_, _>>()?;
        let mut codes = HashMap::new();
        for (index, key) in keys.iter().enumerate().filter(|(_, key)| key.column == Column::Code) {
            codes.insert(Arc::clone(&key.bytes), index);
        }
        let accounts = keys.iter().enumerate().filter(|(_, key)| key.column == Column::Account);
        let code_of = accounts.filter_map(|(index, key)| Some((index, *codes.get(&key.bytes)?))).collect();
        let Header { block, gas, beneficiary, .. } = header;
        let recording = Recording { block, gas, beneficiary, keys, code_of, transactions: Vec::new() };
        recording.account("beneficiary", beneficiary)?;
        Ok(recording)
    }

    /// Checks every index of `transaction`.
    fn check(&self, transaction: &Transaction) -> Result<(), String> {
        self.account("from", transaction.from)?;
        transaction.to.map_or(Ok(()), |to| self.account("to", to))?;
        for (field, accesses) in [("r", &transaction.reads), ("w", &transaction.writes)] {
            accesses.iter().try_for_each(|&(key, _)| self.key(field, key).map(drop))?;
        }
        transaction.differences.iter().try_for_each(|&(key, _)| self.account("d", key))?;
        transaction.balances_observed.iter().try_for_each(|&key| self.account("bo", key))?;
        transaction.nonces_observed.iter().try_for_each(|&key| self.account("no", key))
    }

    fn key(&self, field: &str, index: usize) -> Result<&TraceKey, String> {
        let all = self.keys.len();
        self.keys.get(index).ok_or_else(|| format!("`{field}` names key {index}, but there are {all} keys"))
    }

    fn account(&self, field: &str, index: usize) -> Result<(), String> {
        match self.key(field, index)?.column {
            Column::Account => Ok(()),
            _ => Err(format!("`{field}` names key {index}, which is no account")),
        }
    }
}

/// The lines of a file, with their numbers for errors.
struct Lines<'a, R> {
    path: &'a Path,
    lines: R,
    line: usize,
    buffer: Vec<u8>,
}

impl<R: BufRead> Lines<'_, R> {
    /// The next line that is not blank; `None` at the end.
    fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, TraceError> {
        loop {
            self.buffer.clear();
            let read = self.lines.read_until(b'\n', &mut self.buffer);
            let read = read.map_err(|error| self.error_after(format!("cannot be read: {error}")))?;
            if read == 0 {
                return Ok(None);
            }
            self.line += 1;
            if !self.buffer.trim_ascii().is_empty() {
                return serde_json::from_slice(&self.buffer)
                    .map(Some)
                    .map_err(|error| self.error(tell(&error)));
            }
        }
    }

    fn error(&self, what: String) -> TraceError {
        TraceError::Line { path: self.path.to_owned(), line: self.line, what }
    }

    fn error_after(&self, what: String) -> TraceError {
        TraceError::Line { path: self.path.to_owned(), line: self.line + 1, what }
    }
}

/// What the parser has to say, with its own line number (always 1: it is given one line at a time) taken out.
fn tell(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((what, _)) => format!("{what}, column {}", error.column()),
        None => text,
    }
}

/// `A<address>`, `C<address>` or `S<address>/<slot>`, in hexadecimal digits.
fn decode(text: &str) -> Result<TraceKey, String> {
    let refuse = || format!("key \"{text}\" is none of A<address>, C<address>, S<address>/<slot>");
    let (kind, rest) = text.split_at_checked(1).ok_or_else(refuse)?;
    let (address, slot) = match rest.split_once('/') {
        Some((address, slot)) => (address, Some(slot)),
        None => (rest, None),
    };
    let column = match (kind, slot) {
        ("A", None) => Column::Account,
        ("C", None) => Column::Code,
        ("S", Some(_)) => Column::Storage,
        _ => return Err(refuse()),
    };
    let slot = slot.unwrap_or("0").trim_start_matches('0');
    if address.len() != 40 || slot.len() > 64 {
        return Err(refuse());
    }
    // An odd digit stands alone in the first byte of the slot.
    let padded = if slot.len() % 2 == 1 { format!("{address}0{slot}") } else { format!("{address}{slot}") };
    let bytes: Option<Vec<u8>> =
        padded.as_bytes().as_chunks::<2>().0.iter().map(|pair| byte(*pair)).collect();
    Ok(TraceKey { column, bytes: bytes.ok_or_else(refuse)?.into() })
}

fn byte([high, low]: [u8; 2]) -> Option<u8> {
    let digit = |c: u8| char::from(c).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_compact_and_distinct() {
        let address = "2a65aca4d5fc5b5c859090a6c34d164135398226";
        let bytes = |text: String| decode(&text).expect("a key").bytes;
        assert_eq!(bytes(format!("A{address}")).len(), 20);
        assert_eq!(bytes(format!("S{address}/0")).len(), 20);
        assert_eq!(bytes(format!("S{address}/abc"))[20..], [0x0a, 0xbc]);
        assert_eq!(bytes(format!("S{address}/{}", "f".repeat(64))).len(), 52);
        assert_eq!(decode(&format!("C{address}")).expect("a key").column, Column::Code);
    }

    #[test]
    fn bad_keys_are_refused() {
        let address = "2a65aca4d5fc5b5c859090a6c34d164135398226";
        let long = "f".repeat(65);
        for bad in [
            String::new(),
            "A".into(),
            "Ä".into(),
            format!("B{address}"),
            format!("A{address}/1"),
            format!("S{address}"),
            format!("A{}", &address[1..]),
            format!("Ag{}", &address[1..]),
            format!("S{address}/{long}"),
            format!("S{address}/x"),
        ] {
            assert!(decode(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn differences_are_strings_or_integers() {
        let parse = |text: &str| serde_json::from_str::<Difference>(text).map(|d| d.0);
        assert_eq!(parse("\"-1050000000000031337\"").expect("fits"), -1_050_000_000_000_031_337);
        assert_eq!(parse("-5").expect("fits"), -5);
        assert_eq!(parse("18446744073709551615").expect("fits"), i128::from(u64::MAX));
        assert_eq!(parse(&format!("\"{}\"", i128::MIN)).expect("fits"), i128::MIN);
        for bad in ["1.5", "1e30", "null", "\"\"", "\"0x10\"", "\"170141183460469231731687303715884105728\""]
        {
            let error = parse(bad).expect_err(bad).to_string();
            assert!(error.contains("128 bits"), "{error}");
        }
    }
}

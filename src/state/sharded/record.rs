//! A record in a table's buffer: one key and its value.
//!
//! ```text
//! [ column | key length | value length | value room ][ key ][ value ][ room ]
//! ```

/// Bytes of a record's header: four little-endian `u32`.
pub const HEADER: usize = 16;
/// Records start at multiples of this.
pub const GRAIN: usize = 8;
/// The column of a dead record; real ids are counted from 0 and cannot get there.
pub const DEAD: u32 = u32::MAX;

/// What a record begins with.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// The column's id.
    pub column: u32,
    /// Bytes of the key.
    pub key: usize,
    /// Bytes of the value.
    pub value: usize,
    /// Bytes that a value may have without moving.
    pub room: usize,
}

impl Header {
    /// The header of the record at `at`.
    #[inline]
    pub fn read(data: &[u8], at: usize) -> Header {
        let bytes = &data[at..at + HEADER];
        let word = |i: usize| u32::from_le_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
        Header { column: word(0), key: word(4) as usize, value: word(8) as usize, room: word(12) as usize }
    }

    /// Puts it at `at`.
    pub fn write(self, data: &mut [u8], at: usize) {
        let words = [self.column, length(self.key), length(self.value), length(self.room)];
        for (i, word) in words.into_iter().enumerate() {
            data[at + 4 * i..at + 4 * i + 4].copy_from_slice(&word.to_le_bytes());
        }
    }

    /// Bytes of the whole record.
    #[inline]
    pub fn record(self) -> usize {
        (HEADER + self.key + self.room).next_multiple_of(GRAIN)
    }
}

/// Bytes of the record of a new key.
#[inline]
pub fn record_size(key: &[u8], value: &[u8]) -> usize {
    (HEADER + key.len() + value.len()).next_multiple_of(GRAIN)
}

/// A length as the record holds it.
pub fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a key or a value is at most 4 GiB - 1 bytes long")
}

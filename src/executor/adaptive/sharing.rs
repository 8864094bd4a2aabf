//! How a batch is shared out to threads, by what its operations take and how many of them are stale.

/// Operations that a thread takes at once should be worth no more than this, or in long batches twice as much.
const CHUNK_NS: f64 = 8_000.0;
/// And be no more than this many, or twice as many, so that later ones see earlier ones' writes.
const MAX_CHUNK: usize = 32;
/// Two threads get so many chunks, at least. With three, one thread takes two, and the other helps it with the last.
const CHUNKS_OF_TWO: usize = 3;
/// Where each thread gets so many chunks of short operations, they are twice as long,
const LONG_CHUNKS: usize = 64;
const SHORT_NS: f64 = 1_000.0;
/// if less than this share is stale.
const HARDLY_STALE: f64 = 0.01;
/// Threads retire what they have run themselves where replays cost each operation less than this, on average: about what it
/// costs both threads together to move a result from core to core.
const OWN_NS: f64 = 60.0;
/// And where each thread gets so many chunks: at the end, all is left to whoever comes last.
const OWN_CHUNKS: usize = 4;

/// How threads take positions, and who retires them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharing {
    /// Positions that a thread takes at once.
    pub chunk: usize,
    /// Each thread retires what it has run, where units are run in chunks.
    pub own: bool,
}

impl Sharing {
    /// For `len` operations on so many threads, of which each takes about `operation_ns`, if that is known, and a share is stale
    /// at its turn.
    pub fn of(operation_ns: Option<f64>, stale: f64, len: usize, threads: usize) -> Sharing {
        let calm = (1.0 - 4.0 * stale).max(0.0);
        let worth = CHUNK_NS / operation_ns.unwrap_or(CHUNK_NS).max(1.0) * calm;
        let most = len.div_ceil(threads * CHUNKS_OF_TWO / 2);
        let chunk = (worth as usize).min(MAX_CHUNK).min(most).max(1);
        let is_short = operation_ns.is_some_and(|ns| ns <= SHORT_NS);
        let twice = is_short && stale < HARDLY_STALE && len >= LONG_CHUNKS * threads * chunk;
        let chunk = if twice { 2 * chunk } else { chunk };
        let replayed_ns = operation_ns.map_or(f64::INFINITY, |ns| ns * stale);
        Sharing { chunk, own: len >= OWN_CHUNKS * threads * chunk && replayed_ns < OWN_NS }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_the_shorter_the_longer_operations_and_the_more_are_stale() {
        let chunk = |ns, stale, len| Sharing::of(ns, stale, len, 2).chunk;
        assert_eq!(chunk(None, 0.0, 1000), 1);
        assert_eq!([10.0, 1000.0, 3000.0, 9000.0].map(|ns| chunk(Some(ns), 0.0, 1000)), [32, 8, 2, 1]);
        assert_eq!([0.05, 0.125, 0.3].map(|stale| chunk(Some(1000.0), stale, 1000)), [6, 4, 1]);
        assert_eq!([0, 3, 16, 128].map(|len| chunk(Some(10.0), 0.0, len)), [1, 1, 6, 32]);
        assert_eq!([0.0, 0.02].map(|stale| chunk(Some(1000.0), stale, 1024)), [16, 7]);
        assert_eq!(chunk(Some(3000.0), 0.0, 8192), 2);
        assert_eq!([1023, 4096].map(|len| chunk(Some(10.0), 0.0, len)), [32, 64]);
    }

    #[test]
    fn results_stay_where_they_are_if_little_is_replayed_and_there_are_many() {
        let own = |ns, stale, len| Sharing::of(ns, stale, len, 2).own;
        assert!(own(Some(1000.0), 0.03, 128) && !own(Some(1000.0), 0.1, 128));
        assert!(own(Some(10_000.0), 0.0, 128) && !own(Some(10_000.0), 0.01, 128));
        assert!(own(Some(1000.0), 0.0, 64) && !own(Some(1000.0), 0.0, 63) && !own(None, 0.0, 1000));
    }
}

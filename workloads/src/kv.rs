//! Keys and values: blind puts, updates, merges, and the core workloads of YCSB.
//!
//! YCSB: Cooper et al., "Benchmarking cloud serving systems with YCSB", SoCC 2010. Keys are drawn by a zipf
//! distribution with exponent 0.99 whose ranks are scattered over the key space by a hash, as there.

use std::sync::Arc;

use atlas_smr_execution::app::Hints;
use atlas_smr_execution::batch::UpdateBatch;
use atlas_smr_execution::state::CRUDState;
use rand::{Rng, RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};
use rand_pcg::Pcg64Mcg;

use crate::digest::{checksum, key, mix};
use crate::error::{WorkloadError, in_range};
use crate::workload::{Logic, Plan, Workload, cut};

/// Column of the values.
const VALUES: &str = "values";
/// Column of the counters that merges add to: 64-bit integers.
const COUNTERS: &str = "counters";
/// Values may be this long, in bytes.
pub const MAX_VALUE_SIZE: usize = 64 * 1024;
/// Different values that exist; a power of two, and small enough to stay in a cache.
const VARIANTS: usize = 16 * 1024;
/// The exponent of YCSB's zipf distribution.
const SKEW: f64 = 0.99;

/// Which operations, and how their keys are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvMix {
    /// Blind puts, keys drawn evenly.
    Put,
    /// Updates whose previous value feeds the reply, keys drawn evenly.
    Update,
    /// Merges into counters, keys drawn evenly.
    Merge,
    /// YCSB A: half reads, half blind puts.
    YcsbA,
    /// YCSB B: 95 % reads, 5 % blind puts.
    YcsbB,
    /// YCSB C: reads only.
    YcsbC,
    /// YCSB F: half reads, half read-modify-writes.
    YcsbF,
}

/// Operations on single keys of a fixed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kv {
    /// The operations.
    pub mix: KvMix,
    /// Number of keys, all present at first.
    pub keys: u64,
    /// Length of every value in bytes, at most [`MAX_VALUE_SIZE`]. Counters have 8 in any case.
    pub value_size: usize,
}

impl Kv {
    /// This mix on a million keys with values of 100 bytes.
    #[must_use]
    pub fn new(mix: KvMix) -> Self {
        Kv { mix, keys: 1_000_000, value_size: 100 }
    }
}

/// One operation on one key. `variant` chooses the value that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvRequest {
    /// Replies with the value's checksum.
    Read {
        /// The key's number.
        key: u64,
    },
    /// Writes blindly; replies with `variant`.
    Put {
        /// The key's number.
        key: u64,
        /// Chooses the value.
        variant: u64,
    },
    /// Writes, and replies with the previous value's checksum.
    Update {
        /// The key's number.
        key: u64,
        /// Chooses the value.
        variant: u64,
    },
    /// Adds to a counter blindly; replies with `amount`.
    Merge {
        /// The key's number.
        key: u64,
        /// What is added.
        amount: u64,
    },
    /// Reads, writes what follows from what was read, and replies with the checksum of what was read.
    ReadModifyWrite {
        /// The key's number.
        key: u64,
        /// Chooses the value, together with the one that was read.
        variant: u64,
    },
}

/// Executes [`KvRequest`]s.
#[derive(Clone, Debug)]
pub struct KvLogic {
    /// Random bytes of which every value is a slice: so writing one needs neither an allocation nor a computation.
    pool: Arc<[u8]>,
    value_size: usize,
}

impl KvLogic {
    fn new(value_size: usize) -> Self {
        let mut pool = vec![0; VARIANTS + value_size];
        Pcg64Mcg::seed_from_u64(0).fill_bytes(&mut pool);
        KvLogic { pool: pool.into(), value_size }
    }

    fn value(&self, variant: u64) -> &[u8] {
        let start = variant as usize % VARIANTS;
        &self.pool[start..start + self.value_size]
    }
}

impl Logic for KvLogic {
    type Request = KvRequest;

    fn execute(&self, state: &mut impl CRUDState, request: &KvRequest) -> u64 {
        match *request {
            KvRequest::Read { key: n } => state.read_with(VALUES, &key(n), checksum),
            KvRequest::Put { key: n, variant } => {
                state.put(VALUES, &key(n), self.value(variant));
                variant
            }
            KvRequest::Update { key: n, variant } => {
                checksum(state.update(VALUES, &key(n), self.value(variant)).as_deref())
            }
            KvRequest::Merge { key: n, amount } => {
                state.merge(COUNTERS, &key(n), &amount.to_le_bytes());
                amount
            }
            KvRequest::ReadModifyWrite { key: n, variant } => {
                let before = state.read_with(VALUES, &key(n), checksum);
                state.put(VALUES, &key(n), self.value(mix(before, variant)));
                before
            }
        }
    }

    const HINTS: bool = true;

    fn hints(&self, request: &KvRequest, hints: &mut impl Hints) {
        match *request {
            KvRequest::Read { key: n } => hints.reads(VALUES, &key(n)),
            KvRequest::Put { key: n, .. } => hints.writes(VALUES, &key(n)),
            KvRequest::Merge { key: n, .. } => hints.merges(COUNTERS, &key(n)),
            KvRequest::Update { key: n, .. } | KvRequest::ReadModifyWrite { key: n, .. } => {
                hints.reads(VALUES, &key(n));
                hints.writes(VALUES, &key(n));
            }
        }
    }

    fn query(&self, state: &impl CRUDState, request: &KvRequest) -> u64 {
        let (column, n) = match *request {
            KvRequest::Merge { key, .. } => (COUNTERS, key),
            KvRequest::Read { key }
            | KvRequest::Put { key, .. }
            | KvRequest::Update { key, .. }
            | KvRequest::ReadModifyWrite { key, .. } => (VALUES, key),
        };
        state.read_with(column, &key(n), checksum)
    }
}

impl Workload for Kv {
    type Logic = KvLogic;

    fn validate(&self) -> Result<(), WorkloadError> {
        in_range("keys", self.keys, 1..=100_000_000)?;
        in_range("value-size", self.value_size as u64, 0..=MAX_VALUE_SIZE as u64)
    }

    fn logic(&self) -> KvLogic {
        KvLogic::new(self.value_size)
    }

    fn populate(&self, state: &mut impl CRUDState) {
        let logic = self.logic();
        for n in 0..self.keys {
            match self.mix {
                KvMix::Merge => state.put(COUNTERS, &key(n), &n.to_le_bytes()),
                _ => state.put(VALUES, &key(n), logic.value(mix(0, n))),
            }
        }
    }

    fn batches(&self, plan: Plan) -> impl Iterator<Item = UpdateBatch<KvRequest>> + Send {
        let mut rng = Pcg64Mcg::seed_from_u64(plan.seed);
        let keys = Keys::new(self.mix, self.keys);
        let kind = self.mix;
        let draw = move || {
            let key = keys.draw(&mut rng);
            let percent = rng.random_range(0..100_u8);
            let variant = rng.random_range(0..VARIANTS as u64);
            Some(match kind {
                KvMix::Put => KvRequest::Put { key, variant },
                KvMix::Update => KvRequest::Update { key, variant },
                KvMix::Merge => KvRequest::Merge { key, amount: variant },
                KvMix::YcsbA if percent < 50 => KvRequest::Put { key, variant },
                KvMix::YcsbB if percent < 5 => KvRequest::Put { key, variant },
                KvMix::YcsbF if percent < 50 => KvRequest::ReadModifyWrite { key, variant },
                KvMix::YcsbA | KvMix::YcsbB | KvMix::YcsbC | KvMix::YcsbF => KvRequest::Read { key },
            })
        };
        cut(plan, std::iter::from_fn(draw))
    }
}

/// How keys are drawn.
enum Keys {
    Even(u64),
    /// Without a distribution (there is none for these parameters) all draws are of the first rank.
    Scattered(u64, Option<Zipf<f64>>),
}

impl Keys {
    fn new(mix: KvMix, keys: u64) -> Self {
        match mix {
            KvMix::Put | KvMix::Update | KvMix::Merge => Keys::Even(keys),
            _ => Keys::Scattered(keys, Zipf::new(keys as f64, SKEW).ok()),
        }
    }

    fn draw(&self, rng: &mut Pcg64Mcg) -> u64 {
        match self {
            Keys::Even(keys) => rng.random_range(0..*keys),
            Keys::Scattered(keys, zipf) => {
                let rank = zipf.as_ref().map_or(1, |zipf| zipf.sample(rng) as u64);
                mix(0, rank) % keys
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::memory::{check_paths_agree, check_seeded};

    const ALL: [KvMix; 7] =
        [KvMix::Put, KvMix::Update, KvMix::Merge, KvMix::YcsbA, KvMix::YcsbB, KvMix::YcsbC, KvMix::YcsbF];

    fn small(mix: KvMix) -> Kv {
        Kv { mix, keys: 20, value_size: 13 }
    }

    #[test]
    fn both_paths_agree() {
        ALL.into_iter().for_each(|mix| check_paths_agree(&small(mix)));
    }

    #[test]
    fn the_seed_decides() {
        ALL.into_iter().for_each(|mix| check_seeded(&small(mix)));
    }

    #[test]
    fn zipf_is_skewed_as_it_should_be() {
        const KEYS: u64 = 10_000;
        const DRAWS: u32 = 200_000;
        let keys = Keys::new(KvMix::YcsbC, KEYS);
        let mut rng = Pcg64Mcg::seed_from_u64(1);
        let mut counts: HashMap<u64, u32> = HashMap::new();
        (0..DRAWS).for_each(|_| *counts.entry(keys.draw(&mut rng)).or_default() += 1);
        let mut counts: Vec<u32> = counts.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        // Rank r has a share of r^-0.99 / H, with H = sum of r^-0.99 over 10,000 ranks, about 10.2.
        let harmonic: f64 = (1..=KEYS).map(|rank| (rank as f64).powf(-SKEW)).sum();
        let expected = f64::from(DRAWS) / harmonic;
        assert!((f64::from(counts[0]) / expected - 1.0).abs() < 0.1, "{} against {expected}", counts[0]);
        assert!((f64::from(counts[1]) / expected - 0.5).abs() < 0.1, "{} against {expected}/2", counts[1]);
        assert!(counts.len() > 4000, "the tail is drawn too: {}", counts.len());
    }

    #[test]
    fn shares_are_as_named() {
        let puts = |mix| {
            let plan = Plan { seed: 5, batch: 100, operations: 10_000 };
            let workload = small(mix);
            let all = workload.batches(plan).flat_map(UpdateBatch::into_updates);
            all.filter(|update| !matches!(update.operation(), KvRequest::Read { .. })).count()
        };
        assert_eq!(puts(KvMix::Put), 10_000);
        assert!((4700..5300).contains(&puts(KvMix::YcsbA)));
        assert!((400..600).contains(&puts(KvMix::YcsbB)));
        assert_eq!(puts(KvMix::YcsbC), 0);
        assert!((4700..5300).contains(&puts(KvMix::YcsbF)));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Kv { keys: 0, ..small(KvMix::Put) }.validate().is_err());
        assert!(Kv { value_size: MAX_VALUE_SIZE + 1, ..small(KvMix::Put) }.validate().is_err());
        assert!(Kv { value_size: 0, ..small(KvMix::Put) }.validate().is_ok());
    }
}

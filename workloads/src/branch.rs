//! Operations that read a key and decide by its value what to touch: what a request will access cannot be known from
//! the request.

use atlas_smr_execution::batch::UpdateBatch;
use atlas_smr_execution::state::CRUDState;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use crate::digest::{checksum, key, mix, number};
use crate::error::{WorkloadError, in_range};
use crate::spin::Cost;
use crate::workload::{Logic, Plan, Workload, cut};

/// Column of numbers; every key is present at first.
const NUMBERS: &str = "numbers";
/// Column of notes; every second key is present at first, and they come and go.
const NOTES: &str = "notes";

/// Operations with data-dependent branches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Branch {
    /// Keys in each of the two columns.
    pub keys: u64,
    /// Busy work of one operation, in nanoseconds.
    pub work_ns: u64,
}

impl Default for Branch {
    fn default() -> Self {
        Branch { keys: 1000, work_ns: 1000 }
    }
}

/// Where an operation starts; all else follows from what it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BranchRequest {
    /// The key that is read first.
    pub key: u64,
    /// Makes two operations on one key differ.
    pub salt: u64,
}

/// Executes [`BranchRequest`]s; the reply depends on all that was observed.
#[derive(Clone, Copy, Debug)]
pub struct BranchLogic {
    keys: u64,
    cost: Cost,
}

impl Logic for BranchLogic {
    type Request = BranchRequest;

    fn execute(&self, state: &mut impl CRUDState, request: &BranchRequest) -> u64 {
        let here = key(request.key);
        let seen = state.read_with(NUMBERS, &here, checksum);
        self.cost.spin();
        let choice = mix(seen, request.salt);
        let there = key((choice >> 8) % self.keys);
        let value = choice.to_le_bytes();
        let observed = match choice % 8 {
            0 => {
                state.put(NUMBERS, &there, &value);
                0
            }
            1 => u64::from(state.create(NOTES, &there, &value)),
            2 => checksum(state.delete(NOTES, &there).as_deref()),
            3 => checksum(state.update(NUMBERS, &here, &value).as_deref()),
            4 => self.follow(state, &there, choice),
            5 => {
                state.remove(NOTES, &there);
                state.put(NUMBERS, &here, &value);
                0
            }
            6 => {
                let moved = checksum(state.delete(NUMBERS, &here).as_deref());
                mix(moved, u64::from(state.create(NUMBERS, &there, &value)))
            }
            _ => {
                let note = state.read_with(NOTES, &there, checksum);
                mix(note, state.read_with(NOTES, &here, checksum))
            }
        };
        mix(choice, observed)
    }

    fn query(&self, state: &impl CRUDState, request: &BranchRequest) -> u64 {
        state.read_with(NUMBERS, &key(request.key), checksum)
    }
}

impl BranchLogic {
    /// A second decision, on a second value, leads to a third key.
    fn follow(&self, state: &mut impl CRUDState, there: &[u8; 8], choice: u64) -> u64 {
        let second = mix(choice, state.read_with(NUMBERS, there, number));
        if second.is_multiple_of(2) {
            return second;
        }
        let third = key((second >> 8) % self.keys);
        let note = state.read_with(NOTES, &third, checksum);
        if note.is_multiple_of(4) {
            state.remove(NOTES, &third);
        } else {
            state.put(NOTES, &third, &mix(note, second).to_le_bytes());
        }
        mix(second, note)
    }
}

impl Workload for Branch {
    type Logic = BranchLogic;

    fn validate(&self) -> Result<(), WorkloadError> {
        in_range("keys", self.keys, 1..=100_000_000)?;
        in_range("work-ns", self.work_ns, 0..=1_000_000_000)
    }

    fn logic(&self) -> BranchLogic {
        BranchLogic { keys: self.keys.max(1), cost: Cost::of_ns(self.work_ns as f64) }
    }

    fn populate(&self, state: &mut impl CRUDState) {
        for n in 0..self.keys {
            state.put(NUMBERS, &key(n), &mix(1, n).to_le_bytes());
            if n % 2 == 0 {
                state.put(NOTES, &key(n), &mix(2, n).to_le_bytes());
            }
        }
    }

    fn batches(&self, plan: Plan) -> impl Iterator<Item = UpdateBatch<BranchRequest>> + Send {
        let mut rng = Pcg64Mcg::seed_from_u64(plan.seed);
        let keys = self.keys.max(1);
        let draw = move || Some(BranchRequest { key: rng.random_range(0..keys), salt: rng.random() });
        cut(plan, std::iter::from_fn(draw))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{check_paths_agree, check_seeded};

    const SMALL: Branch = Branch { keys: 10, work_ns: 0 };

    #[test]
    fn both_paths_agree() {
        check_paths_agree(&SMALL);
    }

    #[test]
    fn the_seed_decides() {
        check_seeded(&SMALL);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Branch { keys: 0, ..SMALL }.validate().is_err());
        assert!(SMALL.validate().is_ok());
    }
}

//! Transfers between accounts, with a cost knob: few accounts conflict much, many hardly.

use std::sync::atomic::{AtomicU64, Ordering};

use atlas_smr_execution::app::Hints;
use atlas_smr_execution::batch::UpdateBatch;
use atlas_smr_execution::state::CRUDState;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use crate::digest::{key, number};
use crate::error::{WorkloadError, in_range};
use crate::spin::Cost;
use crate::workload::{Logic, Plan, Workload, cut};

/// Column of the balances.
const ACCOUNTS: &str = "accounts";
/// What every account owns at first.
const FUNDS: u64 = 1000;
/// A heavy operation costs this many times as much as another.
const HEAVY: u64 = 100;

/// What operations count on, if they do. It is no part of the state, and nobody reads it.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// Transfers between two accounts of a fixed set, drawn evenly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transfer {
    /// Number of accounts; at least 2.
    pub accounts: u64,
    /// Busy work of one operation, in nanoseconds.
    pub work_ns: u64,
    /// Share of operations, from 0 to 1, that work 100 times as long.
    pub heavy: f64,
    /// How often an operation, or a query, counts on an atomic counter that all share, as careless statistics and reference counts do: that takes
    /// much longer when another core does it, too.
    pub counts: u32,
}

impl Default for Transfer {
    fn default() -> Self {
        Transfer { accounts: 1000, work_ns: 1000, heavy: 0.0, counts: 0 }
    }
}

/// Moves up to `amount` from one account to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferRequest {
    /// The account that pays.
    pub from: u32,
    /// The account that is paid.
    pub to: u32,
    /// What is asked for; less is moved if the payer owns less.
    pub amount: u32,
    /// Works 100 times as long as other operations.
    pub heavy: bool,
}

/// Executes [`TransferRequest`]s; the reply is the payer's new balance.
#[derive(Clone, Copy, Debug)]
pub struct TransferLogic {
    cost: Cost,
    heavy: Cost,
    counts: u32,
}

impl TransferLogic {
    #[inline]
    fn count(&self) {
        for _ in 0..self.counts {
            // Relaxed: nothing depends on it.
            COUNTER.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Logic for TransferLogic {
    type Request = TransferRequest;

    // Without work it is so short that a comparison would notice who inlines it and who does not.
    #[inline]
    fn execute(&self, state: &mut impl CRUDState, request: &TransferRequest) -> u64 {
        let (from, to) = (key(request.from.into()), key(request.to.into()));
        let payer = state.read_with(ACCOUNTS, &from, number);
        let payee = state.read_with(ACCOUNTS, &to, number);
        if request.heavy { self.heavy } else { self.cost }.spin();
        self.count();
        if request.from == request.to {
            return payer;
        }
        let moved = payer.min(request.amount.into());
        state.put(ACCOUNTS, &from, &(payer - moved).to_le_bytes());
        state.put(ACCOUNTS, &to, &payee.wrapping_add(moved).to_le_bytes());
        payer - moved
    }

    const HINTS: bool = true;

    fn hints(&self, request: &TransferRequest, hints: &mut impl Hints) {
        hints.weighs(if request.heavy { HEAVY } else { 1 });
        for account in [request.from, request.to] {
            let account = key(account.into());
            hints.reads(ACCOUNTS, &account);
            hints.writes(ACCOUNTS, &account);
        }
    }

    fn query(&self, state: &impl CRUDState, request: &TransferRequest) -> u64 {
        self.count();
        state.read_with(ACCOUNTS, &key(request.from.into()), number)
    }
}

impl Workload for Transfer {
    type Logic = TransferLogic;

    fn validate(&self) -> Result<(), WorkloadError> {
        in_range("accounts", self.accounts, 2..=100_000_000)?;
        in_range("work-ns", self.work_ns, 0..=1_000_000_000)?;
        in_range("counts", self.counts.into(), 0..=1_000_000)?;
        if !(0.0..=1.0).contains(&self.heavy) {
            let must = "a share from 0 to 1";
            return Err(WorkloadError::BadFactor { name: "heavy", value: self.heavy, must });
        }
        Ok(())
    }

    fn logic(&self) -> TransferLogic {
        let cost = Cost::of_ns(self.work_ns as f64);
        TransferLogic { cost, heavy: cost.times(HEAVY), counts: self.counts }
    }

    fn populate(&self, state: &mut impl CRUDState) {
        for account in 0..self.accounts {
            state.put(ACCOUNTS, &key(account), &FUNDS.to_le_bytes());
        }
    }

    fn batches(&self, plan: Plan) -> impl Iterator<Item = UpdateBatch<TransferRequest>> + Send {
        let mut rng = Pcg64Mcg::seed_from_u64(plan.seed);
        let (accounts, heavy) = (self.accounts as u32, self.heavy);
        let draw = move || {
            let from = rng.random_range(0..accounts);
            // One of the others, evenly: nobody pays himself.
            let to = (from + rng.random_range(1..accounts)) % accounts;
            let amount = rng.random_range(1..=100);
            Some(TransferRequest { from, to, amount, heavy: heavy > 0.0 && rng.random_bool(heavy) })
        };
        cut(plan, std::iter::from_fn(draw))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Memory, check_paths_agree, check_seeded};

    const SMALL: Transfer = Transfer { accounts: 5, work_ns: 0, heavy: 0.2, counts: 2 };

    #[test]
    fn both_paths_agree() {
        check_paths_agree(&SMALL);
    }

    #[test]
    fn the_seed_decides() {
        check_seeded(&SMALL);
    }

    #[test]
    fn money_is_kept() {
        let mut state = Memory::default();
        SMALL.populate(&mut state);
        let plan = Plan { seed: 3, batch: 10, operations: 1000 };
        for update in SMALL.batches(plan).flat_map(UpdateBatch::into_updates) {
            let request = update.into_operation();
            assert_ne!(request.from, request.to);
            SMALL.logic().execute(&mut state, &request);
        }
        let total: u64 = (0..5).map(|account| state.read_with(ACCOUNTS, &key(account), number)).sum();
        assert_eq!(total, 5 * FUNDS);
    }

    #[test]
    fn a_transfer_to_oneself_changes_nothing() {
        let mut state = Memory::default();
        SMALL.populate(&mut state);
        let request = TransferRequest { from: 1, to: 1, amount: 7, heavy: false };
        assert_eq!(SMALL.logic().execute(&mut state, &request), FUNDS);
        assert_eq!(state.read_with(ACCOUNTS, &key(1), number), FUNDS);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Transfer { accounts: 1, ..SMALL }.validate().is_err());
        assert!(Transfer { heavy: f64::NAN, ..SMALL }.validate().is_err());
        assert!(Transfer { counts: 1_000_001, ..SMALL }.validate().is_err());
        assert!(SMALL.validate().is_ok());
    }
}

//! What a recorded transaction touches when it runs again.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::parse::{Recording, Transaction};
use super::{Column, TraceKey};
use crate::digest::mix;
use crate::error::WorkloadError;

/// How balances and nonces conflict.
///
/// | model | balance of the beneficiary | other balances | nonces |
/// |---|---|---|---|
/// | `raw` | read and written with the account | the same | the same |
/// | `account` | a merge, unless the transaction observes that account | read and written with the account | the same |
/// | `merge` | a merge, unless its code observes that balance | the same | written; read if observed |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Model {
    /// Reads and writes as recorded. The beneficiary's account is in all of them: nothing can run at once.
    Raw,
    /// The fee to the beneficiary is a commutative merge; everything else as recorded.
    #[default]
    Account,
    /// Every balance change that nobody observes is a commutative merge; nonces are known from the input.
    Merge,
}

impl Model {
    /// Every model.
    pub const ALL: [Model; 3] = [Model::Raw, Model::Account, Model::Merge];

    /// The model's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Model::Raw => "raw",
            Model::Account => "account",
            Model::Merge => "merge",
        }
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Model {
    type Err = WorkloadError;

    fn from_str(name: &str) -> Result<Self, WorkloadError> {
        Self::ALL
            .into_iter()
            .find(|model| model.name() == name)
            .ok_or_else(|| WorkloadError::UnknownModel { name: name.to_owned() })
    }
}

/// A block's operations under one model, and the keys that they touch.
#[derive(Clone, Debug)]
pub struct Block {
    /// The block's number.
    pub number: u64,
    /// Gas that it used.
    pub gas: u64,
    /// One operation for each transaction, in block order.
    pub operations: Vec<Arc<TraceOperation>>,
    /// Every key that the operations touch, once.
    pub keys: Vec<TraceKey>,
}

/// What one recorded transaction does under one model.
#[derive(Debug, PartialEq, Eq)]
pub struct TraceOperation {
    /// Tells operations with equal accesses apart.
    pub id: u64,
    /// Recorded execution time in nanoseconds.
    pub ns: u64,
    /// Gas that it used.
    pub gas: u64,
    /// Keys that are read, in the recorded order.
    pub reads: Box<[TraceKey]>,
    /// Keys that are written blindly, with values that follow from what was read.
    pub writes: Box<[TraceKey]>,
    /// Balances in the balance column.
    pub balances: Box<[BalanceChange]>,
}

/// What an operation does with one balance of the balance column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalanceChange {
    /// The account's key.
    pub account: Arc<[u8]>,
    /// What is added to the balance, if anything.
    pub difference: Option<i128>,
    /// True if the balance is read, and then written; otherwise the difference is merged.
    pub observed: bool,
}

impl Block {
    /// `recording` under `model`.
    #[must_use]
    pub fn new(recording: &Recording, model: Model) -> Block {
        let operations: Vec<_> = recording
            .transactions
            .iter()
            .enumerate()
            .map(|(position, transaction)| {
                let id = mix(recording.block, position as u64);
                Arc::new(Builder { recording, transaction, model }.build(id))
            })
            .collect();
        let keys = touched(&operations);
        Block { number: recording.block, gas: recording.gas, operations, keys }
    }
}

/// The keys of `operations`, once each, in the order of first touch.
fn touched(operations: &[Arc<TraceOperation>]) -> Vec<TraceKey> {
    let mut seen = HashSet::new();
    let mut keys = Vec::new();
    for operation in operations {
        let balances = operation
            .balances
            .iter()
            .map(|change| TraceKey { column: Column::Balance, bytes: Arc::clone(&change.account) });
        for key in operation.reads.iter().chain(&operation.writes).cloned().chain(balances) {
            if seen.insert(key.clone()) {
                keys.push(key);
            }
        }
    }
    keys
}

/// One transaction on its way to an operation.
struct Builder<'a> {
    recording: &'a Recording,
    transaction: &'a Transaction,
    model: Model,
}

impl Builder<'_> {
    fn build(&self, id: u64) -> TraceOperation {
        let recorded = |accesses: &[(usize, serde::de::IgnoredAny)], keep: fn(&Self, usize) -> bool| {
            let kept = accesses.iter().map(|&(key, _)| key).filter(|&key| keep(self, key));
            kept.map(|key| self.recording.keys[key].clone()).collect()
        };
        TraceOperation {
            id,
            ns: self.transaction.ns,
            gas: self.transaction.gas,
            reads: recorded(&self.transaction.reads, Self::is_read),
            writes: recorded(&self.transaction.writes, Self::is_written),
            balances: self.balances(),
        }
    }

    fn is_account(&self, key: usize) -> bool {
        self.recording.keys[key].column == Column::Account
    }

    /// Does the operation read this recorded key?
    fn is_read(&self, key: usize) -> bool {
        match self.model {
            Model::Raw => true,
            Model::Account => key != self.recording.beneficiary || self.touches_beneficiary(),
            Model::Merge => !self.is_account(key) || self.transaction.nonces_observed.contains(&key),
        }
    }

    /// Does the operation write this recorded key?
    fn is_written(&self, key: usize) -> bool {
        match self.model {
            Model::Raw => true,
            Model::Account => key != self.recording.beneficiary || self.touches_beneficiary(),
            Model::Merge => !self.is_account(key) || self.changes_nonce(key),
        }
    }

    /// Is the beneficiary more to this transaction than the one who gets the fee?
    fn touches_beneficiary(&self) -> bool {
        let (transaction, account) = (self.transaction, self.recording.beneficiary);
        transaction.from == account
            || transaction.to == Some(account)
            || transaction.balances_observed.contains(&account)
            || transaction.nonces_observed.contains(&account)
            || self.changes_more_than_balance(account)
    }

    /// Was the account written for another reason than its balance?
    fn changes_more_than_balance(&self, account: usize) -> bool {
        let code = self.recording.code_of.get(&account);
        let new_code = code.is_some_and(|&code| self.transaction.writes(code));
        let written = self.transaction.writes(account);
        new_code || (written && self.transaction.difference(account).is_none())
    }

    /// Does the account's nonce change? The trace does not say so outright: the sender's always does, and so does
    /// that of an account that creates one (there the nonce matters) or is created (its code is written).
    fn changes_nonce(&self, account: usize) -> bool {
        account == self.transaction.from
            || self.transaction.nonces_observed.contains(&account)
            || self.changes_more_than_balance(account)
    }

    fn balances(&self) -> Box<[BalanceChange]> {
        let change = |account: usize, observed| BalanceChange {
            account: Arc::clone(&self.recording.keys[account].bytes),
            difference: self.transaction.difference(account),
            observed,
        };
        match self.model {
            Model::Raw => Box::default(),
            Model::Account => {
                let account = self.recording.beneficiary;
                let involved = self.touches_beneficiary();
                let change = change(account, involved);
                // Nothing to do for a transaction that pays no fee.
                Some(change).filter(|change| involved || change.difference.is_some()).into_iter().collect()
            }
            Model::Merge => {
                let observed = &self.transaction.balances_observed;
                let changed = self.transaction.differences.iter().map(|&(account, _)| account);
                let changed = changed.filter(|account| !observed.contains(account));
                let reads = observed.iter().map(|&account| change(account, true));
                reads.chain(changed.map(|account| change(account, false))).collect()
            }
        }
    }
}

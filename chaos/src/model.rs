//! What single keys, and accounts, answer when operations run one after the other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::linearizable::Model;

/// What a key of the store holds; nothing if it is not there.
pub type Value = Option<u64>;

/// A key of the store, absent at first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Register;

/// An operation on a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RegisterCall {
    /// Reads the value.
    Get,
    /// Writes one.
    Put(u64),
    /// Removes it.
    Delete,
    /// Writes a value if the key holds `expected`.
    Swap {
        /// What the key must hold.
        expected: Value,
        /// What it holds then.
        new: u64,
    },
}

/// What an operation on a key is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RegisterAnswer {
    /// What the key held before.
    Before(Value),
    /// That it was done, and nothing of what the key held before.
    Done,
    /// Whether the key held what was expected, and so was written.
    Swapped(bool),
}

impl Model for Register {
    type State = Value;
    type Call = RegisterCall;
    type Answer = RegisterAnswer;

    fn initial(&self) -> Value {
        None
    }

    fn step(&self, state: &Value, call: &RegisterCall, answer: Option<&RegisterAnswer>) -> Option<Value> {
        let after = match *call {
            RegisterCall::Get => *state,
            RegisterCall::Put(value) => Some(value),
            RegisterCall::Delete => None,
            RegisterCall::Swap { expected, new } if expected == *state => Some(new),
            RegisterCall::Swap { .. } => *state,
        };
        let fits = match (answer, call) {
            (None, _) => true,
            (Some(RegisterAnswer::Before(before)), _) => before == state,
            (Some(RegisterAnswer::Done), _) => true,
            (Some(RegisterAnswer::Swapped(swapped)), RegisterCall::Swap { expected, .. }) => {
                *swapped == (expected == state)
            }
            (Some(RegisterAnswer::Swapped(_)), _) => false,
        };
        fits.then_some(after)
    }
}

/// Accounts that money is transferred between.
#[derive(Clone, Debug, Default)]
pub struct Bank(pub BTreeMap<u64, u64>);

/// An operation on accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BankCall {
    /// Moves money, if there is enough.
    Transfer {
        /// The account that pays.
        from: u64,
        /// The one that is paid.
        to: u64,
        /// How much.
        amount: u64,
    },
    /// Reads an account.
    Balance(u64),
}

/// What an operation on accounts is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BankAnswer {
    /// There was enough; what the two accounts hold then.
    Moved {
        /// The one that paid.
        from: u64,
        /// The one that was paid.
        to: u64,
    },
    /// There was not; what the paying account holds.
    Short(u64),
    /// What is in the account.
    Balance(u64),
}

impl Model for Bank {
    type State = BTreeMap<u64, u64>;
    type Call = BankCall;
    type Answer = BankAnswer;

    fn initial(&self) -> Self::State {
        self.0.clone()
    }

    fn step(&self, state: &Self::State, call: &BankCall, answer: Option<&BankAnswer>) -> Option<Self::State> {
        let (after, right) = transact(state, call);
        answer.is_none_or(|answer| *answer == right).then_some(after)
    }
}

/// What accounts hold after an operation on them, and its answer.
pub fn transact(accounts: &BTreeMap<u64, u64>, call: &BankCall) -> (BTreeMap<u64, u64>, BankAnswer) {
    let has = |account: u64| accounts.get(&account).copied().unwrap_or(0);
    let mut after = accounts.clone();
    let answer = match *call {
        BankCall::Balance(account) => BankAnswer::Balance(has(account)),
        BankCall::Transfer { from, amount, .. } if has(from) < amount => BankAnswer::Short(has(from)),
        BankCall::Transfer { from, to, amount } => {
            *after.entry(from).or_default() -= amount;
            *after.entry(to).or_default() += amount;
            BankAnswer::Moved { from: after[&from], to: after[&to] }
        }
    };
    (after, answer)
}

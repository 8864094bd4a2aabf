//! Judges a history: was anything lost, done twice, or seen that could not be?

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::history::{Answer, Call, History};
use crate::linearizable::{Operation, Verdict, check};
use crate::model::{Bank, BankAnswer, BankCall, Register};
use crate::workload::{ACCOUNTS, AUDITOR, BALANCE, CLIENTS, PURSE, funds, purse, till};

/// Operations that are named of those that do not fit.
const NAMED: usize = 4;

/// What a history shows to be wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Fault {
    /// No order of operations explains the answers.
    NotLinearizable {
        /// Of which key, or of the accounts.
        object: String,
        /// How many operations an order explains at most,
        placed: usize,
        /// of how many.
        of: usize,
        /// What cannot come next there.
        stuck: Vec<String>,
    },
    /// Whether an order explains the answers was not found out in time.
    Undecided {
        /// Of which key, or of the accounts.
        object: String,
    },
    /// The shared accounts hold another sum than at first.
    Sum {
        /// What they held at first.
        expected: u64,
        /// What they hold.
        found: u64,
    },
    /// Acknowledged transfers of a client are not in its till.
    Lost {
        /// The client.
        client: u64,
        /// How many were acknowledged.
        acknowledged: u64,
        /// How many are there.
        found: u64,
    },
    /// More is in a client's till than it asked to move.
    Twice {
        /// The client.
        client: u64,
        /// How many were acknowledged or may have been executed.
        most: u64,
        /// How many are there.
        found: u64,
    },
    /// A purse and its till do not add up.
    Purse {
        /// The client.
        client: u64,
        /// What is in both.
        found: u64,
    },
    /// The final reading of this account is missing, so that nothing can be said.
    NotAudited {
        /// The account.
        account: u64,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NotLinearizable { object, placed, of, stuck } => {
                let stuck = stuck.join("; ");
                write!(
                    f,
                    "{object}: not linearizable: {placed} of {of} operations fit, then none of: {stuck}"
                )
            }
            Fault::Undecided { object } => write!(f, "{object}: undecided in the time given"),
            Fault::Sum { expected, found } => write!(f, "accounts: {found} in all, not {expected}"),
            Fault::Lost { client, acknowledged, found } => {
                write!(f, "client {client}: {acknowledged} transfers acknowledged, but {found} found")
            }
            Fault::Twice { client, most, found } => {
                write!(f, "client {client}: at most {most} transfers asked for, but {found} found")
            }
            Fault::Purse { client, found } => {
                write!(f, "client {client}: {found} in purse and till, not {PURSE}")
            }
            Fault::NotAudited { account } => write!(f, "account {account}: not read in the end"),
        }
    }
}

/// Everything that is wrong in a history of [`crate::workload`], the final readings of the auditor included.
pub fn judge(history: &History, limit: Duration) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (key, operations) in history.keys() {
        let verdict = check(&Register, &operations, limit);
        faults.extend(unfit(format!("key {key}"), verdict, &operations));
    }
    let shared = history.bank(|call| match *call {
        BankCall::Transfer { from, to, .. } => from < ACCOUNTS && to < ACCOUNTS,
        BankCall::Balance(account) => account < ACCOUNTS,
    });
    let bank = Bank(funds().into_iter().filter(|&(account, _)| account < ACCOUNTS).collect());
    faults.extend(unfit("accounts".to_owned(), check(&bank, &shared, limit), &shared));

    let readings = readings(history);
    let missing = funds().into_keys().filter(|account| !readings.contains_key(account));
    faults.extend(missing.map(|account| Fault::NotAudited { account }));
    let read = |account| readings.get(&account).copied();
    let sum: Option<u64> = (0..ACCOUNTS).map(read).sum();
    let expected = ACCOUNTS * BALANCE;
    faults.extend(sum.filter(|&found| found != expected).map(|found| Fault::Sum { expected, found }));
    for client in 0..CLIENTS {
        if let (Some(left), Some(found)) = (read(purse(client)), read(till(client))) {
            faults.extend(tally(history, client, left, found));
        }
    }
    faults
}

fn unfit<C: fmt::Debug, A: fmt::Debug>(
    object: String,
    verdict: Verdict,
    operations: &[Operation<C, A>],
) -> Option<Fault> {
    match verdict {
        Verdict::Linearizable => None,
        Verdict::Unknown => Some(Fault::Undecided { object }),
        Verdict::Violated { placed, stuck } => {
            let of = operations.iter().filter(|operation| operation.returned.is_some()).count();
            let named = stuck.iter().take(NAMED).map(|&index| format!("{:?}", operations[index]));
            Some(Fault::NotLinearizable { object, placed, of, stuck: named.collect() })
        }
    }
}

/// What the auditor read last, by account.
fn readings(history: &History) -> BTreeMap<u64, u64> {
    let audited = history.records.iter().filter(|record| record.client == AUDITOR);
    let balances = audited.filter_map(|record| match (record.call, record.returned) {
        (Call::Bank(BankCall::Balance(account)), Some((_, Answer::Bank(BankAnswer::Balance(balance))))) => {
            Some((account, balance))
        }
        _ => None,
    });
    balances.collect()
}

/// A client's transfers against what they left.
fn tally(history: &History, client: u64, left: u64, found: u64) -> Vec<Fault> {
    let own = history.bank(|call| matches!(call, BankCall::Transfer { from, .. } if *from == purse(client)));
    let count = |is_meant: fn(&Operation<BankCall, BankAnswer>) -> bool| {
        own.iter().filter(|operation| is_meant(operation)).count() as u64
    };
    let acknowledged = count(|one| matches!(one.returned, Some((_, BankAnswer::Moved { .. }))));
    let most = acknowledged + count(|one| one.returned.is_none());
    let mut faults = Vec::new();
    if found < acknowledged {
        faults.push(Fault::Lost { client, acknowledged, found });
    }
    if found > most {
        faults.push(Fault::Twice { client, most, found });
    }
    if left + found != PURSE {
        faults.push(Fault::Purse { client, found: left + found });
    }
    faults
}

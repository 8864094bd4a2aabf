//! What clients do while faults happen.
//!
//! Three kinds of operations, for three things that could go wrong:
//!
//! - gets, puts and deletes on a few keys, with values that nobody else writes: an answer says whose write it saw;
//! - transfers between a few accounts that all share: whatever happens, their sum stays;
//! - one unit at a time from a client's purse to its till: the till holds exactly as many units as were acknowledged, or one
//!   was lost or moved twice.
//!
//! Transfers are asked for again until their outcome is known; puts and deletes are left open after a while.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use crate::history::{Answer, Call, Recorder};
use crate::model::{BankCall, RegisterCall};

/// Clients that write down what they do.
pub const CLIENTS: u64 = 8;
/// Keys that all clients share.
pub const KEYS: u64 = 6;
/// Accounts that all clients share.
pub const ACCOUNTS: u64 = 4;
/// What is in each of them at first.
pub const BALANCE: u64 = 1_000;
/// What is in each purse at first: more than any client moves.
pub const PURSE: u64 = 1_000_000;
/// The client that funds accounts and reads everything in the end.
pub const AUDITOR: u64 = CLIENTS;

/// The account that client `client` pays from.
pub fn purse(client: u64) -> u64 {
    100 + client
}

/// The account that it pays to.
pub fn till(client: u64) -> u64 {
    200 + client
}

/// What is in the accounts before the first transfer.
pub fn funds() -> BTreeMap<u64, u64> {
    let shared = (0..ACCOUNTS).map(|account| (account, BALANCE));
    let own = (0..CLIENTS).flat_map(|client| [(purse(client), PURSE), (till(client), 0)]);
    shared.chain(own).collect()
}

/// What becomes of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was executed.
    Answered(Answer),
    /// Nobody knows.
    Unknown,
    /// It makes no sense to the store; the harness is wrong.
    Refused(String),
}

/// A client's connection to what is tested.
pub trait Store: Send {
    /// Executes `call` exactly once, asking again under its number until the outcome is known or `limit` has passed.
    fn ask(&mut self, call: Call, limit: Duration) -> impl Future<Output = Outcome> + Send;
}

/// How clients go about it.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two operations of a client, at most.
    pub pause: Duration,
    /// After so long, a client leaves an operation's outcome open.
    pub patience: Duration,
    /// After so long, even one whose outcome should become known.
    pub endurance: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            pause: Duration::from_millis(20),
            patience: Duration::from_secs(3),
            endurance: Duration::from_secs(120),
        }
    }
}

/// One client.
#[derive(Debug)]
pub struct Client<S> {
    number: u64,
    store: S,
    recorder: Recorder,
    random: Pcg64Mcg,
    pace: Pace,
    written: u64,
}

impl<S: Store> Client<S> {
    /// Client `number`; what it does follows from `seed` and that.
    pub fn new(number: u64, store: S, recorder: Recorder, seed: u64, pace: Pace) -> Self {
        let random = Pcg64Mcg::seed_from_u64(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Client { number, store, recorder, random, pace, written: 0 }
    }

    /// Works until `stop`.
    ///
    /// # Errors
    ///
    /// The store refused an operation.
    pub async fn run(mut self, stop: Arc<AtomicBool>) -> Result<(), String> {
        while !stop.load(Ordering::Relaxed) {
            let (call, limit) = self.next();
            self.ask(call, limit).await?;
            let pause = self.pace.pause.mul_f64(self.random.random::<f64>());
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }

    /// Reads every key, and every account.
    ///
    /// # Errors
    ///
    /// The store refused an operation.
    pub async fn audit(&mut self) -> Result<(), String> {
        let keys = (0..KEYS).map(|key| Call::Key(key, RegisterCall::Get));
        let accounts = funds().into_keys().map(|account| Call::Bank(BankCall::Balance(account)));
        for call in keys.chain(accounts) {
            self.ask(call, self.pace.endurance).await?;
        }
        Ok(())
    }

    async fn ask(&mut self, call: Call, limit: Duration) -> Result<(), String> {
        let sent = self.recorder.send(self.number, call);
        match self.store.ask(call, limit).await {
            Outcome::Answered(answer) => sent.answered(answer),
            Outcome::Unknown => {}
            Outcome::Refused(reason) => return Err(format!("{call:?}: {reason}")),
        }
        Ok(())
    }

    fn next(&mut self) -> (Call, Duration) {
        let (client, pace) = (self.number, self.pace);
        let key = self.random.random_range(0..KEYS);
        let call = match self.random.random_range(0..100) {
            0..30 => Call::Key(key, RegisterCall::Get),
            30..58 => {
                self.written += 1;
                Call::Key(key, RegisterCall::Put(client * 1_000_000_000 + self.written))
            }
            58..66 => Call::Key(key, RegisterCall::Delete),
            66..70 => Call::Bank(BankCall::Balance(self.random.random_range(0..ACCOUNTS))),
            70..85 => {
                let from = self.random.random_range(0..ACCOUNTS);
                let to = (from + self.random.random_range(1..ACCOUNTS)) % ACCOUNTS;
                let transfer = BankCall::Transfer { from, to, amount: self.random.random_range(1..400) };
                // Each that stays open doubles what the judge has to try.
                return (Call::Bank(transfer), pace.endurance);
            }
            _ => {
                let transfer = BankCall::Transfer { from: purse(client), to: till(client), amount: 1 };
                return (Call::Bank(transfer), pace.endurance);
            }
        };
        (call, pace.patience)
    }
}

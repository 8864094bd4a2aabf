//! A recording client's connection to the cluster.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use atlas_smr_raft::client::{Client, ClientConfig, ClientError, Consistency};
use atlas_smr_raft::types::Answer as Reached;
use bytes::Bytes;

use crate::history::{Answer, Call};
use crate::model::{BankAnswer, BankCall, RegisterAnswer, RegisterCall};
use crate::request::{Reply, Request};
use crate::workload::{Outcome, Pace, Store};

/// Where reads go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reads {
    /// One half through the log, the other half to the leader, who asks a quorum whether it still leads.
    Linearizable,
    /// To this node, whatever it knows. Broken on purpose: it shows that the checker sees it.
    Stale(String),
}

/// Numbers for clients: none is used twice in a run.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// A client of the cluster.
#[derive(Debug)]
pub struct Connection {
    /// Gives up soon; and late.
    clients: [Client; 2],
    patience: Duration,
    reads: Reads,
    count: u64,
}

/// A client of its own, for `addresses`, which gives up after `limit`.
///
/// # Errors
///
/// The addresses are none.
pub fn client(addresses: &[String], limit: Duration) -> Result<Client, ClientError> {
    Client::new(ClientConfig {
        addresses: addresses.to_vec(),
        timeout_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
        attempt_timeout_ms: 1_000,
        client: Some(NUMBERS.fetch_add(1, Ordering::Relaxed)),
        ..ClientConfig::default()
    })
}

impl Connection {
    /// Connects when it is first used.
    ///
    /// # Errors
    ///
    /// The addresses are none.
    pub fn new(addresses: &[String], pace: Pace, reads: Reads) -> Result<Self, ClientError> {
        let clients = [client(addresses, pace.patience)?, client(addresses, pace.endurance)?];
        Ok(Connection { clients, patience: pace.patience, reads, count: 0 })
    }

    async fn reach(&mut self, request: &Request, limit: Duration) -> Result<Vec<Reached>, ClientError> {
        let client = &self.clients[usize::from(limit > self.patience)];
        let operations = vec![request.encode()];
        self.count += 1;
        match (&self.reads, request) {
            (Reads::Stale(address), Request::Get { .. }) => {
                client.read_at(address, operations, Consistency::Stale).await
            }
            (Reads::Linearizable, Request::Get { .. }) if self.count.is_multiple_of(2) => {
                client.read(operations, Consistency::Linearizable).await
            }
            _ => client.execute(operations).await,
        }
    }
}

impl Store for Connection {
    async fn ask(&mut self, call: Call, limit: Duration) -> Outcome {
        match self.reach(&request(call), limit).await {
            Ok(answers) => match &answers[..] {
                [Reached::Done(reply)] => reply_to(call, reply),
                other => Outcome::Refused(format!("{other:?}")),
            },
            Err(ClientError::Unknown(_) | ClientError::Unavailable(_) | ClientError::Overloaded(_)) => {
                Outcome::Unknown
            }
            Err(error) => Outcome::Refused(error.to_string()),
        }
    }
}

/// The name of an account in the store.
pub fn account(number: u64) -> Vec<u8> {
    format!("account-{number}").into_bytes()
}

fn request(call: Call) -> Request {
    let name = |key: u64| format!("key-{key}").into_bytes();
    match call {
        Call::Key(key, RegisterCall::Get) => Request::Get { key: name(key) },
        Call::Key(key, RegisterCall::Put(value)) => {
            Request::Put { key: name(key), value: value.to_string().into_bytes() }
        }
        Call::Key(key, RegisterCall::Delete) => Request::Delete { key: name(key) },
        // The store knows no such operation, and refuses these bytes; clients do not ask for it.
        Call::Key(_, RegisterCall::Swap { .. }) => Request::Nothing,
        Call::Bank(BankCall::Balance(number)) => Request::Get { key: account(number) },
        Call::Bank(BankCall::Transfer { from, to, amount }) => {
            Request::Transfer { from: account(from), to: account(to), amount, work_ns: 0 }
        }
    }
}

/// What a reply means for the one who asked for `call`.
fn reply_to(call: Call, reply: &Bytes) -> Outcome {
    let answer = Reply::decode(reply).and_then(|reply| match (call, reply) {
        (Call::Key(_, RegisterCall::Get | RegisterCall::Delete), Reply::Value(value)) => {
            Some(Answer::Key(RegisterAnswer::Before(match value {
                None => None,
                Some(digits) => Some(number(&digits)?),
            })))
        }
        (Call::Key(_, RegisterCall::Put(_)), Reply::Done) => Some(Answer::Key(RegisterAnswer::Done)),
        (Call::Bank(BankCall::Balance(_)), Reply::Value(Some(digits))) => {
            Some(Answer::Bank(BankAnswer::Balance(number(&digits)?)))
        }
        (Call::Bank(BankCall::Transfer { .. }), Reply::Transferred { from, to }) => {
            Some(Answer::Bank(BankAnswer::Moved { from, to }))
        }
        (Call::Bank(BankCall::Transfer { .. }), Reply::TooLittle { balance }) => {
            Some(Answer::Bank(BankAnswer::Short(balance)))
        }
        _ => None,
    });
    answer.map_or_else(|| Outcome::Refused(format!("reply {reply:?}")), Outcome::Answered)
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(reply: &Reply) -> Bytes {
        postcard::to_allocvec(reply).expect("plain data").into()
    }

    #[test]
    fn replies_are_understood_or_refused() {
        let get = Call::Key(1, RegisterCall::Get);
        let before = |value| Outcome::Answered(Answer::Key(RegisterAnswer::Before(value)));
        assert_eq!(reply_to(get, &encoded(&Reply::Value(None))), before(None));
        assert_eq!(reply_to(get, &encoded(&Reply::Value(Some(b"17".to_vec())))), before(Some(17)));
        for reply in [Reply::Value(Some(b"x".to_vec())), Reply::Done, Reply::ReadOnly] {
            assert!(matches!(reply_to(get, &encoded(&reply)), Outcome::Refused(_)));
        }
        let transfer = Call::Bank(BankCall::Transfer { from: 1, to: 2, amount: 3 });
        let moved = Outcome::Answered(Answer::Bank(BankAnswer::Moved { from: 4, to: 5 }));
        assert_eq!(reply_to(transfer, &encoded(&Reply::Transferred { from: 4, to: 5 })), moved);
        assert!(matches!(reply_to(transfer, &encoded(&Reply::NotANumber)), Outcome::Refused(_)));
        assert!(matches!(reply_to(transfer, &Bytes::from_static(b"\xff")), Outcome::Refused(_)));
    }
}

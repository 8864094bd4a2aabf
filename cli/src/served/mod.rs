//! What `atlas-smr serve` serves: a key-value store with transfers, and a knob for what an operation costs.
//!
//! This is an application like any other; [`request`] says what clients ask, the operations below what it means. To serve
//! another one, hand it to `atlas_smr_raft::node::Node` as `serve.rs` does with this one.

mod request;

use atlas_smr_execution::app::{Application, ApplicationData, Hints, ScalableApp};
use atlas_smr_execution::error::BoxError;
use atlas_smr_execution::state::{CRUDState, ShardedState};
use workloads::spin::Cost;

pub use request::{Reply, Request};

/// Where keys and values are.
const COLUMN: &str = "kv";
/// No operation works longer than this, whatever it asks for: all replicas have to do it.
const MOST_WORK_NS: u32 = 10_000_000;

/// The store. It has no state of its own.
pub struct Store;

impl ApplicationData for Store {
    type Request = Request;
    type Reply = Reply;

    fn same_reply(a: &Reply, b: &Reply) -> bool {
        a == b
    }
}

/// A value that is a number, as people write it; an absent one is 0.
fn number(value: Option<&[u8]>) -> Option<u64> {
    match value {
        None => Some(0),
        Some(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
    }
}

/// One operation, on whatever state it is handed.
fn execute(state: &mut impl CRUDState, request: &Request) -> Reply {
    match request {
        Request::Nothing => Reply::Done,
        Request::Get { key } => read(state, key),
        Request::Put { key, value } => {
            state.put(COLUMN, key, value);
            Reply::Done
        }
        Request::Delete { key } => Reply::Value(state.delete(COLUMN, key)),
        Request::Transfer { from, to, amount, work_ns } => {
            Cost::of_ns(f64::from((*work_ns).min(MOST_WORK_NS))).spin();
            transfer(state, from, to, *amount)
        }
    }
}

fn read(state: &impl CRUDState, key: &[u8]) -> Reply {
    Reply::Value(state.read_with(COLUMN, key, |value| value.map(<[u8]>::to_vec)))
}

fn transfer(state: &mut impl CRUDState, from: &[u8], to: &[u8], amount: u64) -> Reply {
    let balance = |state: &mut _, key: &[u8]| CRUDState::read_with(state, COLUMN, key, number);
    let (Some(payer), Some(payee)) = (balance(state, from), balance(state, to)) else {
        return Reply::NotANumber;
    };
    let Some(rest) = payer.checked_sub(amount) else { return Reply::TooLittle { balance: payer } };
    if from == to {
        return Reply::Transferred { from: payer, to: payee };
    }
    let Some(sum) = payee.checked_add(amount) else { return Reply::NotANumber };
    state.put(COLUMN, from, rest.to_string().as_bytes());
    state.put(COLUMN, to, sum.to_string().as_bytes());
    Reply::Transferred { from: rest, to: sum }
}

impl Application<ShardedState> for Store {
    type AppData = Store;

    fn initial_state() -> Result<ShardedState, BoxError> {
        Ok(ShardedState::new())
    }

    fn unordered_execution(&self, state: &ShardedState, request: Request) -> Reply {
        match request {
            Request::Nothing => Reply::Done,
            Request::Get { key } => read(state, &key),
            _ => Reply::ReadOnly,
        }
    }

    fn update(&self, state: &mut ShardedState, request: Request) -> Reply {
        execute(state, &request)
    }
}

impl ScalableApp<ShardedState> for Store {
    /// Straight-line code: it ends without harm on any values.
    const FORWARDING: bool = true;
    const HINTS: bool = true;

    fn hints(&self, request: &Request, hints: &mut impl Hints) {
        match request {
            Request::Nothing => {}
            Request::Get { key } => hints.reads(COLUMN, key),
            Request::Put { key, .. } => hints.writes(COLUMN, key),
            Request::Delete { key } => {
                hints.reads(COLUMN, key);
                hints.writes(COLUMN, key);
            }
            Request::Transfer { from, to, .. } => {
                for key in [from, to] {
                    hints.reads(COLUMN, key);
                    hints.writes(COLUMN, key);
                }
            }
        }
    }

    fn speculatively_execute(&self, state: &mut impl CRUDState, request: Request) -> Reply {
        execute(state, &request)
    }

    fn speculatively_execute_ref(&self, state: &mut impl CRUDState, request: &Request) -> Reply {
        execute(state, request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(state: &mut ShardedState, key: &str, value: &str) {
        let request = Request::Put { key: key.into(), value: value.into() };
        assert_eq!(execute(state, &request), Reply::Done);
    }

    fn pay(state: &mut ShardedState, from: &str, to: &str, amount: u64) -> Reply {
        execute(state, &Request::Transfer { from: from.into(), to: to.into(), amount, work_ns: 0 })
    }

    #[test]
    fn transfers_move_what_is_there() {
        let mut state = ShardedState::new();
        put(&mut state, "a", "100");
        assert_eq!(pay(&mut state, "a", "b", 30), Reply::Transferred { from: 70, to: 30 });
        assert_eq!(pay(&mut state, "a", "b", 71), Reply::TooLittle { balance: 70 });
        assert_eq!(pay(&mut state, "a", "a", 70), Reply::Transferred { from: 70, to: 70 });
        put(&mut state, "b", "lots");
        assert_eq!(pay(&mut state, "a", "b", 1), Reply::NotANumber);
        put(&mut state, "b", &u64::MAX.to_string());
        assert_eq!(pay(&mut state, "a", "b", 1), Reply::NotANumber);
        let get = |key: &str| Store.unordered_execution(&state, Request::Get { key: key.into() });
        assert_eq!(get("a"), Reply::Value(Some(b"70".to_vec())));
        assert_eq!(get("c"), Reply::Value(None));
    }

    #[test]
    fn a_read_changes_nothing() {
        let state = ShardedState::new();
        let request = Request::Put { key: b"a".to_vec(), value: Vec::new() };
        assert_eq!(Store.unordered_execution(&state, request), Reply::ReadOnly);
    }

    #[test]
    fn a_deleted_value_is_returned() {
        let mut state = ShardedState::new();
        put(&mut state, "a", "1");
        let delete = Request::Delete { key: b"a".to_vec() };
        assert_eq!(execute(&mut state, &delete), Reply::Value(Some(b"1".to_vec())));
        assert_eq!(execute(&mut state, &delete), Reply::Value(None));
    }
}

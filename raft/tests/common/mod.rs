//! An application, and entries for it.
#![allow(dead_code)]

use atlas_smr_execution::app::{Application, ApplicationData, ScalableApp};
use atlas_smr_execution::error::BoxError;
use atlas_smr_execution::executor::{ExecutionMode, ExecutorConfig};
use atlas_smr_execution::state::{CRUDState, ShardedState};
use atlas_smr_raft::machine::ExecutorKind;
use atlas_smr_raft::storage::{Storage, StorageConfig, open};
use atlas_smr_raft::types::{Answer, Answers, Batch, Command, Entry, LogId, Member};
use bytes::Bytes;
use openraft::storage::RaftStateMachine;
use openraft::{CommittedLeaderId, EntryPayload, Membership};
use serde::{Deserialize, Serialize};

/// Numbers by name, with operations that conflict.
#[derive(Clone, Debug)]
pub struct Numbers;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    Get(String),
    /// Adds to a number and returns the sum: reads what it writes.
    Add(String, u64),
    /// Sets the second number to the sum of both and returns it.
    Sum(String, String),
    Remove(String),
    /// Panics, everywhere and every time.
    Panic,
}

pub type Reply = Option<u64>;

impl ApplicationData for Numbers {
    type Request = Request;
    type Reply = Reply;

    fn same_reply(a: &Reply, b: &Reply) -> bool {
        a == b
    }
}

pub const COLUMN: &str = "numbers";

fn number(state: &impl CRUDState, key: &str) -> Reply {
    state.read_with(COLUMN, key.as_bytes(), |bytes| Some(u64::from_be_bytes(bytes?.try_into().ok()?)))
}

fn run(state: &mut impl CRUDState, request: &Request) -> Reply {
    match request {
        Request::Get(key) => number(state, key),
        Request::Add(key, n) => {
            let sum = number(state, key).unwrap_or(0).wrapping_add(*n);
            state.put(COLUMN, key.as_bytes(), &sum.to_be_bytes());
            Some(sum)
        }
        Request::Sum(from, to) => {
            let sum = number(state, from).unwrap_or(1).wrapping_add(number(state, to).unwrap_or(2));
            state.put(COLUMN, to.as_bytes(), &sum.to_be_bytes());
            Some(sum)
        }
        Request::Remove(key) => state
            .delete(COLUMN, key.as_bytes())
            .and_then(|bytes| Some(u64::from_be_bytes(bytes.try_into().ok()?))),
        Request::Panic => panic!("asked to"),
    }
}

impl Application<ShardedState> for Numbers {
    type AppData = Numbers;

    fn initial_state() -> Result<ShardedState, BoxError> {
        Ok(ShardedState::builder().shards(64).build()?)
    }

    fn unordered_execution(&self, state: &ShardedState, request: Request) -> Reply {
        match request {
            Request::Get(key) => number(state, &key),
            _ => None,
        }
    }

    fn update(&self, state: &mut ShardedState, request: Request) -> Reply {
        run(state, &request)
    }
}

impl ScalableApp<ShardedState> for Numbers {
    fn speculatively_execute(&self, state: &mut impl CRUDState, request: Request) -> Reply {
        run(state, &request)
    }

    fn speculatively_execute_ref(&self, state: &mut impl CRUDState, request: &Request) -> Reply {
        run(state, request)
    }
}

/// Numbers on a machine where every operation panics.
#[derive(Clone, Debug)]
pub struct Fragile;

impl Application<ShardedState> for Fragile {
    type AppData = Numbers;

    fn initial_state() -> Result<ShardedState, BoxError> {
        Numbers::initial_state()
    }

    fn unordered_execution(&self, state: &ShardedState, request: Request) -> Reply {
        Numbers.unordered_execution(state, request)
    }

    fn update(&self, state: &mut ShardedState, _: Request) -> Reply {
        run(state, &Request::Panic)
    }
}

impl ScalableApp<ShardedState> for Fragile {
    fn speculatively_execute(&self, state: &mut impl CRUDState, _: Request) -> Reply {
        run(state, &Request::Panic)
    }

    fn speculatively_execute_ref(&self, state: &mut impl CRUDState, _: &Request) -> Reply {
        run(state, &Request::Panic)
    }
}

/// Settings with two threads that speculate on everything.
pub fn config(dir: &std::path::Path, kind: ExecutorKind) -> StorageConfig {
    let mut config = StorageConfig::new(dir, kind);
    let mut executor = ExecutorConfig::with_threads(2);
    executor.mode = ExecutionMode::Speculate;
    executor.pin = false;
    executor.spin = std::time::Duration::ZERO;
    config.executor_config = executor;
    config
}

pub fn storage(dir: &std::path::Path, kind: ExecutorKind) -> Storage<Numbers> {
    open(config(dir, kind), Numbers).expect("a storage")
}

pub fn id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, 0), index)
}

pub fn blank(index: u64) -> Entry {
    Entry { log_id: id(1, index), payload: EntryPayload::Blank }
}

pub fn membership(index: u64, voters: &[u64]) -> Entry {
    let member =
        |id: &u64| (*id, Member { peer_address: format!("peer-{id}"), client_address: String::new() });
    let nodes: std::collections::BTreeMap<u64, Member> = voters.iter().map(member).collect();
    let membership = Membership::new(vec![voters.iter().copied().collect()], nodes);
    Entry { log_id: id(1, index), payload: EntryPayload::Membership(membership) }
}

pub fn encode(request: &Request) -> Bytes {
    postcard::to_allocvec(request).expect("a request").into()
}

pub fn command(client: u64, serial: u64, request: &Request) -> Command {
    Command { client, serial, operation: encode(request) }
}

pub fn batch(index: u64, proposer: u64, commands: Vec<Command>) -> Entry {
    Entry { log_id: id(1, index), payload: EntryPayload::Normal(Batch { proposer, commands }) }
}

/// The reply in an answer.
pub fn reply(answer: &Answer) -> Reply {
    match answer {
        Answer::Done(bytes) => postcard::from_bytes(bytes).expect("a reply"),
        other => panic!("no reply but {other:?}"),
    }
}

pub fn replies(answers: &Answers) -> Vec<Reply> {
    answers.0.iter().map(reply).collect()
}

impl Request {
    pub fn add(key: &str, n: u64) -> Request {
        Request::Add(key.to_owned(), n)
    }

    pub fn get(key: &str) -> Request {
        Request::Get(key.to_owned())
    }
}

/// Applies one batch that this node proposed, and returns its answers.
pub async fn apply(storage: &mut Storage<Numbers>, index: u64, commands: Vec<Command>) -> Answers {
    let entry = batch(index, storage.reader.incarnation(), commands);
    let mut answers = storage.machine.apply([entry]).await.expect("applied");
    assert_eq!(answers.len(), 1, "one answer an entry");
    answers.remove(0)
}

pub async fn read(storage: &Storage<Numbers>, key: &str) -> Reply {
    let answers = storage.reader.read(vec![encode(&Request::get(key))]).await.expect("read");
    reply(&answers[0])
}

/// A small generator, seeded, so that logs with conflicts are the same every time.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }
}

/// A log of `batches` entries from `first` on, with conflicts, duplicates, malformed commands, blanks and memberships.
pub fn log_with_conflicts(seed: u64, first: u64, batches: u64, proposer: u64) -> Vec<Entry> {
    let mut random = Random(seed);
    let mut serials = [seed * 1_000_000; 4];
    let mut sent: [Option<Request>; 4] = Default::default();
    (first..first + batches)
        .map(|index| match random.below(12) {
            0 => blank(index),
            1 => membership(index, &[1, 2, 3]),
            _ => {
                let commands = (0..random.below(40)).map(|_| {
                    let client = random.below(4);
                    let key = format!("k{}", random.below(6));
                    let other = format!("k{}", random.below(60));
                    let request = match random.below(8) {
                        0 => Request::Remove(key),
                        1 | 2 => Request::Sum(key, other),
                        3 => Request::Get(key),
                        _ => Request::Add(key, random.below(100)),
                    };
                    let (serial, sent) = (&mut serials[client as usize], &mut sent[client as usize]);
                    // Now and then the last number again, for the same request or for another one.
                    let request = match (random.below(16), sent.take()) {
                        (0, Some(last)) => last,
                        (0 | 1, _) => request,
                        _ => {
                            *serial += 1;
                            request
                        }
                    };
                    *sent = Some(request.clone());
                    let mut command = command(client, *serial, &request);
                    if random.below(30) == 0 {
                        command.operation = Bytes::from_static(b"\xff\xff\xff");
                    }
                    command
                });
                batch(index, proposer, commands.collect())
            }
        })
        .collect()
}

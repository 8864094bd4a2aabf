//! Exactly once: the session table, a layer between the application and the executor.
//!
//! A client numbers its operations, and may send one again under its number when it does not know what became of it. The
//! table remembers for each client the replies to its last operations, so that one that comes again is answered again and
//! executed once. It lies in the state itself: it is replicated, rolled back, put into snapshots and transferred like
//! everything else, and needs no code of its own for any of that.
//!
//! ```text
//! column  "\0atlas.session"
//! key     client u64, serial % SLOTS u16                      big-endian
//! value   serial u64 (big-endian)
//!         the first 8 bytes of the BLAKE3 hash of the operation's bytes
//!         1 byte: 0 if the encoded reply follows, 1 if it was longer than MAX_KEPT_REPLY
//!         the encoded reply
//!
//! an operation with serial s finds in its slot
//!     nothing, or less than s      it is new: executed, its reply put into the slot
//!     s and its own hash           executed before: answered from the slot, or `ReplyNotKept`
//!     s and another hash           the number was used for another operation: `NumberTaken`, not executed
//!     more than s                  too old to tell: `Stale`, not executed
//! ```
//!
//! A slot a number, and not one a client: then operations of one client in one batch touch different keys, and run side by
//! side, unless one is the duplicate of another. A client may have operations in flight whose numbers are less than
//! [`SLOTS`] apart; it must know the answer to number `s` before it sends `s + SLOTS`. However late a duplicate arrives, it
//! is recognised: its slot holds its number or a greater one for ever.
//!
//! A reply of more than [`MAX_KEPT_REPLY`] bytes goes to whoever waits for the operation when it is executed, and is not kept.
//!
//! Slots are never given back: a client costs the state at most [`SLOTS`] replies, for ever. A program that comes and goes may
//! take up the identity that it had only if it goes on numbering above every number that it has used, so it has to write
//! those down; one that cannot needs a new identity for each run. The hash tells a program that breaks this rule that it
//! does. It is no permission: where the numbers used before lie above, the answer is `Stale`, and an operation whose bytes
//! are those of the old one under its number counts as that one.
//!
//! The last command of each batch also puts down the batch's place in the log, by a blind write that collides with nothing.
//! So every state says which entry it stands for, and digests of equal places can be compared.

use std::fmt;
use std::marker::PhantomData;

use atlas_smr_execution::app::{Application, ApplicationData, Hints, Reply, Request, ScalableApp};
use atlas_smr_execution::error::BoxError;
use atlas_smr_execution::state::{CRUDState, ShardedState};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::types::{Answer, Command};

/// How many numbers of one client the table tells apart at a time.
pub const SLOTS: u64 = 1024;

/// The longest encoded reply that is kept for duplicates of its operation, in bytes.
pub const MAX_KEPT_REPLY: usize = 64 << 10;

/// The column of the session table. The application must neither read nor write it.
pub const COLUMN: &str = "\0atlas.session";

/// The key, in [`COLUMN`], of the place of the last batch: shorter than any client's.
const LAST_BATCH: &[u8] = b"last";

/// An application that can be replicated: it runs on any of the four executors, and its requests and replies can be
/// written down. Implemented for all that are.
///
/// Encoding a reply must not fail, or the operation panics on every replica. What a request holds must be all that it
/// depends on.
pub trait Service:
    ScalableApp<
        ShardedState,
        AppData: ApplicationData<Request: Serialize + DeserializeOwned, Reply: Serialize + DeserializeOwned>,
    >
{
}

impl<A> Service for A
where
    A: ScalableApp<ShardedState>,
    Request<A, ShardedState>: Serialize + DeserializeOwned,
    Reply<A, ShardedState>: Serialize + DeserializeOwned,
{
}

/// What the executor is asked: the request type of [`Sessions`].
pub enum Operation<A: Application<ShardedState>> {
    /// An ordered command.
    Command {
        /// The client.
        client: u64,
        /// The client's number.
        serial: u64,
        /// The beginning of the hash of the request's bytes: what tells it from another one under its number.
        hash: u64,
        /// What to do; `None` if the bytes were no request.
        request: Option<Request<A, ShardedState>>,
        /// Set on the last command of its batch: the batch's place in the log.
        last_of: Option<u64>,
    },
    /// A read of the application's, outside the order.
    Read(Option<Request<A, ShardedState>>),
    /// The whole state as it is, outside the order.
    State,
}

impl<A: Application<ShardedState>> Clone for Operation<A> {
    fn clone(&self) -> Self {
        match self {
            Operation::Command { client, serial, hash, request, last_of } => Operation::Command {
                client: *client,
                serial: *serial,
                hash: *hash,
                request: request.clone(),
                last_of: *last_of,
            },
            Operation::Read(request) => Operation::Read(request.clone()),
            Operation::State => Operation::State,
        }
    }
}

impl<A: Application<ShardedState>> fmt::Debug for Operation<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operation::Command { client, serial, last_of, .. } => {
                let mut command = f.debug_struct("Command");
                command.field("client", client).field("serial", serial).field("last_of", last_of);
                command.finish_non_exhaustive()
            }
            Operation::Read(_) => f.write_str("Read"),
            Operation::State => f.write_str("State"),
        }
    }
}

/// The request in `bytes`; `None` if they are none, or more than one.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((request, [])) => Some(request),
        _ => None,
    }
}

/// What a slot remembers of an operation's bytes.
fn hash(operation: &[u8]) -> u64 {
    let hash = blake3::hash(operation);
    hash.as_bytes().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

impl<A: Service> Operation<A> {
    /// The operation of a command of the entry at `last_of`, if it is the last one there.
    pub(crate) fn command(command: &Command, last_of: Option<u64>) -> Self {
        Operation::Command {
            client: command.client,
            serial: command.serial,
            hash: hash(&command.operation),
            request: decode(&command.operation),
            last_of,
        }
    }

    /// The read of the request in `bytes`.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        Operation::Read(decode(bytes))
    }
}

/// What the executor answers: the reply type of [`Sessions`].
#[derive(Debug)]
pub enum Outcome {
    /// To a command or a read.
    Answer(Answer),
    /// To [`Operation::State`]; shares its data with the executor's.
    State(Box<ShardedState>),
}

/// The types of [`Sessions`].
pub struct SessionData<A>(PhantomData<fn(A)>);

impl<A: Application<ShardedState>> ApplicationData for SessionData<A> {
    type Request = Operation<A>;
    type Reply = Outcome;

    fn same_reply(a: &Outcome, b: &Outcome) -> bool {
        match (a, b) {
            (Outcome::Answer(a), Outcome::Answer(b)) => a == b,
            (Outcome::State(_), Outcome::State(_)) => true,
            _ => false,
        }
    }
}

/// The application `A` with sessions.
#[derive(Debug)]
pub struct Sessions<A> {
    app: A,
}

/// The key of a client's slot.
fn key(client: u64, serial: u64) -> [u8; 10] {
    let mut key = [0; 10];
    key[..8].copy_from_slice(&client.to_be_bytes());
    key[8..].copy_from_slice(&((serial % SLOTS) as u16).to_be_bytes());
    key
}

/// An ordered command but for what it does.
#[derive(Clone, Copy)]
struct Ordered {
    client: u64,
    serial: u64,
    hash: u64,
    last_of: Option<u64>,
}

/// The length of what precedes the reply in a slot.
const PREFIX: usize = 17;
/// The reply follows.
const KEPT: u8 = 0;
/// The reply was too long.
const NOT_KEPT: u8 = 1;

/// What a slot says about an operation.
fn look_up(slot: Option<&[u8]>, command: Ordered) -> Option<Answer> {
    let (number, rest) = slot?.split_first_chunk::<8>()?;
    let number = u64::from_be_bytes(*number);
    if number != command.serial {
        return (number > command.serial).then_some(Answer::Stale);
    }
    match rest.split_first_chunk::<8>() {
        Some((hash, _)) if u64::from_be_bytes(*hash) != command.hash => Some(Answer::NumberTaken),
        Some((_, [KEPT, reply @ ..])) => Some(Answer::Done(Bytes::copy_from_slice(reply))),
        _ => Some(Answer::ReplyNotKept),
    }
}

/// The beginning of the slot of `command`, if its reply is kept.
fn prefix(command: Ordered) -> Vec<u8> {
    let mut prefix = Vec::with_capacity(PREFIX + 16);
    prefix.extend(command.serial.to_be_bytes());
    prefix.extend(command.hash.to_be_bytes());
    prefix.push(KEPT);
    prefix
}

/// The encoded `reply` behind `prefix`.
///
/// # Panics
///
/// If the reply cannot be encoded.
fn encode<T: Serialize>(prefix: Vec<u8>, reply: &T) -> Vec<u8> {
    postcard::to_extend(reply, prefix)
        .unwrap_or_else(|error| panic!("a reply that cannot be encoded: {error}"))
}

/// The place in the log of the last batch in `state` that had commands; 0 if there was none.
pub(crate) fn last_batch(state: &ShardedState) -> u64 {
    state.read_with(COLUMN, LAST_BATCH, |bytes| {
        bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes)
    })
}

impl<A: Service> Sessions<A> {
    /// `app` with sessions.
    pub fn new(app: A) -> Self {
        Sessions { app }
    }

    /// Executes an operation once. `execute` runs a request on the state.
    fn once<S: CRUDState, Q>(
        state: &mut S,
        command: Ordered,
        request: Option<Q>,
        execute: impl FnOnce(&mut S, Q) -> Reply<A, ShardedState>,
    ) -> Outcome {
        let answer = match request {
            None => Answer::Malformed,
            Some(request) => {
                let slot = key(command.client, command.serial);
                let known = state.read_with(COLUMN, &slot, |value| look_up(value, command));
                known.unwrap_or_else(|| {
                    let reply = execute(state, request);
                    let mut value = encode(prefix(command), &reply);
                    if value.len() - PREFIX <= MAX_KEPT_REPLY {
                        state.put(COLUMN, &slot, &value);
                    } else {
                        value[PREFIX - 1] = NOT_KEPT;
                        state.put(COLUMN, &slot, &value[..PREFIX]);
                    }
                    Answer::Done(Bytes::from(value).slice(PREFIX..))
                })
            }
        };
        if let Some(index) = command.last_of {
            state.put(COLUMN, LAST_BATCH, &index.to_be_bytes());
        }
        Outcome::Answer(answer)
    }
}

impl<A: Service> Application<ShardedState> for Sessions<A> {
    type AppData = SessionData<A>;

    fn initial_state() -> Result<ShardedState, BoxError> {
        A::initial_state()
    }

    fn unordered_execution(&self, state: &ShardedState, operation: Operation<A>) -> Outcome {
        match operation {
            Operation::Read(Some(request)) => {
                let reply = self.app.unordered_execution(state, request);
                Outcome::Answer(Answer::Done(encode(Vec::new(), &reply).into()))
            }
            Operation::State => Outcome::State(Box::new(state.snapshot())),
            // The machine orders commands, and sends nothing else here.
            Operation::Read(None) | Operation::Command { .. } => Outcome::Answer(Answer::Malformed),
        }
    }

    fn update(&self, state: &mut ShardedState, operation: Operation<A>) -> Outcome {
        match operation {
            Operation::Command { client, serial, hash, request, last_of } => {
                let command = Ordered { client, serial, hash, last_of };
                let execute = |state: &mut ShardedState, request| self.app.update(state, request);
                Self::once(state, command, request, execute)
            }
            Operation::Read(_) | Operation::State => Outcome::Answer(Answer::Malformed),
        }
    }
}

impl<A: Service> ScalableApp<ShardedState> for Sessions<A> {
    const FORWARDING: bool = A::FORWARDING;
    const HINTS: bool = A::HINTS;

    fn hints(&self, operation: &Operation<A>, hints: &mut impl Hints) {
        if let Operation::Command { client, serial, request: Some(request), .. } = operation {
            let slot = key(*client, *serial);
            hints.reads(COLUMN, &slot);
            hints.writes(COLUMN, &slot);
            self.app.hints(request, hints);
        }
    }

    fn speculatively_execute(&self, state: &mut impl CRUDState, operation: Operation<A>) -> Outcome {
        self.speculatively_execute_ref(state, &operation)
    }

    fn speculatively_execute_ref(&self, state: &mut impl CRUDState, operation: &Operation<A>) -> Outcome {
        match operation {
            &Operation::Command { client, serial, hash, ref request, last_of } => {
                let command = Ordered { client, serial, hash, last_of };
                Self::once(state, command, request.as_ref(), |state, request| {
                    self.app.speculatively_execute_ref(state, request)
                })
            }
            Operation::Read(_) | Operation::State => Outcome::Answer(Answer::Malformed),
        }
    }
}

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
//! value   serial u64 (big-endian), the encoded reply
//!
//! an operation with serial s finds in its slot
//!     nothing, or less than s      it is new: executed, its reply put into the slot
//!     s                            executed before: answered from the slot
//!     more than s                  too old to tell: `Stale`, not executed
//! ```
//!
//! A slot a number, and not one a client: then operations of one client in one batch touch different keys, and run side by
//! side, unless one is the duplicate of another. A client may have operations in flight whose numbers are less than
//! [`SLOTS`] apart; it must know the answer to number `s` before it sends `s + SLOTS`. However late a duplicate arrives, it
//! is recognised: its slot holds its number or a greater one for ever.
//!
//! Slots are never given back: a client costs the state at most [`SLOTS`] replies, for ever. Programs that come and go should
//! take up the identity that they had.
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
            Operation::Command { client, serial, request, last_of } => Operation::Command {
                client: *client,
                serial: *serial,
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

impl<A: Service> Operation<A> {
    /// The operation of a command of the entry at `last_of`, if it is the last one there.
    pub(crate) fn command(command: &Command, last_of: Option<u64>) -> Self {
        Operation::Command {
            client: command.client,
            serial: command.serial,
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

/// What a slot says about an operation.
fn look_up(slot: Option<&[u8]>, serial: u64) -> Option<Answer> {
    let (number, reply) = slot?.split_first_chunk::<8>()?;
    match u64::from_be_bytes(*number) {
        number if number == serial => Some(Answer::Done(Bytes::copy_from_slice(reply))),
        number if number > serial => Some(Answer::Stale),
        _ => None,
    }
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
        (client, serial, last_of): (u64, u64, Option<u64>),
        request: Option<Q>,
        execute: impl FnOnce(&mut S, Q) -> Reply<A, ShardedState>,
    ) -> Outcome {
        let answer = match request {
            None => Answer::Malformed,
            Some(request) => {
                let slot = key(client, serial);
                let known = state.read_with(COLUMN, &slot, |value| look_up(value, serial));
                known.unwrap_or_else(|| {
                    let reply = execute(state, request);
                    let value = encode(serial.to_be_bytes().to_vec(), &reply);
                    state.put(COLUMN, &slot, &value);
                    Answer::Done(Bytes::from(value).slice(8..))
                })
            }
        };
        if let Some(index) = last_of {
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
            Operation::Command { client, serial, request, last_of } => {
                let execute = |state: &mut ShardedState, request| self.app.update(state, request);
                Self::once(state, (client, serial, last_of), request, execute)
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
            Operation::Command { client, serial, request, last_of } => {
                Self::once(state, (*client, *serial, *last_of), request.as_ref(), |state, request| {
                    self.app.speculatively_execute_ref(state, request)
                })
            }
            Operation::Read(_) | Operation::State => Outcome::Answer(Answer::Malformed),
        }
    }
}

//! Who waits for which replies.
//!
//! The executor's reply thread brings replies in batch order; whoever asked gets them all at once. When the executor ends,
//! however it ends, so does that thread, and everybody who still waits is let go.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard};

use atlas_smr_execution::error::BoxError;
use atlas_smr_execution::reply::{ReplyNode, RequestType, UpdateReply};
use atlas_smr_execution::state::ShardedState;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::session::Outcome;
use crate::types::Answer;

/// Where replies go.
#[derive(Debug)]
enum To {
    Answers { expected: usize, answers: Vec<Answer>, to: oneshot::Sender<Vec<Answer>> },
    State(oneshot::Sender<ShardedState>),
}

/// One who waits.
#[derive(Debug)]
struct Waiter {
    to: To,
    /// A read's place, which it has until the executor has replied, whether or not somebody still wants to know.
    _place: Option<OwnedSemaphorePermit>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// By the index of the entry.
    ordered: HashMap<u64, Waiter>,
    /// By ticket.
    unordered: HashMap<u64, Waiter>,
    tickets: u64,
    closed: bool,
}

/// The table of those who wait.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replies(Arc<Mutex<Waiting>>);

impl Replies {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Waits for the answers to the `count` commands of the entry at `index`. The receiver fails once the executor ended.
    pub(super) fn expect_ordered(&self, index: u64, count: usize) -> oneshot::Receiver<Vec<Answer>> {
        let (to, told) = oneshot::channel();
        if count == 0 {
            // Nobody sends the last reply of nothing.
            let _ = to.send(Vec::new());
            return told;
        }
        let mut waiting = self.waiting();
        if !waiting.closed {
            let answers = Vec::with_capacity(count);
            let to = To::Answers { expected: count, answers, to };
            waiting.ordered.insert(index, Waiter { to, _place: None });
        }
        told
    }

    /// Waits for the answers to `count` reads, at least one, which have a place; with the ticket that they carry.
    pub(super) fn expect_reads(
        &self,
        count: usize,
        place: OwnedSemaphorePermit,
    ) -> (u64, oneshot::Receiver<Vec<Answer>>) {
        let (to, told) = oneshot::channel();
        let answers = Vec::with_capacity(count);
        (self.expect_unordered(To::Answers { expected: count, answers, to }, place), told)
    }

    /// Waits for the state; with the ticket that the request carries.
    pub(super) fn expect_state(&self, place: OwnedSemaphorePermit) -> (u64, oneshot::Receiver<ShardedState>) {
        let (to, told) = oneshot::channel();
        (self.expect_unordered(To::State(to), place), told)
    }

    fn expect_unordered(&self, to: To, place: OwnedSemaphorePermit) -> u64 {
        let mut waiting = self.waiting();
        waiting.tickets += 1;
        let ticket = waiting.tickets;
        if !waiting.closed {
            waiting.unordered.insert(ticket, Waiter { to, _place: Some(place) });
        }
        ticket
    }

    /// Takes a reply, and tells whoever waits if it was the last.
    fn take(&self, kind: RequestType, id: u64, outcome: Outcome) -> Result<(), BoxError> {
        let mut waiting = self.waiting();
        let table = match kind {
            RequestType::Ordered => &mut waiting.ordered,
            RequestType::Unordered => &mut waiting.unordered,
        };
        let complete = match (table.get_mut(&id), &outcome) {
            (None, _) => return Err(format!("nobody waits for a reply to {kind:?} {id}").into()),
            (Some(Waiter { to: To::Answers { expected, answers, .. }, .. }), Outcome::Answer(_)) => {
                answers.len() + 1 == *expected
            }
            (Some(_), _) => true,
        };
        if !complete {
            if let (Some(Waiter { to: To::Answers { answers, .. }, .. }), Outcome::Answer(answer)) =
                (table.get_mut(&id), outcome)
            {
                answers.push(answer);
            }
            return Ok(());
        }
        let waiter = table.remove(&id);
        drop(waiting);
        match (waiter.map(|waiter| waiter.to), outcome) {
            (Some(To::Answers { mut answers, to, .. }), Outcome::Answer(answer)) => {
                answers.push(answer);
                // Whoever asked may have gone.
                let _ = to.send(answers);
                Ok(())
            }
            (Some(To::State(to)), Outcome::State(state)) => {
                let _ = to.send(*state);
                Ok(())
            }
            _ => Err("a reply of another kind than what was asked for".into()),
        }
    }

    fn close(&self) {
        let mut waiting = self.waiting();
        waiting.closed = true;
        let left = (mem::take(&mut waiting.ordered), mem::take(&mut waiting.unordered));
        drop(waiting);
        drop(left);
    }
}

/// The executor's end of the table: it goes when the executor does.
#[derive(Debug)]
pub(crate) struct Collector(Replies);

impl Collector {
    pub(super) fn new(replies: &Replies) -> Self {
        Collector(replies.clone())
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl ReplyNode<Outcome> for Collector {
    fn send(&self, kind: RequestType, reply: UpdateReply<Outcome>, _flush: bool) -> Result<(), BoxError> {
        let id = reply.session_id().0;
        self.0.take(kind, id, reply.into_payload())
    }
}

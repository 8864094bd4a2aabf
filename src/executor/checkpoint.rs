//! Checkpoints leave by a thread of their own, so that execution never waits for one.
//!
//! ```text
//! executor's thread --snapshot--> mailbox --> checkpoint thread --messages--> bounded channel --> reader
//! ```
//!
//! The mailbox holds at most one snapshot for each destination (the checkpoint channel's reader, and each node that
//! asked for the state). A newer one replaces an older one whose delivery has not begun: a reader that lags behind
//! costs checkpoints, not memory and not time.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::channel::Life;
use super::message::AppStateMessage;
use super::seam::{Receiver, Select, SendTimeoutError, Sender, TryRecvError, TrySendError, bounded};
use super::transfer::{Transfer, Undelivered};
use crate::batch::{NodeId, SeqNo};
use crate::error::{Failure, caught};
use crate::metrics::Counter;
use crate::sync::{Arc, Mutex, MutexGuard};

/// A snapshot that waits for its delivery.
struct Parcel<S> {
    seq: SeqNo,
    to: Option<NodeId>,
    snapshot: S,
}

struct Mailbox<S> {
    parcels: Mutex<VecDeque<Parcel<S>>>,
    /// How many nodes may wait for the state at a time.
    nodes: usize,
}

impl<S> Mailbox<S> {
    fn parcels(&self) -> MutexGuard<'_, VecDeque<Parcel<S>>> {
        self.parcels.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn take(&self) -> Option<Parcel<S>> {
        self.parcels().pop_front()
    }

    /// Keeps `parcel` and returns what had to give way: the older one to the same destination, whose place it takes,
    /// or the parcel itself if too many nodes wait.
    fn put(&self, parcel: Parcel<S>) -> Option<Parcel<S>> {
        let mut parcels = self.parcels();
        if let Some(waiting) = parcels.iter_mut().find(|waiting| waiting.to == parcel.to) {
            return Some(std::mem::replace(waiting, parcel));
        }
        if parcel.to.is_some() && parcels.iter().filter(|waiting| waiting.to.is_some()).count() >= self.nodes
        {
            return Some(parcel);
        }
        parcels.push_back(parcel);
        None
    }
}

/// The executor's end of the mailbox. Dropping it lets the checkpoint thread finish and end.
pub(crate) struct Checkpoints<S> {
    mailbox: Arc<Mailbox<S>>,
    /// Holds one token while the checkpoint thread has not looked; disconnected when the executor stops.
    wake: Sender<()>,
    life: Arc<Life>,
}

impl<S> Checkpoints<S> {
    /// Leaves a snapshot of the state as of `seq` for delivery to `to`, and never waits.
    pub(crate) fn post(&self, seq: SeqNo, to: Option<NodeId>, snapshot: S) {
        if let Some(dropped) = self.mailbox.put(Parcel { seq, to, snapshot }) {
            self.life.metrics.add(Counter::dropped_checkpoints, 1);
            tracing::debug!(seq = %dropped.seq, to = ?dropped.to, "checkpoint dropped before its delivery began");
        }
        // Full: the token that wakes the thread is there already. Disconnected: it failed, which stops the executor.
        let _ = self.wake.try_send(());
    }
}

/// The checkpoint thread.
pub(crate) struct Courier<S, T: Transfer<S>> {
    mailbox: Arc<Mailbox<S>>,
    wake: Receiver<()>,
    out: Sender<AppStateMessage<T::Outgoing>>,
    /// The last checkpoint that was delivered to its end.
    delivered: Option<T::Delivered>,
    grace: Duration,
    /// Set once the executor stops: from then on a full channel is waited for until then.
    deadline: Option<Instant>,
    life: Arc<Life>,
}

/// A mailbox for at most `nodes` nodes, and the body of the thread that empties it into `out`.
pub(crate) fn mailbox<S, T: Transfer<S>>(
    out: Sender<AppStateMessage<T::Outgoing>>,
    nodes: usize,
    grace: Duration,
    life: &Arc<Life>,
) -> (Checkpoints<S>, Courier<S, T>) {
    let mailbox = Arc::new(Mailbox { parcels: Mutex::new(VecDeque::new()), nodes });
    let (wake, woken) = bounded(1);
    let courier = Courier {
        mailbox: Arc::clone(&mailbox),
        wake: woken,
        out,
        delivered: None,
        grace,
        deadline: None,
        life: Arc::clone(life),
    };
    (Checkpoints { mailbox, wake, life: Arc::clone(life) }, courier)
}

impl<S, T: Transfer<S>> Courier<S, T> {
    /// Delivers what is in the mailbox until the executor has dropped its end and nothing is left.
    pub(crate) fn run(mut self) {
        let mut open = true;
        loop {
            while let Some(parcel) = self.mailbox.take() {
                // Unwind safety: after a panic only the channels are used again.
                let outcome = catch_unwind(AssertUnwindSafe(|| self.deliver(parcel)));
                if let Err(panic) = outcome {
                    let left = std::mem::take(&mut *self.mailbox.parcels()).len() as u64;
                    self.life.metrics.add(Counter::dropped_checkpoints, 1 + left);
                    self.life.fail(Failure::TransferPanicked { message: caught(panic) });
                    return;
                }
            }
            if !open {
                return;
            }
            // After the disconnection the mailbox is looked into once more: what was posted last may have no token.
            open = self.wake.recv().is_ok();
        }
    }

    fn deliver(&mut self, parcel: Parcel<S>) {
        let Parcel { seq, to, snapshot } = parcel;
        let before = if to.is_none() { self.delivered.take() } else { None };
        let delivered = T::deliver(snapshot, before.as_ref(), &mut |state| {
            self.send(AppStateMessage::new(seq, to, state))
        });
        match delivered {
            Ok(delivered) => {
                self.life.metrics.add(Counter::checkpoints, 1);
                tracing::debug!(%seq, ?to, "checkpoint delivered");
                if to.is_none() {
                    self.delivered = Some(delivered);
                }
            }
            Err(cause) => {
                self.life.metrics.add(Counter::dropped_checkpoints, 1);
                tracing::warn!(%seq, ?to, %cause, "checkpoint dropped");
                if to.is_none() {
                    self.delivered = before;
                }
            }
        }
    }

    /// Sends one message; waits for the reader without limit while the executor lives, and for the rest of its grace
    /// once it stops.
    fn send(&mut self, message: AppStateMessage<T::Outgoing>) -> Result<(), Undelivered> {
        let mut message = message;
        loop {
            message = match self.out.try_send(message) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Disconnected(_)) => return Err(Undelivered::NoReader),
                Err(TrySendError::Full(message)) => message,
            };
            if let Some(deadline) = self.deadline {
                return self.out.send_deadline(message, deadline).map_err(|error| match error {
                    SendTimeoutError::Timeout(_) => Undelivered::TooLate,
                    SendTimeoutError::Disconnected(_) => Undelivered::NoReader,
                });
            }
            self.wait_for_room();
        }
    }

    /// Waits for room or for a sign from the executor.
    fn wait_for_room(&mut self) {
        let mut select = Select::new();
        select.send(&self.out);
        select.recv(&self.wake);
        select.ready();
        // A token may be swallowed here: the mailbox is emptied before the next one is waited for.
        if self.wake.try_recv() == Err(TryRecvError::Disconnected) {
            let now = Instant::now();
            // A grace beyond the clock's range: a day is as good as for ever.
            self.deadline = now.checked_add(self.grace).or(now.checked_add(Duration::from_secs(86_400)));
        }
    }
}

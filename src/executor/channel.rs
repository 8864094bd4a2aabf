//! Bounded channels that know how their executor ended.
//!
//! Every channel of one executor shares one [`Life`]. After a failure both ends of each report the cause.

use std::convert::Infallible;
use std::time::Duration;

use super::seam::{Receiver, RecvTimeoutError, Sender, TryRecvError, TrySendError, bounded, send_until};
use crate::batch::SeqNo;
use crate::error::{Failure, QueueError, Text};
use crate::metrics::Metrics;
use crate::sync::{Arc, Condvar, Mutex, MutexGuard};

/// How an executor ended when nothing failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecutorEnd {
    /// The last batch that it executed.
    pub last_executed: SeqNo,
}

#[derive(Debug, Default)]
struct Status {
    /// An executor is there, or will be.
    claimed: bool,
    started: bool,
    failure: Option<Failure>,
    end: Option<ExecutorEnd>,
    install_error: Option<Text>,
    last_executed: SeqNo,
    alarm: Option<Sender<Infallible>>,
}

/// What the threads and handles of one executor share: its metrics and its fate.
#[derive(Debug)]
pub(crate) struct Life {
    status: Mutex<Status>,
    ended: Condvar,
    pub(crate) metrics: Arc<Metrics>,
    /// Never holds a message; disconnected once the executor has failed, which wakes whoever waits for anything.
    pub(crate) failed: Receiver<Infallible>,
    /// Never holds a message; disconnected once every handle is gone, however full the queue is.
    pub(crate) handles: Receiver<Infallible>,
}

/// An executor's claim to a life, which is given back if that does not start.
pub(crate) struct Claim(Arc<Life>);

impl Claim {
    /// Claims `life` for an executor; `None` if one has it.
    pub(crate) fn of(life: &Arc<Life>) -> Option<Claim> {
        let claimed = std::mem::replace(&mut life.status().claimed, true);
        (!claimed).then(|| Claim(Arc::clone(life)))
    }

    /// The executor has started.
    pub(crate) fn started(self) {
        self.0.status().started = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut status = self.0.status();
        status.claimed = status.started;
    }
}

impl Life {
    /// A life that has not started, and what each of the executor's handles holds a clone of.
    pub(crate) fn new() -> (Arc<Life>, Sender<Infallible>) {
        let (alarm, failed) = bounded(1);
        let (alive, handles) = bounded(1);
        let life = Life {
            status: Mutex::new(Status { alarm: Some(alarm), ..Status::default() }),
            ended: Condvar::new(),
            metrics: Arc::new(Metrics::new()),
            failed,
            handles,
        };
        (Arc::new(life), alive)
    }

    fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Records the cause of the end; the first one stands.
    pub(crate) fn fail(&self, failure: Failure) {
        let mut status = self.status();
        if status.failure.is_some() {
            return;
        }
        status.failure = Some(failure.clone());
        status.alarm = None;
        drop(status);
        tracing::error!(cause = %failure, "executor failed");
    }

    /// True once [`fail`](Life::fail) was called; cheaper than [`failure`](Life::failure).
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// True once every handle is gone: nothing more will be queued.
    pub(crate) fn handles_gone(&self) -> bool {
        self.handles.try_recv() == Err(TryRecvError::Disconnected)
    }

    pub(crate) fn failure(&self) -> Option<Failure> {
        self.status().failure.clone()
    }

    /// Why this executor ended, for whoever finds a thread of it gone at batch `batch`.
    pub(crate) fn cause(&self, batch: SeqNo) -> Failure {
        self.failure().unwrap_or_else(|| Failure::Internal {
            batch,
            message: Text::from("a thread of the executor ended without a cause"),
        })
    }

    pub(crate) fn end(&self) {
        let mut status = self.status();
        status.end = Some(ExecutorEnd { last_executed: status.last_executed });
        self.ended.notify_all();
    }

    pub(crate) fn executed(&self, seq: SeqNo) {
        self.status().last_executed = seq;
    }

    pub(crate) fn last_executed(&self) -> SeqNo {
        self.status().last_executed
    }

    pub(crate) fn set_install_error(&self, error: Option<Text>) {
        self.status().install_error = error;
    }

    pub(crate) fn install_error(&self) -> Option<Text> {
        self.status().install_error.clone()
    }

    /// Waits for the end; at once if the executor never started.
    pub(crate) fn wait(&self) -> Result<ExecutorEnd, Failure> {
        let mut status = self.status();
        while status.started && status.end.is_none() {
            status = self.ended.wait(status).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        match status.failure.clone() {
            Some(failure) => Err(failure),
            None => Ok(status.end.unwrap_or(ExecutorEnd { last_executed: SeqNo::ZERO })),
        }
    }

    fn refusal<T>(&self, request: T) -> QueueError<T> {
        match self.failure() {
            Some(cause) => QueueError::Failed { cause, request },
            None => QueueError::Stopped(request),
        }
    }
}

/// The sending end of one of an executor's bounded channels.
#[derive(Debug)]
pub struct ChannelSyncTx<T> {
    pub(crate) inner: Sender<T>,
    pub(crate) life: Arc<Life>,
}

impl<T> Clone for ChannelSyncTx<T> {
    fn clone(&self) -> Self {
        ChannelSyncTx { inner: self.inner.clone(), life: Arc::clone(&self.life) }
    }
}

impl<T> ChannelSyncTx<T> {
    /// Sends `message`, and waits while the channel is full.
    ///
    /// # Errors
    ///
    /// The executor has failed or stopped; the message comes back.
    pub fn send(&self, message: T) -> Result<(), QueueError<T>> {
        let message = match self.try_send(message) {
            Err(QueueError::Full(message)) => message,
            settled => return settled,
        };
        // The failure wakes the sender even where somebody still holds a clone of the receiving end.
        send_until(&self.inner, message, &self.life.failed).map_err(|message| self.life.refusal(message))
    }

    /// Sends `message` if the channel has room.
    ///
    /// # Errors
    ///
    /// The channel is full, or the executor has failed or stopped; the message comes back.
    pub fn try_send(&self, message: T) -> Result<(), QueueError<T>> {
        if let Some(cause) = self.life.failure() {
            return Err(QueueError::Failed { cause, request: message });
        }
        self.inner.try_send(message).map_err(|error| match error {
            TrySendError::Full(message) => QueueError::Full(message),
            TrySendError::Disconnected(message) => self.life.refusal(message),
        })
    }
}

/// Why nothing was received.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// Nothing has arrived (in time).
    #[error("nothing has arrived")]
    Empty,
    /// The executor failed; this is the cause. All messages before it were received.
    #[error("the executor has failed: {0}")]
    Failed(Failure),
    /// The other end is gone. All messages were received.
    #[error("the channel is closed")]
    Closed,
}

/// The receiving end of one of an executor's bounded channels.
#[derive(Debug)]
pub struct ChannelSyncRx<T> {
    pub(crate) inner: Receiver<T>,
    pub(crate) life: Arc<Life>,
}

impl<T> Clone for ChannelSyncRx<T> {
    fn clone(&self) -> Self {
        ChannelSyncRx { inner: self.inner.clone(), life: Arc::clone(&self.life) }
    }
}

impl<T> ChannelSyncRx<T> {
    /// Waits for a message.
    ///
    /// # Errors
    ///
    /// The other end is gone, or failed.
    pub fn recv(&self) -> Result<T, RecvError> {
        self.inner.recv().map_err(|_| self.closed())
    }

    /// Waits for a message, but no longer than `timeout`.
    ///
    /// # Errors
    ///
    /// Nothing came in time, or the other end is gone or failed.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvError> {
        self.inner.recv_timeout(timeout).map_err(|error| match error {
            RecvTimeoutError::Timeout => RecvError::Empty,
            RecvTimeoutError::Disconnected => self.closed(),
        })
    }

    /// Takes a message if there is one.
    ///
    /// # Errors
    ///
    /// There is none, or the other end is gone or failed.
    pub fn try_recv(&self) -> Result<T, RecvError> {
        self.inner.try_recv().map_err(|error| match error {
            TryRecvError::Empty => RecvError::Empty,
            TryRecvError::Disconnected => self.closed(),
        })
    }

    fn closed(&self) -> RecvError {
        self.life.failure().map_or(RecvError::Closed, RecvError::Failed)
    }
}

/// A bounded channel whose ends belong to the executor that lives `life`.
pub(crate) fn channel<T>(capacity: usize, life: &Arc<Life>) -> (ChannelSyncTx<T>, ChannelSyncRx<T>) {
    let (tx, rx) = bounded(capacity);
    (ChannelSyncTx { inner: tx, life: Arc::clone(life) }, ChannelSyncRx { inner: rx, life: Arc::clone(life) })
}

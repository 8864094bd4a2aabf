//! Installing a state: the part of the loop that waits for more than work.
//!
//! While the messages of a state come in, the executor answers unordered requests on the state that it has. All other
//! requests are deferred, in order, at most as many as the queue holds. A shutdown ends the wait.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::engine::Engine;
use super::message::{ExecutionRequest, InstallStateMessage};
use super::seam::{Select, TryRecvError};
use super::transfer::{Step, Transfer};
use super::worker_loop::Executor;
use crate::app::{Application, Request};
use crate::batch::SeqNo;
use crate::error::{Failure, StateError, Text, caught};
use crate::metrics::Counter;

/// What the wait for a state's next message ended with.
enum Event<O, I> {
    Message(InstallStateMessage<I>),
    Work(ExecutionRequest<O>),
    /// The state channel has lost its last sender.
    Closed,
    /// The last handle is gone.
    Shutdown,
    /// Another of the executor's threads failed.
    Failed,
}

/// What it means that `received` came out of a channel; `None` if nothing did.
fn arrived<M, V>(received: Result<M, TryRecvError>, event: impl FnOnce(M) -> V, closed: V) -> Option<V> {
    match received {
        Ok(message) => Some(event(message)),
        Err(TryRecvError::Disconnected) => Some(closed),
        Err(TryRecvError::Empty) => None,
    }
}

impl<A, S, E, T> Executor<A, S, E, T>
where
    A: Application<S>,
    E: Engine<A, S>,
    T: Transfer<S>,
{
    /// Installs what has arrived, and what follows until no installation is under way.
    ///
    /// During one, messages of the state have no precedence over work: a large state that arrives without a pause must
    /// not keep unordered requests waiting.
    pub(super) fn poll(&mut self) -> Result<(), Failure> {
        loop {
            if self.transfer.under_way().is_none() {
                match self.installs.inner.try_recv() {
                    Ok(message) => self.offer(message)?,
                    Err(_) => return Ok(()),
                }
                continue;
            }
            match self.wait() {
                Event::Message(message) => self.offer(message)?,
                Event::Work(ExecutionRequest::ExecuteUnordered(batch)) => self.answer(batch)?,
                Event::Work(request) => self.deferred.push_back(request),
                Event::Closed if !self.life.handles_gone() => self.cut_short("the state channel was closed"),
                Event::Closed | Event::Shutdown => return self.shut_down(),
                Event::Failed => return Err(self.cause()),
            }
        }
    }

    /// Waits for whatever comes first, and where several have come takes any of them.
    fn wait(&self) -> Event<Request<A, S>, T::Incoming> {
        let room = self.work.inner.capacity().is_none_or(|capacity| self.deferred.len() < capacity);
        let mut select = Select::new();
        let messages = select.recv(&self.installs.inner);
        let handles = select.recv(&self.life.handles);
        let failed = select.recv(&self.life.failed);
        if room {
            select.recv(&self.work.inner);
        }
        loop {
            let ready = select.ready();
            let event = if ready == failed {
                self.life.has_failed().then_some(Event::Failed)
            } else if ready == handles {
                self.life.handles_gone().then_some(Event::Shutdown)
            } else if ready == messages {
                arrived(self.installs.inner.try_recv(), Event::Message, Event::Closed)
            } else {
                arrived(self.work.inner.try_recv(), Event::Work, Event::Shutdown)
            };
            // A channel may be said to be ready when it is not.
            if let Some(event) = event {
                return event;
            }
        }
    }

    /// The last handle is gone in the middle of an installation: all work that there will ever be is queued. What has
    /// arrived of the state decides.
    fn shut_down(&mut self) -> Result<(), Failure> {
        while let Ok(request) = self.work.inner.try_recv() {
            match request {
                ExecutionRequest::ExecuteUnordered(batch) => self.answer(batch)?,
                request => self.deferred.push_back(request),
            }
        }
        while let Ok(message) = self.installs.inner.try_recv() {
            self.offer(message)?;
        }
        if self.transfer.under_way().is_none() {
            return Ok(());
        }
        self.cut_short("the executor was stopped");
        let waiting = |request: &&ExecutionRequest<_>| !matches!(request, ExecutionRequest::PollStateChannel);
        match self.deferred.iter().filter(waiting).count() {
            0 => Ok(()),
            dropped => Err(Failure::InstallAbandoned { dropped }),
        }
    }

    /// Gives up the installation under way.
    fn cut_short(&mut self, why: &str) {
        if let Some(seq) = self.transfer.under_way() {
            self.transfer.abandon();
            let reason = self.refuse(seq, &StateError::CutShort { missing: format!("its end ({why})") });
            self.lacks(seq, reason);
        }
    }

    fn offer(&mut self, message: InstallStateMessage<T::Incoming>) -> Result<(), Failure> {
        let seq = message.sequence_number();
        let mut refused = Vec::new();
        // Unwind safety: after a panic the executor fails, and nobody looks at the state again.
        let step = catch_unwind(AssertUnwindSafe(|| {
            self.transfer.offer(&mut self.state, self.last, message, &mut refused)
        }))
        .map_err(|panic| Failure::TransferPanicked { message: caught(panic) })?;
        let reason = refused.iter().map(|error| self.refuse(seq, error)).last();
        match (step, reason) {
            (Step::Noted, _) | (Step::Refused, None) => {}
            (Step::Refused, Some(reason)) => self.lacks(seq, reason),
            (Step::Installed, _) => self.installed(seq),
        }
        Ok(())
    }

    fn installed(&mut self, seq: SeqNo) {
        self.reached(seq);
        self.life.set_install_error(None);
        self.life.metrics.add(Counter::installs, 1);
        tracing::debug!(%seq, "state installed");
    }

    /// Reports that a state, or a piece of it, cannot be used, and returns the reason as text.
    fn refuse(&self, seq: SeqNo, error: &StateError) -> Text {
        let reason = Text::from(error.to_string());
        self.life.metrics.add(Counter::refused_installs, 1);
        self.life.set_install_error(Some(Text::clone(&reason)));
        tracing::warn!(%seq, %error, "state, or a piece of it, refused");
        reason
    }

    /// The state of `seq` was offered and is not there: batches above it cannot be executed without it.
    fn lacks(&mut self, seq: SeqNo, reason: Text) {
        if self.last.is_none_or(|last| seq > last) {
            self.missing.insert(seq, reason);
        }
    }
}

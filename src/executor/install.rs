//! Installing a state: the part of the loop that waits for more than work.
//!
//! While the messages of a state come in, the executor answers unordered requests on the state that it has. All other
//! requests are deferred, in order, at most as many as the queue holds. A shutdown ends the wait.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crossbeam::channel::{never, select};

use super::engine::Engine;
use super::message::{ExecutionRequest, InstallStateMessage};
use super::transfer::{Step, Transfer};
use super::worker_loop::Executor;
use crate::app::{Application, Request};
use crate::batch::SeqNo;
use crate::error::{Failure, StateError, panic_message};
use crate::metrics::Counter;
use crate::sync::Arc;

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
        let never = never();
        let room = self.work.inner.capacity().is_none_or(|capacity| self.deferred.len() < capacity);
        let work = if room { &self.work.inner } else { &never };
        select! {
            recv(self.installs.inner) -> message => message.map_or(Event::Closed, Event::Message),
            recv(work) -> request => request.map_or(Event::Shutdown, Event::Work),
            recv(self.life.handles) -> _ => Event::Shutdown,
            recv(self.life.failed) -> _ => Event::Failed,
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
        .map_err(|panic| Failure::TransferPanicked { message: panic_message(&*panic) })?;
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
    fn refuse(&self, seq: SeqNo, error: &StateError) -> Arc<str> {
        let reason: Arc<str> = Arc::from(error.to_string());
        self.life.metrics.add(Counter::refused_installs, 1);
        self.life.set_install_error(Some(Arc::clone(&reason)));
        tracing::warn!(%seq, %error, "state, or a piece of it, refused");
        reason
    }

    /// The state of `seq` was offered and is not there: batches above it cannot be executed without it.
    fn lacks(&mut self, seq: SeqNo, reason: Arc<str>) {
        if self.last.is_none_or(|last| seq > last) {
            self.missing.insert(seq, reason);
        }
    }
}

//! The other end of the queue: fills entries, and hands out their answers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, timeout_at};

use super::{BatchConfig, Propose, SubmitError, Waiting};
use crate::types::{Answers, Batch};

/// The other end of the queue.
pub(super) struct Feeder<P> {
    pub(super) config: Arc<BatchConfig>,
    pub(super) proposer: u64,
    pub(super) propose: Arc<P>,
    pub(super) waiting: mpsc::UnboundedReceiver<Waiting>,
    pub(super) closed: watch::Receiver<bool>,
    /// Did not fit into the entry before.
    pub(super) left_over: Option<Waiting>,
}

/// An entry as it is filled.
#[derive(Default)]
struct Filling {
    requests: Vec<Waiting>,
    operations: usize,
    bytes: usize,
}

impl Filling {
    fn fits(&self, request: &Waiting, config: &BatchConfig) -> bool {
        self.operations + request.commands.len() <= config.max_operations
            && self.bytes + request.bytes <= config.max_bytes
    }

    fn add(&mut self, request: Waiting) {
        // Whoever asked has gone: the request was not executed, and need not be.
        if request.answer.is_closed() {
            return;
        }
        self.operations += request.commands.len();
        self.bytes += request.bytes;
        self.requests.push(request);
    }

    fn is_full(&self, config: &BatchConfig) -> bool {
        self.operations >= config.max_operations || self.bytes >= config.max_bytes
    }
}

impl<P: Propose> Feeder<P> {
    pub(super) async fn run(mut self) {
        let flights = Arc::new(Semaphore::new(self.config.in_flight));
        while let Some(filling) = self.fill(&flights).await {
            let Ok(flight) = flights.clone().acquire_owned().await else { break };
            let mut filling = filling;
            // What came while the entry waited for its turn.
            self.take_ready(&mut filling);
            if filling.requests.is_empty() {
                continue;
            }
            let (propose, proposer) = (self.propose.clone(), self.proposer);
            let limit = Duration::from_millis(self.config.entry_timeout_ms);
            tokio::spawn(async move {
                fly(&*propose, proposer, filling.requests, limit).await;
                drop(flight);
            });
        }
        // All that is on its way.
        let all = u32::try_from(self.config.in_flight).unwrap_or(u32::MAX);
        let _ = flights.acquire_many(all).await;
    }

    /// The next entry's first requests, and, while another entry is on its way, those that come soon after them; `None`
    /// once there will be no more.
    async fn fill(&mut self, flights: &Semaphore) -> Option<Filling> {
        let mut filling = Filling::default();
        let first = match self.left_over.take() {
            Some(request) => request,
            None => self.next().await?,
        };
        filling.add(first);
        self.take_ready(&mut filling);
        let soon = Instant::now() + Duration::from_micros(self.config.max_delay_us);
        let all = self.config.in_flight;
        let alone = || flights.available_permits() == all;
        while !alone() && self.left_over.is_none() && !filling.is_full(&self.config) {
            match timeout_at(soon, self.waiting.recv()).await {
                Ok(Some(request)) => self.offer(&mut filling, request),
                Ok(None) | Err(_) => break,
            }
        }
        Some(filling)
    }

    /// The next request; `None` once there will be no more.
    async fn next(&mut self) -> Option<Waiting> {
        let closed = async { drop(self.closed.wait_for(|closed| *closed).await) };
        tokio::select! {
            request = self.waiting.recv() => return request,
            // The clones may live on.
            () = closed => {}
        }
        self.waiting.close();
        self.waiting.recv().await
    }

    /// Adds what is in the queue, as far as it fits.
    fn take_ready(&mut self, filling: &mut Filling) {
        if let Some(request) = self.left_over.take() {
            self.offer(filling, request);
        }
        while self.left_over.is_none() && !filling.is_full(&self.config) {
            let Ok(request) = self.waiting.try_recv() else { break };
            self.offer(filling, request);
        }
    }

    fn offer(&mut self, filling: &mut Filling, request: Waiting) {
        if filling.fits(&request, &self.config) {
            filling.add(request);
        } else {
            self.left_over = Some(request);
        }
    }
}

/// Proposes an entry and hands out its answers.
async fn fly(propose: &impl Propose, proposer: u64, requests: Vec<Waiting>, limit: Duration) {
    let mut commands = Vec::with_capacity(requests.iter().map(|request| request.commands.len()).sum());
    let mut shares = Vec::with_capacity(requests.len());
    for request in requests {
        shares.push((request.commands.len(), request.answer));
        commands.extend(request.commands);
    }
    let expected = commands.len();
    let outcome = tokio::time::timeout(limit, propose.propose(Batch { proposer, commands })).await;
    let failure = match outcome {
        Ok(Ok(Answers(answers))) if answers.len() == expected => {
            let mut answers = answers.into_iter();
            for (count, answer) in shares {
                // Whoever has stopped waiting loses nothing.
                let _ = answer.send(Ok(answers.by_ref().take(count).collect()));
            }
            return;
        }
        Ok(Ok(Answers(answers))) => {
            tracing::error!("an entry of {expected} operations has {} answers", answers.len());
            SubmitError::Unknown
        }
        Ok(Err(error)) => SubmitError::Propose(error),
        Err(_) => SubmitError::Unknown,
    };
    for (_, answer) in shares {
        let _ = answer.send(Err(failure.clone()));
    }
}

//! Groups the operations of many requests into entries of the log.
//!
//! ```text
//!   requests ──► space (operations, bytes) ──► queue ──► an entry: at most so many operations and bytes,
//!                a full queue makes them wait             at most so many entries on their way at once
//! ```
//!
//! An entry costs a disk sync on each node, so few large ones are better than many small ones. While nothing is on its way an
//! entry leaves at once; while one is, the next waits for company, for a bounded time; once as many are on their way as may
//! be, the next grows until one of them is answered. More than about two on their way gain nothing: they only wait in front
//! of the same disk.
//!
//! The queue is bounded by operations and by bytes. Whoever finds it full waits, which holds up the stream that the request
//! came from, and is refused at its deadline.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::types::{Answer, Answers, Batch, Command};

/// Bounds of entries and of the queue in front of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchConfig {
    /// Operations of one entry, at most. No request may have more.
    pub max_operations: usize,
    /// Bytes of one entry's operations, at most. No request may have more.
    pub max_bytes: usize,
    /// How long an entry waits for company while another is on its way, in microseconds.
    pub max_delay_us: u64,
    /// Entries on their way at once.
    pub in_flight: usize,
    /// Operations that wait, at most.
    pub queue_operations: usize,
    /// Bytes of operations that wait, at most.
    pub queue_bytes: usize,
    /// How long an entry may take until its requests are told that their outcome is unknown, in milliseconds.
    pub entry_timeout_ms: u64,
}

impl Default for BatchConfig {
    fn default() -> Self {
        BatchConfig {
            max_operations: 1024,
            max_bytes: 1 << 20,
            max_delay_us: 500,
            in_flight: 2,
            queue_operations: 16_384,
            queue_bytes: 32 << 20,
            entry_timeout_ms: 30_000,
        }
    }
}

/// Bounds that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchConfigError {
    /// Nothing would ever be proposed.
    #[error("`{0}` must be at least 1")]
    Zero(&'static str),
    /// A request that an entry could carry would never find space.
    #[error("`{queue}` must be at least `{entry}`, or a large request never finds space")]
    QueueBelowEntry {
        /// The bound of the queue.
        queue: &'static str,
        /// The bound of an entry.
        entry: &'static str,
    },
    /// More than can be counted.
    #[error("`{0}` must be at most 1073741824")]
    TooLarge(&'static str),
}

/// The most that a bound of the queue can be.
const MOST: usize = 1 << 30;

impl BatchConfig {
    /// Checks the bounds.
    ///
    /// # Errors
    ///
    /// The first one that cannot work.
    pub fn validate(&self) -> Result<(), BatchConfigError> {
        let positive = [
            ("max_operations", self.max_operations),
            ("max_bytes", self.max_bytes),
            ("in_flight", self.in_flight),
            ("entry_timeout_ms", usize::try_from(self.entry_timeout_ms).unwrap_or(usize::MAX)),
        ];
        if let Some((name, _)) = positive.into_iter().find(|&(_, value)| value == 0) {
            return Err(BatchConfigError::Zero(name));
        }
        for (name, value) in [
            ("queue_operations", self.queue_operations),
            ("queue_bytes", self.queue_bytes),
            ("in_flight", self.in_flight),
        ] {
            if value > MOST {
                return Err(BatchConfigError::TooLarge(name));
            }
        }
        if self.queue_operations < self.max_operations {
            return Err(BatchConfigError::QueueBelowEntry {
                queue: "queue_operations",
                entry: "max_operations",
            });
        }
        if self.queue_bytes < self.max_bytes {
            return Err(BatchConfigError::QueueBelowEntry { queue: "queue_bytes", entry: "max_bytes" });
        }
        Ok(())
    }
}

/// Why an entry was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// Another node leads. Entries that were on their way when this node stopped leading may still be executed.
    #[error("another node leads")]
    NotLeader,
    /// The node is stopping or has failed.
    #[error("the node has stopped: {0}")]
    Stopped(String),
}

/// Where entries go. The consensus engine is one; tests have others.
pub trait Propose: Send + Sync + 'static {
    /// Proposes an entry and waits until it is executed; one answer a command.
    fn propose(&self, batch: Batch) -> impl Future<Output = Result<Answers, ProposeError>> + Send;
}

/// Why a request was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// It has no operations, or more of them or of bytes than an entry may have. Never executed.
    #[error("{operations} operations of {bytes} bytes; an entry takes 1 to {max_operations} of {max_bytes} bytes")]
    Size {
        /// Operations of the request.
        operations: usize,
        /// Their bytes.
        bytes: usize,
        /// What an entry takes.
        max_operations: usize,
        /// What an entry takes.
        max_bytes: usize,
    },
    /// The queue was full until the deadline. Not executed.
    #[error("the queue is full")]
    Overloaded,
    /// The deadline passed on the way. Executed, or going to be, or not.
    #[error("the deadline passed; the outcome is unknown")]
    Unknown,
    /// The entry was not answered.
    #[error(transparent)]
    Propose(#[from] ProposeError),
}

/// A request in the queue.
struct Waiting {
    commands: Vec<Command>,
    bytes: usize,
    answer: oneshot::Sender<Result<Vec<Answer>, SubmitError>>,
    /// Given back when the request leaves the queue.
    _space: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

/// Takes requests; clones share one queue. Requests that wait when the last clone is dropped are still executed.
#[derive(Clone, Debug)]
pub struct Batcher {
    config: Arc<BatchConfig>,
    operations: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    queue: mpsc::UnboundedSender<Waiting>,
}

impl Batcher {
    /// A batcher whose entries name `proposer` and go to `propose`, and the task that feeds it, which ends once all clones
    /// are dropped and all that they took is answered. Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// Bounds that cannot work.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn start(
        config: BatchConfig,
        proposer: u64,
        propose: impl Propose,
    ) -> Result<(Self, tokio::task::JoinHandle<()>), BatchConfigError> {
        config.validate()?;
        // Bounded by the space that each request in it holds.
        let (queue, waiting) = mpsc::unbounded_channel();
        let config = Arc::new(config);
        let batcher = Batcher {
            operations: Arc::new(Semaphore::new(config.queue_operations)),
            bytes: Arc::new(Semaphore::new(config.queue_bytes)),
            queue,
            config: config.clone(),
        };
        let feeder =
            Feeder { config, proposer, propose: Arc::new(propose), waiting, left_over: None };
        Ok((batcher, tokio::spawn(feeder.run())))
    }

    /// Has `commands` executed, in this order and in one entry, and returns one answer each.
    ///
    /// # Errors
    ///
    /// See [`SubmitError`]. Dropping the future is like its deadline passing.
    pub async fn submit(&self, commands: Vec<Command>, deadline: Instant) -> Result<Vec<Answer>, SubmitError> {
        self.enqueue(commands, deadline).await?.answer().await
    }

    /// The first half of [`submit`](Batcher::submit): waits for space. Whoever enqueues one request after the other has
    /// them executed in this order.
    ///
    /// # Errors
    ///
    /// See [`SubmitError`]; nothing was executed.
    pub async fn enqueue(&self, commands: Vec<Command>, deadline: Instant) -> Result<Ticket, SubmitError> {
        let bytes: usize = commands.iter().map(|command| command.operation.len()).sum();
        let config = &self.config;
        if commands.is_empty() || commands.len() > config.max_operations || bytes > config.max_bytes {
            return Err(SubmitError::Size {
                operations: commands.len(),
                bytes,
                max_operations: config.max_operations,
                max_bytes: config.max_bytes,
            });
        }
        let space = self.space(commands.len(), bytes);
        let space = timeout_at(deadline, space).await.map_err(|_| SubmitError::Overloaded)??;
        let (answer, answered) = oneshot::channel();
        self.queue.send(Waiting { commands, bytes, answer, _space: space }).map_err(|_| closed())?;
        Ok(Ticket { answered, deadline })
    }

    /// Waits for space; both semaphores are fair, so that a large request is not overtaken forever.
    async fn space(
        &self,
        operations: usize,
        bytes: usize,
    ) -> Result<(OwnedSemaphorePermit, OwnedSemaphorePermit), SubmitError> {
        // Both are at most `MOST`.
        let acquire = |space: &Arc<Semaphore>, count: usize| space.clone().acquire_many_owned(count as u32);
        let operations = acquire(&self.operations, operations).await.map_err(|_| closed())?;
        Ok((operations, acquire(&self.bytes, bytes).await.map_err(|_| closed())?))
    }

    /// Takes no more requests, on any clone; those that wait are still executed.
    pub fn close(&self) {
        self.operations.close();
        self.bytes.close();
    }

    /// Operations that wait.
    pub fn waiting(&self) -> usize {
        self.config.queue_operations.saturating_sub(self.operations.available_permits())
    }
}

fn closed() -> SubmitError {
    SubmitError::Propose(ProposeError::Stopped("it takes no more requests".to_owned()))
}

/// A request that is in the queue, or on its way.
#[derive(Debug)]
pub struct Ticket {
    answered: oneshot::Receiver<Result<Vec<Answer>, SubmitError>>,
    deadline: Instant,
}

impl Ticket {
    /// Waits for the answers, one a command.
    ///
    /// # Errors
    ///
    /// See [`SubmitError`].
    pub async fn answer(self) -> Result<Vec<Answer>, SubmitError> {
        match timeout_at(self.deadline, self.answered).await {
            Ok(answered) => answered.unwrap_or_else(|_| Err(closed())),
            Err(_) => Err(SubmitError::Unknown),
        }
    }
}

/// The other end of the queue.
struct Feeder<P> {
    config: Arc<BatchConfig>,
    proposer: u64,
    propose: Arc<P>,
    waiting: mpsc::UnboundedReceiver<Waiting>,
    /// Did not fit into the entry before.
    left_over: Option<Waiting>,
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
    async fn run(mut self) {
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
            None => self.waiting.recv().await?,
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bytes::Bytes;

    use super::*;

    /// Remembers entries, and answers each operation with itself once it is let through.
    #[derive(Clone)]
    struct Gate {
        seen: Arc<Mutex<Vec<Batch>>>,
        permits: Arc<Semaphore>,
        fail: Option<ProposeError>,
    }

    impl Gate {
        fn closed() -> Self {
            Gate { seen: Arc::default(), permits: Arc::new(Semaphore::new(0)), fail: None }
        }

        fn open() -> Self {
            let gate = Gate::closed();
            gate.permits.add_permits(1 << 20);
            gate
        }

        fn sizes(&self) -> Vec<usize> {
            self.seen.lock().expect("no panic").iter().map(|batch| batch.commands.len()).collect()
        }

        /// Waits until so many entries are on their way.
        async fn entries(&self, count: usize) {
            while self.sizes().len() < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    impl Propose for Gate {
        async fn propose(&self, batch: Batch) -> Result<Answers, ProposeError> {
            let answers = batch.commands.iter().map(|command| Answer::Done(command.operation.clone())).collect();
            self.seen.lock().expect("no panic").push(batch);
            self.permits.acquire().await.expect("open").forget();
            self.fail.clone().map_or(Ok(Answers(answers)), Err)
        }
    }

    fn commands(serials: std::ops::Range<u64>) -> Vec<Command> {
        let command = |serial: u64| Command {
            client: 1,
            serial,
            operation: Bytes::copy_from_slice(&serial.to_be_bytes()),
        };
        serials.map(command).collect()
    }

    fn answers(serials: std::ops::Range<u64>) -> Vec<Answer> {
        commands(serials).into_iter().map(|command| Answer::Done(command.operation)).collect()
    }

    /// Against hangs only.
    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn start(config: BatchConfig, gate: &Gate) -> Batcher {
        Batcher::start(config, 7, gate.clone()).expect("valid").0
    }

    #[tokio::test]
    async fn what_waits_travels_together_within_the_bounds() {
        let gate = Gate::closed();
        let config = BatchConfig { max_operations: 10, in_flight: 1, ..BatchConfig::default() };
        let batcher = start(config, &gate);
        let first = batcher.enqueue(commands(0..1), later()).await.expect("space");
        gate.entries(1).await;
        let mut tickets = Vec::new();
        for request in 0..7 {
            let serials = 10 * request..10 * request + 4;
            tickets.push((serials.clone(), batcher.enqueue(commands(serials), later()).await.expect("space")));
        }
        gate.permits.add_permits(100);
        assert_eq!(first.answer().await, Ok(answers(0..1)));
        for (serials, ticket) in tickets {
            assert_eq!(ticket.answer().await, Ok(answers(serials)), "its own answers");
        }
        assert_eq!(gate.sizes(), [1, 8, 8, 8, 4], "whole requests, at most ten operations, in order");
        let seen = gate.seen.lock().expect("no panic");
        let serials: Vec<_> = seen.iter().flat_map(|batch| &batch.commands).map(|c| c.serial).collect();
        assert!(serials.is_sorted(), "{serials:?}");
        assert!(seen.iter().all(|batch| batch.proposer == 7));
    }

    #[tokio::test]
    async fn bytes_bound_an_entry() {
        let gate = Gate::closed();
        let config = BatchConfig { max_bytes: 40, in_flight: 1, ..BatchConfig::default() };
        let batcher = start(config, &gate);
        let mut tickets = vec![batcher.enqueue(commands(0..1), later()).await.expect("space")];
        gate.entries(1).await;
        for request in 1..4 {
            tickets.push(batcher.enqueue(commands(request * 10..request * 10 + 3), later()).await.expect("space"));
        }
        gate.permits.add_permits(100);
        for ticket in tickets {
            ticket.answer().await.expect("answered");
        }
        assert_eq!(gate.sizes(), [1, 3, 3, 3], "two of 24 bytes are too many");
    }

    #[tokio::test]
    async fn no_more_entries_are_on_their_way_than_may_be() {
        let gate = Gate::closed();
        let config = BatchConfig { max_operations: 1, in_flight: 2, ..BatchConfig::default() };
        let batcher = start(config, &gate);
        let mut tickets = Vec::new();
        for serial in 0..6 {
            tickets.push(batcher.enqueue(commands(serial..serial + 1), later()).await.expect("space"));
        }
        gate.entries(2).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(gate.sizes().len(), 2);
        gate.permits.add_permits(1);
        gate.entries(3).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(gate.sizes().len(), 3);
        gate.permits.add_permits(100);
        for ticket in tickets {
            ticket.answer().await.expect("answered");
        }
    }

    #[tokio::test]
    async fn a_full_queue_makes_wait_and_refuses_at_the_deadline() {
        let gate = Gate::closed();
        let config = BatchConfig { max_operations: 4, queue_operations: 4, in_flight: 1, ..BatchConfig::default() };
        let batcher = start(config, &gate);
        let first = batcher.enqueue(commands(0..4), later()).await.expect("space");
        gate.entries(1).await;
        // One entry's worth is taken out of the queue ahead of its turn, at most; it keeps its space until it leaves.
        let second = batcher.enqueue(commands(4..8), later()).await.expect("space");
        assert_eq!(batcher.waiting(), 4);
        let soon = Instant::now() + Duration::from_millis(30);
        assert_eq!(batcher.submit(commands(8..9), soon).await, Err(SubmitError::Overloaded));
        let third = tokio::spawn({
            let batcher = batcher.clone();
            async move { batcher.submit(commands(9..10), later()).await }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!third.is_finished());
        gate.permits.add_permits(100);
        assert_eq!(third.await.expect("no panic"), Ok(answers(9..10)));
        assert_eq!((first.answer().await, second.answer().await), (Ok(answers(0..4)), Ok(answers(4..8))));
    }

    #[tokio::test]
    async fn what_is_too_large_or_empty_is_refused_at_once() {
        let gate = Gate::open();
        let config = BatchConfig { max_operations: 4, max_bytes: 20, ..BatchConfig::default() };
        let batcher = start(config, &gate);
        for serials in [0..0, 0..3, 0..5] {
            let refused = batcher.submit(commands(serials), later()).await;
            assert!(matches!(refused, Err(SubmitError::Size { max_operations: 4, max_bytes: 20, .. })), "{refused:?}");
        }
        assert_eq!(batcher.submit(commands(0..2), later()).await, Ok(answers(0..2)));
        assert_eq!(gate.sizes(), [2]);
    }

    #[tokio::test]
    async fn a_deadline_on_the_way_is_an_unknown_outcome_and_one_in_the_queue_costs_no_entry() {
        let gate = Gate::closed();
        let config = BatchConfig { max_operations: 4, in_flight: 1, ..BatchConfig::default() };
        let batcher = start(config, &gate);
        let soon = Instant::now() + Duration::from_millis(30);
        let on_its_way = batcher.enqueue(commands(0..1), soon).await.expect("space");
        gate.entries(1).await;
        assert_eq!(on_its_way.answer().await, Err(SubmitError::Unknown));
        // Only the first of these is taken out of the queue ahead of its turn.
        let taken = batcher.enqueue(commands(1..5), later()).await.expect("space");
        let gone = batcher.enqueue(commands(5..9), later()).await.expect("space");
        drop(gone);
        let last = batcher.enqueue(commands(9..10), later()).await.expect("space");
        gate.permits.add_permits(100);
        assert_eq!((taken.answer().await, last.answer().await), (Ok(answers(1..5)), Ok(answers(9..10))));
        assert_eq!(gate.sizes(), [1, 4, 1], "nobody waited for the one that was dropped");
    }

    #[tokio::test]
    async fn an_entry_that_takes_too_long_frees_its_place() {
        let gate = Gate::closed();
        let config = BatchConfig { in_flight: 1, entry_timeout_ms: 20, ..BatchConfig::default() };
        let batcher = start(config, &gate);
        assert_eq!(batcher.submit(commands(0..1), later()).await, Err(SubmitError::Unknown));
        gate.permits.add_permits(1);
        assert_eq!(batcher.submit(commands(1..2), later()).await, Ok(answers(1..2)));
    }

    #[tokio::test]
    async fn a_refused_entry_is_an_error_of_each_of_its_requests() {
        let gate = Gate { fail: Some(ProposeError::NotLeader), ..Gate::open() };
        let batcher = start(BatchConfig::default(), &gate);
        let refused = Err(SubmitError::Propose(ProposeError::NotLeader));
        assert_eq!(batcher.submit(commands(0..1), later()).await, refused);
        assert_eq!(batcher.submit(commands(1..2), later()).await, refused);
    }

    #[tokio::test]
    async fn once_closed_nothing_is_taken_and_what_waits_is_answered() {
        let gate = Gate::closed();
        let config = BatchConfig { max_operations: 1, in_flight: 1, ..BatchConfig::default() };
        let (batcher, task) = Batcher::start(config, 7, gate.clone()).expect("valid");
        let mut tickets = Vec::new();
        for serial in 0..3 {
            tickets.push(batcher.enqueue(commands(serial..serial + 1), later()).await.expect("space"));
        }
        batcher.close();
        let refused = batcher.submit(commands(3..4), later()).await;
        assert!(matches!(refused, Err(SubmitError::Propose(ProposeError::Stopped(_)))), "{refused:?}");
        gate.permits.add_permits(100);
        for (serial, ticket) in (0..3).zip(tickets) {
            assert_eq!(ticket.answer().await, Ok(answers(serial..serial + 1)));
        }
        drop(batcher);
        task.await.expect("it ends");
    }

    #[test]
    fn bounds_that_cannot_work_are_named() {
        let wrong = |change: fn(&mut BatchConfig)| {
            let mut config = BatchConfig::default();
            change(&mut config);
            config.validate().expect_err("wrong").to_string()
        };
        assert_eq!(BatchConfig::default().validate(), Ok(()));
        assert_eq!(wrong(|c| c.max_operations = 0), "`max_operations` must be at least 1");
        assert_eq!(wrong(|c| c.max_bytes = 0), "`max_bytes` must be at least 1");
        assert_eq!(wrong(|c| c.in_flight = 0), "`in_flight` must be at least 1");
        assert_eq!(wrong(|c| c.entry_timeout_ms = 0), "`entry_timeout_ms` must be at least 1");
        assert!(wrong(|c| c.queue_operations = 1).starts_with("`queue_operations` must be at least `max_op"));
        assert!(wrong(|c| c.queue_bytes = 1).starts_with("`queue_bytes` must be at least `max_bytes`"));
        assert!(wrong(|c| c.queue_bytes = usize::MAX).starts_with("`queue_bytes` must be at most"));
    }
}

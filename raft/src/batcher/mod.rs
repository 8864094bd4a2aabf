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

mod config;
mod feeder;

use std::future::Future;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

pub use config::{BatchConfig, BatchConfigError};
use feeder::Feeder;

use crate::types::{Answer, Answers, Batch, Command};

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
    #[error(
        "{operations} operations of {bytes} bytes; an entry takes 1 to {max_operations} of {max_bytes} bytes"
    )]
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
    closed: Arc<watch::Sender<bool>>,
}

impl Batcher {
    /// A batcher whose entries name `proposer` and go to `propose`, and the task that feeds it, which ends once it is closed,
    /// or all clones are dropped, and all that was taken is answered. Must be called inside a tokio runtime.
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
            closed: Arc::default(),
            config: config.clone(),
        };
        let closed = batcher.closed.subscribe();
        let feeder =
            Feeder { config, proposer, propose: Arc::new(propose), waiting, closed, left_over: None };
        Ok((batcher, tokio::spawn(feeder.run())))
    }

    /// Has `commands` executed, in this order and in one entry, and returns one answer each.
    ///
    /// # Errors
    ///
    /// See [`SubmitError`]. Dropping the future is like its deadline passing.
    pub async fn submit(
        &self,
        commands: Vec<Command>,
        deadline: Instant,
    ) -> Result<Vec<Answer>, SubmitError> {
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
        self.closed.send_replace(true);
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

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
            let answers =
                batch.commands.iter().map(|command| Answer::Done(command.operation.clone())).collect();
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
            tickets
                .push((serials.clone(), batcher.enqueue(commands(serials), later()).await.expect("space")));
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
            tickets.push(
                batcher.enqueue(commands(request * 10..request * 10 + 3), later()).await.expect("space"),
            );
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
        let config =
            BatchConfig { max_operations: 4, queue_operations: 4, in_flight: 1, ..BatchConfig::default() };
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
            assert!(
                matches!(refused, Err(SubmitError::Size { max_operations: 4, max_bytes: 20, .. })),
                "{refused:?}"
            );
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
        task.await.expect("it ends, though the batcher lives");
    }
}

//! Many requests on their way at once, over one stream to the leader.
//!
//! A task holds the requests that are not answered. When the stream breaks, or a node turns out not to lead, it opens
//! another one and sends them all again, in order and under the same serials.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::connection::Attempt;
use super::{ClientError, Shared, Tries, in_view_of, millis};
use crate::proto::client as proto;
use crate::session::SLOTS;
use crate::types::Answer;

/// How often requests are looked through for those whose time is up.
const TICK: Duration = Duration::from_millis(100);

type Outcome = Result<Vec<Answer>, ClientError>;

/// A stream of requests; clones feed the same one. Requests are executed in the order in which they were submitted, as long
/// as no stream breaks; each is executed once in any case.
#[derive(Clone, Debug)]
pub struct Pipeline {
    shared: Arc<Shared>,
    depth: Arc<Semaphore>,
    requests: mpsc::Sender<Waiting>,
}

/// A request that is on its way.
#[derive(Debug)]
pub struct Pending {
    answered: oneshot::Receiver<Outcome>,
}

impl Pending {
    /// Waits for the answers, one an operation.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn answers(self) -> Outcome {
        let ended = |_| Err(ClientError::Unknown("the pipeline has ended".to_owned()));
        self.answered.await.unwrap_or_else(ended)
    }
}

/// A request that is not answered; its serials and its place are given back when it is.
#[derive(Debug)]
struct Waiting {
    shared: Arc<Shared>,
    first: u64,
    operations: Vec<Bytes>,
    deadline: Instant,
    answer: Option<oneshot::Sender<Outcome>>,
    /// It was sent on a stream that broke: it may have been executed.
    perhaps: bool,
    _place: OwnedSemaphorePermit,
}

impl Waiting {
    fn finish(mut self, outcome: Outcome) {
        if let Some(answer) = self.answer.take() {
            // Whoever has stopped waiting loses nothing.
            let _ = answer.send(outcome);
        }
    }

    fn request(&self) -> proto::ExecuteRequest {
        proto::ExecuteRequest {
            tag: self.first,
            client: self.shared.id,
            first_serial: self.first,
            operations: self.operations.clone(),
            timeout_ms: millis(self.deadline.saturating_duration_since(Instant::now())),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.shared.serials.give_back(self.first);
    }
}

impl Pipeline {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let depth = Arc::new(Semaphore::new(shared.pipeline_depth));
        let (requests, submitted) = mpsc::channel(shared.pipeline_depth);
        let task =
            Task { shared: shared.clone(), submitted, unanswered: BTreeMap::new(), tries: Tries::default() };
        tokio::spawn(task.run());
        Pipeline { shared, depth, requests }
    }

    /// Sends operations once there is room for them. The answers are waited for with what this returns.
    ///
    /// # Errors
    ///
    /// Too many operations, or no room within the time that a call may take.
    pub async fn submit(&self, operations: Vec<Bytes>) -> Result<Pending, ClientError> {
        let count = operations.len() as u64;
        if count == 0 || count > SLOTS {
            return Err(ClientError::TooLarge(format!("{count} operations; 1 to {SLOTS} are possible")));
        }
        let deadline = Instant::now() + self.shared.timeout;
        let ended = || ClientError::Unavailable("the pipeline has ended".to_owned());
        let late = |_| ClientError::Overloaded("too much of this client is on its way".to_owned());
        let place = timeout_at(deadline, self.depth.clone().acquire_owned()).await.map_err(late)?;
        let place = place.map_err(|_| ended())?;
        let first = timeout_at(deadline, self.shared.serials.take_raw(count)).await.map_err(late)?;
        let (answer, answered) = oneshot::channel();
        let shared = self.shared.clone();
        let answer = Some(answer);
        let waiting = Waiting { shared, first, operations, deadline, answer, perhaps: false, _place: place };
        self.requests.send(waiting).await.map_err(|_| ended())?;
        Ok(Pending { answered })
    }
}

struct Task {
    shared: Arc<Shared>,
    submitted: mpsc::Receiver<Waiting>,
    /// By first serial, which is also their tag.
    unanswered: BTreeMap<u64, Waiting>,
    tries: Tries,
}

/// How a stream ended.
enum End {
    /// All is answered, and nobody will ask more.
    Done,
    /// The next stream begins at once, or after a pause.
    Broken(String),
}

impl Task {
    async fn run(mut self) {
        loop {
            match self.stream().await {
                End::Done => return,
                End::Broken(why) => {
                    for waiting in self.unanswered.values_mut() {
                        waiting.perhaps = true;
                    }
                    // What was not yet sent runs out of time, too.
                    while let Ok(waiting) = self.submitted.try_recv() {
                        self.unanswered.insert(waiting.first, waiting);
                    }
                    self.expire(&why);
                    tokio::time::sleep(self.tries.wait()).await;
                }
            }
        }
    }

    /// One stream, from its first request to its end.
    async fn stream(&mut self) -> End {
        if self.unanswered.is_empty() {
            match self.submitted.recv().await {
                Some(waiting) => drop(self.unanswered.insert(waiting.first, waiting)),
                None => return End::Done,
            }
        }
        let (address, mut service) = match self.shared.nodes.current() {
            Ok(current) => current,
            Err(error) => return End::Broken(error.to_string()),
        };
        let (requests, stream) = mpsc::channel(self.shared.pipeline_depth.max(self.unanswered.len()));
        for waiting in self.unanswered.values() {
            // There is room for them.
            let _ = requests.try_send(waiting.request());
        }
        let opened =
            tokio::time::timeout(self.shared.attempt_timeout, service.pipeline(ReceiverStream::new(stream)));
        let answers = match opened.await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return self.refused(&address, &status),
            Err(_) => {
                self.shared.nodes.pass_by(&address);
                return End::Broken(format!("{address} does not answer"));
            }
        };
        self.converse(&address, requests, answers).await
    }

    async fn converse(
        &mut self,
        address: &str,
        requests: mpsc::Sender<proto::ExecuteRequest>,
        mut answers: Streaming<proto::ExecuteResponse>,
    ) -> End {
        let mut open = true;
        let mut heard = Instant::now();
        let mut tick = tokio::time::interval(TICK);
        loop {
            if !open && self.unanswered.is_empty() {
                return End::Done;
            }
            tokio::select! {
                waiting = self.submitted.recv(), if open => match waiting {
                    Some(waiting) => {
                        if self.unanswered.is_empty() {
                            heard = Instant::now();
                        }
                        let request = waiting.request();
                        self.unanswered.insert(waiting.first, waiting);
                        // As many fit as there may be unanswered ones.
                        if requests.send(request).await.is_err() {
                            return End::Broken(format!("{address} broke off"));
                        }
                    }
                    None => open = false,
                },
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => {
                        heard = Instant::now();
                        if let Some(why) = self.answered(address, answer) {
                            return End::Broken(why);
                        }
                    }
                    Ok(None) => {
                        self.shared.nodes.pass_by(address);
                        return End::Broken(format!("{address} ended the stream"));
                    }
                    Err(status) => return self.refused(address, &status),
                },
                _ = tick.tick() => {
                    self.expire(&format!("{address} does not answer"));
                    if !self.unanswered.is_empty() && heard.elapsed() > self.shared.attempt_timeout {
                        self.shared.nodes.pass_by(address);
                        return End::Broken(format!("{address} does not answer"));
                    }
                }
            }
        }
    }

    /// Hands an answer out; says why, if the stream is of no use any more.
    fn answered(&mut self, address: &str, response: proto::ExecuteResponse) -> Option<String> {
        let tag = response.tag;
        match self.shared.nodes.outcome(address, response) {
            Attempt::Answers(answers) => {
                self.tries = Tries::default();
                self.finish(tag, Ok(answers));
                None
            }
            Attempt::Never(error) => {
                let perhaps = self.unanswered.get(&tag).is_some_and(|waiting| waiting.perhaps);
                self.finish(tag, Err(in_view_of(perhaps, error)));
                None
            }
            Attempt::Busy(why) | Attempt::Again(why) => Some(why),
        }
    }

    fn finish(&mut self, tag: u64, outcome: Outcome) {
        if let Some(waiting) = self.unanswered.remove(&tag) {
            waiting.finish(outcome);
        }
    }

    /// The call as such failed. If it always would, nothing that waits will ever be answered.
    fn refused(&mut self, address: &str, status: &tonic::Status) -> End {
        match self.shared.nodes.refused(address, status) {
            Attempt::Never(error) => {
                for (_, waiting) in std::mem::take(&mut self.unanswered) {
                    waiting.finish(Err(ClientError::Unknown(error.to_string())));
                }
                End::Broken(error.to_string())
            }
            Attempt::Busy(why) | Attempt::Again(why) => End::Broken(why),
            Attempt::Answers(_) => End::Broken(String::new()),
        }
    }

    /// Gives up what has run out of time.
    fn expire(&mut self, why: &str) {
        let now = Instant::now();
        let late: Vec<u64> = self
            .unanswered
            .values()
            .filter(|waiting| waiting.deadline <= now)
            .map(|waiting| waiting.first)
            .collect();
        for tag in late {
            self.finish(tag, Err(ClientError::Unknown(why.to_owned())));
        }
    }
}

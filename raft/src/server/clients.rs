//! What clients ask of this node.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, timeout_at};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Stage;
use super::read_index::{ReadIndex, ReadIndexError};
use crate::batcher::{Batcher, ProposeError, SubmitError, Ticket};
use crate::config::{ExecutorSettings, Limits};
use crate::machine::{ExecutorKind, ReadError, Reader};
use crate::proto::client as proto;
use crate::proto::client::failure::Kind;
use crate::session::Service;
use crate::types::{self, Command, Raft};

/// What all calls share.
pub(crate) struct Shared<A: Service> {
    pub(crate) id: u64,
    pub(crate) cluster: String,
    pub(crate) raft: Raft,
    pub(crate) reader: Reader<A>,
    pub(crate) batcher: Batcher,
    pub(crate) read_index: ReadIndex,
    pub(crate) limits: Limits,
    pub(crate) read_operations: usize,
    pub(crate) executor: ExecutorSettings,
    /// Whether the node still takes requests.
    pub(crate) stage: watch::Receiver<Stage>,
}

/// The service behind the clients' listener.
pub(crate) struct ClientService<A: Service>(pub(crate) Arc<Shared<A>>);

impl<A: Service> Clone for ClientService<A> {
    fn clone(&self) -> Self {
        ClientService(self.0.clone())
    }
}

type Answered = Result<Vec<types::Answer>, proto::Failure>;

#[tonic::async_trait]
impl<A: Service> proto::client_server::Client for ClientService<A> {
    async fn execute(
        &self,
        request: Request<proto::ExecuteRequest>,
    ) -> Result<Response<proto::ExecuteResponse>, Status> {
        let request = request.into_inner();
        let tag = request.tag;
        let answered = match self.0.enqueue(request).await {
            Ok(ticket) => self.0.answer(ticket).await,
            Err(failure) => Err(failure),
        };
        Ok(Response::new(execute_response(tag, answered)))
    }

    type PipelineStream = Pin<Box<dyn Stream<Item = Result<proto::ExecuteResponse, Status>> + Send>>;

    async fn pipeline(
        &self,
        request: Request<Streaming<proto::ExecuteRequest>>,
    ) -> Result<Response<Self::PipelineStream>, Status> {
        let (answers, stream) = mpsc::channel(self.0.limits.pipeline_depth);
        tokio::spawn(self.0.clone().pipeline(request.into_inner(), answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn read(
        &self,
        request: Request<proto::ReadRequest>,
    ) -> Result<Response<proto::ReadResponse>, Status> {
        let outcome = match self.0.read(request.into_inner()).await {
            Ok(answers) => proto::read_response::Outcome::Answers(to_proto(answers)),
            Err(failure) => proto::read_response::Outcome::Failure(failure),
        };
        Ok(Response::new(proto::ReadResponse { outcome: Some(outcome) }))
    }

    async fn status(
        &self,
        request: Request<proto::StatusRequest>,
    ) -> Result<Response<proto::StatusResponse>, Status> {
        let digest = if request.into_inner().digest {
            let limit = Duration::from_millis(self.0.limits.max_timeout_ms.into());
            let digest = tokio::time::timeout(limit, self.0.reader.digest()).await;
            let digest = digest.map_err(|_| Status::deadline_exceeded("the digest"))?;
            let (applied, hex) = digest.map_err(|error| Status::unavailable(error.to_string()))?;
            Some(proto::Digest { applied, hex })
        } else {
            None
        };
        Ok(Response::new(self.0.status(digest)))
    }
}

impl<A: Service> Shared<A> {
    /// Takes requests as there is space for them, in their order, and lets each answer go when it is there.
    async fn pipeline(
        self: Arc<Self>,
        mut requests: Streaming<proto::ExecuteRequest>,
        answers: mpsc::Sender<Result<proto::ExecuteResponse, Status>>,
    ) {
        let depth = Arc::new(Semaphore::new(self.limits.pipeline_depth));
        let mut stage = self.stage.clone();
        loop {
            let Ok(place) = depth.clone().acquire_owned().await else { break };
            let request = tokio::select! {
                request = requests.message() => request,
                _ = stage.wait_for(|stage| *stage >= Stage::Drain) => break,
                () = answers.closed() => break,
            };
            match request {
                Ok(Some(request)) => self.take(request, &answers, place).await,
                Ok(None) => break,
                Err(status) => {
                    let _ = answers.send(Err(status)).await;
                    break;
                }
            }
        }
    }

    /// One request of a pipeline; holds its place until its answer is on its way.
    async fn take(
        self: &Arc<Self>,
        request: proto::ExecuteRequest,
        answers: &mpsc::Sender<Result<proto::ExecuteResponse, Status>>,
        place: OwnedSemaphorePermit,
    ) {
        let tag = request.tag;
        let ticket = self.enqueue(request).await;
        let (shared, answers) = (self.clone(), answers.clone());
        tokio::spawn(async move {
            let answered = match ticket {
                // What is queued for a stream that has broken is not worth executing; its client asks again.
                Ok(ticket) => tokio::select! {
                    answered = shared.answer(ticket) => answered,
                    () = answers.closed() => return,
                },
                Err(failure) => Err(failure),
            };
            let _ = answers.send(Ok(execute_response(tag, answered))).await;
            drop(place);
        });
    }

    async fn enqueue(&self, request: proto::ExecuteRequest) -> Result<Ticket, proto::Failure> {
        let deadline = self.deadline(request.timeout_ms);
        let count = request.operations.len() as u64;
        if request.first_serial.checked_add(count).is_none() {
            return Err(failure(Kind::Malformed, "serials beyond the largest number".to_owned()));
        }
        let commands = (request.first_serial..).zip(request.operations);
        let commands = commands
            .map(|(serial, operation)| Command { client: request.client, serial, operation })
            .collect();
        self.batcher.enqueue(commands, deadline).await.map_err(|error| self.refused(error))
    }

    async fn answer(&self, ticket: Ticket) -> Answered {
        let answers = ticket.answer().await.map_err(|error| self.refused(error))?;
        Ok(within(answers, self.limits.max_answer_bytes))
    }

    async fn read(&self, request: proto::ReadRequest) -> Answered {
        let deadline = self.deadline(request.timeout_ms);
        if *self.stage.borrow() >= Stage::Drain {
            return Err(failure(Kind::Unavailable, "the node is stopping".to_owned()));
        }
        if request.operations.len() > self.read_operations {
            let text = format!("{} operations; at most {}", request.operations.len(), self.read_operations);
            return Err(failure(Kind::TooLarge, text));
        }
        let consistency = proto::Consistency::try_from(request.consistency)
            .map_err(|_| failure(Kind::Malformed, format!("consistency {}", request.consistency)))?;
        let read = async {
            match consistency {
                proto::Consistency::Stale => self.reader.read_stale(request.operations).await,
                proto::Consistency::Linearizable => {
                    self.read_index.ensure().await.map_err(|error| self.not_linearizable(error))?;
                    self.reader.read(request.operations).await
                }
            }
            .map_err(|error: ReadError| failure(Kind::Unavailable, error.to_string()))
        };
        let late = |_| failure(Kind::Unknown, "the deadline passed".to_owned());
        let answers = timeout_at(deadline, read).await.map_err(late)??;
        let (bytes, most) = (answers.iter().map(reply_bytes).sum::<usize>(), self.limits.max_answer_bytes);
        if bytes > most {
            return Err(failure(Kind::TooLarge, format!("answers of {bytes} bytes; at most {most}")));
        }
        Ok(answers)
    }

    fn deadline(&self, timeout_ms: u32) -> Instant {
        let millis = match timeout_ms {
            0 => self.limits.default_timeout_ms,
            some => some.min(self.limits.max_timeout_ms),
        };
        Instant::now() + Duration::from_millis(millis.into())
    }

    fn refused(&self, error: SubmitError) -> proto::Failure {
        let kind = match &error {
            SubmitError::Size { operations: 0, .. } => Kind::Malformed,
            SubmitError::Size { .. } => Kind::TooLarge,
            SubmitError::Overloaded => Kind::Overloaded,
            SubmitError::Unknown => Kind::Unknown,
            SubmitError::Propose(ProposeError::NotLeader) => return self.not_leader(),
            SubmitError::Propose(ProposeError::Stopped(_)) => Kind::Unavailable,
        };
        failure(kind, error.to_string())
    }

    fn not_linearizable(&self, error: ReadIndexError) -> proto::Failure {
        match error {
            ReadIndexError::NotLeader => self.not_leader(),
            ReadIndexError::NoQuorum(text) | ReadIndexError::Stopped(text) => {
                failure(Kind::Unavailable, text)
            }
        }
    }

    /// Names the leader, if it is known.
    fn not_leader(&self) -> proto::Failure {
        let text = format!("node {} does not lead", self.id);
        proto::Failure { leader: self.leader(), ..failure(Kind::NotLeader, text) }
    }

    fn leader(&self) -> Option<proto::Leader> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let id = metrics.current_leader?;
        let member = metrics.membership_config.membership().get_node(&id)?;
        Some(proto::Leader { id, client_address: member.client_address.clone() })
    }

    fn status(&self, digest: Option<proto::Digest>) -> proto::StatusResponse {
        let leader = self.leader();
        let counters = self.reader.metrics().counters();
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let membership = metrics.membership_config.membership();
        let voters: Vec<u64> = membership.voter_ids().collect();
        let role = match metrics.state {
            ServerState::Leader => "leader",
            ServerState::Candidate => "candidate",
            ServerState::Follower => "follower",
            ServerState::Learner => "learner",
            ServerState::Shutdown => "stopped",
        };
        let nodes = membership.nodes().map(|(id, member)| proto::Node {
            id: *id,
            client_address: member.client_address.clone(),
            learner: !voters.contains(id),
        });
        proto::StatusResponse {
            id: self.id,
            cluster: self.cluster.clone(),
            role: role.to_owned(),
            term: metrics.current_term,
            leader,
            last_log: metrics.last_log_index.unwrap_or(0),
            applied: metrics.last_applied.map_or(0, |id| id.index),
            snapshot: metrics.snapshot.map_or(0, |id| id.index),
            executor: self.executor.kind.to_string(),
            threads: threads(&self.executor) as u32,
            digest,
            counters: Some(proto::Counters {
                operations: counters.operations,
                batches: counters.batches,
                collisions: counters.collisions,
                replays: counters.replays,
                unordered_operations: counters.unordered_operations,
            }),
            nodes: nodes.collect(),
        }
    }
}

/// `answers`, of which those are left out whose replies would go beyond `most` bytes altogether: they were executed, and must
/// not be called anything else.
fn within(mut answers: Vec<types::Answer>, most: usize) -> Vec<types::Answer> {
    let mut bytes = 0;
    for answer in &mut answers {
        bytes += reply_bytes(answer);
        if bytes > most && matches!(answer, types::Answer::Done(_)) {
            *answer = types::Answer::ReplyNotKept;
        }
    }
    answers
}

/// Bytes of an answer's reply.
fn reply_bytes(answer: &types::Answer) -> usize {
    match answer {
        types::Answer::Done(reply) => reply.len(),
        _ => 0,
    }
}

/// Threads that execute operations.
fn threads(executor: &ExecutorSettings) -> usize {
    match executor.kind {
        ExecutorKind::SingleMonolithic | ExecutorKind::SingleDivisible => 1,
        _ => executor.executor_config().validate().map_or(1, |report| report.threads),
    }
}

fn failure(kind: Kind, message: String) -> proto::Failure {
    proto::Failure { kind: kind.into(), message, leader: None }
}

fn to_proto(answers: Vec<types::Answer>) -> proto::Answers {
    use proto::answer::Kind;
    let answer = |answer| match answer {
        types::Answer::Done(reply) => proto::Answer { kind: Kind::Done.into(), reply },
        types::Answer::Stale => proto::Answer { kind: Kind::Stale.into(), ..proto::Answer::default() },
        types::Answer::Malformed => {
            proto::Answer { kind: Kind::Malformed.into(), ..proto::Answer::default() }
        }
        types::Answer::NumberTaken => {
            proto::Answer { kind: Kind::NumberTaken.into(), ..proto::Answer::default() }
        }
        types::Answer::ReplyNotKept => {
            proto::Answer { kind: Kind::ReplyNotKept.into(), ..proto::Answer::default() }
        }
    };
    proto::Answers { answers: answers.into_iter().map(answer).collect() }
}

fn execute_response(tag: u64, answered: Answered) -> proto::ExecuteResponse {
    let outcome = match answered {
        Ok(answers) => proto::execute_response::Outcome::Answers(to_proto(answers)),
        Err(failure) => proto::execute_response::Outcome::Failure(failure),
    };
    proto::ExecuteResponse { tag, outcome: Some(outcome) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_beyond_the_limit_are_left_out() {
        let done = |len| types::Answer::Done(vec![7; len].into());
        let answers = vec![done(3), types::Answer::Stale, done(2), done(1), types::Answer::Stale];
        assert_eq!(within(answers.clone(), 6), answers);
        let left = within(answers, 4);
        let gone = types::Answer::ReplyNotKept;
        assert_eq!(left, [done(3), types::Answer::Stale, gone.clone(), gone, types::Answer::Stale]);
    }
}

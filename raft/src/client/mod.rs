//! A client: follows the leader, and asks again under the same serials until it knows.
//!
//! A client numbers its operations. When an answer does not come, it sends the same operations under the same numbers, to
//! whoever leads then; the replicas execute each number once, and answer again what they answered first. A call that gives
//! up returns [`ClientError::Unknown`]: the operations may have been executed, or may still be.
//!
//! The replicas keep the last [`SLOTS`] answers of a client. So a client has at most so many numbers on their way; further
//! calls wait.

mod connection;
mod pipeline;
mod serials;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

pub(crate) use connection::MAX_ANSWER_BYTES;
pub use pipeline::{Pending, Pipeline};

use crate::proto::client as proto;
use crate::session::SLOTS;
use crate::tls::{TlsError, TlsFiles};
use crate::types::Answer;
use connection::{Attempt, Nodes};
use serials::Serials;

/// How a client reaches its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientConfig {
    /// `host:port` of some or all nodes, as clients reach them. Others are learned from these.
    pub addresses: Vec<String>,
    /// Certificates; none: plain connections.
    pub tls: Option<TlsFiles>,
    /// How long a call may take with all its attempts, in milliseconds.
    pub timeout_ms: u64,
    /// How long one attempt may take, in milliseconds.
    pub attempt_timeout_ms: u64,
    /// The client's number, which no other client may use; by default a random one.
    pub client: Option<u64>,
    /// The number of the client's first operation, at least 1 and above all that the client has used before. By default 1 for
    /// a random `client`; for one that is given the clock, in microseconds since 1970: the replicas answer what comes after a
    /// clock that went back as they answered these numbers first, or as stale.
    pub first_serial: Option<u64>,
    /// Requests of a pipeline that are on their way at once, at most.
    pub pipeline_depth: usize,
}

impl Default for ClientConfig {
    fn default() -> Self {
        ClientConfig {
            addresses: Vec::new(),
            tls: None,
            timeout_ms: 10_000,
            attempt_timeout_ms: 2_000,
            client: None,
            first_serial: None,
            pipeline_depth: 16,
        }
    }
}

/// Why a call has no answers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No address, or one that is none.
    #[error("`{0}` is not an address of the form host:port")]
    Address(String),
    /// A setting that makes no sense.
    #[error("`{0}` must be at least 1")]
    Zero(&'static str),
    /// A setting that is too large.
    #[error("`{name}` must be at most {most}")]
    Setting {
        /// Which.
        name: &'static str,
        /// What is possible.
        most: u64,
    },
    /// A certificate or key.
    #[error("TLS: {0}")]
    Tls(String),
    /// Too many operations or bytes for one request. Not executed.
    #[error("too large: {0}")]
    TooLarge(String),
    /// The server does not understand the request. Not executed.
    #[error("refused: {0}")]
    Malformed(String),
    /// The queue stayed full. Not executed.
    #[error("overloaded: {0}")]
    Overloaded(String),
    /// Time is up. The operations may have been executed, or may still be, or not. The last attempt's outcome is named.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
    /// The node cannot answer: nobody listens there, it is stopping, it does not lead.
    #[error("{0}")]
    Unavailable(String),
}

impl From<TlsError> for ClientError {
    fn from(error: TlsError) -> Self {
        ClientError::Tls(error.to_string())
    }
}

/// What a read sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// Every operation that was answered before the read was asked for.
    #[default]
    Linearizable,
    /// Some earlier state, perhaps a very early one.
    Stale,
}

/// How a node fares.
pub type NodeStatus = proto::StatusResponse;

/// Speaks to a cluster. Clones are the same client and share its connections.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    id: u64,
    nodes: Nodes,
    serials: Serials,
    timeout: Duration,
    attempt_timeout: Duration,
    pipeline_depth: usize,
}

impl Client {
    /// A client. It connects when it is first used; must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// A setting that cannot work, or a file that cannot be read.
    pub fn new(config: ClientConfig) -> Result<Self, ClientError> {
        let positive = [
            ("timeout_ms", config.timeout_ms),
            ("attempt_timeout_ms", config.attempt_timeout_ms),
            ("pipeline_depth", config.pipeline_depth as u64),
            ("first_serial", config.first_serial.unwrap_or(1)),
        ];
        if let Some((name, _)) = positive.into_iter().find(|&(_, value)| value == 0) {
            return Err(ClientError::Zero(name));
        }
        let bounded = [
            ("pipeline_depth", config.pipeline_depth as u64, Semaphore::MAX_PERMITS as u64),
            ("first_serial", config.first_serial.unwrap_or(1), u64::MAX / 2),
        ];
        if let Some((name, _, most)) = bounded.into_iter().find(|&(_, value, most)| value > most) {
            return Err(ClientError::Setting { name, most });
        }
        let first = config.first_serial.unwrap_or_else(|| config.client.map_or(1, |_| clock()));
        let tls = config.tls.as_ref().map(TlsFiles::read).transpose()?;
        Ok(Client {
            shared: Arc::new(Shared {
                id: config.client.unwrap_or_else(random),
                nodes: Nodes::new(config.addresses, tls)?,
                serials: Serials::starting_at(first),
                timeout: Duration::from_millis(config.timeout_ms),
                attempt_timeout: Duration::from_millis(config.attempt_timeout_ms),
                pipeline_depth: config.pipeline_depth,
            }),
        })
    }

    /// The client's number.
    pub fn id(&self) -> u64 {
        self.shared.id
    }

    /// Executes operations, in this order and exactly once, and returns one answer each. At most [`SLOTS`], and what the
    /// servers' settings allow.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn execute(&self, operations: Vec<Bytes>) -> Result<Vec<Answer>, ClientError> {
        let shared = &self.shared;
        let deadline = Instant::now() + shared.timeout;
        let count = operations.len() as u64;
        if count == 0 || count > SLOTS {
            return Err(ClientError::TooLarge(format!("{count} operations; 1 to {SLOTS} are possible")));
        }
        let late =
            |_| ClientError::Overloaded("too many operations of this client are on their way".to_owned());
        let serials = timeout_at(deadline, shared.serials.take(count)).await.map_err(late)?;
        let mut tries = Tries::default();
        loop {
            let request = proto::ExecuteRequest {
                tag: 0,
                client: shared.id,
                first_serial: serials.first(),
                operations: operations.clone(),
                timeout_ms: millis(shared.attempt_timeout.min(deadline - Instant::now())),
            };
            let until = deadline.min(Instant::now() + shared.attempt_timeout);
            match shared.nodes.execute(request, until).await {
                Attempt::Answers(answers) => return Ok(answers),
                Attempt::Never(error) => return Err(in_view_of(tries.perhaps, error)),
                again => tries.pause(deadline, again).await?,
            }
        }
    }

    /// Executes read-only operations, which do not go through the log, and returns one answer each.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]; [`Unknown`](ClientError::Unknown) is harmless here.
    pub async fn read(
        &self,
        operations: Vec<Bytes>,
        consistency: Consistency,
    ) -> Result<Vec<Answer>, ClientError> {
        let deadline = Instant::now() + self.shared.timeout;
        let mut tries = Tries::default();
        loop {
            let until = deadline.min(Instant::now() + self.shared.attempt_timeout);
            let request = self.read_request(operations.clone(), consistency);
            match self.shared.nodes.read(request, until).await {
                Attempt::Answers(answers) => return Ok(answers),
                Attempt::Never(error) => return Err(error),
                again => tries.pause(deadline, again).await?,
            }
        }
    }

    /// The same from one node only, once.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]: also that this node cannot answer.
    pub async fn read_at(
        &self,
        address: &str,
        operations: Vec<Bytes>,
        consistency: Consistency,
    ) -> Result<Vec<Answer>, ClientError> {
        let deadline = Instant::now() + self.shared.attempt_timeout;
        let request = self.read_request(operations, consistency);
        let late = |_| ClientError::Unknown(format!("{address} does not answer"));
        match timeout_at(deadline, self.shared.nodes.read_at(address, request)).await.map_err(late)? {
            Attempt::Answers(answers) => Ok(answers),
            Attempt::Never(error) => Err(error),
            Attempt::Busy(why) => Err(ClientError::Overloaded(why)),
            Attempt::Again(why) => Err(ClientError::Unavailable(why)),
        }
    }

    /// How the node at `address` fares; with the digest of its state, if asked for.
    ///
    /// # Errors
    ///
    /// The node cannot be reached, or does not answer in time.
    pub async fn status(&self, address: &str, digest: bool) -> Result<NodeStatus, ClientError> {
        let deadline = Instant::now() + self.shared.timeout;
        let late = |_| ClientError::Unavailable(format!("{address} does not answer"));
        timeout_at(deadline, self.shared.nodes.status(address, digest)).await.map_err(late)?
    }

    /// A stream of requests to the leader, many on their way at once. Must be called inside a tokio runtime.
    pub fn pipeline(&self) -> Pipeline {
        Pipeline::new(self.shared.clone())
    }

    fn read_request(&self, operations: Vec<Bytes>, consistency: Consistency) -> proto::ReadRequest {
        let consistency = match consistency {
            Consistency::Linearizable => proto::Consistency::Linearizable,
            Consistency::Stale => proto::Consistency::Stale,
        };
        let timeout_ms = millis(self.shared.attempt_timeout);
        proto::ReadRequest { operations, consistency: consistency.into(), timeout_ms }
    }
}

/// The attempts of one call so far.
#[derive(Debug, Default)]
pub(super) struct Tries {
    count: u32,
    /// One of them may have been executed.
    perhaps: bool,
}

impl Tries {
    /// Waits before the next attempt, longer each time; gives up at the deadline.
    async fn pause(&mut self, deadline: Instant, attempt: Attempt) -> Result<(), ClientError> {
        let wait = self.wait();
        if Instant::now() + wait < deadline {
            self.perhaps |= matches!(attempt, Attempt::Again(_));
            tokio::time::sleep(wait).await;
            return Ok(());
        }
        Err(match attempt {
            Attempt::Busy(why) if !self.perhaps => ClientError::Overloaded(why),
            Attempt::Busy(why) | Attempt::Again(why) => ClientError::Unknown(why),
            Attempt::Never(error) => error,
            Attempt::Answers(_) => ClientError::Unknown("the answers came too late".to_owned()),
        })
    }

    /// How long to wait before the next attempt.
    fn wait(&mut self) -> Duration {
        let wait = Duration::from_millis(10 << self.count.min(5));
        self.count += 1;
        wait
    }
}

/// Why a call ends whose last attempt was not executed, but if `perhaps` an earlier one was.
fn in_view_of(perhaps: bool, error: ClientError) -> ClientError {
    match error {
        ClientError::TooLarge(_) | ClientError::Malformed(_) | ClientError::Overloaded(_) if perhaps => {
            ClientError::Unknown(format!("an attempt was not answered; the last one: {error}"))
        }
        error => error,
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX).max(1)
}

/// Microseconds since 1970; what a client that takes up its number again begins with, as nobody has that many operations in
/// as many microseconds.
fn clock() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX / 2).max(1)
}

/// A number that nobody else has, in all likelihood: the standard library's hashers are seeded by the operating system.
fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one((std::process::id(), std::time::SystemTime::now()))
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::Mutex;

    use tokio_stream::wrappers::TcpListenerStream;
    use tokio_stream::{Stream, StreamExt};
    use tonic::{Request, Response, Status, Streaming};

    use super::*;
    use crate::proto::client::client_server::{Client as ClientApi, ClientServer};
    use crate::proto::client::execute_response::Outcome;
    use crate::proto::client::failure::Kind;

    /// Fails with these kinds in turn, and with the last one for ever.
    #[derive(Clone)]
    struct Failing(Arc<Mutex<Vec<Kind>>>);

    impl Failing {
        fn next(&self, tag: u64) -> proto::ExecuteResponse {
            let mut kinds = self.0.lock().expect("no panic");
            let kind = if kinds.len() > 1 { kinds.remove(0) } else { kinds[0] };
            let failure = proto::Failure { kind: kind.into(), message: format!("{kind:?}"), leader: None };
            proto::ExecuteResponse { tag, outcome: Some(Outcome::Failure(failure)) }
        }
    }

    #[tonic::async_trait]
    impl ClientApi for Failing {
        async fn execute(
            &self,
            request: Request<proto::ExecuteRequest>,
        ) -> Result<Response<proto::ExecuteResponse>, Status> {
            match request.into_inner() {
                request if request.operations[0].is_empty() => Err(Status::resource_exhausted("too much")),
                request => Ok(Response::new(self.next(request.tag))),
            }
        }

        type PipelineStream = Pin<Box<dyn Stream<Item = Result<proto::ExecuteResponse, Status>> + Send>>;

        async fn pipeline(
            &self,
            request: Request<Streaming<proto::ExecuteRequest>>,
        ) -> Result<Response<Self::PipelineStream>, Status> {
            let failing = self.clone();
            let answers = request.into_inner().map(move |request| Ok(failing.next(request?.tag)));
            Ok(Response::new(Box::pin(answers)))
        }

        async fn read(
            &self,
            _: Request<proto::ReadRequest>,
        ) -> Result<Response<proto::ReadResponse>, Status> {
            Err(Status::unimplemented(""))
        }

        async fn status(
            &self,
            _: Request<proto::StatusRequest>,
        ) -> Result<Response<proto::StatusResponse>, Status> {
            Err(Status::unimplemented(""))
        }
    }

    async fn client(kinds: Vec<Kind>) -> Client {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addresses = vec![listener.local_addr().expect("an address").to_string()];
        let service = ClientServer::new(Failing(Arc::new(Mutex::new(kinds))));
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Client::new(ClientConfig { addresses, timeout_ms: 60_000, ..ClientConfig::default() }).expect("valid")
    }

    async fn both(kinds: &[Kind]) -> [ClientError; 2] {
        let operations = vec![Bytes::from_static(b"x")];
        let called = client(kinds.to_vec()).await.execute(operations.clone()).await;
        let pipeline = client(kinds.to_vec()).await.pipeline();
        let streamed = pipeline.submit(operations).await.expect("room").answers().await;
        [called.expect_err("refused"), streamed.expect_err("refused")]
    }

    #[tokio::test]
    async fn a_refusal_says_nothing_of_attempts_before_it() {
        for error in both(&[Kind::TooLarge]).await {
            assert!(matches!(error, ClientError::TooLarge(_)), "{error:?}");
        }
        for error in both(&[Kind::Malformed]).await {
            assert!(matches!(error, ClientError::Malformed(_)), "{error:?}");
        }
        for last in [Kind::TooLarge, Kind::Malformed] {
            for error in both(&[Kind::Unknown, last]).await {
                assert!(matches!(&error, ClientError::Unknown(_)), "{error:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_call_that_was_too_large_for_somebody_on_the_way_may_have_been_executed() {
        let refused = client(vec![Kind::Unknown]).await.execute(vec![Bytes::new()]).await;
        assert!(matches!(refused, Err(ClientError::Unknown(_))), "{refused:?}");
    }
}

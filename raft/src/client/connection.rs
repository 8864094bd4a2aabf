//! The nodes that a client knows, its connections to them, and who leads as far as it knows.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use tokio::time::{Instant, timeout_at};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::{ClientError, NodeStatus};
use crate::network::endpoint;
use crate::proto::client as proto;
use crate::proto::client::client_client::ClientClient;
use crate::proto::client::failure::Kind;
use crate::tls::Tls;
use crate::types::Answer;

/// Bytes of an answer, at most.
pub(crate) const MAX_ANSWER_BYTES: usize = 64 << 20;

/// What came of one attempt.
#[derive(Debug)]
pub(super) enum Attempt {
    /// Executed.
    Answers(Vec<Answer>),
    /// Another attempt would end the same way.
    Never(ClientError),
    /// Not executed, and the same node may have time later.
    Busy(String),
    /// Somebody else may know, or the same node later.
    Again(String),
}

/// The nodes of the cluster.
#[derive(Debug)]
pub(super) struct Nodes {
    tls: Option<Tls>,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    addresses: Vec<String>,
    /// The one to ask next.
    next: usize,
    connections: BTreeMap<String, Channel>,
}

impl Nodes {
    pub(super) fn new(addresses: Vec<String>, tls: Option<Tls>) -> Result<Self, ClientError> {
        if addresses.is_empty() {
            return Err(ClientError::Address(String::new()));
        }
        let nodes =
            Nodes { tls, known: Mutex::new(Known { addresses, next: 0, connections: BTreeMap::new() }) };
        let addresses = nodes.lock().addresses.clone();
        for address in addresses {
            nodes.connect(&address)?;
        }
        Ok(nodes)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The service at `address`.
    fn connect(&self, address: &str) -> Result<ClientClient<Channel>, ClientError> {
        let mut known = self.lock();
        let channel = match known.connections.get(address) {
            Some(channel) => channel.clone(),
            None => {
                let endpoint = endpoint(address, self.tls.as_ref())
                    .map_err(|error| ClientError::Address(format!("{address} ({error})")))?;
                let channel = endpoint.connect_lazy();
                known.connections.insert(address.to_owned(), channel.clone());
                channel
            }
        };
        Ok(ClientClient::new(channel)
            .max_decoding_message_size(MAX_ANSWER_BYTES)
            .max_encoding_message_size(MAX_ANSWER_BYTES))
    }

    /// Whom to ask: who led last, or the next in turn.
    pub(super) fn current(&self) -> Result<(String, ClientClient<Channel>), ClientError> {
        let address = {
            let known = self.lock();
            known.addresses[known.next % known.addresses.len()].clone()
        };
        let service = self.connect(&address)?;
        Ok((address, service))
    }

    /// `asked` did not help: the next in turn, unless somebody else has found out more.
    pub(super) fn pass_by(&self, asked: &str) {
        let mut known = self.lock();
        let count = known.addresses.len();
        if known.addresses[known.next % count] == asked {
            known.next = (known.next + 1) % count;
        }
    }

    /// Somebody says who leads.
    fn follow(&self, leader: &proto::Leader) {
        let mut known = self.lock();
        let place = known.addresses.iter().position(|address| *address == leader.client_address);
        known.next = place.unwrap_or_else(|| {
            known.addresses.push(leader.client_address.clone());
            known.addresses.len() - 1
        });
    }

    /// Asks the current node, and waits until then.
    pub(super) async fn execute(&self, request: proto::ExecuteRequest, until: Instant) -> Attempt {
        let (address, mut service) = match self.current() {
            Ok(current) => current,
            Err(error) => return Attempt::Never(error),
        };
        match timeout_at(until, service.execute(request)).await {
            Ok(Ok(response)) => self.outcome(&address, response.into_inner()),
            Ok(Err(status)) => self.refused(&address, &status),
            Err(_) => self.silent(&address),
        }
    }

    /// The node did not answer in time.
    fn silent(&self, asked: &str) -> Attempt {
        self.pass_by(asked);
        Attempt::Again(format!("{asked} does not answer"))
    }

    /// What an answer to an ordered request means.
    pub(super) fn outcome(&self, address: &str, response: proto::ExecuteResponse) -> Attempt {
        match response.outcome {
            Some(proto::execute_response::Outcome::Answers(answers)) => answered(answers),
            Some(proto::execute_response::Outcome::Failure(failure)) => self.failed(address, failure),
            None => Attempt::Again(format!("{address} gave an empty answer")),
        }
    }

    /// The same for reads.
    pub(super) async fn read(&self, request: proto::ReadRequest, until: Instant) -> Attempt {
        match self.current() {
            Ok((address, _)) => {
                let asked = timeout_at(until, self.read_at(&address, request)).await;
                asked.unwrap_or_else(|_| self.silent(&address))
            }
            Err(error) => Attempt::Never(error),
        }
    }

    pub(super) async fn read_at(&self, address: &str, request: proto::ReadRequest) -> Attempt {
        let mut service = match self.connect(address) {
            Ok(service) => service,
            Err(error) => return Attempt::Never(error),
        };
        match service.read(request).await {
            Ok(response) => match response.into_inner().outcome {
                Some(proto::read_response::Outcome::Answers(answers)) => answered(answers),
                Some(proto::read_response::Outcome::Failure(failure)) => self.failed(address, failure),
                None => Attempt::Again(format!("{address} gave an empty answer")),
            },
            Err(status) => self.refused(address, &status),
        }
    }

    pub(super) async fn status(&self, address: &str, digest: bool) -> Result<NodeStatus, ClientError> {
        let mut service = self.connect(address)?;
        let status = service.status(proto::StatusRequest { digest }).await;
        let unavailable = |status: Status| ClientError::Unavailable(format!("{address}: {}", text(&status)));
        Ok(status.map_err(unavailable)?.into_inner())
    }

    fn failed(&self, address: &str, failure: proto::Failure) -> Attempt {
        let message = format!("{address}: {}", failure.message);
        match failure.kind() {
            Kind::TooLarge => Attempt::Never(ClientError::TooLarge(message)),
            Kind::Malformed => Attempt::Never(ClientError::Malformed(message)),
            Kind::Overloaded => Attempt::Busy(message),
            Kind::NotLeader => {
                match &failure.leader {
                    Some(leader) => self.follow(leader),
                    None => self.pass_by(address),
                }
                Attempt::Again(message)
            }
            // A leader that hears from nobody knows no outcome either, for as long as it likes.
            Kind::Unknown | Kind::Unavailable | Kind::Unspecified => {
                self.pass_by(address);
                Attempt::Again(message)
            }
        }
    }

    /// What a call that failed as such means.
    pub(super) fn refused(&self, address: &str, status: &Status) -> Attempt {
        let message = format!("{address}: {}", text(status));
        match status.code() {
            // Too large for somebody on the way: the request, or the answer to what was executed.
            Code::OutOfRange | Code::ResourceExhausted => Attempt::Never(ClientError::Unknown(message)),
            Code::InvalidArgument | Code::Unimplemented => Attempt::Never(ClientError::Malformed(message)),
            _ => {
                self.pass_by(address);
                Attempt::Again(message)
            }
        }
    }
}

/// A status with its causes, which is where a refused handshake or connection is named.
fn text(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn answered(answers: proto::Answers) -> Attempt {
    use proto::answer::Kind;
    let answer = |answer: proto::Answer| match Kind::try_from(answer.kind) {
        Ok(Kind::Done) => Ok(Answer::Done(answer.reply)),
        Ok(Kind::Stale) => Ok(Answer::Stale),
        Ok(Kind::Malformed) => Ok(Answer::Malformed),
        Ok(Kind::NumberTaken) => Ok(Answer::NumberTaken),
        Ok(Kind::ReplyNotKept) => Ok(Answer::ReplyNotKept),
        Ok(Kind::Unspecified) | Err(_) => Err(ClientError::Unknown(format!(
            "an answer of a kind that this client does not know: {}",
            answer.kind
        ))),
    };
    let answers: Result<Vec<Answer>, ClientError> = answers.answers.into_iter().map(answer).collect();
    answers.map_or_else(Attempt::Never, Attempt::Answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_an_unknown_kind_is_no_answer() {
        let of =
            |kind| answered(proto::Answers { answers: vec![proto::Answer { kind, ..Default::default() }] });
        for kind in [0, 99, -1] {
            assert!(matches!(of(kind), Attempt::Never(ClientError::Unknown(_))), "{kind}");
        }
        let done = of(proto::answer::Kind::Done.into());
        assert!(
            matches!(&done, Attempt::Answers(answers) if matches!(answers[..], [Answer::Done(_)])),
            "{done:?}"
        );
    }
}

//! The way from this node to the others.
//!
//! One HTTP/2 connection a node, shared by everything that is sent to it. Each call is a stream of its own on it: whoever
//! gives a call up (openraft does, at its deadline) resets that stream, which stays taken until both sides know. So a late
//! answer reaches nobody; it cannot pair with the next call.
//!
//! Every call has a deadline, the other side knows it too, and a connection that is silent is given up and made anew.

mod snapshot;

use std::collections::BTreeMap;
use std::future::Future;
use std::iter;
use std::time::Duration;

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::error::{
    Fatal, NetworkError, PayloadTooLarge, RPCError, RaftError, ReplicationClosed, StreamingError, Timeout,
    Unreachable,
};
use openraft::network::{Backoff, RPCOption, RPCTypes, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::config::{MESSAGE_OVERHEAD, NodeConfig, OPERATION_OVERHEAD};
use crate::proto::peer::peer_client::PeerClient;
use crate::proto::peer::{Envelope, Message};
use crate::tls::Tls;
use crate::types::{Entry, Member, TypeConfig, Vote};

/// What openraft's calls may fail with.
type CallError = RPCError<u64, Member, RaftError<u64>>;

/// How long making a connection may take.
const CONNECT: Duration = Duration::from_secs(2);
/// A connection that has been silent for so long is asked whether it is alive,
const SILENCE: Duration = Duration::from_secs(2);
/// and given up if it does not answer within this time.
const ALIVE: Duration = Duration::from_secs(3);

/// Makes the ways to other nodes.
#[derive(Debug)]
pub struct Network {
    id: u64,
    cluster: String,
    tls: Option<Tls>,
    message_bytes: usize,
    connections: BTreeMap<String, Channel>,
}

impl Network {
    /// The way out of the node that `config` describes.
    pub(crate) fn new(config: &NodeConfig, tls: Option<Tls>) -> Self {
        Network {
            id: config.id,
            cluster: config.cluster.clone(),
            tls,
            message_bytes: config.limits.peer_message_bytes,
            connections: BTreeMap::new(),
        }
    }

    /// The connection to `address`, which is made when it is first needed.
    fn connection(&mut self, address: &str) -> Result<Channel, tonic::transport::Error> {
        if let Some(channel) = self.connections.get(address) {
            return Ok(channel.clone());
        }
        let channel = endpoint(address, self.tls.as_ref())?.connect_lazy();
        self.connections.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}

/// `host:port`, with the settings that all connections have.
pub(crate) fn endpoint(address: &str, tls: Option<&Tls>) -> Result<Endpoint, tonic::transport::Error> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))?
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(SILENCE)
        .keep_alive_timeout(ALIVE)
        .keep_alive_while_idle(true);
    match tls {
        Some(tls) => endpoint.tls_config(tls.client()),
        None => Ok(endpoint),
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &Member) -> Peer {
        let client = self.connection(&node.peer_address).map_err(|error| Unreachable::new(&error));
        if let Err(error) = &client {
            tracing::error!("node {target} at `{}`: {error}", node.peer_address);
        }
        Peer {
            id: self.id,
            target,
            envelope: Envelope { cluster: self.cluster.clone(), target },
            message_bytes: self.message_bytes,
            client: client.map(|channel| {
                PeerClient::new(channel)
                    .max_decoding_message_size(self.message_bytes)
                    .max_encoding_message_size(self.message_bytes)
            }),
        }
    }
}

/// The way to one node.
#[derive(Debug)]
pub struct Peer {
    id: u64,
    target: u64,
    envelope: Envelope,
    message_bytes: usize,
    client: Result<PeerClient<Channel>, Unreachable>,
}

/// The two calls that are a question and an answer.
#[derive(Clone, Copy)]
enum Call {
    Append,
    Vote,
}

impl Peer {
    async fn call<Q: Serialize, R: DeserializeOwned>(
        &mut self,
        call: Call,
        question: &Q,
        limit: Duration,
    ) -> Result<R, CallError> {
        let mut client = self.client.clone()?;
        let payload = postcard::to_stdvec(question).map_err(|error| NetworkError::new(&error))?;
        let mut request =
            Request::new(Message { envelope: Some(self.envelope.clone()), payload: payload.into() });
        request.set_timeout(limit);
        let answer = async {
            match call {
                Call::Append => client.append(request).await,
                Call::Vote => client.vote(request).await,
            }
        };
        let action = match call {
            Call::Append => RPCTypes::AppendEntries,
            Call::Vote => RPCTypes::Vote,
        };
        let answer = match tokio::time::timeout(limit, answer).await {
            Ok(answer) => answer.map_err(|status| self.failed(status, action, limit))?,
            Err(_) => return Err(self.late(action, limit).into()),
        };
        decode(&answer.into_inner().payload).map_err(|status| Unreachable::new(&status).into())
    }

    fn late(&self, action: RPCTypes, timeout: Duration) -> Timeout<u64> {
        Timeout { action, id: self.id, target: self.target, timeout }
    }

    /// Whatever went wrong, it is not tried again at once.
    fn failed(&self, status: Status, action: RPCTypes, limit: Duration) -> CallError {
        tracing::debug!("node {}: {action}: {status}", self.target);
        match status.code() {
            Code::DeadlineExceeded => self.late(action, limit).into(),
            _ => Unreachable::new(&status).into(),
        }
    }
}

impl RaftNetwork<TypeConfig> for Peer {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, CallError> {
        let size: usize = request.entries.iter().map(size).sum();
        if request.entries.len() > 1 && size + MESSAGE_OVERHEAD > self.message_bytes {
            return Err(PayloadTooLarge::new_entries_hint(request.entries.len() as u64 / 2).into());
        }
        self.call(Call::Append, &request, option.hard_ttl()).await
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, CallError> {
        self.call(Call::Vote, &request, option.hard_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<TypeConfig, Fatal<u64>>> {
        let client = self.client.clone()?;
        let limit = option.hard_ttl();
        let sending = snapshot::send(client, self.envelope.clone(), vote, *snapshot.snapshot);
        tokio::select! {
            closed = cancel => Err(closed.into()),
            sent = tokio::time::timeout(limit, sending) => match sent {
                Ok(sent) => sent,
                Err(_) => Err(self.late(RPCTypes::InstallSnapshot, limit).into()),
            },
        }
    }

    /// Soon at first, so that a short interruption costs little.
    fn backoff(&self) -> Backoff {
        let first = [50, 100, 200].into_iter();
        Backoff::new(first.chain(iter::repeat(400)).map(Duration::from_millis))
    }
}

/// Bytes of an entry in a message, at most.
fn size(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(batch) => {
            batch.commands.iter().map(|command| command.operation.len() + OPERATION_OVERHEAD).sum()
        }
        _ => 0,
    }
}

/// What another node says in openraft's words.
pub(crate) fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Status> {
    postcard::from_bytes(payload)
        .map_err(|error| Status::invalid_argument(format!("no such message: {error}")))
}

/// The same the other way.
pub(crate) fn encode<T: Serialize>(message: &T) -> Result<Bytes, Status> {
    postcard::to_stdvec(message).map(Bytes::from).map_err(|error| Status::internal(error.to_string()))
}

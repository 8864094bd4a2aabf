//! What other nodes ask of this one.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use openraft::raft::{AppendEntriesRequest, VoteRequest};
use tokio::sync::{Mutex, mpsc};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::network::{decode, encode};
use crate::node::Reports;
use crate::proto::peer::peer_server::Peer;
use crate::proto::peer::snapshot_piece::Piece;
use crate::proto::peer::snapshot_reply::Reply;
use crate::proto::peer::{Envelope, Message, PartList, SnapshotOffer, SnapshotPiece, SnapshotReply};
use crate::snapshot::{Incoming, Snapshot, SnapshotError, SnapshotStore};
use crate::types::{Raft, TypeConfig, Vote};

/// A part must not be larger.
const MAX_PART: usize = 1 << 30;

/// The service behind the peers' listener.
#[derive(Clone)]
pub(crate) struct PeerService {
    pub(crate) id: u64,
    pub(crate) cluster: Arc<str>,
    pub(crate) raft: Raft,
    pub(crate) snapshots: SnapshotStore,
    /// How long a snapshot may take.
    pub(crate) snapshot_limit: Duration,
    /// Where a disk that fails is reported.
    pub(crate) reports: Reports,
    /// One snapshot comes in at a time.
    pub(crate) receiving: Arc<Mutex<()>>,
    pub(crate) transfers: Arc<Transfers>,
}

/// Counts what comes in.
#[derive(Debug, Default)]
pub(crate) struct Transfers {
    snapshots: AtomicU64,
    parts_offered: AtomicU64,
    parts_received: AtomicU64,
}

/// What snapshots have come from other nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransferCounts {
    /// Snapshots that came whole.
    pub snapshots: u64,
    /// Parts that these have.
    pub parts_offered: u64,
    /// Parts of these that this node lacked, so that they travelled.
    pub parts_received: u64,
}

impl Transfers {
    pub(crate) fn counts(&self) -> TransferCounts {
        // Relaxed, here and below: statistics.
        TransferCounts {
            snapshots: self.snapshots.load(Ordering::Relaxed),
            parts_offered: self.parts_offered.load(Ordering::Relaxed),
            parts_received: self.parts_received.load(Ordering::Relaxed),
        }
    }

    fn count(&self, offered: usize, received: usize) {
        self.snapshots.fetch_add(1, Ordering::Relaxed);
        self.parts_offered.fetch_add(offered as u64, Ordering::Relaxed);
        self.parts_received.fetch_add(received as u64, Ordering::Relaxed);
    }
}

impl PeerService {
    /// Refuses what is meant for another node, or another cluster.
    fn meant(&self, envelope: Option<&Envelope>) -> Result<(), Status> {
        match envelope {
            Some(envelope) if envelope.target == self.id && envelope.cluster == *self.cluster => Ok(()),
            Some(envelope) => Err(Status::failed_precondition(format!(
                "this is node {} of `{}`, not {} of `{}`",
                self.id, self.cluster, envelope.target, envelope.cluster
            ))),
            None => Err(Status::invalid_argument("no envelope")),
        }
    }
}

/// True if the entries follow each other and what is said to precede them; consensus relies on it.
fn in_sequence(request: &AppendEntriesRequest<TypeConfig>) -> bool {
    let mut previous = request.prev_log_id;
    request.entries.iter().all(|entry| {
        let id = entry.log_id;
        let follows = match previous {
            None => id.index == 0,
            Some(before) => before.index.checked_add(1) == Some(id.index) && before.leader_id <= id.leader_id,
        };
        previous = Some(id);
        follows
    })
}

fn answer<T: serde::Serialize, E: std::fmt::Display>(
    outcome: Result<T, E>,
) -> Result<Response<Message>, Status> {
    let answer = outcome.map_err(|error| Status::unavailable(error.to_string()))?;
    Ok(Response::new(Message { envelope: None, payload: encode(&answer)? }))
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn append(&self, request: Request<Message>) -> Result<Response<Message>, Status> {
        let message = request.into_inner();
        self.meant(message.envelope.as_ref())?;
        let request: AppendEntriesRequest<TypeConfig> = decode(&message.payload)?;
        if !in_sequence(&request) {
            return Err(Status::invalid_argument("entries that do not follow each other"));
        }
        answer(self.raft.append_entries(request).await)
    }

    async fn vote(&self, request: Request<Message>) -> Result<Response<Message>, Status> {
        let message = request.into_inner();
        self.meant(message.envelope.as_ref())?;
        let request: VoteRequest<u64> = decode(&message.payload)?;
        answer(self.raft.vote(request).await)
    }

    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<SnapshotReply, Status>> + Send>>;

    async fn snapshot(
        &self,
        request: Request<Streaming<SnapshotPiece>>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let (replies, stream) = mpsc::channel(1);
        let (service, pieces) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            let received = service.receive(pieces, &replies);
            let received = tokio::time::timeout(service.snapshot_limit, received).await;
            let outcome =
                received.unwrap_or_else(|_| Err(Status::deadline_exceeded("the snapshot took too long")));
            if let Err(status) = outcome {
                tracing::warn!("a snapshot was not received: {}", status.message());
                let _ = replies.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

type Replies = mpsc::Sender<Result<SnapshotReply, Status>>;

impl PeerService {
    async fn receive(&self, mut pieces: Streaming<SnapshotPiece>, replies: &Replies) -> Result<(), Status> {
        let Piece::Offer(offer) = next(&mut pieces).await? else {
            return Err(Status::invalid_argument("a snapshot begins with an offer"));
        };
        self.meant(offer.envelope.as_ref())?;
        let _one = self.receiving.lock().await;
        let vote: Vote = decode(&offer.vote)?;
        let snapshot = self.collect(offer, &mut pieces, replies).await?;
        let snapshot = openraft::Snapshot { meta: snapshot.meta().clone(), snapshot: Box::new(snapshot) };
        let installed = self.raft.install_full_snapshot(vote, snapshot).await;
        let response = installed.map_err(|error| Status::unavailable(error.to_string()))?;
        send(replies, Reply::Response(encode(&response)?)).await
    }

    async fn collect(
        &self,
        offer: SnapshotOffer,
        pieces: &mut Streaming<SnapshotPiece>,
        replies: &Replies,
    ) -> Result<Snapshot, Status> {
        let store = self.snapshots.clone();
        let mut incoming = self.blocking(move || store.receive(&offer.manifest)).await?;
        let missing: Result<Vec<Bytes>, Status> = incoming.missing().iter().map(encode).collect();
        let missing = missing?;
        let received = missing.len();
        send(replies, Reply::Missing(PartList { keys: missing })).await?;
        let mut part = BytesMut::new();
        loop {
            match next(pieces).await? {
                Piece::Part(piece) => {
                    if part.len() + piece.content.len() > MAX_PART {
                        return Err(Status::invalid_argument("a part is too large"));
                    }
                    part.extend_from_slice(&piece.content);
                    if piece.last {
                        let whole = std::mem::take(&mut part);
                        incoming = self
                            .blocking(move || {
                                incoming.add(&whole)?;
                                Ok::<Incoming, SnapshotError>(incoming)
                            })
                            .await?;
                    }
                }
                Piece::End(_) => {
                    let snapshot = self.blocking(move || incoming.finish()).await?;
                    self.transfers.count(snapshot.parts().len(), received);
                    return Ok(snapshot);
                }
                Piece::Offer(_) => return Err(Status::invalid_argument("a second offer")),
            }
        }
    }

    /// Off the tokio workers: the disk may take its time. If it fails, the node cannot go on.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, SnapshotError> + Send + 'static,
    ) -> Result<T, Status> {
        match tokio::task::spawn_blocking(work).await {
            Ok(Err(SnapshotError::Io(error))) => {
                let cause = format!("a snapshot from another node cannot be stored: {error}");
                self.reports.report(cause.clone());
                Err(Status::unavailable(cause))
            }
            Ok(outcome) => outcome.map_err(|error| Status::failed_precondition(error.to_string())),
            Err(stopped) => Err(Status::internal(stopped.to_string())),
        }
    }
}

async fn next(pieces: &mut Streaming<SnapshotPiece>) -> Result<Piece, Status> {
    let piece = pieces.message().await?.and_then(|piece| piece.piece);
    piece.ok_or_else(|| Status::aborted("the sender broke off"))
}

async fn send(replies: &Replies, reply: Reply) -> Result<(), Status> {
    let sent = replies.send(Ok(SnapshotReply { reply: Some(reply) })).await;
    sent.map_err(|_| Status::cancelled("the sender has gone"))
}

#[cfg(test)]
mod tests {
    use openraft::{CommittedLeaderId, EntryPayload, LogId};

    use super::*;
    use crate::types::Entry;

    #[test]
    fn entries_follow_each_other_and_what_precedes_them() {
        let id = |(term, index)| LogId::new(CommittedLeaderId::new(term, 1), index);
        let fits = |before: Option<(u64, u64)>, entries: &[(u64, u64)]| {
            let entry = |&at: &(u64, u64)| Entry { log_id: id(at), payload: EntryPayload::Blank };
            in_sequence(&AppendEntriesRequest {
                vote: Vote::new(9, 1),
                prev_log_id: before.map(id),
                entries: entries.iter().map(entry).collect(),
                leader_commit: None,
            })
        };
        assert!(fits(None, &[]) && fits(None, &[(0, 0), (1, 1)]) && fits(Some((1, 4)), &[(1, 5), (2, 6)]));
        assert!(!fits(None, &[(1, 1)]), "no beginning");
        assert!(!fits(Some((1, 4)), &[(1, 6)]) && !fits(Some((1, 4)), &[(1, 5), (1, 7)]), "a gap");
        assert!(!fits(Some((1, 4)), &[(1, 4)]) && !fits(Some((1, 4)), &[(1, 5), (1, 5)]), "twice");
        assert!(!fits(Some((2, 4)), &[(1, 5)]) && !fits(Some((1, 4)), &[(2, 5), (1, 6)]), "an older leader");
        assert!(!fits(Some((1, u64::MAX)), &[(1, 0)]), "nothing follows the largest number");
    }
}

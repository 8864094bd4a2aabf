//! A snapshot on its way to a node: only the parts that it does not have travel.

use openraft::error::{Fatal, NetworkError, StreamingError, Unreachable};
use openraft::raft::SnapshotResponse;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::proto::peer::peer_client::PeerClient;
use crate::proto::peer::snapshot_piece::Piece;
use crate::proto::peer::snapshot_reply::Reply;
use crate::proto::peer::{Envelope, PartPiece, SnapshotEnd, SnapshotOffer, SnapshotPiece, SnapshotReply};
use crate::snapshot::{PartKey, Snapshot};
use crate::types::{StorageError, TypeConfig, Vote};

/// Bytes of a part in one message.
const CHUNK: usize = 1 << 20;
/// Messages that may wait in front of the connection.
const AHEAD: usize = 4;

type SendError = StreamingError<TypeConfig, Fatal<u64>>;

/// Offers `snapshot`, sends what is missing, and waits until it is installed.
pub(super) async fn send(
    mut client: PeerClient<Channel>,
    envelope: Envelope,
    vote: Vote,
    snapshot: Snapshot,
) -> Result<SnapshotResponse<u64>, SendError> {
    let unreachable = |status: Status| SendError::Unreachable(Unreachable::new(&status));
    let (pieces, stream) = mpsc::channel(AHEAD);
    let offer = SnapshotOffer {
        envelope: Some(envelope),
        vote: super::encode(&vote).map_err(unreachable)?,
        manifest: snapshot.manifest_bytes(),
    };
    push(&pieces, Piece::Offer(offer)).await?;
    let mut replies = client.snapshot(ReceiverStream::new(stream)).await.map_err(unreachable)?.into_inner();
    loop {
        match reply(&mut replies).await.map_err(unreachable)? {
            Reply::Missing(list) => {
                let keys: Result<Vec<PartKey>, Status> =
                    list.keys.iter().map(|key| super::decode(key)).collect();
                let keys = keys.map_err(unreachable)?;
                tracing::info!("sends {} of {} parts of a snapshot", keys.len(), snapshot.parts().len());
                parts(&pieces, &snapshot, keys).await?;
            }
            Reply::Response(response) => return super::decode(&response).map_err(unreachable),
        }
    }
}

async fn reply(replies: &mut Streaming<SnapshotReply>) -> Result<Reply, Status> {
    let reply = replies.message().await?.and_then(|reply| reply.reply);
    reply.ok_or_else(|| Status::unavailable("the receiver broke off"))
}

async fn push(pieces: &mpsc::Sender<SnapshotPiece>, piece: Piece) -> Result<(), SendError> {
    let sent = pieces.send(SnapshotPiece { piece: Some(piece) }).await;
    // Why, the replies tell; what is left to say here is that it is not tried again at once.
    sent.map_err(|error| Unreachable::new(&error).into())
}

async fn parts(
    pieces: &mpsc::Sender<SnapshotPiece>,
    snapshot: &Snapshot,
    keys: Vec<PartKey>,
) -> Result<(), SendError> {
    for key in keys {
        let source = snapshot.clone();
        let read = tokio::task::spawn_blocking(move || source.read_part(key)).await;
        let mut content = match read {
            Ok(Ok(content)) => content,
            Ok(Err(error)) => {
                let signature = Some(snapshot.meta().signature());
                return Err(StorageError::from_io_error(
                    openraft::ErrorSubject::Snapshot(signature),
                    openraft::ErrorVerb::Read,
                    error,
                )
                .into());
            }
            Err(stopped) => return Err(NetworkError::new(&stopped).into()),
        };
        loop {
            let chunk = content.split_to(content.len().min(CHUNK));
            let last = content.is_empty();
            push(pieces, Piece::Part(PartPiece { content: chunk, last })).await?;
            if last {
                break;
            }
        }
    }
    push(pieces, Piece::End(SnapshotEnd {})).await
}

//! Linearizable reads: the leader's read index.
//!
//! Before a read is executed, this node makes sure that it still leads, by asking a quorum, and that all is applied that was
//! committed when it asked. One question serves all reads that came before it was asked.

use std::time::Duration;

use openraft::error::{CheckIsLeaderError, RaftError};
use tokio::sync::{mpsc, oneshot};

use crate::types::Raft;

/// Reads that may wait for the next question.
const WAITING: usize = 4096;

/// Why a read is not linearizable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReadIndexError {
    NotLeader,
    NoQuorum(String),
    Stopped(String),
}

type Asker = oneshot::Sender<Result<(), ReadIndexError>>;

/// Asks on behalf of all reads.
#[derive(Clone)]
pub(crate) struct ReadIndex {
    askers: mpsc::Sender<Asker>,
}

impl ReadIndex {
    /// Must be called inside a tokio runtime. No question takes longer than `limit`.
    pub(crate) fn start(raft: Raft, limit: Duration) -> Self {
        let (askers, mut waiting) = mpsc::channel::<Asker>(WAITING);
        tokio::spawn(async move {
            while let Some(first) = waiting.recv().await {
                let mut asking = vec![first];
                while let Ok(asker) = waiting.try_recv() {
                    asking.push(asker);
                }
                asking.retain(|asker| !asker.is_closed());
                if asking.is_empty() {
                    continue;
                }
                let outcome = ask(&raft, limit).await;
                for asker in asking {
                    let _ = asker.send(outcome.clone());
                }
            }
        });
        ReadIndex { askers }
    }

    /// Returns once a read that is executed from now on is linearizable.
    pub(crate) async fn ensure(&self) -> Result<(), ReadIndexError> {
        let stopped = || ReadIndexError::Stopped("it answers no more reads".to_owned());
        let (asker, answered) = oneshot::channel();
        self.askers.send(asker).await.map_err(|_| stopped())?;
        answered.await.unwrap_or_else(|_| Err(stopped()))
    }
}

async fn ask(raft: &Raft, limit: Duration) -> Result<(), ReadIndexError> {
    match tokio::time::timeout(limit, raft.ensure_linearizable()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(_)))) => {
            Err(ReadIndexError::NotLeader)
        }
        Ok(Err(RaftError::APIError(error @ CheckIsLeaderError::QuorumNotEnough(_)))) => {
            Err(ReadIndexError::NoQuorum(error.to_string()))
        }
        Ok(Err(RaftError::Fatal(error))) => Err(ReadIndexError::Stopped(error.to_string())),
        Err(_) => {
            Err(ReadIndexError::NoQuorum("no quorum within the time that a request may take".to_owned()))
        }
    }
}

//! The reply thread: hands replies to the user's network, so that a slow network does not slow execution down until
//! the bounded queue between the two is full.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::channel::Life;
use super::seam::Receiver;
use crate::batch::{MaybeVec, NodeId};
use crate::error::{BoxError, Failure, caught};
use crate::metrics::{Counter, Timer};
use crate::reply::{BatchReplies, ExecutorReplier, ReplyNode, RequestType};
use crate::sync::Arc;

/// The replies to one batch, or to several that were executed one after the other, on their way to the reply thread.
pub(crate) struct Answers<R> {
    pub(crate) kind: RequestType,
    pub(crate) replies: MaybeVec<BatchReplies<R>>,
    /// The end of their execution.
    pub(crate) executed: Instant,
}

/// Sends what comes through `queue`, in that order, until the executor drops its end or the node panics.
pub(crate) fn run<F, R, N>(queue: Receiver<Answers<R>>, node: Arc<N>, life: Arc<Life>)
where
    F: ExecutorReplier,
    N: ReplyNode<R>,
{
    for answers in queue.iter() {
        // Unwind safety: after a panic nothing of this batch, and nothing else of the node, is used again.
        let sent = catch_unwind(AssertUnwindSafe(|| {
            if F::answers(answers.kind) {
                send(&*node, answers, &life);
            }
        }));
        if let Err(panic) = sent {
            // The executor is woken by the failure, or by `queue`, which closes right after it.
            life.fail(Failure::ReplyNodePanicked { message: caught(panic) });
            return;
        }
    }
}

/// Sends them. Those that the node refuses are counted, and reported once: an unreachable
/// client must not turn every operation into a line of the log.
fn send<R, N: ReplyNode<R>>(node: &N, answers: Answers<R>, life: &Life) {
    let start = life.metrics.record_since(Timer::RepliesPassing, answers.executed);
    let mut refused = 0;
    let mut first: Option<(NodeId, BoxError)> = None;
    for batch in answers.replies {
        let mut replies = batch.into_inner().into_iter().peekable();
        while let Some(reply) = replies.next() {
            let to = reply.to();
            let flush = replies.peek().is_none_or(|next| next.to() != to);
            if let Err(error) = node.send(answers.kind, reply, flush) {
                refused += 1;
                first.get_or_insert((to, error));
            }
        }
    }
    if let Some((to, error)) = first {
        life.metrics.add(Counter::reply_errors, refused);
        tracing::warn!(refused, %to, %error, "replies could not be sent; the first of them went to this node");
    }
    life.metrics.record_since(Timer::ReplySent, start);
}

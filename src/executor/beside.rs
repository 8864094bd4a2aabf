//! Unordered requests beside an ordered batch.
//!
//! While a batch runs through units, the state does not change: it is the state before the batch until the commit. So the
//! executor's thread looks at its queue between chunks, answers the unordered requests that it finds there on that state,
//! and defers all else, in order. An unordered request then sees the state before or after a batch, never inside one, and
//! does not wait for a long batch. Whoever has the reply to an ordered operation and asks afterwards sees its effect: the
//! reply left after the commit.

use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::time::Instant;

use super::channel::{ChannelSyncRx, Life};
use super::message::ExecutionRequest;
use super::replier::Answers;
use super::seam::Sender;
use super::sequential::answer_in_place;
use crate::app::{Application, Reply, Request};
use crate::batch::{SeqNo, UnorderedBatch};
use crate::error::Failure;
use crate::metrics::{Counter, Timer};
use crate::reply::RequestType;

/// At most so many requests, and at most as many as the queue holds, are taken out of it beside one batch and not executed:
/// the queue is what bounds work.
const DEFERRED: usize = 64;

/// How many requests may be taken beside a batch, besides those that waited when it began. Whoever asks without a pause must
/// not keep the batch from its end.
pub(super) const BESIDE: usize = 64;

/// What the executor's thread needs for it, borrowed for the time of one batch.
pub(super) struct Beside<'e, A: Application<S>, S> {
    pub(super) app: &'e A,
    pub(super) work: &'e ChannelSyncRx<ExecutionRequest<Request<A, S>>>,
    pub(super) deferred: &'e mut VecDeque<ExecutionRequest<Request<A, S>>>,
    pub(super) replies: &'e Sender<Answers<Reply<A, S>>>,
    pub(super) life: &'e Life,
    /// The batch.
    pub(super) seq: SeqNo,
    /// How many requests may still be taken beside this batch.
    pub(super) left: usize,
    /// What ended the executor, and the batch with it, before its commit.
    pub(super) failure: Option<Failure>,
}

impl<A: Application<S>, S> Beside<'_, A, S> {
    /// Answers what has been asked since, on the state before the batch. Unwinds if that fails: nobody will be answered for
    /// the batch, so it must not be committed either.
    pub(super) fn look(&mut self, state: &S) {
        // Those that stand in front were looked at when batches were joined.
        let is_unordered = |request: &mut _| matches!(request, ExecutionRequest::ExecuteUnordered(_));
        while self.left > 0
            && let Some(ExecutionRequest::ExecuteUnordered(batch)) = self.deferred.pop_front_if(is_unordered)
        {
            self.answer_or_unwind(state, batch);
        }
        let room = self.work.inner.capacity().map_or(DEFERRED, |capacity| capacity.min(DEFERRED));
        while self.deferred.len() < room && self.left > 0 {
            let Ok(request) = self.work.inner.try_recv() else { return };
            self.left -= 1;
            match request {
                ExecutionRequest::ExecuteUnordered(batch) => self.answer_or_unwind(state, batch),
                request => self.deferred.push_back(request),
            }
        }
    }

    fn answer_or_unwind(&mut self, state: &S, batch: UnorderedBatch<Request<A, S>>) {
        if let Err(failure) = self.answer(state, batch) {
            self.failure = Some(failure);
            // Not `panic!`: what there was to say is said.
            resume_unwind(Box::new("failed beside the batch"));
        }
    }

    fn answer(&self, state: &S, batch: UnorderedBatch<Request<A, S>>) -> Result<(), Failure> {
        let (requests, start) = (batch.len() as u64, Instant::now());
        let replies = answer_in_place(self.app, state, batch)?;
        let metrics = &self.life.metrics;
        let executed = metrics.record_since(Timer::Unordered, start);
        metrics.add(Counter::unordered_operations, requests);
        metrics.add(Counter::unordered_beside, requests);
        if replies.is_empty() {
            return Ok(());
        }
        let answers = Answers { kind: RequestType::Unordered, replies: replies.into(), executed };
        self.replies.send(answers).map_err(|_| self.life.cause(self.seq))
    }
}

#[cfg(test)]
mod tests {
    use super::super::channel::channel;
    use super::super::seam::bounded;
    use super::*;
    use crate::app::ApplicationData;
    use crate::batch::NodeId;
    use crate::error::BoxError;

    struct Echo;

    impl ApplicationData for Echo {
        type Request = u64;
        type Reply = u64;
    }

    impl Application<()> for Echo {
        type AppData = Echo;

        fn initial_state() -> Result<(), BoxError> {
            Ok(())
        }

        fn unordered_execution(&self, _: &(), request: u64) -> u64 {
            request
        }

        fn update(&self, _: &mut (), request: u64) -> u64 {
            request
        }
    }

    /// The executor's thread looks after each chunk, and a long batch has many more chunks than requests may be taken.
    #[test]
    fn looking_into_an_empty_queue_does_not_count() {
        let (life, _alive) = Life::new();
        let (ask, work) = channel(4, &life);
        let (replies, answers) = bounded(4);
        let mut deferred = VecDeque::new();
        let mut beside = Beside {
            app: &Echo,
            work: &work,
            deferred: &mut deferred,
            replies: &replies,
            life: &life,
            seq: SeqNo(1),
            left: 2,
            failure: None,
        };
        let ask = |payload| {
            let mut batch = UnorderedBatch::new();
            batch.add(NodeId(1), SeqNo::ZERO, SeqNo::ZERO, payload);
            ask.try_send(ExecutionRequest::ExecuteUnordered(batch)).expect("room");
        };
        for payload in 1..=3 {
            (0..100).for_each(|_| beside.look(&()));
            ask(payload);
        }
        beside.look(&());
        let answered =
            answers.try_iter().map(|answers| *answers.replies.as_slice()[0].replies()[0].payload());
        assert_eq!(answered.collect::<Vec<_>>(), [1, 2], "two, and the third is beyond what was left");
        assert_eq!(work.inner.len(), 1, "it waits for the end of the batch");
    }
}

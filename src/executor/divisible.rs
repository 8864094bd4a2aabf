//! Executors of states that travel in parts.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use super::channel::{ChannelSyncRx, ChannelSyncTx};
use super::config::ExecutorConfig;
use super::message::{AppState, AppStateMessage, InstallState, InstallStateMessage};
use super::sequential::Sequential;
use super::speculative::Speculative;
use super::start::{HandlePair, Start, WorkReceiver, handle, start};
use super::transfer::{Step, Transfer, Undelivered, check_age};
use crate::app::{Application, Reply, Request, ScalableApp};
use crate::batch::{MaybeVec, SeqNo};
use crate::error::{ConfigError, InitError, StateError};
use crate::reply::{ExecutorReplier, ReplicaReplier, ReplyNode};
use crate::state::{CRUDState, DivisibleState};
use crate::sync::Arc;

/// Parts that one message of a checkpoint holds at most.
const PARTS_PER_MESSAGE: usize = 16;

/// The state channel and the checkpoint channel of an executor whose state is [`DivisibleState`].
pub type DivisibleChannels<S> =
    (ChannelSyncTx<InstallStateMessage<InstallState<S>>>, ChannelSyncRx<AppStateMessage<AppState<S>>>);

/// Starts an executor of application `A` over the divisible state `S`, which answers through `NT`.
pub trait TDivisibleStateExecutor<A, S, NT>
where
    A: Application<S>,
    S: DivisibleState,
    NT: ReplyNode<Reply<A, S>>,
{
    /// A handle, and the end of its queue that [`init`](Self::init) takes, with the default capacity. Requests may be
    /// queued before `init`.
    fn init_handle() -> HandlePair<Request<A, S>> {
        handle(super::EXECUTING_BUFFER)
    }

    /// The same with [`executing_buffer`](ExecutorConfig::executing_buffer) as the queue's capacity.
    ///
    /// # Errors
    ///
    /// What [`ExecutorConfig::validate`] returns.
    fn init_handle_with(config: &ExecutorConfig) -> Result<HandlePair<Request<A, S>>, ConfigError> {
        config.validate()?;
        Ok(handle(config.executing_buffer))
    }

    /// Starts an executor that answers ordered and unordered requests, with the default configuration.
    ///
    /// # Errors
    ///
    /// See [`init_with`](Self::init_with).
    fn init(
        work_receiver: WorkReceiver<Request<A, S>>,
        initial_state: Option<(S, Vec<Request<A, S>>)>,
        service: A,
        send_node: Arc<NT>,
    ) -> Result<DivisibleChannels<S>, InitError> {
        let config = ExecutorConfig::default();
        Self::init_with::<ReplicaReplier>(config, work_receiver, initial_state, service, send_node)
    }

    /// Starts an executor. Arguments, result, errors and panics are those of
    /// [`TMonolithicStateExecutor::init_with`](super::TMonolithicStateExecutor::init_with), but for the messages of the
    /// state channel and the checkpoint channel: see [`InstallState`] and [`AppState`].
    ///
    /// # Errors
    ///
    /// See there.
    ///
    /// # Panics
    ///
    /// See there.
    fn init_with<R: ExecutorReplier>(
        config: ExecutorConfig,
        work_receiver: WorkReceiver<Request<A, S>>,
        initial_state: Option<(S, Vec<Request<A, S>>)>,
        service: A,
        send_node: Arc<NT>,
    ) -> Result<DivisibleChannels<S>, InitError>;
}

/// Executes batches one operation after the other; the state travels in parts.
pub struct SingleThreadedDivExecutor<A, S, NT>(PhantomData<fn(A, S, NT)>);

/// Executes batches on all cores; the state travels in parts.
pub struct MultiThreadedDivExecutor<A, S, NT>(PhantomData<fn(A, S, NT)>);

impl<A, S, NT> TDivisibleStateExecutor<A, S, NT> for SingleThreadedDivExecutor<A, S, NT>
where
    A: Application<S>,
    S: DivisibleState,
    NT: ReplyNode<Reply<A, S>>,
{
    fn init_with<R: ExecutorReplier>(
        config: ExecutorConfig,
        work_receiver: WorkReceiver<Request<A, S>>,
        initial_state: Option<(S, Vec<Request<A, S>>)>,
        service: A,
        send_node: Arc<NT>,
    ) -> Result<DivisibleChannels<S>, InitError> {
        let from = Start { config, work: work_receiver, initial_state, service, node: send_node };
        start::<A, S, Sequential, Divisible<S>, NT, R>(from)
    }
}

impl<A, S, NT> TDivisibleStateExecutor<A, S, NT> for MultiThreadedDivExecutor<A, S, NT>
where
    A: ScalableApp<S>,
    S: DivisibleState + CRUDState + Sync,
    NT: ReplyNode<Reply<A, S>>,
{
    fn init_with<R: ExecutorReplier>(
        config: ExecutorConfig,
        work_receiver: WorkReceiver<Request<A, S>>,
        initial_state: Option<(S, Vec<Request<A, S>>)>,
        service: A,
        send_node: Arc<NT>,
    ) -> Result<DivisibleChannels<S>, InitError> {
        let from = Start { config, work: work_receiver, initial_state, service, node: send_node };
        start::<A, S, Speculative<A, S>, Divisible<S>, NT, R>(from)
    }
}

/// A descriptor, parts, done.
pub(crate) struct Divisible<S: DivisibleState> {
    under_way: Option<Installation<S>>,
    /// The last state whose descriptor was refused: what else comes of it is passed over without another error.
    outdated: Option<SeqNo>,
}

struct Installation<S: DivisibleState> {
    seq: SeqNo,
    descriptor: S::StateDescriptor,
    /// What was checked; a part that comes twice is kept once.
    parts: BTreeMap<S::PartId, S::StatePart>,
}

impl<S: DivisibleState> Default for Divisible<S> {
    fn default() -> Self {
        Divisible { under_way: None, outdated: None }
    }
}

impl<S: DivisibleState> Transfer<S> for Divisible<S> {
    type Outgoing = AppState<S>;
    type Incoming = InstallState<S>;
    type Delivered = S::StateDescriptor;

    fn snapshot(state: &S) -> S {
        state.snapshot()
    }

    fn deliver(
        snapshot: S,
        before: Option<&S::StateDescriptor>,
        send: &mut dyn FnMut(AppState<S>) -> Result<(), Undelivered>,
    ) -> Result<S::StateDescriptor, Undelivered> {
        let now = snapshot.descriptor();
        let changed = snapshot.changed_parts(&now, before);
        send(AppState::StateDescriptor(now.clone()))?;
        for ids in changed.chunks(PARTS_PER_MESSAGE) {
            let parts = ids.iter().map(|&id| snapshot.part(id)).collect::<Result<Vec<_>, _>>()?;
            send(AppState::StatePart(MaybeVec::Several(parts)))?;
        }
        send(AppState::Done)?;
        Ok(now)
    }

    fn offer(
        &mut self,
        state: &mut S,
        last: Option<SeqNo>,
        message: InstallStateMessage<InstallState<S>>,
        refused: &mut Vec<StateError>,
    ) -> Step {
        let (seq, piece) = message.into_inner();
        let outcome = match piece {
            InstallState::StateDescriptor(descriptor) => self.begin(seq, descriptor, last),
            _ if self.outdated == Some(seq) => Ok(Step::Noted),
            InstallState::StatePart(parts) => self.keep(seq, parts, refused),
            InstallState::Done => self.finish(seq, state),
        };
        outcome.unwrap_or_else(|error| {
            refused.push(error);
            Step::Refused
        })
    }

    fn under_way(&self) -> Option<SeqNo> {
        self.under_way.as_ref().map(|installation| installation.seq)
    }

    fn abandon(&mut self) {
        self.under_way = None;
    }
}

impl<S: DivisibleState> Divisible<S> {
    /// An outdated descriptor leaves the installation under way alone; any other takes its place.
    fn begin(
        &mut self,
        seq: SeqNo,
        descriptor: S::StateDescriptor,
        last: Option<SeqNo>,
    ) -> Result<Step, StateError> {
        check_age(seq, last).inspect_err(|_| self.outdated = Some(seq))?;
        self.outdated = None;
        let replaced = self.under_way.replace(Installation { seq, descriptor, parts: BTreeMap::new() });
        if let Some(replaced) = replaced {
            tracing::debug!(abandoned = %replaced.seq, by = %seq, "installation abandoned for another");
        }
        Ok(Step::Noted)
    }

    /// Each part is judged by itself, and by the descriptor alone: one from an older checkpoint that still matches is
    /// as good as any.
    fn keep(
        &mut self,
        seq: SeqNo,
        parts: MaybeVec<S::StatePart>,
        refused: &mut Vec<StateError>,
    ) -> Result<Step, StateError> {
        let Some(installation) = &mut self.under_way else {
            let what = format!("parts of state {seq} without a descriptor before them");
            return Err(StateError::Unexpected { what });
        };
        for part in parts {
            match S::check_part(&installation.descriptor, &part) {
                Ok(id) => {
                    installation.parts.insert(id, part);
                }
                Err(error) => refused.push(error),
            }
        }
        Ok(Step::Noted)
    }

    fn finish(&mut self, seq: SeqNo, state: &mut S) -> Result<Step, StateError> {
        match self.under_way.take_if(|installation| installation.seq == seq) {
            Some(Installation { descriptor, parts, .. }) => {
                state.install(&descriptor, parts.into_values().collect())?;
                Ok(Step::Installed)
            }
            None => {
                let what = match self.under_way() {
                    Some(other) => format!("the end of state {seq} while state {other} is being installed"),
                    None => format!("the end of state {seq} without a descriptor before it"),
                };
                Err(StateError::Unexpected { what })
            }
        }
    }
}

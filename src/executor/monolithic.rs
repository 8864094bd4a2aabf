//! Executors of states that travel as a whole.

use std::marker::PhantomData;

use super::channel::{ChannelSyncRx, ChannelSyncTx};
use super::config::ExecutorConfig;
use super::message::{AppStateMessage, InstallStateMessage};
use super::sequential::Sequential;
use super::speculative::Speculative;
use super::start::{HandlePair, Start, WorkReceiver, handle, start};
use super::transfer::{Step, Transfer, Undelivered, check_age};
use crate::app::{Application, Reply, Request, ScalableApp};
use crate::batch::SeqNo;
use crate::error::{ConfigError, InitError, StateError};
use crate::reply::{ExecutorReplier, ReplicaReplier, ReplyNode};
use crate::state::{CRUDState, MonolithicState};
use crate::sync::Arc;

/// The state channel and the checkpoint channel of an executor whose state is [`MonolithicState`].
pub type MonolithicChannels<S> = (ChannelSyncTx<InstallStateMessage<S>>, ChannelSyncRx<AppStateMessage<S>>);

/// Starts an executor of application `A` over the monolithic state `S`, which answers through `NT`.
pub trait TMonolithicStateExecutor<A, S, NT>
where
    A: Application<S>,
    S: MonolithicState,
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
    ) -> Result<MonolithicChannels<S>, InitError> {
        let config = ExecutorConfig::default();
        Self::init_with::<ReplicaReplier>(config, work_receiver, initial_state, service, send_node)
    }

    /// Starts an executor: it takes its work from `work_receiver`, runs `service` and answers through `send_node` the
    /// requests that `R` says.
    ///
    /// It begins with `initial_state`: a state, and requests to replay on it as one batch that nobody is answered for,
    /// by the path that live batches take; without it, with [`Application::initial_state`]. The replay takes place on
    /// the executor's thread: if it fails, the executor has failed, and its handle returns the cause.
    ///
    /// Returns the end of the state channel that takes states to install, and the end of the checkpoint channel that
    /// gives out checkpoints and answers to `Read`. Nothing waits for a reader of the latter.
    ///
    /// # Errors
    ///
    /// The configuration is invalid, there is no initial state, or a thread cannot be spawned. Then nothing has been
    /// executed, no thread is left, and the handle's calls return
    /// [`QueueError::Stopped`](crate::error::QueueError::Stopped).
    ///
    /// # Panics
    ///
    /// If `Application::initial_state` does.
    fn init_with<R: ExecutorReplier>(
        config: ExecutorConfig,
        work_receiver: WorkReceiver<Request<A, S>>,
        initial_state: Option<(S, Vec<Request<A, S>>)>,
        service: A,
        send_node: Arc<NT>,
    ) -> Result<MonolithicChannels<S>, InitError>;
}

/// Executes batches one operation after the other; the state travels as a whole.
pub struct SingleThreadedMonExecutor<A, S, NT>(PhantomData<fn(A, S, NT)>);

/// Executes batches on all cores; the state travels as a whole.
pub struct MultiThreadedMonExecutor<A, S, NT>(PhantomData<fn(A, S, NT)>);

impl<A, S, NT> TMonolithicStateExecutor<A, S, NT> for SingleThreadedMonExecutor<A, S, NT>
where
    A: Application<S>,
    S: MonolithicState,
    NT: ReplyNode<Reply<A, S>>,
{
    fn init_with<R: ExecutorReplier>(
        config: ExecutorConfig,
        work_receiver: WorkReceiver<Request<A, S>>,
        initial_state: Option<(S, Vec<Request<A, S>>)>,
        service: A,
        send_node: Arc<NT>,
    ) -> Result<MonolithicChannels<S>, InitError> {
        let from = Start { config, work: work_receiver, initial_state, service, node: send_node };
        start::<A, S, Sequential, Monolithic, NT, R>(from)
    }
}

impl<A, S, NT> TMonolithicStateExecutor<A, S, NT> for MultiThreadedMonExecutor<A, S, NT>
where
    A: ScalableApp<S>,
    S: MonolithicState + CRUDState + Sync,
    NT: ReplyNode<Reply<A, S>>,
{
    fn init_with<R: ExecutorReplier>(
        config: ExecutorConfig,
        work_receiver: WorkReceiver<Request<A, S>>,
        initial_state: Option<(S, Vec<Request<A, S>>)>,
        service: A,
        send_node: Arc<NT>,
    ) -> Result<MonolithicChannels<S>, InitError> {
        let from = Start { config, work: work_receiver, initial_state, service, node: send_node };
        start::<A, S, Speculative<A, S>, Monolithic, NT, R>(from)
    }
}

/// One message holds the state.
#[derive(Default)]
pub(crate) struct Monolithic;

impl<S: MonolithicState> Transfer<S> for Monolithic {
    type Outgoing = S;
    type Incoming = S;
    type Delivered = ();

    fn snapshot(state: &S) -> S {
        state.snapshot()
    }

    fn deliver(
        snapshot: S,
        _: Option<&()>,
        send: &mut dyn FnMut(S) -> Result<(), Undelivered>,
    ) -> Result<(), Undelivered> {
        send(snapshot)
    }

    fn offer(
        &mut self,
        state: &mut S,
        last: Option<SeqNo>,
        message: InstallStateMessage<S>,
        refused: &mut Vec<StateError>,
    ) -> Step {
        let (seq, new) = message.into_inner();
        if let Err(error) = check_age(seq, last) {
            refused.push(error);
            return Step::Refused;
        }
        *state = new;
        Step::Installed
    }

    fn under_way(&self) -> Option<SeqNo> {
        None
    }

    fn abandon(&mut self) {}
}

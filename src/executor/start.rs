//! Birth and death of an executor: its threads, and the order in which they end.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::channel::{ChannelSyncRx, ChannelSyncTx, Claim, Life, channel};
use super::checkpoint::mailbox;
use super::config::ExecutorConfig;
use super::engine::Engine;
use super::handle::ExecutorHandle;
use super::joining::Joined;
use super::message::{AppStateMessage, ExecutionRequest, InstallStateMessage};
use super::replier;
use super::seam::bounded;
use super::transfer::Transfer;
use super::worker_loop::Executor;
use crate::app::{Application, Reply, Request};
use crate::batch::SeqNo;
use crate::error::{Failure, InitError, Text, caught, dispose};
use crate::reply::{ExecutorReplier, ReplyNode};
use crate::sync::{Arc, JoinHandle, spawn};

/// The end of an executor's queue that `init` takes.
pub type WorkReceiver<O> = ChannelSyncRx<ExecutionRequest<O>>;

/// A handle, and the end of its queue.
pub type HandlePair<O> = (ExecutorHandle<O>, WorkReceiver<O>);

/// The state channel and the checkpoint channel.
type Channels<I, O> = (ChannelSyncTx<InstallStateMessage<I>>, ChannelSyncRx<AppStateMessage<O>>);

/// What an executor is started from.
pub(super) struct Start<A: Application<S>, S, N> {
    pub(super) config: ExecutorConfig,
    pub(super) work: WorkReceiver<Request<A, S>>,
    pub(super) initial_state: Option<(S, Vec<Request<A, S>>)>,
    pub(super) service: A,
    pub(super) node: Arc<N>,
}

/// A handle, and the end of its queue for `capacity` requests.
pub(super) fn handle<O>(capacity: usize) -> HandlePair<O> {
    ExecutorHandle::new(capacity)
}

/// Starts an executor with engine `E` and transfer `T`, which answers what `F` says.
///
/// Each thread ends when the one that feeds it drops its end of a channel. So an early return here leaves none behind.
pub(super) fn start<A, S, E, T, N, F>(
    from: Start<A, S, N>,
) -> Result<Channels<T::Incoming, T::Outgoing>, InitError>
where
    A: Application<S>,
    S: Send + 'static,
    E: Engine<A, S>,
    T: Transfer<S>,
    N: ReplyNode<Reply<A, S>>,
    F: ExecutorReplier,
{
    let Start { config, work, initial_state, service, node } = from;
    let report = config.validate()?;
    E::check(&config)?;
    let claim = Claim::of(&work.life).ok_or(InitError::AlreadyStarted)?;
    for note in &report.notes {
        tracing::info!(executor = config.name, note);
    }
    let (state, requests) = match initial_state {
        Some(given) => given,
        None => (A::initial_state().map_err(InitError::InitialState)?, Vec::new()),
    };
    let life = Arc::clone(&work.life);
    let engine = E::new(&config, &report, Arc::clone(&life.metrics))?;
    let (state_sender, installs) = channel(config.state_buffer, &life);
    let (out, checkpoint_receiver) = channel(config.state_buffer, &life);
    let (replies, answers) = bounded(config.reply_buffer);
    let (checkpoints, courier) =
        mailbox::<S, T>(out.inner, config.state_buffer, config.shutdown_grace, &life);
    let joined = Joined::new(engine.limit());
    let executor = Executor::<A, S, E, T> {
        engine,
        app: service,
        state,
        transfer: T::default(),
        work,
        installs,
        replies,
        checkpoints,
        life: Arc::clone(&life),
        last: config.initial_seq,
        deferred: VecDeque::new(),
        joined,
        missing: BTreeMap::new(),
        current: config.initial_seq.unwrap_or(SeqNo::ZERO),
    };
    let replier_life = Arc::clone(&life);
    let helpers = vec![
        thread(&config, "replier", None, move || replier::run::<F, _, N>(answers, node, replier_life))?,
        thread(&config, "checkpoint", None, move || courier.run())?,
    ];
    if let Some(seq) = config.initial_seq {
        life.executed(seq);
    }
    thread(&config, "executor", config.stack_size, move || live(executor, requests, helpers))?;
    claim.started();
    Ok((state_sender, checkpoint_receiver))
}

fn thread(
    config: &ExecutorConfig,
    role: &str,
    stack: Option<usize>,
    body: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, InitError> {
    let name = format!("{}-{role}", config.name);
    spawn(&name, stack, body).map_err(|source| InitError::Spawn { name, source })
}

/// Ends a life whatever happens: nobody waits for ever for a thread that died.
struct End {
    life: Arc<Life>,
    orderly: bool,
}

impl Drop for End {
    fn drop(&mut self) {
        if !self.orderly {
            let batch = self.life.last_executed();
            let message = Text::from("the executor's thread died while it was stopping");
            self.life.fail(Failure::Internal { batch, message });
        }
        self.life.end();
    }
}

/// The executor's thread: work, then report the cause, then let everything that was promised leave.
fn live<A, S, E, T>(
    mut executor: Executor<A, S, E, T>,
    requests: Vec<Request<A, S>>,
    helpers: Vec<JoinHandle<()>>,
) where
    A: Application<S>,
    E: Engine<A, S>,
    T: Transfer<S>,
{
    let life = Arc::clone(&executor.life);
    let mut end = End { life: Arc::clone(&life), orderly: false };
    // Unwind safety: after a panic the pieces are only dropped.
    match catch_unwind(AssertUnwindSafe(|| executor.run(requests))) {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => life.fail(failure),
        Err(panic) => {
            let message = caught(panic);
            life.fail(Failure::Internal { batch: executor.current, message });
        }
    }
    // From here on every caller is told the cause, those who wait for room in the queue first.
    let Executor {
        engine, app, state, transfer, work, installs, replies, checkpoints, deferred, joined, ..
    } = executor;
    drop((work, installs));
    // The replier sends what is queued and ends; then the checkpoint thread does, which is told of a failure at once: the network
    // may never let the replier end.
    drop(replies);
    let checkpoints = (!life.has_failed()).then_some(checkpoints);
    let mut helpers = helpers.into_iter();
    let has_died = |helper: JoinHandle<()>| helper.join().map_err(dispose).is_err();
    let mut died = helpers.next().is_some_and(has_died);
    drop(checkpoints);
    for helper in helpers {
        died |= has_died(helper);
    }
    // The engine's threads end here; destructors of the user's own may panic.
    let dropped = catch_unwind(AssertUnwindSafe(|| drop((engine, app, state, transfer, deferred, joined))));
    if died || dropped.map_err(dispose).is_err() {
        let message = Text::from("a panic while the executor was stopping");
        life.fail(Failure::Internal { batch: life.last_executed(), message });
    }
    end.orderly = true;
}

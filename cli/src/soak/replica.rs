//! One executor of any kind, with all that a replica does to it: feed, catch up, checkpoint, install, stop.

use std::sync::Arc;
use std::time::Duration;

use atlas_smr_execution::batch::{MaybeVec, SeqNo, UnorderedBatch, UpdateBatch};
use atlas_smr_execution::executor::{
    AppState, AppStateMessage, ChannelSyncRx, ChannelSyncTx, ExecutorConfig, ExecutorHandle, InstallState,
    InstallStateMessage, MultiThreadedDivExecutor, MultiThreadedMonExecutor, SingleThreadedDivExecutor,
    SingleThreadedMonExecutor, TDivisibleStateExecutor, TMonolithicStateExecutor,
};
use atlas_smr_execution::reply::ReplicaReplier;
use atlas_smr_execution::state::{DivisibleState, ShardedState};
use workloads::Service;

use super::log::Segment;
use super::mixture::{Mixture, Request};
use super::tally::{Count, Tally};
use crate::args::ExecutorKind;
use crate::drive::{READER, rebuild, receive};
use crate::error::CliError;

/// How often a wait looks whether the executor still lives.
const GLANCE: Duration = Duration::from_millis(50);
/// Between so many batches, requests are asked outside the order.
const ASK_EVERY: usize = 16;
/// Parts in one message of an installation.
const PARTS: usize = 64;

/// Where states go in.
enum Installs {
    Mon(ChannelSyncTx<InstallStateMessage<ShardedState>>),
    Div(ChannelSyncTx<InstallStateMessage<InstallState<ShardedState>>>),
}

/// Where states come out.
enum Checkpoints {
    Mon(ChannelSyncRx<AppStateMessage<ShardedState>>),
    Div(ChannelSyncRx<AppStateMessage<AppState<ShardedState>>>),
}

/// An executor that runs.
pub struct Replica {
    kind: ExecutorKind,
    handle: ExecutorHandle<Request>,
    tally: Arc<Tally>,
    installs: Installs,
    checkpoints: Checkpoints,
    /// The last checkpoint that came out: the next one in parts says what has changed since.
    base: ShardedState,
    empty: ShardedState,
}

/// A log to begin with: the state before it, its operations, and its last batch.
pub struct Beginning {
    pub state: ShardedState,
    pub requests: Vec<Request>,
    pub seq: Option<SeqNo>,
}

type App = Service<Mixture>;
type S = ShardedState;

impl Replica {
    /// Starts an executor.
    pub fn start(
        kind: ExecutorKind,
        mut config: ExecutorConfig,
        from: Beginning,
        empty: &ShardedState,
    ) -> Result<Replica, CliError> {
        config.initial_seq = from.seq;
        let initial = (from.state, from.requests);
        let empty = empty.snapshot();
        match kind {
            ExecutorKind::SingleMon => {
                monolithic::<SingleThreadedMonExecutor<App, S, Tally>>(kind, config, initial, empty)
            }
            ExecutorKind::MultiMon => {
                monolithic::<MultiThreadedMonExecutor<App, S, Tally>>(kind, config, initial, empty)
            }
            ExecutorKind::SingleDiv => {
                divisible::<SingleThreadedDivExecutor<App, S, Tally>>(kind, config, initial, empty)
            }
            ExecutorKind::MultiDiv => {
                divisible::<MultiThreadedDivExecutor<App, S, Tally>>(kind, config, initial, empty)
            }
        }
    }

    pub fn name(&self) -> &'static str {
        self.kind.name()
    }

    pub fn kind(&self) -> ExecutorKind {
        self.kind
    }

    /// Executes a segment as it comes from consensus, with requests outside the order in between, and a checkpoint after the
    /// last batch if `checkpoint` says so; returns what came back, and how much was asked.
    pub fn feed(&self, segment: &Segment, checkpoint: bool) -> Result<(Count, u64), CliError> {
        self.tally.reset(segment.first);
        let (mut asked, last) = (0, segment.batches.len() - 1);
        for (number, batch) in segment.batches.iter().enumerate() {
            if number % ASK_EVERY == ASK_EVERY / 2 {
                asked += self.ask(batch)?;
            }
            let queued = match checkpoint && number == last {
                true => self.handle.queue_update_and_get_appstate(batch.clone()),
                false => self.handle.queue_update(batch.clone()),
            };
            queued.map_err(|error| CliError::queue(self.name(), error))?;
        }
        let next = segment.first + segment.operations;
        loop {
            if let Some(count) = self.tally.wait(next, asked, GLANCE) {
                return Ok((count, asked));
            }
            if let Some(source) = self.handle.failure() {
                return Err(CliError::Failed { executor: self.name(), source });
            }
        }
    }

    /// Asks the first operations of a batch outside the order: what they would read.
    fn ask(&self, batch: &UpdateBatch<Request>) -> Result<u64, CliError> {
        let requests: Vec<_> = batch.updates().iter().take(20).cloned().collect();
        let asked = requests.len() as u64;
        let queued = self.handle.queue_update_unordered(UnorderedBatch::from_requests(requests));
        queued.map_err(|error| CliError::queue(self.name(), error))?;
        Ok(asked)
    }

    /// Executes a segment as what was missed; twice, which must be as good as once.
    pub fn catch_up(&self, segment: &Segment) -> Result<(), CliError> {
        for _ in 0..2 {
            let missed = MaybeVec::Several(segment.batches.clone());
            let queued = self.handle.catch_up_to_quorum(missed);
            queued.map_err(|error| CliError::queue(self.name(), error))?;
        }
        Ok(())
    }

    /// The checkpoint that [`feed`](Replica::feed) asked for.
    pub fn checkpoint(&mut self) -> Result<ShardedState, CliError> {
        let base = self.base.snapshot();
        let state = self.receive(base)?;
        self.base = state.snapshot();
        Ok(state)
    }

    /// The state as it is.
    pub fn state(&self) -> Result<ShardedState, CliError> {
        self.handle.read_state(READER).map_err(|error| CliError::queue(self.name(), error))?;
        self.receive(self.empty.snapshot())
    }

    fn receive(&self, base: ShardedState) -> Result<ShardedState, CliError> {
        match &self.checkpoints {
            Checkpoints::Mon(checkpoints) => receive(self.name(), checkpoints),
            Checkpoints::Div(checkpoints) => rebuild(self.name(), checkpoints, base),
        }
    }

    /// Installs a state that contains everything up to `seq`.
    pub fn install(&self, seq: SeqNo, state: &ShardedState) -> Result<(), CliError> {
        let lost = |error| CliError::queue(self.name(), error);
        match &self.installs {
            Installs::Mon(installs) => {
                let queued = installs.send(InstallStateMessage::new(seq, state.snapshot()));
                queued.map_err(|error| lost(error.map(drop)))?;
                self.handle.poll_state_channel().map_err(lost)
            }
            Installs::Div(installs) => {
                // More messages may come than the channel holds: the executor has to take them meanwhile.
                let descriptor = state.descriptor();
                let ids = state.changed_parts(&descriptor, None);
                let send = |piece| {
                    installs.send(InstallStateMessage::new(seq, piece)).map_err(|error| lost(error.map(drop)))
                };
                send(InstallState::StateDescriptor(descriptor))?;
                self.handle.poll_state_channel().map_err(lost)?;
                for ids in ids.chunks(PARTS) {
                    let parts = ids.iter().map(|&id| state.part(id)).collect::<Result<Vec<_>, _>>();
                    let parts = parts.map_err(|error| self.broken(&error))?;
                    send(InstallState::StatePart(MaybeVec::Several(parts)))?;
                }
                send(InstallState::Done)
            }
        }
    }

    fn broken(&self, error: &impl ToString) -> CliError {
        CliError::Checkpoint { executor: self.name(), what: error.to_string() }
    }

    /// Stops the executor.
    pub fn stop(self) -> Result<(), CliError> {
        let executor = self.name();
        let refused = self.handle.install_error();
        self.handle.join().map_err(|source| CliError::Failed { executor, source })?;
        match refused {
            Some(reason) => Err(CliError::Checkpoint { executor, what: reason.to_string() }),
            None => Ok(()),
        }
    }
}

/// Starts executors of one kind of state transfer.
macro_rules! starting {
    ($name:ident, $executor:ident, $variant:ident) => {
        fn $name<E: $executor<App, S, Tally>>(
            kind: ExecutorKind,
            config: ExecutorConfig,
            initial: (S, Vec<Request>),
            empty: S,
        ) -> Result<Replica, CliError> {
            let (handle, work) = E::init_handle_with(&config)?;
            let (tally, app) = (Arc::new(Tally::new()), Service(Mixture::new()));
            let (installs, checkpoints) =
                E::init_with::<ReplicaReplier>(config, work, Some(initial), app, Arc::clone(&tally))
                    .map_err(|source| CliError::Init { executor: kind.name(), source })?;
            let (installs, checkpoints) = (Installs::$variant(installs), Checkpoints::$variant(checkpoints));
            Ok(Replica { kind, handle, tally, installs, checkpoints, base: empty.snapshot(), empty })
        }
    };
}

starting!(monolithic, TMonolithicStateExecutor, Mon);
starting!(divisible, TDivisibleStateExecutor, Div);

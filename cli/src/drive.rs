//! Drives one executor through its public channels, as a replica would.

use std::sync::Arc;
use std::time::{Duration, Instant};

use atlas_smr_execution::batch::{NodeId, UpdateBatch};
use atlas_smr_execution::executor::{
    AppState, AppStateMessage, ChannelSyncRx, ExecutorConfig, ExecutorHandle, MultiThreadedDivExecutor,
    MultiThreadedMonExecutor, SingleThreadedDivExecutor, SingleThreadedMonExecutor, TDivisibleStateExecutor,
    TMonolithicStateExecutor,
};
use atlas_smr_execution::metrics::Counters;
use atlas_smr_execution::reply::ReplicaReplier;
use atlas_smr_execution::state::{DivisibleState, ShardedState};
use workloads::{Logic, Service};

use crate::args::ExecutorKind;
use crate::error::CliError;
use crate::recorder::{Recorded, Recorder};

/// The node that asks for the state at the end.
pub const READER: NodeId = NodeId(u32::MAX);
/// How often a wait looks whether the executor still lives.
const GLANCE: Duration = Duration::from_millis(50);

/// What is to be executed.
pub struct Job<L: Logic> {
    pub config: ExecutorConfig,
    pub logic: L,
    /// The populated state to begin with.
    pub state: ShardedState,
    /// An empty state with the same columns, to rebuild the final state in.
    pub empty: ShardedState,
    pub batches: Vec<UpdateBatch<L::Request>>,
    /// Batches that may be on their way at once.
    pub in_flight: usize,
}

/// What an executor made of a job.
pub struct Outcome {
    pub recorded: Recorded,
    /// From the first batch queued to the last reply.
    pub elapsed: Duration,
    pub counters: Counters,
    pub state_digest: [u8; 32],
}

/// Runs `job` on the executor `kind`; `progress` is told the operations queued so far.
pub fn run<L: Logic>(
    kind: ExecutorKind,
    job: Job<L>,
    progress: &mut dyn FnMut(u64),
) -> Result<Outcome, CliError> {
    type App<L> = Service<L>;
    type S = ShardedState;
    type N = Recorder;
    match kind {
        ExecutorKind::SingleMon => {
            monolithic::<SingleThreadedMonExecutor<App<L>, S, N>, L>(kind, job, progress)
        }
        ExecutorKind::MultiMon => {
            monolithic::<MultiThreadedMonExecutor<App<L>, S, N>, L>(kind, job, progress)
        }
        ExecutorKind::SingleDiv => {
            divisible::<SingleThreadedDivExecutor<App<L>, S, N>, L>(kind, job, progress)
        }
        ExecutorKind::MultiDiv => divisible::<MultiThreadedDivExecutor<App<L>, S, N>, L>(kind, job, progress),
    }
}

fn monolithic<E, L>(
    kind: ExecutorKind,
    job: Job<L>,
    progress: &mut dyn FnMut(u64),
) -> Result<Outcome, CliError>
where
    E: TMonolithicStateExecutor<Service<L>, ShardedState, Recorder>,
    L: Logic,
{
    let (handle, work) = E::init_handle_with(&job.config)?;
    let recorder = Arc::new(Recorder::new());
    let initial = Some((job.state, Vec::new()));
    let service = Service(job.logic);
    let (_state, checkpoints) =
        E::init_with::<ReplicaReplier>(job.config, work, initial, service, Arc::clone(&recorder))
            .map_err(|source| CliError::Init { executor: kind.name(), source })?;
    let mut line = Line { name: kind.name(), handle, recorder };
    let elapsed = line.feed(job.batches, job.in_flight, progress)?;
    line.ask()?;
    let state = receive(line.name, &checkpoints)?;
    line.finish(elapsed, state.digest())
}

fn divisible<E, L>(
    kind: ExecutorKind,
    job: Job<L>,
    progress: &mut dyn FnMut(u64),
) -> Result<Outcome, CliError>
where
    E: TDivisibleStateExecutor<Service<L>, ShardedState, Recorder>,
    L: Logic,
{
    let (handle, work) = E::init_handle_with(&job.config)?;
    let recorder = Arc::new(Recorder::new());
    let initial = Some((job.state, Vec::new()));
    let service = Service(job.logic);
    let (_state, checkpoints) =
        E::init_with::<ReplicaReplier>(job.config, work, initial, service, Arc::clone(&recorder))
            .map_err(|source| CliError::Init { executor: kind.name(), source })?;
    let mut line = Line { name: kind.name(), handle, recorder };
    let elapsed = line.feed(job.batches, job.in_flight, progress)?;
    line.ask()?;
    let state = rebuild(line.name, &checkpoints, job.empty)?;
    line.finish(elapsed, state.digest())
}

/// Both ends of the line to an executor: requests and replies.
struct Line<O> {
    name: &'static str,
    handle: ExecutorHandle<O>,
    recorder: Arc<Recorder>,
}

impl<O> Line<O> {
    /// Queues all batches, at most `in_flight` at once, and waits for the last reply.
    fn feed(
        &mut self,
        batches: Vec<UpdateBatch<O>>,
        in_flight: usize,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Duration, CliError> {
        let start = Instant::now();
        let mut queued = 0;
        for batch in batches {
            self.wait(in_flight - 1)?;
            let size = batch.len();
            self.recorder.queueing(size);
            self.handle.queue_update(batch).map_err(|error| CliError::queue(self.name, error))?;
            queued += size as u64;
            progress(queued);
        }
        self.wait(0)?;
        let end = self.recorder.recorded().last.unwrap_or_else(Instant::now);
        Ok(end.saturating_duration_since(start))
    }

    /// Waits until at most `limit` batches are under way.
    fn wait(&self, limit: usize) -> Result<(), CliError> {
        while !self.recorder.wait(limit, GLANCE) {
            if let Some(source) = self.handle.failure() {
                return Err(CliError::Failed { executor: self.name, source });
            }
        }
        Ok(())
    }

    /// Asks for the state as it is now.
    fn ask(&self) -> Result<(), CliError> {
        self.handle.read_state(READER).map_err(|error| CliError::queue(self.name, error))
    }

    /// Stops the executor and puts together what it did.
    fn finish(self, elapsed: Duration, state_digest: [u8; 32]) -> Result<Outcome, CliError> {
        let metrics = self.handle.metrics();
        self.handle.join().map_err(|source| CliError::Failed { executor: self.name, source })?;
        let recorded = self.recorder.recorded();
        Ok(Outcome { recorded, elapsed, counters: metrics.counters(), state_digest })
    }
}

/// The state in the next message.
pub fn receive<T>(
    name: &'static str,
    checkpoints: &ChannelSyncRx<AppStateMessage<T>>,
) -> Result<T, CliError> {
    let message = checkpoints.recv().map_err(|error| CliError::receive(name, error))?;
    Ok(message.into_state())
}

/// Takes a state in parts out of the checkpoint channel and puts it together in `state`, as a replica would that
/// lags behind.
pub fn rebuild(
    name: &'static str,
    checkpoints: &ChannelSyncRx<AppStateMessage<AppState<ShardedState>>>,
    mut state: ShardedState,
) -> Result<ShardedState, CliError> {
    let broken = |what: String| CliError::Checkpoint { executor: name, what };
    let AppState::StateDescriptor(descriptor) = receive(name, checkpoints)? else {
        return Err(broken("parts came before their descriptor".to_owned()));
    };
    let mut parts = Vec::new();
    loop {
        match receive(name, checkpoints)? {
            AppState::StatePart(some) => parts.extend(some),
            AppState::Done => break,
            AppState::StateDescriptor(_) => return Err(broken("a second descriptor came".to_owned())),
        }
    }
    for part in &parts {
        ShardedState::check_part(&descriptor, part).map_err(|error| broken(error.to_string()))?;
    }
    state.install(&descriptor, parts).map_err(|error| broken(error.to_string()))?;
    Ok(state)
}

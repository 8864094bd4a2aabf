//! One way to run batches through each of the four executors on the built-in state, and to see all that comes out.

use std::sync::{Arc, Mutex};

use atlas_smr_execution::app::{ApplicationData, Reply, Request, ScalableApp};
use atlas_smr_execution::batch::{NodeId, UpdateBatch};
use atlas_smr_execution::error::BoxError;
use atlas_smr_execution::executor::*;
use atlas_smr_execution::metrics::Counters;
use atlas_smr_execution::reply::{ReplicaReplier, ReplyNode, RequestType, UpdateReply};
use atlas_smr_execution::state::{DivisibleState, ShardedState};

use super::{Ahead, within};

/// A network that keeps every reply.
pub struct Collector<R>(Mutex<Vec<UpdateReply<R>>>);

impl<R> Collector<R> {
    pub fn new() -> Arc<Self> {
        Arc::new(Collector(Mutex::default()))
    }

    /// The replies so far, in the order in which they were sent.
    pub fn take(&self) -> Vec<UpdateReply<R>> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl<R: Send + 'static> ReplyNode<R> for Collector<R> {
    fn send(&self, _: RequestType, reply: UpdateReply<R>, _: bool) -> Result<(), BoxError> {
        self.0.lock().unwrap().push(reply);
        Ok(())
    }
}

/// All that came out of a run.
pub struct Output<R> {
    pub replies: Vec<UpdateReply<R>>,
    pub state: ShardedState,
    pub counters: Counters,
}

/// An executor that tests can run on batches.
pub trait Rig: Ahead {
    const NAME: &'static str;

    fn run<A>(
        config: &ExecutorConfig,
        app: A,
        state: ShardedState,
        batches: Vec<UpdateBatch<Request<A, ShardedState>>>,
    ) -> Output<Reply<A, ShardedState>>
    where
        A: ScalableApp<ShardedState>,
        A::AppData: ApplicationData;
}

macro_rules! rig {
    ($name:ident, $executor:ident, $trait:ident, $receive:path, $runs_ahead:expr) => {
        pub struct $name;

        impl Ahead for $name {
            const RUNS_AHEAD: bool = $runs_ahead;
        }

        impl Rig for $name {
            const NAME: &'static str = stringify!($executor);

            fn run<A>(
                config: &ExecutorConfig,
                app: A,
                state: ShardedState,
                batches: Vec<UpdateBatch<Request<A, ShardedState>>>,
            ) -> Output<Reply<A, ShardedState>>
            where
                A: ScalableApp<ShardedState>,
            {
                let config = config.clone();
                within(Self::NAME, move || {
                    type Executor<A> = $executor<A, ShardedState, Collector<Reply<A, ShardedState>>>;
                    let node = Collector::new();
                    let (handle, work) = Executor::<A>::init_handle_with(&config).expect("valid");
                    let initial = Some((state, Vec::new()));
                    let (_install, checkpoints) = Executor::<A>::init_with::<ReplicaReplier>(
                        config,
                        work,
                        initial,
                        app,
                        Arc::clone(&node),
                    )
                    .expect("threads");
                    for batch in batches {
                        handle.queue_update(batch).expect("alive");
                    }
                    handle.read_state(NodeId(1)).expect("alive");
                    let state = $receive(&checkpoints);
                    let metrics = handle.metrics();
                    handle.join().expect("a good end");
                    Output { replies: node.take(), state, counters: metrics.counters() }
                })
            }
        }
    };
}

fn whole(checkpoints: &ChannelSyncRx<AppStateMessage<ShardedState>>) -> ShardedState {
    checkpoints.recv().expect("an answer to Read").into_state()
}

fn in_parts(checkpoints: &ChannelSyncRx<AppStateMessage<AppState<ShardedState>>>) -> ShardedState {
    let mut descriptor = None;
    let mut parts = Vec::new();
    loop {
        match checkpoints.recv().expect("an answer to Read").into_state() {
            AppState::StateDescriptor(names) => descriptor = Some(names),
            AppState::StatePart(more) => parts.extend(more),
            AppState::Done => break,
        }
    }
    let mut state = ShardedState::new();
    state.install(&descriptor.expect("first the descriptor"), parts).expect("all parts came");
    state
}

rig!(SingleMon, SingleThreadedMonExecutor, TMonolithicStateExecutor, whole, false);
rig!(MultiMon, MultiThreadedMonExecutor, TMonolithicStateExecutor, whole, true);
rig!(SingleDiv, SingleThreadedDivExecutor, TDivisibleStateExecutor, in_parts, false);
rig!(MultiDiv, MultiThreadedDivExecutor, TDivisibleStateExecutor, in_parts, true);

/// Runs `batches` on `R` and by the plain loop over `Application::update`; replies, their order and the state must be
/// the same.
pub fn check<R: Rig, A>(
    config: &ExecutorConfig,
    app: &A,
    state: &ShardedState,
    batches: &[UpdateBatch<Request<A, ShardedState>>],
) -> Counters
where
    A: ScalableApp<ShardedState> + Clone,
    Reply<A, ShardedState>: PartialEq + std::fmt::Debug,
{
    let mut expected_state = state.snapshot();
    let mut expected = Vec::new();
    for update in batches.iter().flat_map(|batch| batch.updates()) {
        let payload = app.update(&mut expected_state, update.operation().clone());
        expected.push(UpdateReply::to_request(update, payload));
    }
    let output = R::run(config, app.clone(), state.snapshot(), batches.to_vec());
    assert_eq!(output.replies, expected, "replies of {}", R::NAME);
    assert!(
        output.state.iter().eq(expected_state.iter()),
        "the state of {} is not the sequential loop's",
        R::NAME
    );
    output.counters
}

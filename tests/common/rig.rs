//! One way to run batches through each of the four executors on the built-in state, and to see all that comes out.

use std::sync::{Arc, Mutex};

use atlas_smr_execution::app::{Reply, Request, ScalableApp};
use atlas_smr_execution::batch::{NodeId, UpdateBatch};
use atlas_smr_execution::error::BoxError;
use atlas_smr_execution::executor::*;
use atlas_smr_execution::metrics::Counters;
use atlas_smr_execution::reply::{ReplicaReplier, ReplyNode, RequestType, UpdateReply};
use atlas_smr_execution::state::ShardedState;

use super::{Ahead, StateRx, within};

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

/// What a test does with an executor that runs application `A`; returns the state that the executor ends in.
pub trait Drive<A: ScalableApp<ShardedState>>:
    FnOnce(&ExecutorHandle<Request<A, ShardedState>>, &StateRx<ShardedState>) -> ShardedState + Send + 'static
{
}

impl<A, F> Drive<A> for F
where
    A: ScalableApp<ShardedState>,
    F: FnOnce(&ExecutorHandle<Request<A, ShardedState>>, &StateRx<ShardedState>) -> ShardedState
        + Send
        + 'static,
{
}

/// An executor that tests can run on batches.
pub trait Rig: Ahead {
    const NAME: &'static str;

    /// Starts an executor, does with it what `drive` does, and ends it.
    fn drive<A: ScalableApp<ShardedState>>(
        config: &ExecutorConfig,
        app: A,
        state: ShardedState,
        drive: impl Drive<A>,
    ) -> Output<Reply<A, ShardedState>>;

    /// Runs these batches.
    fn run<A: ScalableApp<ShardedState>>(
        config: &ExecutorConfig,
        app: A,
        state: ShardedState,
        batches: Vec<UpdateBatch<Request<A, ShardedState>>>,
    ) -> Output<Reply<A, ShardedState>> {
        Self::drive(config, app, state, |handle: &ExecutorHandle<_>, checkpoints: &StateRx<_>| {
            batches.into_iter().for_each(|batch| handle.queue_update(batch).expect("alive"));
            handle.read_state(NodeId(1)).expect("alive");
            checkpoints.next(&ShardedState::new()).expect("an answer to Read").state
        })
    }
}

macro_rules! rig {
    ($name:ident, $executor:ident, $trait:ident, $variant:ident, $runs_ahead:expr) => {
        pub struct $name;

        impl Ahead for $name {
            const RUNS_AHEAD: bool = $runs_ahead;
        }

        impl Rig for $name {
            const NAME: &'static str = stringify!($executor);

            fn drive<A: ScalableApp<ShardedState>>(
                config: &ExecutorConfig,
                app: A,
                state: ShardedState,
                drive: impl Drive<A>,
            ) -> Output<Reply<A, ShardedState>> {
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
                    let checkpoints = StateRx::$variant(checkpoints);
                    let state = drive(&handle, &checkpoints);
                    let metrics = handle.metrics();
                    handle.join().expect("a good end");
                    Output { replies: node.take(), state, counters: metrics.counters() }
                })
            }
        }
    };
}

rig!(SingleMon, SingleThreadedMonExecutor, TMonolithicStateExecutor, Mon, false);
rig!(MultiMon, MultiThreadedMonExecutor, TMonolithicStateExecutor, Mon, true);
rig!(SingleDiv, SingleThreadedDivExecutor, TDivisibleStateExecutor, Div, false);
rig!(MultiDiv, MultiThreadedDivExecutor, TDivisibleStateExecutor, Div, true);

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

//! The four executors on the built-in state, and all that comes out of them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use atlas_smr_execution::batch::NodeId;
use atlas_smr_execution::error::BoxError;
use atlas_smr_execution::executor::*;
use atlas_smr_execution::reply::{ReplicaReplier, ReplyNode, RequestType, UpdateReply};
use atlas_smr_execution::state::{DivisibleState, ShardedState, StateDescriptor};
use workloads::Service;
use workloads::program::{Program, ProgramLogic};

/// No wait is longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A network that keeps every reply.
#[derive(Debug, Default)]
pub struct Collector(Mutex<Vec<(RequestType, UpdateReply<u64>)>>);

impl ReplyNode<u64> for Collector {
    fn send(&self, kind: RequestType, reply: UpdateReply<u64>, _: bool) -> Result<(), BoxError> {
        self.0.lock().expect("nobody panics here").push((kind, reply));
        Ok(())
    }
}

/// Where states go in.
pub enum StateTx {
    /// As a whole.
    Mon(ChannelSyncTx<InstallStateMessage<ShardedState>>),
    /// In parts.
    Div(ChannelSyncTx<InstallStateMessage<InstallState<ShardedState>>>),
}

enum StateRx {
    Mon(ChannelSyncRx<AppStateMessage<ShardedState>>),
    Div(ChannelSyncRx<AppStateMessage<AppState<ShardedState>>>),
}

/// Where checkpoints come out.
pub struct Checkpoints {
    rx: StateRx,
    /// The last checkpoint; the next one's parts are those that differ.
    last: ShardedState,
}

/// A checkpoint, whole.
#[derive(Debug)]
pub struct Checkpoint {
    /// The last batch in it.
    pub seq: u64,
    /// Who asked for it.
    pub to: Option<NodeId>,
    /// What it describes itself as, if it came in parts.
    pub descriptor: Option<StateDescriptor>,
    /// The state.
    pub state: ShardedState,
}

impl Checkpoints {
    /// The next checkpoint.
    ///
    /// # Panics
    ///
    /// If none comes, or its pieces are not what they must be.
    pub fn receive(&mut self) -> Checkpoint {
        match &self.rx {
            StateRx::Mon(rx) => {
                let message = rx.recv_timeout(PATIENCE).expect("a checkpoint");
                let (seq, to) = (message.sequence_number().0, message.to());
                Checkpoint { seq, to, descriptor: None, state: message.into_state() }
            }
            StateRx::Div(rx) => {
                let checkpoint = assemble(rx, &self.last);
                if checkpoint.to.is_none() {
                    self.last = checkpoint.state.snapshot();
                }
                checkpoint
            }
        }
    }
}

fn assemble(rx: &ChannelSyncRx<AppStateMessage<AppState<ShardedState>>>, last: &ShardedState) -> Checkpoint {
    let first = rx.recv_timeout(PATIENCE).expect("a checkpoint");
    let (seq, to) = (first.sequence_number(), first.to());
    let AppState::StateDescriptor(descriptor) = first.into_state() else {
        panic!("a checkpoint begins with its descriptor")
    };
    let mut parts = Vec::new();
    loop {
        let message = rx.recv_timeout(PATIENCE).expect("the rest of a checkpoint");
        assert_eq!((message.sequence_number(), message.to()), (seq, to), "one checkpoint at a time");
        match message.into_state() {
            AppState::StateDescriptor(_) => panic!("a checkpoint was cut off"),
            AppState::StatePart(more) => parts.extend(more),
            AppState::Done => break,
        }
    }
    let mut state = last.snapshot();
    state.install(&descriptor, parts).expect("the last checkpoint and the parts make this one");
    Checkpoint { seq: seq.0, to, descriptor: Some(descriptor), state }
}

/// The ends of a running executor.
pub struct Running {
    /// Its handle.
    pub handle: ExecutorHandle<Program>,
    /// Its state channel, until it is closed.
    pub states: Option<StateTx>,
    /// Its checkpoints.
    pub checkpoints: Checkpoints,
    node: Arc<Collector>,
}

impl Running {
    /// Stops the executor; returns the replies to ordered and to unordered requests.
    ///
    /// # Panics
    ///
    /// If it has failed.
    pub fn finish(self) -> [Vec<UpdateReply<u64>>; 2] {
        self.handle.join().expect("a good end");
        let replies = std::mem::take(&mut *self.node.0.lock().expect("nobody panics there"));
        [RequestType::Ordered, RequestType::Unordered].map(|wanted| {
            replies.iter().filter(|(kind, _)| *kind == wanted).map(|(_, reply)| reply.clone()).collect()
        })
    }
}

/// Starts an executor.
pub type Start = fn(&ExecutorConfig, &ShardedState) -> Running;

/// The four executors, by name.
pub const ALL: [(&str, Start); 4] = [
    ("SingleThreadedMonExecutor", single_mon),
    ("SingleThreadedDivExecutor", single_div),
    ("MultiThreadedMonExecutor", multi_mon),
    ("MultiThreadedDivExecutor", multi_div),
];

macro_rules! start {
    ($name:ident, $executor:ident, $trait:ident, $variant:ident) => {
        fn $name(config: &ExecutorConfig, state: &ShardedState) -> Running {
            type Executor = $executor<Service<ProgramLogic>, ShardedState, Collector>;
            let node = Arc::new(Collector::default());
            let (handle, work) = Executor::init_handle_with(config).expect("valid");
            let (states, checkpoints) = Executor::init_with::<ReplicaReplier>(
                config.clone(),
                work,
                Some((state.snapshot(), Vec::new())),
                Service(ProgramLogic),
                Arc::clone(&node),
            )
            .expect("threads");
            let checkpoints = Checkpoints { rx: StateRx::$variant(checkpoints), last: ShardedState::new() };
            Running { handle, states: Some(StateTx::$variant(states)), checkpoints, node }
        }
    };
}

start!(single_mon, SingleThreadedMonExecutor, TMonolithicStateExecutor, Mon);
start!(single_div, SingleThreadedDivExecutor, TDivisibleStateExecutor, Div);
start!(multi_mon, MultiThreadedMonExecutor, TMonolithicStateExecutor, Mon);
start!(multi_div, MultiThreadedDivExecutor, TDivisibleStateExecutor, Div);

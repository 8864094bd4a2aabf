//! What the integration tests share: a small application, a state that travels both ways, a recording network, and one
//! way to drive all four executors.
#![allow(dead_code)] // Each test program uses its own part of it.

pub mod disk;
pub mod rig;
pub mod script;
pub mod state;

use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use atlas_smr_execution::app::{Application, ApplicationData, ScalableApp};
use atlas_smr_execution::batch::{NodeId, SeqNo, UnorderedBatch, UpdateBatch};
use atlas_smr_execution::error::{BoxError, Failure, InitError};
use atlas_smr_execution::executor::*;
use atlas_smr_execution::metrics::Counters;
use atlas_smr_execution::reply::{ExecutorReplier, ReplicaReplier, ReplyNode, RequestType, UpdateReply};
use atlas_smr_execution::state::{CRUDState, DivisibleState};

use state::{COLUMN, Descriptor, TestState};

/// No wait of a test is longer.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `body` on a thread of its own; fails the test if it does not return.
pub fn within<R: Send + 'static>(what: &str, body: impl FnOnce() -> R + Send + 'static) -> R {
    let (done, result) = mpsc::channel();
    std::thread::spawn(move || done.send(body()));
    result.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{what}: no end in sight"))
}

/// Waits until `condition` holds; fails the test if it never does.
pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what}: waited in vain");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Checks the table in the header of a file of tests: its last column says `file::test`, and there they are.
pub fn assert_table(file: &str, rows: usize) {
    assert_rows(&format!("tests/{file}"), "//! | ", rows);
}

/// The same for the tables of a document.
pub fn assert_document(file: &str, rows: usize) {
    assert_rows(&format!("docs/{file}"), "| ", rows);
}

/// Looks for the test in the last column of each line that begins with `mark`, but for the heads of tables.
fn assert_rows(file: &str, mark: &str, rows: usize) {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read =
        |file: &str| std::fs::read_to_string(root.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
    let text = read(file);
    let lines: Vec<&str> = text.lines().collect();
    let is_head = |line: usize| lines.get(line + 1).is_some_and(|next| next.contains("|---"));
    let listed =
        (0..lines.len()).filter(|&line| !is_head(line)).filter_map(|line| lines[line].strip_prefix(mark));
    let listed: Vec<&str> = listed.collect();
    assert_eq!(listed.len(), rows);
    for row in listed {
        let (_, test) = row.trim_end_matches(" |").rsplit_once(" | ").expect("two columns");
        let (file, name) = test.trim_matches('`').split_once("::").expect("a file and a test");
        let text = read(&format!("tests/{file}"));
        let alone = ["", "    ", "        "]
            .iter()
            .any(|margin| text.contains(&format!("#[test]\n{margin}fn {name}(")));
        // In the list of the macro `on`, and with a parameter for the executor.
        let on_all = text.contains(&format!("    {name},\n")) && text.contains(&format!("\nfn {name}<"));
        assert!(alone || on_all, "{file} has no test `{name}`");
    }
}

/// Holds an operation (or the network) until it is opened.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Gate {
    pub fn new() -> Arc<Gate> {
        Arc::default()
    }

    pub fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 = true;
        self.changed.notify_all();
        drop(self.changed.wait_timeout_while(state, PATIENCE, |(_, open)| !*open).unwrap());
    }

    /// Waits until somebody stands before the gate.
    pub fn wait_for_visitor(&self) {
        let state = self.state.lock().unwrap();
        let waited = self.changed.wait_timeout_while(state, PATIENCE, |(visited, _)| !*visited).unwrap();
        assert!(!waited.1.timed_out(), "nobody came to the gate");
    }

    pub fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }
}

/// Of an executor.
pub trait Ahead {
    /// May an operation run before its turn?
    const RUNS_AHEAD: bool;
}

/// A gate between operations of one batch, of which the later one opens it for the earlier one: so the later one runs
/// ahead of its turn, and cannot have seen what the earlier one wrote. Always open on executors that run nothing ahead.
pub fn overtaken<E: Ahead>() -> Arc<Gate> {
    let gate = Gate::new();
    if !E::RUNS_AHEAD {
        gate.open();
    }
    gate
}

/// A request of the test application.
#[derive(Clone, Debug)]
pub enum Op {
    Get(&'static str),
    Put(&'static str, u64),
    /// Adds to a number and returns the sum: depends on what was there.
    Add(&'static str, u64),
    Delete(&'static str),
    Wait(Arc<Gate>),
    /// Looks for a key, opens the gate, and panics if the key was there (`true`), or if it was not (`false`).
    Trap(&'static str, bool, Arc<Gate>),
    /// Unordered: looks for a key, and as long as it is not there asks the same again.
    AskUntil(&'static str, ExecutorHandle<Op>),
    Panic,
}

pub struct KvData;

impl ApplicationData for KvData {
    type Request = Op;
    type Reply = Option<u64>;
}

/// Numbers under names.
pub struct Kv;

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}

fn get(state: &impl CRUDState, key: &str) -> Option<u64> {
    state.read(COLUMN, key.as_bytes()).as_deref().map(number)
}

pub fn run(state: &mut impl CRUDState, op: &Op) -> Option<u64> {
    match op {
        Op::Get(key) => get(state, key),
        Op::Put(key, value) => {
            state.update(COLUMN, key.as_bytes(), &value.to_le_bytes()).as_deref().map(number)
        }
        Op::Add(key, value) => {
            let sum = get(state, key).unwrap_or(0) + value;
            state.update(COLUMN, key.as_bytes(), &sum.to_le_bytes());
            Some(sum)
        }
        Op::Delete(key) => state.delete(COLUMN, key.as_bytes()).as_deref().map(number),
        Op::Wait(gate) => {
            gate.pass();
            None
        }
        Op::Trap(key, there, gate) => {
            let found = get(state, key);
            gate.open();
            assert!(found.is_some() != *there, "the trap of `{key}` springs");
            found
        }
        Op::AskUntil(..) | Op::Panic => panic!("the operation panics"),
    }
}

impl Application<TestState> for Kv {
    type AppData = KvData;

    fn initial_state() -> Result<TestState, BoxError> {
        Ok(TestState::default())
    }

    fn unordered_execution(&self, state: &TestState, request: Op) -> Option<u64> {
        match request {
            Op::Get(key) => get(state, key),
            Op::Wait(gate) => {
                gate.pass();
                None
            }
            Op::AskUntil(key, handle) => {
                let found = get(state, key);
                if found.is_none() {
                    let again = reads(0, [Op::AskUntil(key, handle.clone())]);
                    handle.try_queue_update_unordered(again).expect("there is room");
                }
                found
            }
            _ => panic!("the unordered request panics"),
        }
    }

    fn update(&self, state: &mut TestState, request: Op) -> Option<u64> {
        run(state, &request)
    }
}

impl ScalableApp<TestState> for Kv {
    fn speculatively_execute(&self, state: &mut impl CRUDState, request: Op) -> Option<u64> {
        run(state, &request)
    }
}

/// What left through the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub kind: RequestType,
    pub to: u32,
    pub operation: u64,
    pub value: Option<u64>,
    pub flush: bool,
}

/// A network that remembers, and fails where it is told to.
#[derive(Default)]
pub struct Net {
    pub log: Mutex<Vec<Sent>>,
    pub refuses: Option<u32>,
    pub panics: Option<u32>,
    pub gate: Option<Arc<Gate>>,
}

impl Net {
    pub fn sent(&self) -> Vec<Sent> {
        self.log.lock().unwrap().clone()
    }

    pub fn operations(&self) -> Vec<u64> {
        self.sent().iter().map(|sent| sent.operation).collect()
    }

    pub fn values(&self) -> Vec<Option<u64>> {
        self.sent().iter().map(|sent| sent.value).collect()
    }

    pub fn wait_for(&self, replies: usize) {
        wait_until("replies", || self.log.lock().unwrap().len() >= replies);
    }
}

impl ReplyNode<Option<u64>> for Net {
    fn send(&self, kind: RequestType, reply: UpdateReply<Option<u64>>, flush: bool) -> Result<(), BoxError> {
        if let Some(gate) = &self.gate {
            gate.pass();
        }
        let to = reply.to().0;
        assert!(self.panics != Some(to), "the network panics");
        if self.refuses == Some(to) {
            return Err("unreachable".into());
        }
        let (operation, value) = (reply.operation_id().0, *reply.payload());
        self.log.lock().unwrap().push(Sent { kind, to, operation, value, flush });
        Ok(())
    }
}

/// A batch whose operations are numbered `1000 * seq + position` and come from client 1.
pub fn batch<O>(seq: u64, ops: impl IntoIterator<Item = O>) -> UpdateBatch<O> {
    let mut batch = UpdateBatch::new(SeqNo(seq));
    for (position, op) in ops.into_iter().enumerate() {
        batch.add(NodeId(1), SeqNo(0), SeqNo(1000 * seq + position as u64), op);
    }
    batch
}

/// Unordered requests numbered from `first`, from client 1.
pub fn reads<O>(first: u64, ops: impl IntoIterator<Item = O>) -> UnorderedBatch<O> {
    let mut batch = UnorderedBatch::new();
    for (position, op) in ops.into_iter().enumerate() {
        batch.add(NodeId(1), SeqNo(0), SeqNo(first + position as u64), op);
    }
    batch
}

/// The state after `batches`, by the loop that everything is measured against.
pub fn reference(batches: &[UpdateBatch<Op>]) -> TestState {
    let mut state = TestState::default();
    for update in batches.iter().flat_map(|batch| batch.updates()) {
        run(&mut state, update.operation());
    }
    state
}

/// The state channel of either kind of executor.
pub enum StateTx {
    Mon(ChannelSyncTx<InstallStateMessage<TestState>>),
    Div(ChannelSyncTx<InstallStateMessage<InstallState<TestState>>>),
}

impl StateTx {
    /// Sends a whole state.
    pub fn send(&self, seq: u64, state: &TestState) {
        match self {
            StateTx::Mon(_) => self.send_first(seq, state),
            StateTx::Div(_) => {
                self.send_first(seq, state);
                self.piece(seq, InstallState::StatePart(state.parts().into()));
                self.piece(seq, InstallState::Done);
            }
        }
    }

    /// Sends the first message of a state: the whole of it where it travels as a whole.
    pub fn send_first(&self, seq: u64, state: &TestState) {
        match self {
            StateTx::Mon(tx) => tx.send(InstallStateMessage::new(SeqNo(seq), state.clone())).unwrap(),
            StateTx::Div(_) => self.piece(seq, InstallState::StateDescriptor(Descriptor::of(state))),
        }
    }

    pub fn piece(&self, seq: u64, piece: InstallState<TestState>) {
        match self {
            StateTx::Mon(_) => panic!("this state does not travel in pieces"),
            StateTx::Div(tx) => tx.send(InstallStateMessage::new(SeqNo(seq), piece)).unwrap(),
        }
    }
}

/// The checkpoint channel of either kind of executor.
pub enum StateRx<S: DivisibleState = TestState> {
    Mon(ChannelSyncRx<AppStateMessage<S>>),
    Div(ChannelSyncRx<AppStateMessage<AppState<S>>>),
}

/// A checkpoint that has arrived whole.
#[derive(Debug)]
pub struct Arrived<S = TestState> {
    pub seq: u64,
    pub to: Option<NodeId>,
    pub state: S,
    /// Parts that travelled.
    pub parts: usize,
}

impl<S: DivisibleState + Clone> StateRx<S> {
    /// The next checkpoint, completed by what `base` has; panics where pieces of two are mixed or some are missing.
    pub fn next(&self, base: &S) -> Result<Arrived<S>, RecvError> {
        match self {
            StateRx::Mon(rx) => {
                let message = rx.recv_timeout(PATIENCE)?;
                let (seq, to) = (message.sequence_number().0, message.to());
                Ok(Arrived { seq, to, state: message.into_state(), parts: 0 })
            }
            StateRx::Div(rx) => assemble(rx, base),
        }
    }
}

fn assemble<S: DivisibleState + Clone>(
    rx: &ChannelSyncRx<AppStateMessage<AppState<S>>>,
    base: &S,
) -> Result<Arrived<S>, RecvError> {
    let first = rx.recv_timeout(PATIENCE)?;
    let (seq, to) = (first.sequence_number(), first.to());
    let AppState::StateDescriptor(descriptor) = first.into_state() else {
        panic!("a checkpoint begins with its descriptor")
    };
    let mut parts = Vec::new();
    loop {
        let message = rx.recv_timeout(PATIENCE)?;
        assert_eq!((message.sequence_number(), message.to()), (seq, to));
        match message.into_state() {
            AppState::StateDescriptor(_) => panic!("a checkpoint was cut off"),
            AppState::StatePart(more) => parts.extend(more),
            AppState::Done => break,
        }
    }
    let (mut state, count) = (base.clone(), parts.len());
    state.install(&descriptor, parts).expect("base and parts make the checkpoint");
    Ok(Arrived { seq: seq.0, to, state, parts: count })
}

/// Waits for the failure, which every call must then return.
pub fn wait_for_failure<O>(handle: &ExecutorHandle<O>) -> Failure {
    wait_until("failure", || handle.failure().is_some());
    let cause = handle.failure().unwrap();
    let text = cause.to_string();
    let refused = handle.queue_update(batch(u64::MAX, [])).expect_err("the executor has failed");
    assert!(refused.to_string().contains(&text), "{refused} does not name {text}");
    assert_eq!(refused.into_request().sequence_number(), SeqNo(u64::MAX));
    assert!(handle.queue_update_and_get_appstate(batch(u64::MAX, [])).is_err());
    assert!(handle.catch_up_to_quorum(batch(u64::MAX, []).into()).is_err());
    assert!(handle.try_queue_update_unordered(reads(0, [])).is_err());
    assert!(handle.poll_state_channel().is_err());
    assert!(handle.read_state(NodeId(0)).is_err());
    cause
}

/// The end of an executor that failed in batch 2, each of its batches being followed by a checkpoint.
pub fn assert_only_the_first_checkpoint(running: Running, cause: &Failure) {
    let (end, net, checkpoints) = running.join();
    assert_eq!(end.unwrap_err().to_string(), cause.to_string());
    assert_eq!(net.operations(), [1000]);
    let arrived = checkpoints.next(&TestState::default()).expect("the checkpoint before it");
    assert_eq!((arrived.seq, arrived.state), (1, reference(&[batch(1, [Op::Put("b", 1)])])));
    let ended = checkpoints.next(&TestState::default());
    assert!(matches!(ended, Err(RecvError::Failed(_))), "{ended:?}");
}

/// Runs `trial`, in which an executor fails, beside another executor, which must not notice.
pub fn beside_another<K: Kind>(trial: impl FnOnce()) {
    let bystander = start::<K>();
    bystander.handle.queue_update(batch(1, [Op::Add("a", 1)])).unwrap();
    bystander.net.wait_for(1);
    trial();
    for seq in 2..=20 {
        bystander.handle.queue_update(batch(seq, [Op::Add("a", 1), Op::Add("b", 1)])).unwrap();
    }
    bystander.handle.queue_update_unordered(reads(1, [Op::Get("a"), Op::Get("b")])).unwrap();
    assert_eq!(bystander.read().state, reference(&[batch(1, [Op::Put("a", 20), Op::Put("b", 19)])]));
    assert_eq!(bystander.finish().values()[39..], [Some(20), Some(19)]);
}

/// An executor that runs, and all its ends.
pub struct Running {
    pub handle: ExecutorHandle<Op>,
    pub net: Arc<Net>,
    pub state: StateTx,
    pub checkpoints: StateRx,
}

impl Running {
    /// Drops the handle and waits for the end; fails the test if it does not come.
    pub fn join(self) -> (Result<ExecutorEnd, Failure>, Arc<Net>, StateRx) {
        let Running { handle, net, state, checkpoints } = self;
        let end = within("join", || handle.join());
        drop(state);
        (end, net, checkpoints)
    }

    /// As above, and nothing may have failed.
    pub fn finish(self) -> Arc<Net> {
        let (end, net, _) = self.join();
        end.expect("a good end");
        net
    }

    pub fn counters(&self) -> Counters {
        self.handle.metrics().counters()
    }

    /// Waits for the failure, which every call must then return.
    pub fn wait_for_failure(&self) -> Failure {
        wait_for_failure(&self.handle)
    }

    /// The state as of now, asked for with `Read`; all earlier checkpoints must have been taken.
    pub fn read(&self) -> Arrived {
        self.handle.read_state(NodeId(99)).unwrap();
        let arrived = self.checkpoints.next(&TestState::default()).expect("an answer to Read");
        assert_eq!(arrived.to, Some(NodeId(99)));
        arrived
    }
}

impl PartialEq for Op {
    fn eq(&self, other: &Op) -> bool {
        format!("{self:?}") == format!("{other:?}")
    }
}

/// How to start an executor.
pub struct Setup {
    pub config: ExecutorConfig,
    pub initial: Option<(TestState, Vec<Op>)>,
    pub net: Net,
}

impl Default for Setup {
    fn default() -> Self {
        let mut config = ExecutorConfig::with_threads(3);
        config.mode = ExecutionMode::Speculate;
        // What happens to one batch is looked at; joining.rs is about several.
        config.join = 0;
        config.shutdown_grace = Duration::from_millis(100);
        Setup { config, initial: None, net: Net::default() }
    }
}

impl Setup {
    pub fn config(change: impl FnOnce(&mut ExecutorConfig)) -> Setup {
        let mut setup = Setup::default();
        change(&mut setup.config);
        setup
    }

    pub fn net(net: Net) -> Setup {
        Setup { net, ..Setup::default() }
    }

    pub fn start<K: Kind>(self) -> Running {
        K::start::<ReplicaReplier>(self).expect("the executor starts")
    }
}

/// One of the four executors.
pub trait Kind: Ahead {
    const IN_PARTS: bool;
    fn start<R: ExecutorReplier>(setup: Setup) -> Result<Running, InitError>;
}

pub fn start<K: Kind>() -> Running {
    Setup::default().start::<K>()
}

macro_rules! kind {
    ($name:ident, $executor:ident, $trait:ident, $variant:ident, $in_parts:expr, $runs_ahead:expr) => {
        pub struct $name;

        impl Ahead for $name {
            const RUNS_AHEAD: bool = $runs_ahead;
        }

        impl Kind for $name {
            const IN_PARTS: bool = $in_parts;

            fn start<R: ExecutorReplier>(setup: Setup) -> Result<Running, InitError> {
                type Executor = $executor<Kv, TestState, Net>;
                let Setup { config, initial, net } = setup;
                let net = Arc::new(net);
                let (handle, work) = Executor::init_handle_with(&config)?;
                let (state, checkpoints) =
                    Executor::init_with::<R>(config, work, initial, Kv, Arc::clone(&net))?;
                let (state, checkpoints) = (StateTx::$variant(state), StateRx::$variant(checkpoints));
                Ok(Running { handle, net, state, checkpoints })
            }
        }
    };
}

kind!(SingleMon, SingleThreadedMonExecutor, TMonolithicStateExecutor, Mon, false, false);
kind!(MultiMon, MultiThreadedMonExecutor, TMonolithicStateExecutor, Mon, false, true);
kind!(SingleDiv, SingleThreadedDivExecutor, TDivisibleStateExecutor, Div, true, false);
kind!(MultiDiv, MultiThreadedDivExecutor, TDivisibleStateExecutor, Div, true, true);

/// Makes a test of each body for each of the kinds named, or, with `rig:` before them, for each of these rigs.
#[macro_export]
macro_rules! on {
    ([$($kind:ident),*] $bodies:tt) => { $( $crate::on!(@ common $kind $bodies); )* };
    (rig: [$($kind:ident),*] $bodies:tt) => { $( $crate::on!(@ rig $kind $bodies); )* };
    (@ $from:ident $kind:ident { $($body:ident),* $(,)? }) => {
        #[allow(non_snake_case)]
        mod $kind {
            $( #[test] fn $body() { super::$body::<super::$from::$kind>() } )*
        }
    };
}

//! From `init` to `join`: what is executed, what is skipped, how an executor ends, and who is told why.

mod common;

use std::sync::Arc;

use atlas_smr_execution::app::{Application, Request};
use atlas_smr_execution::batch::{MaybeVec, NodeId, SeqNo, UnorderedBatch, UpdateBatch};
use atlas_smr_execution::error::{BoxError, ConfigError, Failure, InitError, QueueError};
use atlas_smr_execution::executor::*;
use atlas_smr_execution::metrics::{
    EXECUTION_LATENCY_ID, EXECUTION_TIME_TAKEN_ID, UNORDERED_EXECUTION_TIME_TAKEN_ID,
};
use atlas_smr_execution::reply::{BatchReplies, ReplicaReplier, UpdateReply};
use common::state::TestState;
use common::*;

on!([SingleMon, MultiMon, SingleDiv, MultiDiv] {
    dropping_the_last_handle_drains_the_queue,
    an_executor_that_never_started_does_not_keep_anyone,
    a_full_queue_hands_the_batch_back,
    a_sender_that_waits_for_room_is_woken_by_the_failure,
    batches_that_were_executed_are_skipped_and_counted,
    the_first_batch_may_have_any_number,
    catching_up_twice_is_harmless_and_answers_nobody,
    a_replayed_log_ends_in_the_state_of_the_live_batches,
    a_panic_in_the_replay_is_the_executors_failure,
    execution_goes_on_after_the_initial_sequence_number,
    what_happens_is_measured,
    invalid_configurations_do_not_start,
});

fn dropping_the_last_handle_drains_the_queue<K: Kind>() {
    let running = start::<K>();
    let second = running.handle.clone();
    for seq in 1..=50 {
        second.queue_update(batch(seq * 2, [Op::Add("a", 1), Op::Add("b", seq)])).unwrap();
    }
    drop(second);
    let (end, net, _) = running.join();
    assert_eq!(end.unwrap().last_executed, SeqNo(100));
    assert_eq!(net.sent().len(), 100);
}

fn an_executor_that_never_started_does_not_keep_anyone<K: Kind>() {
    type Executor = SingleThreadedMonExecutor<Kv, TestState, Net>;
    let (handle, work) = <Executor as TMonolithicStateExecutor<_, _, _>>::init_handle();
    handle.queue_update(batch(1, [])).unwrap();
    drop(work);
    assert!(matches!(handle.queue_update(batch(2, [])), Err(QueueError::Stopped(_))));
    assert_eq!(within("join", || handle.join()).unwrap().last_executed, SeqNo::ZERO);
}

#[test]
fn a_second_executor_on_one_queue_is_refused() {
    type Executor = MultiThreadedMonExecutor<Kv, TestState, Net>;
    let (handle, work) = Executor::init_handle();
    let first = Executor::init(work.clone(), None, Kv, Arc::default()).unwrap();
    let second = Executor::init(work, None, Kv, Arc::default());
    assert!(matches!(second, Err(InitError::AlreadyStarted)));
    (1..=20).for_each(|seq| handle.queue_update(batch(seq, [Op::Add("a", 1)])).unwrap());
    assert_eq!(within("join", || handle.join()).unwrap().last_executed, SeqNo(20));
    drop(first);
}

fn a_full_queue_hands_the_batch_back<K: Kind>() {
    let running = Setup::config(|config| config.executing_buffer = 1).start::<K>();
    let gate = Gate::new();
    running.handle.queue_update(batch(1, [Op::Wait(Arc::clone(&gate))])).unwrap();
    gate.wait_for_visitor();
    running.handle.try_queue_update(batch(2, [Op::Put("a", 1)])).unwrap();
    let Err(QueueError::Full(back)) = running.handle.try_queue_update(batch(3, [Op::Get("a")])) else {
        panic!("the queue holds one request")
    };
    assert_eq!(back, batch(3, [Op::Get("a")]));
    assert!(matches!(running.handle.try_read_state(NodeId(4)), Err(QueueError::Full(NodeId(4)))));
    assert!(matches!(running.handle.try_poll_state_channel(), Err(QueueError::Full(()))));
    gate.open();
    running.handle.queue_update(back).unwrap();
    assert_eq!(running.finish().operations(), [1000, 2000, 3000]);
}

fn a_sender_that_waits_for_room_is_woken_by_the_failure<K: Kind>() {
    // Ahead of turn, the executor might take a batch out of its queue beside the first one, and make room.
    let narrow = |config: &mut ExecutorConfig| {
        (config.executing_buffer, config.mode) = (1, ExecutionMode::Sequential);
    };
    let running = Setup::config(narrow).start::<K>();
    let gate = Gate::new();
    let fatal = batch(1, [Op::Wait(Arc::clone(&gate)), Op::Panic]);
    running.handle.queue_update(fatal).unwrap();
    gate.wait_for_visitor();
    let handle = running.handle.clone();
    let (sent, refused) = within("a blocked send", move || {
        std::thread::scope(|scope| {
            // The executor may take some of them out of its queue beside the batch; then it is full, and one has to wait.
            let blocked = scope.spawn(|| {
                let mut sent = (2..).map(|seq| (seq, handle.queue_update(batch(seq, [Op::Get("a")]))));
                sent.find(|(_, result)| result.is_err()).unwrap()
            });
            gate.open();
            blocked.join().unwrap()
        })
    });
    let Err(QueueError::Failed { cause, request }) = refused else { panic!("refused with the cause") };
    assert!(matches!(cause, Failure::OperationPanicked { batch: SeqNo(1), .. }), "{cause}");
    assert_eq!(request, batch(sent, [Op::Get("a")]));
    assert!(running.join().0.is_err());
}

fn batches_that_were_executed_are_skipped_and_counted<K: Kind>() {
    let running = start::<K>();
    for seq in [3, 3, 1, 5, 4, 5, 9] {
        running.handle.queue_update(batch(seq, [Op::Add("a", 1)])).unwrap();
    }
    // Who asks for a checkpoint gets one, also where the batch was executed before.
    running.handle.queue_update_and_get_appstate(batch(9, [Op::Add("a", 1)])).unwrap();
    let arrived = running.checkpoints.next(&TestState::default()).unwrap();
    assert_eq!((arrived.seq, arrived.to), (9, None));
    assert_eq!(arrived.state, reference(&[batch(1, [Op::Put("a", 3)])]));
    assert_eq!(running.counters().skipped_batches, 5);
    assert_eq!(running.counters().batches, 3);
    let net = running.finish();
    assert_eq!(net.operations(), [3000, 5000, 9000]);
    assert_eq!(net.values(), [Some(1), Some(2), Some(3)]);
}

fn the_first_batch_may_have_any_number<K: Kind>() {
    let running = start::<K>();
    running.handle.queue_update(batch(0, [Op::Add("a", 1)])).unwrap();
    running.handle.queue_update(batch(0, [Op::Add("a", 1)])).unwrap();
    let metrics = running.handle.metrics();
    assert_eq!(running.finish().operations(), [0]);
    assert_eq!(metrics.counters().skipped_batches, 1);
}

fn catching_up_twice_is_harmless_and_answers_nobody<K: Kind>() {
    let running = start::<K>();
    let missed: Vec<_> = (1..=4).map(|seq| batch(seq, [Op::Add("a", seq), Op::Add("b", 1)])).collect();
    running.handle.queue_update(missed[0].clone()).unwrap();
    for _ in 0..2 {
        running.handle.catch_up_to_quorum(missed.clone().into()).unwrap();
    }
    running.handle.catch_up_to_quorum(MaybeVec::One(batch(5, [Op::Add("a", 5)]))).unwrap();
    assert_eq!(running.read().seq, 5);
    assert_eq!(running.counters().skipped_batches, 5);
    running.handle.queue_update(batch(6, [Op::Get("a"), Op::Get("b")])).unwrap();
    assert_eq!(running.finish().values(), [Some(1), Some(1), Some(15), Some(4)]);
}

fn a_replayed_log_ends_in_the_state_of_the_live_batches<K: Kind>() {
    let ops = |seq: u64| (0..seq % 7).map(move |n| Op::Add(["a", "b", "c"][n as usize % 3], seq * n));
    let log: Vec<_> = (1..=40).map(|seq| batch(seq, ops(seq).chain([Op::Delete("b")]))).collect();
    let live = start::<K>();
    log.iter().for_each(|batch| live.handle.queue_update(batch.clone()).unwrap());

    let requests = log.iter().flat_map(|b| b.updates().iter().map(|u| u.operation().clone())).collect();
    let initial = Some((TestState::default(), requests));
    let mut setup = Setup { initial, ..Setup::default() };
    setup.config.initial_seq = Some(SeqNo(40));
    let replayed = setup.start::<K>();

    let (live_end, replayed_end) = (live.read(), replayed.read());
    assert_eq!((live_end.seq, replayed_end.seq), (40, 40));
    assert_eq!(live_end.state, replayed_end.state);
    assert_eq!(live_end.state, reference(&log));
    assert_eq!(replayed.finish().sent(), []);
}

fn a_panic_in_the_replay_is_the_executors_failure<K: Kind>() {
    let initial = Some((TestState::default(), vec![Op::Put("a", 1), Op::Panic]));
    let running = Setup { initial, ..Setup::default() }.start::<K>();
    let cause = running.wait_for_failure();
    assert!(matches!(cause, Failure::OperationPanicked { .. }), "{cause}");
    assert!(running.join().0.is_err());
}

fn execution_goes_on_after_the_initial_sequence_number<K: Kind>() {
    let running = Setup::config(|config| config.initial_seq = Some(SeqNo(7))).start::<K>();
    assert_eq!(running.handle.last_executed(), SeqNo(7));
    running.handle.queue_update(batch(7, [Op::Add("a", 1)])).unwrap();
    running.handle.queue_update(batch(8, [Op::Add("a", 1)])).unwrap();
    assert_eq!(running.finish().values(), [Some(1)]);
}

fn what_happens_is_measured<K: Kind>() {
    let running = start::<K>();
    running.handle.queue_update(batch(1, [Op::Put("a", 1), Op::Get("a")])).unwrap();
    running.handle.queue_update(batch(2, [])).unwrap();
    running.handle.catch_up_to_quorum(batch(3, [Op::Get("a")]).into()).unwrap();
    running.handle.queue_update_unordered(reads(1, [Op::Get("a")])).unwrap();
    running.net.wait_for(3);
    // The request may be answered beside the batch before it.
    wait_until("the last batch", || running.handle.last_executed() == SeqNo(3));
    let metrics = running.handle.metrics();
    let recorded = |id| metrics.histogram(id).unwrap().len();
    assert_eq!(recorded(EXECUTION_LATENCY_ID), 2, "only what was decided just now has a latency");
    assert_eq!(recorded(EXECUTION_TIME_TAKEN_ID), 3);
    assert_eq!(recorded(UNORDERED_EXECUTION_TIME_TAKEN_ID), 1);
    let counters = metrics.counters();
    assert_eq!((counters.batches, counters.operations, counters.unordered_operations), (3, 3, 1));
    running.finish();
}

fn invalid_configurations_do_not_start<K: Kind>() {
    let error = |change: fn(&mut ExecutorConfig)| {
        let setup = Setup::config(change);
        let Err(InitError::Config(error)) = K::start::<ReplicaReplier>(setup) else { panic!("started") };
        error
    };
    assert_eq!(error(|config| config.threads = Some(0)), ConfigError::Zero { name: "threads" });
    assert_eq!(error(|config| config.reply_buffer = 0), ConfigError::Zero { name: "reply_buffer" });
    assert_eq!(error(|config| config.name = "a\0b".to_owned()), ConfigError::Name);
}

/// Defines the batch methods only, and miscounts where it is told to.
struct Batches {
    lost: usize,
}

fn answers(requests: impl IntoIterator<Item = atlas_smr_execution::batch::Update<u64>>) -> BatchReplies<u64> {
    requests.into_iter().map(|u| UpdateReply::to_request(&u, u.operation() * 10)).collect::<Vec<_>>().into()
}

struct Numbers;

impl atlas_smr_execution::app::ApplicationData for Numbers {
    type Request = u64;
    type Reply = u64;
}

impl Application<TestState> for Batches {
    type AppData = Numbers;

    fn initial_state() -> Result<TestState, BoxError> {
        Err("there is none".into())
    }

    fn unordered_execution(&self, _: &TestState, _: u64) -> u64 {
        panic!("only batches")
    }

    fn unordered_batched_execution(&self, _: &TestState, batch: UnorderedBatch<u64>) -> BatchReplies<u64> {
        answers(batch.into_requests().into_iter().skip(self.lost))
    }

    fn update(&self, _: &mut TestState, _: u64) -> u64 {
        panic!("only batches")
    }

    fn update_batch(&self, _: &mut TestState, batch: UpdateBatch<u64>) -> BatchReplies<u64> {
        assert!(!batch.is_empty(), "nothing is asked of an application with an empty batch");
        answers(batch.into_updates().into_iter().skip(self.lost))
    }
}

struct Sink(std::sync::Mutex<Vec<u64>>);

impl atlas_smr_execution::reply::ReplyNode<u64> for Sink {
    fn send(
        &self,
        _: atlas_smr_execution::reply::RequestType,
        reply: UpdateReply<u64>,
        _: bool,
    ) -> Result<(), BoxError> {
        self.0.lock().unwrap().push(reply.into_payload());
        Ok(())
    }
}

type Handle = ExecutorHandle<Request<Batches, TestState>>;

/// Both single-threaded executors of [`Batches`].
fn single_threaded(lost: usize) -> Vec<(Handle, Arc<Sink>)> {
    let initial = || Some((TestState::default(), vec![]));
    let sink = || Arc::new(Sink(Default::default()));
    type Mon = SingleThreadedMonExecutor<Batches, TestState, Sink>;
    type Div = SingleThreadedDivExecutor<Batches, TestState, Sink>;
    let (first, second) = (sink(), sink());
    let (mon, work) = <Mon as TMonolithicStateExecutor<_, _, _>>::init_handle();
    Mon::init(work, initial(), Batches { lost }, Arc::clone(&first)).unwrap();
    let (div, work) = <Div as TDivisibleStateExecutor<_, _, _>>::init_handle();
    Div::init(work, initial(), Batches { lost }, Arc::clone(&second)).unwrap();
    vec![(mon, first), (div, second)]
}

fn numbers(seq: u64, numbers: &[u64]) -> UpdateBatch<u64> {
    let mut batch = UpdateBatch::new(SeqNo(seq));
    numbers.iter().for_each(|&number| batch.add(NodeId(1), SeqNo(0), SeqNo(0), number));
    batch
}

#[test]
fn an_application_that_defines_only_the_batch_methods_works() {
    for (handle, sink) in single_threaded(0) {
        handle.queue_update(numbers(1, &[])).unwrap();
        handle.queue_update(numbers(2, &[4, 5])).unwrap();
        handle
            .queue_update_unordered(UnorderedBatch::from_requests(numbers(0, &[6]).into_updates()))
            .unwrap();
        within("join", || handle.join()).unwrap();
        assert_eq!(*sink.0.lock().unwrap(), [40, 50, 60]);
    }
}

#[test]
fn a_wrong_number_of_replies_is_the_applications_fault() {
    for (handle, sink) in single_threaded(1) {
        handle.queue_update(numbers(2, &[4, 5])).unwrap();
        let failure = within("join", || handle.join()).unwrap_err();
        assert_eq!(failure.to_string(), "the application returned 1 replies to 2 requests of batch 2");
        assert_eq!(*sink.0.lock().unwrap(), []);
    }
    for (handle, _) in single_threaded(1) {
        handle
            .queue_update_unordered(UnorderedBatch::from_requests(numbers(0, &[6]).into_updates()))
            .unwrap();
        let failure = within("join", || handle.join()).unwrap_err();
        assert_eq!(failure.to_string(), "the application returned 0 replies to 1 requests");
    }
}

#[test]
fn an_application_without_an_initial_state_does_not_start() {
    type Mon = SingleThreadedMonExecutor<Batches, TestState, Sink>;
    let (handle, work) = <Mon as TMonolithicStateExecutor<_, _, _>>::init_handle();
    let start = |work| Mon::init(work, None, Batches { lost: 0 }, Arc::new(Sink(Default::default())));
    assert!(matches!(start(work.clone()), Err(InitError::InitialState(_))));
    // Nobody has the queue.
    assert!(matches!(start(work), Err(InitError::InitialState(_))));
    assert!(matches!(handle.queue_update(numbers(1, &[])), Err(QueueError::Stopped(_))));
    within("join", || handle.join()).unwrap();
}

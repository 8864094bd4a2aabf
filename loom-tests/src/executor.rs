//! Hand-over to an executor, and its end: a whole single-threaded executor with its three threads, as shipped, over locked
//! queues (`executor/seam.rs`).
//!
//! Property: what was queued before the last handle went is executed and answered before `join` returns. A failure is told
//! by every later call; what was to be queued was executed, came back, or lies above `last_executed`. Nobody waits for ever,
//! neither for room in a queue, nor for work, nor for the end. A checkpoint is delivered or counted as dropped, before the
//! end. A wait without an end is a deadlock, which loom reports.

use std::panic::resume_unwind;
use std::sync::Arc;

use atlas_smr_execution::app::{Application, ApplicationData};
use atlas_smr_execution::batch::{NodeId, SeqNo, UnorderedBatch, UpdateBatch};
use atlas_smr_execution::error::{BoxError, Failure, QueueError, StateError};
use atlas_smr_execution::executor::{
    ExecutorConfig, ExecutorHandle, InstallStateMessage, MonolithicChannels, SingleThreadedMonExecutor,
    TMonolithicStateExecutor, WorkReceiver,
};
use atlas_smr_execution::internals::sync::Arc as Shared;
use atlas_smr_execution::reply::{ReplicaReplier, ReplyNode, RequestType, UpdateReply};
use atlas_smr_execution::state::MonolithicState;

use crate::harness::{Part, Tracked, run_model, scope};

/// What the executor's threads did. Loom watches it: whoever looks at it must know that they are done.
struct Effects {
    executed: Tracked,
    answered: Tracked,
}

/// The application, and the network.
#[derive(Clone)]
struct Adder(Arc<Effects>);

/// An operation: adds its number; this one panics.
const PANIC: u64 = 1000;
/// The network panics when it is to send this answer.
const BROKEN: u64 = 2000;

impl ApplicationData for Adder {
    type Request = u64;
    type Reply = u64;
}

impl Application<Sum> for Adder {
    type AppData = Adder;

    fn initial_state() -> Result<Sum, BoxError> {
        Ok(Sum(0))
    }

    fn unordered_execution(&self, _: &Sum, request: u64) -> u64 {
        self.0.executed.set(self.0.executed.get() + request);
        request
    }

    fn update(&self, state: &mut Sum, request: u64) -> u64 {
        if request == PANIC {
            resume_unwind(Box::new("the operation panicked"));
        }
        state.0 += request;
        self.0.executed.set(self.0.executed.get() + request);
        request
    }
}

impl ReplyNode<u64> for Adder {
    fn send(&self, _: RequestType, reply: UpdateReply<u64>, _: bool) -> Result<(), BoxError> {
        let payload = *reply.payload();
        if payload == BROKEN {
            resume_unwind(Box::new("the network panicked"));
        }
        self.0.answered.set(self.0.answered.get() + payload);
        Ok(())
    }
}

/// The state.
struct Sum(u64);

impl MonolithicState for Sum {
    fn snapshot(&self) -> Self {
        Sum(self.0)
    }

    fn serialize<W: std::io::Write>(&self, _: W) -> Result<(), StateError> {
        unreachable!("nobody asks for it")
    }

    fn deserialize<R: std::io::Read>(_: R) -> Result<Self, StateError> {
        unreachable!("nobody asks for it")
    }
}

type Executor = SingleThreadedMonExecutor<Adder, Sum, Adder>;

/// An executor all of whose queues hold one message.
struct Running {
    handle: ExecutorHandle<u64>,
    work: WorkReceiver<u64>,
    channels: MonolithicChannels<Sum>,
    effects: Arc<Effects>,
}

fn start() -> Running {
    let mut config = ExecutorConfig::with_threads(1);
    (config.executing_buffer, config.state_buffer, config.reply_buffer) = (1, 1, 1);
    let (handle, work) = Executor::init_handle_with(&config).expect("valid");
    let effects = Arc::new(Effects { executed: Tracked::new(0), answered: Tracked::new(0) });
    let adder = Adder(Arc::clone(&effects));
    let node = Shared::new(adder.clone());
    let channels =
        Executor::init_with::<ReplicaReplier>(config, work.clone(), None, adder, node).expect("threads");
    Running { handle, work, channels, effects }
}

/// Batch `seq` of one operation.
fn batch(seq: u64, operation: u64) -> UpdateBatch<u64> {
    let mut batch = UpdateBatch::new(SeqNo(seq));
    batch.add(NodeId(0), SeqNo(0), SeqNo(seq), operation);
    batch
}

fn request(operation: u64) -> UnorderedBatch<u64> {
    let mut batch = UnorderedBatch::new();
    batch.add(NodeId(0), SeqNo(0), SeqNo(0), operation);
    batch
}

#[test]
fn what_was_queued_is_done_before_the_end() {
    run_model("executor::what_was_queued_is_done_before_the_end", 2, &[], |_| {
        let Running { handle, work, channels: _channels, effects } = start();
        drop(work);
        handle.queue_update(batch(1, 1)).expect("alive");
        handle.queue_update(batch(2, 10)).expect("alive");
        assert_eq!(handle.join().expect("a good end").last_executed, SeqNo(2));
        assert_eq!((effects.executed.get(), effects.answered.get()), (11, 11));
    });
}

#[test]
fn what_two_handles_queue_is_done_before_the_end() {
    run_model("executor::what_two_handles_queue_is_done_before_the_end", 1, &[], |_| {
        let Running { handle, work, channels: _channels, effects } = start();
        drop(work);
        let other = handle.clone();
        let client = move || other.queue_update_unordered(request(10)).expect("alive");
        scope(vec![Box::new(client) as Part<'_>], || {
            handle.queue_update(batch(1, 1)).expect("alive");
            assert_eq!(handle.join().expect("a good end").last_executed, SeqNo(1));
        });
        assert_eq!((effects.executed.get(), effects.answered.get()), (11, 11));
    });
}

/// With the queue's other end still held by somebody, so that only the failure can tell the sender.
#[test]
fn a_failure_is_told_and_nothing_is_lost() {
    const MARKS: &[&str] = &["one was queued behind it", "both came back"];
    run_model("executor::a_failure_is_told_and_nothing_is_lost", 1, MARKS, |marks| {
        let Running { handle, work: _work, channels: _channels, effects } = start();
        handle.queue_update(batch(1, 1)).expect("alive");
        handle.queue_update(batch(2, PANIC)).expect("alive");
        let mut back = 0;
        for seq in 3..=4 {
            match handle.queue_update(batch(seq, 10)) {
                Ok(()) => assert_eq!(back, 0, "queued behind a failure that was told"),
                Err(QueueError::Failed {
                    cause: Failure::OperationPanicked { batch: SeqNo(2), .. },
                    request,
                }) => {
                    assert_eq!(request.sequence_number(), SeqNo(seq), "what was to be queued");
                    back += 1;
                }
                Err(other) => panic!("{other}"),
            }
        }
        marks.mark("one was queued behind it", back == 1);
        marks.mark("both came back", back == 2);
        let cause = handle.clone().join().expect_err("a failure");
        assert!(matches!(cause, Failure::OperationPanicked { batch: SeqNo(2), .. }), "{cause}");
        assert!(matches!(handle.try_queue_update(batch(5, 10)), Err(QueueError::Failed { .. })));
        assert_eq!(handle.last_executed(), SeqNo(1));
        assert_eq!((effects.executed.get(), effects.answered.get()), (1, 1));
    });
}

#[test]
fn a_failure_of_another_thread_wakes_an_executor_that_idles() {
    run_model("executor::a_failure_of_another_thread_wakes_an_executor_that_idles", 2, &[], |_| {
        let Running { handle, work, channels: _channels, .. } = start();
        drop(work);
        handle.queue_update(batch(1, BROKEN)).expect("alive");
        let cause = handle.clone().join().expect_err("a failure");
        assert!(matches!(cause, Failure::ReplyNodePanicked { .. }), "{cause}");
        assert_eq!(handle.last_executed(), SeqNo(1));
    });
}

#[test]
fn the_first_cause_stands() {
    const MARKS: &[&str] = &["the network's", "the operation's", "it was told before the end"];
    run_model("executor::the_first_cause_stands", 1, MARKS, |marks| {
        let Running { handle, work, channels: _channels, .. } = start();
        drop(work);
        handle.queue_update(batch(1, BROKEN)).expect("alive");
        // The failure may come first.
        let _ = handle.queue_update(batch(2, PANIC));
        let told = handle.failure();
        let cause = handle.join().expect_err("a failure");
        marks.mark("the network's", matches!(cause, Failure::ReplyNodePanicked { .. }));
        marks.mark("the operation's", matches!(cause, Failure::OperationPanicked { .. }));
        marks.mark("it was told before the end", told.is_some());
        if let Some(told) = told {
            assert_eq!(told.to_string(), cause.to_string());
        }
    });
}

#[test]
fn a_sender_of_states_waits_no_longer_than_the_executor_lives() {
    run_model("executor::a_sender_of_states_waits_no_longer_than_the_executor_lives", 1, &[], |_| {
        let Running { handle, work, channels: (states, _checkpoints), .. } = start();
        drop(work);
        let sender = move || {
            let message = |seq| InstallStateMessage::new(SeqNo(seq), Sum(0));
            states
                .send(message(1))
                .unwrap_or_else(|refused| assert!(matches!(refused, QueueError::Stopped(_))));
            match states.send(message(2)) {
                Err(QueueError::Stopped(back)) => assert_eq!(back.sequence_number(), SeqNo(2)),
                other => panic!("nobody makes room: {:?}", other.map_err(|error| error.to_string())),
            }
        };
        scope(vec![Box::new(sender) as Part<'_>], || {
            handle.join().expect("a good end");
        });
    });
}

#[test]
fn a_checkpoint_is_delivered_or_counted_before_the_end() {
    const MARKS: &[&str] = &["the first was replaced", "the second found no room"];
    run_model("executor::a_checkpoint_is_delivered_or_counted_before_the_end", 1, MARKS, |marks| {
        let Running { handle, work, channels: (_states, checkpoints), .. } = start();
        drop(work);
        let metrics = handle.metrics();
        handle.queue_update_and_get_appstate(batch(1, 1)).expect("alive");
        handle.queue_update_and_get_appstate(batch(2, 10)).expect("alive");
        handle.join().expect("a good end");
        let counters = metrics.counters();
        assert_eq!((counters.checkpoints, counters.dropped_checkpoints), (1, 1));
        let delivered = checkpoints.try_recv().expect("the one that was delivered");
        let seq = delivered.sequence_number();
        assert_eq!(delivered.into_state().0, if seq == SeqNo(1) { 1 } else { 11 }, "its own state");
        assert!(checkpoints.try_recv().is_err(), "and no other");
        marks.mark("the first was replaced", seq == SeqNo(2));
        marks.mark("the second found no room", seq == SeqNo(1));
    });
}

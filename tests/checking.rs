//! The checking mode: what an application must not do is found, with batch and position, before it reaches the state; and
//! nothing else changes.
//!
//! | what it does | test |
//! |---|---|
//! | it reads a clock | checking.rs::a_clock_is_found |
//! | it counts in a variable of its own | checking.rs::a_counter_of_its_own_is_found |
//! | it draws a number | checking.rs::a_random_number_is_found |
//! | it writes in the order of a randomly seeded map | checking.rs::the_order_of_a_map_is_found |
//! | it replies what no other run would | checking.rs::a_reply_is_found_where_replies_can_be_compared |
//! | it panics now and then | checking.rs::a_panic_in_one_run_is_found |
//! | nothing of this | checking.rs::a_good_application_does_not_notice |

mod common;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use atlas_smr_execution::app::{Application, ApplicationData, ScalableApp};
use atlas_smr_execution::batch::SeqNo;
use atlas_smr_execution::error::{BoxError, Failure};
use atlas_smr_execution::executor::*;
use atlas_smr_execution::reply::ReplicaReplier;
use atlas_smr_execution::state::{CRUDState, MonolithicState, ShardedState};
use common::disk::Disk;
use common::rig::{self, Collector, Rig, check};
use common::{assert_document, assert_table, batch, wait_until, within};
use workloads::Service;
use workloads::program::{Program, ProgramLogic};

on!(rig: [SingleMon, MultiMon, SingleDiv, MultiDiv] {
    a_good_application_does_not_notice,
});

/// What an operation does to the key `n`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Deed {
    /// Adds one to a number.
    Good,
    Clock,
    Counter,
    Random,
    Order,
    Reply,
    Panic,
}

#[derive(Clone, Copy)]
struct Op(Deed, u8);

/// An application with a variable of its own.
#[derive(Clone, Default)]
struct Sinner(Arc<AtomicU64>);

impl ApplicationData for Sinner {
    type Request = Op;
    type Reply = u64;

    fn same_reply(a: &u64, b: &u64) -> bool {
        a == b
    }
}

impl Sinner {
    fn count(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    fn run(&self, state: &mut impl CRUDState, Op(deed, key): Op) -> u64 {
        let mut put = |value: u64| state.put("a", &[key], &value.to_le_bytes());
        match deed {
            Deed::Good => {
                let value = state.read("a", &[key]).map_or(0, |value| value[0].wrapping_add(1));
                state.put("a", &[key], &[value]);
                return value.into();
            }
            Deed::Clock => {
                // A coarse clock shows the same time for a while; no two runs are to see the same.
                let start = Instant::now();
                while start.elapsed().is_zero() {}
                static FIRST: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
                put(FIRST.get_or_init(|| start).elapsed().as_nanos() as u64);
            }
            Deed::Counter => put(self.count()),
            Deed::Random => put(RandomState::new().hash_one(key)),
            Deed::Order => {
                let map: HashMap<u8, u8> = (0..64).map(|n| (n, n)).collect();
                map.keys().for_each(|n| state.put("ordered", &[*n], &[key]));
            }
            Deed::Reply => return self.count(),
            Deed::Panic => assert!(self.count().is_multiple_of(2), "now and then"),
        }
        0
    }
}

impl<S: CRUDState + Default> Application<S> for Sinner {
    type AppData = Sinner;

    fn initial_state() -> Result<S, BoxError> {
        Ok(S::default())
    }

    fn unordered_execution(&self, _: &S, _: Op) -> u64 {
        0
    }

    fn update(&self, state: &mut S, op: Op) -> u64 {
        self.run(state, op)
    }
}

impl<S: CRUDState + Default> ScalableApp<S> for Sinner {
    fn speculatively_execute(&self, state: &mut impl CRUDState, op: Op) -> u64 {
        self.run(state, op)
    }
}

/// Seven good operations and `deed` among them, at position 5.
fn sinful(deed: Deed) -> [Op; 8] {
    let mut ops = [0, 1, 2, 3, 4, 5, 6, 7].map(|key| Op(Deed::Good, key));
    ops[5].0 = deed;
    ops
}

fn config(threads: usize, mode: ExecutionMode, every: u32) -> ExecutorConfig {
    let mut config = ExecutorConfig::with_threads(threads);
    (config.mode, config.pin, config.check_every) = (mode, false, Some(every));
    config
}

/// Runs batches of these operations on `state`; returns the failure, and the last batch that was executed.
fn run<S>(config: ExecutorConfig, state: S, batches: &[[Op; 8]]) -> (Option<Failure>, SeqNo)
where
    S: MonolithicState + CRUDState + Sync + Default,
{
    type Executor<S> = MultiThreadedMonExecutor<Sinner, S, Collector<u64>>;
    let (handle, work) = Executor::<S>::init_handle_with(&config).unwrap();
    let (initial, node) = (Some((state, Vec::new())), Collector::new());
    let app = Sinner::default();
    let (_install, checkpoints) =
        Executor::<S>::init_with::<ReplicaReplier>(config, work, initial, app, Arc::clone(&node)).unwrap();
    let log: Vec<_> = (1..).zip(batches).map(|(seq, ops)| batch(seq, *ops)).collect();
    log.into_iter().for_each(|batch| drop(handle.queue_update_and_get_appstate(batch)));
    let all = SeqNo(batches.len() as u64);
    wait_until("the end", || handle.failure().is_some() || handle.last_executed() == all);
    let last = handle.last_executed();
    let end = within("join", || handle.join());
    assert_eq!(node.take().len() as u64, 8 * last.0, "nobody is answered for what did not happen");
    while let Ok(checkpoint) = checkpoints.recv() {
        assert!(checkpoint.sequence_number() <= last);
    }
    (end.err(), last)
}

/// The third batch contains `deed`. On a state in memory and on a durable one, in every way in which batches run.
fn is_found(deed: Deed, what: &str) {
    use ExecutionMode::{Adaptive, Sequential, Speculate};
    let batches = [sinful(Deed::Good), sinful(Deed::Good), sinful(deed), sinful(Deed::Good)];
    for (threads, mode) in [(1, Speculate), (3, Speculate), (1, Sequential), (3, Adaptive)] {
        let disk = Disk::default();
        let ends = [
            run(config(threads, mode, 1), ShardedState::new(), &batches),
            run(config(threads, mode, 1), disk.clone(), &batches),
        ];
        for (failure, last) in ends {
            let Some(Failure::NotDeterministic { batch: SeqNo(3), position: 5, ref difference }) = failure
            else {
                panic!("{deed:?}: {failure:?}")
            };
            assert!(difference.contains(what), "{difference}");
            assert_eq!(last, SeqNo(2));
            let text = failure.unwrap().to_string();
            assert!(
                text.contains("not deterministic") && text.contains("batch 3 differ at position 5"),
                "{text}"
            );
        }
        assert_eq!(disk.content().committed, [SeqNo(1), SeqNo(2)]);
    }
}

#[test]
fn a_clock_is_found() {
    is_found(Deed::Clock, "key \"\\x05\" of column \"a\" was written with another value");
}

#[test]
fn a_counter_of_its_own_is_found() {
    is_found(Deed::Counter, "key \"\\x05\" of column \"a\" was written with another value");
}

#[test]
fn a_random_number_is_found() {
    is_found(Deed::Random, "was written with another value");
}

#[test]
fn the_order_of_a_map_is_found() {
    is_found(Deed::Order, "of column \"ordered\" was written with another value, or in another order");
}

#[test]
fn a_reply_is_found_where_replies_can_be_compared() {
    is_found(Deed::Reply, "the replies are not the same");
}

#[test]
fn a_panic_in_one_run_is_found() {
    is_found(Deed::Panic, "one of them panicked: now and then");
}

#[test]
fn every_nth_batch_is_checked_and_no_other() {
    let mut batches = [sinful(Deed::Good); 9];
    batches[1] = sinful(Deed::Counter);
    batches[2] = sinful(Deed::Counter);
    let (failure, last) = run(config(2, ExecutionMode::Adaptive, 4), ShardedState::new(), &batches);
    assert!(failure.is_none() && last == SeqNo(9), "1, 5 and 9 are checked: {failure:?}");
    batches[4] = sinful(Deed::Counter);
    let (failure, last) = run(config(2, ExecutionMode::Adaptive, 4), ShardedState::new(), &batches);
    let Some(Failure::NotDeterministic { batch: SeqNo(5), .. }) = failure else { panic!("{failure:?}") };
    assert_eq!(last, SeqNo(4));
}

/// Random programs, of which every other batch is checked; programs end on any values, and so may be forwarded to.
fn a_good_application_does_not_notice<R: Rig>() {
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut byte = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as u8
    };
    let mut programs =
        |count: usize| (0..count).map(|_| (0..24).map(|_| byte()).collect()).collect::<Vec<_>>();
    let batches: Vec<_> = (1..=40).map(|seq| Program::batch(seq, &programs(seq as usize % 30), 9)).collect();
    for (threads, mode) in [(1, ExecutionMode::Adaptive), (3, ExecutionMode::Speculate)] {
        let app = Service(ProgramLogic);
        let counters = check::<R, _>(&config(threads, mode, 2), &app, &ShardedState::new(), &batches);
        assert_eq!(counters.checked_batches, if R::RUNS_AHEAD { 20 } else { 0 });
        assert_eq!(counters.batches, 40);
    }
}

#[test]
fn the_table_is_complete() {
    assert_table("checking.rs", 7);
}

#[test]
fn the_document_is_complete() {
    assert_document("determinism.md", 27);
}

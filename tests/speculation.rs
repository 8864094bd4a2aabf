//! What runs ahead of its turn, and what becomes of it: units that read in circles or move on to a newer moment, and values
//! that are forwarded.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use atlas_smr_execution::app::{Application, ApplicationData, ScalableApp};
use atlas_smr_execution::batch::{NodeId, SeqNo, UpdateBatch};
use atlas_smr_execution::error::BoxError;
use atlas_smr_execution::executor::{ExecutionMode, ExecutorConfig};
use atlas_smr_execution::metrics::Counters;
use atlas_smr_execution::state::{CRUDState, ShardedState};
use common::Gate;
use common::rig::{MultiDiv, MultiMon, check};

/// Sets flags, and waits for them.
#[derive(Clone)]
struct Flags;

#[derive(Clone, Copy)]
enum Flag {
    Set(u8),
    /// Reads the flag until it is set. In batch order it always is.
    Await(u8),
}

impl ApplicationData for Flags {
    type Request = Flag;
    type Reply = u64;
}

fn run(state: &mut impl CRUDState, flag: &Flag) -> u64 {
    match flag {
        Flag::Set(key) => {
            state.put("flags", &[*key], b"set");
            0
        }
        Flag::Await(key) => {
            while state.read_with("flags", &[*key], |value| value.is_none()) {}
            1
        }
    }
}

impl Application<ShardedState> for Flags {
    type AppData = Flags;

    fn initial_state() -> Result<ShardedState, BoxError> {
        Ok(ShardedState::new())
    }

    fn unordered_execution(&self, _: &ShardedState, _: Flag) -> u64 {
        0
    }

    fn update(&self, state: &mut ShardedState, flag: Flag) -> u64 {
        run(state, &flag)
    }
}

impl ScalableApp<ShardedState> for Flags {
    fn speculatively_execute(&self, state: &mut impl CRUDState, flag: Flag) -> u64 {
        run(state, &flag)
    }
}

fn flags(count: u8) -> UpdateBatch<Flag> {
    let mut batch = UpdateBatch::new(SeqNo(1));
    for key in 0..count {
        for (id, flag) in [Flag::Set(key), Flag::Await(key)].into_iter().enumerate() {
            batch.add(NodeId(1), SeqNo(1), SeqNo(u64::from(key) * 2 + id as u64), flag);
        }
    }
    batch
}

fn config(threads: usize, chunk: usize) -> ExecutorConfig {
    let mut config = ExecutorConfig::with_threads(threads);
    (config.mode, config.chunk, config.pin) = (ExecutionMode::Speculate, Some(chunk), false);
    config
}

/// Both operations of a pair are in one chunk, so the second is started on the moment before the first one.
#[test]
fn a_unit_that_reads_in_circles_is_abandoned_and_replayed() {
    for threads in [1, 2, 4] {
        let mut config = config(threads, 2);
        config.step_budget = 1000;
        let state = ShardedState::new();
        let mon = check::<MultiMon, _>(&config, &Flags, &state, &[flags(40)]);
        let div = check::<MultiDiv, _>(&config, &Flags, &state, &[flags(40)]);
        for counters in [mon, div] {
            assert!(counters.abandoned >= 1, "{threads} threads: {counters:?}");
            assert_eq!(counters.speculations, counters.accepted + counters.replays);
        }
    }
}

/// Looks at many keys, and gives up if that panics, or tries again; in the plain loop it never does.
#[derive(Clone)]
struct Cautious<const STUBBORN: bool>;

const LOOKS: u32 = 500;

impl<const STUBBORN: bool> ApplicationData for Cautious<STUBBORN> {
    type Request = u32;
    type Reply = Result<u32, ()>;
}

impl<const STUBBORN: bool> Application<ShardedState> for Cautious<STUBBORN> {
    type AppData = Self;

    fn initial_state() -> Result<ShardedState, BoxError> {
        Ok(ShardedState::new())
    }

    fn unordered_execution(&self, _: &ShardedState, _: u32) -> Result<u32, ()> {
        Err(())
    }

    fn update(&self, state: &mut ShardedState, request: u32) -> Result<u32, ()> {
        self.speculatively_execute(state, request)
    }
}

impl<const STUBBORN: bool> ScalableApp<ShardedState> for Cautious<STUBBORN> {
    const FORWARDING: bool = true;

    fn speculatively_execute(&self, state: &mut impl CRUDState, request: u32) -> Result<u32, ()> {
        let look = |n: u32| u32::from(state.read("a", &(request * LOOKS + n).to_le_bytes()).is_none());
        let try_to = |n: u32| catch_unwind(AssertUnwindSafe(|| look(n)));
        let look = |n: u32| {
            if STUBBORN { std::iter::repeat_with(|| try_to(n)).flatten().next() } else { Some(look(n)) }
        };
        catch_unwind(AssertUnwindSafe(|| (0..LOOKS).filter_map(look).sum())).map_err(drop)
    }
}

/// Runs operations that make more calls than `budget`.
fn exceed<const STUBBORN: bool>(budget: u32) {
    for forwarding in [false, true] {
        for threads in [1, 2, 4] {
            let mut config = config(threads, 4);
            (config.step_budget, config.forwarding) = (budget, forwarding);
            let mut batch = UpdateBatch::new(SeqNo(1));
            (0..40).for_each(|id| batch.add(NodeId(1), SeqNo(1), SeqNo(id), id as u32));
            let app = Cautious::<STUBBORN>;
            let counters = check::<MultiMon, _>(&config, &app, &ShardedState::new(), &[batch]);
            assert!(counters.replays > 0 && counters.collisions == 0, "{counters:?}");
        }
    }
}

/// A unit is abandoned by unwinding, and an application may catch that. Its reply must not count.
#[test]
fn an_abandoned_unit_is_replayed_even_if_the_application_goes_on() {
    exceed::<false>(LOOKS - 1);
}

/// It comes to an end, too.
#[test]
fn an_abandoned_unit_may_try_again() {
    exceed::<true>(LOOKS / 10);
}

/// Takes a key as a lock, which a destructor gives back, and makes many calls while it has it; so does the destructor.
#[derive(Clone)]
struct Locking;

/// A key that says that it is taken.
struct Taken<'s, S: CRUDState>(&'s mut S);

impl<'s, S: CRUDState> Taken<'s, S> {
    fn take(state: &'s mut S) -> Self {
        state.put("lock", b"key", b"taken");
        Taken(state)
    }
}

impl<S: CRUDState> Drop for Taken<'_, S> {
    fn drop(&mut self) {
        (0..=LOOKS).for_each(|n| drop(self.0.read("a", &n.to_le_bytes())));
        assert_eq!(self.0.delete("lock", b"key").as_deref(), Some(&b"taken"[..]));
    }
}

impl ApplicationData for Locking {
    type Request = u32;
    type Reply = u32;
}

impl Application<ShardedState> for Locking {
    type AppData = Locking;

    fn initial_state() -> Result<ShardedState, BoxError> {
        Ok(ShardedState::new())
    }

    fn unordered_execution(&self, _: &ShardedState, _: u32) -> u32 {
        0
    }

    fn update(&self, state: &mut ShardedState, request: u32) -> u32 {
        self.speculatively_execute(state, request)
    }
}

impl ScalableApp<ShardedState> for Locking {
    const FORWARDING: bool = true;

    fn speculatively_execute(&self, state: &mut impl CRUDState, request: u32) -> u32 {
        let taken = Taken::take(state);
        let look = |n: u32| u32::from(taken.0.read("a", &(request * LOOKS + n).to_le_bytes()).is_none());
        (0..LOOKS).map(look).sum()
    }
}

/// Its destructors run while it unwinds; unwinding out of one of them would end the process.
#[test]
fn an_abandoned_unit_may_call_its_state_in_destructors() {
    for (forwarding, threads) in [(false, 1), (false, 2), (true, 2)] {
        let mut config = config(threads, 4);
        (config.step_budget, config.forwarding) = (LOOKS, forwarding);
        let mut batch = UpdateBatch::new(SeqNo(1));
        (0..40).for_each(|id| batch.add(NodeId(1), SeqNo(1), SeqNo(id), id as u32));
        let counters = check::<MultiMon, _>(&config, &Locking, &ShardedState::new(), &[batch]);
        assert!(counters.abandoned > 0, "{counters:?}");
    }
}

/// Sums up in one key; straight-line code, so it may say that it ends on any values.
#[derive(Clone)]
struct Sum<const FORWARDING: bool>;

impl<const FORWARDING: bool> ApplicationData for Sum<FORWARDING> {
    type Request = u64;
    type Reply = u64;
}

fn add(state: &mut impl CRUDState, amount: u64) -> u64 {
    let number =
        |value: Option<&[u8]>| value.map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
    let sum = state.read_with("", b"sum", number).wrapping_mul(3).wrapping_add(amount);
    state.put("", b"sum", &sum.to_le_bytes());
    sum
}

impl<const FORWARDING: bool> Application<ShardedState> for Sum<FORWARDING> {
    type AppData = Self;

    fn initial_state() -> Result<ShardedState, BoxError> {
        Ok(ShardedState::new())
    }

    fn unordered_execution(&self, _: &ShardedState, _: u64) -> u64 {
        0
    }

    fn update(&self, state: &mut ShardedState, amount: u64) -> u64 {
        add(state, amount)
    }
}

impl<const FORWARDING: bool> ScalableApp<ShardedState> for Sum<FORWARDING> {
    const FORWARDING: bool = FORWARDING;

    fn speculatively_execute(&self, state: &mut impl CRUDState, amount: u64) -> u64 {
        add(state, amount)
    }
}

/// On one thread, with a whole batch as one chunk: all of it is run before anything retires.
fn sum<const FORWARDING: bool>(allowed: bool) -> Counters {
    let mut batch = UpdateBatch::new(SeqNo(1));
    (0..50).for_each(|id| batch.add(NodeId(1), SeqNo(1), SeqNo(id), id));
    let mut config = config(1, 50);
    config.forwarding = allowed;
    check::<MultiMon, _>(&config, &Sum::<FORWARDING>, &ShardedState::new(), &[batch])
}

#[test]
fn forwarded_values_save_replays() {
    assert_eq!(sum::<true>(true).replays, 0);
}

#[test]
fn nothing_is_forwarded_unless_application_and_configuration_agree() {
    for counters in [sum::<false>(true), sum::<true>(false)] {
        // The first unit runs at its turn; all others saw the moment before it. The last may still be running at its turn.
        assert_eq!(counters.replays + counters.overtaken, 49, "{counters:?}");
    }
}

/// Three operations, of which the second one begins before the first one ends, and reads when the first one has retired.
#[derive(Clone)]
struct Late {
    second_began: Arc<Gate>,
    third_began: Arc<Gate>,
    /// What the second one reads before.
    before: &'static [u8],
}

impl ApplicationData for Late {
    type Request = usize;
    type Reply = Vec<Option<Vec<u8>>>;
}

impl Late {
    fn run(&self, state: &mut impl CRUDState, request: usize, ahead: bool) -> Vec<Option<Vec<u8>>> {
        match request {
            0 => {
                if ahead {
                    self.second_began.pass();
                }
                state.put("", b"x", b"1");
                state.put("", b"y", b"1");
                Vec::new()
            }
            1 => {
                let before = state.read("", self.before);
                if ahead {
                    self.second_began.open();
                    self.third_began.pass();
                }
                vec![before, state.read("", b"x")]
            }
            _ => {
                if ahead {
                    self.third_began.open();
                }
                Vec::new()
            }
        }
    }
}

impl Application<ShardedState> for Late {
    type AppData = Self;

    fn initial_state() -> Result<ShardedState, BoxError> {
        Ok(ShardedState::new())
    }

    fn unordered_execution(&self, _: &ShardedState, _: usize) -> Vec<Option<Vec<u8>>> {
        Vec::new()
    }

    fn update(&self, state: &mut ShardedState, request: usize) -> Vec<Option<Vec<u8>>> {
        self.run(state, request, false)
    }
}

impl ScalableApp<ShardedState> for Late {
    fn speculatively_execute(&self, state: &mut impl CRUDState, request: usize) -> Vec<Option<Vec<u8>>> {
        self.run(state, request, true)
    }
}

/// The third operation is outside the window until the first one has retired: only then does the second one read "x".
fn late(before: &'static [u8]) -> Counters {
    let app = Late { second_began: Gate::new(), third_began: Gate::new(), before };
    let mut batch = UpdateBatch::new(SeqNo(1));
    (0..3).for_each(|id| batch.add(NodeId(1), SeqNo(1), SeqNo(id), id as usize));
    let mut config = config(2, 1);
    config.window = 2;
    check::<MultiMon, _>(&config, &app, &ShardedState::new(), &[batch])
}

#[test]
fn a_unit_moves_on_to_a_newer_moment() {
    let counters = late(b"z");
    assert_eq!((counters.replays, counters.overtaken), (0, 0), "{counters:?}");
}

#[test]
fn a_unit_that_has_seen_what_changed_does_not_move_on() {
    let counters = late(b"y");
    assert_eq!(counters.replays, 1, "{counters:?}");
}

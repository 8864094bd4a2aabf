//! The engine alone against the sequential loop, where the public interface does not reach: shared fingerprints,
//! overlays that must grow, panics ahead of turn.

use std::collections::BTreeMap;

use super::*;
use crate::app::{Application, Hints};
use crate::batch::{NodeId, SeqNo};
use crate::error::{BoxError, StateError};
use crate::state::tests::assert_seeded_per_process;
use crate::state::{Change, Changes, Crew, MergeOperator, Whereabouts};
use crate::sync::{AtomicU64, Ordering};

/// A state that is a map; the oracle, too. Its commits may take operands; it counts them.
#[derive(Clone, Debug, Default)]
struct Map<const OPERANDS: bool = true>(BTreeMap<(String, Vec<u8>), Vec<u8>>, usize);

impl<const OPERANDS: bool> PartialEq for Map<OPERANDS> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<const OPERANDS: bool> CRUDState for Map<OPERANDS> {
    const COMMITS_OPERANDS: bool = OPERANDS;

    fn read(&self, column: &str, key: &[u8]) -> Option<Vec<u8>> {
        self.0.get(&(column.to_owned(), key.to_vec())).cloned()
    }

    fn create(&mut self, column: &str, key: &[u8], value: &[u8]) -> bool {
        let absent = self.read(column, key).is_none();
        if absent {
            self.put(column, key, value);
        }
        absent
    }

    fn update(&mut self, column: &str, key: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        self.0.insert((column.to_owned(), key.to_vec()), value.to_vec())
    }

    fn delete(&mut self, column: &str, key: &[u8]) -> Option<Vec<u8>> {
        self.0.remove(&(column.to_owned(), key.to_vec()))
    }

    fn merge_operator(&self, column: &str) -> MergeOperator {
        if column == "odd" { MergeOperator::Min } else { MergeOperator::default() }
    }

    /// Of some keys it cannot tell.
    fn whereabouts(&self, column: &str, key: &[u8]) -> Option<Whereabouts> {
        (!key[0].is_multiple_of(4)).then(|| Whereabouts([column.len() as u64, u64::from(key[0])]))
    }

    /// Finds all keys, and not too many at once.
    fn prefetch(&self, keys: &[Whereabouts]) {
        assert!((1..=64).contains(&keys.len()), "{} keys", keys.len());
        assert!(
            keys.iter().all(|&Whereabouts([column, key])| COLUMNS[key as usize % 2].len() as u64 == column)
        );
    }

    /// Of some keys it cannot tell.
    fn place(&self, column: &str, key: &[u8]) -> Option<u16> {
        (column != "wide" || !key[1].is_multiple_of(4)).then(|| u16::from(key[0]).wrapping_mul(0x5b31))
    }

    /// Group by group, if there are any.
    fn commit(&mut self, _: SeqNo, changes: &Changes<'_>, crew: &mut dyn Crew) -> Result<(), StateError> {
        let groups = changes.groups();
        let mut indexes: Vec<usize> = changes.group(0..groups).collect();
        for group in 0..groups {
            for Change { column, key, .. } in changes.group(group..group + 1).map(|index| changes.get(index))
            {
                let place = usize::from(self.place(column, key).expect("what is in a group has a place"));
                assert_eq!((place * groups) >> 16, group);
            }
        }
        let all = changes.iter().all(|Change { column, key, .. }| self.place(column, key).is_some());
        assert_eq!(groups > 0, all && crew.threads() > 1);
        if groups == 0 {
            indexes = (0..changes.len()).collect();
        }
        let mut sorted = indexes.clone();
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..changes.len()), "{indexes:?}");
        for Change { column, key, value, operand } in indexes.into_iter().map(|index| changes.get(index)) {
            match (value, operand) {
                (Some(value), None) => self.put(column, key, value),
                (None, None) => self.remove(column, key),
                (value, Some(operand)) => {
                    assert!(OPERANDS && value.is_none(), "{value:?} and {operand:?}");
                    self.merge(column, key, operand);
                    self.1 += 1;
                }
            }
        }
        Ok(())
    }
}

/// An operation: read `from`, then depending on it write `to`, in one of several ways; `work` makes it long.
#[derive(Clone, Debug)]
struct Step {
    way: u8,
    from: u8,
    to: u8,
    amount: u8,
    work: u16,
}

struct Steps;

impl crate::app::ApplicationData for Steps {
    type Request = Step;
    type Reply = (u64, Option<Vec<u8>>);
}

const COLUMNS: [&str; 2] = ["even", "odd"];
/// The way of an operation whose hints panic.
const UNHINTED: u8 = 10;
/// The way of an operation that panics after it has written.
const PANICKING: u8 = 19;

fn step(state: &mut impl CRUDState, step: &Step) -> (u64, Option<Vec<u8>>) {
    let column = |key: u8| COLUMNS[usize::from(key % 2)];
    let value = state.read_with(column(step.from), &[step.from], |value| {
        let mut bytes = [0; 8];
        if let Some(value) = value {
            let n = value.len().min(8);
            bytes[..n].copy_from_slice(&value[..n]);
        }
        u64::from_le_bytes(bytes)
    });
    for _ in 0..step.work {
        std::hint::black_box(value);
    }
    // A branch that depends on what was read also chooses the key.
    let to = if value % 3 == 0 { step.to } else { step.to.wrapping_add(value as u8) % 16 };
    let next = value.wrapping_mul(31).wrapping_add(u64::from(step.amount)).to_le_bytes();
    let seen = match step.way % 9 {
        0 => state.update(column(to), &[to], &next),
        1 => {
            state.put(column(to), &[to], &next);
            assert!(step.way != PANICKING, "an operation panics");
            None
        }
        2 => Some(vec![u8::from(state.create(column(to), &[to], &next))]),
        3 => state.delete(column(to), &[to]),
        4 => {
            state.remove(column(to), &[to]);
            None
        }
        5 | 6 => {
            state.merge(column(to), &[to], &u64::from(step.amount).to_le_bytes());
            None
        }
        7 => {
            state.merge(column(to), &[to], &[step.amount]);
            state.read(column(to), &[to])
        }
        _ => {
            // Many keys in one operation, then one's own writes read back.
            for key in 0..20u8 {
                state.put("wide", &[key, to], &next);
            }
            assert_eq!(state.read("wide", &[3, to]).as_deref(), Some(&next[..]));
            state.read("wide", &[7, step.to])
        }
    };
    (value, seen)
}

impl<const OPERANDS: bool> Application<Map<OPERANDS>> for Steps {
    type AppData = Steps;

    fn initial_state() -> Result<Map<OPERANDS>, BoxError> {
        Ok(Map::default())
    }

    fn unordered_execution(&self, state: &Map<OPERANDS>, request: Step) -> (u64, Option<Vec<u8>>) {
        (0, state.read(COLUMNS[usize::from(request.from % 2)], &[request.from]))
    }

    fn update(&self, state: &mut Map<OPERANDS>, request: Step) -> (u64, Option<Vec<u8>>) {
        step(state, &request)
    }
}

impl<const OPERANDS: bool> ScalableApp<Map<OPERANDS>> for Steps {
    const FORWARDING: bool = true;
    const HINTS: bool = true;

    /// Right ones, missing ones and wrong ones, as the request's own numbers have it.
    fn hints(&self, request: &Step, hints: &mut impl Hints) {
        assert!(request.way != UNHINTED, "the hints panic");
        let column = |key: u8| COLUMNS[usize::from(key % 2)];
        let Step { amount, from, to, work, .. } = *request;
        hints.weighs(u64::from(work));
        if amount % 3 != 0 {
            hints.reads(column(from), &[from]);
        }
        match amount % 5 {
            0 => hints.writes(column(to), &[to]),
            1 => hints.merges(column(to), &[to]),
            2 => (0..amount).for_each(|key| hints.reads(column(key), &[key])),
            3 => (0..amount).for_each(|key| hints.writes(column(key), &[key])),
            _ => {}
        }
    }

    fn speculatively_execute(&self, state: &mut impl CRUDState, request: Step) -> (u64, Option<Vec<u8>>) {
        step(state, &request)
    }
}

fn engine<const OPERANDS: bool>(
    threads: usize,
    mask: u64,
    mode: ExecutionMode,
    forwarding: bool,
) -> Speculative<Steps, Map<OPERANDS>> {
    let config =
        ExecutorConfig { threads: Some(threads), mode, pin: false, forwarding, ..ExecutorConfig::default() };
    let report = config.validate().expect("valid");
    let mut engine: Speculative<Steps, Map<OPERANDS>> =
        Engine::new(&config, &report, Arc::new(Metrics::new())).expect("threads");
    engine.fingerprints = Fingerprints::with_mask(mask);
    engine
}

/// A generator of test input; what it yields for a seed never changes.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn batch(seq: u64, len: u64, keys: u64, work: u64, random: &mut Random) -> UpdateBatch<Step> {
    let mut batch = UpdateBatch::new(SeqNo(seq));
    for id in 0..len {
        let request = Step {
            way: random.below(9) as u8,
            from: random.below(keys) as u8,
            to: random.below(keys) as u8,
            amount: random.below(250) as u8,
            work: random.below(work + 1) as u16,
        };
        batch.add(NodeId(random.below(5) as u32), SeqNo(1), SeqNo(id), request);
    }
    batch
}

fn check(threads: usize, mask: u64, keys: u64, work: u64, rounds: u64) -> Counts {
    let mut all = Counts::default();
    for mode in [ExecutionMode::Speculate, ExecutionMode::SpeculateByHints] {
        for forwarding in [false, true] {
            let seed = threads as u64 ^ (mask << 8) ^ (keys << 32);
            let of_operands = engine::<true>(threads, mask, mode, forwarding);
            let of_values = engine::<false>(threads, mask, mode, forwarding);
            for counts in [
                check_engine(of_operands, seed, keys, work, rounds),
                check_engine(of_values, seed, keys, work, rounds),
            ] {
                all.collisions += counts.collisions;
                all.reruns += counts.reruns;
            }
        }
    }
    all
}

fn check_engine<const OPERANDS: bool>(
    mut engine: Speculative<Steps, Map<OPERANDS>>,
    seed: u64,
    keys: u64,
    work: u64,
    rounds: u64,
) -> Counts {
    let mut random = Random(0x9E37_79B9_7F4A_7C15 ^ seed | 1);
    let (mut state, mut expected_state) = (Map::<OPERANDS>::default(), Map::<OPERANDS>::default());
    for seq in 1..=rounds {
        if seq > rounds / 2 {
            engine.governor.always_retire_own();
        }
        let len = random.below(300);
        let batch = batch(seq, len, keys, work, &mut random);
        let expected = Steps.update_batch(&mut expected_state, batch.clone());
        let replies = engine.execute(&Steps, &mut state, batch, &mut |_| {}).expect("no failure");
        assert_eq!(replies, expected, "replies of batch {seq}");
        assert_eq!(state, expected_state, "state after batch {seq}");
    }
    let counters = engine.metrics.counters();
    assert_eq!(counters.speculations, counters.accepted + counters.replays);
    Counts {
        speculations: counters.speculations,
        accepted: counters.accepted,
        replays: counters.replays,
        collisions: counters.collisions,
        reruns: counters.reruns,
        overtaken: counters.overtaken,
        abandoned: counters.abandoned,
        worked: Duration::ZERO,
    }
}

#[test]
fn equals_the_sequential_loop() {
    let (mut collisions, mut reruns) = (0, 0);
    for threads in [1, 2, 3, 8] {
        for keys in [2, 16, 200] {
            for work in [0, 2000] {
                let counts = check(threads, u64::MAX, keys, work, 16);
                collisions += counts.collisions;
                reruns += counts.reruns;
            }
        }
    }
    assert!(collisions > 0, "none of this tested a replay");
    assert!(reruns > 0, "none of this ran a unit again before its turn");
}

#[test]
fn what_is_only_merged_into_a_key_is_left_to_the_commit() {
    let mut batch = UpdateBatch::new(SeqNo(1));
    let [put, remove, merge, merge_and_read] = [1, 4, 5, 7];
    let ways = [
        // Into key 1 alone, which is there; into key 2, which is not; and read.
        (merge, 1),
        (merge, 1),
        (merge, 2),
        (merge_and_read, 2),
        // Something else is below, or comes later.
        (put, 3),
        (merge, 3),
        (remove, 4),
        (merge, 4),
        (merge, 5),
        (put, 5),
        (merge, 6),
        (remove, 6),
    ];
    for (id, (way, to)) in ways.into_iter().enumerate() {
        let request = Step { way, from: 100, to, amount: 7 + id as u8, work: 0 };
        batch.add(NodeId(1), SeqNo(1), SeqNo(id as u64), request);
    }
    let mut start = Map::<true>::default();
    start.put("odd", &[1], &1_000_u64.to_le_bytes());
    for mode in [ExecutionMode::Speculate, ExecutionMode::SpeculateByHints] {
        for forwarding in [false, true] {
            let mut engine = engine(2, u64::MAX, mode, forwarding);
            let (mut state, mut expected_state) = (start.clone(), start.clone());
            let expected = Steps.update_batch(&mut expected_state, batch.clone());
            let replies = engine.execute(&Steps, &mut state, batch.clone(), &mut |_| {});
            assert_eq!(replies.expect("no failure"), expected);
            assert_eq!((&state, state.1), (&expected_state, 2));
        }
    }
}

#[test]
fn keys_that_share_a_fingerprint_are_kept_apart() {
    for mask in [0, 1 << 40, 0xF << 30, 0xF] {
        check(3, mask, 40, 500, 16);
    }
}

#[test]
fn fingerprints_are_seeded_per_process() {
    let hash = Fingerprints::new().of("column", b"key");
    assert_seeded_per_process("executor::speculative::tests::fingerprints_are_seeded_per_process", hash);
}

#[test]
fn an_epoch_wrap_changes_nothing() {
    let mut engine = engine(2, u64::MAX, ExecutionMode::Speculate, true);
    let mut random = Random(77);
    let (mut state, mut expected_state) = <(Map, Map)>::default();
    engine.table.skip_to_last_epoch();
    for seq in 1..=20 {
        let batch = batch(seq, 50, 10, 100, &mut random);
        let expected = Steps.update_batch(&mut expected_state, batch.clone());
        assert_eq!(engine.execute(&Steps, &mut state, batch, &mut |_| {}).expect("no failure"), expected);
        assert_eq!(state, expected_state);
    }
}

#[test]
fn a_batch_for_which_memory_grew_is_not_judged() {
    let mut engine = engine(2, u64::MAX, ExecutionMode::Speculate, true);
    let (mut state, mut random) = (<Map>::default(), Random(5));
    let mut grown = 0;
    for seq in 1.. {
        let batch = batch(seq, 300, 10, 100, &mut random);
        engine.execute(&Steps, &mut state, batch, &mut |_| {}).expect("no failure");
        assert_eq!(engine.governor.knows(300), !engine.arenas.have_grown(), "batch {seq}");
        if engine.governor.knows(300) {
            break;
        }
        grown += 1;
    }
    assert!(grown > 0, "there was no memory before");
}

#[test]
fn without_a_plan_it_looks_aside_all_the_same() {
    let mut engine = engine(1, u64::MAX, ExecutionMode::SpeculateByHints, true);
    let mut batch = additions(20, 0..0, None);
    batch.add(NodeId(1), SeqNo(1), SeqNo(20), Step { way: UNHINTED, from: 0, to: 0, amount: 10, work: 0 });
    let (mut state, mut expected_state, mut looks) = <(Map, Map, u32)>::default();
    let expected = Steps.update_batch(&mut expected_state, batch.clone());
    assert_eq!(engine.execute(&Steps, &mut state, batch, &mut |_| looks += 1).expect("no failure"), expected);
    assert_eq!(state, expected_state);
    assert!(looks > 0);
}

#[test]
fn the_loop_with_a_look_ahead_is_the_loop() {
    for threads in [1, 2] {
        let mut engine = engine::<true>(threads, u64::MAX, ExecutionMode::Adaptive, true);
        let (mut state, mut expected_state, mut random) = (Map::default(), Map::default(), Random(13));
        let mut looked = 0;
        for (seq, len) in [0, 1, 31, 32, 33, 100, 300].into_iter().enumerate() {
            let batch = batch(seq as u64 + 1, len, 20, 0, &mut random);
            let expected = Steps.update_batch(&mut expected_state, batch.clone());
            assert_eq!(engine.update_prefetched(&Steps, &mut state, batch).expect("no failure"), expected);
            assert_eq!(state, expected_state, "{len} operations");
            looked += len;
            assert_eq!(engine.metrics.get(Counter::prefetched), looked);
        }
        let requests = UnorderedBatch::from_requests(batch(9, 50, 20, 0, &mut random).into_updates());
        let expected = Steps.unordered_batched_execution(&state, requests.clone());
        assert_eq!(engine.answer_prefetched(&Steps, &state, requests).expect("no failure"), expected);
        assert_eq!(engine.metrics.get(Counter::prefetched), looked + 50);
    }
}

#[test]
fn the_loop_looks_ahead_where_that_was_faster() {
    /// Says what batches of 100 operations took until they are to be looked at.
    fn teach(governor: &mut Governor) {
        for _ in 0..10_000 {
            let plan = governor.plan(100);
            if plan.way == Way::Prefetched {
                return;
            }
            governor.record(100, plan.way, Duration::from_micros(50), Counts::default());
        }
        panic!("it was not tried");
    }
    for threads in [1, 2] {
        let mut engine = engine::<true>(threads, u64::MAX, ExecutionMode::Adaptive, true);
        let (mut state, mut expected_state, mut random) = (Map::default(), Map::default(), Random(14));
        teach(&mut engine.governor);
        let batch_of_100 = batch(1, 100, 20, 0, &mut random);
        let expected = Steps.update_batch(&mut expected_state, batch_of_100.clone());
        let replies = engine.execute(&Steps, &mut state, batch_of_100, &mut |_| {}).expect("no failure");
        assert_eq!((replies, &state), (expected, &expected_state));
        assert_eq!(engine.metrics.get(Counter::prefetched), 100);
        assert_eq!(engine.metrics.get(Counter::sequential_batches), 1);
        teach(&mut engine.unordered.governor);
        let requests = UnorderedBatch::from_requests(batch(2, 100, 20, 0, &mut random).into_updates());
        let expected = Steps.unordered_batched_execution(&state, requests.clone());
        assert_eq!(engine.execute_unordered(&Steps, &state, requests).expect("no failure"), expected);
        assert_eq!(engine.metrics.get(Counter::prefetched), 200);
        assert_eq!(engine.metrics.get(Counter::unordered_in_parallel), 0);
    }
}

#[test]
fn one_thread_that_commits_at_once_looks_aside_too() {
    let mut engine = engine::<true>(1, u64::MAX, ExecutionMode::Adaptive, true);
    let (mut state, mut expected_state, mut random) = (Map::default(), Map::default(), Random(11));
    for seq in 1..10 {
        let (batch, mut looks) = (batch(seq, 100, 20, 0, &mut random), 0);
        let expected = Steps.update_batch(&mut expected_state, batch.clone());
        let plan = engine.governor.plan_by(Way::AtTurn, 100);
        let aside: Aside<'_, _> = &mut |before: &Map| {
            assert_ne!(*before, expected_state, "the state before the batch");
            looks += 1;
        };
        let ran = engine.run(&Steps, &mut state, batch, plan, aside, |_| Ok(Fate::Commit));
        let (replies, counts) = ran.expect("no failure");
        assert_eq!(replies, expected, "batch {seq}");
        assert_eq!(state, expected_state, "batch {seq}");
        assert_eq!((counts, looks), (Counts::default(), 7), "each at its turn; a look after 16 at most");
    }
}

#[test]
fn one_thread_that_commits_at_once_leaves_the_state_alone_if_an_operation_panics() {
    let mut engine = engine::<true>(1, u64::MAX, ExecutionMode::Adaptive, true);
    let (mut state, mut random) = (Map::default(), Random(12));
    for seq in 1..4 {
        let mut requests = batch(seq, 40, 20, 0, &mut random);
        let panicking = Step { way: PANICKING, from: 0, to: 0, amount: 1, work: 0 };
        requests.add(NodeId(1), SeqNo(1), SeqNo(40), panicking);
        let before = state.clone();
        let plan = engine.governor.plan_by(Way::AtTurn, 41);
        let ran = engine.run(&Steps, &mut state, requests, plan, &mut |_| {}, |_| Ok(Fate::Commit));
        match ran.err() {
            Some(Failure::OperationPanicked { batch, position, message, .. }) => {
                assert_eq!((batch, position), (SeqNo(seq), Some(40)));
                assert!(message.to_string().contains("an operation panics"), "{message}");
            }
            other => panic!("{other:?}"),
        }
        assert!(state == before, "not half of a batch");
        // The next one comes through.
        let (next, mut expected_state) = (batch(seq, 100, 20, 0, &mut random), before);
        let expected = Steps.update_batch(&mut expected_state, next.clone());
        let ran = engine.run(&Steps, &mut state, next, plan, &mut |_| {}, |_| Ok(Fate::Commit));
        assert_eq!(ran.expect("no failure").0, expected, "batch {seq}");
        assert!(state == expected_state);
    }
}

/// Its second operation does not end before it has been run a second time, unless that is at its turn.
#[derive(Default)]
struct Stubborn {
    runs: AtomicU64,
    done: AtomicU64,
}

impl Stubborn {
    /// False if nothing happens for a long time.
    fn wait_for(count: &AtomicU64) -> bool {
        let start = Instant::now();
        while count.load(Ordering::SeqCst) == 0 && start.elapsed() < Duration::from_secs(60) {
            std::thread::yield_now();
        }
        count.load(Ordering::SeqCst) > 0
    }
}

impl crate::app::ApplicationData for Stubborn {
    type Request = u8;
    type Reply = bool;
}

impl Application<Map> for Stubborn {
    type AppData = Stubborn;

    fn initial_state() -> Result<Map, BoxError> {
        Ok(Map::default())
    }

    fn unordered_execution(&self, _: &Map, _: u8) -> bool {
        true
    }

    fn update(&self, _: &mut Map, _: u8) -> bool {
        true
    }
}

impl ScalableApp<Map> for Stubborn {
    fn speculatively_execute(&self, _: &mut impl CRUDState, request: u8) -> bool {
        if request == 0 {
            // The other thread has started the second one.
            return Self::wait_for(&self.runs);
        }
        if self.runs.fetch_add(1, Ordering::SeqCst) == 0 {
            return Self::wait_for(&self.done);
        }
        self.done.store(1, Ordering::SeqCst);
        true
    }
}

#[test]
fn a_unit_that_is_most_likely_stale_is_not_waited_for() {
    let config = ExecutorConfig {
        threads: Some(2),
        mode: ExecutionMode::Speculate,
        chunk: Some(1),
        ..ExecutorConfig::default()
    };
    let report = config.validate().expect("valid");
    let mut engine: Speculative<Stubborn, Map> =
        Engine::new(&config, &report, Arc::new(Metrics::new())).expect("threads");
    engine.governor.expect_contention();
    let mut batch = UpdateBatch::new(SeqNo(1));
    (0..2).for_each(|id| batch.add(NodeId(0), SeqNo(1), SeqNo(id.into()), id));
    let stubborn = Stubborn::default();
    let replies = engine.execute(&stubborn, &mut Map::default(), batch, &mut |_| {}).expect("no failure");
    assert!(replies.replies().iter().all(|reply| *reply.payload()), "nobody waited in vain");
    let counters = engine.metrics.counters();
    assert_eq!((counters.overtaken, counters.speculations, counters.accepted), (1, 1, 1));
}

/// A batch of additions, each to the key of its number, and in `chained` to one key. Number `heavy` is all the work.
fn additions(len: u8, chained: std::ops::Range<u8>, heavy: Option<u8>) -> UpdateBatch<Step> {
    let mut batch = UpdateBatch::new(SeqNo(1));
    for id in 0..len {
        let key = if chained.contains(&id) { 255 } else { id };
        // Of this amount, both keys are named.
        let work = if heavy == Some(id) { 1000 } else { 0 };
        let step = Step { way: 1, from: key, to: key, amount: 10, work };
        batch.add(NodeId(1), SeqNo(1), SeqNo(id.into()), step);
    }
    batch
}

#[test]
fn a_batch_that_is_one_chain_is_known_by_its_hints() {
    let is_chain = |len, chained, heavy| {
        let batch = additions(len, chained, heavy);
        chain::is_chain::<Steps, Map>(&mut Planner::default(), &Steps, &batch, &Fingerprints::new())
    };
    for len in [2, 9, 32, 64, 65, 100, 200] {
        assert!(is_chain(len, 0..len, None));
        assert!(!is_chain(len, 0..0, None));
        assert!(!is_chain(len, 0..len / 8, None), "{len}: it only begins so");
        assert!(!is_chain(len, len / 2..len, None), "{len}: it only ends so");
    }
    assert!(!is_chain(40, 1..20, None));
    assert!(is_chain(40, 1..20, Some(7)), "the chain is nearly all work");
    assert!(!is_chain(0, 0..0, None));
}

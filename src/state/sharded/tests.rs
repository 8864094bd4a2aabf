//! Properties of the built-in state.
//!
//! - Every call answers, and leaves behind, what an ordered map would.
//! - A snapshot never changes. What is written beside it stays beside it while that is little.
//! - Digests, parts and streams depend on the content alone.
//! - Damaged or incomplete input is refused, and changes nothing.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;

use super::*;
use crate::state::tests::assert_seeded_per_process;
use crate::state::{Change, DivisibleState, END, Groups, Merge, MonolithicState, Solo, join};

type Oracle = BTreeMap<(String, Vec<u8>), Vec<u8>>;

/// Threads made on the spot: how many, and how often they were called.
struct Threads(usize, usize);

impl Crew for Threads {
    fn threads(&self) -> usize {
        self.0
    }

    fn run(&mut self, work: &(dyn Fn() + Sync)) {
        self.1 += 1;
        std::thread::scope(|scope| {
            for _ in 1..self.0 {
                scope.spawn(work);
            }
            work();
        });
    }
}

struct Xor;

impl Merge for Xor {
    fn combine(&self, a: &[u8], b: &[u8], out: &mut Vec<u8>) {
        let byte = |bytes: &[u8], i| bytes.get(i).copied().unwrap_or(0);
        out.extend((0..a.len().max(b.len())).map(|i| byte(a, i) ^ byte(b, i)));
    }
}

fn sharded(shards: usize) -> ShardedState {
    ShardedState::builder()
        .shards(shards)
        .merge_operator("max", MergeOperator::Max)
        .merge_operator("wide", MergeOperator::WrappingAdd128)
        .build()
        .unwrap()
}

/// `count` entries, written in an order and with a history that `seed` chooses.
fn filled(shards: usize, count: u32, seed: u32) -> ShardedState {
    let mut state = sharded(shards);
    if seed % 2 == 1 {
        state.put("only in this history", b"k", b"v");
        state.put("b", b"k", &[1; 5000]);
        state.remove("only in this history", b"k");
        state.remove("b", b"k");
    }
    for i in 0..count {
        let i = (i + seed) % count;
        let column = ["a", "b", ""][i as usize % 3];
        state.put(column, &i.to_le_bytes(), &vec![7; seed as usize % 40]);
        state.put(column, &i.to_le_bytes(), &vec![i as u8; i as usize % 50]);
    }
    state
}

fn content(state: &ShardedState) -> Oracle {
    state.iter().map(|(c, k, v)| ((c.to_owned(), k.to_vec()), v.to_vec())).collect()
}

fn bytes_of(state: &ShardedState) -> Vec<u8> {
    let mut bytes = Vec::new();
    state.serialize(&mut bytes).unwrap();
    bytes
}

#[derive(Clone, Debug)]
enum Call {
    Create(Vec<u8>),
    Update(Vec<u8>),
    Put(Vec<u8>),
    Merge(Vec<u8>),
    Delete,
    Remove,
    Read,
    Snapshot,
    /// Drops the oldest snapshot.
    Forget,
    /// Goes on with a snapshot, as if it were the state.
    Return,
    /// Makes the state know its digests.
    Describe,
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => proptest::collection::vec(any::<u8>(), 0..40),
        1 => (0..20_000usize, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]),
    ]
}

fn call() -> impl Strategy<Value = (&'static str, Vec<u8>, Call)> {
    let column =
        prop::sample::select(vec!["", "a", "max", "wide", "c4", "c5", "c6", "c7", "c8", "c9", "c10"]);
    let call = prop_oneof![
        2 => value().prop_map(Call::Create),
        3 => value().prop_map(Call::Update),
        3 => value().prop_map(Call::Put),
        2 => value().prop_map(Call::Merge),
        2 => Just(Call::Delete),
        2 => Just(Call::Remove),
        2 => Just(Call::Read),
        2 => Just(Call::Snapshot),
        1 => Just(Call::Forget),
        1 => Just(Call::Return),
        1 => Just(Call::Describe),
    ];
    (column, proptest::collection::vec(0..3u8, 0..3), call)
}

/// Makes one call on both and compares the answers.
fn step(state: &mut ShardedState, oracle: &mut Oracle, column: &str, key: &[u8], call: &Call) {
    let name = (column.to_owned(), key.to_vec());
    match call {
        Call::Create(value) => {
            let absent = !oracle.contains_key(&name);
            assert_eq!(state.create(column, key, value), absent);
            oracle.entry(name).or_insert(value.clone());
        }
        Call::Update(value) => {
            assert_eq!(state.update(column, key, value), oracle.insert(name, value.clone()))
        }
        Call::Put(value) => {
            state.put(column, key, value);
            oracle.insert(name, value.clone());
        }
        Call::Merge(operand) => {
            let operator = match column {
                "max" => MergeOperator::Max,
                "wide" => MergeOperator::WrappingAdd128,
                _ => MergeOperator::default(),
            };
            let mut merged = Vec::new();
            operator.fold(oracle.get(&name).map(Vec::as_slice), operand, &mut merged);
            state.merge(column, key, operand);
            oracle.insert(name, merged);
        }
        Call::Delete => assert_eq!(state.delete(column, key), oracle.remove(&name)),
        Call::Remove => {
            state.remove(column, key);
            oracle.remove(&name);
        }
        Call::Read => {
            assert_eq!(state.read(column, key).as_ref(), oracle.get(&name));
            state.read_with(column, key, |value| assert_eq!(value, oracle.get(&name).map(Vec::as_slice)));
        }
        Call::Describe => drop(state.descriptor()),
        Call::Snapshot | Call::Forget | Call::Return => (),
    }
}

/// The state has this content, and what it tells of that is what a state with another history tells.
fn assert_is(state: &ShardedState, oracle: &Oracle) {
    assert_eq!((state.len(), state.is_empty()), (oracle.len(), oracle.is_empty()));
    assert_eq!(&content(state), oracle);
    let mut again = sharded(state.shard_count());
    for ((column, key), value) in oracle.iter().rev() {
        again.put(column, key, value);
    }
    assert_eq!(state.digest(), again.digest());
    assert_eq!(state.descriptor(), again.descriptor());
    assert_eq!(bytes_of(state), bytes_of(&again));
    assert_eq!(&content(&ShardedState::deserialize(&bytes_of(state)[..]).unwrap()), oracle);
}

proptest! {
    #[test]
    fn behaves_like_an_ordered_map(
        shards in prop::sample::select(vec![1usize, 2, 16]),
        filled in prop::sample::select(vec![0usize, 200]),
        calls in proptest::collection::vec(call(), 0..300),
    ) {
        let mut state = sharded(shards);
        let mut oracle = Oracle::new();
        // Enough for a shard to be worth writing beside it.
        for (i, column) in ["a", "b", "c4", "c9"].into_iter().cycle().take(filled).enumerate() {
            step(&mut state, &mut oracle, column, &[i as u8 % 3, i as u8], &Call::Put(vec![i as u8; 40]));
        }
        let mut snapshots = VecDeque::new();
        for (column, key, call) in &calls {
            step(&mut state, &mut oracle, column, key, call);
            match call {
                Call::Snapshot => snapshots.push_back((state.snapshot(), oracle.clone())),
                Call::Forget => drop(snapshots.pop_front()),
                Call::Return => {
                    if let Some(back) = snapshots.pop_back() {
                        snapshots.push_front((state, oracle));
                        (state, oracle) = back;
                    }
                }
                _ => (),
            }
        }
        assert_is(&state, &oracle);
        for (snapshot, then) in &snapshots {
            assert_is(snapshot, then);
        }
    }
}

#[test]
fn many_keys_grow_and_shrink_one_table() {
    let mut state = ShardedState::builder().shards(1).build().unwrap();
    for i in 0..20_000u32 {
        state.put("", &i.to_le_bytes(), &i.to_be_bytes());
    }
    for i in (0..20_000u32).filter(|i| i % 3 > 0) {
        assert_eq!(state.delete("", &i.to_le_bytes()), Some(i.to_be_bytes().to_vec()));
    }
    for i in 0..20_000u32 {
        let expected = (i % 3 == 0).then(|| i.to_be_bytes().to_vec());
        assert_eq!(state.read("", &i.to_le_bytes()), expected);
    }
    assert_eq!(state.len(), 6667);
}

#[test]
fn ten_megabytes_come_and_go() {
    let mut state = sharded(2);
    let big = vec![5; 10 << 20];
    state.put("a", b"", &big);
    assert!(state.read_with("a", b"", |value| value == Some(&big[..])));
    assert_eq!(ShardedState::deserialize(&bytes_of(&state)[..]).unwrap().digest(), state.digest());
    assert!(state.update("a", b"", b"small") == Some(big.clone()));
    assert_eq!(state.read("a", b"").as_deref(), Some(&b"small"[..]));
    let mut grown = state.snapshot();
    grown.put("a", b"", &big);
    assert!(grown.delete("a", b"") == Some(big));
    assert!(grown.is_empty() && state.len() == 1);
}

#[test]
fn a_custom_operator_survives_a_snapshot_and_is_missed_after_deserializing() {
    let xor = MergeOperator::Custom(&Xor);
    let mut state = ShardedState::builder().shards(4).merge_operator("x", xor).build().unwrap();
    state.merge("x", b"k", &[3]);
    let mut copy = state.snapshot();
    copy.merge("x", b"k", &[5]);
    assert_eq!((state.read("x", b"k"), copy.read("x", b"k")), (Some(vec![3]), Some(vec![6])));
    let mut restored = ShardedState::deserialize(&bytes_of(&state)[..]).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| restored.merge("x", b"k", &[5]))).is_err());
    let mut restored = ShardedState::deserialize(&bytes_of(&state)[..]).unwrap();
    restored.set_merge_operator("x", xor);
    restored.merge("x", b"k", &[5]);
    assert_eq!(restored.digest(), copy.digest());
}

#[test]
fn settings_are_checked() {
    let build = |n| ShardedState::builder().shards(n).build().map(|state| state.shard_count());
    assert_eq!(build(0), Err(ConfigError::Zero { name: "shards" }));
    assert_eq!(build(65_537), Err(ConfigError::TooLarge { name: "shards", value: 65_537, max: 65_536 }));
    assert_eq!((build(1), build(3), build(65_536)), (Ok(1), Ok(4), Ok(65_536)));
    assert_eq!(ShardedState::default().shard_count(), 4096);
}

/// 64 shards of about 16 entries: one record of 80 bytes is more than a sixteenth of one.
#[test]
fn small_shards_are_copied_when_touched_and_only_while_a_snapshot_lives() {
    let mut state = filled(64, 1000, 0);
    assert_eq!(state.shard_copies(), 0);
    let snapshot = state.snapshot();
    let before = state.digest();
    for round in 0..2u8 {
        for i in [1u32, 4, 7, 10, 13] {
            state.put("b", &i.to_le_bytes(), &[round; 60]);
        }
    }
    assert!((1..=5).contains(&state.shard_copies()), "{}", state.shard_copies());
    assert_eq!((snapshot.digest(), snapshot.shard_copies()), (before, 0));
    let copies = state.shard_copies();
    assert!(!state.create("b", &1u32.to_le_bytes(), b""));
    state.remove("b", b"absent");
    state.delete("b", b"absent");
    drop(snapshot);
    for i in 0..1000u32 {
        state.put("a", &i.to_le_bytes(), b"");
    }
    assert_eq!(state.shard_copies(), copies);
}

/// One shard of 1000 entries of 64 bytes, of which a sixteenth is 62 entries.
#[test]
fn large_shards_are_copied_when_a_sixteenth_of_them_has_changed() {
    let fill = || {
        let mut state = sharded(1);
        (0..1000u32).for_each(|i| state.put("a", &i.to_le_bytes(), &[0; 40]));
        state
    };
    let mut state = fill();
    let write = |state: &mut ShardedState, keys: std::ops::Range<u32>| {
        keys.for_each(|i| state.put("a", &i.to_le_bytes(), &[1; 40]));
        state.shard_copies()
    };
    let snapshot = state.snapshot();
    // Again and again the same keys, of which one comes and goes.
    for _ in 0..3 {
        assert_eq!(write(&mut state, 0..60), 0);
        assert!(state.delete("a", &0u32.to_le_bytes()).is_some());
        assert!(state.delete("a", &0u32.to_le_bytes()).is_none());
        assert!(state.create("a", &0u32.to_le_bytes(), b""));
        assert!(!state.create("a", &1u32.to_le_bytes(), b""));
    }
    // A second snapshot shares what was written beside the first.
    let second = state.snapshot();
    assert_eq!(write(&mut state, 0..60), 0);
    assert_eq!(write(&mut state, 60..100), 1);
    assert_eq!(write(&mut state, 0..1000), 1);
    assert_eq!(snapshot.digest(), fill().digest());
    let mut expected = fill();
    write(&mut expected, 1..60);
    expected.put("a", &0u32.to_le_bytes(), b"");
    assert_eq!(second.digest(), expected.digest());
    drop((snapshot, second));
    // What is beside a table that nobody shares any more moves into it.
    let snapshot = state.snapshot();
    for i in 0..10u32 {
        state.put("a", &i.to_le_bytes(), &[2; 40]);
        expected.put("a", &i.to_le_bytes(), &[2; 40]);
    }
    state.remove("a", &10u32.to_le_bytes());
    expected.remove("a", &10u32.to_le_bytes());
    assert_eq!((state.len(), state.shard_copies()), (999, 1));
    drop(snapshot);
    assert_eq!(write(&mut state, 11..1000), 1);
    write(&mut expected, 11..1000);
    assert_eq!(content(&state), content(&expected));
}

#[test]
fn a_large_shard_loses_all_its_keys_beside_a_snapshot() {
    let mut state = sharded(1);
    (0..40u32).for_each(|i| state.put("a", &i.to_le_bytes(), &[0; 4000]));
    let snapshot = state.snapshot();
    (0..40u32).for_each(|i| assert!(state.delete("a", &i.to_le_bytes()).is_some()));
    assert!(state.is_empty() && state.read("a", &0u32.to_le_bytes()).is_none());
    assert_eq!((state.shard_copies(), snapshot.len()), (0, 40));
    drop(snapshot);
    state.put("a", b"k", b"v");
    assert_eq!(content(&state), Oracle::from([(("a".to_owned(), b"k".to_vec()), b"v".to_vec())]));
}

#[test]
fn parts_are_taken_beside_shards_that_a_snapshot_shares() {
    let mut state = filled(4, 2000, 0);
    let mut replica = filled(4, 2000, 1);
    let snapshots = (state.snapshot(), replica.snapshot());
    let before = snapshots.0.digest();
    let write = |state: &mut ShardedState, key: u32, value: &[u8]| state.put("a", &key.to_le_bytes(), value);
    (0..20).for_each(|key| write(&mut state, 3 * key, b"new"));
    (0..20).for_each(|key| write(&mut replica, 3 * key, b"new"));
    write(&mut state, 0, b"only here");
    let now = state.descriptor();
    let changed = state.changed_parts(&now, Some(&replica.descriptor()));
    assert_eq!(changed.len(), 1);
    replica.install(&now, vec![state.part(changed[0]).unwrap()]).unwrap();
    assert_eq!((replica.digest(), content(&replica)), (state.digest(), content(&state)));
    assert_eq!((state.shard_copies(), replica.shard_copies()), (0, 0));
    assert_eq!((snapshots.0.digest(), snapshots.1.digest()), (before, before));
}

#[test]
fn the_table_hash_is_seeded_per_process() {
    let hash = Key::new(&process_hasher(), 0, b"key").hash;
    assert_seeded_per_process("state::sharded::tests::the_table_hash_is_seeded_per_process", hash);
}

#[test]
fn the_digest_depends_on_the_content_alone() {
    let state = filled(8, 500, 0);
    for (shards, seed) in [(8, 1), (1, 33), (64, 2), (4096, 499)] {
        let other = filled(shards, 500, seed);
        assert_eq!(other.digest(), state.digest());
        assert!(other.iter().eq(state.iter()));
    }
    let mut other = state.snapshot();
    other.put("a", &0u32.to_le_bytes(), b"another value");
    assert_ne!(other.digest(), state.digest());
}

#[test]
fn bringing_keys_near_changes_nothing_and_asks_for_no_key_that_cannot_be_there() {
    for state in [sharded(4), filled(4, 300, 1)] {
        let before = content(&state);
        let keys: Vec<Whereabouts> = (0..600u32)
            .flat_map(|key| ["a", "b", "no such column"].map(|column| (column, key.to_le_bytes())))
            .filter_map(|(column, key)| state.whereabouts(column, &key))
            .collect();
        state.prefetch(&keys);
        state.prefetch(&[]);
        assert_eq!(content(&state), before);
        assert_eq!(state.whereabouts("no such column", b"k"), None);
    }
    let state = filled(4, 300, 0);
    assert!(state.whereabouts("a", b"not there").is_some(), "only a look tells");
}

/// The placement of keys and both formats are fixed for ever: these values must not change.
#[test]
fn formats_are_stable() {
    let hex = |digest: Digest| blake3::Hash::from(digest).to_hex().to_string();
    let state = filled(8, 100, 0);
    assert_eq!(hex(state.digest()), "bfe7c41253a7e90eb80e15d47baafe535a4d5d132af8c131d8b1020ee50a0330");
    assert_eq!(
        hex(state.descriptor().digest()),
        "314faf88cd739654766590e090ad11cc663cbf5b884c37c83b59219a57745de5"
    );
    assert_eq!(
        hex(*blake3::hash(&bytes_of(&state)).as_bytes()),
        "862638fb50def00109b167c385437b49a1396dbbf85acb1eb9db7b8ccabd18b4"
    );
}

/// Commits `changes` with several threads, sorted into `groups` by their places.
fn commit_together(state: &mut ShardedState, changes: &[Change<'_>], groups: usize, threads: usize) {
    let mut heads = vec![END; groups];
    let place = |change: &Change<'_>| state.place(change.column, change.key).expect("every key has one");
    let places = changes.iter().map(place);
    let next: Vec<u32> = (0..).zip(places).map(|(index, place)| join(&mut heads, index, place)).collect();
    let changes = Changes::new(changes).in_groups(Groups::new(&heads, &next));
    let mut threads = Threads(threads, 0);
    state.commit(SeqNo(1), &changes, &mut threads).unwrap();
    assert_eq!(threads.1, 1, "they take part");
}

#[test]
fn commit_in_parallel_equals_commit_in_sequence() {
    let keys: Vec<[u8; 4]> = (0..3000u32).map(u32::to_le_bytes).collect();
    // Columns change with every change, or stay for some; "new" first occurs where a key of it is removed.
    let columns = ["new", "a", "b", "", "never here"];
    for (stay, shards) in [(1, 256), (7, 256), (100, 256), (7, 2), (7, 1)] {
        let changes = keys.iter().enumerate().map(|(i, key)| {
            let column = columns[i / stay % columns.len()];
            let value = (column != "never here" && i % 7 > 0).then_some(&key[..i % 4]);
            Change { column, key, value, operand: None }
        });
        let changes: Vec<Change<'_>> = changes.collect();
        let mut alone = filled(shards, 2000, 0);
        let snapshot = alone.snapshot();
        alone.commit(SeqNo(1), &Changes::new(&changes), &mut Solo).unwrap();
        assert_eq!(alone.shard_copies(), shards as u64);
        drop(snapshot);
        for (groups, threads) in [(2, 2), (8, 2), (256, 3), (1024, 3)] {
            let mut together = filled(shards, 2000, 0);
            let snapshot = together.snapshot();
            let before = snapshot.digest();
            for _ in 0..2 {
                commit_together(&mut together, &changes, groups, threads);
            }
            assert_eq!(content(&together), content(&alone));
            assert_eq!(together.descriptor(), alone.descriptor());
            assert_eq!((snapshot.digest(), together.shard_copies()), (before, shards as u64));
        }
    }
}

#[test]
fn a_commit_merges_operands_as_merge_does() {
    use MergeOperator::{Custom, Max, WrappingAdd128};
    let state = |shards| {
        let builder = ShardedState::builder().shards(shards).merge_operator("a", WrappingAdd128);
        let builder = builder.merge_operator("b", Max).merge_operator("own", Custom(&Xor));
        let mut state = builder.build().unwrap();
        for n in 0..300_u32 {
            // Some of these values have another length than what is left by a merge.
            for column in ["a", "b", "own"] {
                state.put(column, &n.to_le_bytes(), &[n as u8; 20][..n as usize % 21]);
            }
        }
        state
    };
    // Half of the keys are not there, and neither is the last column.
    let keys: Vec<[u8; 4]> = (0..600_u32).map(u32::to_le_bytes).collect();
    let columns = ["a", "b", "own", "new"];
    let changes = columns.iter().flat_map(|&column| {
        let operand =
            |i: usize| if i.is_multiple_of(3) { &b"12345678901234567"[..i % 18] } else { &keys[i][..] };
        keys.iter().enumerate().map(move |(i, key)| match i % 5 {
            3 => Change { column, key, value: Some(b"set"), operand: None },
            4 => Change { column, key, value: None, operand: None },
            _ => Change { column, key, value: None, operand: Some(operand(i)) },
        })
    });
    let changes: Vec<Change<'_>> = changes.collect();
    for shards in [1, 2, 256] {
        let mut expected = state(shards);
        for &Change { column, key, value, operand } in [&changes[..], &changes[..]].concat().iter() {
            match (value, operand) {
                (Some(value), _) => expected.put(column, key, value),
                (None, Some(operand)) => expected.merge(column, key, operand),
                (None, None) => expected.remove(column, key),
            }
        }
        for shared in [false, true] {
            let (mut alone, mut together) = (state(shards), state(shards));
            let snapshots = shared.then(|| (alone.snapshot(), together.snapshot()));
            for _ in 0..2 {
                alone.commit(SeqNo(1), &Changes::new(&changes), &mut Solo).unwrap();
                commit_together(&mut together, &changes, 256, 3);
            }
            drop(snapshots);
            assert_eq!(content(&alone), content(&expected));
            assert_eq!(content(&together), content(&expected));
        }
    }
}

#[test]
fn what_several_threads_commit_goes_beside_large_shards() {
    let change = |key| Change { column: "a", key, value: Some(&b"committed"[..]), operand: None };
    let keys: Vec<[u8; 4]> = (0..300u32).step_by(3).map(u32::to_le_bytes).collect();
    let changes: Vec<Change<'_>> = keys.iter().map(|key| change(key)).collect();
    for shards in [1, 2] {
        let mut state = filled(shards, 9000, 0);
        let snapshot = state.snapshot();
        let before = snapshot.digest();
        let commit = |state: &mut ShardedState, changes: &[Change<'_>]| commit_together(state, changes, 8, 2);
        commit(&mut state, &changes);
        assert_eq!((state.shard_copies(), snapshot.digest()), (0, before));
        let mut expected = filled(shards, 9000, 0);
        commit(&mut expected, &changes);
        assert_eq!((state.digest(), state.len()), (expected.digest(), expected.len()));
        drop(snapshot);
        // The first write moves all of it.
        for state in [&mut state, &mut expected] {
            commit(state, &changes[1..]);
            state.remove("a", &keys[0]);
        }
        assert_eq!((content(&state), state.shard_copies()), (content(&expected), 0));
    }
}

#[test]
fn every_truncation_and_every_flipped_bit_of_a_stream_is_refused() {
    let state = filled(4, 7, 0);
    let bytes = bytes_of(&state);
    assert_eq!(ShardedState::deserialize(&bytes[..]).unwrap().digest(), state.digest());
    for len in 0..bytes.len() {
        let error = ShardedState::deserialize(&bytes[..len]).unwrap_err();
        let StateError::CutShort { missing } = error else { panic!("{len} bytes: {error}") };
        let what = if len < 36 {
            "header"
        } else if len < bytes.len() - 32 {
            "body"
        } else {
            "digest"
        };
        assert!(missing.contains(what), "{len} bytes: {missing}");
    }
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let error = ShardedState::deserialize(&bytes[..]).unwrap_err();
        // A longer body than there is cannot be told from a stream that ends early.
        let ends_early = matches!(error, StateError::CutShort { .. }) && (20..28).contains(&(bit / 8));
        let damaged = matches!(error, StateError::WrongDigest { .. } | StateError::Malformed { .. });
        assert!(damaged || ends_early, "bit {bit}: {error}");
    }
}

#[test]
fn a_stream_leaves_what_follows_it() {
    let mut bytes = bytes_of(&filled(4, 50, 0));
    bytes.extend_from_slice(b"next");
    let mut rest = &bytes[..];
    ShardedState::deserialize(&mut rest).unwrap();
    assert_eq!(rest, b"next");
}

fn all_parts(state: &ShardedState) -> Vec<StatePart> {
    let descriptor = state.descriptor();
    state.changed_parts(&descriptor, None).into_iter().map(|id| state.part(id).unwrap()).collect()
}

#[test]
fn changed_parts_alone_bring_an_old_replica_up_to_date() {
    let mut state = filled(64, 1000, 0);
    let mut replica = filled(64, 1000, 33);
    let before = state.descriptor();
    assert_eq!(replica.descriptor(), before);
    state.put("a", b"new", b"value");
    state.remove("a", &0u32.to_le_bytes());
    state.put("a new column", b"k", b"v");
    let now = state.snapshot().descriptor();
    let changed = state.changed_parts(&now, Some(&before));
    assert!((1..=3).contains(&changed.len()));
    let mut parts: Vec<StatePart> = changed.iter().map(|&id| state.part(id).unwrap()).collect();
    parts.reverse();
    for part in &parts {
        assert_eq!(ShardedState::check_part(&now, part).unwrap(), part.id());
    }
    parts.push(parts[0].clone());
    replica.install(&now, parts).unwrap();
    assert_eq!((replica.digest(), replica.descriptor()), (state.digest(), now));
    // Columns and operators go on as before.
    for state in [&mut state, &mut replica] {
        state.put("a new column", b"k", b"w");
        state.merge("max", b"m", &[9]);
        state.merge("max", b"m", &[4]);
        assert_eq!(state.read("max", b"m").unwrap(), 9u64.to_le_bytes());
    }
    assert_eq!(replica.digest(), state.digest());
}

#[test]
fn another_number_of_shards_is_taken_on() {
    let state = filled(64, 300, 0);
    for shards in [1, 128] {
        let mut replica = filled(shards, 200, 1);
        replica.install(&state.descriptor(), all_parts(&state)).unwrap();
        assert_eq!((replica.digest(), replica.shard_count()), (state.digest(), 64));
        let before = filled(shards, 1, 0).descriptor();
        assert_eq!(state.changed_parts(&state.descriptor(), Some(&before)).len(), all_parts(&state).len());
    }
}

#[test]
fn a_state_becomes_empty_without_any_part() {
    let mut replica = filled(16, 100, 0);
    replica.install(&sharded(16).descriptor(), Vec::new()).unwrap();
    assert!(replica.is_empty());
}

#[test]
fn wrong_stale_unknown_and_missing_parts_are_refused_and_change_nothing() {
    let state = filled(32, 1000, 0);
    let (descriptor, parts) = (state.descriptor(), all_parts(&state));
    let mut replica = filled(32, 10, 0);
    let before = replica.digest();
    let stale = replica.part(parts[0].id()).unwrap();
    let mut flipped = parts[0].bytes().to_vec();
    flipped[20] ^= 1;
    let wrong = StatePart::from_bytes(parts[0].id(), parts[0].digest(), flipped);
    let unknown = StatePart::from_bytes(PartId(32), parts[0].digest(), parts[0].bytes().to_vec());
    assert!(matches!(ShardedState::check_part(&descriptor, &stale), Err(StateError::StalePart { .. })));
    assert!(matches!(ShardedState::check_part(&descriptor, &wrong), Err(StateError::WrongDigest { .. })));
    assert!(matches!(ShardedState::check_part(&descriptor, &unknown), Err(StateError::UnknownPart { .. })));
    assert!(matches!(state.part(PartId(32)), Err(StateError::UnknownPart { .. })));
    for bad in [stale, wrong, unknown] {
        let parts = parts.iter().cloned().chain([bad]).collect();
        assert!(replica.install(&descriptor, parts).is_err());
        assert_eq!(replica.digest(), before);
    }
    let error = replica.install(&descriptor, parts[2..].to_vec()).unwrap_err();
    assert_eq!(error.to_string(), "the state is cut short: 2 parts (shard 0, shard 1) missing");
    let error = replica.install(&descriptor, Vec::new()).unwrap_err();
    assert!(error.to_string().contains("32 parts (shard 0, shard 1,"), "{error}");
    assert_eq!(replica.digest(), before);
    replica.install(&descriptor, parts).unwrap();
    assert_eq!(replica.digest(), state.digest());
}

/// Parts whose digests are right but whose bytes are not: only a lying descriptor brings them.
#[test]
fn bytes_that_no_state_would_write_are_malformed() {
    let state = filled(2, 100, 0);
    let good = state.part(PartId(0)).unwrap().into_bytes();
    let mut elsewhere = state.snapshot();
    let mut cases = vec![state.part(PartId(1)).unwrap().into_bytes(), [&good[..], &good[..]].concat()];
    cases.extend((1..good.len()).step_by(7).map(|len| good[..len].to_vec()));
    cases.push([&1u32.to_le_bytes()[..], &[0xff], &1u64.to_le_bytes(), &[0; 8]].concat());
    cases.push([&[0; 4][..], &u64::MAX.to_le_bytes(), &[0xff; 8]].concat());
    cases.push([0; 12].to_vec());
    for bytes in cases {
        let digest = *blake3::hash(&bytes).as_bytes();
        let mut body = state.descriptor().to_bytes();
        body.truncate(body.len() - 32);
        body[16..48].copy_from_slice(&digest);
        let seal = blake3::hash(&body);
        let descriptor = StateDescriptor::from_bytes(&[&body, &seal.as_bytes()[..]].concat()).unwrap();
        let part = StatePart::from_bytes(PartId(0), digest, bytes.clone());
        let result = elsewhere.install(&descriptor, vec![part]);
        assert!(matches!(result, Err(StateError::Malformed { .. })), "{bytes:?}: {result:?}");
        assert_eq!(elsewhere.digest(), state.digest());
    }
}

/// It would make a state whose own stream is another one.
#[test]
fn a_stream_with_a_column_that_nothing_needs_is_malformed() {
    let mut bytes = bytes_of(&ShardedState::builder().shards(2).build().unwrap());
    bytes.truncate(bytes.len() - 32);
    // One column, of the default operator, called "x"; no entries.
    bytes[16] = 1;
    bytes[20] = 6;
    bytes.extend_from_slice(&[1, 0, 0, 0, 0, b'x']);
    let seal = blake3::hash(&bytes);
    let result = ShardedState::deserialize(&[&bytes, &seal.as_bytes()[..]].concat()[..]);
    assert!(matches!(result, Err(StateError::Malformed { .. })), "{result:?}");
}

#[test]
fn a_descriptor_travels_as_bytes() {
    let descriptor = filled(4, 20, 0).descriptor();
    let bytes = descriptor.to_bytes();
    assert_eq!(StateDescriptor::from_bytes(&bytes).unwrap(), descriptor);
    for len in 0..bytes.len() {
        let result = StateDescriptor::from_bytes(&bytes[..len]);
        assert!(matches!(result, Err(StateError::CutShort { .. })), "{len} bytes: {result:?}");
    }
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(StateDescriptor::from_bytes(&bytes).is_err(), "bit {bit}");
    }
    assert!(StateDescriptor::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
}

//! The corpus as it was made: small inputs that reach far, from which a fuzzer finds its way.
//!
//! `cargo test -p fuzz-targets --test corpus -- --ignored` writes them to `fuzz/corpus/`. What a fuzzer finds is added there
//! by hand.

use atlas_smr_execution::state::{CRUDState, DivisibleState, MergeOperator, MonolithicState, ShardedState};
use workloads::digest::mix;

/// An input.
#[derive(Clone, Debug)]
pub struct Seed {
    /// Its target.
    pub target: &'static str,
    /// Its file.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// All of them.
pub fn all() -> Vec<Seed> {
    let seed = |target| move |(name, bytes): (&str, Vec<u8>)| Seed { target, name: name.to_owned(), bytes };
    let mut seeds: Vec<Seed> = differential().map(seed("differential")).collect();
    seeds.extend((0..8).map(|n| Seed {
        target: "differential",
        name: format!("random-{n}"),
        bytes: (0..200 + 50 * n).map(|i| mix(n, i) as u8).collect(),
    }));
    seeds.extend(install().map(seed("install")));
    seeds.extend(trace().map(seed("trace")));
    seeds
}

/// Header: keys, threads, mode, chunk, window, shards.
fn differential() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    /// A batch of these programs, each the same number of times.
    fn batch(kind: u8, programs: &[&[u8]], times: usize) -> Vec<u8> {
        let program = |program: &&[u8]| [&[(program.len() / 4) as u8], *program].concat();
        let programs: Vec<u8> = programs.iter().flat_map(program).collect();
        let len = programs.len();
        [&[kind, (times * len.min(1)) as u8][..], &programs.repeat(times)].concat()
    }
    const ADD: &[u8] = &[4, 0, 1, 9];
    const SUM: &[u8] = &[0, 0, 1, 0, 7, 1, 2, 16];
    const MERGE: &[u8] = &[10, 0, 1, 3];
    const BRANCH: &[u8] = &[0, 0, 1, 0, 13, 0, 0, 1, 6, 0, 1, 0, 0x84, 0, 1, 33];
    const WIDE: &[u8] = &[15, 0, 1, 23, 2, 0, 1, 0];
    let every: Vec<u8> = (0..16).flat_map(|code| [code, 1, 1, code * 2]).collect();
    let on = |header: [u8; 6], steps: &[Vec<u8>]| [&header[..], &steps.concat()].concat();
    vec![
        ("empty", Vec::new()),
        ("empty-batches", on([1, 1, 0, 0, 0, 1], &[batch(0, &[], 0), batch(5, &[], 0), vec![9]])),
        ("one-hot-key", on([0, 3, 0, 1, 0, 0], &[batch(0, &[ADD], 30), batch(5, &[ADD], 20)])),
        ("chain", on([2, 2, 0x80, 2, 1, 1], &[batch(0, &[SUM], 25), batch(0, &[SUM], 25), vec![9]])),
        ("merges", on([2, 3, 0, 1, 0, 2], &[batch(0, &[MERGE, SUM], 12), batch(5, &[MERGE], 20)])),
        ("branches", on([3, 3, 0, 0, 3, 3], &[batch(0, &[BRANCH], 14), batch(5, &[BRANCH], 12)])),
        ("wide", on([4, 3, 0, 0, 0, 1], &[batch(5, &[WIDE], 9), batch(5, &[WIDE], 9)])),
        ("by-hints", on([2, 3, 1, 1, 0, 1], &[batch(0, &[SUM], 20), batch(0, &[BRANCH], 9), vec![9]])),
        (
            "catch-up",
            on([2, 1, 2, 0, 0, 0], &[vec![6, 0], batch(0, &[SUM], 5), batch(7, &[ADD], 5), vec![9]]),
        ),
        (
            "asked",
            on([2, 1, 0, 0, 0, 0], &[batch(0, &[ADD], 9), batch(8, &[SUM], 9), batch(0xe1, &[ADD], 9)]),
        ),
        ("every-code", on([5, 3, 0, 1, 2, 1], &[batch(0, &[&every[..32], &every[32..]], 7), vec![9]])),
    ]
    .into_iter()
}

fn state(entries: u8) -> ShardedState {
    let builder = ShardedState::builder().shards(4).merge_operator("max", MergeOperator::Max);
    let mut state = builder.build().expect("valid");
    for n in 0..entries {
        state.put(["", "a", "max"][usize::from(n % 3)], &[n, 1], &vec![n; usize::from(n)]);
    }
    state
}

/// The first byte is the kind of the input.
fn install() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    let of = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    let descriptor = state(9).descriptor().to_bytes();
    let stream = |entries| {
        let mut bytes = Vec::new();
        state(entries).serialize(&mut bytes).expect("a vector takes everything");
        bytes
    };
    let (small, large) = (stream(0), stream(9));
    let unsigned = |bytes: &[u8]| bytes[..bytes.len() - 32].to_vec();
    let mut with_column = unsigned(&small);
    with_column[16] += 1;
    with_column.extend_from_slice(&[3, 0, 0, 0, 0, b'm', b'i', b'x']);
    // Three entries with keys and values of one and two bytes.
    let entries = [3, 1, 1, 7, 2, 8, 8, 2, 1, 9, 0, 3, 2, 5, 5, 1, 4];
    let part = of(5, &[&[2, 2], &entries[..], &[1], &entries[..], &[2, 0, 1]].concat());
    let with_edits = |edits: &[u8]| [&part[..part.len() - 3], edits].concat();
    let messages =
        |script: &[u8]| [&[6], &entries[..], &entries[..], &[(script.len() / 2) as u8], script].concat();
    vec![
        ("descriptor", of(0, &descriptor)),
        ("descriptor-mended", of(1, &unsigned(&descriptor))),
        ("descriptor-cut", of(0, &descriptor[..40])),
        ("stream", of(2, &large)),
        ("stream-empty", of(2, &small)),
        ("stream-mended", of(3, &unsigned(&large))),
        ("stream-mended-empty", of(3, &unsigned(&small))),
        // Found: a column that nothing needs was accepted.
        ("stream-mended-needless-column", of(4, &with_column)),
        ("stream-cut-and-mended", of(4, &large[..90])),
        ("parts", part.clone()),
        ("parts-mended", with_edits(&[2, 1, 0, 12, 1, 0, 0, 0, 97, 1, 0, 0, 0, 0, 0, 0])),
        ("parts-lost", with_edits(&[2, 1, 2, 0, 4])),
        ("parts-doubled", with_edits(&[3, 2, 3, 1, 3, 0, 1, 7, 1, 5])),
        ("messages", messages(&[0, 0, 2, 0, 3, 0, 7, 0])),
        ("messages-mixed", messages(&[0, 0, 1, 0, 0, 1, 2, 1, 7, 0, 3, 0, 3, 1])),
        ("messages-damaged", messages(&[0, 1, 4, 1, 5, 1, 3, 1, 6, 0, 6, 1, 7, 0])),
    ]
    .into_iter()
}

fn trace() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    const A: &str = "5df9b87991262f6ba471f09758cde1c0fc1de734";
    const B: &str = "a1e4380a3b1f749673e270229993ee55f35663b4";
    let header = |transactions: usize| {
        format!(
            "{{\"block\":7,\"gas\":1,\"txs\":{transactions},\"beneficiary\":1,\
             \"keys\":[\"A{A}\",\"A{B}\",\"C{A}\",\"S{A}/1f\"]}}"
        )
    };
    let payment = r#"{"ns":10,"gas":21,"from":0,"to":1,"r":[[0,"x"],[1,"x"],[2,"x"]],"w":[[0,"x"],[1,"x"]],"d":[[0,"-9"],[1,"7"]],"bo":[],"no":[]}"#;
    let call = r#"{"ns":10,"gas":21,"from":1,"to":-1,"r":[[1,"x"],[3,"x"]],"w":[[3,"x"]],"d":[[1,-3]],"bo":[1],"no":[0]}"#;
    let huge = r#"{"ns":18446744073709551615,"gas":18446744073709551615,"from":0,"to":null,"r":[],"w":[],"d":[[0,"170141183460469231731687303715884105727"],[1,"-170141183460469231731687303715884105728"]],"bo":[0],"no":[1]}"#;
    let lines = |transactions: &[&str]| {
        [&[&*header(transactions.len())], transactions].concat().join("\n").into_bytes()
    };
    vec![
        ("empty", Vec::new()),
        ("header", lines(&[])),
        ("payment", lines(&[payment])),
        ("call", lines(&[payment, call])),
        ("huge", lines(&[huge, huge, call])),
        ("cut", lines(&[payment, call])[..300].to_vec()),
        ("too-few", [header(3), payment.to_owned()].join("\n").into_bytes()),
        ("no-account", header(0).replace("\"beneficiary\":1", "\"beneficiary\":2").into_bytes()),
    ]
    .into_iter()
}

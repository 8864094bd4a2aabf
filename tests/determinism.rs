//! One log, one digest: whatever the executor, the number of threads, pinning, the way a batch is run, the number of shards,
//! the process's hash seeds, the build profile.
//!
//! The digests of state and replies of each log are constants here, so that builds that never meet are compared, too:
//! this test passes in debug and in release, on this machine and on others, or one of them has diverged. Seeds are drawn
//! once for each process; so this program runs itself as often as there are settings.
//!
//! Who changes a workload's generator or its operations changes what is computed, and has to renew the constants.

mod common;

use std::process::{Command, Stdio};

use atlas_smr_execution::app::Application;
use atlas_smr_execution::batch::{NodeId, SeqNo, UpdateBatch};
use atlas_smr_execution::executor::{ExecutionMode, ExecutorConfig};
use atlas_smr_execution::state::{Digest, MonolithicState, ShardedState};
use common::rig::{MultiDiv, MultiMon, Output, Rig, SingleDiv, SingleMon};
use workloads::digest::{ReplyDigest, mix};
use workloads::program::{Program, ProgramLogic};
use workloads::{Branch, Kv, KvMix, Logic, Plan, Service, Transfer, Workload};

/// By log: digests of the state and of the replies.
const EXPECTED: [(&str, &str, &str); 5] = [
    ("transfers", "056581fb619e1abdf5c696e9519671000a58dba9c76b2050fa1145dbda4bf101", "5423b0bb712b535f"),
    ("updates", "0615c226f77529a4f1529a71e4f1a4b147d69fb70051d508a0b6022ea4128326", "f79a1faf24aa723b"),
    ("branches", "11ba83bc22feb1a28234564713d95db886c5568398d042f211700fa56947e6d7", "80cc23567fb63ab1"),
    ("programs", "0e52a49c6fbf1dd62f0e5b1fb16ecd62913c22fcab7bfd5133bbe5adca41c463", "0bad4256af0cb489"),
    ("merges", "88d6098e6ccd9a4e0c2caa455df3af4f5cb23fb60d44b9a61826d9136ab1a22d", "f4679614d9e3dd27"),
];

/// In a process that this program has started: the setting.
const INSIDE: &str = "ATLAS_TEST_OF_DETERMINISM";

/// How a log is run.
#[derive(Clone, Copy, Debug)]
struct Setting {
    threads: usize,
    pin: bool,
    shards: usize,
    chunk: Option<usize>,
    join: usize,
}

impl Setting {
    fn of(number: usize) -> Setting {
        Setting {
            threads: 1 << (number / 2),
            pin: number % 2 == 1,
            shards: [1, 16, 256, 4096][number / 2],
            chunk: [None, Some(5)][number % 2],
            join: [1024, 0][number % 2],
        }
    }

    fn config(&self, mode: ExecutionMode, forwarding: bool) -> ExecutorConfig {
        let mut config = ExecutorConfig::with_threads(self.threads);
        (config.mode, config.forwarding) = (mode, forwarding);
        (config.pin, config.chunk, config.join) = (self.pin, self.chunk, self.join);
        config
    }
}

/// What came out of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Digests {
    state: Digest,
    /// Of the whole as it is written, which holds the number of shards.
    stream: Digest,
    replies: u64,
}

fn digests(output: &Output<u64>) -> Digests {
    let mut replies = ReplyDigest::new();
    for reply in &output.replies {
        let address = [reply.to().0.into(), reply.session_id().0, reply.operation_id().0];
        address.into_iter().chain([*reply.payload()]).for_each(|number| replies.push(number));
    }
    let mut stream = Vec::new();
    output.state.serialize(&mut stream).expect("a vector takes everything");
    let stream = *blake3::hash(&stream).as_bytes();
    Digests { state: output.state.digest(), stream, replies: replies.value() }
}

/// Runs one log through all executors, in all ways; there must be one result.
fn one_result<L: Logic>(
    setting: &Setting,
    logic: &L,
    state: &ShardedState,
    batches: &[UpdateBatch<L::Request>],
) -> Digests {
    let app = Service(logic.clone());
    let mut looped = state.snapshot();
    for update in batches.iter().flat_map(UpdateBatch::updates) {
        app.update(&mut looped, update.operation().clone());
    }
    let run = |output: Output<u64>| digests(&output);
    let config = setting.config(ExecutionMode::Adaptive, true);
    let single = run(SingleMon::run(&config, app.clone(), state.snapshot(), batches.to_vec()));
    assert_eq!(single.state, looped.digest(), "the sequential loop's");
    let others = [
        run(SingleDiv::run(&config, app.clone(), state.snapshot(), batches.to_vec())),
        run(MultiMon::run(&config, app.clone(), state.snapshot(), batches.to_vec())),
        run(MultiDiv::run(&config, app.clone(), state.snapshot(), batches.to_vec())),
    ];
    let mut ways = vec![("adaptively".to_owned(), others.to_vec())];
    for mode in [ExecutionMode::Speculate, ExecutionMode::SpeculateByHints] {
        for forwarding in [false, true] {
            let config = setting.config(mode, forwarding);
            let output = if forwarding {
                MultiDiv::run(&config, app.clone(), state.snapshot(), batches.to_vec())
            } else {
                MultiMon::run(&config, app.clone(), state.snapshot(), batches.to_vec())
            };
            // Of two long batches, the executor's thread may have run both before another comes.
            let may_be_alone = setting.threads == 1 || setting.join > 0;
            assert!(may_be_alone || output.counters.speculations > 0, "{mode:?} runs ahead");
            ways.push((format!("{mode:?}, forwarding: {forwarding}"), vec![run(output)]));
        }
    }
    for (way, results) in ways {
        assert!(results.iter().all(|result| *result == single), "{way}: {results:?}, not {single:?}");
    }
    single
}

/// A log of a workload.
fn of_workload<W: Workload>(setting: &Setting, workload: &W) -> Digests {
    let mut state = empty(setting);
    workload.populate(&mut state);
    let batches: Vec<_> = workload.batches(Plan { seed: 7, batch: 97, operations: 1500 }).collect();
    one_result(setting, &workload.logic(), &state, &batches)
}

/// A log of random programs, whose instructions have codes out of `codes`.
fn of_programs(setting: &Setting, keys: u8, codes: &[u8]) -> Digests {
    let instruction = |n: u64| {
        let [code, column, key, value, ..] = mix(7, n).to_le_bytes();
        [codes[usize::from(code) % codes.len()], column, key, value]
    };
    let batch = |seq: u64| {
        let mut batch = UpdateBatch::new(SeqNo(seq));
        for id in 0..97 {
            let first = (seq * 97 + id) * 8;
            let bytes: Vec<u8> = (first..first + 1 + first / 8 % 8).flat_map(instruction).collect();
            batch.add(NodeId(id as u32 % 5), SeqNo(1), SeqNo(id), Program::from_bytes(&bytes, keys));
        }
        batch
    };
    one_result(setting, &ProgramLogic, &empty(setting), &(1..=15).map(batch).collect::<Vec<_>>())
}

fn empty(setting: &Setting) -> ShardedState {
    ShardedState::builder().shards(setting.shards).build().expect("valid")
}

/// Runs all logs; a line for each.
fn run(setting: &Setting) -> Vec<String> {
    let every: Vec<u8> = (0..16).flat_map(|code| [code, code | 0x80]).collect();
    // Merges that nobody looks at, and some that somebody does.
    let merges = [10, 11, 10, 0x8a, 10, 11, 0, 0x81, 6];
    let results = [
        of_workload(setting, &Transfer { accounts: 40, work_ns: 0, heavy: 0.0, counts: 0 }),
        of_workload(setting, &Kv { mix: KvMix::Update, keys: 100, value_size: 20 }),
        of_workload(setting, &Branch { keys: 50, work_ns: 0 }),
        of_programs(setting, 30, &every),
        of_programs(setting, 6, &merges),
    ];
    let hex = |digest: &Digest| blake3::Hash::from(*digest).to_hex();
    let line = |(log, result): (&(&str, _, _), &Digests)| {
        format!("{}: state {}, replies {:016x}", log.0, hex(&result.state), result.replies)
    };
    EXPECTED.iter().zip(&results).map(line).collect()
}

fn expected() -> Vec<String> {
    EXPECTED.iter().map(|(log, state, replies)| format!("{log}: state {state}, replies {replies}")).collect()
}

#[test]
fn one_digest_whatever_the_setting_and_the_process() {
    if let Ok(number) = std::env::var(INSIDE) {
        let setting = Setting::of(number.parse().expect("a number"));
        assert_eq!(run(&setting), expected(), "{setting:?}");
        return;
    }
    let name = "one_digest_whatever_the_setting_and_the_process";
    let program = std::env::current_exe().expect("a program");
    for number in 0..8 {
        let mut command = Command::new(&program);
        command.args(["--exact", name, "--nocapture"]).env(INSIDE, number.to_string());
        let output = command.stdin(Stdio::null()).output().expect("it runs");
        let [said, failed] =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success() && said.contains("1 passed"), "setting {number}:\n{said}{failed}");
    }
}

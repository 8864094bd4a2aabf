//! What fails around an executor: disks, memory, networks, readers, threads, clocks. `docs/failure-model.md` is the table of
//! all of it; here are the tests that no other file has.

mod common;

use std::sync::Arc;

use atlas_smr_execution::batch::{MaybeVec, SeqNo, UpdateBatch};
use atlas_smr_execution::error::{Failure, InitError, QueueError};
use atlas_smr_execution::executor::*;
use atlas_smr_execution::reply::ReplicaReplier;
use common::disk::{Content, Disk, Trouble};
use common::rig::Collector;
use common::script::{Script, Step, step};
use common::state::TestState;
use common::*;

on!([SingleMon, MultiMon, SingleDiv, MultiDiv] {
    a_state_that_panics_at_any_write_never_leaves,
    a_snapshot_without_memory_is_the_cause,
    a_network_that_blocks_leaves_the_caller_free,
    a_failure_behind_a_network_that_blocks_is_told_at_once,
    a_network_that_refuses_everything_stops_nobody,
});

mod in_parts {
    use super::*;

    on!([SingleDiv, MultiDiv] {
        a_reader_that_leaves_in_the_middle_of_a_checkpoint_costs_nothing_else,
        a_part_that_cannot_be_read_costs_its_checkpoint_only,
        a_state_channel_that_closes_after_any_piece_leaves_the_state_as_it_was,
        a_panic_while_a_state_is_installed_is_the_cause,
    });
}

const KEYS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

fn empty() -> TestState {
    TestState::default()
}

/// In place the batch stops in the middle; ahead of turn the commit does.
fn a_state_that_panics_at_any_write_never_leaves<K: Kind>() {
    for fatal in 0..KEYS.len() {
        let running = start::<K>();
        running.handle.queue_update_and_get_appstate(batch(1, [Op::Put("b", 1)])).unwrap();
        running.net.wait_for(1);
        let writes = (0..).zip(KEYS).map(|(n, key)| Op::Put(if n == fatal { "fault:write" } else { key }, 2));
        running.handle.queue_update_and_get_appstate(batch(2, writes)).unwrap();
        let cause = running.wait_for_failure();
        let by_commit = matches!(cause, Failure::CommitPanicked { batch: SeqNo(2), .. });
        let in_place = matches!(cause, Failure::OperationPanicked { batch: SeqNo(2), poisoned: true, .. });
        assert!(if K::RUNS_AHEAD { by_commit } else { in_place }, "{cause}");
        assert!(cause.to_string().contains("the write panics"), "{cause}");
        assert_only_the_first_checkpoint(running, &cause);
    }
}

fn a_snapshot_without_memory_is_the_cause<K: Kind>() {
    beside_another::<K>(|| {
        let running = start::<K>();
        running.handle.queue_update(batch(1, [Op::Put("fault:memory", 1)])).unwrap();
        running.handle.queue_update_and_get_appstate(batch(2, [Op::Put("a", 1)])).unwrap();
        let cause = running.wait_for_failure();
        assert!(matches!(cause, Failure::TransferPanicked { .. }), "{cause}");
        assert!(cause.to_string().contains("memory for a snapshot"), "{cause}");
        let (end, net, checkpoints) = running.join();
        assert!(end.is_err());
        assert_eq!(net.operations(), [1000, 2000], "what was executed is answered");
        assert!(matches!(checkpoints.next(&empty()), Err(RecvError::Failed(_))));
    });
}

/// A network that lets nothing through before `gate` is open, and little room before it.
fn blocked(gate: &Arc<Gate>) -> Setup {
    let mut setup = Setup::net(Net { gate: Some(Arc::clone(gate)), ..Net::default() });
    (setup.config.reply_buffer, setup.config.executing_buffer) = (1, 2);
    setup
}

fn a_network_that_blocks_leaves_the_caller_free<K: Kind>() {
    let gate = Gate::new();
    let running = blocked(&gate).start::<K>();
    let mut next = 1;
    let back = loop {
        match running.handle.try_queue_update(batch(next, [Op::Add("a", 1)])) {
            Ok(()) => next += 1,
            Err(QueueError::Full(back)) => break back,
            Err(error) => panic!("{error}"),
        }
    };
    gate.wait_for_visitor();
    // Nothing has failed, all can be looked at, and whoever does not want to wait has his batch back.
    assert!(running.handle.failure().is_none());
    assert!(running.handle.last_executed() < SeqNo(next) && running.counters().batches < next);
    assert_eq!(back, batch(next, [Op::Add("a", 1)]));
    gate.open();
    running.handle.queue_update(back).unwrap();
    assert_eq!(running.finish().values(), (1..=next).map(Some).collect::<Vec<_>>());
}

fn a_failure_behind_a_network_that_blocks_is_told_at_once<K: Kind>() {
    let gate = Gate::new();
    let running = blocked(&gate).start::<K>();
    running.handle.queue_update(batch(1, [Op::Add("a", 1)])).unwrap();
    gate.wait_for_visitor();
    running.handle.queue_update(batch(2, [Op::Panic])).unwrap();
    let cause = running.wait_for_failure();
    assert!(matches!(cause, Failure::OperationPanicked { batch: SeqNo(2), .. }), "{cause}");
    let told = running.checkpoints.next(&TestState::default());
    let Err(RecvError::Failed(told)) = told else { panic!("{told:?}") };
    assert_eq!(told.to_string(), cause.to_string());
    gate.open();
    let (end, net, _) = running.join();
    assert_eq!(end.unwrap_err().to_string(), cause.to_string());
    assert_eq!(net.operations(), [1000], "what was executed is answered all the same");
}

fn a_network_that_refuses_everything_stops_nobody<K: Kind>() {
    let running = Setup::net(Net { refuses: Some(1), ..Net::default() }).start::<K>();
    let batches: Vec<_> = (1..=20).map(|seq| batch(seq, KEYS.map(|key| Op::Add(key, seq)))).collect();
    batches.iter().for_each(|batch| running.handle.queue_update(batch.clone()).unwrap());
    running.handle.queue_update_unordered(reads(1, [Op::Get("a")])).unwrap();
    assert_eq!(running.read().state, reference(&batches));
    let metrics = running.handle.metrics();
    assert!(running.finish().sent().is_empty());
    assert_eq!(metrics.counters().reply_errors, 20 * KEYS.len() as u64 + 1);
}

fn a_reader_that_leaves_in_the_middle_of_a_checkpoint_costs_nothing_else<K: Kind>() {
    let running = Setup::config(|config| config.state_buffer = 1).start::<K>();
    running.handle.queue_update_and_get_appstate(batch(1, [Op::Put("a", 1)])).unwrap();
    let Running { handle, net, state: _state, checkpoints } = running;
    let StateRx::Div(checkpoints) = checkpoints else { panic!("in parts") };
    let first = checkpoints.recv().expect("the checkpoint begins");
    assert!(matches!(first.state(), AppState::StateDescriptor(_)));
    drop(checkpoints);
    for seq in 2..=20 {
        handle.queue_update_and_get_appstate(batch(seq, [Op::Add("a", 1)])).unwrap();
    }
    let metrics = handle.metrics();
    assert_eq!(within("join", || handle.join()).unwrap().last_executed, SeqNo(20));
    assert_eq!(net.values().last(), Some(&Some(20)));
    assert_eq!((metrics.counters().checkpoints, metrics.counters().dropped_checkpoints), (0, 20));
}

fn a_part_that_cannot_be_read_costs_its_checkpoint_only<K: Kind>() {
    let running = start::<K>();
    running.handle.queue_update_and_get_appstate(batch(1, [Op::Put("a", 1)])).unwrap();
    let base = running.checkpoints.next(&empty()).unwrap().state;
    let unreadable = "fault:unreadable part";
    running
        .handle
        .queue_update_and_get_appstate(batch(2, [Op::Put(unreadable, 1), Op::Put("b", 2)]))
        .unwrap();
    wait_until("the loss", || running.counters().dropped_checkpoints == 1);
    let batches = [batch(1, [Op::Put("a", 1), Op::Put("b", 2), Op::Put("c", 3)])];
    let mended = batch(3, [Op::Delete(unreadable), Op::Put("c", 3)]);
    running.handle.queue_update_and_get_appstate(mended).unwrap();
    {
        let StateRx::Div(checkpoints) = &running.checkpoints else { panic!("in parts") };
        let cut_off = checkpoints.recv_timeout(PATIENCE).unwrap();
        assert_eq!(cut_off.sequence_number(), SeqNo(2), "its descriptor, and nothing more");
    }
    // The next one says what has changed since the last that was whole.
    let arrived = running.checkpoints.next(&base).unwrap();
    assert_eq!((arrived.seq, arrived.state), (3, reference(&batches)));
    running.finish();
}

fn a_state_channel_that_closes_after_any_piece_leaves_the_state_as_it_was<K: Kind>() {
    let target = reference(&[batch(1, KEYS.map(|key| Op::Put(key, 7)))]);
    let parts = target.parts();
    for pieces in 1..=parts.len() + 1 {
        let running = start::<K>();
        running.handle.queue_update(batch(1, [Op::Put("a", 1)])).unwrap();
        running.state.send_first(7, &target);
        for part in &parts[..pieces - 1] {
            running.state.piece(7, InstallState::StatePart(MaybeVec::One(part.clone())));
        }
        running.handle.poll_state_channel().unwrap();
        running.handle.queue_update_and_get_appstate(batch(2, [Op::Put("b", 2)])).unwrap();
        let Running { handle, net, state, checkpoints } = running;
        drop(state);
        let arrived = checkpoints.next(&empty()).unwrap();
        assert_eq!(
            arrived.state,
            reference(&[batch(1, [Op::Put("a", 1), Op::Put("b", 2)])]),
            "{pieces} pieces"
        );
        let error = handle.install_error().expect("refused");
        assert!(error.contains("cut short") && error.contains("closed"), "{error}");
        within("join", || handle.join()).unwrap();
        assert_eq!(net.operations(), [1000, 2000]);
    }
}

fn a_panic_while_a_state_is_installed_is_the_cause<K: Kind>() {
    for fault in ["fault:check_part", "fault:install"] {
        beside_another::<K>(|| {
            let running = start::<K>();
            running.handle.queue_update_and_get_appstate(batch(1, [Op::Put("b", 1)])).unwrap();
            running.net.wait_for(1);
            running.state.send(7, &reference(&[batch(1, [Op::Put("a", 1), Op::Put(fault, 1)])]));
            running.handle.poll_state_channel().unwrap();
            let cause = running.wait_for_failure();
            assert!(matches!(cause, Failure::TransferPanicked { .. }), "{cause}");
            assert_only_the_first_checkpoint(running, &cause);
        });
    }
}

/// An executor on a disk.
struct OnDisk {
    handle: ExecutorHandle<Step>,
    node: Arc<Collector<String>>,
    checkpoints: ChannelSyncRx<AppStateMessage<Disk>>,
}

/// Starts an executor on what a disk holds.
fn mount(disk: &Disk, mode: ExecutionMode, threads: usize) -> OnDisk {
    type Executor = MultiThreadedMonExecutor<Script, Disk, Collector<String>>;
    let mut config = ExecutorConfig::with_threads(threads);
    (config.mode, config.pin, config.join) = (mode, false, 0);
    config.initial_seq = disk.content().committed.last().copied();
    let node = Collector::new();
    let (handle, work) = Executor::init_handle_with(&config).unwrap();
    let initial = Some((disk.clone(), Vec::new()));
    let (_, checkpoints) =
        Executor::init_with::<ReplicaReplier>(config, work, initial, Script, Arc::clone(&node)).unwrap();
    OnDisk { handle, node, checkpoints }
}

/// Twelve writes, of which each needs the one before it.
fn chain(seq: u64) -> UpdateBatch<Step> {
    let link = |n: u64| {
        step(move |state| {
            let before = state.read("a", &format!("key {}", n.saturating_sub(1)));
            state.update("a", &format!("key {n}"), &format!("{seq}/{n} after {before:?}"))
        })
    };
    batch(seq, (0..WRITES as u64).map(link))
}

const WRITES: usize = 12;

/// What a disk without trouble holds after `batches` of these, and the replies to the last.
fn undisturbed(batches: u64) -> (Content, Vec<String>) {
    let disk = Disk::default();
    let OnDisk { handle, node, checkpoints: _checkpoints } = mount(&disk, ExecutionMode::Sequential, 1);
    (1..=batches).for_each(|seq| handle.queue_update(chain(seq)).unwrap());
    within("join", || handle.join()).unwrap();
    let last = node.take().into_iter().rev().take(WRITES).rev();
    (disk.content(), last.map(|reply| reply.into_payload()).collect())
}

#[test]
fn a_disk_that_fails_at_any_write_keeps_the_state_before_the_batch() {
    use ExecutionMode::{Adaptive, Sequential, Speculate};
    let (first, _) = undisturbed(1);
    let (both, replies) = undisturbed(2);
    for (mode, threads) in [(Speculate, 1), (Speculate, 3), (Sequential, 1), (Adaptive, 3)] {
        for (write, panics) in (0..WRITES).flat_map(|write| [(write, false), (write, true)]) {
            let disk = Disk::default();
            disk.set_trouble(Some(Trouble { batch: SeqNo(2), write, panics }));
            let OnDisk { handle, node, checkpoints } = mount(&disk, mode, threads);
            (1..=4).for_each(|seq| drop(handle.queue_update_and_get_appstate(chain(seq))));
            let cause = wait_for_failure(&handle);
            let refused = matches!(cause, Failure::CommitRefused { batch: SeqNo(2), .. });
            let panicked = matches!(cause, Failure::CommitPanicked { batch: SeqNo(2), .. });
            assert!(if panics { panicked } else { refused }, "{cause}");
            assert_eq!(handle.last_executed(), SeqNo(1));
            assert!(within("join", || handle.join()).is_err());
            assert_eq!((disk.content(), disk.commits()), (first.clone(), 2), "write {write}: {cause}");
            assert_eq!(node.take().len(), WRITES, "nobody is answered for what did not happen");
            assert_eq!(checkpoints.recv().unwrap().into_state().content(), first);
            assert!(matches!(checkpoints.recv(), Err(RecvError::Failed(_))));
            // Once there is room again, the same batch goes through, on the same disk.
            disk.set_trouble(None);
            let OnDisk { handle, node, checkpoints: _checkpoints } = mount(&disk, mode, threads);
            (1..=2).for_each(|seq| handle.queue_update(chain(seq)).unwrap());
            within("join", || handle.join()).unwrap();
            assert_eq!(disk.content(), both);
            assert!(node.take().into_iter().map(|reply| reply.into_payload()).eq(replies.iter().cloned()));
        }
    }
}

/// Set for the process that has no room for threads.
const CROWDED: &str = "ATLAS_TEST_CROWDED";
/// The address space that each thread takes there, in KiB.
const STACK_KIB: u64 = 256 << 10;

/// Starts an executor of five threads in a process whose address space has room for `room` of them; its output.
#[cfg(target_os = "linux")]
fn crowded(room: u64) -> String {
    let limit = (STACK_KIB * room + STACK_KIB / 2).to_string();
    let output = std::process::Command::new("sh")
        .args(["-c", "ulimit -v \"$0\" && exec \"$@\"", &limit])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "what_happens_in_a_crowded_process", "--nocapture", "--test-threads=1"])
        .env("RUST_MIN_STACK", (STACK_KIB << 10).to_string())
        // An arena of the allocator would take as much as a thread.
        .env("MALLOC_ARENA_MAX", "1")
        .env(CROWDED, "yes")
        .output()
        .expect("a shell");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[cfg(target_os = "linux")]
#[test]
fn what_happens_in_a_crowded_process() {
    if std::env::var_os(CROWDED).is_none() {
        return;
    }
    type Executor = MultiThreadedDivExecutor<Kv, TestState, Net>;
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let before = threads();
    let mut config = ExecutorConfig::with_threads(3);
    config.pin = false;
    let (handle, work) = Executor::init_handle_with(&config).unwrap();
    handle.queue_update(batch(1, [Op::Add("a", 1)])).unwrap();
    let net = Arc::new(Net::default());
    match Executor::init_with::<ReplicaReplier>(config, work, None, Kv, Arc::clone(&net)) {
        Ok(_channels) => {
            handle.join().unwrap();
            assert_eq!(net.values(), [Some(1)]);
        }
        Err(InitError::Spawn { name, .. }) => {
            let refused = handle.queue_update(batch(2, []));
            assert!(matches!(refused, Err(QueueError::Stopped(_))), "{refused:?}");
            assert_eq!(handle.join().unwrap().last_executed, SeqNo::ZERO);
            wait_until("the end of the threads that were spawned", || threads() == before);
            assert!(net.sent().is_empty());
            println!("\nrefused: {name}");
        }
        Err(error) => panic!("{error}"),
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_thread_that_cannot_be_spawned_is_named_and_none_is_left() {
    let mut refused = Vec::new();
    for room in 0..20 {
        let output = crowded(room);
        match output.lines().find_map(|line| line.strip_prefix("refused: ")) {
            Some(name) if refused.last().is_some_and(|last| last == name) => {}
            Some(name) => refused.push(name.to_owned()),
            None => break,
        }
    }
    let threads =
        ["worker-1", "worker-2", "replier", "checkpoint", "executor"].map(|role| format!("atlas-{role}"));
    assert_eq!(refused, threads);
}

#[test]
fn the_document_is_complete() {
    assert_document("failure-model.md", 63);
}

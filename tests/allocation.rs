//! No heap allocation per operation on the engine's side, in steady state.
//!
//! Application and state of this test allocate nothing, and batches are made beforehand. What is counted between two
//! barriers (all replies of a run sent) is the engine's: a small constant per batch, whatever the number of operations.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use atlas_smr_execution::app::{Application, ApplicationData, ScalableApp};
use atlas_smr_execution::batch::{NodeId, SeqNo, UpdateBatch};
use atlas_smr_execution::error::{BoxError, StateError};
use atlas_smr_execution::executor::*;
use atlas_smr_execution::reply::{ReplicaReplier, ReplyNode, RequestType, UpdateReply};
use atlas_smr_execution::state::{CRUDState, MonolithicState};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's duties are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const KEYS: usize = 256;

/// Numbers in an array.
#[derive(Clone)]
struct Array([[u8; 8]; KEYS]);

impl CRUDState for Array {
    const COMMITS_OPERANDS: bool = true;

    fn read(&self, _: &str, key: &[u8]) -> Option<Vec<u8>> {
        Some(self.0[usize::from(key[0])].to_vec())
    }

    fn create(&mut self, _: &str, _: &[u8], _: &[u8]) -> bool {
        false
    }

    fn update(&mut self, column: &str, key: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        let before = self.read(column, key);
        self.put(column, key, value);
        before
    }

    fn delete(&mut self, column: &str, key: &[u8]) -> Option<Vec<u8>> {
        self.update(column, key, &[0; 8])
    }

    fn read_with<R>(&self, _: &str, key: &[u8], f: impl FnOnce(Option<&[u8]>) -> R) -> R {
        f(Some(&self.0[usize::from(key[0])]))
    }

    fn put(&mut self, _: &str, key: &[u8], value: &[u8]) {
        self.0[usize::from(key[0])].copy_from_slice(value);
    }

    fn merge(&mut self, _: &str, key: &[u8], operand: &[u8]) {
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
        let value = &mut self.0[usize::from(key[0])];
        *value = number(&*value).wrapping_add(number(operand)).to_le_bytes();
    }
}

impl MonolithicState for Array {
    fn snapshot(&self) -> Self {
        self.clone()
    }

    fn serialize<W: std::io::Write>(&self, mut writer: W) -> Result<(), StateError> {
        Ok(writer.write_all(self.0.as_flattened())?)
    }

    fn deserialize<R: std::io::Read>(mut reader: R) -> Result<Self, StateError> {
        let mut state = Array([[0; 8]; KEYS]);
        reader.read_exact(state.0.as_flattened_mut())?;
        Ok(state)
    }
}

/// Reads and writes `width` keys from `first`; the others are merged into, where `merges` says so.
#[derive(Clone, Copy)]
struct Touch {
    first: u8,
    width: u8,
    merges: bool,
}

struct Touching;

impl ApplicationData for Touching {
    type Request = Touch;
    type Reply = u64;
}

fn touch(state: &mut impl CRUDState, request: &Touch) -> u64 {
    let mut sum = u64::from(request.first);
    for offset in 0..request.width {
        let key = [request.first.wrapping_add(offset)];
        sum += state.read_with("numbers", &key, |value| u64::from(value.map_or(0, |value| value[0])));
    }
    for offset in 0..request.width {
        let key = [request.first.wrapping_add(offset)];
        if request.merges && offset % 2 == 1 {
            state.merge("numbers", &key, &sum.to_le_bytes());
        } else {
            state.put("numbers", &key, &sum.to_le_bytes());
        }
    }
    sum
}

impl Application<Array> for Touching {
    type AppData = Touching;

    fn initial_state() -> Result<Array, BoxError> {
        Ok(Array([[0; 8]; KEYS]))
    }

    fn unordered_execution(&self, _: &Array, _: Touch) -> u64 {
        0
    }

    fn update(&self, state: &mut Array, request: Touch) -> u64 {
        touch(state, &request)
    }
}

impl ScalableApp<Array> for Touching {
    fn speculatively_execute(&self, state: &mut impl CRUDState, request: Touch) -> u64 {
        touch(state, &request)
    }
}

#[derive(Default)]
struct Counter(AtomicU64);

impl ReplyNode<u64> for Counter {
    fn send(&self, _: RequestType, _: UpdateReply<u64>, _: bool) -> Result<(), BoxError> {
        self.0.fetch_add(1, Ordering::Release);
        Ok(())
    }
}

const BATCHES: u64 = 200;

fn batches(first: u64, len: usize, hot: bool, width: u8, merges: bool) -> Vec<UpdateBatch<Touch>> {
    let request = |seq: u64, id: usize| Touch {
        first: if hot { (id % 3) as u8 } else { (id * 37 + seq as usize) as u8 },
        width,
        merges,
    };
    let batch = |seq| {
        let mut batch = UpdateBatch::with_capacity(SeqNo(seq), len);
        (0..len).for_each(|id| batch.add(NodeId(1), SeqNo(0), SeqNo(id as u64), request(seq, id)));
        batch
    };
    (first..first + BATCHES).map(batch).collect()
}

/// Allocations per batch in steady state, and replays altogether.
fn per_batch(threads: usize, len: usize, hot: bool, width: u8, merges: bool) -> (f64, u64) {
    type Executor = MultiThreadedMonExecutor<Touching, Array, Counter>;
    let mut config = ExecutorConfig::with_threads(threads);
    (config.mode, config.chunk, config.pin) = (ExecutionMode::Speculate, Some(8), false);
    let node = Arc::new(Counter::default());
    let (handle, work) = Executor::init_handle_with(&config).expect("valid");
    let _channels = Executor::init_with::<ReplicaReplier>(config, work, None, Touching, Arc::clone(&node))
        .expect("threads");
    let run = |batches: Vec<UpdateBatch<Touch>>, replies: u64| {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        batches.into_iter().for_each(|batch| handle.queue_update(batch).expect("alive"));
        let start = Instant::now();
        while node.0.load(Ordering::Acquire) < replies {
            assert!(start.elapsed() < Duration::from_secs(60), "replies are missing");
            std::thread::yield_now();
        }
        (ALLOCATIONS.load(Ordering::Relaxed) - before) as f64 / BATCHES as f64
    };
    let (warm_up, measured) =
        (batches(1, len, hot, width, merges), batches(1 + BATCHES, len, hot, width, merges));
    run(warm_up, BATCHES * len as u64);
    let allocations = run(measured, 2 * BATCHES * len as u64);
    let metrics = handle.metrics();
    handle.join().expect("a good end");
    (allocations, metrics.counters().replays)
}

/// One test only: another one at the same time would be counted along.
#[test]
fn nothing_is_allocated_per_operation() {
    let mut replays = 0;
    for threads in [2, 4] {
        for (hot, width, merges) in [(false, 2, false), (true, 2, false), (false, 2, true), (false, 12, true)]
        {
            let (few, _) = per_batch(threads, 100, hot, width, merges);
            let (many, replayed) = per_batch(threads, 400, hot, width, merges);
            println!(
                "{threads} threads, hot {hot}, {width} keys, merges {merges}: {few:.2} and {many:.2} per batch"
            );
            replays += replayed;
            // One vector of replies, and what the channels of the standard library and crossbeam take now and then.
            assert!(few < 4.0 && many < 4.0, "{few} allocations for 100 operations, {many} for 400");
        }
    }
    assert!(replays > 0, "replays must be covered");
}

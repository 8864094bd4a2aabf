//! With the feature `metrics`, everything that is counted and measured also reaches the `metrics` facade.

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use atlas_smr_execution::batch::{MaybeVec, NodeId, SeqNo};
use atlas_smr_execution::executor::ExecutionMode;
use atlas_smr_execution::metrics::{Counters, Metrics};
use atlas_smr_execution::reply::ReplicaReplier;
use common::state::TestState;
use common::*;
use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, SharedString, Unit,
};

/// By name: the sum of a counter, the number of values of a histogram.
type Values = Arc<Mutex<BTreeMap<String, u64>>>;

#[derive(Default)]
struct Recorder(Values);

struct Value {
    name: String,
    values: Values,
}

impl Value {
    fn add(&self, n: u64) {
        *self.values.lock().unwrap().entry(self.name.clone()).or_default() += n;
    }
}

impl CounterFn for Value {
    fn increment(&self, n: u64) {
        self.add(n);
    }

    fn absolute(&self, _: u64) {
        panic!("counters of several executors add up");
    }
}

impl HistogramFn for Value {
    fn record(&self, value: f64) {
        assert!(value >= 0.0);
        self.add(1);
    }
}

impl Recorder {
    fn value(&self, key: &Key) -> Arc<Value> {
        Arc::new(Value { name: key.name().to_owned(), values: Arc::clone(&self.0) })
    }
}

impl metrics::Recorder for Recorder {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.value(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        panic!("nothing is a gauge, but `{}` is", key.name())
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.value(key))
    }
}

/// Each counter's name in the facade, and its value.
fn by_name(counters: &Counters) -> Vec<(String, u64)> {
    let text = format!("{counters:?}");
    let fields = text.trim_start_matches("Counters { ").trim_end_matches(" }").split(", ");
    let named = |field: &str| {
        let (name, value) = field.split_once(": ").expect("name and value");
        let name = match name {
            "operations" => "OPERATIONS_EXECUTED_PER_SECOND".to_owned(),
            "unordered_operations" => "UNORDERED_OPERATIONS_EXECUTED_PER_SECOND".to_owned(),
            name => format!("atlas_{name}"),
        };
        (name, value.parse().expect("a number"))
    };
    fields.map(named).collect()
}

/// An executor to which everything happens that is counted, but for what [`sequential`] does.
fn speculative() -> Arc<Metrics> {
    let running = Setup::net(Net { refuses: Some(2), ..Net::default() }).start::<MultiMon>();
    let gate = overtaken::<MultiMon>();
    let trap = Op::Trap("a", false, Arc::clone(&gate));
    running.handle.queue_update(batch(1, [Op::Wait(gate), Op::Put("a", 1), trap])).unwrap();
    running.handle.queue_update(batch(1, [])).unwrap();
    let mut unreachable = batch(2, []);
    unreachable.add(NodeId(2), SeqNo(0), SeqNo(0), Op::Get("a"));
    running.handle.queue_update_and_get_appstate(unreachable).unwrap();
    running.checkpoints.next(&TestState::default()).unwrap();
    running.handle.queue_update_unordered(reads(1, [Op::Get("a"), Op::Get("b")])).unwrap();
    for seq in [3, 1] {
        running.state.send(seq, &TestState::default());
        running.handle.poll_state_channel().unwrap();
    }
    let metrics = running.handle.metrics();
    running.finish();
    metrics
}

fn sequential() -> Arc<Metrics> {
    let Running { handle, checkpoints, .. } = start::<SingleDiv>();
    drop(checkpoints);
    handle.queue_update_and_get_appstate(batch(1, [Op::Put("a", 1)])).unwrap();
    let metrics = handle.metrics();
    within("join", || handle.join()).unwrap();
    metrics
}

/// What this test's application does not allow (forwarding), give (hints) or do (more calls than its step budget), or what is a
/// matter of chance: whether a stale unit is found in time, or still runs at its turn.
const CHANCE: [&str; 5] =
    ["atlas_forwarding_batches", "atlas_prefetched", "atlas_overtaken", "atlas_reruns", "atlas_abandoned"];

/// One thread, operations by hints: it looks into its queue beside the batch.
fn by_hints() -> Arc<Metrics> {
    let mut setup = Setup::default();
    (setup.config.threads, setup.config.mode) = (Some(1), ExecutionMode::SpeculateByHints);
    let running = MultiMon::start::<ReplicaReplier>(setup).unwrap();
    let gate = Gate::new();
    running.handle.queue_update(batch(1, [Op::Wait(gate.clone())])).unwrap();
    gate.wait_for_visitor();
    running.handle.queue_update_unordered(reads(1, [Op::Get("a")])).unwrap();
    gate.open();
    let metrics = running.handle.metrics();
    running.finish();
    metrics
}

/// Each batch is run twice.
fn checked() -> Arc<Metrics> {
    let running = Setup::config(|config| config.check_every = Some(1)).start::<MultiDiv>();
    running.handle.queue_update(batch(1, [Op::Put("a", 1)])).unwrap();
    let metrics = running.handle.metrics();
    running.finish();
    metrics
}

/// Two batches are taken together.
fn joined() -> Arc<Metrics> {
    let running = Setup::config(|config| config.join = 1024).start::<MultiMon>();
    let batches = [1, 2].map(|seq| batch(seq, [Op::Put("a", seq)]));
    running.handle.catch_up_to_quorum(MaybeVec::Several(batches.into())).unwrap();
    let metrics = running.handle.metrics();
    running.finish();
    metrics
}

/// One test only: the recorder is the process's.
#[test]
fn everything_reaches_the_facade() {
    let recorder = Recorder::default();
    let values = Arc::clone(&recorder.0);
    metrics::set_global_recorder(recorder).expect("the first one");
    let executors = [speculative(), sequential(), by_hints(), checked(), joined()];

    let mut expected = BTreeMap::new();
    for metrics in &executors {
        for (name, value) in by_name(&metrics.counters()) {
            *expected.entry(name).or_default() += value;
        }
        for id in 800..=806 {
            let name = Metrics::name(id).expect("a metric");
            if let Some(histogram) = metrics.histogram(id) {
                *expected.entry(name.to_owned()).or_default() += histogram.len();
            }
        }
    }
    assert!((800..=806).all(|id| expected.contains_key(Metrics::name(id).expect("a metric"))));
    // What did not happen has no entry.
    expected.retain(|name, value| !CHANCE.contains(&name.as_str()) || *value > 0);
    assert!(expected.values().all(|&value| value > 0), "not covered: {expected:?}");
    assert_eq!(*values.lock().unwrap(), expected);
}

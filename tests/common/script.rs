//! Operations written as closures, for tests that say exactly what happens in a batch, and in which order.

use std::fmt::Debug;
use std::sync::Arc;

use atlas_smr_execution::app::{Application, ApplicationData, ScalableApp};
use atlas_smr_execution::error::BoxError;
use atlas_smr_execution::executor::{ExecutionMode, ExecutorConfig};
use atlas_smr_execution::metrics::Counters;
use atlas_smr_execution::state::{CRUDState, ShardedState};

use super::rig::{Output, Rig};
use super::{Gate, batch};

/// A state that holds text, as a closure sees it; [`CRUDState`] itself cannot be a trait object.
pub trait Texts {
    fn read(&self, column: &str, key: &str) -> Option<String>;
    fn create(&mut self, column: &str, key: &str, value: &str) -> bool;
    fn update(&mut self, column: &str, key: &str, value: &str) -> Option<String>;
    fn delete(&mut self, column: &str, key: &str) -> Option<String>;
    fn put(&mut self, column: &str, key: &str, value: &str);
    fn remove(&mut self, column: &str, key: &str);
    fn merge(&mut self, column: &str, key: &str, operand: &[u8]);
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("text")
}

impl<S: CRUDState> Texts for S {
    fn read(&self, column: &str, key: &str) -> Option<String> {
        CRUDState::read(self, column, key.as_bytes()).map(text)
    }

    fn create(&mut self, column: &str, key: &str, value: &str) -> bool {
        CRUDState::create(self, column, key.as_bytes(), value.as_bytes())
    }

    fn update(&mut self, column: &str, key: &str, value: &str) -> Option<String> {
        CRUDState::update(self, column, key.as_bytes(), value.as_bytes()).map(text)
    }

    fn delete(&mut self, column: &str, key: &str) -> Option<String> {
        CRUDState::delete(self, column, key.as_bytes()).map(text)
    }

    fn put(&mut self, column: &str, key: &str, value: &str) {
        CRUDState::put(self, column, key.as_bytes(), value.as_bytes());
    }

    fn remove(&mut self, column: &str, key: &str) {
        CRUDState::remove(self, column, key.as_bytes());
    }

    fn merge(&mut self, column: &str, key: &str, operand: &[u8]) {
        CRUDState::merge(self, column, key.as_bytes(), operand);
    }
}

type Body = dyn Fn(&mut dyn Texts) -> String + Send + Sync;

/// An operation. Its reply is what the closure returned, as `Debug` writes it.
#[derive(Clone)]
pub struct Step {
    body: Arc<Body>,
    after: Vec<Arc<Gate>>,
    opens: Vec<Arc<Gate>>,
}

pub fn step<R: Debug>(body: impl Fn(&mut dyn Texts) -> R + Send + Sync + 'static) -> Step {
    Step { body: Arc::new(move |state| format!("{:?}", body(state))), after: Vec::new(), opens: Vec::new() }
}

/// Gates between operations of one batch, which an earlier operation waits for and a later one opens: so the later one
/// runs ahead of its turn, and cannot have seen what the earlier one wrote. They are there for units only; in the plain
/// loop no operation can overtake another.
impl Step {
    /// The same once `gate` is open.
    pub fn after(mut self, gate: &Arc<Gate>) -> Step {
        self.after.push(Arc::clone(gate));
        self
    }

    /// The same, and then `gate` is open.
    pub fn opens(mut self, gate: &Arc<Gate>) -> Step {
        self.opens.push(Arc::clone(gate));
        self
    }
}

/// Opens gates when an operation is over, also by a panic.
struct Opens<'a>(&'a [Arc<Gate>]);

impl Drop for Opens<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|gate| gate.open());
    }
}

/// The application whose requests say themselves what is to be done.
#[derive(Clone)]
pub struct Script;

impl ApplicationData for Script {
    type Request = Step;
    type Reply = String;
}

impl<S: CRUDState + Default> Application<S> for Script {
    type AppData = Script;

    fn initial_state() -> Result<S, BoxError> {
        Ok(S::default())
    }

    fn unordered_execution(&self, _: &S, _: Step) -> String {
        panic!("scripts are ordered")
    }

    fn update(&self, state: &mut S, request: Step) -> String {
        (request.body)(state)
    }
}

impl<S: CRUDState + Default> ScalableApp<S> for Script {
    fn speculatively_execute(&self, state: &mut impl CRUDState, request: Step) -> String {
        request.after.iter().for_each(|gate| gate.pass());
        let _gates = Opens(&request.opens);
        (request.body)(state)
    }
}

/// What came of a script.
pub struct Played {
    output: Output<String>,
}

impl Played {
    /// The replies, in the order in which they were sent.
    pub fn replies(&self) -> Vec<&str> {
        self.output.replies.iter().map(|reply| reply.payload().as_str()).collect()
    }

    pub fn state(&self, column: &str, key: &str) -> Option<String> {
        Texts::read(&self.output.state, column, key)
    }

    pub fn counters(&self) -> Counters {
        self.output.counters
    }
}

/// Runs batches of steps on an empty state; where the executor can, each operation as far ahead as threads allow.
pub fn play<R: Rig>(batches: impl IntoIterator<Item = Vec<Step>>) -> Played {
    let mut config = ExecutorConfig::with_threads(3);
    (config.mode, config.chunk, config.pin) = (ExecutionMode::Speculate, Some(1), false);
    config.join = 0;
    let state = ShardedState::builder().shards(16).build().expect("valid");
    let batches = batches.into_iter().zip(1..).map(|(steps, seq)| batch(seq, steps)).collect();
    Played { output: R::run(&config, Script, state, batches) }
}

//! The application: random programs that branch on what they read, and twists between them.
//!
//! It checks what it sees. A unit that reads one moment must answer as the operation would after *some* number of the
//! batch's operations, at most its position; retirement then has to see to it that it was the right number.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};

use atlas_smr_execution::app::{Application, ApplicationData, Hints, ScalableApp};
use atlas_smr_execution::batch::UpdateBatch;
use atlas_smr_execution::error::BoxError;
use atlas_smr_execution::state::{CRUDState, Merge, ShardedState};
use workloads::Logic;
use workloads::digest::mix;
use workloads::program::{Program, ProgramLogic};

/// The column of flags.
const FLAGS: &str = "flags";
/// The column whose merges panic.
pub const TRAP: &str = "trap";

/// A merge operator that cannot combine anything.
pub struct Trap;

impl Merge for Trap {
    fn combine(&self, _: &[u8], _: &[u8], _: &mut Vec<u8>) {
        fail("the trap springs");
    }
}

/// What an operation does between its two programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Twist {
    /// Nothing.
    None,
    /// Ahead of its turn or at it, it lets others go first so many times.
    Stall(u8),
    /// It panics, wherever it runs.
    Panic,
    /// It raises a flag.
    Raise(u8),
    /// It panics unless the flag is up: ahead of its turn only, if an operation before it raises the flag.
    Expect(u8),
    /// It merges into a column whose merges panic, from the second on.
    Trap,
}

/// An operation.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its position in its batch.
    pub position: usize,
    /// What it does before the twist, and after it.
    pub programs: [Program; 2],
    /// The twist.
    pub twist: Twist,
    /// The programs whose keys it names beforehand: its own, none, or others.
    pub hints: Vec<Program>,
}

/// Panics without the hook that would print a schedule: nothing is wrong.
fn fail(message: &'static str) -> ! {
    resume_unwind(Box::new(message))
}

impl Request {
    /// Runs the operation; the answer depends on all that it sees.
    fn run(&self, state: &mut impl CRUDState, stalls: bool) -> u64 {
        let before = ProgramLogic.execute(state, &self.programs[0]);
        match self.twist {
            Twist::None => {}
            Twist::Stall(times) if stalls => (0..times).for_each(|_| shuttle::thread::yield_now()),
            Twist::Stall(_) => {}
            Twist::Panic => fail("the operation panics"),
            Twist::Raise(flag) => state.put(FLAGS, &[flag], &[1]),
            Twist::Expect(flag) => {
                if state.read_with(FLAGS, &[flag], |value| value.is_none()) {
                    fail("the flag is not up");
                }
            }
            Twist::Trap => state.merge(TRAP, &[], &[1]),
        }
        mix(before, ProgramLogic.execute(state, &self.programs[1]))
    }
}

/// What the sequential loop makes of a batch.
#[derive(Debug)]
pub struct Oracle {
    /// The state after each number of operations, up to the first that panics.
    pub states: Vec<ShardedState>,
    /// The replies.
    pub replies: Vec<u64>,
    /// By position: the answers at each moment up to it, where there is one.
    answers: Vec<Vec<Option<u64>>>,
    /// The first operation that panics.
    pub fault: Option<usize>,
}

impl Oracle {
    /// The loop over `batch`, on a copy of `state`.
    pub fn new(state: &ShardedState, batch: &UpdateBatch<Request>) -> Self {
        let mut oracle =
            Oracle { states: vec![state.snapshot()], replies: Vec::new(), answers: Vec::new(), fault: None };
        for (position, update) in batch.updates().iter().enumerate() {
            let request = update.operation();
            let run = |state: &ShardedState| {
                let mut state = state.snapshot();
                let reply = catch_unwind(AssertUnwindSafe(|| request.run(&mut state, false))).ok()?;
                Some((reply, state))
            };
            let moments = oracle.states.iter().map(|state| Some(run(state)?.0)).collect();
            oracle.answers.push(moments);
            if oracle.fault.is_none() {
                match run(&oracle.states[position]) {
                    Some((reply, state)) => {
                        oracle.replies.push(reply);
                        oracle.states.push(state);
                    }
                    None => oracle.fault = Some(position),
                }
            }
        }
        oracle
    }
}

/// The application, for one batch.
#[derive(Clone, Debug)]
pub struct Adversary {
    /// What it may see.
    pub oracle: Arc<Oracle>,
    /// Units see one moment: the engine does not forward.
    pub one_moment: bool,
    /// The first answer that no moment explains. An assertion would be caught like any panic of a unit.
    pub torn: Arc<Mutex<Option<String>>>,
}

impl Adversary {
    fn check(&self, request: &Request, answer: u64) {
        if self.one_moment && !self.oracle.answers[request.position].contains(&Some(answer)) {
            let mut torn = self.torn.lock().expect("nobody panics here");
            torn.get_or_insert_with(|| format!("values that never stood together: {request:?}"));
        }
    }
}

impl ApplicationData for Adversary {
    type Request = Request;
    type Reply = u64;
}

impl Application<ShardedState> for Adversary {
    type AppData = Adversary;

    fn initial_state() -> Result<ShardedState, BoxError> {
        Ok(ShardedState::new())
    }

    fn unordered_execution(&self, state: &ShardedState, request: Request) -> u64 {
        ProgramLogic.query(state, &request.programs[0])
    }

    fn update(&self, state: &mut ShardedState, request: Request) -> u64 {
        request.run(state, false)
    }
}

impl ScalableApp<ShardedState> for Adversary {
    const FORWARDING: bool = true;
    const HINTS: bool = true;

    fn hints(&self, request: &Request, hints: &mut impl Hints) {
        request.hints.iter().for_each(|program| ProgramLogic.hints(program, hints));
    }

    fn speculatively_execute(&self, state: &mut impl CRUDState, request: Request) -> u64 {
        self.speculatively_execute_ref(state, &request)
    }

    fn speculatively_execute_ref(&self, state: &mut impl CRUDState, request: &Request) -> u64 {
        let answer = request.run(state, true);
        self.check(request, answer);
        answer
    }
}

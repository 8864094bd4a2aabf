//! One application for several workloads, so that one executor lives through all of them.

use atlas_smr_execution::app::Hints;
use atlas_smr_execution::state::CRUDState;
use workloads::program::{Program, ProgramLogic};
use workloads::{
    Branch, BranchLogic, BranchRequest, Kv, KvLogic, KvMix, KvRequest, Logic, Transfer, TransferLogic,
    TransferRequest, Workload,
};

/// Accounts, and keys of each workload: few enough that comparing whole states takes milliseconds.
pub const ACCOUNTS: u64 = 5_000;
pub const KEYS: u64 = 10_000;
pub const NUMBERS: u64 = 1_000;
/// Bytes of a value of the key-value workloads.
const VALUE: usize = 100;

/// A request of any of them.
#[derive(Clone, Debug)]
pub enum Request {
    Transfer(TransferRequest),
    Kv(KvRequest),
    Branch(BranchRequest),
    Program(Program),
}

/// What their operations do, without busy work: what is slow here is nothing but the engine.
#[derive(Clone, Debug)]
pub struct Mixture {
    transfer: TransferLogic,
    kv: KvLogic,
    branch: BranchLogic,
}

/// Transfers between the first of the accounts.
pub fn transfer(accounts: u64) -> Transfer {
    Transfer { accounts, work_ns: 0, heavy: 0.0, counts: 0 }
}

/// Operations on all keys.
pub fn kv(mix: KvMix) -> Kv {
    Kv { mix, keys: KEYS, value_size: VALUE }
}

/// Operations that branch.
pub fn branch() -> Branch {
    Branch { keys: NUMBERS, work_ns: 0 }
}

impl Mixture {
    pub fn new() -> Self {
        Mixture { transfer: transfer(ACCOUNTS).logic(), kv: kv(KvMix::Put).logic(), branch: branch().logic() }
    }

    /// Fills an empty state with what all of them expect.
    pub fn populate(state: &mut impl CRUDState) {
        transfer(ACCOUNTS).populate(state);
        kv(KvMix::Put).populate(state);
        branch().populate(state);
    }
}

impl Logic for Mixture {
    type Request = Request;

    fn execute(&self, state: &mut impl CRUDState, request: &Request) -> u64 {
        match request {
            Request::Transfer(request) => self.transfer.execute(state, request),
            Request::Kv(request) => self.kv.execute(state, request),
            Request::Branch(request) => self.branch.execute(state, request),
            Request::Program(program) => ProgramLogic.execute(state, program),
        }
    }

    const HINTS: bool = true;

    fn hints(&self, request: &Request, hints: &mut impl Hints) {
        match request {
            Request::Transfer(request) => self.transfer.hints(request, hints),
            Request::Kv(request) => self.kv.hints(request, hints),
            Request::Branch(request) => self.branch.hints(request, hints),
            Request::Program(program) => ProgramLogic.hints(program, hints),
        }
    }

    fn query(&self, state: &impl CRUDState, request: &Request) -> u64 {
        match request {
            Request::Transfer(request) => self.transfer.query(state, request),
            Request::Kv(request) => self.kv.query(state, request),
            Request::Branch(request) => self.branch.query(state, request),
            Request::Program(program) => ProgramLogic.query(state, program),
        }
    }
}

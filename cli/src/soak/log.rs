//! The log that all executors execute, segment by segment, and what the sequential loop makes of it.

use atlas_smr_execution::app::Application;
use atlas_smr_execution::batch::{SeqNo, Update, UpdateBatch};
use atlas_smr_execution::state::ShardedState;
use workloads::digest::mix;
use workloads::program::Program;
use workloads::{KvMix, Plan, ReplyDigest, Service, Workload};

use super::mixture::{ACCOUNTS, Mixture, Request, branch, kv, transfer};

/// Sizes of batches; each segment has one of them.
const BATCHES: [usize; 8] = [1, 2, 17, 64, 128, 300, 1024, 4096];
/// Bytes of a random program.
const PROGRAM: u64 = 32;

/// What the operations of a segment are. Neighbours are as different as can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Transfers(u64),
    Kv(KvMix),
    Branch,
    /// Random programs on so many keys.
    Programs(u8),
}

const KINDS: [Kind; 12] = [
    Kind::Transfers(ACCOUNTS),
    Kind::Programs(200),
    Kind::Kv(KvMix::Put),
    Kind::Transfers(3),
    Kind::Kv(KvMix::YcsbA),
    Kind::Branch,
    Kind::Kv(KvMix::Update),
    Kind::Programs(5),
    Kind::Kv(KvMix::YcsbF),
    Kind::Kv(KvMix::Merge),
    Kind::Transfers(100),
    Kind::Kv(KvMix::YcsbB),
];

/// Segments until all have been there.
pub const CYCLE: u64 = KINDS.len() as u64;

/// Some batches, and what the sequential loop makes of them.
pub struct Segment {
    /// The segment's number, from 0.
    pub number: u64,
    pub batches: Vec<UpdateBatch<Request>>,
    /// The number of the first operation, and how many there are.
    pub first: u64,
    pub operations: u64,
    /// The last batch.
    pub last: SeqNo,
    /// Digests of the replies, and of the state after the segment.
    pub replies: ReplyDigest,
    pub state: [u8; 32],
}

impl Segment {
    /// The operations alone, as a log that is replayed.
    pub fn requests(&self) -> Vec<Request> {
        self.batches
            .iter()
            .flat_map(|batch| batch.updates())
            .map(|update| update.operation().clone())
            .collect()
    }
}

/// Makes segments. The same seed makes the same log.
pub struct Log {
    service: Service<Mixture>,
    state: ShardedState,
    seed: u64,
    /// Operations of a segment.
    size: u64,
    segments: u64,
    batches: u64,
    operations: u64,
}

impl Log {
    /// A log on `state`, which all executors begin with.
    pub fn new(state: ShardedState, seed: u64, size: u64) -> Self {
        let service = Service(Mixture::new());
        Log { service, state, seed, size, segments: 0, batches: 0, operations: 0 }
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// The next segment.
    pub fn next(&mut self) -> Segment {
        let number = self.segments;
        let draw = |what: u64| mix(mix(self.seed, number), what);
        let kind = KINDS[(number % CYCLE) as usize];
        let size = BATCHES[draw(0) as usize % BATCHES.len()];
        // Tiny batches cost executors much and tell little more.
        let operations = self.size.min(size as u64 * 20_000);
        let plan = Plan { seed: draw(1), batch: size, operations };
        let batches = match kind {
            Kind::Transfers(accounts) => self.number(transfer(accounts).batches(plan), Request::Transfer),
            Kind::Kv(mix) => self.number(kv(mix).batches(plan), Request::Kv),
            Kind::Branch => self.number(branch().batches(plan), Request::Branch),
            Kind::Programs(keys) => self.number(programs(plan, keys), Request::Program),
        };
        let first = self.operations;
        let mut replies = ReplyDigest::new();
        for update in batches.iter().flat_map(|batch| batch.updates()) {
            replies.push(self.service.update(&mut self.state, update.operation().clone()));
        }
        self.segments += 1;
        self.batches += batches.len() as u64;
        self.operations += operations;
        let (last, state) = (SeqNo(self.batches), self.state.digest());
        Segment { number, batches, first, operations, last, replies, state }
    }

    /// Gives batches and operations the numbers that follow.
    fn number<O: Clone>(
        &self,
        batches: impl Iterator<Item = UpdateBatch<O>>,
        request: impl Fn(O) -> Request,
    ) -> Vec<UpdateBatch<Request>> {
        let mut next = self.operations;
        let mut renumber = |update: Update<O>| {
            let (from, session, _, operation) = update.into_inner();
            next += 1;
            Update::new(from, session, SeqNo(next - 1), request(operation))
        };
        let mut batch = |(batch, number): (UpdateBatch<O>, u64)| {
            let updates = batch.into_updates().into_iter().map(&mut renumber).collect();
            UpdateBatch::from_updates(SeqNo(self.batches + number), updates)
        };
        batches.zip(1..).map(&mut batch).collect()
    }
}

/// Batches of random programs.
fn programs(plan: Plan, keys: u8) -> impl Iterator<Item = UpdateBatch<Program>> {
    let size = plan.batch as u64;
    (0..plan.operations.div_ceil(size)).map(move |batch| {
        let (from, to) = (batch * size, plan.operations.min((batch + 1) * size));
        let bytes = |n: u64| (0..PROGRAM).map(|at| mix(mix(plan.seed, n), at) as u8).collect();
        let programs: Vec<Vec<u8>> = (from..to).map(bytes).collect();
        Program::batch(batch + 1, &programs, keys)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_numbered_without_gaps_and_follows_from_its_seed() {
        let log = |seed| {
            let mut state = ShardedState::new();
            Mixture::populate(&mut state);
            Log::new(state, seed, 50)
        };
        let (mut one, mut same, mut other) = (log(1), log(1), log(2));
        let (mut batches, mut operations) = (0, 0);
        for number in 0..CYCLE {
            let segment = one.next();
            assert_eq!((segment.number, segment.first, segment.operations), (number, operations, 50));
            for batch in &segment.batches {
                batches += 1;
                assert_eq!(batch.sequence_number(), SeqNo(batches));
                for update in batch.updates() {
                    assert_eq!(update.operation_id(), SeqNo(operations));
                    operations += 1;
                }
            }
            assert_eq!((segment.last, segment.requests().len()), (SeqNo(batches), 50));
            let again = same.next();
            assert_eq!((again.replies, again.state), (segment.replies, segment.state));
            assert_ne!(other.next().state, segment.state);
        }
        assert_eq!(one.operations(), 50 * CYCLE);
    }
}

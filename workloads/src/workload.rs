//! What a workload is, and the one implementation of the engine's application traits for all of them.

use std::marker::PhantomData;

use atlas_smr_execution::app::{Application, ApplicationData, Hints, ScalableApp};
use atlas_smr_execution::batch::{NodeId, SeqNo, Update, UpdateBatch};
use atlas_smr_execution::error::BoxError;
use atlas_smr_execution::state::{CRUDState, MergeOperator};

use crate::error::WorkloadError;

/// What the operations of a workload do.
pub trait Logic: Clone + Send + Sync + 'static {
    /// One operation.
    type Request: Clone + Send + Sync + 'static;

    /// Executes one operation. The sequential path and the speculative one both run this very body.
    fn execute(&self, state: &mut impl CRUDState, request: &Self::Request) -> u64;

    /// Does [`hints`](Logic::hints) name anything?
    const HINTS: bool = false;

    /// Names keys that the operation will probably touch.
    fn hints(&self, request: &Self::Request, hints: &mut impl Hints) {
        let _ = (request, hints);
    }

    /// Answers `request` read-only: from what the operation would read first.
    fn query(&self, state: &impl CRUDState, request: &Self::Request) -> u64;
}

/// A workload: a configuration that knows its application, its state and its batches.
pub trait Workload: Send + Sync {
    /// What its operations do.
    type Logic: Logic;

    /// Checks the configuration. The other methods rely on it.
    ///
    /// # Errors
    ///
    /// The first parameter that makes no sense.
    fn validate(&self) -> Result<(), WorkloadError>;

    /// What its operations do, with this configuration's parameters.
    fn logic(&self) -> Self::Logic;

    /// The columns whose merges do not combine by the default operator; states must be built with these.
    fn columns(&self) -> &'static [(&'static str, MergeOperator)] {
        &[]
    }

    /// Fills an empty state with what the operations expect to find.
    fn populate(&self, state: &mut impl CRUDState);

    /// The batches of a run, with sequence numbers from 1.
    fn batches(&self, plan: Plan) -> impl Iterator<Item = UpdateBatch<Request<Self>>> + Send;

    /// The application that an executor runs.
    fn app(&self) -> Service<Self::Logic> {
        Service(self.logic())
    }
}

/// The request type of a workload.
pub type Request<W> = <<W as Workload>::Logic as Logic>::Request;

/// How much of a workload is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Seed of the generator.
    pub seed: u64,
    /// Operations in one batch. Recorded traces have batches of their own.
    pub batch: usize,
    /// Operations altogether; the last batch holds what is left. Recorded traces have a number of their own.
    pub operations: u64,
}

impl Plan {
    /// Checks the numbers.
    ///
    /// # Errors
    ///
    /// A size of zero.
    pub fn validate(&self) -> Result<(), WorkloadError> {
        crate::error::in_range("batch", self.batch as u64, 1..=10_000_000)?;
        crate::error::in_range("operations", self.operations, 1..=10_000_000_000)
    }
}

/// Clients that the operations of a run come from, in turn.
const CLIENTS: u64 = 64;

/// An operation's envelope: its number in the run is its id, so that whoever gets the reply knows its place.
fn address<O>(number: u64, operation: O) -> Update<O> {
    Update::new(NodeId((number % CLIENTS) as u32), SeqNo(1), SeqNo(number), operation)
}

/// Cuts the endless `operations` into the batches of `plan`.
pub(crate) fn cut<O>(
    plan: Plan,
    mut operations: impl Iterator<Item = O>,
) -> impl Iterator<Item = UpdateBatch<O>> {
    let size = plan.batch.max(1) as u64;
    (0..plan.operations.div_ceil(size)).map(move |batch| {
        let first = batch * size;
        let last = plan.operations.min(first + size);
        let updates = (first..last).zip(&mut operations).map(|(number, o)| address(number, o)).collect();
        UpdateBatch::from_updates(SeqNo(batch + 1), updates)
    })
}

/// Numbers and addresses batches that have a size of their own.
pub(crate) fn number<O>(batches: impl Iterator<Item = Vec<O>>) -> impl Iterator<Item = UpdateBatch<O>> {
    let mut number = 0;
    batches.zip(1..).map(move |(operations, seq)| {
        let first = number;
        number += operations.len() as u64;
        let updates = (first..).zip(operations).map(|(number, o)| address(number, o)).collect();
        UpdateBatch::from_updates(SeqNo(seq), updates)
    })
}

/// The request and reply types of a workload's application.
#[derive(Debug)]
pub struct Operations<R>(PhantomData<R>);

impl<R: Clone + Send + Sync + 'static> ApplicationData for Operations<R> {
    type Request = R;
    type Reply = u64;
}

/// The application of a workload, on any state.
#[derive(Clone, Debug)]
pub struct Service<L>(pub L);

impl<S: CRUDState, L: Logic> Application<S> for Service<L> {
    type AppData = Operations<L::Request>;

    /// Always an error: a workload's state depends on its configuration. Populate one and hand it to the executor.
    fn initial_state() -> Result<S, BoxError> {
        Err("a workload's state is made by `Workload::populate`".into())
    }

    fn unordered_execution(&self, state: &S, request: L::Request) -> u64 {
        self.0.query(state, &request)
    }

    fn update(&self, state: &mut S, request: L::Request) -> u64 {
        self.0.execute(state, &request)
    }
}

impl<S: CRUDState, L: Logic> ScalableApp<S> for Service<L> {
    // Straight lines and bounded loops, all of them: they end on any values.
    const FORWARDING: bool = true;

    const HINTS: bool = L::HINTS;

    fn hints(&self, request: &L::Request, hints: &mut impl Hints) {
        self.0.hints(request, hints);
    }

    fn speculatively_execute(&self, state: &mut impl CRUDState, request: L::Request) -> u64 {
        self.0.execute(state, &request)
    }

    fn speculatively_execute_ref(&self, state: &mut impl CRUDState, request: &L::Request) -> u64 {
        self.0.execute(state, request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_cut_and_numbered() {
        let plan = Plan { seed: 0, batch: 4, operations: 10 };
        let batches: Vec<_> = cut(plan, 100..).collect();
        assert_eq!(batches.iter().map(UpdateBatch::len).collect::<Vec<_>>(), [4, 4, 2]);
        assert_eq!(batches[0].sequence_number(), SeqNo(1));
        assert_eq!(batches[2].updates()[1].operation_id(), SeqNo(9));
        assert_eq!(batches[2].updates()[1].operation(), &109);

        let batches: Vec<_> = number([vec!['a'], vec![], vec!['b', 'c']].into_iter()).collect();
        assert_eq!(batches[2].sequence_number(), SeqNo(3));
        assert_eq!(batches[2].updates()[0].operation_id(), SeqNo(1));
    }

    #[test]
    fn zero_sizes_are_refused() {
        let plan = Plan { seed: 0, batch: 0, operations: 10 };
        assert!(plan.validate().expect_err("zero").to_string().contains("`batch`"));
        let plan = Plan { seed: 0, batch: 1, operations: 0 };
        assert!(plan.validate().expect_err("zero").to_string().contains("`operations`"));
    }
}

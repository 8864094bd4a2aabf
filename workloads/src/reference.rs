//! The reference: the plain loop over `Application::update`, which says what a batch means.

use std::time::{Duration, Instant};

use atlas_smr_execution::app::{Application, ApplicationData};
use atlas_smr_execution::batch::UpdateBatch;
use atlas_smr_execution::state::CRUDState;

use crate::digest::ReplyDigest;
use crate::workload::Workload;

/// What the loop gave, besides the state that it ran on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Digest of all replies, in order.
    pub replies: ReplyDigest,
    /// Operations executed.
    pub operations: u64,
    /// How long the loop took.
    pub elapsed: Duration,
}

/// Executes `batches` one operation at a time on `state`.
pub fn run<S, A>(
    app: &A,
    state: &mut S,
    batches: impl IntoIterator<Item = UpdateBatch<Request<A, S>>>,
) -> Outcome
where
    A: Application<S>,
    A::AppData: ApplicationData<Reply = u64>,
{
    let start = Instant::now();
    let mut replies = ReplyDigest::new();
    let mut operations = 0;
    for update in batches.into_iter().flat_map(UpdateBatch::into_updates) {
        replies.push(app.update(state, update.into_operation()));
        operations += 1;
    }
    Outcome { replies, operations, elapsed: start.elapsed() }
}

/// The request type of `A`.
type Request<A, S> = <<A as Application<S>>::AppData as ApplicationData>::Request;

/// Runs a whole workload on a populated `state`.
pub fn run_workload<S: CRUDState, W: Workload>(
    workload: &W,
    state: &mut S,
    batches: impl IntoIterator<Item = UpdateBatch<crate::workload::Request<W>>>,
) -> Outcome {
    run(&workload.app(), state, batches)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;
    use crate::{Plan, Transfer};

    #[test]
    fn runs_are_repeatable_and_depend_on_the_seed() {
        let workload = Transfer { accounts: 4, work_ns: 0, heavy: 0.0, counts: 0 };
        let outcome = |seed| {
            let mut state = Memory::default();
            workload.populate(&mut state);
            let batches = workload.batches(Plan { seed, batch: 8, operations: 100 });
            let outcome = run_workload(&workload, &mut state, batches);
            assert_eq!(outcome.operations, 100);
            (outcome.replies, state)
        };
        assert_eq!(outcome(1), outcome(1));
        assert_ne!(outcome(1), outcome(2));
    }
}

//! Timing batches, whoever executes them.

use std::time::{Duration, Instant};

use atlas_smr_execution::app::Application;
use atlas_smr_execution::batch::UpdateBatch;
use atlas_smr_execution::error::Failure;
use atlas_smr_execution::reply::{BatchReplies, UpdateReply};
use atlas_smr_execution::state::ShardedState;
use workloads::{Logic, ReplyDigest, Service};

/// Batches are timed in groups of about this much: the clock costs little then, and the replies of a group are still
/// in a cache when they are looked at.
const GROUP: Duration = Duration::from_micros(100);

/// One run of some batches.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The time for executing them; making batches and looking at replies is not in it.
    pub elapsed: Duration,
    /// The same, group by group.
    pub groups: Vec<Duration>,
    /// Operations in them.
    pub operations: usize,
    /// Digest of all replies, in order; those of the first group, too.
    pub replies: ReplyDigest,
}

impl Sample {
    /// Nanoseconds for one operation.
    pub fn ns_per_operation(&self) -> f64 {
        self.elapsed.as_nanos() as f64 / self.operations.max(1) as f64
    }
}

/// How many batches that take this long one by one are timed together.
pub fn group_of(batch: Duration) -> usize {
    (GROUP.as_nanos() / batch.as_nanos().max(1)).clamp(1, 1 << 20) as usize
}

/// Runs `batches` through `execute`, and times them in groups of `group`. The first group is executed but not timed: a
/// worker that has to be woken wakes up there.
pub fn sample<R>(
    batches: Vec<UpdateBatch<R>>,
    group: usize,
    mut execute: impl FnMut(UpdateBatch<R>) -> Result<BatchReplies<u64>, Failure>,
) -> Result<Sample, Failure> {
    let groups = Vec::with_capacity(batches.len() / group + 1);
    let mut sample = Sample { elapsed: Duration::ZERO, groups, operations: 0, replies: ReplyDigest::new() };
    let mut done = Vec::with_capacity(group.min(batches.len()));
    let mut batches = batches.into_iter();
    let mut lead = true;
    while batches.len() > 0 {
        let start = Instant::now();
        for batch in batches.by_ref().take(group) {
            done.push(execute(batch)?);
        }
        let took = start.elapsed();
        if !std::mem::take(&mut lead) {
            sample.elapsed += took;
            sample.groups.push(took);
            sample.operations += done.iter().map(BatchReplies::len).sum::<usize>();
        }
        for reply in done.drain(..).flat_map(BatchReplies::into_inner) {
            sample.replies.push(reply.into_payload());
        }
    }
    Ok(sample)
}

/// The true competitor: the plain loop over `Application::update`, with its replies in a vector.
pub fn plain_loop<L: Logic>(
    app: &Service<L>,
    state: &mut ShardedState,
    batch: UpdateBatch<L::Request>,
) -> BatchReplies<u64> {
    let mut replies = Vec::with_capacity(batch.len());
    replies.extend(batch.into_updates().into_iter().map(|update| {
        let (from, session, id, request) = update.into_inner();
        UpdateReply::new(from, session, id, app.update(state, request))
    }));
    replies.into()
}

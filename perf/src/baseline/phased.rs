//! Parallel execution in phases, the way that in-order retirement succeeds: run every operation of the batch on the
//! state before it, in parallel; find the collisions; run those again that collided with an earlier operation, one
//! after the other.
//!
//! To be right, the second phase goes in batch order and commits what did not collide on the way: an operation that
//! runs again may take another branch and write what a later one has read.

use std::collections::HashMap;

use atlas_smr_execution::app::ScalableApp;
use atlas_smr_execution::batch::UpdateBatch;
use atlas_smr_execution::reply::{BatchReplies, UpdateReply};
use atlas_smr_execution::state::{CRUDState, ShardedState};
use rayon::prelude::*;
use workloads::{Logic, Service};

use super::view::{Access, Effects, Name, View};

/// Executes `batch` on `state`. Call it on a thread of a rayon pool: it uses that pool.
pub fn execute<L: Logic>(
    app: &Service<L>,
    state: &mut ShardedState,
    batch: UpdateBatch<L::Request>,
) -> BatchReplies<u64> {
    let base = &*state;
    let speculated: Vec<(Effects, u64)> =
        batch.updates().par_iter().map(|update| run(app, base, update.operation())).collect();
    let mut touched = Touched::default();
    let mut replies = BatchReplies::with_capacity(batch.len());
    for ((effects, reply), update) in speculated.into_iter().zip(batch.updates()) {
        let (effects, reply) =
            if touched.collides(&effects) { run(app, &*state, update.operation()) } else { (effects, reply) };
        for ((column, key), value) in &effects.writes {
            match value {
                Some(value) => state.put(column, key, value),
                None => state.remove(column, key),
            }
        }
        touched.add(effects);
        replies.push(UpdateReply::to_request(update, reply));
    }
    replies
}

fn run<L: Logic>(app: &Service<L>, base: &ShardedState, request: &L::Request) -> (Effects, u64) {
    let mut view = View::new(base);
    let reply = ScalableApp::<ShardedState>::speculatively_execute_ref(app, &mut view, request);
    (view.into_effects(), reply)
}

/// The keys that the operations so far have touched, and the strongest access to each.
#[derive(Default)]
struct Touched(HashMap<Name, Access>);

impl Touched {
    /// A write collides with any access to the same key, two reads do not.
    fn collides(&self, effects: &Effects) -> bool {
        effects.accesses.iter().any(|(name, access)| match self.0.get(name) {
            None => false,
            Some(earlier) => *earlier == Access::Write || *access == Access::Write,
        })
    }

    fn add(&mut self, effects: Effects) {
        for (name, access) in effects.accesses {
            let strongest = self.0.entry(name).or_insert(access);
            if access == Access::Write {
                *strongest = access;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::populated;
    use crate::sample::plain_loop;
    use workloads::{Branch, Kv, KvMix, Plan, Transfer, Workload};

    fn equals_the_loop<W: Workload>(workload: &W) {
        let app = workload.app();
        let (mut state, mut expected) =
            (populated(workload).expect("valid"), populated(workload).expect("valid"));
        for batch in workload.batches(Plan { seed: 9, batch: 50, operations: 5000 }) {
            let replies = plain_loop(&app, &mut expected, batch.clone());
            assert_eq!(execute(&app, &mut state, batch), replies);
        }
        assert!(state.iter().eq(expected.iter()));
    }

    #[test]
    fn it_equals_the_loop() {
        equals_the_loop(&Transfer { accounts: 3, work_ns: 0, heavy: 0.0, counts: 0 });
        equals_the_loop(&Transfer { accounts: 300, work_ns: 0, heavy: 0.0, counts: 0 });
        equals_the_loop(&Branch { keys: 40, work_ns: 0 });
        equals_the_loop(&Kv { mix: KvMix::YcsbF, keys: 50, value_size: 30 });
    }
}

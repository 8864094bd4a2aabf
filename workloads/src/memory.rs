//! The simplest state there is, and the checks that every workload passes on it.

use std::collections::BTreeMap;

use atlas_smr_execution::app::{Application, ScalableApp};
use atlas_smr_execution::batch::UpdateBatch;
use atlas_smr_execution::state::{CRUDState, MergeOperator};

use crate::workload::{Plan, Workload};

/// Ordered maps; merges go through the trait's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory(BTreeMap<(String, Vec<u8>), Vec<u8>>);

impl Memory {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

fn name(column: &str, key: &[u8]) -> (String, Vec<u8>) {
    (column.to_owned(), key.to_owned())
}

impl CRUDState for Memory {
    fn read(&self, column: &str, key: &[u8]) -> Option<Vec<u8>> {
        self.0.get(&name(column, key)).cloned()
    }

    fn create(&mut self, column: &str, key: &[u8], value: &[u8]) -> bool {
        let absent = !self.0.contains_key(&name(column, key));
        if absent {
            self.0.insert(name(column, key), value.to_owned());
        }
        absent
    }

    fn update(&mut self, column: &str, key: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        self.0.insert(name(column, key), value.to_owned())
    }

    fn delete(&mut self, column: &str, key: &[u8]) -> Option<Vec<u8>> {
        self.0.remove(&name(column, key))
    }

    fn merge_operator(&self, column: &str) -> MergeOperator {
        let columns = crate::trace::columns();
        columns
            .iter()
            .find(|(name, _)| *name == column)
            .map_or_else(Default::default, |(_, operator)| *operator)
    }
}

/// `update` and `speculatively_execute_ref` do the same; so do two runs; and the order of operations shows.
pub(crate) fn check_paths_agree<W: Workload>(workload: &W) {
    workload.validate().expect("valid");
    let app = workload.app();
    let mut start = Memory::default();
    workload.populate(&mut start);
    assert!(start.len() > 0);
    let plan = Plan { seed: 7, batch: 16, operations: 500 };
    let requests: Vec<_> = workload
        .batches(plan)
        .flat_map(UpdateBatch::into_updates)
        .map(|update| update.into_operation())
        .collect();

    let (mut updated, mut speculated) = (start.clone(), start);
    for request in &requests {
        let seen = Application::<Memory>::unordered_execution(&app, &updated, request.clone());
        assert_eq!(seen, Application::<Memory>::unordered_execution(&app, &speculated, request.clone()));
        let reply = app.update(&mut updated, request.clone());
        let ahead = ScalableApp::<Memory>::speculatively_execute_ref(&app, &mut speculated, request);
        assert_eq!(reply, ahead);
    }
    assert_eq!(updated, speculated);
}

/// One seed gives the same batches twice; another gives others.
pub(crate) fn check_seeded<W: Workload>(workload: &W)
where
    crate::workload::Request<W>: PartialEq + std::fmt::Debug,
{
    let plan = Plan { seed: 11, batch: 10, operations: 95 };
    let batches = |plan| workload.batches(plan).collect::<Vec<_>>();
    assert_eq!(batches(plan), batches(plan));
    assert_eq!(batches(plan).len(), 10);
    assert_ne!(batches(plan), batches(Plan { seed: 12, ..plan }));
}

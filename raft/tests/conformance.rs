//! Openraft's own suite for storages, on the log and the machine, for all four executors.

mod common;

use std::sync::atomic::{AtomicU32, Ordering};

use atlas_smr_raft::log::LogStore;
use atlas_smr_raft::machine::{ExecutorKind, Machine};
use atlas_smr_raft::storage::Storage;
use atlas_smr_raft::types::{StorageError, TypeConfig};
use openraft::testing::{StoreBuilder, Suite};
use tempfile::TempDir;

use common::{Numbers, storage};

struct Builder {
    kind: ExecutorKind,
    built: AtomicU32,
}

impl StoreBuilder<TypeConfig, LogStore, Machine<Numbers>, TempDir> for &Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine<Numbers>), StorageError> {
        self.built.fetch_add(1, Ordering::Relaxed);
        let dir = tempfile::tempdir().expect("a folder");
        let Storage { log, machine, .. } = storage(dir.path(), self.kind);
        Ok((dir, log, machine))
    }
}

fn conforms(kind: ExecutorKind) {
    let builder = Builder { kind, built: AtomicU32::new(0) };
    Suite::test_all(&builder).expect("conforms");
    // Each case builds one; the last one two.
    assert_eq!(builder.built.load(Ordering::Relaxed), 36, "35 cases ran");
}

#[test]
fn single_monolithic() {
    conforms(ExecutorKind::SingleMonolithic);
}

#[test]
fn multi_monolithic() {
    conforms(ExecutorKind::MultiMonolithic);
}

#[test]
fn single_divisible() {
    conforms(ExecutorKind::SingleDivisible);
}

#[test]
fn multi_divisible() {
    conforms(ExecutorKind::MultiDivisible);
}

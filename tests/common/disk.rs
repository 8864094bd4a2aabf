//! A durable state: it outlives its executors, and only a commit changes it. Where a test says so, a write goes wrong.

use std::sync::{Arc, Mutex, MutexGuard};

use atlas_smr_execution::batch::SeqNo;
use atlas_smr_execution::error::StateError;
use atlas_smr_execution::state::{CRUDState, Changes, Crew, MonolithicState};

use super::state::TestState;

/// A disk; clones are the same disk.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    content: Content,
    commits: u64,
    trouble: Option<Trouble>,
}

/// What lies on a disk.
#[derive(Clone, Default, Debug, PartialEq)]
pub struct Content {
    /// The batches whose commits have succeeded.
    pub committed: Vec<SeqNo>,
    pub map: TestState,
}

/// The write that goes wrong, and how.
#[derive(Clone, Copy, Debug)]
pub struct Trouble {
    pub batch: SeqNo,
    /// The number of the write in the batch, from 0.
    pub write: usize,
    pub panics: bool,
}

impl Disk {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn content(&self) -> Content {
        self.inner().content.clone()
    }

    /// How often a commit was tried.
    pub fn commits(&self) -> u64 {
        self.inner().commits
    }

    /// Sets which write goes wrong from now on.
    pub fn set_trouble(&self, trouble: Option<Trouble>) {
        self.inner().trouble = trouble;
    }
}

impl CRUDState for Disk {
    const IN_PLACE: bool = false;
    // The numbers that were committed are for tests; replicas do not compare them.
    const GROUP_COMMIT: bool = true;

    fn read(&self, column: &str, key: &[u8]) -> Option<Vec<u8>> {
        assert_ne!(key, b"unreadable", "the sector cannot be read");
        self.inner().content.map.read(column, key)
    }

    fn create(&mut self, _: &str, _: &[u8], _: &[u8]) -> bool {
        unreachable!("only a commit writes")
    }

    fn update(&mut self, _: &str, _: &[u8], _: &[u8]) -> Option<Vec<u8>> {
        unreachable!("only a commit writes")
    }

    fn delete(&mut self, _: &str, _: &[u8]) -> Option<Vec<u8>> {
        unreachable!("only a commit writes")
    }

    fn place(&self, _: &str, key: &[u8]) -> Option<u16> {
        assert_ne!(key, b"nowhere", "there is no such sector");
        Some(u16::from_be_bytes([key[0], 0]))
    }

    /// One transaction: it counts once all writes have gone well.
    fn commit(&mut self, seq: SeqNo, changes: &Changes<'_>, _: &mut dyn Crew) -> Result<(), StateError> {
        let mut inner = self.inner();
        inner.commits += 1;
        let trouble = inner.trouble.filter(|trouble| trouble.batch == seq);
        let mut transaction = inner.content.clone();
        for (write, change) in changes.iter().enumerate() {
            if let Some(trouble) = trouble.filter(|trouble| trouble.write == write) {
                assert!(!trouble.panics, "the disk is gone");
                return Err(StateError::Other("the disk is full".into()));
            }
            assert_eq!(change.operand, None, "nobody asked for operands");
            match change.value {
                Some(value) => transaction.map.put(change.column, change.key, value),
                None => transaction.map.remove(change.column, change.key),
            }
        }
        transaction.committed.push(seq);
        inner.content = transaction;
        Ok(())
    }
}

impl MonolithicState for Disk {
    fn snapshot(&self) -> Self {
        let inner = Inner { content: self.content(), ..Inner::default() };
        Disk(Arc::new(Mutex::new(inner)))
    }

    fn serialize<W: std::io::Write>(&self, _: W) -> Result<(), StateError> {
        unreachable!("states stay in memory here")
    }

    fn deserialize<R: std::io::Read>(_: R) -> Result<Self, StateError> {
        unreachable!("states stay in memory here")
    }
}

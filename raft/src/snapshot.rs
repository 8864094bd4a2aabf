//! Snapshots on disk.

/// A snapshot that is whole and checked.
#[derive(Clone, Debug)]
pub struct Snapshot;

//! Recorded Ethereum blocks as a workload: real conflicts, real skew, real costs.
//!
//! A trace is a file of JSON lines, one a block: first a header with the block's key table, then one line for each
//! transaction with the keys it read (`r`) and wrote (`w`), the balances it changed (`d`), the accounts whose balance
//! or nonce its code observed (`bo`, `no`), how much gas it used (`gas`), and how long it took (`ns`). [`Recording`] is such
//! a file, checked; [`Model`] says what a transaction touches when it runs again; [`Trace`] is the workload.
//!
//! One block is one batch. An operation reads, in the recorded order, and works for the recorded time, which it spreads
//! over its reads; then it writes values that follow from everything it read and from its own identity: if it ever sees a
//! wrong value, it writes a wrong one.

mod model;
mod parse;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use atlas_smr_execution::app::Hints;
use atlas_smr_execution::batch::UpdateBatch;
use atlas_smr_execution::state::{CRUDState, MergeOperator};

use crate::digest::{checksum, mix};
use crate::error::{TraceError, WorkloadError, in_range};
use crate::spin::Cost;
use crate::workload::{Logic, Plan, Workload, number};

pub use model::{BalanceChange, Block, Model, TraceOperation};
pub use parse::Recording;

/// What a key of a trace stands for; each kind has a column of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Column {
    /// Balance and nonce of an account; nonces alone where balances have their own column.
    Account,
    /// The hash of an account's code.
    Code,
    /// A storage slot of an account.
    Storage,
    /// An account's balance, 128-bit little-endian, where balance changes are merges.
    Balance,
}

impl Column {
    /// The column's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Column::Account => "account",
            Column::Code => "code",
            Column::Storage => "storage",
            Column::Balance => "balance",
        }
    }
}

/// A key of the state: the address's 20 bytes, for storage followed by the slot's, without leading zeros.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TraceKey {
    /// The key's column.
    pub column: Column,
    /// The key's bytes.
    pub bytes: Arc<[u8]>,
}

/// The merge operators that a state for traces must be built with.
#[must_use]
pub fn columns() -> &'static [(&'static str, MergeOperator)] {
    const COLUMNS: &[(&str, MergeOperator)] = &[(Column::Balance.name(), MergeOperator::WrappingAdd128)];
    COLUMNS
}

/// The folder with traces for tests and benches: `ATLAS_TRACES`, or else `../shared/traces` beside the workspace's
/// root. `None` if there is no such folder; say so and skip.
#[must_use]
pub fn default_folder() -> Option<PathBuf> {
    let folder = std::env::var_os("ATLAS_TRACES")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/traces"));
    folder.is_dir().then_some(folder)
}

/// The trace files (`*.jsonl`) of a folder, in the order of their block numbers.
///
/// # Errors
///
/// A folder that cannot be read, or has no traces.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>, TraceError> {
    let refused = |source| TraceError::Io { path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(refused)? {
        let path = entry.map_err(refused)?.path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(TraceError::NoTraces { path: folder.to_owned() });
    }
    // By number where names are numbers, which they are; by name otherwise.
    files.sort_by_key(|path| {
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        (stem.parse::<u64>().unwrap_or(u64::MAX), stem)
    });
    Ok(files)
}

/// Recorded blocks, one batch each.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The blocks, in the order in which they are executed.
    pub blocks: Vec<Arc<Block>>,
    /// Busy work of an operation, as a multiple of its recorded time; 0 for none.
    pub scale: f64,
    /// How often the sequence of blocks is executed.
    pub repeat: usize,
}

impl Trace {
    /// The blocks of all traces of `folder`, once each at the recorded speed.
    ///
    /// # Errors
    ///
    /// What cannot be read, with file and line.
    pub fn load(folder: &Path, model: Model) -> Result<Trace, TraceError> {
        let mut blocks = Vec::new();
        for file in files(folder)? {
            blocks.push(Arc::new(Block::new(&Recording::read(&file)?, model)));
        }
        Ok(Trace { blocks, scale: 1.0, repeat: 1 })
    }

    /// Operations of a whole run.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.blocks.iter().map(|block| block.operations.len() as u64).sum::<u64>() * self.repeat as u64
    }
}

impl Workload for Trace {
    type Logic = TraceLogic;

    fn validate(&self) -> Result<(), WorkloadError> {
        in_range("repeat", self.repeat as u64, 1..=1_000_000)?;
        if !(0.0..=1e6).contains(&self.scale) {
            let must = "a factor from 0 to a million";
            return Err(WorkloadError::BadFactor { name: "scale", value: self.scale, must });
        }
        Ok(())
    }

    fn logic(&self) -> TraceLogic {
        TraceLogic { millisecond: Cost::of_ns(1e6 * self.scale) }
    }

    fn columns(&self) -> &'static [(&'static str, MergeOperator)] {
        columns()
    }

    /// Sets every key that occurs to a value that follows from the key.
    fn populate(&self, state: &mut impl CRUDState) {
        for key in self.blocks.iter().flat_map(|block| block.keys.iter()) {
            let hash = checksum(Some(&key.bytes));
            match key.column {
                Column::Balance => {
                    state.put(key.column.name(), &key.bytes, &u128::from(hash).to_le_bytes());
                }
                _ => state.put(key.column.name(), &key.bytes, &value(hash, 0)),
            }
        }
    }

    /// The blocks; of `plan` nothing is used.
    fn batches(&self, _plan: Plan) -> impl Iterator<Item = UpdateBatch<Arc<TraceOperation>>> + Send {
        let rounds = (0..self.repeat).flat_map(|_| &self.blocks);
        number(rounds.map(|block| block.operations.clone()))
    }
}

/// Executes recorded operations; the reply is the hash of everything that was read.
#[derive(Clone, Copy, Debug)]
pub struct TraceLogic {
    /// The work of a recorded millisecond, of which each operation does its share.
    millisecond: Cost,
}

impl Logic for TraceLogic {
    type Request = Arc<TraceOperation>;

    fn execute(&self, state: &mut impl CRUDState, operation: &Arc<TraceOperation>) -> u64 {
        let observed = || operation.balances.iter().filter(|change| change.observed);
        let reads = operation.reads.len() + observed().count();
        let mut work = self.millisecond.share(operation.ns, 1_000_000).in_parts(reads.max(1) as u64);
        let mut work_on = || work.next().unwrap_or(Cost::NONE).spin();
        let mut seen = operation.id;
        for key in &operation.reads {
            seen = read(state, seen, key);
            work_on();
        }
        for change in observed() {
            let balance = state.read_with(Column::Balance.name(), &change.account, balance);
            seen = mix(mix(seen, balance as u64), (balance >> 64) as u64);
            if let Some(difference) = change.difference {
                let after = balance.wrapping_add_signed(difference);
                state.put(Column::Balance.name(), &change.account, &after.to_le_bytes());
            }
            work_on();
        }
        if reads == 0 {
            work_on();
        }
        for (key, n) in operation.writes.iter().zip(1..) {
            state.put(key.column.name(), &key.bytes, &value(seen, n));
        }
        for change in operation.balances.iter().filter(|change| !change.observed) {
            if let Some(difference) = change.difference {
                state.merge(Column::Balance.name(), &change.account, &difference.to_le_bytes());
            }
        }
        seen
    }

    const HINTS: bool = true;

    /// Exact keys: the recording knows what was touched. The weight is the gas that was used; a replica would know its limit.
    fn hints(&self, operation: &Arc<TraceOperation>, hints: &mut impl Hints) {
        hints.weighs(operation.gas);
        operation.reads.iter().for_each(|key| hints.reads(key.column.name(), &key.bytes));
        operation.writes.iter().for_each(|key| hints.writes(key.column.name(), &key.bytes));
        for change in &operation.balances {
            if change.observed {
                hints.reads(Column::Balance.name(), &change.account);
                hints.writes(Column::Balance.name(), &change.account);
            } else {
                hints.merges(Column::Balance.name(), &change.account);
            }
        }
    }

    fn query(&self, state: &impl CRUDState, operation: &Arc<TraceOperation>) -> u64 {
        operation.reads.iter().fold(operation.id, |seen, key| read(state, seen, key))
    }
}

/// The hash of what was `seen` before and of the value of one more key.
fn read(state: &impl CRUDState, seen: u64, key: &TraceKey) -> u64 {
    state.read_with(key.column.name(), &key.bytes, |value| mix(seen, checksum(value)))
}

/// The `n`th value that follows from the hash `seen`: 32 bytes, as long as a slot.
fn value(seen: u64, n: u64) -> [u8; 32] {
    let mut value = [0; 32];
    let mut hash = mix(seen, n);
    for word in value.as_chunks_mut::<8>().0 {
        *word = hash.to_le_bytes();
        hash = mix(hash, n);
    }
    value
}

/// The little-endian number in the first 16 bytes; absent and missing bytes are zero.
fn balance(value: Option<&[u8]>) -> u128 {
    let mut bytes = [0; 16];
    if let Some(value) = value {
        let n = value.len().min(16);
        bytes[..n].copy_from_slice(&value[..n]);
    }
    u128::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests;

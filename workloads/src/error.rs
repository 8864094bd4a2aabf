//! What can be wrong with a workload.

use std::path::PathBuf;

/// A workload that cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkloadError {
    /// No workload has this name.
    #[error("unknown workload `{name}`; known are {known}")]
    UnknownWorkload {
        /// What was asked for.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// No conflict model has this name.
    #[error("unknown conflict model `{name}`; known are raw, account, merge")]
    UnknownModel {
        /// What was asked for.
        name: String,
    },
    /// A number outside what makes sense.
    #[error("`{name}` is {value}, but must be from {min} to {max}")]
    OutOfRange {
        /// The parameter.
        name: &'static str,
        /// What was asked for.
        value: u64,
        /// The smallest that makes sense.
        min: u64,
        /// The largest that makes sense.
        max: u64,
    },
    /// A ratio or factor that is negative, too large or not a number.
    #[error("`{name}` is {value}, but must be {must}")]
    BadFactor {
        /// The parameter.
        name: &'static str,
        /// What was asked for.
        value: f64,
        /// What makes sense.
        must: &'static str,
    },
    /// Traces that cannot be read.
    #[error(transparent)]
    Trace(#[from] TraceError),
}

/// A trace that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The operating system refused a file or folder.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A line that cannot be read or does not follow the format.
    #[error("{}:{line}: {what}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line's number; the first is 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// A folder without traces.
    #[error("{}: no trace here (files named *.jsonl)", path.display())]
    NoTraces {
        /// The folder.
        path: PathBuf,
    },
}

/// `value`, if it lies in `range`.
pub(crate) fn in_range(
    name: &'static str,
    value: u64,
    range: std::ops::RangeInclusive<u64>,
) -> Result<(), WorkloadError> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(WorkloadError::OutOfRange { name, value, min: *range.start(), max: *range.end() })
}

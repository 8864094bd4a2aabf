//! The workloads by name.

use std::fmt;
use std::str::FromStr;

use crate::error::WorkloadError;
use crate::kv::KvMix;

/// A workload's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkloadKind {
    /// `transfer`: [`Transfer`](crate::Transfer).
    Transfer,
    /// `kv-put`, `kv-update`, `kv-merge`, `ycsb-a`, `ycsb-b`, `ycsb-c` and `ycsb-f`: [`Kv`](crate::Kv).
    Kv(KvMix),
    /// `branch`: [`Branch`](crate::Branch).
    Branch,
    /// `trace`: [`Trace`](crate::trace::Trace).
    Trace,
}

impl WorkloadKind {
    /// Every workload, in the order in which they are listed.
    pub const ALL: [WorkloadKind; 10] = [
        WorkloadKind::Transfer,
        WorkloadKind::Kv(KvMix::Put),
        WorkloadKind::Kv(KvMix::Update),
        WorkloadKind::Kv(KvMix::Merge),
        WorkloadKind::Kv(KvMix::YcsbA),
        WorkloadKind::Kv(KvMix::YcsbB),
        WorkloadKind::Kv(KvMix::YcsbC),
        WorkloadKind::Kv(KvMix::YcsbF),
        WorkloadKind::Branch,
        WorkloadKind::Trace,
    ];

    /// The name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            WorkloadKind::Transfer => "transfer",
            WorkloadKind::Kv(KvMix::Put) => "kv-put",
            WorkloadKind::Kv(KvMix::Update) => "kv-update",
            WorkloadKind::Kv(KvMix::Merge) => "kv-merge",
            WorkloadKind::Kv(KvMix::YcsbA) => "ycsb-a",
            WorkloadKind::Kv(KvMix::YcsbB) => "ycsb-b",
            WorkloadKind::Kv(KvMix::YcsbC) => "ycsb-c",
            WorkloadKind::Kv(KvMix::YcsbF) => "ycsb-f",
            WorkloadKind::Branch => "branch",
            WorkloadKind::Trace => "trace",
        }
    }

    /// What its operations do, in one line.
    #[must_use]
    pub fn summary(self) -> &'static str {
        match self {
            WorkloadKind::Transfer => "transfers between accounts: read two balances, work, write both",
            WorkloadKind::Kv(KvMix::Put) => "blind puts of evenly drawn keys",
            WorkloadKind::Kv(KvMix::Update) => "updates of evenly drawn keys that use the previous value",
            WorkloadKind::Kv(KvMix::Merge) => "merges into evenly drawn counters",
            WorkloadKind::Kv(KvMix::YcsbA) => "YCSB A: half reads, half puts, zipf 0.99",
            WorkloadKind::Kv(KvMix::YcsbB) => "YCSB B: 95 % reads, 5 % puts, zipf 0.99",
            WorkloadKind::Kv(KvMix::YcsbC) => "YCSB C: reads only, zipf 0.99",
            WorkloadKind::Kv(KvMix::YcsbF) => "YCSB F: half reads, half read-modify-writes, zipf 0.99",
            WorkloadKind::Branch => "operations that read a key and decide by its value what to touch",
            WorkloadKind::Trace => "recorded Ethereum transactions, one block a batch",
        }
    }
}

impl fmt::Display for WorkloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for WorkloadKind {
    type Err = WorkloadError;

    fn from_str(name: &str) -> Result<Self, WorkloadError> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| WorkloadError::UnknownWorkload {
            name: name.to_owned(),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        for kind in WorkloadKind::ALL {
            assert_eq!(kind.name().parse::<WorkloadKind>().expect("known"), kind);
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known() {
        let error = "ycsb-z".parse::<WorkloadKind>().expect_err("unknown").to_string();
        assert!(error.contains("`ycsb-z`") && error.contains("kv-put") && error.contains("trace"), "{error}");
    }
}

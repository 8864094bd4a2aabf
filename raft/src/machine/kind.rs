//! The four executors by name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Which executor runs the application. The choice never changes a result: the nodes of a cluster may differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExecutorKind {
    /// One operation after the other; the state travels as a whole.
    SingleMonolithic,
    /// On all cores; the state travels as a whole.
    MultiMonolithic,
    /// One operation after the other; the state travels in parts.
    SingleDivisible,
    /// On all cores; the state travels in parts.
    #[default]
    MultiDivisible,
}

/// No executor has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no executor is called `{name}`: there are {}", ExecutorKind::ALL.map(ExecutorKind::name).join(", "))]
pub struct UnknownKind {
    /// The name.
    pub name: String,
}

impl ExecutorKind {
    /// All of them.
    pub const ALL: [ExecutorKind; 4] = [
        ExecutorKind::SingleMonolithic,
        ExecutorKind::MultiMonolithic,
        ExecutorKind::SingleDivisible,
        ExecutorKind::MultiDivisible,
    ];

    /// Its name, as on the command line and in configurations.
    pub fn name(self) -> &'static str {
        match self {
            ExecutorKind::SingleMonolithic => "single-monolithic",
            ExecutorKind::MultiMonolithic => "multi-monolithic",
            ExecutorKind::SingleDivisible => "single-divisible",
            ExecutorKind::MultiDivisible => "multi-divisible",
        }
    }
}

impl fmt::Display for ExecutorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for ExecutorKind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, UnknownKind> {
        let known = ExecutorKind::ALL.into_iter().find(|kind| kind.name() == name);
        known.ok_or_else(|| UnknownKind { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for kind in ExecutorKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        let error = "double".parse::<ExecutorKind>().expect_err("no such executor").to_string();
        assert!(error.contains("`double`") && error.contains("single-divisible"), "{error}");
    }
}

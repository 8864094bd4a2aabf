//! Faults, on purpose: shows that the replicated program survives them.
//!
//! Three replicas run as processes on loopback, with proxies between them; clients work on them and write down what they
//! asked and were told; a seeded schedule kills, cuts off, starves and restarts replicas. In the end the histories are
//! judged. README.md says what each scenario shows, and how to run one again.
#![deny(unsafe_code)]

use std::sync::{Mutex, MutexGuard, PoisonError};

pub mod history;
pub mod judge;
pub mod linearizable;
pub mod model;
pub mod origin;
pub mod process;
pub mod proxy;
pub mod workload;

/// Nothing here is left half changed by a panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

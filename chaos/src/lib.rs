//! Faults, on purpose: shows that the replicated program survives them.
//!
//! Three replicas run as processes on loopback, with proxies between them; clients work on them and write down what they
//! asked and were told; a seeded schedule kills, cuts off, starves and restarts replicas. In the end the histories are
//! judged. README.md says what each scenario shows, and how to run one again.
#![deny(unsafe_code)]

use std::sync::{Mutex, MutexGuard, PoisonError};

pub mod cluster;
pub mod connection;
pub mod error;
pub mod history;
mod http;
pub mod judge;
pub mod linearizable;
pub mod mixed;
pub mod model;
pub mod origin;
pub mod process;
pub mod proxy;
/// What the served store is asked, and answers: the program's own definition.
#[path = "../../cli/src/served/request.rs"]
pub mod request;
pub mod scenario;
pub mod schedule;
pub mod workload;

/// Nothing here is left half changed by a panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

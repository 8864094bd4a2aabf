//! Faults, on purpose: shows that the replicated program survives them.
//!
//! Three replicas run as processes on loopback, with proxies between them; clients work on them and write down what they
//! asked and were told; a seeded schedule kills, cuts off, starves and restarts replicas. In the end the histories are
//! judged. README.md says what each scenario shows, and how to run one again.
#![deny(unsafe_code)]

pub mod linearizable;
pub mod model;

//! Whole batches of the real engine under random schedules.
//!
//! Loom looks at every schedule of a part, and cannot hold a batch of several operations on several threads. Here a
//! scheduler decides at each access to an atomic, a lock or a thread who goes on, at random, and each schedule is a number:
//! its seed (`schedule`). From the same seed come the settings, the operations and the faults of the run (`trial`,
//! `app`). What is checked is always the same: replies and state are those of the sequential loop, and the engine ends.
//!
//! `run.sh` explores; `mutants.sh` breaks the engine in one place at a time, and demands that the model named in
//! `mutants.toml` notices. Shuttle takes every atomic operation for sequentially consistent, so what an ordering is
//! good for is loom's to check, not this package's. Without `--cfg shuttle` it is empty.
#![cfg(shuttle)]

pub mod app;
pub mod harness;
#[path = "../../loom-tests/src/marks.rs"]
pub mod marks;
pub mod schedule;
pub mod trial;

#[cfg(test)]
mod faults;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod ways;

//! Loom models of the engine's lock-free parts, as shipped.
//!
//! Each module models one part through `atlas_smr_execution::internals`; its header states the property and the steps
//! of the essays (`src/pool/README.md`, `src/retire.rs`) that it covers. `run.sh` runs them; `mutants.py` weakens the
//! engine in one place at a time and demands that the model that `mutants.toml` names beside each edit fails. Without `--cfg loom` this
//! package is empty.
//!
//! Three things that models cannot tell: loom orders all SeqCst fences as if they also synchronised with each other;
//! its `unpark` synchronises with a thread that is not parked yet; and plain memory (records in arenas) is not watched.
//! So the models put `harness::Tracked` cells where the engine's data would be.
#![cfg(loom)]

pub mod harness;
pub mod marks;

#[cfg(test)]
mod arena;
#[cfg(test)]
mod batch;
#[cfg(test)]
mod chunks;
#[cfg(test)]
mod exchange;
#[cfg(test)]
mod executor;
#[cfg(test)]
mod gate;
#[cfg(test)]
mod glue;
#[cfg(test)]
mod pending;
#[cfg(test)]
mod pool;
#[cfg(test)]
mod retire;
#[cfg(test)]
mod slots;
#[cfg(test)]
mod table;
#[cfg(test)]
mod try_lock;

//! Workloads: applications, generators and the trace reader that the program, benches and tests share.
//!
//! A [`Workload`] is a configuration that knows its application, its initial state and its batches. Everything is
//! generic over the state and deterministic: the same configuration and seed give the same batches on every machine.
//! Replies are 64-bit numbers that depend on everything an operation read, so that a wrong order shows in a digest.
//!
//! | workload | operations |
//! |---|---|
//! | [`Transfer`] | read two balances, work, write both |
//! | [`Kv`] | blind puts; updates that use the previous value; YCSB A, B, C and F |
//! | [`Branch`] | read a key and decide by its value what to touch |
//! | [`Trace`](trace::Trace) | recorded Ethereum transactions in three conflict models |
//!
//! In reading order: `digest` and `spin` (what operations compute), `workload` (the traits and the one
//! implementation of the engine's application traits), one module a workload, `kind` (names), `reference` (the
//! sequential loop that every executor is held against).
#![forbid(unsafe_code)]

pub mod digest;
pub mod error;
pub mod program;
pub mod reference;
pub mod spin;
pub mod trace;

mod branch;
mod kind;
mod kv;
#[cfg(test)]
mod memory;
mod transfer;
mod workload;

pub use branch::{Branch, BranchLogic, BranchRequest};
pub use digest::ReplyDigest;
pub use error::WorkloadError;
pub use kind::WorkloadKind;
pub use kv::{Kv, KvLogic, KvMix, KvRequest, MAX_VALUE_SIZE};
pub use transfer::{Transfer, TransferLogic, TransferRequest};
pub use workload::{Logic, Operations, Plan, Request, Service, Workload};

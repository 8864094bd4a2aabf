//! The engine under a consensus engine: replicates an application of `atlas-smr-execution` with openraft.
//!
//! ```text
//!   client ──► server ──► batcher ──► consensus ──► log           session  ◄── machine ──► executor of the engine
//!      ▲          (gRPC)    entries      (openraft)   │  ▲  network   (once)      │  ▲
//!      └──────────────── answers ◄────────────────────┴──┴────────────────────────┘  snapshot
//! ```
//!
//! | module | what is there |
//! |---|---|
//! | [`node`], [`config`] | one node: starts all the rest, stops it in order |
//! | [`client`] | follows the leader, retries under the same numbers |
//! | [`batcher`] | groups requests into entries; a bounded queue in front |
//! | [`network`], [`tls`] | the way to other nodes; certificates of both sides |
//! | [`types`] | what is replicated: entries, commands, answers |
//! | [`session`] | executes each command once |
//! | [`log`], [`snapshot`], [`machine`], [`storage`], [`disk`] | what a node keeps, and the executor on top of it |
//! | [`proto`] | the messages, as generated |
//! | [`loopback`] | addresses for a cluster on one machine |
//!
//! The README beside this crate shows how to serve an application of one's own.
#![deny(unsafe_code)]

pub mod batcher;
pub mod client;
pub mod config;
pub mod disk;
pub mod log;
pub mod loopback;
pub mod machine;
pub mod network;
pub mod node;
pub mod proto;
mod server;
pub mod session;
pub mod snapshot;
pub mod storage;
pub mod tls;
pub mod types;

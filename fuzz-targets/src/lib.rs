//! What the fuzzer calls: functions that take any bytes, and panic if the engine does anything wrong with them.
//!
//! | target | the bytes are | what must hold |
//! |---|---|---|
//! | [`differential`] | a configuration, programs and batches | all four executors do what the sequential loop does |
//! | [`install`] | descriptors, parts, streams, and messages of them | no panic, and no state but the old one or a right one |
//! | [`trace`] | a trace file | no panic; what is accepted can be run |
//!
//! The fuzzer itself, which needs a nightly compiler, is in `fuzz/`; its corpus is in `fuzz/corpus/`. The test
//! `tests/corpus.rs` replays the corpus, and random mutations of it, on any compiler.

pub mod differential;
pub mod executors;
pub mod input;
pub mod install;
pub mod seeds;
pub mod trace;

/// Something to fuzz.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is that of its corpus's folder.
    pub name: &'static str,
    /// Takes any bytes, and panics if something is wrong.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: [Target; 3] = [
    Target { name: "differential", run: differential::run },
    Target { name: "install", run: install::run },
    Target { name: "trace", run: trace::run },
];

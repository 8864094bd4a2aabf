//! Replays the fuzzer's corpus, and random mutations of it: some fuzzing for every machine.
//!
//! `FUZZ_RUNS` says how many mutations each target gets, and `FUZZ_SEED` with which number they begin; a failure prints the
//! number that makes the same input again, and the input.

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use fuzz_targets::{TARGETS, Target, seeds};

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target)
}

/// The files of a target's corpus, in the order of their names.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(folder(target))
        .expect("a corpus")
        .map(|entry| {
            let entry = entry.expect("an entry");
            let bytes = std::fs::read(entry.path()).expect("a file");
            (entry.file_name().to_string_lossy().into_owned(), bytes)
        })
        .collect();
    files.sort();
    files
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect(name))
}

/// A generator of numbers (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % limit.max(1) as u64) as usize
    }

    fn byte(&mut self) -> u8 {
        // Small numbers and the ends of ranges are where things happen.
        match self.below(4) {
            0 => [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
            1 => self.below(16) as u8,
            _ => self.below(256) as u8,
        }
    }
}

/// Changes `bytes` in a few places; `other` is another input to take pieces from.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let end = (at + 1 + random.below(12)).min(bytes.len());
        match random.below(9) {
            0 | 1 if at < bytes.len() => bytes[at] = random.byte(),
            2 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            3 => drop(bytes.drain(at..end)),
            4 => bytes.insert(at, random.byte()),
            5 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            6 => {
                let from = random.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            // In a text, a number is more often something else than broken.
            7 | 8 => {
                if let Some(digit) = bytes[at..].iter_mut().find(|byte| byte.is_ascii_digit()) {
                    *digit = b'0' + random.below(10) as u8;
                }
            }
            _ => {}
        }
    }
    bytes.truncate(4096);
}

/// Input number `seed` of a target.
fn mutation(files: &[(String, Vec<u8>)], seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let mut bytes = files[random.below(files.len())].1.clone();
    mutate(&mut bytes, &files[random.below(files.len())].1, &mut random);
    bytes
}

fn replay(target: Target) {
    let files = corpus(target.name);
    assert!(files.len() >= 8, "a corpus of {} files", files.len());
    for (name, bytes) in &files {
        assert!(bytes.len() <= 1024, "{name} is large for a corpus");
        if catch_unwind(|| (target.run)(bytes)).is_err() {
            panic!("{} fails on fuzz/corpus/{}/{name}", target.name, target.name);
        }
    }
    let (first, runs) = (number("FUZZ_SEED", 1), number("FUZZ_RUNS", 300));
    for seed in first..first + runs {
        let bytes = mutation(&files, seed);
        if catch_unwind(|| (target.run)(&bytes)).is_err() {
            panic!("{} fails on mutation {seed} (FUZZ_SEED={seed} FUZZ_RUNS=1): {bytes:02x?}", target.name);
        }
    }
    println!("{}: {} files and {runs} mutations", target.name, files.len());
}

#[test]
fn differential() {
    replay(TARGETS[0]);
}

#[test]
fn install() {
    replay(TARGETS[1]);
}

#[test]
fn trace() {
    replay(TARGETS[2]);
}

#[test]
fn the_corpus_has_all_seeds() {
    for seed in seeds::all() {
        let file = folder(seed.target).join(&seed.name);
        let bytes = std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_eq!(bytes, seed.bytes, "{}", file.display());
    }
}

#[test]
#[ignore = "writes to fuzz/corpus/"]
fn write_the_seeds() {
    for seed in seeds::all() {
        std::fs::create_dir_all(folder(seed.target)).expect("a folder");
        std::fs::write(folder(seed.target).join(&seed.name), &seed.bytes).expect("a file");
    }
}

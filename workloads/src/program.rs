//! Random programs: operations whose path depends on what they read. For tests of serial equivalence.
//!
//! A [`Program`] is a short list of instructions over one register. It is decoded from bytes, so that a property test can
//! shrink it and a fuzzer can feed it; every byte string is a program. The reply is a hash of everything that the program
//! observed, so a wrong value anywhere shows.

use std::sync::Arc;

use atlas_smr_execution::app::Hints;
use atlas_smr_execution::batch::{NodeId, SeqNo, UpdateBatch};
use atlas_smr_execution::state::CRUDState;

use crate::digest::{checksum, mix};
use crate::workload::Logic;

/// Names of the columns that programs use.
pub const COLUMNS: [&str; 3] = ["a", "b", ""];

/// Bytes of one instruction.
const WIDTH: usize = 4;
/// Longer programs are cut.
const MAX_INSTRUCTIONS: usize = 32;

/// One step of a program on the key `key` of the column `column`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    code: u8,
    column: u8,
    key: u8,
    value: u8,
}

/// A program; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    instructions: Arc<[Instruction]>,
    keys: u8,
}

impl Program {
    /// The program that `bytes` encode, on keys below `keys` (at least 1).
    pub fn from_bytes(bytes: &[u8], keys: u8) -> Self {
        let instruction = |b: &[u8]| Instruction { code: b[0], column: b[1], key: b[2], value: b[3] };
        let instructions = bytes.chunks_exact(WIDTH).take(MAX_INSTRUCTIONS).map(instruction).collect();
        Program { instructions, keys: keys.max(1) }
    }

    /// A batch of programs, one for each byte string.
    pub fn batch(seq: u64, programs: &[Vec<u8>], keys: u8) -> UpdateBatch<Program> {
        let mut batch = UpdateBatch::with_capacity(SeqNo(seq), programs.len());
        for (position, bytes) in programs.iter().enumerate() {
            let client = NodeId((position % 5) as u32);
            batch.add(client, SeqNo(seq), SeqNo(position as u64), Program::from_bytes(bytes, keys));
        }
        batch
    }
}

/// What a running program knows.
struct Machine {
    register: u64,
    observed: u64,
}

impl Machine {
    fn observe(&mut self, value: Option<&[u8]>) {
        self.register = checksum(value);
        self.observed = mix(self.observed, self.register);
    }

    /// A value that depends on everything observed; its length varies from 0 to 40.
    fn value(&self, seed: u8) -> ([u8; 40], usize) {
        let mut bytes = [0; 40];
        for (i, chunk) in bytes.chunks_exact_mut(8).enumerate() {
            chunk.copy_from_slice(&mix(self.observed, u64::from(seed) + i as u64).to_le_bytes());
        }
        (bytes, usize::from(seed) % 41)
    }

    fn step(&mut self, state: &mut impl CRUDState, instruction: Instruction, keys: u8) -> usize {
        let Instruction { code, column, key, value } = instruction;
        let column = COLUMNS[usize::from(column) % COLUMNS.len()];
        // Every other key is chosen by what was read: the access set is not known beforehand.
        let key = if code & 0x80 == 0 { key } else { key.wrapping_add(self.register as u8) } % keys;
        let bytes = [key, 7];
        let name = name_of(&bytes);
        let (bytes, length) = self.value(value);
        let bytes = &bytes[..length];
        match code & 0x0f {
            0 | 1 => state.read_with(column, name, |seen| self.observe(seen)),
            2 => self.observe(state.read(column, name).as_deref()),
            3 => self.observe(Some(&[u8::from(state.create(column, name, bytes))])),
            4 | 5 => self.observe(state.update(column, name, bytes).as_deref()),
            6 => self.observe(state.delete(column, name).as_deref()),
            7 | 8 => state.put(column, name, bytes),
            9 => state.remove(column, name),
            10 | 11 => state.merge(column, name, &[value, key]),
            12 => self.register = self.register.wrapping_mul(31).wrapping_add(u64::from(value)),
            // Branches: skip some instructions, depending on the register.
            13 if self.register.is_multiple_of(2) => return 1 + usize::from(value % 4),
            14 if self.register.is_multiple_of(3) => return 1 + usize::from(value % 7),
            15 => {
                // A bounded loop over many keys of one column.
                for i in 0..value % 24 {
                    state.put(column, &[i, key], &[value, i]);
                }
                state.read_with(column, &[value % 24, key], |seen| self.observe(seen));
            }
            _ => {}
        }
        0
    }
}

/// The name of the key whose number comes first: that of key 0 is empty.
fn name_of(key: &[u8; 2]) -> &[u8] {
    if key[0] == 0 { &[] } else { key }
}

/// Runs programs; the reply is the hash of everything observed.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProgramLogic;

impl Logic for ProgramLogic {
    type Request = Program;

    fn execute(&self, state: &mut impl CRUDState, program: &Program) -> u64 {
        let mut machine = Machine { register: 0, observed: 0 };
        let mut next = 0;
        while let Some(&instruction) = program.instructions.get(next) {
            next += 1 + machine.step(state, instruction, program.keys);
        }
        machine.observed
    }

    const HINTS: bool = true;

    /// The keys that do not depend on what is read. Instructions that are skipped make some of them wrong. The weight means
    /// nothing.
    fn hints(&self, program: &Program, hints: &mut impl Hints) {
        if let Some(first) = program.instructions.first() {
            hints.weighs(u64::MAX >> (first.code % 64));
        }
        for &Instruction { code, column, key, .. } in
            program.instructions.iter().filter(|i| i.code & 0x80 == 0)
        {
            let column = COLUMNS[usize::from(column) % COLUMNS.len()];
            let bytes = [key % program.keys, 7];
            let key = name_of(&bytes);
            if matches!(code & 0x0f, 0..=6) {
                hints.reads(column, key);
            }
            match code & 0x0f {
                3..=9 => hints.writes(column, key),
                10 | 11 => hints.merges(column, key),
                _ => {}
            }
        }
    }

    fn query(&self, state: &impl CRUDState, program: &Program) -> u64 {
        let mut machine = Machine { register: 0, observed: 0 };
        for instruction in &*program.instructions {
            let key = [instruction.key % program.keys, 7];
            state.read_with(COLUMNS[0], &key, |seen| machine.observe(seen));
        }
        machine.observed
    }
}

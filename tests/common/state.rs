//! A small state that is everything a state can be: a sorted map, cut into eight parts for its travels.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Arc;

use atlas_smr_execution::error::StateError;
use atlas_smr_execution::state::{CRUDState, DivisibleState, MonolithicState};

use super::Gate;

pub const COLUMN: &str = "numbers";
pub const PARTS: usize = 8;

type Key = (String, Vec<u8>);
type Entries = Vec<(Key, Vec<u8>)>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TestState {
    map: BTreeMap<Key, Vec<u8>>,
    described: Held,
}

/// A gate that a description of the state waits for. It is not part of the content.
#[derive(Clone, Debug, Default)]
struct Held(Option<Arc<Gate>>);

impl PartialEq for Held {
    fn eq(&self, _: &Held) -> bool {
        true
    }
}

impl Eq for Held {}

/// The digest of each part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor(Vec<u64>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub id: usize,
    pub digest: u64,
    pub entries: Entries,
}

/// FNV-1a, with each piece's length before it.
fn digest<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for piece in pieces {
        for byte in (piece.len() as u64).to_le_bytes().iter().chain(piece) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
    hash
}

fn digest_of(entries: &Entries) -> u64 {
    digest(entries.iter().flat_map(|((column, key), value)| [column.as_bytes(), key, value]))
}

/// The key that stands for a fault.
fn fault(what: &str) -> Key {
    (COLUMN.to_owned(), format!("fault:{what}").into_bytes())
}

/// Panics if what was received carries the fault.
fn received(what: &str, parts: &[Part]) {
    let fault = fault(what);
    let mut entries = parts.iter().flat_map(|part| &part.entries);
    assert!(entries.all(|(key, _)| *key != fault), "{what} panics");
}

/// The part that a key belongs to.
pub fn part_of(column: &str, key: &[u8]) -> usize {
    digest([column.as_bytes(), key]) as usize % PARTS
}

impl Descriptor {
    pub fn of(state: &TestState) -> Descriptor {
        Descriptor(state.parts().iter().map(|part| part.digest).collect())
    }
}

impl TestState {
    /// An empty state whose descriptions, and those of its snapshots, wait for `gate`.
    pub fn described_after(gate: Arc<Gate>) -> TestState {
        TestState { described: Held(Some(gate)), ..TestState::default() }
    }

    /// What panics when it is asked for: `snapshot`, `descriptor` or `part`, named by a key `fault:...`.
    fn faults(&self, what: &str) {
        assert!(!self.has_fault(what), "{what} panics");
    }

    fn has_fault(&self, what: &str) -> bool {
        self.map.contains_key(&fault(what))
    }

    /// What becomes of a copy for which there is no memory.
    fn allocate_in_vain(&self) {
        if self.has_fault("memory") {
            let memory = Vec::<u8>::new().try_reserve_exact(isize::MAX as usize);
            memory.expect("memory for a snapshot");
        }
    }

    pub fn part_numbered(&self, id: usize) -> Part {
        let in_part = |((column, key), _): &(&Key, &Vec<u8>)| part_of(column, key) == id;
        let entries: Entries =
            self.map.iter().filter(in_part).map(|(key, value)| (key.clone(), value.clone())).collect();
        Part { id, digest: digest_of(&entries), entries }
    }

    /// All parts, in the order of their numbers.
    pub fn parts(&self) -> Vec<Part> {
        (0..PARTS).map(|id| self.part_numbered(id)).collect()
    }
}

impl CRUDState for TestState {
    fn read(&self, column: &str, key: &[u8]) -> Option<Vec<u8>> {
        self.map.get(&(column.to_owned(), key.to_vec())).cloned()
    }

    fn create(&mut self, column: &str, key: &[u8], value: &[u8]) -> bool {
        let absent = self.read(column, key).is_none();
        if absent {
            self.update(column, key, value);
        }
        absent
    }

    fn update(&mut self, column: &str, key: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        assert!(key != b"fault:write", "the write panics");
        self.map.insert((column.to_owned(), key.to_vec()), value.to_vec())
    }

    fn delete(&mut self, column: &str, key: &[u8]) -> Option<Vec<u8>> {
        self.map.remove(&(column.to_owned(), key.to_vec()))
    }
}

impl MonolithicState for TestState {
    fn snapshot(&self) -> Self {
        self.faults("snapshot");
        self.allocate_in_vain();
        self.clone()
    }

    fn serialize<W: Write>(&self, _: W) -> Result<(), StateError> {
        Err(StateError::Unexpected { what: "tests keep states in memory".to_owned() })
    }

    fn deserialize<R: Read>(_: R) -> Result<Self, StateError> {
        Err(StateError::Unexpected { what: "tests keep states in memory".to_owned() })
    }
}

/// What takes time in proportion to the state happens on the checkpoint thread; execution waits for a snapshot only.
fn assert_nobody_waits() {
    let thread = std::thread::current();
    assert!(thread.name().is_some_and(|name| name.ends_with("-checkpoint")), "on thread {:?}", thread.name());
}

impl DivisibleState for TestState {
    type PartId = usize;
    type StateDescriptor = Descriptor;
    type StatePart = Part;

    fn snapshot(&self) -> Self {
        self.faults("snapshot");
        self.allocate_in_vain();
        self.clone()
    }

    fn descriptor(&self) -> Descriptor {
        assert_nobody_waits();
        self.faults("descriptor");
        if let Held(Some(gate)) = &self.described {
            gate.pass();
        }
        Descriptor::of(self)
    }

    fn changed_parts(&self, now: &Descriptor, before: Option<&Descriptor>) -> Vec<usize> {
        (0..PARTS).filter(|&id| before.is_none_or(|before| before.0[id] != now.0[id])).collect()
    }

    fn part(&self, id: usize) -> Result<Part, StateError> {
        assert_nobody_waits();
        self.faults("part");
        if self.has_fault("unreadable part") {
            return Err(StateError::Other("the part cannot be read".into()));
        }
        Ok(self.part_numbered(id))
    }

    fn check_part(descriptor: &Descriptor, part: &Part) -> Result<usize, StateError> {
        received("check_part", std::slice::from_ref(part));
        let name = || part.id.to_string();
        match descriptor.0.get(part.id) {
            None => Err(StateError::UnknownPart { part: name() }),
            Some(_) if digest_of(&part.entries) != part.digest => {
                Err(StateError::WrongDigest { part: name() })
            }
            Some(&expected) if expected != part.digest => Err(StateError::StalePart { part: name() }),
            Some(_) => Ok(part.id),
        }
    }

    fn install(&mut self, descriptor: &Descriptor, parts: Vec<Part>) -> Result<(), StateError> {
        received("install", &parts);
        let mut new: Vec<Part> = self.parts();
        for part in parts {
            let id = part.id;
            new[id] = part;
        }
        let wrong = new.iter().find(|part| part.digest != descriptor.0[part.id]);
        if let Some(missing) = wrong {
            return Err(StateError::CutShort { missing: format!("part {}", missing.id) });
        }
        self.map = new.into_iter().flat_map(|part| part.entries).collect();
        Ok(())
    }
}

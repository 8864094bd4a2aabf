//! One operation's own copy-on-write view of a state that does not change: hash maps and lists on the heap.

use std::cell::RefCell;
use std::collections::HashMap;

use atlas_smr_execution::state::{CRUDState, MergeOperator};

/// What names a value: column and key.
pub type Name = (String, Vec<u8>);

/// How an operation touched a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

/// A view.
pub struct View<'s, S> {
    base: &'s S,
    writes: HashMap<Name, Option<Vec<u8>>>,
    accesses: RefCell<Vec<(Name, Access)>>,
}

/// What an operation did, without the state that it ran on.
pub struct Effects {
    /// The last value of every key that it wrote; `None` for a removal.
    pub writes: HashMap<Name, Option<Vec<u8>>>,
    /// All accesses, in their order.
    pub accesses: Vec<(Name, Access)>,
}

impl<'s, S: CRUDState> View<'s, S> {
    /// `base`, with nothing written.
    pub fn new(base: &'s S) -> Self {
        View { base, writes: HashMap::new(), accesses: RefCell::default() }
    }

    /// What was done through the view.
    pub fn into_effects(self) -> Effects {
        Effects { writes: self.writes, accesses: self.accesses.into_inner() }
    }

    fn note(&self, column: &str, key: &[u8], access: Access) -> Name {
        let name = (column.to_owned(), key.to_owned());
        self.accesses.borrow_mut().push((name.clone(), access));
        name
    }

    fn write(&mut self, column: &str, key: &[u8], value: Option<&[u8]>) {
        let name = self.note(column, key, Access::Write);
        self.writes.insert(name, value.map(<[u8]>::to_vec));
    }
}

impl<S: CRUDState + Sync> CRUDState for View<'_, S> {
    fn read(&self, column: &str, key: &[u8]) -> Option<Vec<u8>> {
        let name = self.note(column, key, Access::Read);
        match self.writes.get(&name) {
            Some(own) => own.clone(),
            None => self.base.read(column, key),
        }
    }

    fn create(&mut self, column: &str, key: &[u8], value: &[u8]) -> bool {
        let absent = self.read(column, key).is_none();
        if absent {
            self.write(column, key, Some(value));
        }
        absent
    }

    fn update(&mut self, column: &str, key: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        let before = self.read(column, key);
        self.write(column, key, Some(value));
        before
    }

    fn delete(&mut self, column: &str, key: &[u8]) -> Option<Vec<u8>> {
        let before = self.read(column, key);
        self.write(column, key, None);
        before
    }

    fn put(&mut self, column: &str, key: &[u8], value: &[u8]) {
        self.write(column, key, Some(value));
    }

    fn remove(&mut self, column: &str, key: &[u8]) {
        self.write(column, key, None);
    }

    fn merge_operator(&self, column: &str) -> MergeOperator {
        self.base.merge_operator(column)
    }
}

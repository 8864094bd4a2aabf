//! What all units of a batch share.

use super::bytes::Bytes;
use super::fingerprint::Fingerprints;
use super::writes::{Kind, Record, Written};
use crate::arena::Workspace;
use crate::state::CRUDState;

/// What all units of a batch share.
#[derive(Debug)]
pub struct Surroundings<'u, S, V> {
    /// The state before the batch.
    pub state: &'u S,
    /// What other units wrote.
    pub versions: V,
    /// Of this engine.
    pub fingerprints: &'u Fingerprints,
    /// How many steps a unit may take ahead of its turn.
    pub steps: u32,
    /// Whether records say where the state has their keys.
    pub places: bool,
}

impl<S, V: Copy> Clone for Surroundings<'_, S, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S, V: Copy> Copy for Surroundings<'_, S, V> {}

impl<S: CRUDState, V> Surroundings<'_, S, V> {
    /// What a merge leaves of its key at its turn: `operand`, folded into `below`, the retired write before it, or else into
    /// the state's value.
    pub fn fold<'b>(
        &self,
        operand: &Record<'b>,
        below: Option<&Record<'b>>,
        memory: &Workspace<'b>,
    ) -> Written<'b> {
        let (column, key) = (operand.column(), operand.key());
        let operator = self.state.merge_operator(column);
        let fold = |folded: &mut Vec<u8>| {
            let mut fold = |value: Option<&[u8]>| operator.fold(value, operand.bytes(), folded);
            match below {
                Some(below) => fold(below.value()),
                None => self.state.read_with(column, key, fold),
            }
        };
        Written { kind: Kind::Value, bytes: memory.with_scratch(fold, Bytes::copy) }
    }
}

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
    /// the state's value. Nothing, if the commit does that: then it stays an operand.
    pub fn fold<'b>(
        &self,
        operand: &Record<'b>,
        below: Option<&Record<'b>>,
        memory: &Workspace<'b>,
    ) -> Option<Written<'b>> {
        let (column, key) = (operand.column(), operand.key());
        let operator = self.state.merge_operator(column);
        match below {
            Some(below) => Some(below.written().fold(operator, operand.bytes(), memory)),
            None if S::COMMITS_OPERANDS && operator.is_built_in() => None,
            None => {
                let fold = |folded: &mut Vec<u8>| {
                    self.state.read_with(column, key, |value| operator.fold(value, operand.bytes(), folded));
                };
                Some(Written { kind: Kind::Value, bytes: memory.with_scratch(fold, Bytes::copy) })
            }
        }
    }
}

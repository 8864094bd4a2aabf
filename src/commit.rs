//! The one commit pass: the last value of every touched key goes into the state, once.

use crate::batch::SeqNo;
use crate::error::StateError;
use crate::resolver::Overlay;
use crate::state::{CRUDState, Change, Changes, Crew};

/// Commits a fully retired batch. `crew` is lent to states that can write in parallel.
///
/// # Errors
///
/// What the state returns; it is then as it was before the batch.
pub fn commit<S: CRUDState>(
    overlay: Overlay<'_>,
    state: &mut S,
    seq: SeqNo,
    crew: &mut dyn Crew,
) -> Result<(), StateError> {
    let (latest, memory) = overlay.into_latest();
    let mut last = latest.clone();
    let changes = memory.arena.fill(latest.len(), |_| {
        let record = last.next().expect("as many as `len` said");
        Change { column: record.column(), key: record.key(), value: record.value() }
    });
    state.commit(seq, &Changes::new(changes), crew)
}

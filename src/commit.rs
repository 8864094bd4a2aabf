//! The one commit pass: the last value of every touched key goes into the state, once.

use crate::batch::SeqNo;
use crate::error::StateError;
use crate::resolver::Overlay;
use crate::state::{CRUDState, Changes, Crew};

/// Into how many groups per thread changes are sorted, at least, so that a thread that starts late finds less work, not none.
const GROUPS: usize = 4;
/// And so many operations' changes a group has on average, at most, so that what they touch stays near.
const OPERATIONS: usize = 128;
/// So many places there are.
const MOST: usize = 1 << 16;

/// Into how many groups the changes of a batch of `len` operations are sorted, so that `threads` threads can commit them. A power
/// of two; for one thread, 1.
pub fn groups(len: usize, threads: usize) -> usize {
    if threads < 2 {
        return 1;
    }
    (threads * GROUPS).max(len / OPERATIONS).min(MOST).next_power_of_two()
}

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
    let (latest, groups) = overlay.into_latest();
    state.commit(seq, &Changes::of_batch(&latest).in_groups(groups), crew)
}

#[cfg(test)]
mod tests {
    use super::groups;

    #[test]
    fn there_are_enough_groups_for_all_threads_and_for_long_batches() {
        let counts = [(1000, 1), (0, 2), (128, 2), (1024, 3), (8192, 2), (usize::MAX, 2)];
        assert_eq!(counts.map(|(len, threads)| groups(len, threads)), [1, 8, 8, 16, 64, 1 << 16]);
    }
}

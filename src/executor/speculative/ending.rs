//! How a batch ends: it is settled, dropped and committed, or it fails, for a cause.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::batch::SeqNo;
use crate::commit::commit;
use crate::error::{Failure, MergePanicked, Text, caught};
use crate::pool::Pool;
use crate::raw::gate::Payload;
use crate::resolver::Overlay;
use crate::retire::Tail;
use crate::state::CRUDState;

/// What a batch's end means: the tail if all units are retired, the failure otherwise. The batch is dropped in any case. In the
/// loop, the destructors of its requests are part of their operations: one that panics ends it.
pub(super) fn settle<'b, R, B>(
    tail: Option<Tail<'b, R>>,
    ran: Result<(), Payload>,
    seq: SeqNo,
    batch: B,
) -> Result<Tail<'b, R>, Failure> {
    let internal = |message| Failure::Internal { batch: seq, message };
    let ran = ran.map_err(|panic| (panic.is::<MergePanicked>(), caught(panic)));
    // Unwind safety: nothing is left of it.
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(batch)));
    let dropped = dropped.map_err(|panic| operation_panicked(seq, panic));
    match (tail, ran) {
        (Some(Tail { fault: Some(fault), .. }), _) => Err(Failure::OperationPanicked {
            batch: seq,
            position: Some(fault.position),
            message: fault.message,
            poisoned: false,
        }),
        (_, Err((true, message))) => {
            Err(Failure::OperationPanicked { batch: seq, position: None, message, poisoned: false })
        }
        (_, Err((false, message))) => Err(internal(message)),
        (Some(tail), Ok(())) => dropped.map(|()| tail),
        (None, Ok(())) => Err(internal(Text::from("a unit was left unretired"))),
    }
}

/// Commits a batch, and tells what went wrong.
pub(super) fn commit_all<S: CRUDState>(
    overlay: Overlay<'_>,
    state: &mut S,
    seq: SeqNo,
    pool: &mut Pool,
) -> Result<(), Failure> {
    // Unwind safety: after a panic the executor fails, and nobody looks at the state again.
    catch_unwind(AssertUnwindSafe(|| commit(overlay, state, seq, pool)))
        .map_err(|panic| Failure::CommitPanicked { batch: seq, message: caught(panic) })?
        .map_err(|source| Failure::CommitRefused { batch: seq, source: source.into() })
}

/// What it means that something of the application's has panicked that belongs to the batch, before that was committed.
pub(super) fn operation_panicked(seq: SeqNo, panic: Payload) -> Failure {
    Failure::OperationPanicked { batch: seq, position: None, message: caught(panic), poisoned: false }
}

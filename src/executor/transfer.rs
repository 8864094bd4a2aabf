//! How a state leaves an executor and enters it: the other axis of the four executors.

use super::message::InstallStateMessage;
use crate::batch::SeqNo;
use crate::error::StateError;

/// Delivers and installs states. Implemented by [`Monolithic`](super::monolithic::Monolithic) and
/// [`Divisible`](super::divisible::Divisible).
///
/// The value itself is the memory of an installation under way and stays on the executor's thread. Delivery has no
/// memory but what it returns, and runs on the checkpoint thread.
pub(crate) trait Transfer<S>: Default + Send + 'static {
    /// What a checkpoint is sent as.
    type Outgoing: Send + 'static;
    /// What a state to install arrives as.
    type Incoming: Send + 'static;
    /// What a delivered checkpoint leaves behind for the next one to compare with.
    type Delivered: Send + 'static;

    /// A consistent copy of the state; cheap, since execution waits for it.
    fn snapshot(state: &S) -> S;

    /// Hands a snapshot to `send`, message by message, leaving out what did not change since `before`.
    ///
    /// # Errors
    ///
    /// What `send` returns, at once, or what the state does.
    fn deliver(
        snapshot: S,
        before: Option<&Self::Delivered>,
        send: &mut dyn FnMut(Self::Outgoing) -> Result<(), Undelivered>,
    ) -> Result<Self::Delivered, Undelivered>;

    /// Takes the next message of a state to install. `last` is the last batch that was executed.
    ///
    /// Everything in the message that cannot be used is added to `refused`; `state` only ever changes as a whole.
    fn offer(
        &mut self,
        state: &mut S,
        last: Option<SeqNo>,
        message: InstallStateMessage<Self::Incoming>,
        refused: &mut Vec<StateError>,
    ) -> Step;

    /// The state that is being installed, if one is.
    fn under_way(&self) -> Option<SeqNo>;

    /// Forgets the installation under way.
    fn abandon(&mut self);
}

/// What a message of an installation led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Neither of the others.
    Noted,
    /// The message's state is in place.
    Installed,
    /// The message's state will not be installed by what has come so far.
    Refused,
}

/// Why a checkpoint was not delivered to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Undelivered {
    /// Nobody holds the receiving end of the checkpoint channel any more.
    #[error("the checkpoint channel has no reader")]
    NoReader,
    /// The executor is stopping, and its reader took too long.
    #[error("the reader did not take it while the executor stopped")]
    TooLate,
    /// The state could not produce a part that it had named.
    #[error(transparent)]
    State(#[from] StateError),
}

/// The error of a state that is older than what was executed; equal is not older.
pub(crate) fn check_age(offered: SeqNo, last: Option<SeqNo>) -> Result<(), StateError> {
    match last {
        Some(executed) if offered < executed => Err(StateError::Outdated { offered, executed }),
        _ => Ok(()),
    }
}

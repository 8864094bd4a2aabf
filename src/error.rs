//! What can go wrong, by who can do something about it.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use crate::batch::SeqNo;

/// Any error of the user's own code.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// A text that many hold. Never a model's `Arc`: nothing is read on the strength of its count.
pub(crate) type Text = Arc<str>;

/// A configuration that cannot work; see [`ExecutorConfig::validate`](crate::executor::ExecutorConfig::validate).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A size that must be at least one is zero.
    #[error("`{name}` must be at least 1")]
    Zero {
        /// The field.
        name: &'static str,
    },
    /// A size beyond what is possible.
    #[error("`{name}` is {value}, but at most {max} is possible")]
    TooLarge {
        /// The field.
        name: &'static str,
        /// What was asked for.
        value: usize,
        /// What is possible.
        max: usize,
    },
    /// A name that no thread can have.
    #[error("`name` must not contain a null character")]
    Name,
    /// Operations that run ahead of their turn may panic, and a panic ends this program. `init` of a multi-threaded executor says
    /// so, not `validate`; see [`allow_panic_abort`](crate::executor::ExecutorConfig::allow_panic_abort).
    #[error(
        "operations that run ahead of their turn may panic, which ends this program: build it with `panic = \"unwind\"`, \
         choose `ExecutionMode::Sequential` or a single-threaded executor, or, if they never do, set `allow_panic_abort`"
    )]
    PanicAbort,
}

/// Why an executor could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// The configuration is invalid.
    #[error("invalid configuration: {0}")]
    Config(#[from] ConfigError),
    /// The queue has an executor, which goes on: a second one would take some of its batches.
    #[error("an executor takes its work from this queue already")]
    AlreadyStarted,
    /// `Application::initial_state` failed.
    #[error("the application has no initial state: {0}")]
    InitialState(#[source] BoxError),
    /// The operating system refused a thread.
    #[error("cannot spawn thread `{name}`: {source}")]
    Spawn {
        /// The thread's name.
        name: String,
        /// The operating system's reason.
        source: std::io::Error,
    },
}

/// Why an executor stopped before it was asked to. Every later call on its handle returns it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The application panicked at an operation's own turn; the batch was dropped whole. Only where several batches were executed as
    /// one ([`join`](crate::executor::ExecutorConfig::join)), and then a request panicked when it was dropped, all of them count.
    #[error("the application panicked in batch {batch}{}: {message}", .position.map(|p| format!(", position {p}")).unwrap_or_default())]
    OperationPanicked {
        /// The batch; in that case the last one.
        batch: SeqNo,
        /// The operation's position, where it is known.
        position: Option<usize>,
        /// The panic's message.
        message: Arc<str>,
        /// True if the batch ran in place and the state may hold a part of it. Such a state is never delivered.
        poisoned: bool,
    },
    /// The application panicked while it answered unordered requests. The state is as it was.
    #[error("the application panicked in an unordered request: {message}")]
    UnorderedPanicked {
        /// The panic's message.
        message: Arc<str>,
    },
    /// The application's own batch method returned more or fewer replies than there were requests. The replies of
    /// the batch were dropped.
    #[error("the application returned {got} replies to {expected} requests{}", .batch.map(|b| format!(" of batch {b}")).unwrap_or_default())]
    WrongReplies {
        /// The batch; `None` if its requests were unordered.
        batch: Option<SeqNo>,
        /// How many requests there were.
        expected: usize,
        /// How many replies came back.
        got: usize,
    },
    /// Two runs of one batch on the same state were not the same; see
    /// [`check_every`](crate::executor::ExecutorConfig::check_every). The batch was dropped whole.
    #[error(
        "the application is not deterministic: two runs of batch {batch} differ at position {position}: {difference}"
    )]
    NotDeterministic {
        /// The batch.
        batch: SeqNo,
        /// The first position that differs.
        position: usize,
        /// What differs there.
        difference: Arc<str>,
    },
    /// The state refused the commit of a batch, and is as it was before it.
    #[error("the state refused to commit batch {batch}: {source}")]
    CommitRefused {
        /// The batch.
        batch: SeqNo,
        /// The state's reason.
        source: Arc<StateError>,
    },
    /// The state panicked while it committed a batch; it may hold a part of it and is never delivered.
    #[error("the state panicked while committing batch {batch}: {message}")]
    CommitPanicked {
        /// The batch; the last one where several were executed as one.
        batch: SeqNo,
        /// The panic's message.
        message: Arc<str>,
    },
    /// The state panicked while it was read for a checkpoint or while a state was installed.
    #[error("the state panicked during state transfer: {message}")]
    TransferPanicked {
        /// The panic's message.
        message: Arc<str>,
    },
    /// The reply node panicked.
    #[error("the reply node panicked: {message}")]
    ReplyNodePanicked {
        /// The panic's message.
        message: Arc<str>,
    },
    /// A batch builds on a state whose installation was refused; executing it would let this replica diverge.
    #[error("batch {batch} builds on the state of {installed}, whose installation was refused: {reason}")]
    MissingState {
        /// The batch.
        batch: SeqNo,
        /// The sequence number of the refused state.
        installed: SeqNo,
        /// Why it was refused.
        reason: Arc<str>,
    },
    /// All handles went away in the middle of an installation, with work queued behind it.
    #[error(
        "stopped in the middle of installing a state; {dropped} queued requests that wait for it were dropped"
    )]
    InstallAbandoned {
        /// Requests that had been queued behind the installation.
        dropped: usize,
    },
    /// A defect of the engine itself. The batch was dropped whole.
    #[error("defect in the engine while executing batch {batch}: {message}")]
    Internal {
        /// The batch.
        batch: SeqNo,
        /// What is known.
        message: Arc<str>,
    },
}

/// Why a state could not do what was asked. On an error the state is as it was before the call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// A part's content does not match its digest.
    #[error("part {part} does not match its digest")]
    WrongDigest {
        /// The part's name.
        part: String,
    },
    /// A part that the state does not have.
    #[error("part {part} is unknown")]
    UnknownPart {
        /// The part's name.
        part: String,
    },
    /// A part from another checkpoint than the descriptor's.
    #[error("part {part} belongs to another checkpoint")]
    StalePart {
        /// The part's name.
        part: String,
    },
    /// The end came before all of the state.
    #[error("the state is cut short: {missing} missing")]
    CutShort {
        /// What is missing.
        missing: String,
    },
    /// A message of an installation that does not fit what came before it.
    #[error("unexpected state message: {what}")]
    Unexpected {
        /// What came, and what was expected.
        what: String,
    },
    /// The state is not newer than what was already executed.
    #[error("state {offered} is older than the last executed batch {executed}")]
    Outdated {
        /// The state's sequence number.
        offered: SeqNo,
        /// The last executed one.
        executed: SeqNo,
    },
    /// Bytes that do not follow the format.
    #[error("malformed state: {what}")]
    Malformed {
        /// What is wrong, and where.
        what: String,
    },
    /// Reading or writing failed.
    #[error("state input/output: {0}")]
    Io(#[from] std::io::Error),
    /// Anything else; for states of the user's own.
    #[error(transparent)]
    Other(BoxError),
}

/// Why a request was not queued. `T` is what could not be queued, where it is handed back.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError<T = ()> {
    /// The queue is full (only from the `try_` variants). The request comes back.
    #[error("the executor's queue is full")]
    Full(T),
    /// The executor failed earlier; this is the cause.
    #[error("the executor has failed: {cause}")]
    Failed {
        /// The cause.
        cause: Failure,
        /// The request.
        request: T,
    },
    /// The executor was stopped, or never started.
    #[error("the executor is stopped")]
    Stopped(T),
}

/// Without the request, so that errors can be passed on whatever the request is.
impl<T> fmt::Debug for QueueError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QueueError::Full(_) => f.write_str("Full"),
            QueueError::Failed { cause, .. } => f.debug_struct("Failed").field("cause", cause).finish(),
            QueueError::Stopped(_) => f.write_str("Stopped"),
        }
    }
}

/// What the panic of a merge operator, or of a state that is read for a merge, unwinds with: that may be where operations
/// retire, outside of any operation, and is no defect of the engine there either.
#[derive(Debug)]
pub(crate) struct MergePanicked(Arc<str>);

impl MergePanicked {
    /// Unwinds with the message of `panic`.
    pub(crate) fn unwind(panic: Box<dyn Any + Send>) -> ! {
        resume_unwind(Box::new(MergePanicked(caught(panic))))
    }
}

/// The text of a panic, whose payload is dropped.
pub(crate) fn caught(panic: Box<dyn Any + Send>) -> Text {
    let message = panic_message(&*panic);
    dispose(panic);
    message
}

/// Drops a panic's payload. That it may panic when it is dropped means nothing.
pub(crate) fn dispose(panic: Box<dyn Any + Send>) {
    // Unwind safety: there is nothing left of it. The second payload may do the same.
    catch_unwind(AssertUnwindSafe(|| drop(panic))).unwrap_or_else(std::mem::forget);
}

/// The text of a panic's payload.
fn panic_message(payload: &(dyn Any + Send)) -> Arc<str> {
    if let Some(MergePanicked(text)) = payload.downcast_ref() {
        Arc::clone(text)
    } else if let Some(text) = payload.downcast_ref::<&str>() {
        Arc::from(*text)
    } else if let Some(text) = payload.downcast_ref::<String>() {
        Arc::from(text.as_str())
    } else {
        Arc::from("a panic without a message")
    }
}

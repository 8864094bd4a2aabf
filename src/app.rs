//! What the user writes: the deterministic service that a replica runs.

use crate::batch::{UnorderedBatch, Update, UpdateBatch};
use crate::error::BoxError;
use crate::reply::{BatchReplies, UpdateReply};
use crate::state::CRUDState;

/// The types of a service's requests and replies.
pub trait ApplicationData {
    /// A client's request. Speculation may run one request more than once, hence `Clone` and `Sync`.
    type Request: Clone + Send + Sync + 'static;
    /// The service's answer. Replies of units that ran ahead of their turn in vain are dropped, so dropping one must have no
    /// effect, and must not panic.
    type Reply: Send + 'static;

    /// Are these the same reply? For the [checking mode](crate::executor::ExecutorConfig::check_every) only, which compares
    /// two runs of an operation. Override it with `a == b` where replies can be compared; otherwise only what operations
    /// write is.
    fn same_reply(a: &Self::Reply, b: &Self::Reply) -> bool {
        let _ = (a, b);
        true
    }
}

/// The request type of application `A` over state `S`.
pub type Request<A, S> = <<A as Application<S>>::AppData as ApplicationData>::Request;
/// The reply type of application `A` over state `S`.
pub type Reply<A, S> = <<A as Application<S>>::AppData as ApplicationData>::Reply;

/// A deterministic service over a state `S`.
///
/// The loop over [`update`](Application::update) in batch order *is* the meaning of a batch: whatever an executor
/// does, its state and replies equal that loop's. So `update` must depend on nothing but the state and the request:
/// no clock, no randomness, no iteration order of a randomly seeded map, no mutable state of its own.
///
/// # Panics
///
/// A panic in any of these methods (outside speculation) stops the executor with
/// [`Failure::OperationPanicked`](crate::error::Failure::OperationPanicked) as the cause.
///
/// # Deadlocks
///
/// What an executor calls, an application, a state or a [network](crate::reply::ReplyNode), must not wait for that executor: not
/// for room in its queue (the `try_` calls of the [handle](crate::executor::ExecutorHandle) hand back what finds none), nor for its
/// end. Nor must it keep a handle: the executor ends when all handles are gone.
pub trait Application<S>: Send + Sync + 'static {
    /// Request and reply types.
    type AppData: ApplicationData;

    /// The state of a replica that has executed nothing.
    ///
    /// # Errors
    ///
    /// Whatever keeps the state from being made; it is returned by the executor's `init`.
    fn initial_state() -> Result<S, BoxError>;

    /// Answers a read-only request on the current state.
    fn unordered_execution(&self, state: &S, request: Request<Self, S>) -> Reply<Self, S>;

    /// Answers read-only requests; the replies are in the order of the requests.
    ///
    /// Override it only to do the same faster. The sequential executors call this method; the parallel ones may call
    /// [`unordered_execution`](Application::unordered_execution) for each instead, on any of their threads.
    fn unordered_batched_execution(
        &self,
        state: &S,
        batch: UnorderedBatch<Request<Self, S>>,
    ) -> BatchReplies<Reply<Self, S>> {
        answer_all(batch.into_requests(), |request| self.unordered_execution(state, request))
    }

    /// Executes one ordered request.
    fn update(&self, state: &mut S, request: Request<Self, S>) -> Reply<Self, S>;

    /// Executes an ordered batch; the replies are in batch order.
    ///
    /// Override it only to do the same faster. Every executor runs a batch that it does not speculate on through
    /// this method, unless the loop over [`update`](Application::update) was faster lately because keys are asked for beforehand,
    /// by the application's [hints](ScalableApp::hints).
    fn update_batch(
        &self,
        state: &mut S,
        batch: UpdateBatch<Request<Self, S>>,
    ) -> BatchReplies<Reply<Self, S>> {
        answer_all(batch.into_updates(), |request| self.update(state, request))
    }
}

/// An application whose operations can run ahead of their turn, on any state that offers create, read, update and
/// delete.
///
/// `speculatively_execute` must do what [`Application::update`] does, through the state that it is handed: that one
/// sees the operation's prefix of the batch, or an earlier moment of it (then the result is thrown away and the
/// operation runs again at its turn).
///
/// # Unwinding
///
/// A run ahead of its turn may unwind where the loop never does: it panics because it rests on an operation that it did not
/// see, or a call of the state unwinds because it has made [too many](crate::executor::ExecutorConfig::step_budget). That means
/// nothing, if nothing makes something of it:
///
/// - A lock of `std` that is held meanwhile counts as poisoned; whoever takes it must not mind.
/// - A function of a foreign language that the operation was called back from cannot be unwound: the process would end. Catch panics
///   in such callbacks.
/// - A panic hook that ends the process does so here, too.
pub trait ScalableApp<S: CRUDState>: Application<S> {
    /// Does every operation end, without harm, on *any* values?
    ///
    /// By default (`false`) an operation that runs ahead of its turn sees one moment of its batch, so it only ever sees
    /// values that stood together. With `true` it may read the values of operations that have finished but not retired,
    /// which saves most replays where operations conflict; then it may see values that never stood together, before it is
    /// replayed. Right for straight-line code and for virtual machines with a step limit; wrong for code that would loop
    /// without end, abort the process or allocate without bounds if an invariant of the state does not hold. A panic is
    /// fine, where panics unwind (see [`allow_panic_abort`](crate::executor::ExecutorConfig::allow_panic_abort)).
    const FORWARDING: bool = false;

    /// Does [`hints`](ScalableApp::hints) name anything?
    const HINTS: bool = false;

    /// Names keys that a request will probably read, write and merge into, before it is executed, and says how heavy it is.
    ///
    /// Where operations are long and conflict, the engine uses this to start each when its keys are free, and those first that
    /// most work waits for. Where they are short and wait for memory, it asks for what many of them touch at once
    /// ([`prefetch`](CRUDState::prefetch)), also for unordered requests, and also if there is but one thread. Hints that are wrong,
    /// missing or partial cost time and change no result. Set [`HINTS`](ScalableApp::HINTS) if you override this.
    fn hints(&self, request: &Request<Self, S>, hints: &mut impl Hints) {
        let _ = (request, hints);
    }

    /// Executes one request on `state`.
    fn speculatively_execute(&self, state: &mut impl CRUDState, request: Request<Self, S>) -> Reply<Self, S>;

    /// The same without owning the request. Override it to save a clone per run.
    fn speculatively_execute_ref(
        &self,
        state: &mut impl CRUDState,
        request: &Request<Self, S>,
    ) -> Reply<Self, S> {
        self.speculatively_execute(state, request.clone())
    }
}

/// Takes an operation's hints. A key that is read and then written is named twice.
pub trait Hints {
    /// The operation will probably observe `key`: by `read`, `create`, `update` or `delete`.
    fn reads(&mut self, column: &str, key: &[u8]);

    /// The operation will probably change `key`, other than by a merge.
    fn writes(&mut self, column: &str, key: &[u8]);

    /// The operation will probably merge into `key`.
    fn merges(&mut self, column: &str, key: &[u8]);

    /// About how much work the operation is, in a unit of the application's choice: gas, bytes, nanoseconds. Those that others
    /// wait for longest are started first, so that a long one does not begin when all others are done. An operation that says
    /// nothing weighs 1; of several weights the last one counts.
    fn weighs(&mut self, weight: u64);
}

/// Runs `execute` on the request inside `update` and addresses the result to its sender.
pub(crate) fn answer<O, R>(update: Update<O>, execute: impl FnOnce(O) -> R) -> UpdateReply<R> {
    let (from, session_id, operation_id, operation) = update.into_inner();
    UpdateReply::new(from, session_id, operation_id, execute(operation))
}

/// Runs `execute` on one request after the other; the replies are in their order.
fn answer_all<O, R>(mut requests: Vec<Update<O>>, mut execute: impl FnMut(O) -> R) -> BatchReplies<R> {
    if requests.len() == 1
        && let Some(request) = requests.pop()
    {
        // A reply in memory of its own comes sooner than the steps that the many below need.
        return vec![answer(request, execute)].into();
    }
    // Where replies are no larger than requests, the library collects them in the requests' own memory.
    requests.into_iter().map(|request| answer(request, &mut execute)).collect::<Vec<_>>().into()
}

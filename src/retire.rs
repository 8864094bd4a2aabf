//! The in-order walk: take each unit's result at its turn, accept it or replay it.
//!
//! Whoever finishes units calls [`Retirement::advance`]. One thread at a time holds the retire lock; it walks forward
//! from the frontier:
//!
//! | the unit at the frontier | the walker |
//! |---|---|
//! | is done, and saw exactly its prefix | accepts it: its writes become versions, its reply is kept |
//! | is done, but saw something older, panicked or was abandoned | runs it again, here and now: a *replay* |
//! | was started by nobody | runs it, here and now (*head first*) |
//! | is being run by another thread | leaves; that thread will come |
//! | is being run by another thread, which most likely has seen something old | *overtakes* it: runs it, here and now |
//!
//! At its turn a unit sees exactly its prefix, so a replay is always right and never repeated; a panic there is the
//! application's own and stops the batch.
//!
//! # No result is left behind
//!
//! The walker leaves while a unit is running, and whoever runs it may find the lock still held:
//!
//! ```text
//!   finisher:  R1 store result (Release)           walker:  R3 release the lock, fence(SeqCst)
//!              R2 fence(SeqCst), try the lock               R4 look at the frontier's slot again; if done, start over
//! ```
//!
//! One of the two fences comes first in the total order of SeqCst fences. If R2's does, R4 sees the result of R1, and
//! the walker starts over. If R3's does, the finisher's attempt sees the released lock (or a still later holder, to
//! whom the same argument applies). Either way somebody walks on.
//!
//! Where threads retire what they have run themselves (`schedule/backlog.rs`), the walker also leaves what is done but not his.
//! That is another thread's duty, at the latest when it finds no more chunks: then each thread walks once as far as anybody
//! could, beginning with R2. Such a last walk may find the lock held by somebody who retires only his own and will not look
//! further, or by somebody who leaves such a one to go on. But whoever it is takes the lock, or gives it back, after that R2,
//! and so does his own last walk, whose R2 comes later still, and which therefore sees the result of R1. If it finds the lock
//! held in its turn, the same holds for that holder; walks are finitely many, so one of them succeeds.
//!
//! Whoever takes a finished unit away to run it again ([`reopen`](Retirement::reopen)) becomes its finisher: the walker may
//! find it missing and leave, so it is given back by R1, and R2 follows.
//!
//! # Overtaking
//!
//! Where everything collides, a unit that is still running when its turn comes will have to be replayed, and waiting for it
//! first costs up to a whole operation: a batch of long and short operations then takes up to twice the time of the loop. So
//! the walker keeps a running share of units that were stale at their turn, and where nearly all are, it does not wait. The
//! unit's slot stays claimed; whoever runs the unit leaves its result there, where nobody retires it, because the frontier has
//! passed. It is dropped at the batch's end.
//!
//! # What others learn from the frontier
//!
//! Every version that was written below it: steps R5 and R6, in `resolver/frontier.rs`.

use std::sync::Arc;
use std::time::Duration;

use crossbeam::utils::CachePadded;

use crate::arena::Workspace;
use crate::error::caught;
use crate::metrics::{Counter, Metrics};
use crate::raw::gate::Payload;
use crate::raw::slots::{Claim, Found, Slots, Taker};
use crate::raw::try_lock::TryLock;
use crate::reply::{BatchReplies, UpdateReply};
use crate::resolver::{Frontier, Overlay};
use crate::sync::{AtomicBool, Ordering, fence};
use crate::unit::Outcome;
use crate::unit::writes::{Record, Written};

/// A finished unit: what it observed and wrote, and its reply, or `None` if the application panicked.
pub struct Finished<'b, R> {
    /// Reads and writes.
    pub outcome: Outcome<'b>,
    /// The reply. A panic ahead of the turn is a failed validation: the operation may rest on an earlier one.
    pub reply: Option<R>,
    /// The next in a thread's stock of empty ones.
    pub next: Option<&'b mut Finished<'b, R>>,
}

impl<R> Finished<'_, R> {
    /// Makes room for another run of the unit.
    pub fn clear(&mut self) {
        self.outcome.clear();
        self.reply = None;
    }

    /// As if nothing had been run.
    pub fn empty(&mut self) {
        self.clear();
        (self.outcome.runs, self.outcome.timed) = (0, false);
    }
}

impl<R> Default for Finished<'_, R> {
    fn default() -> Self {
        Finished { outcome: Outcome::default(), reply: None, next: None }
    }
}

/// The share of units that were stale when their turn came, of the last few.
#[derive(Clone, Copy, Debug)]
pub struct Staleness(f32);

impl Staleness {
    /// The weight of the newest unit.
    const WEIGHT: f32 = 0.0625;
    /// From this share on, nobody waits for a running unit. With 60 percent stale, that would still cost a tenth.
    const OVERTAKES: f32 = 0.85;

    /// What is expected of a batch that has not begun.
    pub fn expected(share: f32) -> Self {
        Staleness(share)
    }

    fn add(&mut self, stale: bool) {
        self.0 += Self::WEIGHT * (f32::from(u8::from(stale)) - self.0);
    }

    fn overtakes(self) -> bool {
        self.0 >= Self::OVERTAKES
    }
}

/// What became of a batch's units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Units run ahead of their turn.
    pub speculations: u64,
    /// Of these: results taken.
    pub accepted: u64,
    /// Of these: run again at their turn.
    pub replays: u64,
    /// Of these: because a version that they had observed was replaced.
    pub collisions: u64,
    /// How often units were run again before their turn.
    pub reruns: u64,
    /// Units that another thread was still running when they were run at their turn. They count nowhere else.
    pub overtaken: u64,
    /// Of the replayed ones: how many had been abandoned.
    pub abandoned: u64,
    /// How long operations took the first time that they were run to their end, if that was measured; about what they would have
    /// taken one after the other.
    pub worked: Duration,
}

impl Counts {
    /// Adds what became of the units to an executor's counters, of which this thread is the only one to write these.
    pub fn add_to(&self, metrics: &Metrics) {
        let counts = [
            (Counter::speculations, self.speculations),
            (Counter::accepted, self.accepted),
            (Counter::replays, self.replays),
            (Counter::collisions, self.collisions),
            (Counter::reruns, self.reruns),
            (Counter::overtaken, self.overtaken),
            (Counter::abandoned, self.abandoned),
        ];
        counts.into_iter().for_each(|(counter, count)| metrics.add_alone(counter, count));
    }
}

/// The application panicked at an operation's turn.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The operation.
    pub position: usize,
    /// The panic's message.
    pub message: Arc<str>,
}

/// What the holder of the retire lock works on.
pub struct Tail<'b, R> {
    /// The versions of retired units.
    pub overlay: Overlay<'b>,
    /// The replies of retired units.
    pub replies: BatchReplies<R>,
    /// What became of the units.
    pub counts: Counts,
    /// Set when the batch cannot go on.
    pub fault: Option<Fault>,
    stale: Staleness,
    finished: Taker<'b, Finished<'b, R>>,
}

/// The retirement of one batch.
pub struct Retirement<'b, R> {
    slots: Slots<'b, Finished<'b, R>>,
    frontier: &'b Frontier,
    stopped: AtomicBool,
    tail: CachePadded<TryLock<Tail<'b, R>>>,
}

/// Runs operations at their turn.
pub trait AtTurn<'b, R> {
    /// The walking thread's memory.
    fn memory(&self) -> &Workspace<'b>;

    /// Empty room for a unit.
    fn room(&mut self) -> &'b mut Finished<'b, R>;

    /// Takes back the room of a unit that has retired.
    fn take_back(&mut self, room: &'b mut Finished<'b, R>);

    /// Runs the operation at `position` into `finished`, which is empty; on success there is a reply. A panic is handed
    /// back.
    fn run(&mut self, position: usize, finished: &mut Finished<'b, R>) -> Result<(), Payload>;

    /// `reply` as the answer to the operation at `position`.
    fn address(&self, position: usize, reply: R) -> UpdateReply<R>;

    /// What a merge leaves of its key: `operand`, folded into `below`, the write before it, or else into the state's value.
    /// Nothing, if the commit does that.
    fn fold(&self, operand: &Record<'b>, below: Option<&Record<'b>>) -> Option<Written<'b>>;
}

impl<'b, R> Retirement<'b, R> {
    /// Nothing is retired, nothing started.
    pub fn new(
        (slots, finished): (Slots<'b, Finished<'b, R>>, Taker<'b, Finished<'b, R>>),
        overlay: Overlay<'b>,
        stale: Staleness,
    ) -> Self {
        let replies = BatchReplies::with_capacity(slots.positions());
        let frontier = overlay.frontier();
        let tail = Tail { overlay, replies, counts: Counts::default(), fault: None, stale, finished };
        Retirement {
            slots,
            frontier,
            stopped: AtomicBool::new(false),
            tail: CachePadded::new(TryLock::new(tail)),
        }
    }

    /// How many units are retired: all below this position.
    #[inline]
    pub fn frontier(&self) -> usize {
        self.frontier.passed()
    }

    /// True once the batch cannot go on: nothing more needs to be run.
    #[inline]
    pub fn is_stopped(&self) -> bool {
        // Relaxed: only saves work; the fault itself is read under the lock, or after the gate has closed.
        self.stopped.load(Ordering::Relaxed)
    }

    /// Stops the batch without a fault of the application.
    pub fn stop(&self) {
        // Relaxed: see `is_stopped`.
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Claims the operation at `position` if nobody has.
    #[inline]
    pub fn claim(&self, position: usize) -> Option<Claim<'_, 'b, Finished<'b, R>>> {
        self.slots.claim(position)
    }

    /// True if nobody has started the operation at `position`.
    #[inline]
    pub fn is_idle(&self, position: usize) -> bool {
        self.slots.is_idle(position)
    }

    /// True if the unit at `position` has finished, and nobody has taken its result.
    #[inline]
    pub fn is_finished(&self, position: usize) -> bool {
        self.slots.is_done(position)
    }

    /// Takes the result of the unit at `position` away from retirement, to look at it or to run the operation again, if it has
    /// finished and this batch runs stale units again. Whoever does that gives it back by the claim, and then calls
    /// [`advance`](Retirement::advance): the walker may have found it missing.
    #[inline]
    pub fn reopen(
        &self,
        position: usize,
    ) -> Option<(&'b mut Finished<'b, R>, Claim<'_, 'b, Finished<'b, R>>)> {
        self.slots.reopen(position)
    }

    /// Retires what can be retired now, unless another thread is at it. Call it after finishing units (R1).
    pub fn advance(&self, at_turn: &mut impl AtTurn<'b, R>) {
        self.advance_to(self.slots.positions(), at_turn);
    }

    /// The same, up to a position that nobody has started, or beyond which it is for others to retire: then the caller must
    /// call [`advance`](Retirement::advance) once when it has finished its last unit.
    pub fn advance_to(&self, end: usize, at_turn: &mut impl AtTurn<'b, R>) {
        // R2.
        fence(Ordering::SeqCst);
        while let Some(mut tail) = self.tail.try_lock() {
            self.walk(&mut tail, end, at_turn);
            drop(tail);
            // R3: the guard has released the lock.
            fence(Ordering::SeqCst);
            // R4. The frontier is this thread's own store, or that of a later holder, who then has this duty.
            let frontier = self.frontier.own();
            if frontier >= end || self.is_stopped() || !self.slots.is_done(frontier) {
                break;
            }
        }
    }

    /// Walks forward from the frontier as far as possible, at most to `end`.
    fn walk(&self, tail: &mut Tail<'b, R>, end: usize, at_turn: &mut impl AtTurn<'b, R>) {
        let mut position = self.frontier.own();
        while position < end && !self.is_stopped() {
            let accepted = match tail.finished.take(position) {
                Found::Claimed if tail.stale.overtakes() => Err(Self::overtake(tail, at_turn)),
                Found::Claimed => break,
                Found::Idle => Err(at_turn.room()),
                Found::Done(finished) if Self::accepts(tail, finished) => Ok(finished),
                Found::Done(finished) => {
                    finished.clear();
                    Err(finished)
                }
            };
            let finished = match accepted {
                Ok(finished) => finished,
                Err(finished) => {
                    // It may take long: others should see what has retired so far.
                    self.frontier.move_to(position);
                    if let Err(payload) = at_turn.run(position, finished) {
                        return self.fail(tail, position, payload);
                    }
                    finished
                }
            };
            let reply = finished.reply.take().expect("a run without a panic leaves a reply");
            let fold = |operand: &_, below: Option<&_>| at_turn.fold(operand, below);
            tail.overlay.publish(&finished.outcome.writes, at_turn.memory(), fold);
            tail.replies.push(at_turn.address(position, reply));
            at_turn.take_back(finished);
            position += 1;
        }
        self.frontier.move_to(position);
    }

    /// Room for running a unit that another thread is still running.
    fn overtake(tail: &mut Tail<'b, R>, at_turn: &mut impl AtTurn<'b, R>) -> &'b mut Finished<'b, R> {
        tail.counts.overtaken += 1;
        let finished = at_turn.room();
        // The operation's first run is the other one.
        (finished.outcome.runs, finished.outcome.timed) = (1, true);
        finished
    }

    /// True if the finished unit saw exactly its prefix and has a reply; otherwise it must be replayed.
    fn accepts(tail: &mut Tail<'b, R>, finished: &Finished<'b, R>) -> bool {
        tail.counts.speculations += 1;
        tail.counts.reruns += u64::from(finished.outcome.runs);
        let confirmed = tail.overlay.confirms(&finished.outcome);
        let accepted = confirmed && finished.reply.is_some();
        // The application may have caught what ended the unit, and have replied all the same.
        let accepted = accepted && !finished.outcome.is_abandoned();
        tail.counts.collisions += u64::from(!confirmed);
        tail.stale.add(!accepted);
        tail.counts.accepted += u64::from(accepted);
        tail.counts.replays += u64::from(!accepted);
        tail.counts.abandoned += u64::from(finished.outcome.is_abandoned());
        accepted
    }

    fn fail(&self, tail: &mut Tail<'b, R>, position: usize, payload: Payload) {
        tail.fault = Some(Fault { position, message: caught(payload) });
        self.stop();
    }

    /// Ends the batch, when nobody works on it any more; `None` if a unit was left unretired without a fault.
    pub fn into_tail(self) -> Option<Tail<'b, R>> {
        let frontier = self.frontier.own();
        let complete = frontier == self.slots.positions();
        let mut tail = CachePadded::into_inner(self.tail).into_inner();
        // The replies of units that were run but not retired, or overtaken: the arena drops nothing.
        let first = if tail.counts.overtaken > 0 { 0 } else { frontier };
        for position in first..self.slots.positions() {
            if let Found::Done(finished) = tail.finished.take(position) {
                drop(finished.reply.take());
            }
        }
        (complete || tail.fault.is_some()).then_some(tail)
    }
}

//! Which thread runs which position, and when.
//!
//! A [`BatchRun`] is one batch as all threads see it. Each thread calls [`work`](BatchRun::work):
//!
//! ```text
//!   in chunks   take the next chunk of positions ─► run its units on the frontier's moment ─► retire what can be retired
//!               (or leave what others have run to them, and retire one's own: backlog.rs)
//!   by hints    one plans, one walks meanwhile (planning.rs); then
//!               find, among those whose keys are free, what most work waits for (hints.rs) ─► run its unit ─► retire
//!   then        run what others have taken but not started
//!   and, where much was replayed lately, run finished but stale units again before their turn (again.rs)
//! ```
//!
//! Nothing here decides about results; that is retirement's.

mod again;
mod backlog;
pub mod hints;
pub mod planning;
pub mod prefetch;
pub mod stock;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crossbeam::utils::CachePadded;
use smallvec::SmallVec;

use crate::app::{Application, Reply, Request, ScalableApp};
use crate::arena::{Lent, Workspace};
use crate::batch::Update;
use crate::error::{MergePanicked, dispose};
use crate::pool::Queue;
use crate::raw::gate::Payload;
use crate::raw::stopwatch::{Measured, Scale, Stopwatch};
use crate::reply::UpdateReply;
use crate::resolver::Stamps;
use crate::retire::{AtTurn, Finished, Retirement};
use crate::state::CRUDState;
use crate::sync::{Mutex, spin_loop, yield_now};
use crate::unit::writes::{Record, Written};
use crate::unit::{ExecutionUnit, Surroundings};
use backlog::Backlog;
use planning::Planning;
use prefetch::{Part, Plan, Seen};
use stock::Stock;

/// How many operations a thread that is alone runs before it looks aside.
const LOOK: usize = 16;
/// How many operations are claimed at once, at most.
const CLAIMED: usize = 32;
/// So many chunks of each thread are the batch's last. None in models, which see both ways without that.
const LAST: usize = if cfg!(any(loom, shuttle)) { 0 } else { 2 };

/// How a batch is spread over the threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    /// Positions that a thread takes at once.
    pub chunk: usize,
    /// How far positions run ahead of retirement.
    pub window: usize,
    /// Idle threads run stale units again.
    pub again: bool,
    /// Each thread retires what it has run itself (backlog.rs).
    pub own: bool,
    /// Whether the keys of chunks are looked up first.
    pub prefetch: Plan,
    /// Measure how long the operations take whose position is a multiple of this; none if it is 0.
    pub measured: usize,
}

/// What the executor's own thread does beside a batch, on the state before it.
pub type Aside<'r, S> = &'r mut (dyn FnMut(&S) + Send);

/// One batch, as all threads see it.
pub struct BatchRun<'r, 'b, A: Application<S>, S> {
    /// What operations do.
    pub app: &'r A,
    /// The operations.
    pub updates: &'r [Update<Request<A, S>>],
    /// What all units share.
    pub around: Surroundings<'r, S, Stamps<'b>>,
    /// Where they retire.
    pub retirement: Retirement<'b, Reply<A, S>>,
    /// The threads' memory.
    pub lent: Lent<'b>,
    /// The first positions of chunks.
    pub queue: Queue,
    /// Who waits for whom, if the batch is run by hints.
    pub planning: Option<Planning<'r>>,
    /// How the batch is spread.
    pub spread: Spread,
    /// What the operations took that are measured, the first time that they were run to their end.
    pub worked: Mutex<Measured>,
    /// What looking up keys gave.
    pub seen: Mutex<Seen>,
    /// Called by thread 0 between chunks. Padded: others read what would lie beside it for each operation.
    pub aside: CachePadded<Mutex<Aside<'r, S>>>,
}

/// A wait that gives way to other threads now and then.
#[derive(Default)]
struct Pause(u32);

impl Pause {
    fn wait(&mut self) {
        self.0 = self.0.wrapping_add(1);
        if self.0.is_multiple_of(64) { yield_now() } else { spin_loop() }
    }
}

/// Stops the batch when the thread unwinds, so that nobody waits for what it will not do.
struct StopOnPanic<'a, F: Fn()>(&'a F);

impl<F: Fn()> Drop for StopOnPanic<'_, F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.0)();
        }
    }
}

impl<'b, A, S> BatchRun<'_, 'b, A, S>
where
    A: ScalableApp<S>,
    S: CRUDState + Sync,
{
    /// One thread's part of the batch.
    pub fn work(&self, thread: usize) {
        let stop = || self.retirement.stop();
        let _guard = StopOnPanic(&stop);
        let mut stock = Stock::new(self.lent.take(thread));
        let done = match &self.planning {
            Some(planning) => match self.planned(planning, &mut stock) {
                Some(dependencies) => self.run_by_hints(&dependencies, thread, &mut stock),
                None => !self.retirement.is_stopped(),
            },
            None => self.run_chunks(thread, &mut stock),
        };
        if done {
            self.help_out(thread, &mut stock);
            self.run_stale(&mut stock);
        }
        if self.spread.measured > 0 {
            let mut worked = self.worked.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            *worked = worked.and(stock.memory.worked.get());
        }
    }

    /// What all operations took, the first time that they were run to their end, by what some of them took.
    pub fn worked(&self, scale: Scale) -> Duration {
        let worked = *self.worked.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        scale.time_of(worked, self.updates.len(), self.lent.threads())
    }

    /// Each operation at its turn, on this thread, which looks aside now and then if it `looks`.
    pub fn walk_alone(&self, looks: bool) {
        let mut stock = Stock::new(self.lent.take(0));
        let step = if looks { LOOK } else { self.updates.len().max(1) };
        for start in (0..self.updates.len()).step_by(step) {
            let end = (start + step).min(self.updates.len());
            self.retirement.advance_to(end, &mut Turn { run: self, stock: &mut stock });
            if self.retirement.is_stopped() {
                return;
            }
            if looks {
                self.look_aside(0);
            }
        }
    }

    /// Runs chunks until all are taken; false if the batch has stopped.
    fn run_chunks(&self, thread: usize, stock: &mut Stock<'b, Reply<A, S>>) -> bool {
        let mut part = Part::new(self.spread.prefetch);
        let mut backlog = Backlog::default();
        while let Some(start) = self.queue.take() {
            if !self.wait_for_window(start, stock) {
                return false;
            }
            let snapshot = self.retirement.frontier();
            let chunk = start..(start + self.spread.chunk).min(self.updates.len());
            let looks = part.begins();
            if looks || (self.spread.own && !self.is_among_last(start)) {
                self.run_claimed(chunk.clone(), snapshot, looks.then_some(&mut part), stock);
            } else {
                for position in chunk.clone() {
                    self.speculate(position, snapshot, stock);
                }
            }
            if self.spread.own {
                self.retire_own(chunk, &mut backlog, stock);
            } else {
                self.advance(stock);
            }
            self.look_aside(thread);
        }
        if self.spread.own {
            // Others may have left to this thread what it has not looked at since.
            self.advance(stock);
        }
        if self.spread.prefetch != Plan::Leave {
            self.seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).add(part.seen);
        }
        true
    }

    /// True if the chunk at `start` is one of the last: then it is not claimed at once, so that who has none left can help.
    fn is_among_last(&self, start: usize) -> bool {
        start + LAST * self.lent.threads() * self.spread.chunk >= self.updates.len()
    }

    /// Lets the executor's own thread do what waits beside the batch.
    fn look_aside(&self, thread: usize) {
        if thread == 0 {
            let mut aside = self.aside.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            aside(self.around.state);
        }
    }

    /// Runs what nobody has started, lowest position first: what other threads have taken, or, without a plan, everything.
    fn help_out(&self, thread: usize, stock: &mut Stock<'b, Reply<A, S>>) {
        let mut position = self.retirement.frontier();
        while position < self.updates.len() && self.wait_for_window(position, stock) {
            let snapshot = self.retirement.frontier();
            position = position.max(snapshot);
            if position < self.updates.len() && self.speculate(position, snapshot, stock) {
                self.advance(stock);
                self.look_aside(thread);
            }
            position += 1;
        }
    }

    /// Waits until `position` is inside the run-ahead window, retiring meanwhile; false if the batch has stopped.
    fn wait_for_window(&self, position: usize, stock: &mut Stock<'b, Reply<A, S>>) -> bool {
        let mut pause = Pause::default();
        while position >= self.retirement.frontier().saturating_add(self.spread.window) {
            if self.retirement.is_stopped() {
                return false;
            }
            self.advance(stock);
            if !(self.spread.again && self.run_one_again(stock)) {
                pause.wait();
            }
        }
        !self.retirement.is_stopped()
    }

    /// Retires what can be retired now.
    pub fn advance(&self, stock: &mut Stock<'b, Reply<A, S>>) {
        self.retirement.advance(&mut Turn { run: self, stock });
    }

    /// Runs the unit at `position` on the prefix below `snapshot`, if nobody has; true if it did.
    pub fn speculate(&self, position: usize, snapshot: usize, stock: &mut Stock<'b, Reply<A, S>>) -> bool {
        let Some(claim) = self.retirement.claim(position) else {
            return false;
        };
        let finished = stock.room();
        self.run_ahead(position, snapshot, stock, finished);
        claim.finish(finished);
        true
    }

    /// Runs a chunk on the prefix below `snapshot`, except what others have started. Up to [`CLAIMED`] operations are claimed at
    /// once, and their keys are brought near first, if there is a `part` for that.
    fn run_claimed(
        &self,
        chunk: Range<usize>,
        snapshot: usize,
        mut part: Option<&mut Part>,
        stock: &mut Stock<'b, Reply<A, S>>,
    ) {
        for start in chunk.clone().step_by(CLAIMED) {
            let positions = start..(start + CLAIMED).min(chunk.end);
            // Filled and emptied where it lies: it is large.
            let mut claims: SmallVec<[_; CLAIMED]> = SmallVec::new();
            for position in positions {
                if let Some(claim) = self.retirement.claim(position) {
                    claims.push((position, claim));
                }
            }
            if let Some(part) = &mut part {
                let updates = claims.iter().map(|&(position, _)| &self.updates[position]);
                part.look(self.app, self.around.state, updates, false);
            }
            for (position, claim) in claims.drain(..) {
                let finished = stock.room();
                self.run_ahead(position, snapshot, stock, finished);
                claim.finish(finished);
            }
        }
    }

    /// Runs a unit ahead of its turn, and lets others see what it wrote.
    fn run_ahead(
        &self,
        position: usize,
        snapshot: usize,
        stock: &mut Stock<'b, Reply<A, S>>,
        finished: &mut Finished<'b, Reply<A, S>>,
    ) {
        // A panic ahead of the turn leaves no reply; retirement knows what that means.
        match self.run_unit(position, snapshot, stock, finished) {
            Ok(()) => self.around.versions.forward(&finished.outcome.writes),
            Err(panic) => dispose(panic),
        }
    }

    fn run_unit(
        &self,
        position: usize,
        snapshot: usize,
        stock: &mut Stock<'b, Reply<A, S>>,
        finished: &mut Finished<'b, Reply<A, S>>,
    ) -> Result<(), Payload> {
        let update = &self.updates[position];
        let Finished { outcome, reply, .. } = finished;
        let measured = self.spread.measured;
        let start =
            (measured > 0 && position.is_multiple_of(measured) && !outcome.timed).then(Stopwatch::start);
        let memory = &mut stock.memory;
        let worked = memory.worked.get();
        let mut unit = ExecutionUnit::new(self.around, memory, outcome, position as u32, snapshot as u32);
        // Unwind safety: of a unit that panicked only what it had observed is looked at.
        let ran = catch_unwind(AssertUnwindSafe(|| {
            *reply = Some(self.app.speculatively_execute_ref(&mut unit, update.operation()));
        }));
        // Of an operation that was abandoned the next run tells.
        if let Some(start) = start.filter(|_| !outcome.is_abandoned()) {
            memory.worked.set(worked.with(start.ticks()));
            outcome.timed = true;
        }
        ran
    }
}

/// Runs units at their turn, for the walker.
struct Turn<'t, 'r, 'b, A: Application<S>, S> {
    run: &'t BatchRun<'r, 'b, A, S>,
    stock: &'t mut Stock<'b, Reply<A, S>>,
}

impl<'b, A, S> AtTurn<'b, Reply<A, S>> for Turn<'_, '_, 'b, A, S>
where
    A: ScalableApp<S>,
    S: CRUDState + Sync,
{
    fn memory(&self) -> &Workspace<'b> {
        &self.stock.memory
    }

    fn room(&mut self) -> &'b mut Finished<'b, Reply<A, S>> {
        self.stock.room()
    }

    fn take_back(&mut self, room: &'b mut Finished<'b, Reply<A, S>>) {
        self.stock.take_back(room);
    }

    fn run(&mut self, position: usize, finished: &mut Finished<'b, Reply<A, S>>) -> Result<(), Payload> {
        self.run.run_unit(position, position, self.stock, finished)
    }

    fn address(&self, position: usize, reply: Reply<A, S>) -> UpdateReply<Reply<A, S>> {
        UpdateReply::to_request(&self.run.updates[position], reply)
    }

    fn fold(&self, operand: &Record<'b>, below: Option<&Record<'b>>) -> Option<Written<'b>> {
        let fold = || self.run.around.fold(operand, below, &self.stock.memory);
        // What panics here is the merge operator or the state, not the engine. Unwind safety: the batch is dropped.
        catch_unwind(AssertUnwindSafe(fold)).unwrap_or_else(|panic| MergePanicked::unwind(panic))
    }
}

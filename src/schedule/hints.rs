//! Starting operations when the keys that they will probably touch are free.
//!
//! An application may name, before an operation is run, the keys that it will probably read and write
//! ([`ScalableApp::hints`]). From that follows who depends on whom: an operation on the last one before it that writes a
//! key which it reads. An operation whose dependencies have finished is run; until then it waits, and others go first.
//!
//! Hints are guesses. Wrong, missing or partial ones cost time: an operation starts too early, and is replayed, or too late.
//! The operation at the frontier depends on nothing that has not retired, so whatever the hints say, somebody can go on.
//!
//! A written key makes nobody wait but its readers: later writes do not disturb those that read an older version. A merge
//! has no value before it retires, so that those who read the key wait for that.

use hashbrown::HashTable;

use super::{BatchRun, Pause};
use crate::app::{Hints, Request, ScalableApp};
use crate::arena::Workspace;
use crate::batch::Update;
use crate::state::CRUDState;
use crate::unit::{Fingerprints, Versions};

/// Set in a dependency that counts only when it has retired.
const RETIRED: u32 = 1 << 31;

/// Works out dependencies. Lives as long as the engine, so that nothing is allocated per batch.
#[derive(Debug, Default)]
pub struct Planner {
    /// The last operation that writes a key, by the key's fingerprint, which serves as the hash.
    writers: HashTable<(u64, u32)>,
    /// What the operation at hand writes; it counts after all that it reads.
    written: Vec<(u64, u32)>,
    /// All operations' dependencies, one operation's after the other's.
    on: Vec<u32>,
    /// Where each operation's end.
    ends: Vec<u32>,
}

/// Who waits for whom in a batch.
#[derive(Clone, Copy, Debug)]
pub struct Dependencies<'r> {
    on: &'r [u32],
    ends: &'r [u32],
}

/// Takes one operation's hints.
struct Collector<'p> {
    planner: &'p mut Planner,
    fingerprints: &'p Fingerprints,
    position: u32,
}

impl Hints for Collector<'_> {
    fn reads(&mut self, column: &str, key: &[u8]) {
        let fingerprint = self.fingerprints.of(column, key);
        if let Some(&(_, writer)) = self.planner.writers.find(fingerprint, |known| known.0 == fingerprint) {
            self.planner.on.push(writer);
        }
    }

    fn writes(&mut self, column: &str, key: &[u8]) {
        self.planner.written.push((self.fingerprints.of(column, key), self.position));
    }

    fn merges(&mut self, column: &str, key: &[u8]) {
        self.planner.written.push((self.fingerprints.of(column, key), self.position | RETIRED));
    }
}

impl Planner {
    /// The dependencies among `updates`, by the hints of `app`.
    pub fn plan<A, S>(
        &mut self,
        app: &A,
        updates: &[Update<Request<A, S>>],
        fingerprints: &Fingerprints,
    ) -> Dependencies<'_>
    where
        A: ScalableApp<S>,
        S: CRUDState,
    {
        self.writers.clear();
        self.on.clear();
        self.ends.clear();
        for (position, update) in updates.iter().enumerate() {
            let position = position as u32;
            let mut hints = Collector { planner: self, fingerprints, position };
            app.hints(update.operation(), &mut hints);
            self.count_writes();
            self.ends.push(self.on.len() as u32);
        }
        Dependencies { on: &self.on, ends: &self.ends }
    }

    /// From here on, readers depend on what the operation at hand writes.
    fn count_writes(&mut self) {
        for (fingerprint, writer) in self.written.drain(..) {
            self.writers
                .entry(fingerprint, |known| known.0 == fingerprint, |known| known.0)
                .and_modify(|known| known.1 = writer)
                .or_insert((fingerprint, writer));
        }
    }
}

impl Dependencies<'_> {
    /// The dependencies of the operation at `position`.
    fn of(&self, position: usize) -> &[u32] {
        let start = position.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.on[start as usize..self.ends[position] as usize]
    }
}

impl<'b, A, S> BatchRun<'_, 'b, A, S>
where
    A: ScalableApp<S>,
    S: CRUDState + Sync,
{
    /// Runs whatever is free, lowest position first, until all have retired; false if the batch has stopped.
    pub(super) fn run_by_hints(
        &self,
        dependencies: &Dependencies<'_>,
        thread: usize,
        memory: &mut Workspace<'b>,
    ) -> bool {
        let mut pause = Pause::default();
        // All below are started.
        let mut low = 0;
        loop {
            let frontier = self.retirement.frontier();
            if frontier == self.updates.len() || self.retirement.is_stopped() {
                return frontier == self.updates.len();
            }
            low = low.max(frontier);
            let started = match self.first_free(dependencies, &mut low, frontier) {
                Some(position) => self.speculate(position, frontier, memory),
                None => false,
            };
            self.advance(memory);
            self.look_aside(thread);
            let busy = started || (self.spread.again && self.run_one_again(memory));
            if !busy {
                pause.wait();
            }
        }
    }

    /// The lowest position from `low` on, inside the window, that nobody has started and that waits for nobody.
    fn first_free(&self, dependencies: &Dependencies<'_>, low: &mut usize, frontier: usize) -> Option<usize> {
        let end = frontier.saturating_add(self.spread.window).min(self.updates.len());
        for position in *low..end {
            if !self.retirement.is_idle(position) {
                if position == *low {
                    *low += 1;
                }
            } else if dependencies.of(position).iter().all(|&on| self.is_settled(on, frontier)) {
                return Some(position);
            }
        }
        None
    }

    /// True if a dependency need not be waited for any more.
    fn is_settled(&self, on: u32, frontier: usize) -> bool {
        let position = (on & !RETIRED) as usize;
        let forwarded = self.around.versions.forwards() && on & RETIRED == 0;
        position < frontier || (forwarded && self.retirement.is_finished(position))
    }
}

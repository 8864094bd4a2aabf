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
//!
//! # Which of the free ones goes first
//!
//! The one with the most work behind it: its own weight, and that of the heaviest chain of operations that wait for it (the
//! *upward rank* of Topcuoglu, Hariri and Wu, "Performance-effective and low-complexity task scheduling for heterogeneous
//! computing", 2002). Started in the batch's order, a long operation near the end keeps one thread busy when all others
//! have nothing left to do. The walker still takes the operation at the frontier when nobody has started it.

use std::cmp::Reverse;

use hashbrown::HashTable;

use super::{BatchRun, Pause, Stock};
use crate::app::{Hints, Reply, Request, ScalableApp};
use crate::batch::Update;
use crate::state::CRUDState;
use crate::unit::{Fingerprints, Versions};

/// Set in a dependency that counts only when it has retired.
const RETIRED: u32 = 1 << 31;

/// Stands for a position that is started.
const STARTED: u32 = u32::MAX;

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
    weights: Vec<u64>,
    /// Each operation's weight and that of the heaviest chain behind it.
    ranks: Vec<u64>,
    /// All positions, the highest rank first.
    order: Vec<u32>,
}

/// Who waits for whom in a batch, and who goes first.
#[derive(Clone, Copy, Debug)]
pub struct Dependencies<'r> {
    on: &'r [u32],
    ends: &'r [u32],
    order: &'r [u32],
}

/// Takes one operation's hints.
struct Collector<'p> {
    planner: &'p mut Planner,
    fingerprints: &'p Fingerprints,
    position: u32,
    weight: u64,
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

    fn weighs(&mut self, weight: u64) {
        self.weight = weight;
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
        self.collect(app, updates, fingerprints);
        self.rank();
        self.sort();
        Dependencies { on: &self.on, ends: &self.ends, order: &self.order }
    }

    /// Which share of all work of `updates` is in the heaviest chain of operations each of which waits for the one before. If
    /// it is not `weighed`, or nothing weighs anything, all operations are the same work.
    pub fn chain_share<A, S>(
        &mut self,
        app: &A,
        updates: &[Update<Request<A, S>>],
        fingerprints: &Fingerprints,
        weighed: bool,
    ) -> f64
    where
        A: ScalableApp<S>,
        S: CRUDState,
    {
        self.collect(app, updates, fingerprints);
        if !weighed || self.weights.iter().all(|&weight| weight == 0) {
            self.weights.fill(1);
        }
        self.rank();
        let all: f64 = self.weights.iter().map(|&weight| weight as f64).sum();
        self.ranks.iter().max().map_or(0.0, |&heaviest| heaviest as f64 / all)
    }

    fn collect<A, S>(&mut self, app: &A, updates: &[Update<Request<A, S>>], fingerprints: &Fingerprints)
    where
        A: ScalableApp<S>,
        S: CRUDState,
    {
        self.writers.clear();
        self.on.clear();
        self.ends.clear();
        self.weights.clear();
        for (position, update) in updates.iter().enumerate() {
            let position = position as u32;
            let mut hints = Collector { planner: self, fingerprints, position, weight: 1 };
            app.hints(update.operation(), &mut hints);
            let weight = hints.weight;
            self.weights.push(weight);
            self.count_writes();
            self.ends.push(self.on.len() as u32);
        }
    }

    /// Adds up the work behind each operation.
    fn rank(&mut self) {
        let Planner { on, ends, weights, ranks, .. } = self;
        ranks.clear();
        ranks.resize(weights.len(), 0);
        let mut end = on.len();
        for position in (0..weights.len()).rev() {
            // Those that wait for it come later in the batch, so they have their ranks.
            let rank = ranks[position].saturating_add(weights[position]);
            ranks[position] = rank;
            let start = start_of(ends, position);
            for &before in &on[start..end] {
                let before = &mut ranks[(before & !RETIRED) as usize];
                *before = rank.max(*before);
            }
            end = start;
        }
    }

    /// Puts the operations with the most work behind them first.
    fn sort(&mut self) {
        let Planner { weights, ranks, order, .. } = self;
        order.clear();
        order.extend(0..weights.len() as u32);
        order.sort_unstable_by_key(|&position| (Reverse(ranks[position as usize]), position));
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
        &self.on[start_of(self.ends, position)..self.ends[position] as usize]
    }
}

/// Where the dependencies of the operation at `position` start.
fn start_of(ends: &[u32], position: usize) -> usize {
    position.checked_sub(1).map_or(0, |before| ends[before] as usize)
}

/// Positions that a thread has not yet seen started, in the order in which it would start them.
struct Left<'b> {
    positions: &'b mut [u32],
    /// Those before are started.
    first: usize,
}

impl<'b> Left<'b> {
    fn new(positions: &'b mut [u32]) -> Self {
        Left { positions, first: 0 }
    }

    /// The first in reach that is idle and free. Those before it that are not idle are left no more.
    fn find(
        &mut self,
        is_in_reach: impl Fn(usize) -> bool,
        is_idle: impl Fn(usize) -> bool,
        is_free: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let mut found = None;
        let mut seen = self.first;
        // Where the last of those that stay will be.
        let mut started = 0;
        for index in self.first..self.positions.len() {
            let position = self.positions[index] as usize;
            seen = index + 1;
            if !is_in_reach(position) {
                continue;
            }
            if !is_idle(position) {
                self.positions[index] = STARTED;
                started += 1;
            } else if is_free(position) {
                found = Some(position);
                break;
            }
        }
        self.drop_started(seen, started);
        found
    }

    /// Moves what is left before `end` together, towards `end`.
    fn drop_started(&mut self, end: usize, started: usize) {
        if started == 0 {
            return;
        }
        let mut to = end;
        for from in (self.first..end).rev() {
            if self.positions[from] != STARTED {
                to -= 1;
                self.positions[to] = self.positions[from];
            }
        }
        self.first += started;
    }
}

impl<'b, A, S> BatchRun<'_, 'b, A, S>
where
    A: ScalableApp<S>,
    S: CRUDState + Sync,
{
    /// Runs whatever is free, highest rank first, until all have retired; false if the batch has stopped.
    pub(super) fn run_by_hints(
        &self,
        dependencies: &Dependencies<'_>,
        thread: usize,
        stock: &mut Stock<'b, Reply<A, S>>,
    ) -> bool {
        let mut pause = Pause::default();
        let mut left = Left::new(stock.memory.arena.fill(self.updates.len(), |i| dependencies.order[i]));
        loop {
            let frontier = self.retirement.frontier();
            if frontier == self.updates.len() || self.retirement.is_stopped() {
                return frontier == self.updates.len();
            }
            let started = match self.first_free(dependencies, &mut left, frontier) {
                Some(position) => self.speculate(position, frontier, stock),
                None => false,
            };
            if started {
                self.advance(stock);
            } else if !(self.spread.again && self.run_one_again(stock)) {
                pause.wait();
            }
            self.look_aside(thread);
        }
    }

    /// The first of those left, inside the window, that nobody has started and that waits for nobody.
    fn first_free(
        &self,
        dependencies: &Dependencies<'_>,
        left: &mut Left<'_>,
        frontier: usize,
    ) -> Option<usize> {
        let end = frontier.saturating_add(self.spread.window);
        let settled = |&on: &u32| self.is_settled(on, frontier);
        left.find(
            |position| position < end,
            |position| self.retirement.is_idle(position),
            |position| dependencies.of(position).iter().all(settled),
        )
    }

    /// True if a dependency need not be waited for any more.
    fn is_settled(&self, on: u32, frontier: usize) -> bool {
        let position = (on & !RETIRED) as usize;
        let forwarded = self.around.versions.forwards() && on & RETIRED == 0;
        position < frontier || (forwarded && self.retirement.is_finished(position))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A planner that knows who waits for whom, and how heavy everybody is.
    fn planner(operations: &[(u64, Vec<u32>)]) -> Planner {
        let mut planner = Planner::default();
        for (weight, on) in operations {
            planner.weights.push(*weight);
            planner.on.extend(on);
            planner.ends.push(planner.on.len() as u32);
        }
        planner.rank();
        planner.sort();
        planner
    }

    #[test]
    fn what_others_wait_for_longest_goes_first() {
        // 3 waits for 1, and 4 for 3 and 0; 2 is heavy, but not as heavy as 1, 3 and 4 together.
        let planner =
            planner(&[(1, vec![]), (1, vec![]), (5, vec![]), (4, vec![1]), (1, vec![3 | RETIRED, 0])]);
        assert_eq!(planner.ranks, [2, 6, 5, 5, 1]);
        assert_eq!(planner.order, [1, 2, 3, 0, 4]);
    }

    #[test]
    fn equal_operations_that_wait_for_nobody_keep_their_order() {
        assert_eq!(planner(&vec![(1, vec![]); 5]).order, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn weights_beyond_all_bounds_add_up_to_the_greatest() {
        let planner = planner(&[(7, vec![]), (u64::MAX, vec![0])]);
        assert_eq!(planner.ranks, [u64::MAX, u64::MAX]);
    }

    proptest! {
        #[test]
        fn nothing_that_is_free_is_overlooked(
            order in Just((0..40u32).collect::<Vec<_>>()).prop_shuffle(),
            steps in prop::collection::vec((0usize..40, any::<bool>()), 1..200),
        ) {
            let mut positions = order.clone();
            let mut left = Left::new(&mut positions);
            let (mut idle, mut free, mut reach) = ([true; 40], [false; 40], 0);
            for (position, start) in steps {
                // Operations become free, and others start them.
                free[position] = true;
                idle[position] &= !start;
                reach = reach.max(position);
                let expected =
                    order.iter().map(|&it| it as usize).find(|&it| it <= reach && idle[it] && free[it]);
                let found = left.find(|it| it <= reach, |it| idle[it], |it| free[it]);
                prop_assert_eq!(found, expected);
                if let Some(found) = found {
                    idle[found] = false;
                }
            }
        }
    }
}

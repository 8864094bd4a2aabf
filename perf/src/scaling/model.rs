//! What more cores would do: a simulation of one batch on any number of them.
//!
//! Each core does what a thread of the engine does: it takes a chunk of positions, runs its units on the prefix that
//! has retired when it starts, and then, unless another core is at it, walks the frontier forward: units that saw
//! exactly their prefix are accepted, others run again at their turn, those that nobody has started run there and then.
//! (Where little is stale, the engine's threads retire only what they have run; that saves what is left out here.)
//! What each of that takes was measured on one core; what an operation touches was recorded. Left out are caches, and
//! what a cache line costs that many cores want: the model is an upper bound.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What was measured, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    /// Running one unit ahead of its turn.
    pub unit: f64,
    /// Validating and publishing it.
    pub retire: f64,
    /// Moving its writes into the state; spreads over the cores.
    pub commit: f64,
    /// A batch's beginning and end, whatever its size.
    pub batch: f64,
}

/// What one operation touches, as numbers of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touches {
    /// Observed.
    pub reads: Vec<u32>,
    /// Written.
    pub writes: Vec<u32>,
}

/// What a simulation gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Simulated {
    /// Time for the batch in nanoseconds.
    pub ns: f64,
    /// Units that had to run again at their turn.
    pub replays: usize,
    /// Of these and those that were accepted.
    pub speculations: usize,
}

/// What became of a position.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Unit {
    Idle,
    Running,
    /// Ran on this many retired operations.
    Done(usize),
}

/// What a core does next.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// Begins the unit at a position of its chunk, whose end and moment it knows.
    Start { position: usize, end: usize, snapshot: usize },
    /// Has finished it.
    Finish { position: usize, end: usize, snapshot: usize },
    /// Looks whether it can retire something.
    Retire,
    /// Walks on: the unit at the frontier is its own, and is retired now.
    Retired,
    /// Takes a chunk.
    Take,
}

/// A core's next step. Ordered by time, in whole picoseconds so that it has a total order, then by core.
type Event = Reverse<(u64, usize)>;

/// The state of a simulation.
struct Batch<'a> {
    touches: &'a [Touches],
    costs: Costs,
    chunk: usize,
    /// How far stale units are looked for; 0: they are not run again before their turn.
    reach: usize,
    units: Vec<Unit>,
    /// Per key: one more than the position that wrote it last, among the retired.
    written: Vec<usize>,
    frontier: usize,
    taken: usize,
    walking: bool,
    simulated: Simulated,
}

/// How the cores work.
#[derive(Clone, Copy, Debug)]
pub struct Crew {
    /// Number of cores.
    pub cores: usize,
    /// Positions that a core takes at once.
    pub chunk: usize,
    /// Cores that find nothing to start run finished but stale units again, before their turn.
    pub again: bool,
}

/// How often a core looks that has nothing to do, in nanoseconds.
const GLANCE: f64 = 100.0;
/// How far beyond the frontier stale units are looked for, in units per core.
const REACH: usize = 8;

/// Simulates one batch. `keys` is more than every number of a key.
pub fn simulate(touches: &[Touches], keys: usize, costs: Costs, crew: Crew) -> Simulated {
    let Crew { cores, chunk, again } = crew;
    let mut batch = Batch {
        touches,
        costs,
        chunk: chunk.max(1),
        reach: if again { REACH * cores } else { 0 },
        units: vec![Unit::Idle; touches.len()],
        written: vec![0; keys],
        frontier: 0,
        taken: 0,
        walking: false,
        simulated: Simulated { ns: 0.0, replays: 0, speculations: 0 },
    };
    let mut next = vec![Next::Take; cores];
    let mut events: BinaryHeap<Event> = (0..cores).map(|core| Reverse((0, core))).collect();
    let mut end = 0;
    while let Some(Reverse((now, core))) = events.pop() {
        end = end.max(now);
        if let Some((step, takes)) = batch.step(next[core]) {
            next[core] = step;
            events.push(Reverse((now + (takes * 1000.0) as u64, core)));
        }
    }
    debug_assert_eq!(batch.frontier, touches.len());
    let commit = costs.commit * touches.len() as f64 / cores as f64;
    Simulated { ns: end as f64 / 1000.0 + commit + costs.batch, ..batch.simulated }
}

impl Batch<'_> {
    /// Does what a core does next; returns what it does after that, and the time until then. `None` if it is done.
    fn step(&mut self, next: Next) -> Option<(Next, f64)> {
        match next {
            Next::Take => self.take(),
            Next::Start { position, end, snapshot } => {
                if position >= end {
                    return Some((Next::Retire, 0.0));
                }
                if self.units[position] != Unit::Idle {
                    return Some((Next::Start { position: position + 1, end, snapshot }, 0.0));
                }
                self.units[position] = Unit::Running;
                Some((Next::Finish { position, end, snapshot }, self.costs.unit))
            }
            Next::Finish { position, end, snapshot } => {
                self.units[position] = Unit::Done(snapshot);
                Some((Next::Start { position: position + 1, end, snapshot }, 0.0))
            }
            Next::Retire if self.walking => Some((Next::Take, 0.0)),
            Next::Retire => Some(self.walk()),
            Next::Retired => {
                let position = self.frontier;
                let touches = &self.touches[position];
                touches.writes.iter().for_each(|&key| self.written[key as usize] = position + 1);
                self.frontier += 1;
                Some(self.walk())
            }
        }
    }

    fn take(&mut self) -> Option<(Next, f64)> {
        let snapshot = self.frontier;
        if self.taken < self.units.len() {
            let position = self.taken;
            self.taken = (position + self.chunk).min(self.units.len());
            return Some((Next::Start { position, end: self.taken, snapshot }, 0.0));
        }
        // Nothing is left to take: help with what others have taken but not started.
        let mut open = self.frontier..self.units.len();
        if let Some(idle) = open.clone().find(|&position| self.units[position] == Unit::Idle) {
            return Some((Next::Start { position: idle, end: idle + 1, snapshot }, 0.0));
        }
        if self.reach == 0 || open.is_empty() {
            return None;
        }
        // The unit at the frontier is the walker's.
        let stale = open.clone().skip(1).take(self.reach).find(|&position| {
            matches!(self.units[position], Unit::Done(snapshot) if self.is_stale(position, snapshot))
        });
        match stale {
            Some(position) => {
                self.units[position] = Unit::Running;
                Some((Next::Finish { position, end: position + 1, snapshot }, self.costs.unit))
            }
            None => open.next().map(|_| (Next::Retire, GLANCE)),
        }
    }

    /// True if something that the unit observed was written again since its moment.
    fn is_stale(&self, position: usize, snapshot: usize) -> bool {
        self.touches[position].reads.iter().any(|&key| self.written[key as usize] > snapshot)
    }

    /// The walker's next step, at the frontier.
    fn walk(&mut self) -> (Next, f64) {
        self.walking = true;
        let Costs { unit, retire, .. } = self.costs;
        match self.units.get(self.frontier) {
            Some(Unit::Idle) => {
                self.units[self.frontier] = Unit::Running;
                (Next::Retired, unit + retire)
            }
            Some(&Unit::Done(snapshot)) => {
                let stale = self.is_stale(self.frontier, snapshot);
                self.simulated.speculations += 1;
                self.simulated.replays += usize::from(stale);
                (Next::Retired, retire + if stale { unit } else { 0.0 })
            }
            Some(Unit::Running) | None => {
                self.walking = false;
                (Next::Take, 0.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COSTS: Costs = Costs { unit: 1000.0, retire: 50.0, commit: 0.0, batch: 0.0 };

    fn speed_up(touches: &[Touches], keys: usize, cores: usize) -> f64 {
        let sequential = touches.len() as f64 * COSTS.unit;
        sequential / simulate(touches, keys, COSTS, crew(cores)).ns
    }

    fn crew(cores: usize) -> Crew {
        Crew { cores, chunk: 4, again: false }
    }

    fn touching(key: impl Fn(usize) -> u32) -> Vec<Touches> {
        (0..1000).map(|n| Touches { reads: vec![key(n)], writes: vec![key(n)] }).collect()
    }

    #[test]
    fn what_does_not_collide_scales_until_retirement_is_the_limit() {
        let independent = touching(|n| n as u32);
        assert!((0.9..1.0).contains(&speed_up(&independent, 1000, 1)));
        assert!((1.8..2.0).contains(&speed_up(&independent, 1000, 2)));
        let four = speed_up(&independent, 1000, 4);
        assert!((3.5..4.0).contains(&four), "{four}");
        let many = speed_up(&independent, 1000, 64);
        assert!((10.0..20.1).contains(&many), "one unit retires every 50 ns: {many}");
        assert_eq!(simulate(&independent, 1000, COSTS, crew(8)).replays, 0);
    }

    #[test]
    fn a_chain_gains_nothing_and_loses_little() {
        let chain = touching(|_| 0);
        let two = speed_up(&chain, 1, 2);
        assert!((0.85..1.01).contains(&two), "{two}");
        assert!(simulate(&chain, 1, COSTS, Crew { chunk: 1, ..crew(2) }).replays > 400);
    }

    #[test]
    fn running_again_before_the_turn_leaves_fewer_replays() {
        let some = touching(|n| (n * n * 31 % 97) as u32);
        let late = simulate(&some, 97, COSTS, crew(8));
        let early = simulate(&some, 97, COSTS, Crew { again: true, ..crew(8) });
        assert!(early.replays < late.replays && early.ns < late.ns, "{early:?} {late:?}");
    }
}

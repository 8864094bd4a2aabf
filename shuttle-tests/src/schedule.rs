//! Schedules from seeds.
//!
//! Each schedule is a function of one number, so that one number is enough to run it again. Half of the seeds choose
//! among the threads at random, more or less often staying with the one that runs; the other half do probabilistic
//! concurrency testing (Burckhardt et al., "A Randomized Scheduler with Probabilistic Guarantees of Finding Bugs", ASPLOS
//! 2010): the thread of the highest priority runs, priorities are random, and at a few random steps the running thread gets
//! the lowest one. Few such steps suffice for most mistakes, and random choices at each step hardly ever make them.
//!
//! A thread that yields gets the lowest priority, too, or waiting in a loop would never end. Parked threads may be woken for
//! no reason; half of the seeds do that.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};

/// A generator of numbers (splitmix64): one step for each, and any seed is good.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator of this seed.
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit
    }
}

/// How the next thread is chosen.
#[derive(Debug)]
enum Policy {
    /// At random; with a chance of `keep` in 8, the one that runs goes on.
    Random { keep: u64 },
    /// By priorities, which change at certain steps.
    Priorities { of: Vec<u64>, changes: Vec<u64>, lowest: u64 },
}

/// Priorities of threads that have not been lowered are at least this.
const FRESH: u64 = 1 << 32;
/// Steps at which priorities change come before this one; a batch has some hundreds to thousands.
const HORIZON: u32 = 13;

/// What a run can tell of the schedule that is under way.
#[derive(Debug, Default)]
pub struct Progress {
    /// The seed.
    pub seed: AtomicU64,
    /// How often somebody was chosen out of several, in all schedules.
    pub choices: AtomicU64,
    /// A digest of all choices, in all schedules.
    pub trace: AtomicU64,
}

/// Runs the schedules of a range of seeds, one after the other.
#[derive(Debug)]
pub struct Seeded {
    seeds: Range<u64>,
    progress: Arc<Progress>,
    policy: Policy,
    wakes: bool,
    steps: u64,
    choices: Random,
    data: Random,
    runnable: Vec<usize>,
}

impl Seeded {
    /// Schedules of these seeds.
    pub fn new(seeds: Range<u64>, progress: Arc<Progress>) -> Self {
        let policy = Policy::Random { keep: 0 };
        let (choices, data) = (Random::new(0), Random::new(0));
        Seeded { seeds, progress, policy, wakes: false, steps: 0, choices, data, runnable: Vec::new() }
    }

    fn choose(&mut self, current: Option<usize>, yields: bool) -> usize {
        let random = &mut self.choices;
        match &mut self.policy {
            Policy::Random { keep } => match current {
                Some(current) if !yields && random.below(8) < *keep && self.runnable.contains(&current) => {
                    current
                }
                _ => self.runnable[random.below(self.runnable.len() as u64) as usize],
            },
            Policy::Priorities { of, changes, lowest } => {
                while self.runnable.iter().chain(&current).any(|&task| task >= of.len()) {
                    of.push(FRESH + (random.number() >> 8));
                }
                if let Some(current) = current
                    && (yields || changes.contains(&self.steps))
                {
                    *lowest -= 1;
                    of[current] = *lowest;
                }
                *self.runnable.iter().max_by_key(|&&task| of[task]).expect("somebody can run")
            }
        }
    }
}

impl Scheduler for Seeded {
    fn new_execution(&mut self) -> Option<Schedule> {
        let seed = self.seeds.next()?;
        self.progress.seed.store(seed, Ordering::Relaxed);
        self.data = Random::new(!seed);
        // Consecutive seeds must not give consecutive generators: those would share most of their numbers.
        let mut random = Random::new(Random::new(seed).number());
        self.policy = if seed.is_multiple_of(2) {
            Policy::Random { keep: [0, 4, 6, 7][random.below(4) as usize] }
        } else {
            let horizon = 1 << (4 + random.below(u64::from(HORIZON - 3)));
            let changes = (0..random.below(6)).map(|_| 1 + random.below(horizon)).collect();
            Policy::Priorities { of: Vec::new(), changes, lowest: FRESH }
        };
        self.wakes = random.below(2) == 0;
        self.choices = random;
        self.steps = 0;
        Some(Schedule::new(seed))
    }

    fn next_task(&mut self, tasks: &[&Task], current: Option<TaskId>, yields: bool) -> Option<TaskId> {
        let wakes = self.wakes;
        self.runnable.clear();
        self.runnable
            .extend(tasks.iter().filter(|task| wakes || task.runnable()).map(|task| usize::from(task.id())));
        let chosen = if let [only] = self.runnable[..] {
            only
        } else {
            self.steps += 1;
            self.progress.choices.fetch_add(1, Ordering::Relaxed);
            self.choose(current.map(usize::from), yields)
        };
        let trace = self.progress.trace.load(Ordering::Relaxed);
        self.progress.trace.store(Random::new(trace ^ chosen as u64).number(), Ordering::Relaxed);
        Some(TaskId::from(chosen))
    }

    fn next_u64(&mut self) -> u64 {
        self.data.number()
    }
}

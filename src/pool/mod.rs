//! The pinned work-stealing pool. It knows nothing of units: it runs a job on all threads at once and hands out task
//! numbers in ascending order.
//!
//! N threads are the caller and N-1 workers. Workers live as long as the pool, spin for a bounded time when idle, then
//! park. The protocols (gate, sleep) and why they lose nothing are described in `pool/README.md`.

mod affinity;
mod queue;
mod sleep;
mod worker;

use std::time::Duration;

pub use affinity::Place;
pub use queue::{Filler, Queue, queue};
use sleep::Sleepers;

use crate::error::InitError;
use crate::raw::gate::{Owner, Payload, gate};
use crate::state::Crew;
use crate::sync::{Arc, JoinHandle, spawn};

#[doc = include_str!("README.md")]
pub mod protocol {}

/// How a pool is set up.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// Threads, the caller among them.
    pub threads: usize,
    /// How long an idle worker spins before it parks.
    pub spin: Duration,
    /// Pin caller and workers to cores.
    pub pin: bool,
    /// Bytes of a worker's stack; `None`: as many as the standard library gives.
    pub stack_size: Option<usize>,
    /// Workers are called `{name}-worker-1` and so on.
    pub name: String,
}

struct Shared {
    sleepers: Sleepers,
    spin: Duration,
}

/// A pool of threads that take part in one job at a time.
pub struct Pool {
    owner: Owner,
    shared: Arc<Shared>,
    filler: Filler,
    queue: Queue,
    workers: Vec<JoinHandle<()>>,
    caller_place: Option<Place>,
}

impl Pool {
    /// Spawns the workers.
    ///
    /// # Errors
    ///
    /// The system refuses a thread; those spawned before it are stopped again.
    pub fn new(config: &PoolConfig) -> Result<Self, InitError> {
        let (owner, keys) = gate(config.threads - 1);
        let places = if config.pin { Place::reserve(config.threads) } else { Vec::new() };
        let mut places = places.into_iter();
        let (filler, queue) = queue();
        let shared = Arc::new(Shared { sleepers: Sleepers::new(keys.len()), spin: config.spin });
        let caller_place = places.next().flatten();
        let mut pool = Pool { owner, shared, filler, queue, workers: Vec::new(), caller_place };
        for key in keys {
            let name = format!("{}-worker-{}", config.name, key.index());
            let place = places.next().flatten();
            let shared = Arc::clone(&pool.shared);
            let worker = spawn(&name, config.stack_size, move || worker::work(key, place, &shared));
            pool.workers.push(worker.map_err(|source| InitError::Spawn { name, source })?);
        }
        Ok(pool)
    }

    /// Pins the calling thread, which is going to run the jobs, to the core that was set aside for it.
    pub fn pin_caller(&self) {
        if let Some(place) = &self.caller_place {
            place.pin_current();
        }
    }

    /// The queue that a job takes its tasks from.
    pub fn queue(&self) -> Queue {
        self.queue.clone()
    }

    /// Puts the tasks `tasks` into the queue and runs `job(thread)` here (thread 0) and on every worker that comes
    /// while this thread's part lasts. Returns when nobody runs it any more; tasks that nobody took are gone then.
    ///
    /// # Errors
    ///
    /// The payload of a panic of `job` on any thread.
    pub fn run(
        &mut self,
        tasks: impl Iterator<Item = usize>,
        job: &(dyn Fn(usize) + Sync),
    ) -> Result<(), Payload> {
        tasks.for_each(|task| self.filler.push(task));
        let Pool { owner, shared, workers, queue, .. } = self;
        let result = owner.run(job, || shared.sleepers.wake_all(workers.iter().map(JoinHandle::thread)));
        while queue.take().is_some() {}
        result
    }
}

impl Crew for Pool {
    fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    fn run(&mut self, work: &(dyn Fn() + Sync)) {
        if let Err(payload) = Pool::run(self, std::iter::empty(), &|_| work()) {
            std::panic::resume_unwind(payload);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.owner.stop();
        self.shared.sleepers.wake_all(self.workers.iter().map(JoinHandle::thread));
        for worker in self.workers.drain(..) {
            // A worker catches its jobs' panics; there is nothing to report here.
            let _ = worker.join();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sync::{AtomicUsize, Ordering};

    fn pool(threads: usize, spin: Duration) -> Pool {
        let config = PoolConfig { threads, spin, pin: false, stack_size: None, name: "test".to_owned() };
        Pool::new(&config).expect("threads")
    }

    #[test]
    fn every_task_runs_once_on_any_number_of_threads_spinning_or_parked() {
        for threads in [1, 2, 5] {
            for spin in [Duration::ZERO, Duration::from_micros(50), Duration::from_secs(1)] {
                let mut pool = pool(threads, spin);
                let queue = pool.queue();
                for round in 0..200 {
                    let sum = AtomicUsize::new(0);
                    let job = |_| {
                        while let Some(task) = queue.take() {
                            sum.fetch_add(task + 1, Ordering::Relaxed);
                        }
                    };
                    pool.run(0..round, &job).expect("no panic");
                    assert_eq!(sum.into_inner(), round * (round + 1) / 2);
                }
            }
        }
    }

    #[test]
    fn parked_workers_are_woken() {
        let mut pool = pool(2, Duration::ZERO);
        for _ in 0..100 {
            let came = AtomicUsize::new(0);
            let job = |_| {
                came.fetch_add(1, Ordering::AcqRel);
                while came.load(Ordering::Acquire) < 2 {
                    crate::sync::yield_now();
                }
            };
            pool.run(std::iter::empty(), &job).expect("no panic");
        }
    }

    #[test]
    fn a_panicking_job_is_reported_and_leaves_no_task_behind() {
        let mut pool = pool(3, Duration::from_micros(10));
        assert!(pool.run(0..10, &|_| panic!("job")).is_err());
        assert_eq!(pool.queue().take(), None);
        assert!(pool.run(std::iter::empty(), &|_| {}).is_ok());
    }

    #[test]
    fn as_a_crew_it_reaches_every_item() {
        let mut pool = pool(3, Duration::from_micros(10));
        let mut items = vec![0usize; 1000];
        crate::state::for_each_mut(&mut pool, &mut items, 7, |index, item| *item += index);
        assert!(items.iter().enumerate().all(|(index, item)| *item == index));
    }
}

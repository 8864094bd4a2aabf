//! The only file that names crossbeam-deque: a queue of task numbers, filled by one thread, taken by all.
//!
//! Tasks come out in ascending order, whoever takes them. Everybody *steals*, the filling thread too: an owner's `pop`
//! would shrink the deque's buffer, and the next fill would have to allocate again.
//!
//! Models get a locked queue with the same interface, because crossbeam-deque has no shim for loom and shuttle.

#[cfg(not(any(loom, shuttle)))]
mod imp {
    use crossbeam_deque::{Steal, Stealer, Worker};

    use crate::sync::spin_loop;

    /// The filling end.
    pub struct Filler(Worker<usize>);

    /// The taking end.
    #[derive(Clone)]
    pub struct Queue(Stealer<usize>);

    /// An empty queue.
    pub fn queue() -> (Filler, Queue) {
        let worker = Worker::new_fifo();
        let stealer = worker.stealer();
        (Filler(worker), Queue(stealer))
    }

    impl Filler {
        /// Appends a task.
        pub fn push(&mut self, task: usize) {
            self.0.push(task);
        }
    }

    impl Queue {
        /// The lowest task that nobody has taken.
        #[inline]
        pub fn take(&self) -> Option<usize> {
            loop {
                match self.0.steal() {
                    Steal::Success(task) => return Some(task),
                    Steal::Empty => return None,
                    // Another thread took one at the same moment, so somebody made progress.
                    Steal::Retry => spin_loop(),
                }
            }
        }
    }
}

#[cfg(any(loom, shuttle))]
mod imp {
    use std::collections::VecDeque;

    use crate::sync::{Arc, Mutex, MutexGuard};

    /// The filling end.
    pub struct Filler(Arc<Mutex<VecDeque<usize>>>);

    /// The taking end.
    #[derive(Clone)]
    pub struct Queue(Arc<Mutex<VecDeque<usize>>>);

    /// An empty queue.
    pub fn queue() -> (Filler, Queue) {
        let tasks = Arc::new(Mutex::new(VecDeque::new()));
        (Filler(Arc::clone(&tasks)), Queue(tasks))
    }

    /// Poisoned or not: shuttle's threads share one thread of the system, and so what it knows of panics.
    fn locked(tasks: &Mutex<VecDeque<usize>>) -> MutexGuard<'_, VecDeque<usize>> {
        tasks.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    impl Filler {
        /// Appends a task.
        pub fn push(&mut self, task: usize) {
            locked(&self.0).push_back(task);
        }
    }

    impl Queue {
        /// The lowest task that nobody has taken.
        pub fn take(&self) -> Option<usize> {
            locked(&self.0).pop_front()
        }
    }
}

pub use imp::*;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn tasks_come_out_in_ascending_order_each_once() {
        let (mut filler, queue) = queue();
        for round in 0..3 {
            (0..1000).for_each(|task| filler.push(task));
            let taken: Vec<Vec<usize>> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..2)
                    .map(|_| scope.spawn(|| std::iter::from_fn(|| queue.take()).collect::<Vec<_>>()))
                    .collect();
                threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
            });
            assert!(taken.iter().all(|tasks| tasks.is_sorted()), "round {round}");
            let mut all = taken.concat();
            all.sort_unstable();
            assert_eq!(all, (0..1000).collect::<Vec<_>>());
        }
    }
}

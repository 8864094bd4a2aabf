//! The gate through which a pool's workers reach a job that lives on the caller's stack.
//!
//! # Semantics
//!
//! [`Owner::run`] opens the gate, works on the job itself, closes the gate and waits until everybody who came in has
//! left; only then does the borrow of the job end. A worker that is late finds the gate closed and is not waited for.
//! All of it is one atomic word: sequence number, open, stopped, and how many workers are inside. The numbered steps
//! are those of `pool/README.md`.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::dispose;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering, UnsafeCell, spin_loop, yield_now};

/// The gate's word, copied out of its atomic: all bit arithmetic is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word(u64);

impl Word {
    const JOINED_ONE: u64 = 1;
    const JOINED_MASK: u64 = (1 << 16) - 1;
    const OPEN: u64 = 1 << 16;
    const STOPPED: u64 = 1 << 17;
    const SEQ_SHIFT: u32 = 32;

    /// How many workers are inside.
    pub fn joined(self) -> u64 {
        self.0 & Self::JOINED_MASK
    }

    /// True while workers may come in.
    pub fn is_open(self) -> bool {
        self.0 & Self::OPEN != 0
    }

    /// True once the pool is shutting down.
    pub fn is_stopped(self) -> bool {
        self.0 & Self::STOPPED != 0
    }

    /// The number of the job, modulo 2^32.
    pub fn seq(self) -> u32 {
        (self.0 >> Self::SEQ_SHIFT) as u32
    }

    fn opened(self) -> Word {
        Word((u64::from(self.seq().wrapping_add(1)) << Self::SEQ_SHIFT) | Self::OPEN)
    }

    fn entered(self) -> Word {
        Word(self.0 + Self::JOINED_ONE)
    }
}

/// What a panic carries.
pub type Payload = Box<dyn Any + Send>;
type RawJob = *const (dyn Fn(usize) + Sync);

/// What owner and workers share.
pub struct Gate {
    word: AtomicU64,
    job: UnsafeCell<Option<RawJob>>,
    panic: Mutex<Option<Payload>>,
}

// SAFETY: `job` is written only by the owner while the gate is closed and empty, and read only by workers inside; the
// word orders the two (steps 1 to 6). It points to a `Sync` closure.
unsafe impl Sync for Gate {}
// SAFETY: as above; nothing in a gate belongs to a thread.
unsafe impl Send for Gate {}

/// The right to run jobs. There is one per gate, and it is not `Clone`.
pub struct Owner {
    gate: Arc<Gate>,
}

/// The right to take part in jobs as one certain worker. There is one per worker, and it is not `Clone`.
pub struct WorkerKey {
    gate: Arc<Gate>,
    index: usize,
    last: u32,
}

/// A gate for `workers` workers; jobs are called with the worker's index, 1 to `workers`, and with 0 on the owner's
/// thread.
///
/// # Panics
///
/// With more than 65,535 workers.
pub fn gate(workers: usize) -> (Owner, Vec<WorkerKey>) {
    assert!(workers as u64 <= Word::JOINED_MASK, "the word counts up to 65,535 workers");
    let gate =
        Arc::new(Gate { word: AtomicU64::new(0), job: UnsafeCell::new(None), panic: Mutex::new(None) });
    let keys = (1..=workers).map(|index| WorkerKey { gate: Arc::clone(&gate), index, last: 0 }).collect();
    (Owner { gate }, keys)
}

impl Gate {
    /// True if a job that `last` is not the number of is open, or the gate is stopped. For the sleep protocol.
    pub fn calls(&self, last: u32) -> bool {
        // Relaxed: the sleeper's fence (step S2) orders this load; whoever acts on it loads again with Acquire.
        let word = Word(self.word.load(Ordering::Relaxed));
        word.is_stopped() || (word.is_open() && word.seq() != last)
    }
}

/// Closes the gate and waits until it is empty, also when the owner's own part unwinds.
struct CloseOnDrop<'a>(&'a Gate);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        // Step 5. AcqRel: closing comes after the owner's part of the job; Acquire pairs with step 4 of workers
        // that have already left.
        let mut word = Word(self.0.word.fetch_and(!Word::OPEN, Ordering::AcqRel));
        let mut spins = 0u32;
        while word.joined() != 0 {
            spins += 1;
            if spins.is_multiple_of(128) {
                yield_now()
            } else {
                spin_loop()
            }
            // Step 6. Acquire: pairs with each worker's step 4, so that what it did happens before `run` returns.
            word = Word(self.0.word.load(Ordering::Acquire));
        }
    }
}

impl Owner {
    /// Runs `job` once here, and once on each worker that comes in before this thread is done. `wake` is called when
    /// the gate is open.
    ///
    /// Returns when nobody runs `job` any more. A panic of `job`, here or on a worker, is handed back.
    pub fn run(&mut self, job: &(dyn Fn(usize) + Sync), wake: impl FnOnce()) -> Result<(), Payload> {
        let gate: &Gate = &self.gate;
        // SAFETY: only the lifetime changes. Workers reach the job only between steps 3 and 4, all of which lies inside
        // this call (`CloseOnDrop`), so neither the closure nor what it borrows ends while they use it.
        let raw = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), RawJob>(job) };
        gate.job.with_mut(|slot| {
            // SAFETY: step 1. The gate is closed and empty (the last `run` saw to that, and `&mut self` means that
            // none is under way), so nobody else looks at the cell.
            unsafe { *slot = Some(raw) }
        });
        // Relaxed: only the owner moves the word while the gate is closed and empty.
        let word = Word(gate.word.load(Ordering::Relaxed)).opened();
        // Step 2. Release: publishes the job (step 1) to whoever comes in (step 3).
        gate.word.store(word.0, Ordering::Release);
        let own = {
            let _close = CloseOnDrop(gate);
            wake();
            catch_unwind(AssertUnwindSafe(|| job(0)))
        };
        let theirs = gate.panic.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        match theirs {
            Some(payload) => {
                own.unwrap_or_else(dispose);
                Err(payload)
            }
            None => own,
        }
    }

    /// Stops the gate: workers see it and leave for good.
    pub fn stop(&mut self) {
        // Release: nothing is published with it, but it must not pass an earlier close.
        self.gate.word.fetch_or(Word::STOPPED, Ordering::Release);
    }
}

/// What a worker found at the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing new.
    Nothing,
    /// A job, which was run.
    Job,
    /// The gate is stopped.
    Stopped,
}

impl WorkerKey {
    /// The worker's index.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The shared part.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// The number of the last job that this worker looked at.
    pub fn last(&self) -> u32 {
        self.last
    }

    /// Takes part in the open job, if there is one that this worker has not yet taken part in.
    #[inline]
    pub fn try_run(&mut self) -> Found {
        // Relaxed: a hint; the exchange below decides.
        let mut word = Word(self.gate.word.load(Ordering::Relaxed));
        loop {
            if word.is_stopped() {
                return Found::Stopped;
            }
            if !word.is_open() || word.seq() == self.last {
                return Found::Nothing;
            }
            // Step 3. Acquire: pairs with the owner's step 2 (entries of other workers in between continue its
            // release sequence), so the job is visible.
            match self.gate.word.compare_exchange_weak(
                word.0,
                word.entered().0,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(now) => word = Word(now),
            }
        }
        self.last = word.seq();
        self.run_inside();
        Found::Job
    }

    fn run_inside(&self) {
        let raw = self.gate.job.with(|slot| {
            // SAFETY: this worker is inside (step 3), so the owner does not write the cell until it has left.
            unsafe { *slot }
        });
        if let Some(raw) = raw {
            // SAFETY: the owner keeps the closure alive until this worker has left (steps 5 and 6).
            let job = unsafe { &*raw };
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| job(self.index))) {
                let mut panic = self.gate.panic.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                match &*panic {
                    None => *panic = Some(payload),
                    Some(_) => dispose(payload),
                }
            }
        }
        // Step 4. Release: what this worker did happens before the owner's step 6 (or 5).
        self.gate.word.fetch_sub(Word::JOINED_ONE, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_its_parts() {
        let word = Word(0).opened();
        assert!(word.is_open() && !word.is_stopped());
        assert_eq!((word.seq(), word.joined()), (1, 0));
        let word = word.entered().entered();
        assert_eq!((word.seq(), word.joined(), word.is_open()), (1, 2, true));
        assert_eq!(Word(u64::from(u32::MAX) << 32).opened().seq(), 0, "numbers wrap");
    }

    #[test]
    fn a_late_worker_is_not_waited_for_and_does_not_come_in() {
        let (mut owner, mut keys) = gate(1);
        owner.run(&|_| {}, || {}).expect("no panic");
        assert_eq!(keys[0].try_run(), Found::Nothing);
        owner.stop();
        assert_eq!(keys[0].try_run(), Found::Stopped);
    }

    #[test]
    fn a_panic_on_either_side_comes_back_and_the_gate_stays_usable() {
        let (mut owner, mut keys) = gate(1);
        assert!(owner.run(&|_| panic!("here"), || {}).is_err());
        let mut key = keys.remove(0);
        let result = owner.run(&|index| assert_eq!(index, 0, "only the owner"), || {
            assert_eq!(key.try_run(), Found::Job);
        });
        assert!(result.is_err());
        assert!(owner.run(&|_| {}, || {}).is_ok());
    }
}

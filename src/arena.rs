//! Memory of a batch: one bump arena per executing thread and one for retirement.
//!
//! What a batch allocates is borrowed from [`Arenas::lend`] for the batch's lifetime `'b`, so the borrow checker proves
//! what has to be proved before a reset: no unit, record or reader of the batch exists any more, on any thread.
//!
//! Once a batch has needed more than there was, every thread that comes to a later one gets as much as the hungriest had, at
//! once and in one piece, within limits ([`SHARES`], [`MOST`]): threads do not share batches out evenly, and each would meet the
//! most it ever needs at another time. New memory is slow the first time it is touched (a huge page may take longer than a
//! batch), so each thread touches its own before it begins. After a few batches, nothing is asked of the heap.

use bumpalo::Bump;

use crate::raw::arena::Arena;
use crate::raw::stopwatch::Measured;
use crate::sync::{Cell, Mutex, RefCell};

/// A thread is expected to need at most so many times its share of what a batch needs: with many threads, one that had to run
/// nearly all of a batch is no measure for the others.
const SHARES: usize = 2;
/// Bytes that are kept ready for what one thread may need. What exceeds that is asked for when it is needed.
const MOST: usize = 1 << 25;

/// What one thread keeps from batch to batch.
#[derive(Debug, Default)]
struct Memory {
    bump: Bump,
    scratch: Vec<u8>,
}

/// What arenas hold at least, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Room {
    worker: usize,
    retirement: usize,
}

/// The arenas of an engine.
#[derive(Debug)]
pub struct Arenas {
    workers: Vec<Memory>,
    retirement: Memory,
    /// What they have to hold when they are lent.
    room: Room,
    /// What they held when they were lent last, the workers' and retirement's.
    held: Vec<usize>,
}

/// A column's name in an arena: one word, so that records stay small.
pub type Name<'b> = &'b &'b str;

/// Memory for one batch: a thread's arena, and a buffer for merged values.
pub struct Workspace<'b> {
    /// Where units, records and values of the batch go.
    pub arena: Arena<'b>,
    /// A buffer that keeps its capacity from batch to batch.
    scratch: RefCell<&'b mut Vec<u8>>,
    /// The last column that was copied to the arena; most operations stay in one.
    column: Cell<Name<'b>>,
    /// What operations took this thread, the first time that they were run to their end, where that is measured.
    pub worked: Cell<Measured>,
}

/// The workspaces of one batch, each to be taken once, by its thread.
pub struct Lent<'b> {
    workers: &'b [Mutex<Option<&'b mut Memory>>],
    /// What each thread's arena has to hold.
    room: usize,
}

impl Arenas {
    /// Arenas for `threads` threads.
    pub fn new(threads: usize) -> Self {
        let workers = (0..threads).map(|_| Memory::default()).collect();
        Arenas { workers, retirement: Memory::default(), room: Room::default(), held: vec![0; threads + 1] }
    }

    /// Forgets the last batch, and lends the memory to the next: to each thread, and to retirement.
    pub fn lend<'b>(&'b mut self) -> (Lent<'b>, Workspace<'b>) {
        self.room = self.needed();
        for (held, memory) in self.held.iter_mut().zip(self.workers.iter().chain([&self.retirement])) {
            *held = memory.bump.allocated_bytes();
        }
        let retirement = self.retirement.open(self.room.retirement);
        let mut workers = self.workers.iter_mut();
        let lent = retirement.arena.fill(workers.len(), |_| Mutex::new(workers.next()));
        (Lent { workers: lent, room: self.room.worker }, retirement)
    }

    /// True if memory was asked for since it was lent last. How long a batch took then says little about others like it.
    pub fn have_grown(&self) -> bool {
        let memories = self.workers.iter().chain([&self.retirement]);
        memories.zip(&self.held).any(|(memory, &held)| memory.bump.allocated_bytes() > held)
    }

    /// What arenas should hold by now.
    fn needed(&self) -> Room {
        let used = || self.workers.iter().map(Memory::used);
        let share = used().sum::<usize>() / self.workers.len().max(1);
        let most = used().max().unwrap_or(0).min(SHARES * share);
        let room = |used: usize| used.min(MOST).next_power_of_two();
        Room {
            worker: self.room.worker.max(room(most)),
            retirement: self.room.retirement.max(room(self.retirement.used())),
        }
    }
}

impl Memory {
    /// Bytes of the arena that were used since it was opened last.
    fn used(&self) -> usize {
        self.bump.allocated_bytes() - self.bump.chunk_capacity()
    }

    /// Forgets what is in the arena, which then holds `room` bytes, in one piece, that have been touched.
    fn open(&mut self, room: usize) -> Workspace<'_> {
        self.bump.reset();
        if self.bump.chunk_capacity() < room {
            // What there was is given back before more is asked for.
            self.bump = Bump::new();
            self.bump = Bump::with_capacity(room);
            self.bump.alloc_slice_fill_copy(room, 0_u8);
            self.bump.reset();
        }
        Workspace {
            arena: Arena::new(&mut self.bump),
            scratch: RefCell::new(&mut self.scratch),
            column: Cell::new(&""),
            worked: Cell::default(),
        }
    }
}

impl<'b> Workspace<'b> {
    /// `column`, in the arena.
    #[inline]
    pub fn column(&self, column: &str) -> Name<'b> {
        if *self.column.get() != column {
            self.column.set(self.arena.alloc(self.arena.copy_str(column)));
        }
        self.column.get()
    }

    /// Copies the bytes that `write` leaves in an empty buffer.
    pub fn build(&self, write: impl FnOnce(&mut Vec<u8>)) -> &'b [u8] {
        self.with_scratch(write, |arena, built| arena.copy(built))
    }

    /// `copy`, of the bytes that `write` leaves in an empty buffer.
    pub fn with_scratch<R>(
        &self,
        write: impl FnOnce(&mut Vec<u8>),
        copy: impl FnOnce(&Arena<'b>, &[u8]) -> R,
    ) -> R {
        let mut scratch = self.scratch.borrow_mut();
        scratch.clear();
        write(&mut scratch);
        copy(&self.arena, &scratch)
    }
}

impl<'b> Lent<'b> {
    /// How many threads there are workspaces for.
    pub fn threads(&self) -> usize {
        self.workers.len()
    }

    /// The workspace of thread `index`.
    ///
    /// # Panics
    ///
    /// If it was taken before in this batch.
    pub fn take(&self, index: usize) -> Workspace<'b> {
        let mut memory = self.workers[index].lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        memory.take().expect("each thread takes its workspace once per batch").open(self.room)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// A batch for which each thread needs so many bytes, those with `None` being late. Returns whether memory has grown.
    fn batch(arenas: &mut Arenas, needs: &[Option<usize>]) -> bool {
        let (lent, _retirement) = arenas.lend();
        for (thread, bytes) in needs.iter().enumerate() {
            if let Some(bytes) = *bytes {
                lent.take(thread).arena.fill(bytes, |_| 0_u8);
            }
        }
        arenas.have_grown()
    }

    fn capacities(arenas: &Arenas) -> Vec<usize> {
        arenas.workers.iter().map(|memory| memory.bump.allocated_bytes()).collect()
    }

    #[test]
    fn what_one_thread_needed_all_have_from_then_on() {
        let mut arenas = Arenas::new(2);
        assert!(batch(&mut arenas, &[Some(100_000), None]), "there was nothing");
        assert!(batch(&mut arenas, &[Some(40_000), Some(60_000)]), "there is enough now, but it is new");
        let capacities_then = capacities(&arenas);
        assert!(capacities_then.iter().all(|&bytes| bytes >= 100_000), "{capacities_then:?}");
        assert!(!batch(&mut arenas, &[Some(0), Some(100_000)]));
        assert!(!batch(&mut arenas, &[Some(100_000), Some(50_000)]));
        assert_eq!(capacities(&arenas), capacities_then);
        assert!(batch(&mut arenas, &[Some(1_000_000), Some(0)]), "more than ever");
    }

    #[test]
    fn a_late_thread_makes_room_when_it_comes() {
        let mut arenas = Arenas::new(2);
        for _ in 0..3 {
            batch(&mut arenas, &[Some(100_000), None]);
        }
        assert_eq!(capacities(&arenas)[1], 0);
        assert!(!arenas.have_grown());
        assert!(batch(&mut arenas, &[None, Some(10_000)]));
        assert!(capacities(&arenas)[1] >= 100_000);
        assert!(!batch(&mut arenas, &[None, Some(100_000)]));
    }

    #[test]
    fn one_of_many_threads_is_no_measure_for_all() {
        let mut arenas = Arenas::new(64);
        let alone: Vec<_> = (0..64).map(|thread| Some(if thread == 0 { 1_000_000 } else { 100 })).collect();
        (0..4).for_each(|_| {
            batch(&mut arenas, &alone);
        });
        assert!(!arenas.have_grown(), "but it has what it needs");
        assert!(capacities(&arenas)[1..].iter().all(|&bytes| bytes < 100_000), "{:?}", capacities(&arenas));
    }

    #[test]
    fn a_giant_batch_is_no_measure_either() {
        let mut arenas = Arenas::new(2);
        for _ in 0..2 {
            batch(&mut arenas, &[Some(4 * MOST), Some(0)]);
        }
        assert!(capacities(&arenas)[1] <= 2 * MOST, "{:?}", capacities(&arenas));
    }
}

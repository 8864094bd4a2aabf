//! Memory of a batch: one bump arena per executing thread and one for retirement, all reset together.
//!
//! What a batch allocates is borrowed from [`Arenas::lend`] for the batch's lifetime `'b`, so the borrow checker proves
//! what has to be proved before a reset: no unit, record or reader of the batch exists any more, on any thread. After
//! a few batches each arena is one chunk that is large enough, and nothing is asked of the heap.

use std::time::Duration;

use bumpalo::Bump;

use crate::raw::arena::Arena;
use crate::sync::{Cell, Mutex, RefCell};

/// What one thread keeps from batch to batch.
#[derive(Debug, Default)]
struct Memory {
    bump: Bump,
    scratch: Vec<u8>,
}

/// The arenas of an engine.
#[derive(Debug)]
pub struct Arenas {
    workers: Vec<Memory>,
    retirement: Memory,
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
    /// How long operations took this thread the first time they were run, where that is measured.
    pub worked: Cell<Duration>,
}

/// The workspaces of one batch, each to be taken once, by its thread.
pub struct Lent<'b> {
    workers: &'b [Mutex<Option<Workspace<'b>>>],
}

impl Arenas {
    /// Arenas for `threads` threads.
    pub fn new(threads: usize) -> Self {
        Arenas { workers: (0..threads).map(|_| Memory::default()).collect(), retirement: Memory::default() }
    }

    /// Forgets the last batch, and lends the memory to the next: to each thread, and to retirement.
    pub fn lend<'b>(&'b mut self) -> (Lent<'b>, Workspace<'b>) {
        let retirement = self.retirement.open();
        let mut workers = self.workers.iter_mut();
        let lent = retirement.arena.fill(workers.len(), |_| Mutex::new(workers.next().map(Memory::open)));
        (Lent { workers: lent }, retirement)
    }
}

impl Memory {
    fn open(&mut self) -> Workspace<'_> {
        self.bump.reset();
        Workspace {
            arena: Arena::new(&mut self.bump),
            scratch: RefCell::new(&mut self.scratch),
            column: Cell::new(&""),
            worked: Cell::new(Duration::ZERO),
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
        let mut workspace = self.workers[index].lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        workspace.take().expect("each thread takes its workspace once per batch")
    }
}

//! The executor's threads, as a state sees them while it commits.

use crate::raw::chunks::Chunks;

/// Threads that a state may borrow during [`commit`](super::CRUDState::commit).
pub trait Crew {
    /// How many threads take part, the caller's among them; at least 1.
    fn threads(&self) -> usize;

    /// Runs `work` once on the caller's thread, and possibly once on each other thread, and returns when all are done.
    ///
    /// # Panics
    ///
    /// If `work` panics on any thread.
    fn run(&mut self, work: &(dyn Fn() + Sync));
}

/// The crew of a sequential executor: the caller alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Solo;

impl Crew for Solo {
    fn threads(&self) -> usize {
        1
    }

    fn run(&mut self, work: &(dyn Fn() + Sync)) {
        work();
    }
}

/// Calls `f(index, item)` for every item, in chunks of `chunk` items that the crew's threads take in ascending order.
///
/// # Panics
///
/// If `f` panics, or `chunk` is zero.
pub fn for_each_mut<T: Send>(
    crew: &mut dyn Crew,
    items: &mut [T],
    chunk: usize,
    f: impl Fn(usize, &mut T) + Sync,
) {
    for_each_chunk(crew, items, chunk, |start, items| {
        for (offset, item) in items.iter_mut().enumerate() {
            f(start + offset, item);
        }
    });
}

/// Calls `f(start, items)` for every chunk of `chunk` items (the last may be shorter), of which the first has the index
/// `start`. The crew's threads take the chunks in ascending order.
///
/// # Panics
///
/// If `f` panics, or `chunk` is zero.
pub fn for_each_chunk<T: Send>(
    crew: &mut dyn Crew,
    items: &mut [T],
    chunk: usize,
    f: impl Fn(usize, &mut [T]) + Sync,
) {
    for_each_chunk_after(crew, items, chunk, || {}, f);
}

/// The same; each thread calls `before` once, before its first chunk.
pub(super) fn for_each_chunk_after<T: Send>(
    crew: &mut dyn Crew,
    items: &mut [T],
    chunk: usize,
    before: impl Fn() + Sync,
    f: impl Fn(usize, &mut [T]) + Sync,
) {
    let chunks = Chunks::new(items, chunk);
    crew.run(&|| {
        before();
        while let Some((start, items)) = chunks.next() {
            f(start, items);
        }
    });
}

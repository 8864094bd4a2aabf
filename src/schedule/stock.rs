//! What a thread has of its own during a batch.

use crate::arena::Workspace;
use crate::retire::Finished;

/// A thread's memory, and room for units that it emptied when it retired them. Room that was just read is in the cache, and
/// large batches need less memory.
pub struct Stock<'b, R> {
    /// The memory.
    pub memory: Workspace<'b>,
    /// A stack.
    empty: Option<&'b mut Finished<'b, R>>,
}

impl<'b, R> Stock<'b, R> {
    /// Memory, and no room yet.
    pub fn new(memory: Workspace<'b>) -> Self {
        Stock { memory, empty: None }
    }

    /// Empty room for a unit.
    #[inline]
    pub fn room(&mut self) -> &'b mut Finished<'b, R> {
        match self.empty.take() {
            Some(room) => {
                self.empty = room.next.take();
                room
            }
            None => self.memory.arena.alloc_default(),
        }
    }

    /// Takes back the room of a unit that nobody needs any more.
    #[inline]
    pub fn take_back(&mut self, room: &'b mut Finished<'b, R>) {
        room.empty();
        room.next = self.empty.take();
        self.empty = Some(room);
    }
}

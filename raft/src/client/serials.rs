//! The numbers of a client's operations: those on their way never span more than the replicas keep answers for.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::session::SLOTS;

/// Hands out numbers, one after the other.
#[derive(Debug)]
pub(super) struct Serials {
    state: Mutex<State>,
    given_back: Notify,
}

#[derive(Debug)]
struct State {
    /// Handed out so far.
    last: u64,
    /// Ranges on their way: first and count.
    taken: BTreeMap<u64, u64>,
}

/// A range of numbers that is on its way; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Range<'a> {
    serials: &'a Serials,
    first: u64,
}

impl Serials {
    /// The first number is `first`, at least 1.
    pub(super) fn starting_at(first: u64) -> Self {
        let state = State { last: first.saturating_sub(1), taken: BTreeMap::new() };
        Serials { state: Mutex::new(state), given_back: Notify::new() }
    }

    /// The next `count` numbers, once they and all that are on their way are at most [`SLOTS`] apart.
    pub(super) async fn take(&self, count: u64) -> Range<'_> {
        let first = self.take_raw(count).await;
        Range { serials: self, first }
    }

    /// The same, to be given back by hand.
    pub(super) async fn take_raw(&self, count: u64) -> u64 {
        loop {
            // Made first, so that nothing given back from now on is missed.
            let given_back = self.given_back.notified();
            if let Some(first) = self.lock().take(count) {
                return first;
            }
            given_back.await;
        }
    }

    /// Gives back the range that begins with `first`.
    pub(super) fn give_back(&self, first: u64) {
        self.lock().taken.remove(&first);
        self.given_back.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    fn take(&mut self, count: u64) -> Option<u64> {
        let first = self.last + 1;
        let oldest = self.taken.first_key_value().map_or(first, |(&oldest, _)| oldest);
        if first + count - oldest > SLOTS {
            return None;
        }
        self.last += count;
        self.taken.insert(first, count);
        Some(first)
    }
}

impl Range<'_> {
    /// The first number.
    pub(super) fn first(&self) -> u64 {
        self.first
    }
}

impl Drop for Range<'_> {
    fn drop(&mut self) {
        self.serials.give_back(self.first);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn what_is_on_its_way_spans_no_more_than_the_slots() {
        let serials = Serials::starting_at(1);
        let first = serials.take(1).await;
        let second = serials.take(SLOTS - 1).await;
        assert_eq!((first.first(), second.first()), (1, 2));
        let soon = Duration::from_millis(20);
        assert!(timeout(soon, serials.take(1)).await.is_err());
        drop(second);
        assert!(timeout(soon, serials.take(1)).await.is_err(), "the oldest is still on its way");
        let (third, ()) = tokio::join!(serials.take(1), async { drop(first) });
        assert_eq!(third.first(), SLOTS + 1);
    }
}

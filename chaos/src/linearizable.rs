//! Is a history linearizable?
//!
//! The search of Wing and Gong with Lowe's memoisation (Gavin Lowe, "Testing for linearizability", 2017): place
//! operations one by one, each before all that were invoked only after it returned, and each answered as the model answers it
//! at that place; go back where nothing fits; never go on twice from the same set of placed operations in the same state.
//!
//! A *pending* operation, one whose outcome its client never learned, may have taken effect at any time after its
//! invocation, or not at all: the search ends when all others are placed. A long run of faults leaves many of them behind, and
//! every set of them would be tried. So a pending operation is placed only directly before an operation that needs it. If
//! the next one is answered the same without it, and the state is the same, the history without it is in order as well; if
//! the two can change places, the history with the pending one later is. Either is tried anyway. (Of two pending ones the
//! later one by number does not stand in front of one that it can change places with.) Those with no effect at all are
//! never placed.
//!
//! Histories of different keys do not touch each other: a history is linearizable if that of each key is (Herlihy and
//! Wing, 1990). The caller takes them apart.

use std::collections::HashSet;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Bytes that the memory of visited states may take before the search gives up, about.
const MEMORY: usize = 1 << 30;
/// Steps of the search between two looks at the clock.
const STRIDE: u64 = 256;

/// What operations do when they run one after the other.
pub trait Model {
    /// The state.
    type State: Clone + Eq + Hash;
    /// What a client asks for.
    type Call;
    /// What it is answered.
    type Answer;

    /// The state before the first operation.
    fn initial(&self) -> Self::State;

    /// The state after `call` in `state`; nothing if it would have been answered otherwise. Without an answer, any will do.
    fn step(
        &self,
        state: &Self::State,
        call: &Self::Call,
        answer: Option<&Self::Answer>,
    ) -> Option<Self::State>;
}

/// One operation of a history. Times are of one clock that never goes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation<C, A> {
    /// What was asked for.
    pub call: C,
    /// When.
    pub invoked: u64,
    /// When it was answered, and how; nothing if it is pending.
    pub returned: Option<(u64, A)>,
}

impl<C, A> Operation<C, A> {
    fn end(&self) -> u64 {
        self.returned.as_ref().map_or(u64::MAX, |(time, _)| *time)
    }
}

/// What is known of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Some order of its operations explains it.
    Linearizable,
    /// No order does.
    Violated {
        /// How many operations the longest explanation holds.
        placed: usize,
        /// None of these, by their places in the history, can come next in it.
        stuck: Vec<usize>,
    },
    /// Time or memory ran out before either was found.
    Unknown,
}

/// Judges `history`, in any order of its operations, within about `limit`.
pub fn check<M: Model>(model: &M, history: &[Operation<M::Call, M::Answer>], limit: Duration) -> Verdict {
    let mut order: Vec<usize> = (0..history.len()).collect();
    order.sort_by_key(|&index| (history[index].returned.is_none(), history[index].invoked));
    let complete = order.iter().filter(|&&index| history[index].returned.is_some()).count();
    let placed = vec![0; order.len().div_ceil(64)];
    let mut search = Search {
        model,
        history,
        order,
        complete,
        placed,
        count: 0,
        first: 0,
        seen: HashSet::new(),
        memory: 0,
    };
    search.run(limit)
}

/// Where the search stands, beside the set of placed operations. Operations are numbered: those that returned come
/// first, by invocation; then the pending ones.
struct Place<S> {
    /// The operation that led here; nothing at the root.
    last: Option<usize>,
    state: S,
    /// The state before `last`, if that one is pending.
    without: Option<S>,
    /// What is yet to be tried, the last first.
    choices: Vec<usize>,
}

/// The set of placed operations, from the first block that is not full; the state; and the state without the last one.
type Visited<S> = (Box<[u64]>, S, Option<S>);

struct Search<'a, M: Model> {
    model: &'a M,
    history: &'a [Operation<M::Call, M::Answer>],
    order: Vec<usize>,
    complete: usize,
    placed: Vec<u64>,
    /// How many are placed of those that returned.
    count: usize,
    /// The first of them that is not.
    first: usize,
    seen: HashSet<Visited<M::State>>,
    memory: usize,
}

impl<M: Model> Search<'_, M> {
    fn run(&mut self, limit: Duration) -> Verdict {
        let deadline = Instant::now() + limit;
        let root = Place { last: None, state: self.model.initial(), without: None, choices: self.choices() };
        let mut deepest = (0, root.choices.clone());
        let mut path = vec![root];
        let mut steps = 0_u64;
        while let Some(here) = path.last_mut() {
            if self.count == self.complete {
                return Verdict::Linearizable;
            }
            steps += 1;
            if self.memory > MEMORY || (steps.is_multiple_of(STRIDE) && Instant::now() > deadline) {
                return Verdict::Unknown;
            }
            let Some(number) = here.choices.pop() else {
                let left = path.pop().and_then(|place| place.last);
                left.into_iter().for_each(|number| self.take_back(number));
                continue;
            };
            let Some(mut next) = self.follow(here, number) else { continue };
            self.place(number);
            if !self.remember(&next) {
                self.take_back(number);
                continue;
            }
            next.choices = self.choices();
            if self.count > deepest.0 {
                deepest = (self.count, next.choices.clone());
            }
            path.push(next);
        }
        let (placed, mut stuck) = deepest;
        stuck.retain(|&number| number < self.complete);
        Verdict::Violated { placed, stuck: stuck.into_iter().map(|number| self.order[number]).collect() }
    }

    fn operation(&self, number: usize) -> &Operation<M::Call, M::Answer> {
        &self.history[self.order[number]]
    }

    fn is_placed(&self, number: usize) -> bool {
        self.placed[number / 64] & (1 << (number % 64)) != 0
    }

    /// All that may come next: what was invoked before the first of the others returned. The one that returned first is
    /// the last of them, and pending ones stand in front.
    fn choices(&self) -> Vec<usize> {
        let mut horizon = u64::MAX;
        let mut open = Vec::new();
        for number in self.first..self.complete {
            if self.operation(number).invoked > horizon {
                break;
            }
            if !self.is_placed(number) {
                horizon = horizon.min(self.operation(number).end());
                open.push(number);
            }
        }
        open.sort_by_key(|&number| std::cmp::Reverse(self.operation(number).end()));
        let pending = (self.complete..self.order.len()).filter(|&number| !self.is_placed(number));
        pending.chain(open).filter(|&number| self.operation(number).invoked <= horizon).collect()
    }

    /// What comes of placing an operation next; nothing if it does not fit, or need not be tried.
    fn follow(&self, here: &Place<M::State>, number: usize) -> Option<Place<M::State>> {
        let Operation { call, returned, .. } = self.operation(number);
        let answer = returned.as_ref().map(|(_, answer)| answer);
        let state = self.model.step(&here.state, call, answer)?;
        let is_pending = answer.is_none();
        if (is_pending && state == here.state) || self.need_not_follow(here, number, &state) {
            return None;
        }
        let without = is_pending.then(|| here.state.clone());
        Some(Place { last: Some(number), state, without, choices: Vec::new() })
    }

    /// True if the operation before is a pending one that `number`, which leads to `after`, can do without, or come before.
    fn need_not_follow(&self, here: &Place<M::State>, number: usize, after: &M::State) -> bool {
        let (Some(without), Some(last)) = (&here.without, here.last) else { return false };
        let step = |state: &M::State, number: usize| {
            let Operation { call, returned, .. } = self.operation(number);
            self.model.step(state, call, returned.as_ref().map(|(_, answer)| answer))
        };
        let Some(first) = step(without, number) else { return false };
        first == *after || (number < last && step(&first, last).as_ref() == Some(after))
    }

    fn place(&mut self, number: usize) {
        self.placed[number / 64] |= 1 << (number % 64);
        self.count += usize::from(number < self.complete);
        while self.first < self.complete && self.is_placed(self.first) {
            self.first += 1;
        }
    }

    fn take_back(&mut self, number: usize) {
        self.placed[number / 64] &= !(1 << (number % 64));
        self.count -= usize::from(number < self.complete);
        self.first = self.first.min(number);
    }

    /// False if the search was here before.
    fn remember(&mut self, place: &Place<M::State>) -> bool {
        // The length says where the set begins: the whole one's is the same for all.
        let set: Box<[u64]> = self.placed[(self.first / 64).min(self.placed.len())..].into();
        self.memory += 64 + size_of_val(&*set) + 2 * size_of::<M::State>();
        self.seen.insert((set, place.state.clone(), place.without.clone()))
    }
}

//! What operations run on.
//!
//! [`CRUDState`] is what an operation sees. [`MonolithicState`] and [`DivisibleState`] say how a state leaves the
//! executor (checkpoints) and enters it (installation): as a whole, or in parts of which only the changed ones travel.
//! [`ShardedState`] is the built-in state: it is all three.

mod changes;
mod crew;
mod merge;
mod sharded;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt::Debug;
use std::hash::Hash;
use std::io::{Read, Write};

use crate::batch::SeqNo;
use crate::error::StateError;

pub use changes::{Change, Changes};
pub(crate) use changes::{END, Groups, Touched, join};
use crew::for_each_chunk_after;
pub use crew::{Crew, Solo, for_each_chunk, for_each_mut};
pub use merge::{Merge, MergeOperator, check_merge_laws};
pub use sharded::{Digest, PartId, ShardedState, ShardedStateBuilder, StateDescriptor, StatePart};

/// A state with create, read, update and delete on keys in named columns.
///
/// A key is any byte string of less than 4 GiB, the empty one too, and belongs to its column alone. A value has less than 4 GiB,
/// too. Implementors need the first four methods; the others have defaults that are right, only slower.
///
/// What an operation *observes* decides whether it can be a victim of a collision: `read`, `create`, `update` and
/// `delete` observe what was there before; `put`, `remove` and `merge` do not.
pub trait CRUDState: Send {
    /// May a whole batch run directly on the state, as the sequential loop would?
    ///
    /// True for states in memory. A state whose writes are durable at once says false: then every batch reaches it
    /// through one [`commit`](CRUDState::commit), and a batch that panics leaves no trace.
    ///
    /// That is for the multi-threaded executors, also with a single thread. The single-threaded ones take any
    /// [`Application`](crate::app::Application) on any state, and hence run each batch in place: they are not for
    /// durable states.
    const IN_PLACE: bool = true;

    /// True if one [`commit`](CRUDState::commit) of the last values of several batches leaves what a commit for each of them
    /// would leave. Then batches that waited may be executed and committed as one
    /// ([`join`](crate::executor::ExecutorConfig::join)), under the last one's number: a durable state gets one transaction for many.
    ///
    /// Which batches wait is another matter on each replica. So nothing that replicas compare may depend on the numbers that commits
    /// come with, apart from the last one, or on the order in which keys were first written. In memory that holds anyway, because
    /// batches may also run in place.
    const GROUP_COMMIT: bool = Self::IN_PLACE;

    /// True if [`commit`](CRUDState::commit) takes operands. Then what a batch has merged into a key, and has not written otherwise, is
    /// left for the commit to merge ([`Change::operand`]), unless the column's operator is the user's own: that may panic.
    ///
    /// If false, all changes are values; the engine folds operands into what it reads from the state while operations retire, one
    /// after the other. If true, the commit can look at many keys at once, or pass the operands on to a store that merges by itself. An
    /// operation that reads such a key has the state read, and folds, each time.
    ///
    /// The commit must do what [`merge`](CRUDState::merge) does: combine by the column's [`merge_operator`](CRUDState::merge_operator), as
    /// [`MergeOperator::fold`] says, also where the key is absent. The operand has any length that the application gave it. Who passes
    /// `commit` on to a state inside may say true only if `merge_operator` is that state's, too.
    const COMMITS_OPERANDS: bool = false;

    /// The value of `key`, or `None` if it is absent.
    fn read(&self, column: &str, key: &[u8]) -> Option<Vec<u8>>;

    /// Inserts `value` if `key` is absent. False, and nothing changes, if it is present.
    fn create(&mut self, column: &str, key: &[u8], value: &[u8]) -> bool;

    /// Sets `key` to `value` and returns what was there before.
    fn update(&mut self, column: &str, key: &[u8], value: &[u8]) -> Option<Vec<u8>>;

    /// Removes `key` and returns what was there.
    fn delete(&mut self, column: &str, key: &[u8]) -> Option<Vec<u8>>;

    /// Calls `f` on the value of `key` where it lies, without a copy.
    ///
    /// Ahead of an operation's turn `f` may panic, and that means nothing: a lock that the state holds meanwhile must not count
    /// as poisoned afterwards.
    fn read_with<R>(&self, column: &str, key: &[u8], f: impl FnOnce(Option<&[u8]>) -> R) -> R
    where
        Self: Sized,
    {
        f(self.read(column, key).as_deref())
    }

    /// Where `key` will be looked for, for [`prefetch`](CRUDState::prefetch); `None` if that cannot be told, or would not help.
    fn whereabouts(&self, column: &str, key: &[u8]) -> Option<Whereabouts> {
        let _ = (column, key);
        None
    }

    /// Brings the values of keys near, for requests that will soon look at them or write them: into the processor's caches, or
    /// into memory. It shows nothing and changes nothing. `keys` are what [`whereabouts`](CRUDState::whereabouts) said, all of the
    /// same moment of the state; there are many, so that it need not wait for one before it asks for the next.
    ///
    /// The engine calls it where the application gives [`hints`](crate::app::ScalableApp::hints), and only as long as that
    /// saves time.
    fn prefetch(&self, keys: &[Whereabouts]) {
        let _ = keys;
    }

    /// Sets `key` to `value` without looking at what was there.
    fn put(&mut self, column: &str, key: &[u8], value: &[u8]) {
        self.update(column, key, value);
    }

    /// Removes `key` without looking at what was there.
    fn remove(&mut self, column: &str, key: &[u8]) {
        self.delete(column, key);
    }

    /// How [`merge`](CRUDState::merge) combines the values of `column`.
    fn merge_operator(&self, column: &str) -> MergeOperator {
        let _ = column;
        MergeOperator::default()
    }

    /// Combines `operand` into the value of `key` by the column's merge operator, without observing it.
    fn merge(&mut self, column: &str, key: &[u8], operand: &[u8]) {
        let mut merged = Vec::new();
        let operator = self.merge_operator(column);
        operator.fold(self.read(column, key).as_deref(), operand, &mut merged);
        self.put(column, key, &merged);
    }

    /// Where `key` lies among all places, from 0 to `u16::MAX`: keys that are far enough apart can be written by different
    /// threads. `None` if that cannot be told; then [`commit`](CRUDState::commit) gets the changes of this batch in no groups.
    ///
    /// In batches that several threads run, it is asked when an operation writes a key, from any thread, also by runs that are
    /// thrown away. It depends on nothing but the state before the batch.
    ///
    /// Who passes `commit` on to a state inside passes this on to it, too, or the changes
    /// [in no groups](Changes::ungrouped).
    fn place(&self, column: &str, key: &[u8]) -> Option<u16> {
        let _ = (column, key);
        None
    }

    /// Moves a batch's last values, or operands, into the state: the one commit pass. Several batches may come as one, if the state says that
    /// this makes no difference ([`GROUP_COMMIT`](CRUDState::GROUP_COMMIT)).
    ///
    /// `changes` holds each touched key once, sorted into groups by their [`place`](CRUDState::place) where that pays. `crew`
    /// lends the executor's threads to states that can use them.
    ///
    /// # Errors
    ///
    /// On an error the state must be as it was before the call; the executor then stops with
    /// [`Failure::CommitRefused`](crate::error::Failure::CommitRefused). If several batches came as one, it first executes and
    /// commits them one by one, and stops only if one of them is refused by itself. A durable state writes `changes` and `seq`
    /// in one transaction here.
    fn commit(&mut self, seq: SeqNo, changes: &Changes<'_>, crew: &mut dyn Crew) -> Result<(), StateError> {
        let _ = (seq, crew);
        for Change { column, key, value, operand } in changes.iter() {
            match (value, operand) {
                (_, Some(operand)) => self.merge(column, key, operand),
                (Some(value), None) => self.put(column, key, value),
                (None, None) => self.remove(column, key),
            }
        }
        Ok(())
    }
}

/// Where a state will look for a key: two words that mean something to that state alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whereabouts(pub [u64; 2]);

/// A state that is checkpointed and installed as a whole.
pub trait MonolithicState: Sized + Send + 'static {
    /// A consistent copy of the state as it is now. It runs on the executor's thread: make it cheap (copy on write).
    fn snapshot(&self) -> Self;

    /// Writes the state to `writer`; equal states write equal bytes.
    ///
    /// # Errors
    ///
    /// What the writer returns.
    fn serialize<W: Write>(&self, writer: W) -> Result<(), StateError>;

    /// Reads a state that [`serialize`](MonolithicState::serialize) wrote.
    ///
    /// # Errors
    ///
    /// Input that is cut short, malformed, or does not match its digest.
    fn deserialize<R: Read>(reader: R) -> Result<Self, StateError>;
}

/// A state that is checkpointed and installed in parts.
pub trait DivisibleState: Sized + Send + 'static {
    /// Names a part.
    type PartId: Copy + Eq + Ord + Hash + Debug + Send + 'static;
    /// Names all parts of one moment of the state, with what tells their versions apart.
    type StateDescriptor: Clone + Debug + Send + 'static;
    /// One part's content.
    type StatePart: Clone + Debug + Send + 'static;

    /// A consistent copy of the state as it is now. It runs on the executor's thread: make it cheap (copy on write).
    fn snapshot(&self) -> Self;

    /// Describes the state as it is now.
    fn descriptor(&self) -> Self::StateDescriptor;

    /// The parts that differ between `self` (described by `now`) and an earlier moment; all if there is none.
    fn changed_parts(
        &self,
        now: &Self::StateDescriptor,
        before: Option<&Self::StateDescriptor>,
    ) -> Vec<Self::PartId>;

    /// The content of one part.
    ///
    /// # Errors
    ///
    /// A part that the state does not have.
    fn part(&self, id: Self::PartId) -> Result<Self::StatePart, StateError>;

    /// Checks one received part before it is kept for [`install`](DivisibleState::install) and returns its id.
    ///
    /// # Errors
    ///
    /// A part whose content does not match its digest, that `descriptor` does not know, or that belongs to another
    /// checkpoint.
    fn check_part(
        descriptor: &Self::StateDescriptor,
        part: &Self::StatePart,
    ) -> Result<Self::PartId, StateError>;

    /// Becomes the state that `descriptor` describes: from `parts`, which were checked and hold each id at most once,
    /// and from what is already here and matches.
    ///
    /// # Errors
    ///
    /// Parts are missing. The state is then untouched.
    fn install(
        &mut self,
        descriptor: &Self::StateDescriptor,
        parts: Vec<Self::StatePart>,
    ) -> Result<(), StateError>;
}

//! The replicated log on disk: openraft's log storage over raft-log.
//!
//! ```text
//! append ──► raft-log's buffer, at once readable ──► its callback waits
//!                                                        │
//! flush thread: takes all callbacks that wait, syncs once, calls them, takes those that came in the meantime, ...
//! ```
//!
//! So one sync serves all entries that arrived during the one before it, and no thread of tokio's waits for a disk. A vote,
//! a truncation and a closing wait for their sync in the same way; the mark of what is committed goes with the next one.
//!
//! A write that fails is the log's last: what waits is told, every later call returns the cause, and nothing is acknowledged
//! any more. What openraft hands over twice is sorted out here, as raft-log refuses it: entries at or below the purged one are
//! dropped, and the log is truncated where entries overlap it.
//!
//! A record that cannot be read in the last file counts as one that a crash cut short: raft-log cuts the file off there. So bit
//! rot in the middle of the last file costs what follows it, entries that were acknowledged among it, without an error; in
//! any other file it is an error. Where that matters, the file system has to check what it reads.
//!
//! Openraft purges what its newest snapshot stands for. The log keeps more: all entries above the *oldest* kept snapshot, so
//! that the node can fall back to it.

mod flush;
mod hold;
mod record;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::{Arc, MutexGuard};

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{EntryPayload, LogState, OptionalSend, RaftLogReader, StorageIOError};
use raft_log::api::raft_log_writer::RaftLogWriter;
use raft_log::{Config, RaftLog};

use self::flush::{Done, Flusher};
use self::record::{Payload, Place, SavedVote};
use crate::disk::{Disk, DiskWrite, create_folder};
use crate::types::{Batch, Entry, LogId, StorageError, TypeConfig, Vote};

pub(crate) use self::hold::HoldBack;

/// Entries below the last one that are taken to lie in memory: reading others is left to a thread that may block.
const WARM: u64 = 1024;
/// Entries that are read from the disk before others get their turn at the log.
const COLD_READ: u64 = 16;
/// Bytes of operations after which a limited read ends.
const READ_BYTES: usize = 1 << 20;
/// The buffer that a file of the log is read through when it is opened.
const READ_BUFFER: usize = 1 << 20;

/// raft-log's types.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogTypes;

impl raft_log::Types for LogTypes {
    type LogId = Place;
    type LogPayload = Payload;
    type Vote = SavedVote;
    type Callback = std::sync::mpsc::SyncSender<io::Result<()>>;
    type UserData = String;

    fn log_index(place: &Place) -> u64 {
        place.0.index
    }

    fn payload_size(payload: &Payload) -> u64 {
        size(&payload.0) as u64
    }
}

/// About how many bytes an entry takes in memory.
fn size(payload: &EntryPayload<TypeConfig>) -> usize {
    const ENTRY: usize = 128;
    const COMMAND: usize = 64;
    match payload {
        EntryPayload::Normal(Batch { commands, .. }) => {
            commands.iter().map(|command| COMMAND + command.operation.len()).sum::<usize>() + ENTRY
        }
        EntryPayload::Blank | EntryPayload::Membership(_) => ENTRY,
    }
}

/// The log of a node. Clones are the same log.
#[derive(Clone)]
pub struct LogStore {
    flusher: Arc<Flusher>,
    disk: Disk,
    hold: HoldBack,
}

impl Debug for LogStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogStore").field("failure", &self.failure()).finish_non_exhaustive()
    }
}

/// The index after this place.
fn after(id: Option<LogId>) -> u64 {
    id.map_or(0, |id| id.index + 1)
}

/// raft-log's state, in our types.
struct Ends {
    purged: Option<LogId>,
    last: Option<LogId>,
    committed: Option<LogId>,
}

fn ends(log: &RaftLog<LogTypes>) -> Ends {
    let state = log.log_state();
    let id = |place: Option<&Place>| place.map(|place| place.0);
    Ends { purged: id(state.purged()), last: id(state.last()), committed: id(state.committed()) }
}

/// The place of the entry at `index`, if the log holds it.
fn id_at(log: &RaftLog<LogTypes>, index: u64) -> io::Result<Option<LogId>> {
    log.read(index, index + 1).next().transpose().map(|found| found.map(|(place, _)| place.0))
}

/// Cuts off everything from `index` on.
fn cut(log: &mut RaftLog<LogTypes>, index: u64) -> io::Result<()> {
    let Ends { purged, last, .. } = ends(log);
    if index >= after(last) {
        return Ok(());
    }
    // raft-log names what stays by the entry before `index`, and none is before the first one.
    let first = after(purged);
    let at = if index > first && id_at(log, index - 1)?.is_some() { index } else { first };
    log.truncate(at).map(drop)
}

impl LogStore {
    /// Opens the log in `folder`. Reads all of it.
    pub(crate) fn open(
        folder: &Path,
        cache_bytes: usize,
        chunk_bytes: usize,
        disk: Disk,
        hold: HoldBack,
    ) -> io::Result<LogStore> {
        create_folder(folder)?;
        let name = folder.to_str().ok_or_else(|| io::Error::other("the folder's name is not UTF-8"))?;
        let mut config = Config::new(name);
        config.log_cache_max_items = Some(usize::MAX);
        config.log_cache_capacity = Some(cache_bytes);
        config.wal.chunk_max_size = Some(chunk_bytes);
        config.wal.read_buffer_size = Some(READ_BUFFER);
        // Entries are gathered by the flush thread.
        config.wal.flush_batch_wait = Some(std::time::Duration::ZERO);
        let log = RaftLog::open(Arc::new(config))?;
        let flusher = Arc::new(Flusher::start(log, disk.clone())?);
        // What an ended process wrote may be in the system's memory only, and counts as synced from here on.
        flusher.sync_now()?;
        Ok(LogStore { flusher, disk, hold })
    }

    /// Why nothing can be written any more.
    pub fn failure(&self) -> Option<String> {
        self.flusher.failure()
    }

    /// Waits until everything that was written is synced. To be called when the node has stopped.
    ///
    /// # Errors
    ///
    /// A write failed, this or an earlier one.
    pub async fn close(&self) -> io::Result<()> {
        self.flusher.synced().await
    }

    /// The last purged place and the last place.
    pub(crate) fn purged(&self) -> Option<LogId> {
        ends(&self.log()).purged
    }

    /// True if it holds all entries from the very first on. One that cannot be read is none.
    pub(crate) fn is_whole(&self) -> bool {
        let log = self.log();
        ends(&log).purged.is_none() && matches!(id_at(&log, 0), Ok(Some(_)))
    }

    /// Begins the log after `state`, unless it leads there: a crash came between a snapshot and the purge that goes with it.
    pub(crate) fn lead_to(&self, state: LogId) -> io::Result<()> {
        let leads = {
            let log = self.log();
            state.index < after(ends(&log).purged) || id_at(&log, state.index)? == Some(state)
        };
        if !leads {
            self.purge_entries(state)?;
            self.flusher.sync(Done::Nothing);
        }
        Ok(())
    }

    fn log(&self) -> MutexGuard<'_, RaftLog<LogTypes>> {
        self.flusher.log()
    }

    /// Runs a write; its failure is the log's last.
    fn write<T>(&self, write: impl FnOnce(&mut RaftLog<LogTypes>) -> io::Result<T>) -> io::Result<T> {
        self.flusher.alive()?;
        let written = self.disk.check(DiskWrite::Log).and_then(|()| write(&mut self.log()));
        written.inspect_err(|error| self.flusher.fail(error))
    }

    fn append_entries(&self, entries: impl IntoIterator<Item = Entry>) -> io::Result<()> {
        self.write(|log| {
            for Entry { log_id, payload } in entries {
                let Ends { purged, last, committed } = ends(log);
                if log_id.index < after(purged) {
                    continue;
                }
                if log_id.index < after(last) {
                    if log_id.index < after(committed) && id_at(log, log_id.index)? == Some(log_id) {
                        continue;
                    }
                    cut(log, log_id.index)?;
                }
                log.append([(Place(log_id), Payload(Arc::new(payload)))])?;
            }
            Ok(())
        })
    }

    fn purge_entries(&self, upto: LogId) -> io::Result<()> {
        let hold = self.hold.get();
        self.write(|log| {
            let Ends { purged, committed, .. } = ends(log);
            let mut upto = upto;
            if upto.index < after(purged) {
                return Ok(());
            }
            let found = id_at(log, upto.index)?;
            if found == Some(upto) {
                // The log holds all that leads to the snapshot: keep what the oldest one needs.
                if let Some(held) = hold.filter(|held| held.index < upto.index) {
                    match id_at(log, held.index)? {
                        Some(held) => upto = held,
                        None if purged.is_some_and(|purged| purged.index == held.index) => return Ok(()),
                        // The log does not lead to that snapshot any more.
                        None => {}
                    }
                }
            } else {
                // A snapshot took the place of entries that were never decided, or of all. What else was not decided goes first:
                // raft-log compares terms before indexes, and would keep a last entry of a higher term at a lower index.
                cut(log, after(committed))?;
            }
            log.purge(Place(upto)).map(drop)
        })
    }

    /// The entries of `from..to` that are there, as far as they fit into `bytes`, but one if there is one.
    fn read(&self, from: u64, to: u64, bytes: usize, step: u64) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let (mut total, mut at) = (0, from);
        while at < to {
            let end = to.min(at.saturating_add(step));
            let log = self.log();
            for found in log.read(at, end) {
                let (Place(log_id), Payload(payload)) = found?;
                total += size(&payload);
                if total > bytes && !entries.is_empty() {
                    return Ok(entries);
                }
                entries.push(Entry { log_id, payload: Arc::unwrap_or_clone(payload) });
            }
            at = end;
        }
        Ok(entries)
    }

    async fn entries(&self, range: impl RangeBounds<u64>, bytes: usize) -> Result<Vec<Entry>, StorageError> {
        let ends = ends(&self.log());
        let (first, end) = (after(ends.purged), after(ends.last));
        let from = match range.start_bound() {
            Bound::Included(&from) => from,
            Bound::Excluded(&before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(&last) => last.saturating_add(1),
            Bound::Excluded(&to) => to,
            Bound::Unbounded => u64::MAX,
        };
        // A log that was never purged may begin anywhere.
        let from = if ends.purged.is_some() { from.max(first) } else { from };
        let to = to.min(end);
        let entries = if from.saturating_add(WARM) >= end {
            self.read(from, to, bytes, u64::MAX)
        } else {
            let store = self.clone();
            let read = move || store.read(from, to, bytes, COLD_READ);
            tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(io::Error::other(error)))
        };
        entries.map_err(|error| StorageIOError::read_logs(&error).into())
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        self.entries((range.start_bound().cloned(), range.end_bound().cloned()), usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        self.entries(start..end, READ_BYTES).await
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let Ends { purged, last, .. } = ends(&self.log());
        Ok(LogState { last_purged_log_id: purged, last_log_id: last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let written = self.write(|log| log.save_vote(SavedVote(*vote)));
        let synced = match written {
            Ok(_) => self.flusher.synced().await,
            Err(error) => Err(error),
        };
        synced.map_err(|error| StorageIOError::write_vote(&error).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.log().log_state().vote().map(|vote| vote.0))
    }

    /// Goes with the next sync, and reaches the operating system at once: after a crash of the process it is there.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        let Some(id) = committed else { return Ok(()) };
        let written = self.write(|log| {
            let Ends { last, committed, .. } = ends(log);
            // Above the last entry there is a snapshot that says so itself; below the mark there is nothing new.
            if Some(id) > committed && Some(id) <= last {
                log.commit(Place(id))?;
                log.flush(false, None)?;
            }
            Ok(())
        });
        written.map_err(|error| StorageIOError::write(&error).into())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(ends(&self.log()).committed)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        match self.append_entries(entries) {
            Ok(()) => {
                self.flusher.sync(Done::Entries(callback));
                Ok(())
            }
            Err(error) => {
                let failure = StorageIOError::write_logs(&error).into();
                callback.log_io_completed(Err(error));
                Err(failure)
            }
        }
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let written = self.write(|log| cut(log, log_id.index));
        let synced = match written {
            Ok(()) => self.flusher.synced().await,
            Err(error) => Err(error),
        };
        synced.map_err(|error| StorageIOError::write_logs(&error).into())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.purge_entries(log_id).map_err(|error| StorageError::from(StorageIOError::write_logs(&error)))?;
        // Files go once the purge is synced; nobody waits for that.
        self.flusher.sync(Done::Nothing);
        Ok(())
    }
}

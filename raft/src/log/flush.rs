//! The flush thread: one sync for all that waits.

use std::io;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, mpsc};
use std::thread::JoinHandle;

use openraft::storage::LogFlushed;
use raft_log::RaftLog;
use raft_log::api::raft_log_writer::RaftLogWriter;
use tokio::sync::oneshot;

use super::LogTypes;
use crate::disk::{Disk, DiskWrite};
use crate::types::TypeConfig;

/// Who is told about a sync.
pub(super) enum Done {
    /// Openraft, about entries.
    Entries(LogFlushed<TypeConfig>),
    /// A call that waits.
    Call(oneshot::Sender<io::Result<()>>),
    /// Nobody.
    Nothing,
}

impl Done {
    fn tell(self, result: io::Result<()>) {
        match self {
            Done::Entries(callback) => callback.log_io_completed(result),
            // A caller that gave up does not want to know.
            Done::Call(caller) => drop(caller.send(result)),
            Done::Nothing => {}
        }
    }
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Done>,
    closed: bool,
    /// The thread is gone, and nothing is synced any more.
    dead: bool,
}

struct Shared {
    log: Mutex<RaftLog<LogTypes>>,
    disk: Disk,
    queue: Mutex<Queue>,
    wake: Condvar,
    failure: OnceLock<(io::ErrorKind, String)>,
}

/// The log and its flush thread. Dropping it syncs what is left.
pub(super) struct Flusher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn gone() -> io::Error {
    io::Error::other("the flush thread of the log is gone")
}

/// Lets go of all who wait when the flush thread ends, be it by a panic.
struct LastWord<'a>(&'a Shared);

impl Drop for LastWord<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(&gone());
        }
        let waiting = {
            let mut queue = lock(&self.0.queue);
            queue.dead = true;
            mem::take(&mut queue.waiting)
        };
        waiting.into_iter().for_each(|done| done.tell(Err(gone())));
    }
}

impl Flusher {
    pub(super) fn start(log: RaftLog<LogTypes>, disk: Disk) -> io::Result<Flusher> {
        let shared = Arc::new(Shared {
            log: Mutex::new(log),
            disk,
            queue: Mutex::default(),
            wake: Condvar::new(),
            failure: OnceLock::new(),
        });
        let own = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("raft-log-flush".to_owned()).spawn(move || own.run())?;
        Ok(Flusher { shared, thread: Some(thread) })
    }

    pub(super) fn log(&self) -> MutexGuard<'_, RaftLog<LogTypes>> {
        lock(&self.shared.log)
    }

    /// Has everything that was written until now synced, and `done` told.
    pub(super) fn sync(&self, done: Done) {
        let mut queue = lock(&self.shared.queue);
        if queue.dead {
            drop(queue);
            return done.tell(Err(gone()));
        }
        queue.waiting.push(done);
        drop(queue);
        self.shared.wake.notify_one();
    }

    /// Syncs everything that was written until now. Blocks.
    pub(super) fn sync_now(&self) -> io::Result<()> {
        self.shared.sync()
    }

    /// Waits until everything that was written until now is synced.
    pub(super) async fn synced(&self) -> io::Result<()> {
        let (caller, told) = oneshot::channel();
        self.sync(Done::Call(caller));
        told.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Records the first failure.
    pub(super) fn fail(&self, error: &io::Error) {
        self.shared.fail(error);
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.shared.failure.get().map(|(_, what)| what.clone())
    }

    /// How many wait for the next sync.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        lock(&self.shared.queue).waiting.len()
    }

    /// # Errors
    ///
    /// The first failure.
    pub(super) fn alive(&self) -> io::Result<()> {
        self.shared.alive()
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        lock(&self.shared.queue).closed = true;
        self.shared.wake.notify_one();
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the flush thread of the log panicked");
        }
    }
}

impl Shared {
    fn fail(&self, error: &io::Error) {
        if self.failure.set((error.kind(), error.to_string())).is_ok() {
            tracing::error!(%error, "the log cannot be written; it takes nothing more");
        }
    }

    fn alive(&self) -> io::Result<()> {
        match self.failure.get() {
            Some((kind, what)) => {
                Err(io::Error::new(*kind, format!("an earlier write of the log failed: {what}")))
            }
            None => Ok(()),
        }
    }

    fn run(&self) {
        let _last = LastWord(self);
        loop {
            let (waiting, closed) = self.next();
            let synced = self.sync();
            if let Err(error) = &synced {
                self.fail(error);
            }
            for done in waiting {
                let result = synced.as_ref().map(|&()| ());
                done.tell(result.map_err(|error| io::Error::new(error.kind(), error.to_string())));
            }
            if closed {
                return;
            }
        }
    }

    /// Waits for something to sync; true if it is the last.
    fn next(&self) -> (Vec<Done>, bool) {
        let mut queue = lock(&self.queue);
        while queue.waiting.is_empty() && !queue.closed {
            queue = self.wake.wait(queue).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        (mem::take(&mut queue.waiting), queue.closed)
    }

    fn sync(&self) -> io::Result<()> {
        self.alive()?;
        self.disk.check(DiskWrite::Log)?;
        let (done, synced) = mpsc::sync_channel(1);
        lock(&self.log).flush(true, Some(done))?;
        synced.recv().map_err(|_| io::Error::other("raft-log's flush thread is gone"))?
    }
}

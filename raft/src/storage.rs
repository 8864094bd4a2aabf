//! The data directory of a node: its log, its snapshots, and the machine that is made of them.
//!
//! ```text
//! data/log/          raft-log's files; whoever holds its lock owns the directory
//! data/snapshots/    see `snapshot`
//! data/identity      whose directory it is
//! ```
//!
//! Opening loads the newest snapshot that can be read whole, and openraft applies the log from there. A damaged one is
//! refused, and the next older one taken: the log is kept that long. If none is left, a log that was never purged makes up for
//! them all. Nothing is made up where both are missing: a node that has lost what it acknowledged must not go on as if it had
//! not.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use atlas_smr_execution::executor::ExecutorConfig;

use crate::disk::{Disk, DiskWrite, create_folder};
use crate::log::{HoldBack, LogStore};
use crate::machine::{Executor, ExecutorKind, Load, Machine, Reader, StartError};
use crate::session::Service;
use crate::snapshot::{Snapshot, SnapshotStore};
use crate::types::LogId;

/// Entries that wait for the executor at most.
const QUEUE: usize = 1024;

/// The file that says whose directory it is.
const IDENTITY: &str = "identity";

/// Whose data directory it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's name.
    pub cluster: String,
    /// The node's number.
    pub node: u64,
}

impl Identity {
    /// What the file says.
    fn text(&self) -> String {
        format!("node {} of cluster {:?}\n", self.node, self.cluster)
    }

    /// Makes `dir` this node's, unless it is another one's.
    fn claim(&self, dir: &Path, disk: &Disk) -> Result<(), OpenError> {
        let failed = |source| OpenError::Identity { dir: dir.to_owned(), source };
        let own = self.text();
        match fs::read(dir.join(IDENTITY)) {
            Ok(found) if found == own.as_bytes() => Ok(()),
            Ok(found) => Err(OpenError::Foreign {
                dir: dir.to_owned(),
                found: String::from_utf8_lossy(&found).trim_end().to_owned(),
                own: own.trim_end().to_owned(),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                disk.write_whole(DiskWrite::Identity, dir, IDENTITY, own.as_bytes()).map_err(failed)
            }
            Err(error) => Err(failed(error)),
        }
    }
}

/// How a node stores and executes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StorageConfig {
    /// The data directory; made if it is not there.
    pub dir: PathBuf,
    /// Whose directory it has to be; `None` does not ask. One that says nothing becomes this node's.
    pub identity: Option<Identity>,
    /// Which executor runs the application.
    pub executor: ExecutorKind,
    /// The executor's settings; `initial_seq` is set from the snapshot.
    pub executor_config: ExecutorConfig,
    /// The node does not vote: it answers reads only.
    pub learner: bool,
    /// How many snapshots are kept, at least 2: one may be damaged, or be one that arrived and was never installed. The log reaches from the oldest of them.
    pub snapshots_kept: usize,
    /// About how many bytes of the log's entries are kept in memory, besides those of the file that is being written.
    pub log_cache_bytes: usize,
    /// The size of the log's files in bytes. A file is deleted when all of its entries are purged.
    pub log_chunk_bytes: usize,
    /// The disk; tests let it fail.
    pub disk: Disk,
}

impl StorageConfig {
    /// The defaults in this directory: 2 snapshots, files of 64 MiB, and as much in memory. The executor's queue is shorter
    /// than its own default, as each of its places may hold a whole entry.
    pub fn new(dir: impl Into<PathBuf>, executor: ExecutorKind) -> Self {
        let mut executor_config = ExecutorConfig::default();
        executor_config.executing_buffer = QUEUE;
        StorageConfig {
            dir: dir.into(),
            identity: None,
            executor,
            executor_config,
            learner: false,
            snapshots_kept: 2,
            log_cache_bytes: 64 << 20,
            log_chunk_bytes: 64 << 20,
            disk: Disk::default(),
        }
    }

    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// The first setting that cannot work.
    pub fn validate(&self) -> Result<(), OpenError> {
        let wrong = |what: String| Err(OpenError::Config { what });
        if self.dir.as_os_str().is_empty() {
            return wrong("`dir` must be set".to_owned());
        }
        if self.dir.to_str().is_none() {
            return wrong("`dir` must be UTF-8".to_owned());
        }
        if self.snapshots_kept < 2 {
            return wrong("`snapshots_kept` must be at least 2".to_owned());
        }
        if self.log_chunk_bytes == 0 {
            return wrong("`log_chunk_bytes` must be at least 1".to_owned());
        }
        self.executor_config.validate().map_err(|error| OpenError::Config { what: error.to_string() })?;
        Ok(())
    }
}

/// Why a data directory could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A setting that cannot work.
    #[error("invalid configuration: {what}")]
    Config {
        /// Which, and why.
        what: String,
    },
    /// The log cannot be read, or another process has it.
    #[error("the log in {dir}: {source}")]
    Log {
        /// Its folder.
        dir: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The directory is another node's.
    #[error("{dir} is the data of {found}, and not of {own}", dir = dir.display())]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        found: String,
        /// Who asks for it.
        own: String,
    },
    /// Whose directory it is cannot be read or written.
    #[error("the identity in {dir}: {source}", dir = dir.display())]
    Identity {
        /// The directory.
        dir: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The folder of snapshots cannot be read.
    #[error("the snapshots in {dir}: {source}")]
    Snapshots {
        /// The folder.
        dir: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// No snapshot is left that can be read whole.
    #[error("all snapshots are damaged, and nothing can take their place: {}", reasons.join("; "))]
    Damaged {
        /// Why each was refused.
        reasons: Vec<String>,
    },
    /// The log does not reach from the state to its own beginning.
    #[error("the log begins after entry {purged}, but the state ends at {}: what lies between is lost",
        .state.map_or_else(|| "its beginning".to_owned(), |index| format!("entry {index}")))]
    Gap {
        /// The last entry that was purged.
        purged: u64,
        /// The last entry in the state, if there is one.
        state: Option<u64>,
    },
    /// The executor could not be started.
    #[error("the executor: {what}")]
    Executor {
        /// The reason.
        what: String,
    },
}

/// A node's storage and state machine.
#[derive(Debug)]
pub struct Storage<A: Service> {
    /// For openraft.
    pub log: LogStore,
    /// For openraft.
    pub machine: Machine<A>,
    /// For reads beside the log.
    pub reader: Reader<A>,
    /// For the network: where snapshots are received.
    pub snapshots: SnapshotStore,
}

/// A number that no other run of a process has. Not 0.
fn incarnation() -> u64 {
    // Seeded by the operating system.
    let mut hasher = RandomState::new().build_hasher();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    hasher.write_u128(now.as_nanos());
    hasher.write_u32(std::process::id());
    hasher.finish().max(1)
}

/// The newest snapshot that can be read whole, and its state. Without one the initial state has to do: if there never was a
/// snapshot, or if the log holds all entries from the first on.
fn load<A: Service>(
    snapshots: &SnapshotStore,
    log: &LogStore,
    mut reasons: Vec<String>,
) -> Result<(Load, Option<Snapshot>), OpenError> {
    while let Some(snapshot) = snapshots.newest() {
        match Load::of::<A>(&snapshot) {
            Ok(load) => return Ok((load, Some(snapshot))),
            Err(StartError::State(error)) => {
                let reason = format!("{}: {error}", snapshot.meta());
                tracing::error!(reason, "snapshot refused");
                snapshots.refuse(&snapshot);
                reasons.push(reason);
            }
            Err(error) => return Err(OpenError::Executor { what: error.to_string() }),
        }
    }
    if reasons.is_empty() || log.is_whole() {
        let load = Load::initial::<A>().map_err(|error| OpenError::Executor { what: error.to_string() })?;
        return Ok((load, None));
    }
    Err(OpenError::Damaged { reasons })
}

/// Opens the data directory, and starts the executor on the state of its newest snapshot. Blocks.
///
/// # Errors
///
/// See [`OpenError`]. Nothing runs then.
pub fn open<A: Service>(config: StorageConfig, app: A) -> Result<Storage<A>, OpenError> {
    config.validate()?;
    let (dir, disk) = (config.dir.join("log"), config.disk.clone());
    let hold = HoldBack::default();
    let log = create_folder(&config.dir)
        .and_then(|()| {
            LogStore::open(&dir, config.log_cache_bytes, config.log_chunk_bytes, disk, hold.clone())
        })
        .map_err(|source| OpenError::Log { dir, source })?;
    if let Some(identity) = &config.identity {
        identity.claim(&config.dir, &config.disk)?;
    }
    let dir = config.dir.join("snapshots");
    let (snapshots, refused) = SnapshotStore::open(&dir, config.disk, config.snapshots_kept, hold)
        .map_err(|source| OpenError::Snapshots { dir, source })?;
    let refused: Vec<String> =
        refused.into_iter().map(|refused| format!("{}: {}", refused.file, refused.reason)).collect();
    for reason in &refused {
        tracing::error!(reason, "snapshot refused");
    }
    let (state, snapshot) = load::<A>(&snapshots, &log, refused)?;
    let meta = snapshot.as_ref().map(|snapshot| snapshot.meta().clone()).unwrap_or_default();
    if let Some(purged) = log.purged().filter(|&purged| beyond(purged, meta.last_log_id)) {
        return Err(OpenError::Gap { purged: purged.index, state: meta.last_log_id.map(|id| id.index) });
    }
    if let Some(state) = meta.last_log_id {
        let dir = config.dir.join("log");
        log.lead_to(state).map_err(|source| OpenError::Log { dir, source })?;
    }
    snapshots.sweep();
    let start = (state, snapshot.as_ref());
    let executor = Executor::start(config.executor, config.learner, config.executor_config, start, app)
        .map_err(|error| OpenError::Executor { what: error.to_string() })?;
    let machine = Machine::new(executor, snapshots.clone(), &meta, incarnation());
    let reader = machine.reader();
    tracing::info!(snapshot = %meta, executor = %config.executor, "storage opened");
    Ok(Storage { log, machine, reader, snapshots })
}

/// True if a log that was purged up to `purged` lacks entries above `state`.
fn beyond(purged: LogId, state: Option<LogId>) -> bool {
    state.is_none_or(|state| purged.index > state.index)
}

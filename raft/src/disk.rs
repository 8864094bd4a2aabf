//! The disk: files that appear whole or not at all, and a seam where tests let it fail.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

/// What is about to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DiskWrite {
    /// Entries, votes and marks of the log, before they are synced.
    Log,
    /// Parts of a snapshot.
    Segment,
    /// The manifest that makes a snapshot valid.
    Manifest,
    /// Whose directory it is; written once.
    Identity,
}

/// Asked before each write.
type Hook = dyn Fn(DiskWrite) -> io::Result<()> + Send + Sync;

/// The disk below a data directory. The default one is the real one; [`Disk::failing`] is for tests.
#[derive(Clone, Default)]
pub struct Disk {
    hook: Option<Arc<Hook>>,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("may_fail", &self.hook.is_some()).finish()
    }
}

impl Disk {
    /// A disk that asks `hook` before each write. An error is what the write returns, and nothing is written.
    pub fn failing(hook: impl Fn(DiskWrite) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Disk { hook: Some(Arc::new(hook)) }
    }

    /// To be called right before a write.
    pub(crate) fn check(&self, what: DiskWrite) -> io::Result<()> {
        self.hook.as_ref().map_or(Ok(()), |hook| hook(what))
    }

    /// Makes `bytes` the content of `folder/name`: after a crash the file is there whole, or as it was.
    pub(crate) fn write_whole(
        &self,
        what: DiskWrite,
        folder: &Path,
        name: &str,
        bytes: &[u8],
    ) -> io::Result<()> {
        self.check(what)?;
        let temporary = folder.join(format!("{name}{TEMPORARY}"));
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        publish(folder, &temporary, name)
    }
}

/// How the names of files end that are not whole yet.
pub(crate) const TEMPORARY: &str = ".tmp";

/// Gives a synced file its name, durably.
pub(crate) fn publish(folder: &Path, temporary: &Path, name: &str) -> io::Result<()> {
    fs::rename(temporary, folder.join(name))?;
    sync_folder(folder)
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Makes a folder, and all that it lies in, and their names durable. It may be there already.
pub(crate) fn create_folder(folder: &Path) -> io::Result<()> {
    let mut made: Vec<&Path> = folder.ancestors().skip(1).take_while(|parent| !parent.is_dir()).collect();
    made.push(folder);
    fs::create_dir_all(folder)?;
    made.into_iter().filter_map(Path::parent).try_for_each(|parent| {
        sync_folder(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
    })
}

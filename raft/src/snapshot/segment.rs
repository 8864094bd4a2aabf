//! Files of parts, one after the other. What is where stands in the manifests.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::disk::{Disk, DiskWrite, TEMPORARY, publish};

/// How the names of segments end.
pub(super) const ENDING: &str = ".segment";

/// A file's name: a number of fixed width, and what it is.
pub(super) fn file_name(number: u64, ending: &str) -> String {
    format!("{number:020}{ending}")
}

/// A segment that was written. It stays readable when its file is deleted.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) len: u64,
    file: File,
}

impl Segment {
    pub(super) fn open(folder: &Path, number: u64) -> io::Result<Segment> {
        let file = File::open(folder.join(file_name(number, ENDING)))?;
        let len = file.metadata()?.len();
        Ok(Segment { number, len, file })
    }

    pub(super) fn read(&self, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            let what = format!("segment {} ends before what lies there", self.number);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        let mut bytes = vec![0; len as usize];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}

/// A segment that is being written. Dropped before [`finish`](SegmentWriter::finish), it leaves nothing.
#[derive(Debug)]
pub(super) struct SegmentWriter {
    folder: PathBuf,
    disk: Disk,
    number: u64,
    len: u64,
    file: BufWriter<File>,
    temporary: PathBuf,
    finished: bool,
}

impl SegmentWriter {
    pub(super) fn create(folder: &Path, disk: &Disk, number: u64) -> io::Result<SegmentWriter> {
        disk.check(DiskWrite::Segment)?;
        let temporary = folder.join(format!("{}{TEMPORARY}", file_name(number, ENDING)));
        let file = File::options().read(true).write(true).create_new(true).open(&temporary)?;
        let file = BufWriter::with_capacity(1 << 18, file);
        let (folder, disk) = (folder.to_owned(), disk.clone());
        Ok(SegmentWriter { folder, disk, number, len: 0, file, temporary, finished: false })
    }

    /// Appends a part and returns its offset.
    pub(super) fn add(&mut self, bytes: &[u8]) -> io::Result<u64> {
        self.disk.check(DiskWrite::Segment)?;
        self.file.write_all(bytes)?;
        let offset = self.len;
        self.len += bytes.len() as u64;
        Ok(offset)
    }

    /// Makes the segment durable, under its name.
    pub(super) fn finish(mut self) -> io::Result<Segment> {
        self.disk.check(DiskWrite::Segment)?;
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        publish(&self.folder, &self.temporary, &file_name(self.number, ENDING))?;
        self.finished = true;
        Segment::open(&self.folder, self.number)
    }
}

impl Drop for SegmentWriter {
    fn drop(&mut self) {
        if !self.finished {
            // What cannot be removed now is when the folder is opened again.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

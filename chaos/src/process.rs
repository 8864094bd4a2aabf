//! Nodes as processes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal};

use crate::lock;

/// The program's name.
pub const PROGRAM: &str = "atlas-smr";
/// Lines of a node's messages that are kept.
const LINES: usize = 200;
/// Between two looks at whether a process is still there.
const POLL: Duration = Duration::from_millis(20);

/// Why a process cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// There is no program.
    #[error("no program `{PROGRAM}` beside {}; build it (cargo build -p atlas-smr-cli) or name it by --program", .0.display())]
    NoProgram(PathBuf),
    /// The program does not start, or cannot be signalled.
    #[error("{what}: {cause}")]
    Io {
        /// What failed.
        what: String,
        /// Why.
        cause: io::Error,
    },
    /// It did not end in time.
    #[error("process {0} did not end within {1:?}")]
    StillThere(u32, Duration),
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> ProcessError {
    let what = what.into();
    move |cause| ProcessError::Io { what, cause }
}

/// The program to test: the one beside this one, as cargo puts both into one folder (and tests into one below).
///
/// # Errors
///
/// There is none.
pub fn find_program() -> Result<PathBuf, ProcessError> {
    let own = std::env::current_exe().map_err(failed("where this program is"))?;
    let folders = own.ancestors().skip(1).take(2);
    let found = folders.map(|folder| folder.join(PROGRAM)).find(|program| program.is_file());
    found.ok_or(ProcessError::NoProgram(own))
}

/// A running process; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: Pid,
    messages: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts `program`. What it says to its standard error is appended to `log`.
    ///
    /// Files beyond a limit are an error for it, not a signal that ends it, see [`Process::limit_files`].
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub fn start(program: &Path, arguments: &[String], log: &Path) -> Result<Process, ProcessError> {
        let file = File::options().create(true).append(true).open(log);
        let file = file.map_err(failed(format!("opening {}", log.display())))?;
        // An ignored signal stays ignored in the program that takes the shell's place, under the same process id.
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(program).args(arguments);
        // Held open by this program: a node can notice by it that nobody is left to stop it.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed(format!("starting {}", program.display())))?;
        let pid = Pid::from_child(&child);
        let messages = Arc::new(Mutex::new(Vec::new()));
        let reader = child.stderr.take().map(|stderr| {
            let messages = Arc::clone(&messages);
            std::thread::spawn(move || listen(stderr, file, &messages))
        });
        Ok(Process { child, pid, messages, reader })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once, as if the power went: `kill -9`.
    ///
    /// # Errors
    ///
    /// The system does not let it.
    pub fn kill(&mut self) -> Result<(), ProcessError> {
        self.child.kill().map_err(failed("kill -9"))?;
        self.child.wait().map_err(failed("waiting for a killed process"))?;
        Ok(())
    }

    /// Asks it to end: `kill -TERM`.
    ///
    /// # Errors
    ///
    /// It is not there any more.
    pub fn terminate(&self) -> Result<(), ProcessError> {
        self.signal(Signal::TERM)
    }

    /// Stops it where it is, or lets it go on.
    ///
    /// # Errors
    ///
    /// It is not there any more.
    pub fn pause(&self, pause: bool) -> Result<(), ProcessError> {
        self.signal(if pause { Signal::STOP } else { Signal::CONT })
    }

    fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        rustix::process::kill_process(self.pid, signal).map_err(|errno| failed("a signal")(errno.into()))
    }

    /// From now on, a write at or beyond `bytes` in any file fails, as on a full disk. There is no way back but a restart.
    ///
    /// # Errors
    ///
    /// The system does not let it.
    pub fn limit_files(&self, bytes: u64) -> Result<(), ProcessError> {
        let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
        let set = rustix::process::prlimit(Some(self.pid), Resource::Fsize, limit);
        set.map(|_| ()).map_err(|errno| failed("limiting files")(errno.into()))
    }

    /// How it ended; nothing if it runs.
    ///
    /// # Errors
    ///
    /// The system does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, ProcessError> {
        self.child.try_wait().map_err(failed("looking at a process"))
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// It is still there after `limit`.
    pub async fn wait(&mut self, limit: Duration) -> Result<ExitStatus, ProcessError> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended()? {
                // All that it said is read.
                if let Some(reader) = self.reader.take() {
                    let _ = tokio::task::spawn_blocking(move || reader.join()).await;
                }
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(ProcessError::StillThere(self.id(), limit));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The last that it said.
    pub fn messages(&self) -> Vec<String> {
        lock(&self.messages).clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.kill();
    }
}

fn listen(stderr: ChildStderr, mut file: File, messages: &Mutex<Vec<String>>) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        // The copy in memory is what is judged.
        let _ = writeln!(file, "{line}");
        let mut messages = lock(messages);
        if messages.len() == LINES {
            messages.remove(0);
        }
        messages.push(line);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    /// Far more than anything here takes.
    const LIMIT: Duration = Duration::from_secs(60);

    fn shell(folder: &Path, script: &str) -> Process {
        let arguments = ["-c", script].map(str::to_owned);
        Process::start(Path::new("sh"), &arguments, &folder.join("log")).expect("a shell")
    }

    #[tokio::test]
    async fn a_process_is_killed_by_its_own_id() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut process = shell(folder.path(), "sleep 1000 & echo $$ $! >&2; wait");
        let mut said = process.messages();
        while said.is_empty() {
            tokio::time::sleep(POLL).await;
            said = process.messages();
        }
        let ids: Vec<u32> = said[0].split(' ').map(|id| id.parse().expect("an id")).collect();
        assert_eq!(ids[0], process.id());
        process.kill().expect("killed");
        assert_eq!(process.ended().expect("known").and_then(|status| status.signal()), Some(9));
        // Its child is another process, and lives on.
        let child = Pid::from_raw(i32::try_from(ids[1]).expect("small")).expect("not 0");
        rustix::process::kill_process(child, Signal::KILL).expect("there until now");
    }

    #[tokio::test]
    async fn a_dropped_process_is_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let process = shell(folder.path(), "exec sleep 1000");
        let pid = process.pid;
        assert!(rustix::process::test_kill_process(pid).is_ok());
        drop(process);
        assert!(rustix::process::test_kill_process(pid).is_err());
    }

    #[tokio::test]
    async fn a_write_beyond_the_limit_fails_and_the_process_goes_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        let go = folder.path().join("go");
        let script = format!(
            "until [ -e {} ]; do sleep 0.01; done; printf abc > {1} || echo full >&2; exit 3",
            go.display(),
            file.display()
        );
        let mut process = shell(folder.path(), &script);
        process.limit_files(0).expect("allowed");
        File::create(&go).expect("another process has no limit");
        assert_eq!(process.wait(LIMIT).await.expect("ended").code(), Some(3));
        assert!(process.messages().iter().any(|line| line.contains("full")), "{:?}", process.messages());
        assert_eq!(std::fs::read(&file).expect("created"), b"");
    }

    #[tokio::test]
    async fn a_paused_process_goes_on_where_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut process = shell(folder.path(), "kill -STOP $$; exit 5");
        let stat = format!("/proc/{}/stat", process.id());
        while !std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") T ")) {
            tokio::time::sleep(POLL).await;
        }
        process.pause(false).expect("there");
        assert_eq!(process.wait(LIMIT).await.expect("ended").code(), Some(5));
    }
}

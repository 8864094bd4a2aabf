//! Where and of what a measurement was taken.

use std::fs::DirEntry;
use std::process::Command;
use std::time::{Duration, Instant};

/// The processor's name and the number of cores that this process may use.
pub fn name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map(|rest| rest.trim_start_matches([' ', '\t', ':']).trim())
        .unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{model}, {cores} cores")
}

/// The commit of the working directory, marked if something besides results is not committed.
pub fn commit() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    match git(&["rev-parse", "--short=12", "HEAD"]) {
        None => "unknown".to_owned(),
        Some(commit) => match git(&[
            "status",
            "--porcelain",
            "--untracked-files=no",
            "--",
            ":/",
            ":(exclude,top)perf/results",
        ]) {
            Some(changes) if changes.is_empty() => commit,
            _ => format!("{commit} with changes"),
        },
    }
}

/// Both, as the heading of a report.
pub fn heading() -> String {
    format!("{}, commit {}", name(), commit())
}

/// Threads that wanted a core in the last minute, on average; 0 where the system does not say.
pub fn load_average() -> f64 {
    let averages = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    averages.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}

/// What the names of rayon's threads begin with.
pub const RAYON: &str = "rayon-";

/// A share of the time for which threads had to wait for a core, above which a measurement does not count.
const CROWDED: f64 = 0.03;

/// Who may have wanted the cores, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crowd {
    /// Anybody who made this process's threads wait.
    Anybody,
    /// The host. For what has more threads than there are cores: they wait for each other.
    Host,
}

impl Crowd {
    fn waited(self) -> Duration {
        match self {
            Crowd::Anybody => waited() + stolen(),
            Crowd::Host => stolen(),
        }
    }
}

/// A watch on who wants the cores.
pub struct Watch {
    crowd: Crowd,
    start: Instant,
    waited: Duration,
}

impl Watch {
    /// Begins to watch.
    pub fn start(crowd: Crowd) -> Self {
        Watch { crowd, start: Instant::now(), waited: crowd.waited() }
    }

    /// True if threads had to wait for a core since then, or if cores were taken away.
    pub fn was_crowded(&self) -> bool {
        let waited = self.crowd.waited().saturating_sub(self.waited);
        waited.as_secs_f64() > CROWDED * self.start.elapsed().as_secs_f64()
    }
}

/// How long this process's threads have waited for a core so far, as Linux counts it; nothing where it does not. Rayon's do not
/// count: pinned to a core that is busy, they wait only to fall asleep.
fn waited() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let read = |thread: &DirEntry, file: &str| std::fs::read_to_string(thread.path().join(file)).ok();
    let delay = |thread: DirEntry| -> Option<u64> {
        let name = read(&thread, "comm")?;
        let schedule = read(&thread, "schedstat").filter(|_| !name.starts_with(RAYON))?;
        schedule.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    Duration::from_nanos(threads.filter_map(delay).sum())
}

/// How long a host has run something else on cores that were given to this machine; hundredths of a second, says Linux.
fn stolen() -> Duration {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let all = stat.lines().find(|line| line.starts_with("cpu "));
    let steal = all.and_then(|line| line.split_ascii_whitespace().nth(8));
    Duration::from_millis(10 * steal.and_then(|steal| steal.parse::<u64>().ok()).unwrap_or(0))
}

//! Where and of what a measurement was taken.

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

/// A share of the time in which some thread had to wait for a core, above which a measurement does not count.
const CROWDED: f64 = 0.03;

/// A watch on who wants the cores.
pub struct Watch {
    start: Instant,
    waited: Duration,
}

impl Watch {
    /// Begins to watch.
    pub fn start() -> Self {
        Watch { start: Instant::now(), waited: waited() }
    }

    /// True if there were more threads than cores since then, so that some had to wait.
    pub fn was_crowded(&self) -> bool {
        let waited = waited().saturating_sub(self.waited);
        waited.as_secs_f64() > CROWDED * self.start.elapsed().as_secs_f64()
    }
}

/// How long threads of this machine have waited for a core so far, as Linux counts it; nothing where it does not.
fn waited() -> Duration {
    let pressure = std::fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let some = pressure.lines().find(|line| line.starts_with("some"));
    let total = some.and_then(|line| line.split("total=").nth(1));
    Duration::from_micros(total.and_then(|total| total.trim().parse().ok()).unwrap_or(0))
}

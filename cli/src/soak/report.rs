//! What a long run found, and how much memory it took meanwhile.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::log::CYCLE;
use crate::error::CliError;
use crate::report::grouped;

/// Memory may grow by this share, and by so many mebibytes, before it counts as growth: allocators keep some.
const SHARE: f64 = 0.1;
const ROOM: f64 = 16.0;

/// The program at one moment.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sample {
    /// Since the start.
    seconds: f64,
    /// Operations of the log.
    operations: u64,
    /// Memory of this process in mebibytes; nothing where the system does not tell.
    rss_mib: Option<f64>,
}

/// How often what was done.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Deeds {
    /// Segments of the log.
    pub segments: u64,
    /// Operations that executors executed, all together.
    pub executed: u64,
    /// Requests that they answered outside the order.
    pub unordered: u64,
    /// Checkpoints that were taken.
    pub checkpoints: u64,
    /// Of these: installed into another executor, which had missed a segment.
    pub installs: u64,
    /// Executors that were stopped, and started again from a checkpoint and the log since.
    pub restarts: u64,
    /// Digests of states and of replies that were compared with the sequential loop's.
    pub comparisons: u64,
}

/// A whole run.
#[derive(Debug, Serialize)]
pub struct Report {
    seed: u64,
    /// Operations of the log; each executor executed all but those of the segments that it missed.
    operations: u64,
    seconds: f64,
    #[serde(flatten)]
    deeds: Deeds,
    samples: Vec<Sample>,
    /// True if memory did not grow in the second half; nothing where the run was too short to tell.
    flat: Option<bool>,
    equal: bool,
    /// The first difference.
    difference: Option<String>,
}

/// Takes samples, and shows them.
pub struct Watch {
    start: Instant,
    every: Duration,
    next: Duration,
    samples: Vec<Sample>,
    /// The least memory after any segment of each cycle. What is needed for a while comes and goes; what is lost stays.
    floors: Vec<f64>,
    show: fn(&str),
}

impl Watch {
    pub fn new(every: Duration, show: fn(&str)) -> Self {
        Watch {
            start: Instant::now(),
            every,
            next: Duration::ZERO,
            samples: Vec::new(),
            floors: Vec::new(),
            show,
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// After a segment.
    pub fn look(&mut self, operations: u64, segments: u64) {
        let (elapsed, rss_mib) = (self.elapsed(), rss_mib());
        let cycle = (segments.saturating_sub(1) / CYCLE) as usize;
        self.floors.resize(cycle + 1, f64::INFINITY);
        self.floors[cycle] = self.floors[cycle].min(rss_mib.unwrap_or(0.0));
        if elapsed >= self.next {
            self.next = elapsed + self.every;
            self.sample(Sample { seconds: elapsed.as_secs_f64(), operations, rss_mib });
        }
    }

    fn sample(&mut self, sample: Sample) {
        let memory = sample.rss_mib.map_or("memory unknown".to_owned(), |mib| format!("{mib:.0} MiB"));
        let operations = grouped(sample.operations as f64);
        (self.show)(&format!("{:>8.0} s  {operations:>15} operations  {memory}", sample.seconds));
        self.samples.push(sample);
    }

    /// The report at the end.
    pub fn report(mut self, seed: u64, operations: u64, deeds: Deeds, difference: Option<String>) -> Report {
        let seconds = self.elapsed().as_secs_f64();
        self.sample(Sample { seconds, operations, rss_mib: rss_mib() });
        let known = self.samples.iter().all(|sample| sample.rss_mib.is_some());
        let flat = if known { is_flat(&self.floors) } else { None };
        let equal = difference.is_none();
        Report { seed, operations, seconds, deeds, samples: self.samples, flat, equal, difference }
    }
}

/// Did memory grow? The first cycle of segments fills what is reused later. Of the others, the second half's median is held
/// against the first half's.
fn is_flat(floors: &[f64]) -> Option<bool> {
    let (_, floors) = floors.split_first().filter(|(_, floors)| floors.len() >= 6)?;
    let (first, second) = floors.split_at(floors.len() / 2);
    let median = |floors: &[f64]| {
        let mut floors = floors.to_vec();
        floors.sort_by(f64::total_cmp);
        floors[floors.len() / 2]
    };
    Some(median(second) <= median(first) * (1.0 + SHARE) + ROOM)
}

/// Memory of this process, in mebibytes.
fn rss_mib() -> Option<f64> {
    // In kibibytes; `statm` counts pages, whose size only the system's library tells.
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

impl Report {
    /// True if nothing was wrong.
    pub fn is_good(&self) -> bool {
        self.equal && self.flat != Some(false)
    }

    /// One JSON document.
    pub fn json(&self) -> Result<String, CliError> {
        Ok(serde_json::to_string(self)?)
    }

    /// The same for people.
    pub fn text(&self) -> String {
        let Deeds { segments, executed, unordered, checkpoints, installs, restarts, comparisons } =
            self.deeds;
        let count = |number: u64| grouped(number as f64);
        let memory = match self.flat {
            Some(true) => "flat",
            Some(false) => "GREW",
            None => "too short a run to tell",
        };
        let verdict = match &self.difference {
            None => "equal: every state and every reply was that of executing the operations one by one."
                .to_owned(),
            Some(difference) => {
                format!("DIFFERENT: {difference}. This is a defect: please report it with the seed.")
            }
        };
        format!(
            "{} operations in {:.0} s (seed {}), in {} segments; {} executions by executors, {} unordered requests, \
             {} checkpoints, {} installations, {} restarts, {} comparisons.\nmemory: {memory}\n{verdict}",
            count(self.operations),
            self.seconds,
            self.seed,
            count(segments),
            count(executed),
            count(unordered),
            count(checkpoints),
            count(installs),
            count(restarts),
            count(comparisons),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_told_from_noise() {
        assert_eq!(is_flat(&[100.0; 6]), None, "too short");
        assert_eq!(is_flat(&[10.0, 100.0, 90.0, 102.0, 98.0, 110.0, 90.0]), Some(true));
        assert_eq!(is_flat(&[10.0, 100.0, 110.0, 120.0, 140.0, 150.0, 160.0]), Some(false));
        assert_eq!(
            is_flat(&[10.0, 100.0, 100.0, 100.0, 100.0, 900.0, 100.0]),
            Some(true),
            "once is no growth"
        );
        assert_eq!(
            is_flat(&[900.0, 100.0, 110.0, 105.0, 100.0, 101.0, 99.0]),
            Some(true),
            "nor is the start"
        );
    }
}

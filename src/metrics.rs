//! Counters and histograms of one executor, readable at any time.
//!
//! Written once per batch, never per operation. With the feature `metrics` every value also goes to the `metrics`
//! facade: under the names below, and the other [`Counters`] under theirs with `atlas_` before it.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};

/// Identifies a metric, as its name does.
pub type MetricId = usize;

/// From a batch's decision to the end of its execution, in microseconds.
pub const EXECUTION_LATENCY: &str = "EXECUTION_LATENCY";
/// Id of [`EXECUTION_LATENCY`].
pub const EXECUTION_LATENCY_ID: MetricId = 800;
/// Execution of one ordered batch, or of several together, in microseconds.
pub const EXECUTION_TIME_TAKEN: &str = "EXECUTION_TIME_TAKEN";
/// Id of [`EXECUTION_TIME_TAKEN`].
pub const EXECUTION_TIME_TAKEN_ID: MetricId = 801;
/// Sending the replies of one batch, or of several that were answered together, in microseconds.
pub const REPLY_SENT_TIME: &str = "REPLY_SENT_TIME";
/// Id of [`REPLY_SENT_TIME`].
pub const REPLY_SENT_TIME_ID: MetricId = 802;
/// From the end of a batch's execution to the start of sending its replies, in microseconds.
pub const REPLIES_PASSING_TIME: &str = "REPLIES_PASSING_TIME";
/// Id of [`REPLIES_PASSING_TIME`].
pub const REPLIES_PASSING_TIME_ID: MetricId = 803;
/// Ordered operations executed; its rate is what the name says.
pub const OPERATIONS_EXECUTED_PER_SECOND: &str = "OPERATIONS_EXECUTED_PER_SECOND";
/// Id of [`OPERATIONS_EXECUTED_PER_SECOND`].
pub const OPERATIONS_EXECUTED_PER_SECOND_ID: MetricId = 804;
/// Unordered operations executed; its rate is what the name says.
pub const UNORDERED_OPERATIONS_EXECUTED_PER_SECOND: &str = "UNORDERED_OPERATIONS_EXECUTED_PER_SECOND";
/// Id of [`UNORDERED_OPERATIONS_EXECUTED_PER_SECOND`].
pub const UNORDERED_OPERATIONS_EXECUTED_PER_SECOND_ID: MetricId = 805;
/// Execution of one unordered batch, in microseconds.
pub const UNORDERED_EXECUTION_TIME_TAKEN: &str = "UNORDERED_EXECUTION_TIME_TAKEN";
/// Id of [`UNORDERED_EXECUTION_TIME_TAKEN`].
pub const UNORDERED_EXECUTION_TIME_TAKEN_ID: MetricId = 806;

/// The five histograms, in the order of their ids' tables.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Timer {
    Latency,
    Execution,
    ReplySent,
    RepliesPassing,
    Unordered,
}

impl Timer {
    const ALL: [(Timer, MetricId, &'static str); 5] = [
        (Timer::Latency, EXECUTION_LATENCY_ID, EXECUTION_LATENCY),
        (Timer::Execution, EXECUTION_TIME_TAKEN_ID, EXECUTION_TIME_TAKEN),
        (Timer::ReplySent, REPLY_SENT_TIME_ID, REPLY_SENT_TIME),
        (Timer::RepliesPassing, REPLIES_PASSING_TIME_ID, REPLIES_PASSING_TIME),
        (Timer::Unordered, UNORDERED_EXECUTION_TIME_TAKEN_ID, UNORDERED_EXECUTION_TIME_TAKEN),
    ];
}

macro_rules! counters {
    (@name $name:ident) => { concat!("atlas_", stringify!($name)) };
    (@name $name:ident $facade:ident) => { $facade };
    ($($(#[$doc:meta])* $name:ident $(as $facade:ident)?),* $(,)?) => {
        /// What is counted.
        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy, Debug)]
        pub(crate) enum Counter { $($name),* }

        impl Counter {
            #[cfg(feature = "metrics")]
            const NAMES: &[&str] = &[$(counters!(@name $name $($facade)?)),*];
            const COUNT: usize = [$(Counter::$name),*].len();
        }

        /// The counters of an executor at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64),*
        }

        impl Metrics {
            /// All counters. Each is exact; together they need not stem from one instant.
            pub fn counters(&self) -> Counters {
                Counters { $($name: self.get(Counter::$name)),* }
            }
        }
    };
}

counters! {
    /// Ordered operations executed (metric 804).
    operations as OPERATIONS_EXECUTED_PER_SECOND,
    /// Unordered operations executed (metric 805).
    unordered_operations as UNORDERED_OPERATIONS_EXECUTED_PER_SECOND,
    /// Unordered operations of these that were answered beside an ordered batch, on the state before it.
    unordered_beside,
    /// Unordered operations of these that were answered on all threads.
    unordered_in_parallel,
    /// Ordered batches executed.
    batches,
    /// Ordered batches of these that were answered, and maybe executed, together with others that waited.
    joined_batches,
    /// Ordered batches of these that ran sequentially, in place or through units.
    sequential_batches,
    /// Ordered batches of these whose units read the newest values, retired or not.
    forwarding_batches,
    /// Ordered batches of these whose operations were started by hints.
    hinted_batches,
    /// Ordered batches of these that were run twice and compared.
    checked_batches,
    /// Ordered batches not executed because their sequence number was not above the last.
    skipped_batches,
    /// Units that had observed a version which an earlier operation of their batch then replaced.
    collisions,
    /// Units run ahead of their turn.
    speculations,
    /// Units whose result was taken at their turn.
    accepted,
    /// Units that had to run again at their turn.
    replays,
    /// Operations, ordered and unordered, whose keys were brought near before they were run.
    prefetched,
    /// How often units were run again before their turn, because what they had observed was replaced.
    reruns,
    /// Units that were run at their turn because what another thread was still making of them would most likely be stale.
    overtaken,
    /// Units of the replayed ones that had been abandoned, after too many calls.
    abandoned,
    /// Replies that the reply node refused.
    reply_errors,
    /// Checkpoints delivered, including answers to `Read`.
    checkpoints,
    /// Checkpoints that a newer one replaced, or that nobody took, before they were delivered.
    dropped_checkpoints,
    /// States installed.
    installs,
    /// States, or parts of them, that were refused.
    refused_installs,
}

/// Counters and histograms of one executor.
#[derive(Debug)]
pub struct Metrics {
    counters: [AtomicU64; Counter::COUNT],
    timers: [Mutex<Histogram<u64>>; 5],
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All zero. An executor makes its own.
    pub fn new() -> Self {
        // Three significant digits, 1 us to one hour; auto-resize is off, so recording never allocates. A model makes tens
        // of thousands of executors, and no time passes in it.
        let (longest, digits) = if cfg!(loom) { (2, 1) } else { (3_600_000_000, 3) };
        let timer = || Mutex::new(Histogram::new_with_bounds(1, longest, digits).expect("constant bounds"));
        Metrics {
            counters: std::array::from_fn(|_| AtomicU64::new(0)),
            timers: std::array::from_fn(|_| timer()),
        }
    }

    /// The histogram with this id (800 to 803, 806), in microseconds; `None` for other ids.
    pub fn histogram(&self, id: MetricId) -> Option<Histogram<u64>> {
        let (timer, ..) = Timer::ALL.iter().find(|timer| timer.1 == id)?;
        Some(self.timer(*timer).clone())
    }

    /// Name of a metric of this crate; `None` for other ids.
    pub fn name(id: MetricId) -> Option<&'static str> {
        match id {
            OPERATIONS_EXECUTED_PER_SECOND_ID => Some(OPERATIONS_EXECUTED_PER_SECOND),
            UNORDERED_OPERATIONS_EXECUTED_PER_SECOND_ID => Some(UNORDERED_OPERATIONS_EXECUTED_PER_SECOND),
            _ => Timer::ALL.iter().find(|timer| timer.1 == id).map(|timer| timer.2),
        }
    }

    #[inline]
    pub(crate) fn add(&self, counter: Counter, n: u64) {
        if n == 0 {
            return;
        }
        // Relaxed: a statistic; nothing is read on the strength of it.
        self.counters[counter as usize].fetch_add(n, Ordering::Relaxed);
        #[cfg(feature = "metrics")]
        metrics::counter!(Counter::NAMES[counter as usize]).increment(n);
    }

    /// Adds to a counter that nobody else adds to meanwhile, as those of an executor's own thread: an exchange would be a
    /// tenth of a short batch.
    #[inline]
    pub(crate) fn add_alone(&self, counter: Counter, n: u64) {
        if n == 0 {
            return;
        }
        let cell = &self.counters[counter as usize];
        // Relaxed: as above.
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
        #[cfg(feature = "metrics")]
        metrics::counter!(Counter::NAMES[counter as usize]).increment(n);
    }

    pub(crate) fn get(&self, counter: Counter) -> u64 {
        // Relaxed: as above.
        self.counters[counter as usize].load(Ordering::Relaxed)
    }

    /// Records the time since `start`, and returns now.
    pub(crate) fn record_since(&self, timer: Timer, start: Instant) -> Instant {
        let now = Instant::now();
        self.record(timer, now.saturating_duration_since(start));
        now
    }

    pub(crate) fn record(&self, timer: Timer, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.timer(timer).saturating_record(micros);
        #[cfg(feature = "metrics")]
        metrics::histogram!(Timer::ALL[timer as usize].2).record(micros as f64);
    }

    fn timer(&self, timer: Timer) -> MutexGuard<'_, Histogram<u64>> {
        self.timers[timer as usize].lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_names_are_the_interface() {
        let names: Vec<_> = (800..=806).map(|id| Metrics::name(id).expect("a name")).collect();
        assert_eq!(
            names,
            [
                "EXECUTION_LATENCY",
                "EXECUTION_TIME_TAKEN",
                "REPLY_SENT_TIME",
                "REPLIES_PASSING_TIME",
                "OPERATIONS_EXECUTED_PER_SECOND",
                "UNORDERED_OPERATIONS_EXECUTED_PER_SECOND",
                "UNORDERED_EXECUTION_TIME_TAKEN"
            ]
        );
        assert_eq!(Metrics::name(807), None);
    }

    #[test]
    fn what_is_recorded_is_read() {
        let metrics = Metrics::new();
        metrics.add(Counter::replays, 3);
        metrics.record(Timer::Execution, Duration::from_micros(50));
        metrics.record(Timer::Execution, Duration::from_secs(100_000));
        assert_eq!(metrics.counters(), Counters { replays: 3, ..Counters::default() });
        assert_eq!(metrics.histogram(EXECUTION_TIME_TAKEN_ID).map(|h| h.len()), Some(2));
        assert!(metrics.histogram(OPERATIONS_EXECUTED_PER_SECOND_ID).is_none());
    }
}

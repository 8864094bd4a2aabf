//! The bounds of entries and of the queue.

use serde::{Deserialize, Serialize};

/// Bounds of entries and of the queue in front of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchConfig {
    /// Operations of one entry, at most. No request may have more.
    pub max_operations: usize,
    /// Bytes of one entry's operations, at most. No request may have more.
    pub max_bytes: usize,
    /// How long an entry waits for company while another is on its way, in microseconds.
    pub max_delay_us: u64,
    /// Entries on their way at once.
    pub in_flight: usize,
    /// Operations that wait, at most.
    pub queue_operations: usize,
    /// Bytes of operations that wait, at most.
    pub queue_bytes: usize,
    /// How long an entry may take until its requests are told that their outcome is unknown, in milliseconds.
    pub entry_timeout_ms: u64,
}

impl Default for BatchConfig {
    fn default() -> Self {
        BatchConfig {
            max_operations: 1024,
            max_bytes: 1 << 20,
            max_delay_us: 500,
            in_flight: 2,
            queue_operations: 16_384,
            queue_bytes: 32 << 20,
            entry_timeout_ms: 30_000,
        }
    }
}

/// Bounds that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchConfigError {
    /// Nothing would ever be proposed.
    #[error("`{0}` must be at least 1")]
    Zero(&'static str),
    /// A request that an entry could carry would never find space.
    #[error("`{queue}` must be at least `{entry}`, or a large request never finds space")]
    QueueBelowEntry {
        /// The bound of the queue.
        queue: &'static str,
        /// The bound of an entry.
        entry: &'static str,
    },
    /// More than can be counted.
    #[error("`{0}` must be at most 1073741824")]
    TooLarge(&'static str),
}

/// The most that a bound of the queue can be.
const MOST: usize = 1 << 30;

impl BatchConfig {
    /// Checks the bounds.
    ///
    /// # Errors
    ///
    /// The first one that cannot work.
    pub fn validate(&self) -> Result<(), BatchConfigError> {
        let positive = [
            ("max_operations", self.max_operations),
            ("max_bytes", self.max_bytes),
            ("in_flight", self.in_flight),
            ("entry_timeout_ms", usize::try_from(self.entry_timeout_ms).unwrap_or(usize::MAX)),
        ];
        if let Some((name, _)) = positive.into_iter().find(|&(_, value)| value == 0) {
            return Err(BatchConfigError::Zero(name));
        }
        for (name, value) in [
            ("queue_operations", self.queue_operations),
            ("queue_bytes", self.queue_bytes),
            ("in_flight", self.in_flight),
        ] {
            if value > MOST {
                return Err(BatchConfigError::TooLarge(name));
            }
        }
        if self.queue_operations < self.max_operations {
            return Err(BatchConfigError::QueueBelowEntry {
                queue: "queue_operations",
                entry: "max_operations",
            });
        }
        if self.queue_bytes < self.max_bytes {
            return Err(BatchConfigError::QueueBelowEntry { queue: "queue_bytes", entry: "max_bytes" });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_that_cannot_work_are_named() {
        let wrong = |change: fn(&mut BatchConfig)| {
            let mut config = BatchConfig::default();
            change(&mut config);
            config.validate().expect_err("wrong").to_string()
        };
        assert_eq!(BatchConfig::default().validate(), Ok(()));
        assert_eq!(wrong(|c| c.max_operations = 0), "`max_operations` must be at least 1");
        assert_eq!(wrong(|c| c.max_bytes = 0), "`max_bytes` must be at least 1");
        assert_eq!(wrong(|c| c.in_flight = 0), "`in_flight` must be at least 1");
        assert_eq!(wrong(|c| c.entry_timeout_ms = 0), "`entry_timeout_ms` must be at least 1");
        assert!(wrong(|c| c.queue_operations = 1).starts_with("`queue_operations` must be at least `max_op"));
        assert!(wrong(|c| c.queue_bytes = 1).starts_with("`queue_bytes` must be at least `max_bytes`"));
        assert!(wrong(|c| c.queue_bytes = usize::MAX).starts_with("`queue_bytes` must be at most"));
    }
}

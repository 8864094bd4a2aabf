//! From where the log has to reach.

use std::sync::{Arc, Mutex};

use crate::types::LogId;

/// What the snapshot store tells the log: what the oldest kept snapshot stands for; `None` while there is none, or only one
/// that stands for nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct HoldBack(Arc<Mutex<Option<LogId>>>);

impl HoldBack {
    pub(crate) fn set(&self, oldest: Option<LogId>) {
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = oldest;
    }

    pub(crate) fn get(&self) -> Option<LogId> {
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

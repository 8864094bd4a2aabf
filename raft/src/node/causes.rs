//! Why a node cannot go on, as whoever noticed it says.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::log::LogStore;
use crate::machine::Reader;
use crate::session::Service;

/// Where the causes are looked for: the disk's, the executor's, and those that listeners have reported.
#[derive(Clone)]
pub(crate) struct Causes {
    look: Arc<dyn Fn() -> Option<String> + Send + Sync>,
    reported: Reports,
}

/// Where listeners report what keeps the node from going on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reports(Arc<Mutex<Option<String>>>);

impl Reports {
    /// The node cannot go on; the first cause counts.
    pub(crate) fn report(&self, cause: String) {
        tracing::error!("the node cannot go on: {cause}");
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(cause);
    }
}

impl fmt::Debug for Causes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Causes").field("found", &self.find()).finish()
    }
}

impl Causes {
    pub(super) fn new<A: Service>(log: &LogStore, reader: &Reader<A>) -> Self {
        let (log, reader) = (log.clone(), reader.clone());
        Causes {
            look: Arc::new(move || log.failure().or_else(|| reader.failure())),
            reported: Reports::default(),
        }
    }

    /// For listeners; keeps nothing running.
    pub(super) fn reports(&self) -> Reports {
        self.reported.clone()
    }

    /// Why the node cannot go on, if so.
    pub(crate) fn find(&self) -> Option<String> {
        let reported = self.reported.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        reported.or_else(|| (self.look)())
    }
}

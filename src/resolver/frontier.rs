//! How many units are retired.
//!
//! The walker publishes a unit's versions first and then stores the frontier (R5, Release). A thread that loads the
//! frontier F (R6, Acquire) therefore finds every version written below F.

use crossbeam::utils::CachePadded;

use crate::sync::{AtomicUsize, Ordering};

/// How many units of one batch are retired: all below this position.
#[derive(Debug, Default)]
pub struct Frontier(CachePadded<AtomicUsize>);

impl Frontier {
    /// Where it is now, or was a moment ago. All versions below are found.
    #[inline]
    pub fn passed(&self) -> usize {
        // R6. Acquire: pairs with R5, so that all versions below the frontier are found.
        self.0.load(Ordering::Acquire)
    }

    /// Where the holder of the retire lock left it, for whoever holds it now or held it last.
    #[inline]
    pub fn own(&self) -> usize {
        // Relaxed: only lock holders store it, and the lock orders them.
        self.0.load(Ordering::Relaxed)
    }

    /// Tells everybody that all units below `position` have retired. For the holder of the retire lock.
    #[inline]
    pub fn move_to(&self, position: usize) {
        // R5. Release: publishes the versions of all units below.
        self.0.store(position, Ordering::Release);
    }
}

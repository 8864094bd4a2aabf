//! Which cores the process may use, and who is pinned to which.
//!
//! The cores are asked for once, before anything is pinned: afterwards the system reports only the core that the asking
//! thread is pinned to. Executors of one process share the list, and each takes the core with the fewest pinned threads,
//! so that two executors do not crowd one core while another is free.

use core_affinity::CoreId;

use crate::sync::{Mutex, MutexGuard, OnceLock};

/// The process's cores, and how many threads are pinned to each.
#[derive(Debug)]
struct Cores {
    ids: Vec<CoreId>,
    pinned: Mutex<Vec<usize>>,
}

/// The cores of this process's affinity mask as it was when first asked for.
fn cores() -> &'static Cores {
    static CORES: OnceLock<Cores> = OnceLock::new();
    CORES.get_or_init(|| {
        let ids = core_affinity::get_core_ids().unwrap_or_default();
        Cores { pinned: Mutex::new(vec![0; ids.len()]), ids }
    })
}

/// A core that was set aside for one thread; given back when dropped.
#[derive(Debug)]
pub struct Place {
    index: usize,
}

impl Place {
    /// Sets aside a core for each of `threads` threads, the least used first. Threads beyond the number of cores get
    /// none; nobody gets one if the system does not tell its cores.
    pub fn reserve(threads: usize) -> Vec<Option<Place>> {
        let cores = cores();
        (0..threads).map(|thread| (thread < cores.ids.len()).then(|| Place::least_used(cores))).collect()
    }

    fn least_used(cores: &Cores) -> Place {
        let mut pinned = pinned(cores);
        let index = (0..pinned.len()).min_by_key(|&core| pinned[core]).unwrap_or(0);
        pinned[index] += 1;
        Place { index }
    }

    /// Pins the calling thread here. Where that is not allowed, says so once per process; the thread then runs unpinned.
    pub fn pin_current(&self) -> bool {
        let pinned = core_affinity::set_for_current(cores().ids[self.index]);
        if !pinned {
            static WARNED: OnceLock<()> = OnceLock::new();
            WARNED.get_or_init(|| tracing::warn!("threads cannot be pinned to cores here; running unpinned"));
        }
        pinned
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        pinned(cores())[self.index] -= 1;
    }
}

fn pinned(cores: &Cores) -> MutexGuard<'_, Vec<usize>> {
    cores.pinned.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sync::spawn;

    #[test]
    fn pinning_one_thread_first_leaves_the_others_their_cores() {
        let before = cores().ids.len();
        let places = Place::reserve(before);
        spawn("pinned", None, move || {
            if !places[0].as_ref().is_some_and(Place::pin_current) {
                eprintln!("skipped: threads cannot be pinned here");
                return;
            }
            // What the trap of this module's first paragraph would make of it:
            assert_eq!(core_affinity::get_core_ids().map(|ids| ids.len()), Some(1));
            let again = Place::reserve(before);
            assert_eq!(again.iter().flatten().count(), before, "the list was captured before pinning");
        })
        .expect("a thread")
        .join()
        .expect("no panic");
    }

    #[test]
    fn threads_beyond_the_cores_get_none() {
        let places = Place::reserve(cores().ids.len() + 3);
        assert_eq!(places.iter().filter(|place| place.is_none()).count(), 3);
    }
}

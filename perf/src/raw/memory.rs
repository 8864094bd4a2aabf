//! What the allocator does with memory that is free.

use std::ffi::c_long;
use std::fs;

use libmimalloc_sys::{mi_option_set_default, mi_option_t};

/// mimalloc's number for the milliseconds that free memory is kept before the system gets it back (`MIMALLOC_PURGE_DELAY`).
const PURGE_DELAY: mi_option_t = 15;
/// Its value for "for ever".
const NEVER: c_long = -1;

/// From now on memory that is free stays with the process, unless the environment says otherwise. What was given back has to be
/// filled with zeros when it is asked for again, and a virtual machine's host may have to find it first, in the middle of
/// whatever is being measured.
///
/// False, and without effect, where this is not known to be the only thread: others might read the option meanwhile.
pub fn keep() -> bool {
    let threads = fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    if threads == 1 {
        // SAFETY: the options are plain variables, and there is no other thread.
        unsafe { mi_option_set_default(PURGE_DELAY, NEVER) };
    }
    threads == 1
}

#[test]
fn threads_beside_it_leave_the_option_alone() {
    std::thread::scope(|threads| threads.spawn(|| assert!(!keep())).join())
        .expect("another thread makes two");
    if std::env::vars_os().any(|(name, _)| name.to_string_lossy().to_uppercase().starts_with("MIMALLOC_")) {
        return;
    }
    // What was left alone is mimalloc's default, so the number is the right one.
    // SAFETY: nothing writes to the options but `keep`, before there are threads.
    assert_eq!(unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) }, 1000);
}

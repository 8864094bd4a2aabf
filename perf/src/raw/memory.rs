//! What the allocator does with memory that is free.

use std::fs;

use libmimalloc_sys::{mi_option_set, mi_option_t};

/// mimalloc's number for the milliseconds that free memory is kept before the system gets it back (`MIMALLOC_PURGE_DELAY`).
const PURGE_DELAY: mi_option_t = 15;
/// Its value for "for ever".
const NEVER: i64 = -1;

/// From now on memory that is free stays with the process. What was given back has to be filled with zeros when it is asked for
/// again, and a virtual machine's host may have to find it first, in the middle of whatever is being measured.
///
/// False, and without effect, where this is not known to be the only thread: others might read the option meanwhile.
pub fn keep() -> bool {
    let threads = fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    if threads == 1 {
        // Safety: the options are plain variables, and there is no other thread.
        unsafe { mi_option_set(PURGE_DELAY, NEVER) };
    }
    threads == 1
}

/// How long memory that is free is kept, in milliseconds; for ever if negative.
#[cfg(test)]
pub fn kept_ms() -> i64 {
    // Safety: nothing writes to the options but `keep`, before there are threads.
    unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) }
}

#[test]
fn threads_beside_it_leave_the_option_alone() {
    // A test never runs on the process's only thread. What is left alone is mimalloc's default, so the number is the right one.
    assert!(!keep());
    assert_eq!(kept_ms(), 1000);
}

//! The only file that names std's atomics, cells and threads, or loom's or shuttle's in their place.
//!
//! Models are built with `RUSTFLAGS="--cfg loom"` (one part, every schedule, weak memory) or `--cfg shuttle` (the whole
//! engine, random schedules); everything else gets the standard library and pays nothing.

#[cfg(not(any(loom, shuttle)))]
mod imp {
    pub use std::hint::spin_loop;
    pub use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};
    pub use std::sync::{Arc, Condvar, Mutex, MutexGuard};
    pub use std::thread::{JoinHandle, Thread, park, yield_now};
    pub use std::time::Instant;

    /// Spawns a named thread, with a stack of so many bytes, or of the standard library's size.
    pub fn spawn(
        name: &str,
        stack: Option<usize>,
        body: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>> {
        let mut thread = std::thread::Builder::new().name(name.to_owned());
        if let Some(bytes) = stack {
            thread = thread.stack_size(bytes);
        }
        thread.spawn(body)
    }
}

#[cfg(not(loom))]
mod cell {
    use std::cell::UnsafeCell as StdUnsafeCell;

    /// `std::cell::UnsafeCell` with loom's access by closure, so that models see every access.
    #[derive(Debug, Default)]
    #[repr(transparent)]
    pub struct UnsafeCell<T: ?Sized>(StdUnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        /// A cell with this value.
        pub const fn new(value: T) -> Self {
            UnsafeCell(StdUnsafeCell::new(value))
        }

        /// The value.
        pub fn into_inner(self) -> T {
            self.0.into_inner()
        }
    }

    impl<T: ?Sized> UnsafeCell<T> {
        /// Calls `f` with a pointer to read from.
        #[inline(always)]
        pub fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        /// Calls `f` with a pointer to read from and write to.
        #[inline(always)]
        pub fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }

        /// A pointer to read from and write to for longer than one call.
        #[inline(always)]
        pub fn get_mut(&self) -> MutPtr<T> {
            MutPtr(self.0.get())
        }
    }

    /// A pointer into a cell. In models nobody else may access the cell while it exists.
    #[derive(Debug)]
    pub struct MutPtr<T: ?Sized>(*mut T);

    impl<T: ?Sized> MutPtr<T> {
        /// Calls `f` with the pointer.
        #[inline(always)]
        pub fn with<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0)
        }
    }
}

#[cfg(loom)]
mod cell {
    pub use loom::cell::{MutPtr, UnsafeCell};
}

#[cfg(loom)]
mod imp {
    pub use loom::hint::spin_loop;
    pub use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};
    pub use loom::sync::{Arc, Condvar, Mutex, MutexGuard};
    pub use loom::thread::{JoinHandle, Thread, park, yield_now};
    pub use std::time::Instant;

    /// Spawns a thread of the model; loom's threads have no names, and stacks of their own size.
    pub fn spawn(
        _name: &str,
        _stack: Option<usize>,
        body: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>> {
        Ok(loom::thread::spawn(body))
    }
}

#[cfg(shuttle)]
mod imp {
    pub use shuttle::hint::spin_loop;
    pub use shuttle::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};
    pub use shuttle::sync::{Arc, Condvar, Mutex, MutexGuard};
    pub use shuttle::thread::{JoinHandle, Thread, park, yield_now};

    use shuttle::rand::{RngCore, thread_rng};
    use std::time::Duration;

    /// A clock that goes as the schedule has it: whoever looks at it sees any time, from nanoseconds to milliseconds.
    #[derive(Clone, Copy, Debug)]
    pub struct Instant(());

    impl Instant {
        /// A moment.
        pub fn now() -> Self {
            Instant(())
        }

        /// How long ago it was, this time.
        pub fn elapsed(&self) -> Duration {
            let random = thread_rng().next_u64();
            Duration::from_nanos((random >> 8) % (1 << (random % 24)))
        }
    }

    /// Spawns a thread of the model; the model says how large stacks are.
    pub fn spawn(
        name: &str,
        _stack: Option<usize>,
        body: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>> {
        shuttle::thread::Builder::new().name(name.to_owned()).spawn(body)
    }
}

pub use cell::{MutPtr, UnsafeCell};
pub use imp::*;
pub use std::cell::{Cell, RefCell};
pub use std::sync::OnceLock;

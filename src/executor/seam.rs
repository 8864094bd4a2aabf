//! The only file that names crossbeam's channels: bounded queues, and the wait for the first of several.
//!
//! Models get locked queues with the same interface, because crossbeam has no shim for loom and shuttle. Whoever waits
//! there hangs a bell on each queue that it waits for, and each change of a queue rings the bells on it. In a model no time
//! passes: what has a limit in time ends at once where it would have to wait.

#[cfg(not(any(loom, shuttle)))]
mod imp {
    use std::convert::Infallible;

    use crossbeam::channel::select;
    pub use crossbeam::channel::{
        Receiver, RecvError, RecvTimeoutError, Select, SendTimeoutError, Sender, TryRecvError, TrySendError,
        bounded,
    };

    /// Waits for what comes out of `from`, or until `end` is disconnected, which is `None`.
    pub fn recv_until<T>(from: &Receiver<T>, end: &Receiver<Infallible>) -> Option<Result<T, RecvError>> {
        select! {
            recv(from) -> message => Some(message),
            recv(end) -> _ => None,
        }
    }

    /// Sends `message` as soon as there is room. It comes back if nobody can receive it, or once `end` is disconnected.
    pub fn send_until<T>(to: &Sender<T>, message: T, end: &Receiver<Infallible>) -> Result<(), T> {
        let mut select = Select::new();
        let room = select.send(to);
        select.recv(end);
        let ready = select.select();
        if ready.index() == room {
            return ready.send(to, message).map_err(|error| error.0);
        }
        let _disconnected = ready.recv(end);
        Err(message)
    }
}

#[cfg(any(loom, shuttle))]
mod imp {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    // Not the model's: how often an end was cloned is counted under the lock.
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    pub use crossbeam::channel::{
        RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError, TrySendError,
    };

    use crate::sync::{Condvar, Mutex, MutexGuard};

    /// Poisoned or not: shuttle's threads share one thread of the system, and so what it knows of panics.
    fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// What one waiting thread is woken by.
    struct Bell {
        rung: Mutex<bool>,
        ring: Condvar,
    }

    struct Inside<T> {
        messages: VecDeque<T>,
        senders: usize,
        receivers: usize,
        bells: Vec<Arc<Bell>>,
    }

    struct Channel<T> {
        inside: Mutex<Inside<T>>,
        capacity: usize,
    }

    impl<T> Channel<T> {
        /// Does `step`, and wakes all who wait for a change.
        fn change<R>(&self, step: impl FnOnce(&mut Inside<T>) -> R) -> R {
            let mut inside = locked(&self.inside);
            let result = step(&mut inside);
            let bells = std::mem::take(&mut inside.bells);
            drop(inside);
            for bell in bells {
                *locked(&bell.rung) = true;
                bell.ring.notify_one();
            }
            result
        }
    }

    /// The sending end.
    pub struct Sender<T>(Arc<Channel<T>>);

    /// The receiving end.
    pub struct Receiver<T>(Arc<Channel<T>>);

    /// A queue for `capacity` messages.
    pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
        let inside = Inside { messages: VecDeque::new(), senders: 1, receivers: 1, bells: Vec::new() };
        let channel = Arc::new(Channel { inside: Mutex::new(inside), capacity });
        (Sender(Arc::clone(&channel)), Receiver(channel))
    }

    impl<T> Clone for Sender<T> {
        fn clone(&self) -> Self {
            locked(&self.0.inside).senders += 1;
            Sender(Arc::clone(&self.0))
        }
    }

    impl<T> Clone for Receiver<T> {
        fn clone(&self) -> Self {
            locked(&self.0.inside).receivers += 1;
            Receiver(Arc::clone(&self.0))
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            self.0.change(|inside| inside.senders -= 1);
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            // The last one takes with it what nobody will receive.
            let left = self.0.change(|inside| {
                inside.receivers -= 1;
                if inside.receivers == 0 { std::mem::take(&mut inside.messages) } else { VecDeque::new() }
            });
            drop(left);
        }
    }

    impl<T> std::fmt::Debug for Sender<T> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Sender")
        }
    }

    impl<T> std::fmt::Debug for Receiver<T> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Receiver")
        }
    }

    impl<T> Sender<T> {
        /// As crossbeam's.
        pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
            let capacity = self.0.capacity;
            self.0.change(|inside| {
                if inside.receivers == 0 {
                    Err(TrySendError::Disconnected(message))
                } else if inside.messages.len() >= capacity {
                    Err(TrySendError::Full(message))
                } else {
                    inside.messages.push_back(message);
                    Ok(())
                }
            })
        }

        /// As crossbeam's.
        pub fn send(&self, mut message: T) -> Result<(), SendError<T>> {
            loop {
                message = match self.try_send(message) {
                    Ok(()) => return Ok(()),
                    Err(TrySendError::Disconnected(message)) => return Err(SendError(message)),
                    Err(TrySendError::Full(message)) => message,
                };
                let mut select = Select::new();
                select.send(self);
                select.ready();
            }
        }

        /// As crossbeam's, at the end of its time.
        pub fn send_deadline(&self, message: T, _: Instant) -> Result<(), SendTimeoutError<T>> {
            self.try_send(message).map_err(|error| match error {
                TrySendError::Disconnected(message) => SendTimeoutError::Disconnected(message),
                TrySendError::Full(message) => SendTimeoutError::Timeout(message),
            })
        }
    }

    impl<T> Receiver<T> {
        /// As crossbeam's.
        pub fn try_recv(&self) -> Result<T, TryRecvError> {
            self.0.change(|inside| match inside.messages.pop_front() {
                Some(message) => Ok(message),
                None if inside.senders == 0 => Err(TryRecvError::Disconnected),
                None => Err(TryRecvError::Empty),
            })
        }

        /// As crossbeam's.
        pub fn recv(&self) -> Result<T, RecvError> {
            loop {
                match self.try_recv() {
                    Ok(message) => return Ok(message),
                    Err(TryRecvError::Disconnected) => return Err(RecvError),
                    Err(TryRecvError::Empty) => {}
                }
                let mut select = Select::new();
                select.recv(self);
                select.ready();
            }
        }

        /// As crossbeam's, at the end of its time.
        pub fn recv_timeout(&self, _: Duration) -> Result<T, RecvTimeoutError> {
            self.try_recv().map_err(|error| match error {
                TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
                TryRecvError::Empty => RecvTimeoutError::Timeout,
            })
        }

        /// As crossbeam's.
        pub fn iter(&self) -> impl Iterator<Item = T> {
            std::iter::from_fn(|| self.recv().ok())
        }

        /// As crossbeam's.
        pub fn len(&self) -> usize {
            locked(&self.0.inside).messages.len()
        }

        /// As crossbeam's.
        pub fn capacity(&self) -> Option<usize> {
            Some(self.0.capacity)
        }
    }

    /// Waits for what comes out of `from`, or until `end` is disconnected, which is `None`.
    pub fn recv_until<T>(from: &Receiver<T>, end: &Receiver<Infallible>) -> Option<Result<T, RecvError>> {
        loop {
            match from.try_recv() {
                Ok(message) => return Some(Ok(message)),
                Err(TryRecvError::Disconnected) => return Some(Err(RecvError)),
                Err(TryRecvError::Empty) => {}
            }
            let mut select = Select::new();
            select.recv(from);
            if select.recv(end) == select.ready() {
                return None;
            }
        }
    }

    /// Sends `message` as soon as there is room. It comes back if nobody can receive it, or once `end` is disconnected.
    pub fn send_until<T>(to: &Sender<T>, mut message: T, end: &Receiver<Infallible>) -> Result<(), T> {
        loop {
            message = match to.try_send(message) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Disconnected(message)) => return Err(message),
                Err(TrySendError::Full(message)) => message,
            };
            let mut select = Select::new();
            select.send(to);
            if select.recv(end) == select.ready() {
                return Err(message);
            }
        }
    }

    /// An operation that can be waited for.
    trait Operation {
        /// True if it would not have to wait now; else `bell` rings when that may have changed.
        fn ready(&self, bell: &Arc<Bell>) -> bool;
    }

    impl<T> Operation for Sender<T> {
        fn ready(&self, bell: &Arc<Bell>) -> bool {
            let mut inside = locked(&self.0.inside);
            let ready = inside.receivers == 0 || inside.messages.len() < self.0.capacity;
            inside.bells.extend((!ready).then(|| Arc::clone(bell)));
            ready
        }
    }

    impl<T> Operation for Receiver<T> {
        fn ready(&self, bell: &Arc<Bell>) -> bool {
            let mut inside = locked(&self.0.inside);
            let ready = inside.senders == 0 || !inside.messages.is_empty();
            inside.bells.extend((!ready).then(|| Arc::clone(bell)));
            ready
        }
    }

    /// As crossbeam's; where several operations are ready it is the first.
    #[derive(Default)]
    pub struct Select<'a>(Vec<&'a dyn Operation>);

    impl<'a> Select<'a> {
        /// As crossbeam's.
        pub fn new() -> Self {
            Select(Vec::new())
        }

        /// As crossbeam's.
        pub fn send<T>(&mut self, to: &'a Sender<T>) -> usize {
            self.0.push(to);
            self.0.len() - 1
        }

        /// As crossbeam's.
        pub fn recv<T>(&mut self, from: &'a Receiver<T>) -> usize {
            self.0.push(from);
            self.0.len() - 1
        }

        /// As crossbeam's.
        pub fn ready(&mut self) -> usize {
            loop {
                let bell = Arc::new(Bell { rung: Mutex::new(false), ring: Condvar::new() });
                if let Some(ready) = self.0.iter().position(|operation| operation.ready(&bell)) {
                    return ready;
                }
                let mut rung = locked(&bell.rung);
                while !*rung {
                    rung = bell.ring.wait(rung).unwrap_or_else(|poisoned| poisoned.into_inner());
                }
            }
        }
    }
}

pub use imp::*;

//! A value that many tasks watch, like tokio's `sync::watch`: only the newest value counts.
//!
//! tokio's version wakes its watchers in random order. This one wakes them in the order in which they began to wait, so that a simulation
//! on one thread can be repeated. It is for values that change seldom and have few watchers.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use tokio::sync::Notify;

/// All senders are gone, so the value will not change any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody changes the value any more")]
pub struct Closed;

#[derive(Debug)]
struct Shared<T> {
    value: Mutex<T>,
    /// Number of changes. Incremented while the value is locked.
    version: AtomicU64,
    changed: Notify,
    senders: AtomicUsize,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    fn is_closed(&self) -> bool {
        self.senders.load(Ordering::Acquire) == 0
    }
}

/// Changes the value.
#[derive(Debug)]
pub struct Sender<T>(Arc<Shared<T>>);

/// Watches the value.
#[derive(Debug)]
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

/// Creates a value with a sender and a receiver.
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

impl<T> Sender<T> {
    /// Creates a value without receivers.
    pub fn new(value: T) -> Self {
        Self(Arc::new(Shared {
            value: Mutex::new(value),
            version: AtomicU64::new(0),
            changed: Notify::new(),
            senders: AtomicUsize::new(1),
        }))
    }

    /// Creates a receiver. The present value counts as seen.
    pub fn subscribe(&self) -> Receiver<T> {
        let seen = self.0.version();
        Receiver { shared: Arc::clone(&self.0), seen }
    }

    /// Locks the value. It cannot be changed while the guard is held.
    pub fn borrow(&self) -> MutexGuard<'_, T> {
        self.0.lock()
    }

    /// Replaces the value, and returns the old one.
    pub fn send_replace(&self, value: T) -> T {
        let old = {
            let mut present = self.0.lock();
            self.0.version.fetch_add(1, Ordering::AcqRel);
            std::mem::replace(&mut *present, value)
        };
        self.0.changed.notify_waiters();
        old
    }

    /// Changes the value, and wakes the receivers if `change` returns true. Returns the same.
    pub fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let modified = {
            let mut present = self.0.lock();
            let modified = change(&mut present);
            self.0.version.fetch_add(u64::from(modified), Ordering::AcqRel);
            modified
        };
        if modified {
            self.0.changed.notify_waiters();
        }
        modified
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.changed.notify_waiters();
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), seen: self.seen }
    }
}

impl<T> Receiver<T> {
    /// Locks the value. It cannot be changed while the guard is held.
    pub fn borrow(&self) -> MutexGuard<'_, T> {
        self.shared.lock()
    }

    /// Does the same as [`Self::borrow`], and marks the value as seen.
    pub fn borrow_and_update(&mut self) -> MutexGuard<'_, T> {
        let present = self.shared.lock();
        self.seen = self.shared.version();
        present
    }

    /// Whether the value has changed since it was seen.
    pub fn has_changed(&self) -> bool {
        self.shared.version() != self.seen
    }

    /// Marks the present value as not seen.
    pub fn mark_changed(&mut self) {
        self.seen = self.shared.version().wrapping_sub(1);
    }

    /// Waits until the value has changed since it was seen, and counts it as seen. May be dropped.
    ///
    /// # Errors
    /// All senders are gone, so the value will not change any more.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        loop {
            // Registered now, so that a notification before the wait is not missed.
            let changed = self.shared.changed.notified();
            // Read before the check below, so that the last sender's change is seen there.
            let closed = self.shared.is_closed();
            let version = self.shared.version();
            if version != self.seen {
                self.seen = version;
                return Ok(());
            }
            if closed {
                return Err(Closed);
            }
            changed.await;
        }
    }

    /// Waits until `holds` is true for the value, and marks it as seen. May be dropped.
    ///
    /// # Errors
    /// It is not true, and the value will not change any more.
    pub async fn wait_for(&mut self, mut holds: impl FnMut(&T) -> bool) -> Result<(), Closed> {
        loop {
            let changed = self.shared.changed.notified();
            let closed = self.shared.is_closed();
            let held = {
                let present = self.shared.lock();
                self.seen = self.shared.version();
                holds(&present)
            };
            if held {
                return Ok(());
            }
            if closed {
                return Err(Closed);
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn watchers_see_the_newest_value_and_are_woken_in_the_order_of_their_waiting() {
        let (sender, receiver) = channel(0);
        let (order, mut tasks) = (Arc::new(Mutex::new(Vec::new())), JoinSet::new());
        for number in 0..20 {
            let (mut receiver, order) = (receiver.clone(), Arc::clone(&order));
            tasks.spawn(async move {
                receiver.wait_for(|value| *value == 2).await.expect("it comes");
                order.lock().unwrap().push(number);
            });
        }
        tokio::task::yield_now().await;
        for value in [1, 2] {
            sender.send_replace(value);
            tokio::task::yield_now().await;
        }
        tasks.join_all().await;
        assert_eq!(*order.lock().unwrap(), (0..20).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_change_is_seen_once_and_also_where_it_came_before_the_waiting() {
        let (sender, mut receiver) = channel(0);
        assert!(receiver.changed().now_or_never().is_none());
        sender.send_replace(1);
        sender.send_replace(2);
        receiver.changed().await.expect("changed");
        assert_eq!(*receiver.borrow(), 2);
        assert!(receiver.changed().now_or_never().is_none());
        assert!(!sender.send_if_modified(|_| false));
        assert!(receiver.changed().now_or_never().is_none());
        assert!(sender.send_if_modified(|value| std::mem::replace(value, 3) != 3));
        assert_eq!(*receiver.borrow_and_update(), 3);
        assert!(receiver.changed().now_or_never().is_none(), "the change was seen already");
    }

    #[tokio::test]
    async fn the_end_of_the_last_sender_ends_the_waiting_but_hides_no_value() {
        let (sender, mut receiver) = channel(0);
        let other = sender.clone();
        drop(sender);
        let mut late = receiver.clone();
        let waiting = tokio::spawn(async move { late.wait_for(|value| *value == 9).await });
        tokio::task::yield_now().await;
        other.send_replace(1);
        drop(other);
        assert_eq!(waiting.await.expect("no panic"), Err(Closed));
        assert_eq!(receiver.wait_for(|value| *value == 1).await, Ok(()));
        assert_eq!(receiver.changed().await, Err(Closed));
    }
}

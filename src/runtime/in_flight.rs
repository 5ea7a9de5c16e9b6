//! The limits on events between intake and completion, by number and by bytes, and the limit of each twin. The number may temporarily be
//! lower than memory allows ([`crate::domain::in_flight_limit`]).

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::sync::Semaphore;

use super::watch;
use crate::domain::id::TwinKey;

/// The limits count as nearly full when less than this part of the room is left. With the default limits, a single message is smaller than
/// that.
const ROOM_LEFT: usize = 16;

/// Shared by partition loops, which acquire permits, and the holders of events, which release them at completion.
#[derive(Debug)]
pub struct InFlight {
    events: Semaphore,
    bytes: Semaphore,
    most_events: u32,
    most_bytes: u32,
    withheld: Mutex<Withheld>,
    /// Whether permits are owed. Usually false.
    owes: AtomicBool,
    /// Number of events that have given back their permits since the start.
    given_back: AtomicU64,
    /// Twins with so many waiting events that no more may be dispatched. Usually none.
    full: watch::Sender<HashSet<TwinKey>>,
    /// Whether `full` has any twins: a cheap check before the lookup.
    any_full: AtomicBool,
}

/// Events that may not be in flight at present, although memory allows them.
#[derive(Debug, Default)]
struct Withheld {
    /// Permits that are already removed from the limit.
    events: u32,
    /// Permits that are still in flight, and are removed when they are given back.
    owed: u32,
}

/// The part of the limits that one or more events hold. Dropping it gives that part back, wherever it is dropped: with a completed event,
/// with a batch whose dispatch was cancelled, or with a router that was aborted.
#[derive(Debug)]
#[must_use = "the room is free again as soon as this is dropped"]
pub struct Permit {
    limits: Arc<InFlight>,
    events: u32,
    bytes: u32,
}

impl Permit {
    /// Number of bytes that it holds.
    pub fn bytes(&self) -> usize {
        self.bytes as usize
    }

    /// Takes over the part that `other` holds. Both are then given back together: one update of the limits for many events.
    pub fn join(&mut self, mut other: Self) {
        if Arc::ptr_eq(&self.limits, &other.limits)
            && let Some(events) = self.events.checked_add(other.events)
            && let Some(bytes) = self.bytes.checked_add(other.bytes)
        {
            (self.events, self.bytes) = (events, bytes);
            (other.events, other.bytes) = (0, 0);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.events > 0 && !planted!(PermitLeaks) {
            self.limits.give_back(self.events);
            self.limits.bytes.add_permits(self.bytes as usize);
        }
    }
}

impl InFlight {
    /// Creates limits of `events` events and `bytes` bytes. One event may always pass, however large it is.
    pub fn new(events: usize, bytes: usize) -> Arc<Self> {
        let clamp = |value: usize| u32::try_from(value.clamp(1, Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        let (most_events, most_bytes) = (clamp(events), clamp(bytes));
        Arc::new(Self {
            events: Semaphore::new(most_events as usize),
            bytes: Semaphore::new(most_bytes as usize),
            most_events,
            most_bytes,
            withheld: Mutex::default(),
            owes: AtomicBool::new(false),
            given_back: AtomicU64::new(0),
            full: watch::Sender::new(HashSet::new()),
            any_full: AtomicBool::new(false),
        })
    }

    /// Sets how many events may be in flight from now on, within what memory allows. If there are more, they are completed, and intake
    /// waits.
    pub fn set_room(&self, events: u32) {
        let wanted = self.most_events.saturating_sub(events.max(1));
        let mut withheld = self.withheld.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(more) = wanted.checked_sub(withheld.events) {
            let taken = u32::try_from(self.events.forget_permits(more as usize)).unwrap_or(u32::MAX);
            withheld.events += taken;
            withheld.owed = more.saturating_sub(taken);
        } else {
            let freed = withheld.events - wanted;
            *withheld = Withheld { events: wanted, owed: 0 };
            self.events.add_permits(freed as usize);
        }
        self.owes.store(withheld.owed > 0, Ordering::Release);
    }

    /// How many events may be in flight at present.
    pub fn room(&self) -> u32 {
        let withheld = self.withheld.lock().unwrap_or_else(PoisonError::into_inner);
        self.most_events.saturating_sub(withheld.events + withheld.owed)
    }

    /// Number of events that have given back their permits since the start.
    pub fn given_back(&self) -> u64 {
        self.given_back.load(Ordering::Relaxed) // an independent counter
    }

    fn give_back(&self, events: u32) {
        self.given_back.fetch_add(u64::from(events), Ordering::Relaxed);
        let mut free = events;
        if self.owes.load(Ordering::Acquire) {
            let mut withheld = self.withheld.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = withheld.owed.min(events);
            withheld.owed -= kept;
            withheld.events += kept;
            free -= kept;
            self.owes.store(withheld.owed > 0, Ordering::Release);
        }
        self.events.add_permits(free as usize);
    }

    /// Publishes the twins of which no more events may be dispatched for now.
    pub fn set_full(&self, twins: &HashSet<TwinKey>) {
        let changed = |full: &mut HashSet<TwinKey>| {
            let news = full != twins;
            if news {
                full.clone_from(twins);
            }
            news
        };
        self.full.send_if_modified(changed);
        self.any_full.store(!twins.is_empty(), Ordering::Release);
    }

    /// Whether no more events of this twin may be dispatched for now.
    pub fn is_twin_full(&self, twin: &TwinKey) -> bool {
        self.any_full.load(Ordering::Acquire) && self.full.borrow().contains(twin)
    }

    /// Waits until more events of this twin may be dispatched. Dropping the future changes nothing.
    pub async fn twin_has_room(&self, twin: &TwinKey) {
        // `self` owns the sender, so it cannot be gone.
        let _ = self.full.subscribe().wait_for(|full| !full.contains(twin)).await;
    }

    /// Waits for room for one event of `weight` bytes. Dropping the future takes nothing.
    pub async fn acquire(self: &Arc<Self>, weight: usize) -> Permit {
        let bytes = self.bytes_of(weight);
        // Neither semaphore is ever closed, so acquiring cannot fail.
        if let Ok(permit) = self.events.acquire().await
            && let Ok(more) = self.bytes.acquire_many(bytes).await
        {
            permit.forget();
            more.forget();
        }
        Permit { limits: Arc::clone(self), events: 1, bytes }
    }

    /// Takes room for one event of `weight` bytes, if there is room at once.
    pub fn try_acquire(self: &Arc<Self>, weight: usize) -> Option<Permit> {
        let bytes = self.bytes_of(weight);
        let permit = self.events.try_acquire().ok()?;
        let more = self.bytes.try_acquire_many(bytes).ok()?;
        permit.forget();
        more.forget();
        Some(Permit { limits: Arc::clone(self), events: 1, bytes })
    }

    fn bytes_of(&self, weight: usize) -> u32 {
        u32::try_from(weight).unwrap_or(u32::MAX).min(self.most_bytes)
    }

    /// Whether intake has to wait.
    pub fn is_full(&self) -> bool {
        self.events.available_permits() == 0 || self.bytes.available_permits() == 0
    }

    /// Whether so little room is left that intake may have to wait at the next event, by number or by bytes.
    pub fn is_nearly_full(&self) -> bool {
        let (events, bytes) = self.used();
        let nearly = |used: usize, most: u32| used >= most as usize - most as usize / ROOM_LEFT;
        nearly(events, self.room()) || nearly(bytes, self.most_bytes)
    }

    /// Number of events and of bytes in flight.
    pub fn used(&self) -> (usize, usize) {
        let withheld = self.withheld.lock().unwrap_or_else(PoisonError::into_inner).events as usize;
        (
            (self.most_events as usize).saturating_sub(self.events.available_permits() + withheld),
            (self.most_bytes as usize).saturating_sub(self.bytes.available_permits()),
        )
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn intake_waits_for_room_in_events_and_in_bytes() {
        let limits = InFlight::new(2, 100);
        let small = limits.acquire(10).await;
        assert!(limits.acquire(95).now_or_never().is_none(), "no bytes are left");
        let second = limits.acquire(20).await;
        assert!(limits.acquire(1).now_or_never().is_none(), "no events are left");
        assert_eq!(limits.used(), (2, 30));
        drop(small);
        drop(second);
        assert_eq!(limits.used(), (0, 0));
    }

    #[tokio::test]
    async fn joined_permits_are_returned_once() {
        let (limits, others) = (InFlight::new(10, 100), InFlight::new(10, 100));
        let mut joined = limits.acquire(10).await;
        for bytes in [20, 30] {
            joined.join(limits.acquire(bytes).await);
        }
        joined.join(others.acquire(50).await);
        assert_eq!(
            (limits.used(), others.used()),
            ((3, 60), (0, 0)),
            "permits of other limits must be returned at once"
        );
        drop(joined);
        assert_eq!(limits.used(), (0, 0));
    }

    #[tokio::test]
    async fn nearly_full_is_told_before_intake_waits_in_events_and_in_bytes() {
        let limits = InFlight::new(32, 3_200);
        let mut small: Vec<_> = (0..29).map(|_| limits.try_acquire(1).expect("room")).collect();
        assert!(!limits.is_nearly_full());
        small.push(limits.try_acquire(1).expect("room"));
        assert!(limits.is_nearly_full() && !limits.is_full());
        drop(small);
        let large = limits.try_acquire(2_999).expect("room");
        assert!(!limits.is_nearly_full());
        let more = limits.try_acquire(1).expect("room");
        assert!(limits.is_nearly_full() && !limits.is_full());
        drop((large, more));
        assert!(!limits.is_nearly_full());
    }

    #[tokio::test]
    async fn a_lower_limit_applies_when_permits_return_and_a_higher_one_at_once() {
        let limits = InFlight::new(10, 1_000);
        let mut held: Vec<_> = (0..8).map(|_| limits.try_acquire(1).expect("room")).collect();
        limits.set_room(4);
        assert_eq!((limits.used().0, limits.room()), (8, 4));
        let waiting = limits.acquire(1);
        tokio::pin!(waiting);
        for left in (4..8).rev() {
            held.pop();
            assert!(waiting.as_mut().now_or_never().is_none(), "{left} events are still in flight");
            assert_eq!(limits.used().0, left);
        }
        held.pop();
        held.push(waiting.as_mut().now_or_never().expect("one place is free"));
        assert!(limits.try_acquire(1).is_none());
        assert!(limits.is_nearly_full() && limits.is_full());
        limits.set_room(6);
        let more = [limits.try_acquire(1).expect("room"), limits.try_acquire(1).expect("room")];
        assert!(limits.try_acquire(1).is_none());
        limits.set_room(10);
        drop((held, more));
        assert_eq!((limits.used(), limits.room(), limits.given_back()), ((0, 0), 10, 11));
        assert!(
            (0..10)
                .map(|_| limits.try_acquire(1))
                .all(|permit| permit.is_some_and(|permit| permit.bytes() == 1))
        );
    }

    #[tokio::test]
    async fn an_event_larger_than_the_limit_passes_alone() {
        let limits = InFlight::new(10, 100);
        let large = limits.acquire(1_000_000).await;
        assert!(limits.acquire(1).now_or_never().is_none());
        drop(large);
        assert_eq!(limits.used(), (0, 0));
    }
}

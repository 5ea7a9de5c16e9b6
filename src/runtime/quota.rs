//! Keeps the calls to one IoT hub within the configured share of its quota.
//!
//! [`Bucket`] says when a call may be made, and this module waits for it. Callers of one purpose are served in the order in which they ask.
//! At most one of them per purpose sleeps at a time, so none wakes in vain. If the hub throttles all the same, the bucket is closed for as
//! long as the hub asks, or for longer each time.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};

use crate::{
    domain::{
        quota::{Bucket, Purpose, Tier, each_of},
        retry::Backoff,
    },
    ports::Call,
    runtime::jitter::jitter,
};

/// The first pause after the hub throttled without a hint how long to wait.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause without a hint.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A longer hint is followed only for this time. Then one call checks whether the hub still throttles.
const LONGEST_HINT: Duration = Duration::from_secs(600);

/// Rate limiter for the quota of one hub.
#[derive(Debug)]
pub struct RateLimiter {
    gets: Gate,
    queries: Gate,
}

impl RateLimiter {
    /// Creates a limiter for `share` (a fraction) of the quota of a hub with `units` units of `tier`.
    pub fn new(tier: Tier, units: u32, share: f64) -> Self {
        Self {
            gets: Gate::new(tier.gets_per_second(units) * share),
            queries: Gate::new(tier.queries_per_second(units) * share),
        }
    }

    /// Sets the number of replicas that share the quota from now on.
    pub fn share_among(&self, replicas: usize) {
        self.gets.share_among(replicas);
        self.queries.share_among(replicas);
    }

    /// Waits until a point read may be made. May be dropped at any time, and then takes nothing.
    pub async fn get(&self, purpose: Purpose) {
        self.gets.pass(purpose).await;
    }

    /// Waits until a page of a query may be requested. May be dropped at any time, and then takes nothing.
    pub async fn query(&self, purpose: Purpose) {
        self.queries.pass(purpose).await;
    }

    /// Records that the hub throttled a call, with its `retry_after` hint if there was one.
    pub fn throttled(&self, call: Call, retry_after: Option<Duration>) {
        let fraction = jitter();
        self.gate(call).with(|state, now| state.throttled(retry_after, fraction, now));
    }

    /// Records that the hub answered a call.
    pub fn answered(&self, call: Call) {
        self.gate(call).with(State::answered);
    }

    /// How many calls of this kind were let through.
    pub fn calls(&self, call: Call) -> u64 {
        self.gate(call).passed.load(Ordering::Relaxed)
    }

    /// Whether a caller of this purpose waits at this moment to read a twin, and to request a page.
    pub fn waits(&self, purpose: Purpose) -> (bool, bool) {
        (self.gets.waits(purpose), self.queries.waits(purpose))
    }

    /// Point reads per second and pages per second that this replica may request.
    pub fn rates(&self) -> (f64, f64) {
        let rate = |gate: &Gate| gate.with(|state, _| state.bucket.per_second());
        (rate(&self.gets), rate(&self.queries))
    }

    const fn gate(&self, call: Call) -> &Gate {
        match call {
            Call::Get => &self.gets,
            Call::Query => &self.queries,
        }
    }
}

/// The queue for callers of one kind of call.
#[derive(Debug)]
struct Gate {
    /// Rate of all replicas together.
    per_second: f64,
    start: Instant,
    state: Mutex<State>,
    /// One turn per purpose. Semaphores give turns in the order of asking.
    turns: [Semaphore; 4],
    /// Wakes the sleeping callers, whose wait depends on the rate.
    rate_changed: Notify,
    passed: AtomicU64,
}

impl Gate {
    fn new(per_second: f64) -> Self {
        Self {
            per_second,
            start: Instant::now(),
            state: Mutex::new(State::new(per_second)),
            turns: [const { Semaphore::const_new(1) }; 4],
            rate_changed: Notify::new(),
            passed: AtomicU64::new(0),
        }
    }

    async fn pass(&self, purpose: Purpose) {
        let turn = self.turn(purpose);
        // The semaphore is never closed. If it were, the callers would only wait at the bucket itself.
        let _turn = turn.acquire().await.ok();
        loop {
            let rate_changed = self.rate_changed.notified(); // notifications count from this moment
            let taken = self.with(|state, now| state.bucket.take(purpose, now));
            match taken {
                Ok(()) => break,
                Err(wait) => tokio::select! {
                    biased;
                    () = tokio::time::sleep(wait) => {}
                    () = rate_changed => {}
                },
            }
        }
        self.passed.fetch_add(1, Ordering::Relaxed);
    }

    const fn turn(&self, purpose: Purpose) -> &Semaphore {
        match purpose {
            Purpose::Repair => &self.turns[0],
            Purpose::Request => &self.turns[1],
            Purpose::Backfill => &self.turns[2],
            Purpose::Audit => &self.turns[3],
        }
    }

    /// The caller with the turn waits for the bucket. If a token is there, it gives the turn back at once.
    fn waits(&self, purpose: Purpose) -> bool {
        self.turn(purpose).available_permits() == 0
    }

    fn share_among(&self, replicas: usize) {
        self.with(|state, now| state.bucket.set_rate(each_of(replicas, self.per_second), now));
        self.rate_changed.notify_waiters();
    }

    /// Calls `act` with the time since the start.
    fn with<T>(&self, act: impl FnOnce(&mut State, Duration) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut state, self.start.elapsed())
    }
}

/// The bucket and its pauses, without a clock.
#[derive(Debug)]
struct State {
    bucket: Bucket,
    pauses: Backoff,
    paused_until: Duration,
}

impl State {
    fn new(per_second: f64) -> Self {
        Self {
            bucket: Bucket::new(per_second),
            pauses: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
            paused_until: Duration::ZERO,
        }
    }

    /// Calls that were in flight together are throttled together. They are one signal, and only a hint may lengthen the pause that the
    /// first of them began. `jitter` is uniform in 0..1.
    fn throttled(&mut self, retry_after: Option<Duration>, jitter: f64, now: Duration) {
        let first = now >= self.paused_until;
        let pause = match retry_after {
            // Replicas with the same hint must not all return at the same moment.
            Some(hint) => hint.min(LONGEST_HINT) + FIRST_PAUSE.mul_f64(jitter.clamp(0.0, 1.0)),
            None if first => self.pauses.next(1.0, None),
            None => return,
        };
        self.paused_until = self.paused_until.max(now + pause);
        self.bucket.close(pause, now);
    }

    fn answered(&mut self, now: Duration) {
        // A call that was sent before the pause says nothing about it.
        if now >= self.paused_until {
            self.pauses.reset();
        }
    }
}

#[cfg(test)]
mod tests;

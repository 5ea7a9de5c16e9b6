//! Pauses are tested without a clock, and waits with the real clock. Lower bounds are exact. Upper bounds only keep a test from hanging.

use std::sync::Arc;

use futures::{FutureExt as _, future::join_all, poll};

use super::*;

const MOST: Duration = Duration::from_secs(20);

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// 100 point reads per second, and 100 pages.
fn rate_limiter() -> RateLimiter {
    RateLimiter { gets: Gate::new(100.0), queries: Gate::new(100.0) }
}

/// Takes everything that is available for a purpose.
fn drain(rate_limiter: &RateLimiter, purpose: Purpose) {
    while rate_limiter.get(purpose).now_or_never().is_some() {}
}

async fn limited<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(MOST, future).await.expect("in time")
}

#[tokio::test]
async fn calls_are_no_faster_than_our_share_of_the_quota() {
    // A tenth of 500 point reads per second. The calls of one second are available in advance.
    let rate_limiter = RateLimiter::new(Tier::S3, 1, 0.1);
    let begin = Instant::now();
    limited(join_all((0..75).map(|_| rate_limiter.get(Purpose::Repair)))).await;
    assert!(begin.elapsed() >= Duration::from_millis(490), "{:?}", begin.elapsed());
    assert_eq!((rate_limiter.calls(Call::Get), rate_limiter.calls(Call::Query)), (75, 0));
    assert!(rate_limiter.query(Purpose::Audit).now_or_never().is_some(), "queries have a quota of their own");
    assert_eq!(rate_limiter.calls(Call::Query), 1);
}

#[tokio::test]
async fn a_replica_gets_its_part_and_whoever_sleeps_learns_of_it() {
    // One page in 20 s for all. A quarter of it is one page in 80 s.
    let rate_limiter = RateLimiter { gets: Gate::new(100.0), queries: Gate::new(0.05) };
    rate_limiter.share_among(4);
    assert_eq!((0..).take_while(|_| rate_limiter.get(Purpose::Repair).now_or_never().is_some()).count(), 25);
    assert!(rate_limiter.query(Purpose::Repair).now_or_never().is_some());
    let mut waiting = Box::pin(rate_limiter.query(Purpose::Repair));
    assert!(poll!(&mut waiting).is_pending());
    let gate = &rate_limiter.queries;
    gate.with(|state, now| state.bucket.set_rate(100.0, now)); // the wait at the old rate is not completed
    gate.rate_changed.notify_waiters();
    let begin = Instant::now();
    limited(waiting).await;
    assert!(begin.elapsed() < seconds(5), "took {:?}", begin.elapsed());
}

#[tokio::test]
async fn those_of_one_purpose_are_served_in_their_order() {
    let rate_limiter = rate_limiter();
    drain(&rate_limiter, Purpose::Repair);
    let served = Arc::new(Mutex::new(Vec::new()));
    let callers = (0..20).map(|caller| {
        let (rate_limiter, served) = (&rate_limiter, Arc::clone(&served));
        async move {
            rate_limiter.get(Purpose::Repair).await;
            served.lock().unwrap().push(caller);
        }
    });
    limited(join_all(callers)).await;
    assert_eq!(*served.lock().unwrap(), (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn repair_passes_an_audit_that_waits() {
    let rate_limiter = rate_limiter();
    drain(&rate_limiter, Purpose::Audit);
    let mut audit = Box::pin(rate_limiter.get(Purpose::Audit));
    assert!(poll!(&mut audit).is_pending());
    assert!(rate_limiter.get(Purpose::Repair).now_or_never().is_some(), "repairs must have their reserve");
    limited(audit).await;
}

#[tokio::test]
async fn a_caller_that_goes_away_takes_nothing_and_blocks_nobody() {
    let rate_limiter = rate_limiter();
    drain(&rate_limiter, Purpose::Repair);
    let calls = rate_limiter.calls(Call::Get);
    let mut first = Box::pin(rate_limiter.get(Purpose::Repair));
    let mut second = Box::pin(rate_limiter.get(Purpose::Repair));
    assert!(poll!(&mut first).is_pending());
    assert!(poll!(&mut second).is_pending());
    drop(first);
    limited(second).await;
    assert_eq!(rate_limiter.calls(Call::Get), calls + 1);
}

#[tokio::test]
async fn no_call_passes_during_a_pause_of_the_hub() {
    let rate_limiter = rate_limiter();
    let mut waiting = Box::pin(async {
        drain(&rate_limiter, Purpose::Repair);
        rate_limiter.get(Purpose::Repair).await;
    });
    assert!(poll!(&mut waiting).is_pending());
    let begin = Instant::now();
    rate_limiter.throttled(Call::Get, Some(Duration::from_millis(80)));
    assert!(
        rate_limiter.query(Purpose::Repair).now_or_never().is_some(),
        "queries have a quota of their own"
    );
    limited(waiting).await;
    assert!(begin.elapsed() >= Duration::from_millis(80), "{:?}", begin.elapsed());
}

#[test]
fn a_hint_is_followed_with_a_little_jitter_up_to_a_maximum() {
    let mut state = State::new(100.0);
    state.throttled(Some(seconds(10)), 0.25, seconds(1));
    assert_eq!(state.bucket.take(Purpose::Repair, seconds(2)), Err(Duration::from_millis(9250)));
    state.throttled(Some(seconds(3)), 0.0, seconds(2));
    assert_eq!(
        state.bucket.take(Purpose::Repair, seconds(2)),
        Err(Duration::from_millis(9250)),
        "a pause must not be shorter than the hint"
    );
    state.throttled(Some(Duration::MAX), 1.0, seconds(20));
    assert_eq!(state.bucket.take(Purpose::Repair, seconds(20)), Err(LONGEST_HINT + FIRST_PAUSE));
}

#[test]
fn pauses_grow_while_throttling_goes_on_and_start_over_after_an_answer() {
    let mut state = State::new(100.0);
    let mut now = Duration::ZERO;
    let mut pause = |state: &mut State| {
        for _ in 0..8 {
            state.throttled(None, 0.5, now); // calls that were in flight together count once
        }
        state.answered(now); // and an answer to an earlier call does not count
        let pause = state.bucket.take(Purpose::Repair, now).expect_err("closed");
        now += pause;
        pause.as_secs()
    };
    let pauses: Vec<_> = (0..7).map(|_| pause(&mut state)).collect();
    assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
    state.answered(seconds(1000));
    assert_eq!(pause(&mut state), 1);
}

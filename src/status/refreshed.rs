//! State that is refreshed only while the status is being viewed.
//!
//! Nothing waits for it: the status shows the last known state. Each refresh runs in its own task. While one is running, no other begins,
//! however long it takes. So a store that hangs holds one task and no more.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::domain::refresh::{Known, Refresh};

/// One refreshed value. Cheap to clone.
pub(super) struct Refreshed<T>(Arc<Inner<T>>);

impl<T> Clone for Refreshed<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Inner<T> {
    began: Instant,
    refresh: Mutex<Refresh<T>>,
    wanted: Notify,
}

impl<T: Clone + Send + 'static> Refreshed<T> {
    /// Refreshes at most once per `interval`. A refresh may take `limit`.
    pub(super) fn new(interval: Duration, limit: Duration) -> Self {
        let refresh = Mutex::new(Refresh::new(interval, limit));
        Self(Arc::new(Inner { began: Instant::now(), refresh, wanted: Notify::new() }))
    }

    /// The last known value. This also records that the status is being viewed, so a due refresh begins soon.
    pub(super) fn current(&self) -> Known<T> {
        let now = self.0.began.elapsed();
        let mut refresh = self.lock();
        refresh.requested(now);
        if refresh.is_due(now) {
            self.0.wanted.notify_one();
        }
        refresh.known(now)
    }

    /// Refreshes when due, until `stop`. Dropping it drops a running refresh.
    pub(super) async fn run<F>(self, mut ask: impl FnMut() -> F, stop: CancellationToken)
    where
        F: Future<Output = Result<T, String>>,
    {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.0.wanted.notified() => {}
            }
            let now = self.0.began.elapsed();
            if !self.lock().is_due(now) {
                continue;
            }
            self.lock().asked(now);
            let answer = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                answer = ask() => answer,
            };
            self.lock().answered(self.0.began.elapsed(), answer);
        }
    }

    /// Sets an answer, as if a refresh had returned it.
    #[cfg(test)]
    pub(super) fn answered(&self, answer: Result<T, String>) {
        self.lock().answered(self.0.began.elapsed(), answer);
    }

    fn lock(&self) -> MutexGuard<'_, Refresh<T>> {
        // Each change is complete, so the state is consistent even after a panic.
        self.0.refresh.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn it_is_asked_when_somebody_asks_and_only_then() {
        let refreshed = Refreshed::new(Duration::from_secs(60), Duration::from_secs(15));
        let (stop, asked) = (CancellationToken::new(), Arc::new(AtomicU32::new(0)));
        let count = Arc::clone(&asked);
        let ask = move || {
            let number = count.fetch_add(1, Ordering::Relaxed) + 1;
            async move { Ok(number) }
        };
        let task = tokio::spawn(refreshed.clone().run(ask, stop.clone()));
        tokio::task::yield_now().await;
        assert_eq!(asked.load(Ordering::Relaxed), 0, "without readers nothing may be asked");
        assert_eq!(refreshed.current(), Known::Asking);
        let answer = async {
            loop {
                if let Known::Answer(number, _) = refreshed.current() {
                    return number;
                }
                tokio::task::yield_now().await;
            }
        };
        assert_eq!(tokio::time::timeout(Duration::from_secs(10), answer).await.expect("in time"), 1);
        for _ in 0..100 {
            refreshed.current();
            tokio::task::yield_now().await;
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        stop.cancel();
        task.await.expect("ends");
    }
}

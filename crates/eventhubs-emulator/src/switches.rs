//! The state behind [`Faults`](super::Faults): active faults, and counters.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Instant,
};

use fe2o3_amqp_types::{
    definitions::{self, ErrorCondition},
    primitives::Symbol,
};
use tokio_util::sync::CancellationToken;

/// The state behind [`Faults`].
#[derive(Debug, Default)]
pub(super) struct Switches {
    pub(super) connections: Mutex<CancellationToken>,
    pub(super) refuse_until: Mutex<Option<Instant>>,
    pub(super) refuse_tokens_until: Mutex<Option<Instant>>,
    pub(super) busy: AtomicBool,
    pub(super) tokens_to_refuse: AtomicU32,
    pub(super) tokens_to_leave: AtomicU32,
    pub(super) accepted: AtomicU64,
    pub(super) closed: AtomicU64,
    pub(super) put_tokens: AtomicU64,
    pub(super) attaches: AtomicU64,
    pub(super) delivered: AtomicU64,
    pub(super) received: AtomicU64,
}

impl Switches {
    /// The token that is cancelled when the connections of this moment are cut.
    pub(super) fn connection_token(&self) -> CancellationToken {
        lock(&self.connections).clone()
    }

    pub(super) fn cut_connections(&self) {
        let current = std::mem::take(&mut *lock(&self.connections));
        current.cancel();
    }

    pub(super) fn refuses_connections(&self) -> bool {
        lock(&self.refuse_until).is_some_and(|until| Instant::now() < until)
    }

    /// Whether all readers are throttled.
    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire)
    }

    /// Whether this put-token request has to be answered with 401. Counts it if their number is limited.
    pub(super) fn refuses_token(&self) -> bool {
        lock(&self.refuse_tokens_until).is_some_and(|until| Instant::now() < until)
            || take_one(&self.tokens_to_refuse)
    }

    /// Whether the `$cbs` link has to be closed instead of answering this put-token request. Counts the
    /// request.
    pub(super) fn leaves_token(&self) -> bool {
        take_one(&self.tokens_to_leave)
    }
}

/// The error for a receiver that is throttled.
pub(super) fn server_busy() -> definitions::Error {
    let condition = ErrorCondition::Custom(Symbol::from("com.microsoft:server-busy"));
    let words = "the namespace is being throttled: wait 4 seconds and try again";
    definitions::Error::new(condition, words.to_owned(), None)
}

fn take_one(count: &AtomicU32) -> bool {
    count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| count.checked_sub(1)).is_ok()
}

/// A poisoned lock is safe to use: nothing that is done under these locks can panic.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

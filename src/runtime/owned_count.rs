//! Counts the partitions of a stream that this replica owns at this moment.
//!
//! A lease can run out at any time. The task that polls the leases may be waiting for storage then, so it cannot notice that. Each
//! partition's own task therefore counts again when it ends.

use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::telemetry::Metrics;

/// The count behind `twinsync_partitions_owned`.
#[derive(Clone)]
pub struct OwnedCount {
    stream: Arc<str>,
    metrics: Metrics,
    /// One entry per partition that this replica owned at the last poll: cancelled when its lease runs out, `None` if there is only one
    /// replica.
    leases: Arc<Mutex<Vec<Option<CancellationToken>>>>,
}

impl OwnedCount {
    /// Creates a count of 0.
    pub fn new(stream: &str, metrics: Metrics) -> Self {
        Self { stream: stream.into(), metrics, leases: Arc::default() }
    }

    /// Sets the partitions that this replica owns while their leases last.
    pub fn set(&self, leases: Vec<Option<CancellationToken>>) {
        *self.leases.lock().unwrap_or_else(PoisonError::into_inner) = leases;
        self.count();
    }

    /// Counts again, because a lease may have run out.
    pub fn count(&self) {
        // Held until the count is published, so that an older count never follows a newer one.
        let leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        let lasts =
            |lease: &&Option<CancellationToken>| !lease.as_ref().is_some_and(CancellationToken::is_cancelled);
        self.metrics.set_partitions_owned(&self.stream, leases.iter().filter(lasts).count());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_runs_out_counts_no_more_whoever_looks() {
        let metrics = Metrics::new().expect("buckets");
        let owned = OwnedCount::new("twins", metrics.clone());
        let says = |count: usize| {
            let line = format!("twinsync_partitions_owned{{stream=\"twins\"}} {count}");
            assert!(metrics.render().contains(&line), "{line}: {}", metrics.render());
        };
        let (one, other) = (CancellationToken::new(), CancellationToken::new());
        owned.set(vec![Some(one.clone()), Some(other.clone()), None]);
        says(3);
        one.cancel();
        owned.count();
        says(2);
        owned.set(vec![Some(other)]);
        says(1);
    }
}

//! How many partitions of a stream are ours at this moment.
//!
//! A lease runs out by itself. The task that looks at leases may wait for storage just then, so it is not the one that
//! notices: each partition's own task counts again when it ends.

use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::telemetry::Metrics;

/// The count behind `twinsync_partitions_owned`.
#[derive(Clone)]
pub struct OwnedCount {
    stream: Arc<str>,
    metrics: Metrics,
    /// One for each partition that was ours when it was looked at last: cancelled when its lease runs out, `None` where
    /// nobody else wants it.
    leases: Arc<Mutex<Vec<Option<CancellationToken>>>>,
}

impl OwnedCount {
    /// No partitions yet.
    pub fn new(stream: &str, metrics: Metrics) -> Self {
        Self { stream: stream.into(), metrics, leases: Arc::default() }
    }

    /// These are ours, as long as their leases last.
    pub fn set(&self, leases: Vec<Option<CancellationToken>>) {
        *self.leases.lock().unwrap_or_else(PoisonError::into_inner) = leases;
        self.count();
    }

    /// Counts again: a lease may have run out.
    pub fn count(&self) {
        // Held until it is told, so that an older count never follows a newer one.
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

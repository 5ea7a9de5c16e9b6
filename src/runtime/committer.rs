//! Writes checkpoints: the durable position of each partition, never more often than the interval, and once
//! more at shutdown.

use std::{sync::Arc, time::Duration};

use azure_messaging_eventhubs::{CheckpointStore, models::Checkpoint};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::partition::Progress;
use crate::{
    domain::id::SequenceNumber,
    telemetry::{
        Metrics,
        event::{CheckpointDelayed, CheckpointWritten},
    },
};

/// Limit of one checkpoint's write.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// Commits the progress of partitions.
pub struct Committer {
    store: Arc<dyn CheckpointStore>,
    namespace: String,
    consumer_group: String,
    interval: Duration,
    partitions: Vec<Watched>,
    metrics: Metrics,
}

struct Watched {
    progress: Arc<Progress>,
    committed: Option<SequenceNumber>,
    at: Instant,
}

impl Committer {
    /// Nothing is written before the first interval.
    pub fn new(
        store: Arc<dyn CheckpointStore>,
        namespace: &str,
        consumer_group: &str,
        interval: Duration,
        partitions: Vec<Arc<Progress>>,
        metrics: Metrics,
    ) -> Self {
        let watched = |progress: Arc<Progress>| Watched {
            committed: progress.durable().map(|position| position.sequence_number),
            progress,
            at: Instant::now(),
        };
        Self {
            store,
            // Lower case, as the other SDKs write them.
            namespace: namespace.to_lowercase(),
            consumer_group: consumer_group.to_lowercase(),
            interval,
            partitions: partitions.into_iter().map(watched).collect(),
            metrics,
        }
    }

    /// Commits at every interval until `stop`, then hands itself back for the last commit.
    pub async fn run(mut self, stop: CancellationToken) -> Self {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return self,
                () = tokio::time::sleep(self.interval) => {}
            }
            self.commit().await;
        }
    }

    /// Writes what has moved; says how many partitions could not be written.
    pub async fn commit(&mut self) -> usize {
        let mut failed = 0;
        for watched in &mut self.partitions {
            let Some(position) = watched.progress.durable() else {
                continue;
            };
            if Some(position.sequence_number) != watched.committed {
                let id = watched.progress.id();
                // Both fields empty would erase the stored checkpoint; the sequence number is always there.
                let checkpoint = Checkpoint {
                    fully_qualified_namespace: self.namespace.clone(),
                    event_hub_name: id.stream.to_lowercase(),
                    consumer_group: self.consumer_group.clone(),
                    partition_id: id.partition.clone(),
                    offset: Some(position.offset).filter(|offset| !offset.is_empty()),
                    sequence_number: Some(position.sequence_number.0),
                };
                let written = match timeout(WRITE_LIMIT, self.store.update_checkpoint(checkpoint)).await {
                    Ok(result) => result.map_err(|error| error.to_string()),
                    Err(_) => Err(format!("no answer within {} s", WRITE_LIMIT.as_secs())),
                };
                match written {
                    Ok(()) => {
                        watched.committed = Some(position.sequence_number);
                        CheckpointWritten { partition: id, sequence_number: position.sequence_number }
                            .emit(&watched.progress.metrics);
                    }
                    Err(reason) => {
                        failed += 1;
                        let error = reason.lines().next().unwrap_or_default();
                        CheckpointDelayed { partition: id, error }.emit(&self.metrics);
                        continue;
                    }
                }
            }
            watched.at = Instant::now();
        }
        for watched in &self.partitions {
            watched.progress.metrics.set_checkpoint_age(watched.at.elapsed());
        }
        failed
    }
}

//! Writes checkpoints: the durable position of each partition, if it has moved.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use azure_core::http::StatusCode;
use azure_messaging_eventhubs::{CheckpointStore, models::Checkpoint};
use futures::future::join_all;
use tokio::time::{Instant, timeout};

use super::{progress::Progress, start::CheckpointError};
use crate::{
    domain::{
        grace_period::Nature,
        health::{Dependency, Failure},
        id::{PartitionId, Position},
        invariant::Invariant,
    },
    telemetry::{
        HealthState, Metrics,
        event::{CheckpointDelayed, CheckpointWritten, DependencyChanged, Fault, InvariantBroken},
    },
};

/// Time limit for the write of one checkpoint. All are written at once, so it also limits a commit. Leases wait for a commit.
const WRITE_LIMIT: Duration = Duration::from_secs(5);

/// A write without an answer is performed within this time, or never. A late one sets the checkpoint back. That normally costs only
/// repeated events. In a partition without new events, however, the events behind the checkpoint expire, and the next start would take that
/// for a loss. So the checkpoint is written once more after this time. The same is done for a partition that was taken over, because the
/// writes of its earlier owner are unknown.
const LATE: Duration = Duration::from_secs(60);

/// Writes the checkpoints of partitions.
pub struct Committer {
    store: Arc<dyn CheckpointStore>,
    namespace: String,
    consumer_group: String,
    metrics: Metrics,
    health: HealthState,
    classify: fn(&azure_core::Error) -> CheckpointError,
    /// Positions with their offsets: a re-created partition has the same sequence numbers.
    committed: BTreeMap<PartitionId, Position>,
    /// When a checkpoint is written once more, although it has not moved. `None`: never again.
    again: BTreeMap<PartitionId, Option<Instant>>,
}

impl Committer {
    /// Creates a committer that has written nothing yet.
    pub fn new(
        store: Arc<dyn CheckpointStore>,
        namespace: &str,
        consumer_group: &str,
        metrics: Metrics,
        health: HealthState,
        classify: fn(&azure_core::Error) -> CheckpointError,
    ) -> Self {
        Self {
            store,
            // Lower case, as the other SDKs write it.
            namespace: namespace.to_lowercase(),
            consumer_group: consumer_group.to_lowercase(),
            metrics,
            health,
            classify,
            committed: BTreeMap::new(),
            again: BTreeMap::new(),
        }
    }

    /// Writes the checkpoints that have moved, all partitions at once. Returns how many could not be written.
    pub async fn commit(&mut self, partitions: &[Arc<Progress>]) -> usize {
        let (mut moved, now) = (Vec::new(), Instant::now());
        for progress in partitions {
            let id = progress.id();
            let (durable, oldest) = progress.checkpoint();
            match durable {
                Some(position) if passes(&position, oldest.as_ref()) => {
                    let detail = format!(
                        "{id}: the checkpoint would be {}, and {} is not completed",
                        position.sequence_number,
                        oldest.map_or_else(String::new, |oldest| oldest.sequence_number.to_string())
                    );
                    let invariant = Invariant::CheckpointPassesNothingUnfinished;
                    InvariantBroken { invariant, detail: &detail }.emit(&self.metrics);
                    progress.metrics.checkpoint_is_behind();
                }
                Some(position) if self.committed.get(id) != Some(&position) => {
                    self.again.entry(id.clone()).or_insert(Some(now + LATE));
                    progress.metrics.checkpoint_is_behind();
                    moved.push((progress, position));
                }
                Some(position) if self.is_written_again(id, now) => moved.push((progress, position)),
                Some(_) | None => progress.metrics.checkpoint_is_written(),
            }
        }
        let writes = moved.iter().map(|(progress, position)| self.write(progress.id(), position.clone()));
        let answers = join_all(writes).await;
        let (mut failed, mut failure) = (0, None);
        let tried = !moved.is_empty();
        for ((progress, position), answer) in moved.into_iter().zip(answers) {
            let (id, sequence_number) = (progress.id(), position.sequence_number);
            match answer {
                Ok(()) => {
                    self.committed.insert(id.clone(), position);
                    if self.is_written_again(id, now) {
                        self.again.insert(id.clone(), None);
                    }
                    progress.metrics.checkpoint_is_written();
                    CheckpointWritten { partition: id, sequence_number }.emit();
                }
                Err((kind, CheckpointError { reason, code, .. })) => {
                    failed += 1;
                    self.again.insert(id.clone(), Some(Instant::now() + LATE));
                    CheckpointDelayed { partition: id, code, failure: kind, error: &reason }
                        .emit(&self.metrics);
                    failure.get_or_insert((kind, code, reason));
                }
            }
        }
        // If no checkpoint has moved, the store was not asked.
        if tried {
            let failure =
                failure.as_ref().map(|(failure, code, reason)| Fault { failure: *failure, code, reason });
            DependencyChanged::post(&self.health, &Dependency::Checkpoints, failure);
        }
        failed
    }

    /// Forgets a partition that this replica no longer owns: its new owner may have moved its checkpoint since.
    pub fn forget(&mut self, partition: &PartitionId) {
        self.committed.remove(partition);
        self.again.remove(partition);
    }

    /// Whether it is time to write the checkpoint of a partition once more.
    fn is_written_again(&self, partition: &PartitionId, now: Instant) -> bool {
        self.again.get(partition).is_some_and(|again| again.is_some_and(|at| at <= now))
    }

    async fn write(&self, id: &PartitionId, position: Position) -> Result<(), (Failure, CheckpointError)> {
        // If both fields are empty, the write would erase the stored checkpoint. The sequence number is always set.
        let checkpoint = Checkpoint {
            fully_qualified_namespace: self.namespace.clone(),
            event_hub_name: id.stream.to_lowercase(),
            consumer_group: self.consumer_group.clone(),
            partition_id: id.partition.clone(),
            offset: Some(position.offset.into()).filter(|offset: &String| !offset.is_empty()),
            sequence_number: Some(position.sequence_number.0),
        };
        match timeout(WRITE_LIMIT, self.store.update_checkpoint(checkpoint)).await {
            Ok(result) => result.map_err(|error| (failure_of(&error), (self.classify)(&error))),
            Err(_) => Err((
                Failure::Silent,
                CheckpointError {
                    reason: format!("no answer within {} s (CHECKPOINT_IO)", WRITE_LIMIT.as_secs()),
                    code: "CHECKPOINT_IO",
                    nature: Nature::Passing,
                },
            )),
        }
    }
}

/// Whether a restart after `checkpoint` would skip an event that is not completed.
fn passes(checkpoint: &Position, oldest: Option<&Position>) -> bool {
    oldest.is_some_and(|oldest| oldest.sequence_number <= checkpoint.sequence_number)
}

/// Classifies a failure of a checkpoint store. The contract of [`CheckpointStore`] has no error kind for throttling.
pub(super) fn failure_of(error: &azure_core::Error) -> Failure {
    match error.http_status() {
        Some(StatusCode::TooManyRequests) => Failure::Throttled,
        Some(_) | None => Failure::Silent,
    }
}

#[cfg(test)]
mod tests;

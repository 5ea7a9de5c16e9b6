//! Writes checkpoints: the durable position of each partition, where it has moved.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use azure_messaging_eventhubs::{CheckpointStore, models::Checkpoint};
use tokio::time::{Instant, timeout};

use super::partition::Progress;
use crate::{
    domain::id::{PartitionId, Position, SequenceNumber},
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
    metrics: Metrics,
    committed: BTreeMap<PartitionId, Committed>,
}

struct Committed {
    at: Instant,
    sequence_number: Option<SequenceNumber>,
}

impl Committer {
    /// Has written nothing yet.
    pub fn new(
        store: Arc<dyn CheckpointStore>,
        namespace: &str,
        consumer_group: &str,
        metrics: Metrics,
    ) -> Self {
        Self {
            store,
            // Lower case, as the other SDKs write them.
            namespace: namespace.to_lowercase(),
            consumer_group: consumer_group.to_lowercase(),
            metrics,
            committed: BTreeMap::new(),
        }
    }

    /// Writes what has moved; says how many partitions could not be written.
    pub async fn commit(&mut self, partitions: &[Arc<Progress>]) -> usize {
        let mut failed = 0;
        for progress in partitions {
            let id = progress.id();
            let known = self
                .committed
                .entry(id.clone())
                .or_insert_with(|| Committed { at: Instant::now(), sequence_number: None });
            let position = progress.durable();
            let sequence_number = position.as_ref().map(|position| position.sequence_number);
            if sequence_number == known.sequence_number {
                known.at = Instant::now(); // nothing has moved: the checkpoint is as good as new
            } else if let Some(position) = position {
                match self.write(id, position).await {
                    Ok(()) => {
                        let committed = Committed { at: Instant::now(), sequence_number };
                        self.committed.insert(id.clone(), committed);
                        let sequence_number = sequence_number.unwrap_or(SequenceNumber(-1));
                        CheckpointWritten { partition: id, sequence_number }.emit(&progress.metrics);
                    }
                    Err(reason) => {
                        failed += 1;
                        let error = reason.lines().next().unwrap_or_default();
                        CheckpointDelayed { partition: id, error }.emit(&self.metrics);
                    }
                }
            }
            if let Some(known) = self.committed.get(id) {
                progress.metrics.set_checkpoint_age(known.at.elapsed());
            }
        }
        failed
    }

    /// Forgets a partition that is not ours any more: whoever owns it may have moved its checkpoint since.
    pub fn forget(&mut self, partition: &PartitionId) {
        self.committed.remove(partition);
    }

    async fn write(&self, id: &PartitionId, position: Position) -> Result<(), String> {
        // Both fields empty would erase the stored checkpoint; the sequence number is always there.
        let checkpoint = Checkpoint {
            fully_qualified_namespace: self.namespace.clone(),
            event_hub_name: id.stream.to_lowercase(),
            consumer_group: self.consumer_group.clone(),
            partition_id: id.partition.clone(),
            offset: Some(position.offset).filter(|offset| !offset.is_empty()),
            sequence_number: Some(position.sequence_number.0),
        };
        match timeout(WRITE_LIMIT, self.store.update_checkpoint(checkpoint)).await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {} s", WRITE_LIMIT.as_secs())),
        }
    }
}

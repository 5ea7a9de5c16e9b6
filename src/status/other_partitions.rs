//! Measures the partitions that this replica does not own: those of other replicas, and those without an owner.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    domain::{
        id::PartitionId,
        other_partitions::{Behind, Ends, Found},
    },
    ports::{Clock, EventSource, SharedCheckpoint, SharedCheckpoints, SystemClock},
};

/// The result for each partition, or the error.
pub(super) type OthersLag = BTreeMap<PartitionId, Result<Behind, String>>;

/// An Event Hub whose partitions are shared among replicas.
pub struct SharedHub {
    /// Uses a separate connection, so that nothing else waits for it. The connection is closed after each measurement.
    pub source: Arc<dyn EventSource>,
    /// The store of the checkpoints of all replicas.
    pub checkpoints: Arc<dyn SharedCheckpoints>,
    /// The namespace, as checkpoints spell it.
    pub namespace: String,
    /// The consumer group, as checkpoints spell it.
    pub consumer_group: String,
}

/// The lag of all partitions of the hubs together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WholeLag {
    /// Number of events that are not completed, according to the checkpoints.
    pub events: u64,
    /// Lower bound for the age of the oldest of them. `None`: unknown for a partition in which events wait.
    pub at_least: Option<Duration>,
}

/// Measures the hubs repeatedly.
pub struct OtherPartitions {
    hubs: Vec<SharedHub>,
    ends: Mutex<BTreeMap<PartitionId, Ends>>,
}

impl OtherPartitions {
    /// Creates it for these hubs.
    pub fn new(hubs: Vec<SharedHub>) -> Self {
        Self { hubs, ends: Mutex::default() }
    }

    /// Measures all partitions of all hubs.
    ///
    /// # Errors
    /// A hub could not be measured, with the reason.
    pub async fn whole(&self) -> Result<WholeLag, String> {
        let mut partitions = Vec::new();
        for hub in &self.hubs {
            let stream = hub.source.name();
            let named = match hub.source.partitions().await {
                Ok(named) => named,
                Err(error) => {
                    hub.source.close().await;
                    return Err(format!("{error} ({})", error.code()));
                }
            };
            let named = named.into_iter();
            partitions.extend(named.map(|partition| PartitionId { stream: stream.to_owned(), partition }));
        }
        let mut whole = WholeLag { events: 0, at_least: Some(Duration::ZERO) };
        for found in self.measure(partitions).await.into_values() {
            let Behind { events, at_least, .. } = found?;
            whole.events += events;
            whole.at_least = whole.at_least.zip(at_least).map(|(one, other)| one.max(other));
        }
        Ok(whole)
    }

    /// Makes one listing per Event Hub with any of these partitions, and one request per partition, one after the other.
    pub(super) async fn measure(&self, partitions: Vec<PartitionId>) -> OthersLag {
        let mut found = OthersLag::new();
        for hub in &self.hubs {
            let of_hub = |id: &&PartitionId| id.stream == hub.source.name();
            let wanted: Vec<_> = partitions.iter().filter(of_hub).cloned().collect();
            if wanted.is_empty() {
                continue;
            }
            let listed =
                hub.checkpoints.written(&hub.namespace, hub.source.name(), &hub.consumer_group).await;
            match listed {
                Ok(checkpoints) => self.ask(hub, wanted, checkpoints, &mut found).await,
                Err(reason) => found.extend(wanted.into_iter().map(|id| (id, Err(reason.clone())))),
            }
        }
        found
    }

    async fn ask(
        &self,
        hub: &SharedHub,
        wanted: Vec<PartitionId>,
        checkpoints: Vec<SharedCheckpoint>,
        found: &mut OthersLag,
    ) {
        let mut failed: Option<String> = None;
        for id in wanted {
            if let Some(reason) = &failed {
                found.insert(id, Err(reason.clone())); // the others would fail alike
                continue;
            }
            let checkpoint = checkpoints.iter().find(|checkpoint| checkpoint.partition == id.partition);
            match hub.source.extent(&id.partition).await {
                Ok(extent) => {
                    let number = checkpoint.and_then(|checkpoint| checkpoint.number);
                    let written = checkpoint.and_then(|checkpoint| checkpoint.written);
                    let behind = self.assess(&id, &Found { extent, checkpoint: number, written });
                    found.insert(id, Ok(behind));
                }
                Err(error) => {
                    let reason = format!("{error} ({})", error.code());
                    found.insert(id, Err(reason.clone()));
                    failed = Some(reason);
                }
            }
        }
        hub.source.close().await;
    }

    fn assess(&self, id: &PartitionId, found: &Found) -> Behind {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.entry(id.clone()).or_default().assess(found, SystemClock.now())
    }
}

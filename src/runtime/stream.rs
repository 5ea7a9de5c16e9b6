//! One consumer task per Event Hub: its partitions, where they go on, and how far they lag.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use azure_messaging_eventhubs::CheckpointStore;
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    in_flight::InFlight,
    partition::{Partition, Progress},
    router::{Intake, Panicked},
};
use crate::{
    domain::{
        health::PartitionState,
        id::{PartitionId, Position, SequenceNumber},
        progress::{Extent, Invalid, Resume, resume},
    },
    ports::{EventSource, SourceError, Start},
    telemetry::{Board, Metrics, event::CheckpointGivenUp},
};

/// Where a partition without checkpoint begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fresh {
    /// At the oldest retained event; versions make replays harmless.
    Earliest,
    /// After what is there at the moment of the first start.
    Latest,
}

/// What to do with a checkpoint that does not fit its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnInvalid {
    /// Do not start.
    Stop,
    /// Begin at the oldest retained event.
    Earliest,
}

/// How the streams are consumed.
#[derive(Debug, Clone)]
pub struct Options {
    /// Fully qualified namespace.
    pub namespace: String,
    /// Consumer group.
    pub consumer_group: String,
    /// Where a partition without checkpoint begins.
    pub fresh: Fresh,
    /// What to do with a checkpoint that does not fit.
    pub on_invalid: OnInvalid,
    /// Largest body that is decoded.
    pub max_body_bytes: usize,
    /// How often lag is measured.
    pub lag_interval: Duration,
    /// How long waiting events may fail to arrive before the client is rebuilt.
    pub stall_limit: Duration,
}

/// Why a stream cannot be started. Each message says how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The hub cannot be used.
    #[error("cannot read the Event Hub `{hub}` in {namespace}: {source}; {hint}")]
    Source {
        /// The hub.
        hub: String,
        /// Its namespace.
        namespace: String,
        /// What happened.
        source: SourceError,
        /// What to do.
        hint: &'static str,
    },
    /// The checkpoints cannot be read; starting without them could pass over or repeat everything.
    #[error(
        "cannot read the checkpoints of `{hub}`: {reason}; nothing was changed, mend or move the checkpoint store and start again"
    )]
    Checkpoints {
        /// The hub.
        hub: String,
        /// What the store said.
        reason: String,
    },
    /// A checkpoint does not fit.
    #[error(
        "partition {partition}: {problem}; set checkpoint.on_invalid = \"earliest\" to begin at the oldest retained event (CHECKPOINT_INVALID)"
    )]
    Invalid {
        /// The partition.
        partition: PartitionId,
        /// Why.
        problem: String,
    },
}

/// One Event Hub, ready to be consumed.
pub struct Stream {
    source: Arc<dyn EventSource>,
    options: Options,
    partitions: Vec<Prepared>,
    board: Board,
    metrics: Metrics,
}

struct Prepared {
    progress: Arc<Progress>,
    start: Start,
    stalled: Arc<Notify>,
}

impl Stream {
    /// Finds the partitions and where each goes on. Fails where a person has to decide or mend something.
    pub async fn prepare(
        source: Arc<dyn EventSource>,
        checkpoints: &dyn CheckpointStore,
        options: Options,
        board: Board,
        metrics: Metrics,
    ) -> Result<Self, StartError> {
        let hub = source.name().to_owned();
        let failed = |source| StartError::Source {
            hint: hint(&source),
            hub: hub.clone(),
            namespace: options.namespace.clone(),
            source,
        };
        let mut stored = stored_positions(checkpoints, &options, &hub).await?;
        let mut partitions = Vec::new();
        for partition in source.partitions().await.map_err(failed)? {
            let extent = source.extent(&partition).await.map_err(failed)?;
            let id = PartitionId { stream: hub.clone(), partition: partition.clone() };
            let (checkpoint, start) = begin(&id, stored.remove(&partition), &extent, &options)?;
            board.set_partition(&id, PartitionState::Connecting);
            let progress = Progress::new(id, checkpoint, &metrics);
            progress.metrics.set_lag(extent.lag(progress.durable().map(|position| position.sequence_number)));
            partitions.push(Prepared { progress, start, stalled: Arc::new(Notify::new()) });
        }
        Ok(Self { source, options, partitions, board, metrics })
    }

    /// Progress of every partition.
    pub fn progress(&self) -> Vec<Arc<Progress>> {
        self.partitions.iter().map(|partition| Arc::clone(&partition.progress)).collect()
    }

    /// Consumes until `stop`.
    pub async fn run(
        self,
        limits: Arc<InFlight>,
        intake: mpsc::Sender<Vec<Intake>>,
        stop: CancellationToken,
    ) -> Result<(), Panicked> {
        let mut tasks = JoinSet::new();
        for prepared in &self.partitions {
            let partition = Partition {
                source: Arc::clone(&self.source),
                progress: Arc::clone(&prepared.progress),
                start: prepared.start.clone(),
                max_body_bytes: self.options.max_body_bytes,
                limits: Arc::clone(&limits),
                intake: intake.clone(),
                board: self.board.clone(),
                metrics: self.metrics.clone(),
                stalled: Arc::clone(&prepared.stalled),
            };
            tasks.spawn(partition.run(stop.clone()));
        }
        drop(intake);
        let monitor = self.monitor(&limits);
        tokio::pin!(monitor);
        loop {
            tokio::select! {
                biased;
                ended = tasks.join_next() => match ended {
                    None => break,
                    Some(Ok(())) => {}
                    Some(Err(_)) => return Err(Panicked),
                },
                () = &mut monitor => {}
            }
        }
        self.source.close().await;
        Ok(())
    }

    /// Measures lag, and notices partitions that are silent although events wait.
    async fn monitor(&self, limits: &InFlight) {
        let mut watched: Vec<_> = self
            .partitions
            .iter()
            .map(|partition| (partition, partition.progress.newest(), Instant::now()))
            .collect();
        loop {
            tokio::time::sleep(self.options.lag_interval).await;
            for (partition, newest, since) in &mut watched {
                let progress = &partition.progress;
                let extent = match self.source.extent(&progress.id().partition).await {
                    Ok(extent) => extent,
                    Err(error) => {
                        tracing::debug!(partition = %progress.id(), %error, "lag could not be measured");
                        break;
                    }
                };
                let durable = progress.durable().map(|position| position.sequence_number);
                progress.metrics.set_lag(extent.lag(durable));
                let present = progress.newest();
                if present != *newest || extent.lag(present) == 0 || limits.is_full() {
                    (*newest, *since) = (present, Instant::now());
                } else if since.elapsed() >= self.options.stall_limit {
                    *since = Instant::now();
                    partition.stalled.notify_waiters();
                }
            }
        }
    }
}

async fn stored_positions(
    checkpoints: &dyn CheckpointStore,
    options: &Options,
    hub: &str,
) -> Result<BTreeMap<String, Stored>, StartError> {
    // All SDKs but Rust's lower-case these names; so do we, to share checkpoints with them.
    let [namespace, name, group] =
        [options.namespace.as_str(), hub, options.consumer_group.as_str()].map(str::to_lowercase);
    let list = checkpoints.list_checkpoints(&namespace, &name, &group);
    let list = list.await.map_err(|error| StartError::Checkpoints {
        hub: hub.to_owned(),
        reason: error.to_string().lines().next().unwrap_or_default().to_owned(),
    })?;
    let stored = list.into_iter().map(|checkpoint| {
        let offset = checkpoint.offset.unwrap_or_default();
        let stored = match checkpoint.sequence_number {
            Some(number) => Stored::At(Position { sequence_number: SequenceNumber(number), offset }),
            None => Stored::WithoutNumber,
        };
        (checkpoint.partition_id, stored)
    });
    Ok(stored.collect())
}

enum Stored {
    At(Position),
    /// Written by something else: it cannot be judged against the partition.
    WithoutNumber,
}

/// Where a partition goes on: what is durable already, and where receiving begins.
fn begin(
    id: &PartitionId,
    stored: Option<Stored>,
    extent: &Extent,
    options: &Options,
) -> Result<(Option<Position>, Start), StartError> {
    let judged = match stored {
        None => Ok(resume(None, extent)),
        Some(Stored::At(position)) => Ok(resume(Some(position), extent)),
        Some(Stored::WithoutNumber) => {
            Err("its checkpoint has no sequence number: another program wrote it".to_owned())
        }
    };
    let problem = match judged {
        Ok(Resume::After(position)) => {
            return Ok((Some(position.clone()), Start::AfterPosition(position)));
        }
        Ok(Resume::Fresh) => {
            return Ok(match options.fresh {
                Fresh::Latest if extent.last.0 >= 0 => {
                    // Resolved once and kept as a number: "latest" would skip what arrives while we are away.
                    let position = Position { sequence_number: extent.last, offset: String::new() };
                    (Some(position.clone()), Start::AfterPosition(position))
                }
                Fresh::Latest | Fresh::Earliest => (None, Start::Earliest),
            });
        }
        Ok(Resume::Invalid(invalid)) => Invalid::to_string(&invalid),
        Err(problem) => problem,
    };
    match options.on_invalid {
        OnInvalid::Stop => Err(StartError::Invalid { partition: id.clone(), problem }),
        OnInvalid::Earliest => {
            CheckpointGivenUp { partition: id, problem: &problem }.emit();
            Ok((None, Start::Earliest))
        }
    }
}

fn hint(error: &SourceError) -> &'static str {
    match error {
        SourceError::Refused { .. } => {
            "give the identity the role `Azure Event Hubs Data Receiver` on the namespace, and check the section [credential]"
        }
        SourceError::NotFound { .. } => {
            "check eventhubs.namespace, the hub's name and eventhubs.consumer_group; consumer groups are not created by twinsync"
        }
        SourceError::Lost { .. } | SourceError::Undecodable(_) | SourceError::Stolen => {
            "check eventhubs.namespace (and eventhubs.endpoint for an emulator), DNS, and that port 5671 is open"
        }
    }
}

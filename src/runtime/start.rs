//! Where a partition resumes: its checkpoint, compared with what the partition holds.

use std::{collections::BTreeMap, time::Duration};

use smol_str::SmolStr;

use super::reconcile::requests::AuditRequests;
use crate::{
    domain::{
        grace_period::Nature,
        id::{PartitionId, Position, SequenceNumber},
        progress::{Extent, Invalid, Lost, Resume, resume},
    },
    ports::{SourceError, Start},
    telemetry::{
        StreamMetrics,
        event::{CheckpointGivenUp, EventsLost},
    },
};
use azure_messaging_eventhubs::CheckpointStore;

/// Where a partition without checkpoint begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fresh {
    /// At the oldest retained event. Versions make replays harmless.
    Earliest,
    /// After the events that are there at the first start. Partitions that are found later begin at their oldest event.
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

/// What to do if a partition does not continue at the stored position, and where the loss is reported.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Whether to continue.
    pub on_invalid: OnInvalid,
    /// Requests an audit: only the hub knows what was skipped.
    pub audits: AuditRequests,
}

impl Policy {
    /// Gives up a checkpoint, or everything that was received since, if that is allowed.
    ///
    /// # Errors
    /// It is not allowed: a person has to decide.
    pub fn give_up(&self, id: &PartitionId, problem: &str) -> Result<(), StartError> {
        match self.on_invalid {
            OnInvalid::Stop => {
                Err(StartError::Invalid { partition: id.clone(), problem: problem.to_owned() })
            }
            OnInvalid::Earliest => {
                CheckpointGivenUp { partition: id, problem }.emit();
                self.audits.ask();
                Ok(())
            }
        }
    }

    /// Continues behind events that can never be received, if that is allowed.
    ///
    /// # Errors
    /// It is not allowed: a person has to decide.
    pub fn pass_over(&self, id: &PartitionId, lost: Lost, metrics: &StreamMetrics) -> Result<(), StartError> {
        let goes_on = match self.on_invalid {
            OnInvalid::Stop => false,
            OnInvalid::Earliest => true,
        };
        EventsLost { partition: id, lost, goes_on, audit: self.audits.are_answered() }.emit(metrics);
        if !goes_on {
            return Err(StartError::Lost { partition: id.clone(), from: lost.from, to: lost.to });
        }
        self.audits.ask();
        Ok(())
    }
}

/// Why a checkpoint store cannot be used, classified by its adapter.
#[derive(Debug, Clone)]
pub struct CheckpointError {
    /// One line that ends with the code.
    pub reason: String,
    /// Stable code; `docs/errors/<code>.md` explains it.
    pub code: &'static str,
    /// Whether waiting may help.
    pub nature: Nature,
}

/// The streams, and what to do when a checkpoint leaves a choice.
#[derive(Debug, Clone)]
pub struct Options {
    /// Fully qualified namespace of Event Hubs.
    pub namespace: String,
    /// Consumer group.
    pub consumer_group: String,
    /// Where a partition without checkpoint begins.
    pub fresh: Fresh,
    /// What to do with a checkpoint that does not fit, or with events that were lost.
    pub policy: Policy,
    /// How long refusals, or something that does not exist, are retried before the start fails.
    pub refused_grace: Duration,
    /// Classifies an error of the checkpoint store.
    pub classify: fn(&azure_core::Error) -> CheckpointError,
}

impl Options {
    /// The error for an Event Hub that cannot be used.
    pub fn failed(&self, hub: &str, source: SourceError) -> StartError {
        StartError::Source { hub: hub.to_owned(), namespace: self.namespace.clone(), source }
    }
}

/// Why a stream cannot be started. Each message says how to fix it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The Event Hub cannot be used.
    #[error("cannot read the Event Hub `{hub}` in {namespace}: {source}; {} ({})", source.hint(), source.code())]
    Source {
        /// The Event Hub.
        hub: String,
        /// Its namespace.
        namespace: String,
        /// The error.
        source: SourceError,
    },
    /// The checkpoints cannot be read. Starting without them could skip or repeat everything.
    #[error(
        "cannot read the checkpoints of `{hub}`: {}; nothing was changed, repair or move the checkpoint store and start again", trouble.reason
    )]
    Checkpoints {
        /// The Event Hub.
        hub: String,
        /// The error of the store.
        trouble: CheckpointError,
    },
    /// A checkpoint does not fit.
    #[error(
        "partition {partition}: {problem}; set checkpoint.on_invalid = \"earliest\" to begin at the oldest retained event (CHECKPOINT_INVALID)"
    )]
    Invalid {
        /// The partition.
        partition: PartitionId,
        /// The reason.
        problem: String,
    },
    /// Events were lost while the partition was read.
    #[error(
        "partition {partition}: events {from} to {to} were never received: retention has passed them, or the Event Hub was re-created; set checkpoint.on_invalid = \"earliest\", or \"earliest_and_audit\" with [iothub], to continue after them (EVENTS_LOST)"
    )]
    Lost {
        /// The partition.
        partition: PartitionId,
        /// The first missing event.
        from: SequenceNumber,
        /// The last missing event.
        to: SequenceNumber,
    },
}

impl StartError {
    /// Whether waiting may help.
    pub const fn nature(&self) -> Nature {
        match self {
            Self::Source { source, .. } => source.nature(),
            Self::Checkpoints { trouble, .. } => trouble.nature,
            Self::Invalid { .. } | Self::Lost { .. } => Nature::Final,
        }
    }

    /// Stable code; `docs/errors/<code>.md` explains it.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Source { source, .. } => source.code(),
            Self::Checkpoints { trouble, .. } => trouble.code,
            Self::Invalid { .. } => "CHECKPOINT_INVALID",
            Self::Lost { .. } => "EVENTS_LOST",
        }
    }
}

/// The checkpoints of an Event Hub, by partition.
///
/// # Errors
/// The store cannot be read.
pub async fn stored_positions(
    checkpoints: &dyn CheckpointStore,
    options: &Options,
    hub: &str,
) -> Result<BTreeMap<String, Stored>, StartError> {
    // All SDKs except Rust's use these names in lower case. Doing the same allows sharing checkpoints with them.
    let [namespace, name, group] =
        [options.namespace.as_str(), hub, options.consumer_group.as_str()].map(str::to_lowercase);
    let list = checkpoints.list_checkpoints(&namespace, &name, &group);
    let list = list.await.map_err(|error| StartError::Checkpoints {
        hub: hub.to_owned(),
        trouble: (options.classify)(&error),
    })?;
    let stored = list.into_iter().map(|checkpoint| {
        let offset = checkpoint.offset.unwrap_or_default().into();
        let stored = match checkpoint.sequence_number {
            Some(number) => Stored::At(Position { sequence_number: SequenceNumber(number), offset }),
            None => Stored::WithoutNumber,
        };
        (checkpoint.partition_id, stored)
    });
    Ok(stored.collect())
}

/// A stored checkpoint.
pub enum Stored {
    /// A position that can be compared with the partition.
    At(Position),
    /// It has no sequence number, because another program wrote it. It cannot be compared with the partition.
    WithoutNumber,
}

/// Decides where a partition resumes: returns its durable position and where receiving begins.
///
/// # Errors
/// The checkpoint does not fit the partition, and it may not be given up.
pub fn begin(
    id: &PartitionId,
    stored: Option<Stored>,
    extent: &Extent,
    options: &Options,
) -> Result<(Option<Position>, Start), StartError> {
    let position = match stored {
        None => Ok(resume(None, extent)),
        Some(Stored::At(position)) => Ok(resume(Some(position), extent)),
        Some(Stored::WithoutNumber) => {
            Err("its checkpoint has no sequence number: another program wrote it".to_owned())
        }
    };
    let problem = match position {
        Ok(Resume::After(position)) => {
            return Ok((Some(position.clone()), Start::behind(position)));
        }
        Ok(Resume::Fresh) => {
            return Ok(match options.fresh {
                Fresh::Latest => {
                    // Resolved once and kept as a number, −1 if no event has ever arrived. "Latest" would skip the events that arrive while
                    // this process is down.
                    let position = Position { sequence_number: extent.last, offset: SmolStr::default() };
                    (Some(position.clone()), Start::behind(position))
                }
                Fresh::Earliest => (None, Start::Earliest),
            });
        }
        Ok(Resume::Invalid(invalid)) => Invalid::to_string(&invalid),
        Err(problem) => problem,
    };
    options.policy.give_up(id, &problem)?;
    Ok((None, Start::Earliest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(fresh: Fresh) -> Options {
        let policy = Policy { on_invalid: OnInvalid::Stop, audits: AuditRequests::nobodys() };
        Options {
            namespace: "ns".into(),
            consumer_group: "$Default".into(),
            fresh,
            policy,
            refused_grace: Duration::ZERO,
            classify: |_| unreachable!("no store is asked"),
        }
    }

    fn extent(first: i64, last: i64) -> Extent {
        Extent {
            first: SequenceNumber(first),
            last: SequenceNumber(last),
            is_empty: first > last,
            newest: None,
        }
    }

    fn begun(stored: Option<i64>, extent: &Extent, fresh: Fresh) -> Result<(Option<i64>, Start), StartError> {
        let id = PartitionId { stream: "twins".into(), partition: "0".into() };
        let at = |number| Position { sequence_number: SequenceNumber(number), offset: SmolStr::default() };
        let stored = stored.map(|number| Stored::At(at(number)));
        let (durable, start) = begin(&id, stored, extent, &options(fresh))?;
        Ok((durable.map(|position| position.sequence_number.0), start))
    }

    #[test]
    fn latest_is_resolved_once_also_where_nothing_has_ever_arrived() {
        let (full, empty) = (extent(3, 9), extent(0, -1));
        let latest = |extent| begun(None, extent, Fresh::Latest).unwrap();
        assert_eq!(latest(&full), (Some(9), Start::After(SequenceNumber(9))));
        assert_eq!(
            latest(&empty),
            (Some(-1), Start::Earliest),
            "an empty partition must have a checkpoint from the start"
        );
        assert_eq!(begun(None, &full, Fresh::Earliest).unwrap(), (None, Start::Earliest));
        // The events that have arrived after it are not skipped.
        assert_eq!(begun(Some(-1), &extent(0, 4), Fresh::Latest).unwrap(), (Some(-1), Start::Earliest));
        let lost = begun(Some(-1), &extent(2, 4), Fresh::Latest).unwrap_err().to_string();
        assert!(lost.contains("CHECKPOINT_INVALID") && lost.contains("events 0 to 1"), "{lost}");
    }
}

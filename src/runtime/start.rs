//! Where a partition goes on: what its checkpoint says, judged against what the partition holds.

use std::collections::BTreeMap;

use azure_messaging_eventhubs::CheckpointStore;
use tokio::sync::watch;

use crate::{
    domain::{
        id::{PartitionId, Position, SequenceNumber},
        progress::{Extent, Invalid, Resume, resume},
    },
    ports::{SourceError, Start},
    telemetry::event::CheckpointGivenUp,
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

/// Which streams, and what to do where checkpoints leave a choice.
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
    /// Who is told when one was given up: what was passed over can only be found by asking the hub.
    pub audit_wanted: Option<watch::Sender<()>>,
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

/// The checkpoints of a hub, by partition.
pub async fn stored_positions(
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

/// A checkpoint as it was found.
pub enum Stored {
    /// A position that can be judged.
    At(Position),
    /// Written by something else: it cannot be judged against the partition.
    WithoutNumber,
}

/// Where a partition goes on: what is durable already, and where receiving begins.
pub fn begin(
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
            if let Some(wanted) = &options.audit_wanted {
                wanted.send_replace(());
            }
            Ok((None, Start::Earliest))
        }
    }
}

pub(super) fn hint(error: &SourceError) -> &'static str {
    match error {
        SourceError::Refused { .. } | SourceError::TokenExpired => {
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

//! Measures how far partitions lag, beside the work and without delaying it. Also detects a partition that is silent although events wait.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    task::{JoinError, JoinSet},
    time::Instant,
};

use super::{in_flight::InFlight, progress::Progress};
use crate::{
    domain::{
        id::{PartitionId, SequenceNumber},
        progress::Extent,
        ticks::Ticks,
    },
    ports::{EventSource, SourceError},
};

/// Result of one measurement of all partitions.
#[derive(Default)]
pub struct Answer {
    found: Vec<Found>,
    /// Why the remaining partitions were not asked.
    failed: Option<SourceError>,
}

/// The measurement of one partition.
struct Found {
    progress: Arc<Progress>,
    /// The newest event that was known before the partition was asked, and when the newest received event had arrived in the partition.
    known: Option<(SequenceNumber, Option<Ticks>)>,
    extent: Extent,
}

/// Measures the partitions of one Event Hub.
pub struct Lag {
    stall_limit: Duration,
    asking: JoinSet<Answer>,
    watched: BTreeMap<PartitionId, Watched>,
}

/// State that is kept for a partition between two measurements.
struct Watched {
    /// The newest event that was received.
    newest: Option<SequenceNumber>,
    /// Time since which that has been the newest event.
    since: Instant,
    /// The event that seemed to be another one when the partition was last told to reopen for that reason. Once per event is enough: the
    /// new link begins with that event and shows whether it is the same.
    seemed_another: Option<SequenceNumber>,
}

impl Lag {
    /// Creates a monitor without measurements. A partition that receives nothing for `stall_limit` although events wait gets a new client.
    pub fn new(stall_limit: Duration) -> Self {
        Self { stall_limit, asking: JoinSet::new(), watched: BTreeMap::new() }
    }

    /// Starts to measure these partitions, unless the last measurement is still running.
    pub fn measure(&mut self, source: &Arc<dyn EventSource>, partitions: Vec<Arc<Progress>>) {
        if !self.asking.is_empty() {
            return;
        }
        self.watched.retain(|id, _| partitions.iter().any(|progress| progress.id() == id));
        let source = Arc::clone(source);
        self.asking.spawn(async move {
            let mut answer = Answer::default();
            for progress in partitions {
                let enqueued = progress.metrics.newest_received();
                let known = progress.newest().map(|newest| (newest.sequence_number, enqueued));
                match source.extent(&progress.id().partition).await {
                    Ok(extent) => answer.found.push(Found { progress, known, extent }),
                    Err(error) => {
                        let PartitionId { stream, partition } = progress.id();
                        tracing::debug!(%stream, %partition, %error, "lag could not be measured");
                        answer.failed = Some(error);
                        break; // the others would fail alike
                    }
                }
            }
            answer
        });
    }

    /// Whether a measurement is running.
    pub fn is_measuring(&self) -> bool {
        !self.asking.is_empty()
    }

    /// Waits for the result of the measurement. An error means that it panicked.
    pub async fn next(&mut self) -> Option<Result<Answer, JoinError>> {
        self.asking.join_next().await
    }

    /// Publishes the result. Wakes partitions that are silent although events wait, or that seem to have been re-created. Returns whether
    /// the Event Hub answered, or `None` if it was not asked.
    pub fn note(
        &mut self,
        answer: Result<Answer, JoinError>,
        limits: &InFlight,
    ) -> Option<Result<(), SourceError>> {
        // A measurement that panicked is repeated at the next interval.
        let Answer { found, failed } = answer.unwrap_or_default();
        let asked = failed.is_some() || !found.is_empty();
        for Found { progress, known, extent } in found {
            if known.is_some_and(|(known, _)| extent.never_reached(known).is_some()) {
                // The notification is kept until the loop takes it: a position beyond the end may be refused at the attach.
                progress.recreated.notify_one();
            }
            let durable = progress.durable().map(|position| position.sequence_number);
            progress.metrics.measured(extent, durable);
            let newest = progress.newest().map(|newest| newest.sequence_number);
            let watched = self.watched.entry(progress.id().clone());
            let watched =
                watched.or_insert_with(|| Watched { newest, since: Instant::now(), seemed_another: None });
            if let Some((known, Some(enqueued))) = known
                && extent.is_another(known, enqueued)
                && watched.seemed_another.replace(known) != Some(known)
            {
                // No number shows that events wait, so a link that died without an error would stay as it is.
                progress.stalled.notify_one();
            }
            if newest != watched.newest || extent.lag(newest) == 0 || limits.is_full() {
                (watched.newest, watched.since) = (newest, Instant::now());
            } else if watched.since.elapsed() >= self.stall_limit {
                watched.since = Instant::now();
                progress.stalled.notify_waiters();
            }
        }
        asked.then(|| failed.map_or(Ok(()), Err))
    }
}

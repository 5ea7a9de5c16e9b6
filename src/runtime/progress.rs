//! The progress of a partition, shared by its loop, the router, the committer and the lag monitor.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::{
    domain::{
        id::{PartitionId, Position, SequenceNumber},
        progress::{self, Arrival, Ticket},
    },
    telemetry::{HealthState, Metrics, PartitionMetrics, StreamMetrics, Watched},
};

/// The progress of one partition, shared by its loop, the router, the committer and the lag monitor.
pub struct Progress {
    id: PartitionId,
    inner: Mutex<progress::Progress>,
    /// The durations count from this instant.
    started: Instant,
    /// Counters of the partition's stream.
    pub stream_metrics: StreamMetrics,
    /// Gauges of the partition.
    pub metrics: PartitionMetrics,
    /// Notified by the lag monitor when events wait and none arrive.
    pub stalled: Notify,
    /// Notified by the lag monitor when the partition has never held the newest event that was received from it.
    pub recreated: Notify,
}

impl Progress {
    /// Progress that continues after `checkpoint`.
    pub fn new(id: PartitionId, checkpoint: Option<Position>, metrics: &Metrics) -> Arc<Self> {
        Arc::new(Self {
            stream_metrics: metrics.stream(&id.stream),
            metrics: PartitionMetrics::default(),
            id,
            inner: Mutex::new(progress::Progress::after(checkpoint)),
            started: Instant::now(),
            stalled: Notify::new(),
            recreated: Notify::new(),
        })
    }

    /// The partition.
    pub fn id(&self) -> &PartitionId {
        &self.id
    }

    /// Begins one event.
    ///
    /// # Errors
    /// The event was begun before.
    pub fn begin(&self, position: Position) -> Result<Ticket, progress::Repeated> {
        self.lock().begin(position, self.started.elapsed())
    }

    /// Takes back an event that was not dispatched, and those that were begun after it.
    pub(super) fn withdraw(&self, ticket: Ticket) {
        self.lock().withdraw(ticket);
    }

    /// Completes one event.
    pub fn complete(&self, ticket: Ticket) {
        self.lock().complete(ticket);
    }

    /// Completes several events.
    pub fn complete_all(&self, tickets: impl IntoIterator<Item = Ticket>) {
        let mut progress = self.lock();
        for ticket in tickets {
            progress.complete(ticket);
        }
    }

    /// The end of the contiguous prefix of completed events.
    pub fn durable(&self) -> Option<Position> {
        let (durable, _) = self.checkpoint();
        durable
    }

    /// The end of that prefix, and the oldest event that is not completed, both at the same moment.
    pub fn checkpoint(&self) -> (Option<Position>, Option<Position>) {
        let progress = self.lock();
        let durable = if planted!(CheckpointTooEarly) { progress.newest() } else { progress.durable() };
        (durable.cloned(), progress.oldest().map(|oldest| oldest.position))
    }

    /// The newest event that was begun.
    pub fn newest(&self) -> Option<Position> {
        self.lock().newest().cloned()
    }

    /// How an arriving event relates to those before it.
    pub(super) fn arrival(&self, position: &Position, reopened: bool) -> Arrival {
        self.lock().arrival(position, reopened)
    }

    /// Forgets the position in the partition.
    pub(super) fn start_over(&self) {
        self.lock().start_over();
    }

    /// Number of events that are begun and not completed.
    pub fn open(&self) -> usize {
        self.lock().open()
    }

    /// The oldest event that is not completed, and the time since it was begun.
    pub fn oldest(&self) -> Option<(Position, Duration)> {
        let oldest = self.lock().oldest()?;
        Some((oldest.position, self.started.elapsed().saturating_sub(oldest.began)))
    }

    /// Shows this progress in the health state.
    pub fn show(self: &Arc<Self>, health: &HealthState) {
        let watched: Arc<dyn Watched> = Arc::clone(self) as _;
        health.watch_partition(&self.id, Arc::downgrade(&watched));
    }

    fn lock(&self) -> MutexGuard<'_, progress::Progress> {
        // No code that holds this lock can panic halfway.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched for Progress {
    fn metrics(&self) -> &PartitionMetrics {
        &self.metrics
    }

    fn oldest_incomplete(&self) -> Option<(SequenceNumber, Duration)> {
        self.oldest().map(|(position, age)| (position.sequence_number, age))
    }
}

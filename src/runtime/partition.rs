//! The loop of one partition: open, receive, decode, hand over, and rebuild when anything breaks.
//!
//! The SDK's client is replaced, never repaired: after any error but an undecodable message it is dropped, and
//! a new one is opened behind the newest event that was begun. What is begun and not completed is still in the
//! router; nothing is lost with the connection.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    in_flight::InFlight,
    router::{Intake, Origin, UNDECODABLE_AMQP},
};
use crate::{
    domain::{
        decode::{Decoded, decode},
        health::PartitionState,
        id::{PartitionId, Position, SequenceNumber},
        message::Message,
        progress::{self, Ticket},
        retry::Backoff,
    },
    ports::{EventSource, Receiver, SourceError, Start},
    telemetry::{
        Board, Metrics, PartitionMetrics, StreamMetrics,
        event::{EventIgnored, MessageUndecodable, PartitionRebuilt},
    },
};

/// First and longest wait before a client is rebuilt.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// The progress of one partition, shared by its loop, the router, the committer and the lag monitor.
pub struct Progress {
    id: PartitionId,
    inner: Mutex<progress::Progress>,
    /// What its durations count from.
    started: Instant,
    /// Counters of its stream.
    pub stream_metrics: StreamMetrics,
    /// Its own gauges.
    pub metrics: PartitionMetrics,
    /// Raised by the lag monitor when events wait and none arrive.
    pub stalled: Notify,
}

impl Progress {
    /// Progress that goes on after `checkpoint`.
    pub fn new(id: PartitionId, checkpoint: Option<Position>, metrics: &Metrics) -> Arc<Self> {
        Arc::new(Self {
            stream_metrics: metrics.stream(&id.stream),
            metrics: metrics.partition(&id),
            id,
            inner: Mutex::new(progress::Progress::after(checkpoint)),
            started: Instant::now(),
            stalled: Notify::new(),
        })
    }

    /// The partition.
    pub fn id(&self) -> &PartitionId {
        &self.id
    }

    /// Begins one event.
    pub fn begin(&self, position: Position) -> Result<Ticket, progress::Repeated> {
        self.lock().begin(position, self.started.elapsed())
    }

    /// Takes back an event that was not handed over, and those begun after it.
    fn withdraw(&self, ticket: Ticket) {
        self.lock().withdraw(ticket);
    }

    /// Completes one event.
    pub fn complete(&self, ticket: Ticket) {
        self.lock().complete(ticket);
    }

    /// The end of the contiguous prefix of completed events.
    pub fn durable(&self) -> Option<Position> {
        self.lock().durable().cloned()
    }

    /// The newest sequence number begun.
    pub fn newest(&self) -> Option<SequenceNumber> {
        self.lock().newest()
    }

    /// Events begun and not completed.
    pub fn open(&self) -> usize {
        self.lock().open()
    }

    /// The oldest event that is not completed, and for how long we have had it.
    pub fn oldest(&self) -> Option<(Position, Duration)> {
        let oldest = self.lock().oldest()?;
        Some((oldest.position, self.started.elapsed().saturating_sub(oldest.began)))
    }

    fn lock(&self) -> MutexGuard<'_, progress::Progress> {
        // Nothing in progress can panic half-way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the loop of a partition works with.
pub struct Partition {
    /// The Event Hub.
    pub source: Arc<dyn EventSource>,
    /// Shared progress.
    pub progress: Arc<Progress>,
    /// Where receiving begins when nothing was begun yet.
    pub start: Start,
    /// The number that the first event has when nothing was begun yet.
    pub first: SequenceNumber,
    /// Largest body that is decoded.
    pub max_body_bytes: usize,
    /// Bound on what is in flight.
    pub limits: Arc<InFlight>,
    /// The router.
    pub intake: mpsc::Sender<Vec<Intake>>,
    /// Where the loop says what it is doing.
    pub board: Board,
    /// Counts what happens.
    pub metrics: Metrics,
}

/// Why a link was given up.
enum Broken {
    /// The daemon stops, or the router is gone.
    Stopped,
    /// Rebuild.
    Source(SourceError),
    /// The SDK went back to an old position on the same link.
    WentBack,
    /// Events wait, and none arrive.
    Stalled,
}

impl Partition {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        loop {
            self.post(PartitionState::Connecting);
            let broken = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                opened = self.source.open(&self.progress.id().partition, self.position()) => match opened {
                    Ok(mut receiver) => {
                        // The SDK attaches with the first receive, and an idle partition never delivers: what
                        // is wrong with the link shows as an error soon enough.
                        self.post(PartitionState::Receiving);
                        let broken = self.receive(receiver.as_mut(), &mut backoff, &stop).await;
                        receiver.close().await;
                        broken
                    }
                    Err(error) => Broken::Source(error),
                },
            };
            let (reason, name) = match broken {
                Broken::Stopped => return,
                Broken::Source(error) => (error.to_string(), error.name()),
                Broken::WentBack => ("the link went back to an old position".to_owned(), "went_back"),
                Broken::Stalled => ("events wait, and none arrive".to_owned(), "stalled"),
            };
            let delay = backoff.next(rand::random(), None);
            PartitionRebuilt { partition: self.progress.id(), reason: name, error: &reason, retry_in: delay }
                .emit(&self.metrics);
            self.post(PartitionState::Waiting { reason });
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    fn post(&self, state: PartitionState) {
        self.board.set_partition(self.progress.id(), state);
    }

    fn position(&self) -> Start {
        self.progress.newest().map_or_else(
            || self.start.clone(),
            |newest| match &self.start {
                Start::AfterPosition(position) if position.sequence_number == newest => self.start.clone(),
                Start::AfterPosition(_) | Start::AfterSequenceNumber(_) | Start::Earliest => {
                    Start::AfterSequenceNumber(newest)
                }
            },
        )
    }

    async fn receive(
        &self,
        receiver: &mut dyn Receiver,
        backoff: &mut Backoff,
        stop: &CancellationToken,
    ) -> Broken {
        let mut newest_on_link = None;
        loop {
            let received = tokio::select! {
                biased;
                () = stop.cancelled() => return Broken::Stopped,
                received = receiver.receive() => received,
                () = self.progress.stalled.notified() => return Broken::Stalled,
            };
            let messages = match received {
                Ok(messages) => messages,
                Err(SourceError::Undecodable(reason)) => {
                    let skipped = tokio::select! {
                        biased;
                        () = stop.cancelled() => return Broken::Stopped,
                        skipped = self.skip(&reason) => skipped,
                    };
                    match skipped {
                        true => continue,
                        false => return Broken::Stopped,
                    }
                }
                Err(error) => return Broken::Source(error),
            };
            backoff.reset();
            for message in &messages {
                let number = message.position.sequence_number;
                if newest_on_link.replace(number).is_some_and(|newest| number <= newest) {
                    return Broken::WentBack;
                }
            }
            let handed_over = tokio::select! {
                biased;
                () = stop.cancelled() => return Broken::Stopped,
                handed_over = self.hand_over(messages) => handed_over,
            };
            if !handed_over {
                return Broken::Stopped;
            }
        }
    }

    /// Notes a message that the AMQP layer could not decode: a dead letter without body, at the position that follows the
    /// newest event, which is where it must have been. `false` when the router is gone.
    async fn skip(&self, reason: &str) -> bool {
        let (partition, after) = (self.progress.id(), self.progress.newest());
        MessageUndecodable { partition, after, error: reason }.emit(&self.metrics);
        let sequence_number = after.map_or(self.first, |newest| SequenceNumber(newest.0 + 1));
        let message = Message {
            position: Position { sequence_number, offset: String::new() },
            enqueued: None,
            body: Vec::new(),
            application_properties: BTreeMap::new(),
            annotations: BTreeMap::new(),
        };
        let hold = self.limits.acquire(message.weight()).await;
        let Ok(ticket) = self.progress.begin(message.position.clone()) else {
            return true;
        };
        let mut batch = Batch::new(&self.progress);
        let (reason, detail) = (UNDECODABLE_AMQP, reason.to_owned());
        batch.push(ticket, |ticket, progress| Intake::Letter {
            reason,
            detail,
            origin: Origin { progress, ticket, message, hold, received: Instant::now(), watcher: None },
        });
        batch.hand_over(&self.intake).await
    }

    /// Decodes and hands over; `false` when the router is gone. What is not handed over when this is dropped is taken
    /// back, as if it had never been received.
    async fn hand_over(&self, messages: Vec<Message>) -> bool {
        let received = Instant::now();
        let mut batch = Batch::new(&self.progress);
        for message in messages {
            let hold = match self.limits.try_acquire(message.weight()) {
                Some(hold) => hold,
                None => {
                    // What is decoded already must not wait behind what has no room yet.
                    if !batch.hand_over(&self.intake).await {
                        return false;
                    }
                    self.limits.acquire(message.weight()).await
                }
            };
            let Ok(ticket) = self.progress.begin(message.position.clone()) else {
                self.metrics.event_repeated(&self.progress.id().stream);
                continue;
            };
            let decoded = decode(&message, self.max_body_bytes);
            let sequence_number = message.position.sequence_number;
            let origin =
                |ticket, progress| Origin { progress, ticket, message, hold, received, watcher: None };
            match decoded {
                Decoded::Event(event) => {
                    batch.push(ticket, |ticket, progress| Intake::Event(event, origin(ticket, progress)));
                }
                Decoded::Undeliverable(reason) => batch.push(ticket, |ticket, progress| Intake::Letter {
                    reason: reason.code(),
                    detail: reason.to_string(),
                    origin: origin(ticket, progress),
                }),
                Decoded::Ignored(reason) => {
                    EventIgnored { partition: self.progress.id(), sequence_number, reason: reason.name() }
                        .emit(&self.metrics, &self.progress.stream_metrics);
                    self.progress.complete(ticket);
                }
            }
        }
        batch.hand_over(&self.intake).await
    }
}

/// Events that are begun and not handed over yet. Dropping it, as the end of a partition may at any wait, takes them
/// back: nobody will ever complete them, and whoever finishes the partition must not wait for that.
struct Batch<'a> {
    progress: &'a Arc<Progress>,
    first: Option<Ticket>,
    items: Vec<Intake>,
}

impl<'a> Batch<'a> {
    fn new(progress: &'a Arc<Progress>) -> Self {
        Self { progress, first: None, items: Vec::new() }
    }

    fn push(&mut self, ticket: Ticket, intake: impl FnOnce(Ticket, Arc<Progress>) -> Intake) {
        self.first.get_or_insert(ticket);
        self.items.push(intake(ticket, Arc::clone(self.progress)));
    }

    /// Hands over what there is; `false` when the router is gone.
    async fn hand_over(&mut self, intake: &mpsc::Sender<Vec<Intake>>) -> bool {
        if self.items.is_empty() {
            return true;
        }
        // SUBTLE: `send` would take the events into its future, and they would vanish with it. A place is waited for
        // first; handing over is then a single step that nothing can interrupt.
        let Ok(place) = intake.reserve().await else {
            return false;
        };
        place.send(std::mem::take(&mut self.items));
        self.first = None;
        true
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if let Some(first) = self.first {
            self.progress.withdraw(first);
        }
    }
}

#[cfg(test)]
mod tests;

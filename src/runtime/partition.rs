//! The loop of one partition: open, receive, decode, dispatch, and rebuild when anything breaks.
//!
//! The SDK's client is replaced, never repaired. After any error except an undecodable message, it is dropped and a new one is opened
//! behind the newest event that was begun. Events that are begun and not completed are still in the router, so no event is lost with the
//! connection.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::FutureExt;
use smol_str::SmolStr;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    in_flight::InFlight,
    intake::{Intake, Origin},
    progress::Progress,
    start::{self, StartError},
    watch,
};
use crate::{
    domain::{
        decode::{Decoded, concerns, decode},
        grace_period::{GracePeriod, Verdict},
        health::{Failure, PartitionState},
        id::{PartitionId, Position, SequenceNumber},
        message::{Message, Properties},
        progress::{Arrival, Invalid, Ticket},
        retry::Backoff,
        sampling::Sampler,
    },
    ports::{EventSource, Receiver, SourceError, Start},
    runtime::jitter::jitter,
    telemetry::{
        HealthState, Metrics,
        event::{EventIgnored, MessageUndecodable, PartitionDelayed, PartitionRebuilt, PartitionReceives},
        reason::{RECREATED, STALLED, UNDECODABLE_AMQP, WENT_BACK},
        trace::Tracer,
    },
};

/// First and longest wait before a client is rebuilt.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// Minimum wait after throttling. Event Hubs asks for this time in the text of its error.
const THROTTLED_PAUSE: Duration = Duration::from_secs(4);

/// A link that lasted this long was not refused. The peer never confirms that it accepts a link. It reports a refusal within one or two
/// round trips. A missing token shows after at most four tries of 20 s.
const STANDS: Duration = Duration::from_secs(120);

/// After a refusal or throttling, a link counts as receiving only when it has lasted this long. Otherwise readiness would change with each
/// try.
const STABLE_AFTER: Duration = Duration::from_secs(2);

/// The loop of one partition, and everything it needs.
pub struct Partition {
    /// The Event Hub.
    pub source: Arc<dyn EventSource>,
    /// Progress of the partition, shared with the router and the committer.
    pub progress: Arc<Progress>,
    /// Where receiving begins if no event was begun yet.
    pub start: Start,
    /// Sequence number of the first event if no event was begun yet.
    pub first: SequenceNumber,
    /// What to do if the partition does not continue at the stored position, or if reading it is refused.
    pub options: start::Options,
    /// Maximum size of a body that is decoded, in bytes.
    pub max_body_bytes: usize,
    /// The in-flight limits.
    pub limits: Arc<InFlight>,
    /// Channel to the router.
    pub intake: mpsc::Sender<Vec<Intake>>,
    /// Where the loop reports its state.
    pub health: HealthState,
    /// Counts what happens.
    pub metrics: Metrics,
    /// Which events are traced.
    pub sampler: Option<Sampler>,
    /// Changes when the Event Hub answers again. A loop that waits for its next try is then woken.
    pub answers: watch::Receiver<u64>,
}

/// Time since which nothing is received, if an interruption was reported.
type Outage = Mutex<Option<Instant>>;

/// Why a link was given up.
enum Broken {
    /// The daemon stops, or the router has ended.
    Stopped,
    /// The source failed. The client is rebuilt.
    Source(SourceError),
    /// The SDK went back to an old position on the same link.
    WentBack,
    /// Events wait in the partition, but none arrive.
    Stalled,
    /// As far as the lag monitor can tell, the partition has never held the newest event that was received from it.
    Recreated,
    /// The arriving events do not continue the events that were read before.
    Foreign(Invalid),
    /// A person has to decide.
    Stuck(StartError),
}

impl Partition {
    /// Runs until `stop`.
    ///
    /// # Errors
    /// The partition does not continue at the stored position, and a person has to decide what that means. Or reading is refused, or there
    /// is nothing to read, for longer than the grace period.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), StartError> {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        let (mut grace, began) = (GracePeriod::new(self.options.refused_grace), Instant::now());
        let mut stable_after = Duration::ZERO;
        let outage = Mutex::new(None);
        loop {
            // While refused or throttled, the state keeps its reason.
            if stable_after.is_zero() {
                self.post(PartitionState::Connecting);
            }
            // Only answers after this point wake the wait that follows this try.
            drop(self.answers.borrow_and_update());
            let start = self.position();
            let reopened = matches!(start, Start::At(_));
            let broken = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                opened = self.source.open(&self.progress.id().partition, start) => match opened {
                    Ok(mut receiver) => {
                        let opened = Instant::now();
                        // The SDK attaches with the first receive, and an idle partition never delivers. If the link is broken, an error
                        // shows that soon enough.
                        let broken = tokio::select! {
                            biased;
                            never = self.say_that_it_receives(stable_after, &outage) => match never {},
                            broken = self.receive(receiver.as_mut(), reopened, &mut backoff, &outage, &stop) => broken,
                        };
                        receiver.close().await;
                        if opened.elapsed() >= STANDS {
                            // The link was good, even if there were no events. The error that ended it is a new failure.
                            backoff.reset();
                        }
                        if backoff.attempts() == 0 {
                            grace.succeeded();
                        }
                        broken
                    }
                    Err(error) => Broken::Source(error),
                },
            };
            let mut throttled = false;
            let (mut reason, name, code, mut refused) = match broken {
                Broken::Stopped => return Ok(()),
                Broken::Stuck(error) => return Err(error),
                Broken::Source(error) => {
                    throttled = error.failure() == Failure::Throttled;
                    let left = match grace.failed(began.elapsed(), error.nature()) {
                        Verdict::Wait(left) => left,
                        Verdict::GiveUp => return Err(self.options.failed(self.source.name(), error)),
                    };
                    let (text, name, code) = (error.to_string(), error.name(), error.code());
                    let refused = left.map(|left| (self.options.failed(self.source.name(), error), left));
                    (format!("{text} ({code})"), name, code, refused)
                }
                Broken::WentBack => (
                    "the connection went back to an old position".to_owned(),
                    WENT_BACK,
                    "EVENTHUBS_STALLED",
                    None,
                ),
                Broken::Stalled => (
                    "events wait in the partition, but none arrive".to_owned(),
                    STALLED,
                    "EVENTHUBS_STALLED",
                    None,
                ),
                Broken::Foreign(problem) => {
                    self.start_over(&problem)?;
                    (problem.to_string(), RECREATED, "CHECKPOINT_INVALID", None)
                }
                Broken::Recreated => (
                    "the partition seems to have been re-created".to_owned(),
                    RECREATED,
                    "CHECKPOINT_INVALID",
                    None,
                ),
            };
            outage.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
            stable_after = if refused.is_some() || throttled { STABLE_AFTER } else { Duration::ZERO };
            let hint = throttled.then_some(THROTTLED_PAUSE);
            let (partition, delay) = (self.progress.id(), backoff.next(jitter(), hint));
            // When a token expires, a single refusal is normal. The next connection shows a new token.
            match refused.take_if(|(_, left)| *left < self.options.refused_grace) {
                Some((error, left)) => {
                    reason = error.to_string();
                    self.metrics.partition_rebuilt(&partition.stream, name);
                    let (code, gives_up_in) = (error.code(), Some(left));
                    PartitionDelayed { partition, code, error: &reason, retry_in: delay, gives_up_in }.emit();
                }
                None => {
                    PartitionRebuilt { partition, reason: name, code, error: &reason, retry_in: delay }
                        .emit(&self.metrics);
                }
            }
            self.post(match throttled {
                true => PartitionState::Throttled { reason },
                false => PartitionState::Waiting { reason },
            });
            self.health.tries_partition_again(self.progress.id(), delay);
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                // An answer of the Event Hub does not end throttling.
                Ok(()) = self.answers.changed(), if !throttled => {}
                () = tokio::time::sleep(delay) => {}
            }
            if name == RECREATED || self.progress.recreated.notified().now_or_never().is_some() {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(()),
                    looked = self.look_again() => looked?,
                }
            }
        }
    }

    /// Posts that the partition receives, after a delay. Never returns.
    async fn say_that_it_receives(&self, after: Duration, outage: &Outage) -> Infallible {
        if !after.is_zero() {
            tokio::time::sleep(after).await;
        }
        self.post(PartitionState::Receiving);
        // An idle partition shows no other sign that it receives.
        tokio::time::sleep(STABLE_AFTER.saturating_sub(after)).await;
        self.tell_that_it_receives(outage);
        std::future::pending().await
    }

    /// Logs that the partition receives, once after each outage.
    fn tell_that_it_receives(&self, outage: &Outage) {
        if let Some(since) = outage.lock().unwrap_or_else(PoisonError::into_inner).take() {
            PartitionReceives { partition: self.progress.id(), after: since.elapsed() }.emit();
        }
    }

    /// Asks the partition once more whether it ever held the newest event that was received from it.
    async fn look_again(&mut self) -> Result<(), StartError> {
        let newest = self.progress.newest();
        match self.source.extent(&self.progress.id().partition).await {
            Ok(extent) => {
                self.first = extent.first;
                match newest.and_then(|newest| extent.never_reached(newest.sequence_number)) {
                    Some(problem) => self.start_over(&problem),
                    None => Ok(()),
                }
            }
            // The lag monitor asks again periodically.
            Err(error) => {
                let PartitionId { stream, partition } = self.progress.id();
                tracing::debug!(%stream, %partition, %error, "the state of the partition could not be read");
                Ok(())
            }
        }
    }

    /// Forgets the position in the partition, if the policy allows that: another partition has its name now.
    fn start_over(&mut self, problem: &Invalid) -> Result<(), StartError> {
        self.options.policy.give_up(self.progress.id(), &problem.to_string())?;
        self.progress.start_over();
        self.start = Start::Earliest;
        Ok(())
    }

    fn post(&self, state: PartitionState) {
        self.health.set_partition(self.progress.id(), state);
    }

    fn position(&self) -> Start {
        if let Some(newest) = self.progress.newest().filter(|_| planted!(ReopenedTooFar)) {
            return Start::After(SequenceNumber(newest.sequence_number.0 + 1));
        }
        self.progress.newest().map_or_else(|| self.start.clone(), Start::behind)
    }

    async fn receive(
        &self,
        receiver: &mut dyn Receiver,
        mut reopened: bool,
        backoff: &mut Backoff,
        outage: &Outage,
        stop: &CancellationToken,
    ) -> Broken {
        let mut newest_on_link = None;
        loop {
            let received = tokio::select! {
                biased;
                () = stop.cancelled() => return Broken::Stopped,
                received = receiver.receive() => received,
                () = self.progress.recreated.notified() => return Broken::Recreated,
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
                        Ok(()) => continue,
                        Err(broken) => return broken,
                    }
                }
                Err(error) => return Broken::Source(error),
            };
            backoff.reset();
            self.tell_that_it_receives(outage);
            for message in &messages {
                let number = message.position.sequence_number;
                if newest_on_link.replace(number).is_some_and(|newest| number <= newest) {
                    return Broken::WentBack;
                }
            }
            if let Some(enqueued) = messages.last().and_then(|newest| newest.enqueued) {
                self.progress.metrics.received(enqueued);
            }
            let dispatched = tokio::select! {
                biased;
                () = stop.cancelled() => return Broken::Stopped,
                dispatched = self.dispatch(messages, reopened) => dispatched,
            };
            if let Err(broken) = dispatched {
                return broken;
            }
            reopened = false;
        }
    }

    /// Records a message that the AMQP layer could not decode: a dead letter without body, at the position after the newest event. The
    /// message must have been there.
    async fn skip(&self, reason: &str) -> Result<(), Broken> {
        let partition = self.progress.id();
        let after = self.progress.newest().map(|newest| newest.sequence_number);
        MessageUndecodable { partition, after, error: reason }.emit(&self.metrics);
        let sequence_number = after.map_or(self.first, |newest| SequenceNumber(newest.0 + 1));
        let message = Message {
            position: Position { sequence_number, offset: SmolStr::default() },
            enqueued: None,
            body: Default::default(),
            application_properties: Properties::default(),
            annotations: Properties::default(),
        };
        let permit = self.limits.acquire(message.weight()).await;
        let Ok(ticket) = self.progress.begin(message.position.clone()) else {
            return Ok(());
        };
        let mut batch = Batch::new(&self.progress);
        let (reason, detail) = (UNDECODABLE_AMQP, reason.to_owned());
        batch.push(ticket, |ticket, progress| Intake::DeadLetter {
            reason,
            detail,
            twin: None,
            origin: Origin {
                progress,
                ticket,
                message,
                permit,
                received: Instant::now(),
                trace: None,
                watcher: None,
            },
        });
        batch.dispatch(&self.intake).await
    }

    /// Decodes and dispatches. If this future is dropped, events that are not dispatched are taken back, as if they had never been
    /// received. `reopened`: the first message is the first of a connection that was opened at the newest event.
    async fn dispatch(&self, messages: Vec<Message>, reopened: bool) -> Result<(), Broken> {
        let received = Instant::now();
        let mut batch = Batch::new(&self.progress);
        for (place, message) in messages.into_iter().enumerate() {
            match self.progress.arrival(&message.position, reopened && place == 0) {
                Arrival::Next => {}
                // This event was requested again to check that the partition is still the same one.
                Arrival::Repeated if reopened && place == 0 => continue,
                Arrival::Repeated => {
                    self.metrics.event_repeated(&self.progress.id().stream);
                    continue;
                }
                Arrival::After(lost) => {
                    let (id, metrics) = (self.progress.id(), &self.progress.stream_metrics);
                    if let Err(error) = self.options.policy.pass_over(id, lost, metrics) {
                        batch.dispatch(&self.intake).await?;
                        return Err(Broken::Stuck(error));
                    }
                }
                Arrival::Foreign(problem) => {
                    batch.dispatch(&self.intake).await?;
                    return Err(Broken::Foreign(problem));
                }
            }
            let decoded = decode(&message, self.max_body_bytes);
            if let Decoded::Event(event) = &decoded
                && self.limits.is_twin_full(&event.key)
            {
                // Later events of this partition have to wait too, to keep the order. All other partitions go on.
                batch.dispatch(&self.intake).await?;
                self.limits.twin_has_room(&event.key).await;
                // The link is not the reason that nothing arrived meanwhile.
                self.progress.stalled.notified().now_or_never();
            }
            let permit = match self.limits.try_acquire(message.weight()) {
                Some(permit) => permit,
                None => {
                    // Events that are already decoded must not wait behind one that has no room yet.
                    batch.dispatch(&self.intake).await?;
                    self.limits.acquire(message.weight()).await
                }
            };
            let Ok(ticket) = self.progress.begin(message.position.clone()) else {
                continue; // `arrival` would have reported a repeat
            };
            let sequence_number = message.position.sequence_number;
            let trace = Tracer::begin(self.sampler.as_ref(), sequence_number, message.enqueued);
            let origin = |ticket, progress| Origin {
                progress,
                ticket,
                message,
                permit,
                received,
                trace,
                watcher: None,
            };
            match decoded {
                Decoded::Event(event) => {
                    batch.push(ticket, |ticket, progress| Intake::Event(event, origin(ticket, progress)));
                }
                Decoded::Undeliverable(reason) => batch.push(ticket, |ticket, progress| {
                    let origin = origin(ticket, progress);
                    let twin = concerns(&origin.message);
                    Intake::DeadLetter { reason: reason.code(), detail: reason.to_string(), twin, origin }
                }),
                Decoded::Ignored(reason) => {
                    EventIgnored { partition: self.progress.id(), sequence_number, reason: reason.name() }
                        .emit(&self.metrics, &self.progress.stream_metrics);
                    self.progress.complete(ticket);
                }
            }
        }
        batch.dispatch(&self.intake).await
    }
}

/// Events that are begun and not dispatched yet. Dropping it takes them back. That may happen at any wait, when the partition ends. These
/// events would never be completed, and finishing the partition must not wait for them.
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

    /// Dispatches the events of the batch. Fails if the router has ended.
    async fn dispatch(&mut self, intake: &mpsc::Sender<Vec<Intake>>) -> Result<(), Broken> {
        if self.items.is_empty() {
            return Ok(());
        }
        // SUBTLE: `send` would move the events into its future, and they would be lost if that future is dropped. So a place in the channel
        // is reserved first. The dispatch is then a single step that cannot be interrupted.
        let place = intake.reserve().await.map_err(|_| Broken::Stopped)?;
        place.send(std::mem::take(&mut self.items));
        self.first = None;
        Ok(())
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

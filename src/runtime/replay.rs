//! Dead letters on the normal path: each one is decoded, put into the lane of its twin, decided on the stored document, and written under
//! the same conditions as an event from a stream. So versions protect newer state, and a daemon may run at the same time.
//!
//! A dead letter is not removed here. The caller that submits it receives the verdict when it is durable, and then removes it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::Instant,
};

use super::{
    in_flight::InFlight,
    intake::{Intake, Origin, Outcome, Watcher},
    progress::Progress,
    router::{Panicked, Router},
};
use crate::{
    domain::{
        decide::{Decision, Rules, decide},
        decode::{Decoded, Ignored, decode},
        document::Document,
        event::TwinEvent,
        id::TwinKey,
        message::Message,
        retry::Backoff,
    },
    ports::{Clock, Read, StoredLetter, TwinStore},
    runtime::jitter::jitter,
    telemetry::Metrics,
};

/// How many times a preview asks for a document before its verdict is unknown.
const READS: u32 = 6;
/// First and longest wait between these reads.
const READ_BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Result of a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Decided like any other event.
    Decided(Decision),
    /// It still cannot be applied.
    Undeliverable {
        /// Stable reason code. It may differ from the one with which it was stored.
        reason: &'static str,
        /// One sentence for people.
        detail: String,
    },
    /// It is not an event of a twin.
    Ignored(Ignored),
    /// Previews only: the store gave no answer.
    Unknown(String),
}

impl Verdict {
    /// Its name for people and scripts.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Decided(decision) => decision.name(),
            Self::Undeliverable { .. } => "undeliverable",
            Self::Ignored(_) => "ignored",
            Self::Unknown(_) => "unknown",
        }
    }

    /// Whether the dead letter is no longer needed.
    pub const fn is_final(&self) -> bool {
        match self {
            Self::Decided(_) => true,
            Self::Undeliverable { .. } | Self::Ignored(_) | Self::Unknown(_) => false,
        }
    }

    /// Why the dead letter stays, if it does.
    pub fn why_it_stays(&self) -> Option<String> {
        match self {
            Self::Decided(_) => None,
            Self::Undeliverable { reason, detail } => Some(format!("{reason}: {detail}")),
            Self::Ignored(ignored) => Some(format!("it is not an event of a twin ({})", ignored.name())),
            Self::Unknown(reason) => Some(reason.clone()),
        }
    }
}

/// A router that replays dead letters.
pub struct Replay {
    intake: mpsc::Sender<Vec<Intake>>,
    router: JoinHandle<Result<(), Panicked>>,
    limits: Arc<InFlight>,
    metrics: Metrics,
    max_body_bytes: usize,
}

/// A dead letter in progress. [`Submitted::verdict`] waits until it is durable.
pub enum Submitted {
    /// Decoding has decided it.
    Decided(Verdict),
    /// The router has it. Its outcome arrives on this channel.
    Routed(oneshot::Receiver<Outcome>),
}

impl Submitted {
    /// Waits for the verdict on the dead letter.
    ///
    /// # Errors
    /// The router ended before the verdict was known. The dead letter may or may not have been applied.
    pub async fn verdict(self) -> Result<Verdict, Panicked> {
        match self {
            Self::Decided(verdict) => Ok(verdict),
            Self::Routed(outcome) => match outcome.await.map_err(|_| Panicked)? {
                Outcome::Decided(decision) => Ok(Verdict::Decided(decision)),
                Outcome::DeadLettered { reason, detail } => Ok(Verdict::Undeliverable { reason, detail }),
            },
        }
    }
}

impl Replay {
    /// Starts `router`, which must have been created with `limits`. Bodies larger than `max_body_bytes` bytes stay undeliverable.
    pub fn start(router: Router, limits: Arc<InFlight>, metrics: Metrics, max_body_bytes: usize) -> Self {
        // Dead letters are dispatched one by one. The limits count those in the channel.
        let (intake, batches) = mpsc::channel(1);
        Self { intake, router: tokio::spawn(router.run(batches)), limits, metrics, max_body_bytes }
    }

    /// Submits a dead letter after the ones before it. Dead letters of one twin are applied in the order of their dispatch. Waits while the
    /// in-flight limits are reached.
    ///
    /// # Errors
    /// The router has ended.
    pub async fn submit(&self, letter: StoredLetter) -> Result<Submitted, Panicked> {
        let StoredLetter { partition, message, .. } = letter;
        let event = match event(&message, self.max_body_bytes) {
            Ok(event) => event,
            Err(verdict) => return Ok(Submitted::Decided(verdict)),
        };
        let permit = self.limits.acquire(message.weight()).await;
        // Each dead letter has its own progress: the positions of dead letters of one position, or of a re-created hub, do not ascend.
        let progress = Progress::new(partition, None, &self.metrics);
        let ticket = progress.begin(message.position.clone()).map_err(|_| Panicked)?;
        let (watcher, outcome) = Watcher::new();
        let origin = Origin {
            progress,
            ticket,
            message,
            permit,
            received: Instant::now(),
            trace: None,
            watcher: Some(watcher),
        };
        self.intake.send(vec![Intake::Event(event, origin)]).await.map_err(|_| Panicked)?;
        Ok(Submitted::Routed(outcome))
    }

    /// Waits until everything that was dispatched is durable.
    ///
    /// # Errors
    /// The router panicked.
    pub async fn finish(self) -> Result<(), Panicked> {
        drop(self.intake);
        self.router.await.map_err(|_| Panicked)?
    }
}

/// Computes the result of a replay. It only reads.
///
/// Dead letters of one twin are previewed one after the other, as they would be replayed. The effects on modules are left out. Whether the
/// store would refuse a write is unknown.
pub struct Preview {
    store: Arc<dyn TwinStore>,
    clock: Arc<dyn Clock>,
    rules: Rules,
    max_body_bytes: usize,
    /// Expected documents of twins that differ from the stored ones.
    changed: BTreeMap<TwinKey, Document>,
}

impl Preview {
    /// Creates a preview that has seen no dead letter.
    pub fn new(
        store: Arc<dyn TwinStore>,
        clock: Arc<dyn Clock>,
        rules: Rules,
        max_body_bytes: usize,
    ) -> Self {
        Self { store, clock, rules, max_body_bytes, changed: BTreeMap::new() }
    }

    /// The verdict on the next dead letter.
    pub async fn next(&mut self, letter: &StoredLetter) -> Verdict {
        let event = match event(&letter.message, self.max_body_bytes) {
            Ok(event) => event,
            Err(verdict) => return verdict,
        };
        let present = match self.changed.get(&event.key) {
            Some(changed) => Some(changed.clone()),
            None => match self.read(&event.key).await {
                Ok(present) => present,
                Err(reason) => return Verdict::Unknown(reason),
            },
        };
        let mut document = present.clone();
        let decision = decide(&mut document, &event, self.clock.now(), &self.rules);
        if let Some(document) = document.filter(|document| Some(document) != present.as_ref()) {
            self.changed.insert(event.key, document);
        }
        Verdict::Decided(decision)
    }

    /// Reads the document, with a short wait at most: nothing depends on a preview.
    async fn read(&self, key: &TwinKey) -> Result<Option<Document>, String> {
        let mut backoff = Backoff::new(READ_BACKOFF.0, READ_BACKOFF.1);
        loop {
            match self.store.read(key).await.outcome {
                Read::Present(document, _) => return Ok(Some(Arc::unwrap_or_clone(document))),
                // An unreadable document would be replaced.
                Read::Absent | Read::Damaged(..) => return Ok(None),
                Read::Foreign(reason) | Read::Refused(reason) => return Err(reason),
                Read::Unknown(trouble) => {
                    let wait = backoff.next(jitter(), trouble.retry_after);
                    if backoff.attempts() >= READS {
                        return Err(trouble.message);
                    }
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }
}

fn event(message: &Message, max_body_bytes: usize) -> Result<TwinEvent, Verdict> {
    match decode(message, max_body_bytes) {
        Decoded::Event(event) => Ok(event),
        Decoded::Undeliverable(reason) => {
            Err(Verdict::Undeliverable { reason: reason.code(), detail: reason.to_string() })
        }
        Decoded::Ignored(ignored) => Err(Verdict::Ignored(ignored)),
    }
}

//! Dead letters on the normal path: decoded, put into their twin's lane, decided on what is stored, written
//! under the same conditions as what comes from a stream. So versions protect newer state, and a daemon may
//! run beside it.
//!
//! A dead letter is not removed here: whoever submits it hears the verdict when it is durable, and removes it then.

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

/// How often a preview asks for a document before it says that it does not know.
const READS: u32 = 6;
/// First and longest wait between these.
const READ_BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What a replay leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Decided like any event.
    Decided(Decision),
    /// It still can not be applied.
    Undeliverable {
        /// Stable reason code, which need not be the one that it was stored with.
        reason: &'static str,
        /// One sentence for people.
        detail: String,
    },
    /// It is no event of a twin.
    Ignored(Ignored),
    /// Previews only: the store did not say what it holds.
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

    /// Whether the dead letter has served its purpose.
    pub const fn is_final(&self) -> bool {
        match self {
            Self::Decided(_) => true,
            Self::Undeliverable { .. } | Self::Ignored(_) | Self::Unknown(_) => false,
        }
    }

    /// Why the dead letter stays, where it does.
    pub fn why_it_stays(&self) -> Option<String> {
        match self {
            Self::Decided(_) => None,
            Self::Undeliverable { reason, detail } => Some(format!("{reason}: {detail}")),
            Self::Ignored(ignored) => Some(format!("it is no event of a twin ({})", ignored.name())),
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

/// A dead letter on its way; [`Submitted::verdict`] waits until it is durable.
pub enum Submitted {
    /// Decode has decided it.
    Decided(Verdict),
    /// The router has it.
    Routed(oneshot::Receiver<Outcome>),
}

impl Submitted {
    /// What became of the dead letter.
    ///
    /// # Errors
    /// The router ended before it was known; the dead letter may or may not have been applied.
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
    /// Starts `router`, which must have been made with `limits`. Bodies over `max_body_bytes` stay undeliverable.
    pub fn start(router: Router, limits: Arc<InFlight>, metrics: Metrics, max_body_bytes: usize) -> Self {
        // Dead letters are dispatched one by one; what lies in the channel is counted by the limits.
        let (intake, batches) = mpsc::channel(1);
        Self { intake, router: tokio::spawn(router.run(batches)), limits, metrics, max_body_bytes }
    }

    /// Hands a dead letter over behind those before it; dead letters of one twin are applied in the order in which they are
    /// dispatched. Waits while the in-flight limits are reached.
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
        // A progress of its own: dead letters of one position, or of a hub that was re-created, do not ascend.
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

/// What a replay would lead to. Reads, and writes nothing.
///
/// Dead letters of one twin are previewed one upon the other, as they would be replayed; what would follow for modules
/// is left out, and what the store would refuse is not known.
pub struct Preview {
    store: Arc<dyn TwinStore>,
    clock: Arc<dyn Clock>,
    rules: Rules,
    max_body_bytes: usize,
    /// What twins would look like by now, as far as that differs from what is stored.
    changed: BTreeMap<TwinKey, Document>,
}

impl Preview {
    /// A preview that has seen no dead letter.
    pub fn new(
        store: Arc<dyn TwinStore>,
        clock: Arc<dyn Clock>,
        rules: Rules,
        max_body_bytes: usize,
    ) -> Self {
        Self { store, clock, rules, max_body_bytes, changed: BTreeMap::new() }
    }

    /// What would become of the next dead letter.
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

    /// The document, after a short wait at most: nothing depends on a preview.
    async fn read(&self, key: &TwinKey) -> Result<Option<Document>, String> {
        let mut backoff = Backoff::new(READ_BACKOFF.0, READ_BACKOFF.1);
        loop {
            match self.store.read(key).await.outcome {
                Read::Present(document, _) => return Ok(Some(Arc::unwrap_or_clone(document))),
                // What cannot be read is replaced.
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

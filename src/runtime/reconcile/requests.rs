//! Requests for an audit: an event was lost or became a dead letter, and its twin is unknown.
//!
//! Any partition owner may find such a loss, while one replica does the audits. A process may also end before an audit has begun. So a
//! request is stored as a note in the checkpoint store, and is also sent to this process's own schedule at once.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{retry::Backoff, ticks::Ticks},
    ports::{Clock, NoteError, NoteStore},
    runtime::{jitter::jitter, watch},
    telemetry::event::NoteNotKept,
};

/// The name of the note.
const NAME: &str = "audit-wanted";
/// First and longest wait after the note could not be written.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Where audits are requested. Cheap to clone. A request never waits.
#[derive(Clone)]
pub struct AuditRequests(Option<Desk>);

#[derive(Clone)]
struct Desk {
    newest: watch::Sender<Option<Ticks>>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for AuditRequests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AuditRequests").field(&self.are_answered()).finish()
    }
}

/// The content of the note.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    wanted_at: Ticks,
}

impl AuditRequests {
    /// Ignores all requests, because there is no hub to ask.
    pub const fn nobodys() -> Self {
        Self(None)
    }

    /// Creates the sender of requests, and a receiver for the time of the newest one.
    pub fn channel(clock: Arc<dyn Clock>) -> (Self, watch::Receiver<Option<Ticks>>) {
        let (newest, receiver) = watch::channel(None);
        (Self(Some(Desk { newest, clock })), receiver)
    }

    /// Requests an audit of all hubs. Returns whether there will be one.
    pub fn ask(&self) -> bool {
        self.tell().is_some()
    }

    /// Requests an audit before its cause is recorded as done. The note is written before this returns, since nothing would repeat the
    /// request after a crash. If it cannot be written, [`keep`] continues to try.
    pub async fn ask_before_it_is_forgotten(&self, notes: &dyn NoteStore) -> bool {
        let Some(wanted_at) = self.tell() else { return false };
        if let Err(error) = save(notes, wanted_at).await {
            NoteNotKept { error: &error }.emit();
        }
        true
    }

    /// Sends the request to this process's schedule and to [`keep`]. Returns the time of the request.
    fn tell(&self) -> Option<Ticks> {
        let desk = self.0.as_ref()?;
        let now = desk.clock.now();
        desk.newest.send_replace(Some(now));
        Some(now)
    }

    /// Whether requests lead to an audit.
    pub fn are_answered(&self) -> bool {
        self.0.is_some()
    }
}

/// When an audit was last requested, by any replica.
///
/// # Errors
/// The note could not be read.
pub async fn last_request(notes: &dyn NoteStore) -> Result<Option<Ticks>, NoteError> {
    let note = notes.load(NAME).await?;
    Ok(note.and_then(|note| serde_json::from_slice::<Note>(&note).ok()).map(|note| note.wanted_at))
}

/// Stores each request as a note, for the replica that does the audits, until `stop`.
pub async fn keep(
    notes: Arc<dyn NoteStore>,
    mut asked: watch::Receiver<Option<Ticks>>,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = asked.changed() => if changed.is_err() {
                return stop.cancelled().await; // no more requests can come
            },
        }
        let Some(wanted_at) = *asked.borrow_and_update() else { continue };
        while let Err(error) = save(notes.as_ref(), wanted_at).await {
            // If this replica does the audits, its schedule has the request. Any other replica only has the note.
            NoteNotKept { error: &error }.emit();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(backoff.next(jitter(), None)) => {}
            }
        }
        backoff.reset();
    }
}

async fn save(notes: &dyn NoteStore, wanted_at: Ticks) -> Result<(), String> {
    let note = serde_json::to_vec(&Note { wanted_at }).map_err(|error| error.to_string())?;
    notes.save(NAME, &note).await.map_err(|error| error.to_string())
}

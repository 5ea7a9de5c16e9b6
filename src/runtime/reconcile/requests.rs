//! Requests for an audit: something was lost or set aside, and nobody can say which twins are behind.
//!
//! Whoever notices that may own any partition, while one replica does the audits; and a process may end before an audit has
//! begun. So a request is a note in the checkpoint store, beside being told to this process's own schedule at once.

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

/// Where audits are asked for. Cheap to clone; asking never waits.
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

/// What the note says.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    wanted_at: Ticks,
}

impl AuditRequests {
    /// Requests that nobody can answer: there is no hub to ask.
    pub const fn nobodys() -> Self {
        Self(None)
    }

    /// Requests, and where the time of the newest one arrives.
    pub fn channel(clock: Arc<dyn Clock>) -> (Self, watch::Receiver<Option<Ticks>>) {
        let (newest, receiver) = watch::channel(None);
        (Self(Some(Desk { newest, clock })), receiver)
    }

    /// Asks for an audit of all hubs; says whether there will be one.
    pub fn ask(&self) -> bool {
        self.tell().is_some()
    }

    /// The same, where what made it necessary is about to be written down as done with: the note is written before this returns, for
    /// nobody would ask again after a crash. Where it cannot be written, [`keep`] tries on.
    pub async fn ask_before_it_is_forgotten(&self, notes: &dyn NoteStore) -> bool {
        let Some(wanted_at) = self.tell() else { return false };
        if let Err(error) = save(notes, wanted_at).await {
            NoteNotKept { error: &error }.emit();
        }
        true
    }

    /// Tells this process's schedule and whoever keeps the note; returns the time of the request.
    fn tell(&self) -> Option<Ticks> {
        let desk = self.0.as_ref()?;
        let now = desk.clock.now();
        desk.newest.send_replace(Some(now));
        Some(now)
    }

    /// Whether requests are answered.
    pub fn are_answered(&self) -> bool {
        self.0.is_some()
    }
}

/// When an audit was last asked for, by any replica.
///
/// # Errors
/// The note could not be read.
pub async fn last_request(notes: &dyn NoteStore) -> Result<Option<Ticks>, NoteError> {
    let note = notes.load(NAME).await?;
    Ok(note.and_then(|note| serde_json::from_slice::<Note>(&note).ok()).map(|note| note.wanted_at))
}

/// Keeps each request as a note, for whichever replica does the audits, until `stop`.
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
                return stop.cancelled().await; // nobody can ask any more
            },
        }
        let Some(wanted_at) = *asked.borrow_and_update() else { continue };
        while let Err(error) = save(notes.as_ref(), wanted_at).await {
            // Where this replica does the audits, its schedule knows; any other one has only the note.
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

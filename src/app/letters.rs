//! What the `deadletters` commands work with: the same stores and the same router that the daemon uses.

use std::sync::Arc;

use super::{Error, connect_store, dead_letters_error, router_options};
use crate::{
    adapters::{credential, dead_letters::FileDeadLetters},
    config::Settings,
    ports::{DeadLetterArchive, DeadLetters, SystemClock},
    runtime::{
        in_flight::InFlight,
        replay::{Preview, Replay},
        router::Router,
    },
    telemetry::{Board, Metrics},
};

/// The dead letters of a daemon, from both sides.
#[derive(Clone)]
pub struct Letters {
    /// For reading and removing them.
    pub archive: Arc<dyn DeadLetterArchive>,
    store: Arc<dyn DeadLetters>,
}

/// Opens the dead letters where they are; nothing is created.
///
/// # Errors
/// They are not there, or cannot be read.
pub async fn letters(settings: &Settings) -> Result<Letters, Error> {
    let opened = FileDeadLetters::open_existing(&settings.dead_letters).await;
    let letters = Arc::new(opened.map_err(|reason| dead_letters_error(settings, reason))?);
    Ok(Letters { archive: Arc::clone(&letters) as _, store: letters })
}

/// A router that writes to the daemon's container. What it cannot apply stays among the `letters`.
///
/// # Errors
/// The container cannot be used.
pub async fn replay(settings: &Settings, letters: &Letters) -> Result<Replay, Error> {
    let metrics = Metrics::new().map_err(|error| Error::Metrics(error.to_string()))?;
    let credential = credential::connect(&settings.credential.identity)?;
    let store = connect_store(settings, credential).await?;
    let limits = InFlight::new(
        settings.router.max_in_flight_events.get() as usize,
        settings.router.max_in_flight_bytes,
    );
    let router = Router::new(
        router_options(settings),
        Arc::new(store),
        Arc::clone(&letters.store),
        Arc::new(SystemClock),
        Arc::clone(&limits),
        Board::new(),
        metrics.clone(),
    );
    Ok(Replay::start(router, limits, metrics, settings.document.max_event_size))
}

/// Reads the daemon's container and writes nothing.
///
/// # Errors
/// The container cannot be used.
pub async fn preview(settings: &Settings) -> Result<Preview, Error> {
    let credential = credential::connect(&settings.credential.identity)?;
    let store = Arc::new(connect_store(settings, credential).await?);
    let rules = router_options(settings).rules;
    Ok(Preview::new(store, Arc::new(SystemClock), rules, settings.document.max_event_size))
}

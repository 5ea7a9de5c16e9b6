//! The tools of the `deadletters` commands: the same stores and the same router that the daemon uses.

use std::sync::Arc;

use super::{Error, connections::connect_store, options::router_options, shared::Shared};
use crate::{
    adapters::{
        credential,
        dead_letters::{self, Store},
    },
    config::Settings,
    domain::decide::Rules,
    ports::SystemClock,
    runtime::{
        in_flight::InFlight,
        reconcile::{repair_queue::RepairQueue, requests::AuditRequests},
        replay::{Preview, Replay},
        router::{self, Router},
    },
    telemetry::{HealthState, Metrics},
};

/// Opens the existing store of a daemon's dead letters. Nothing is created.
///
/// # Errors
/// The store does not exist, or cannot be read.
pub async fn connect(settings: &Settings) -> Result<Store, Error> {
    let credential = credential::connect(&settings.credential.identity)?;
    Ok(dead_letters::open_existing(&settings.dead_letters, &credential).await?)
}

/// The rules of the streams, except that dead letters may be older than any tombstone.
fn rules(settings: &Settings) -> Rules {
    Rules { forgets_after: Some(settings.document.tombstone_ttl), ..super::options::rules(settings) }
}

/// A router that writes to the daemon's container. Dead letters that it cannot apply stay in `letters`.
///
/// # Errors
/// The container cannot be used.
pub async fn replay(settings: &Settings, letters: &Store) -> Result<Replay, Error> {
    let metrics = Metrics::new().map_err(|error| Error::Metrics(error.to_string()))?;
    let credential = credential::connect(&settings.credential.identity)?;
    let store = connect_store(settings, credential).await?;
    let limits = InFlight::new(
        settings.router.max_in_flight_events.get() as usize,
        settings.router.max_in_flight_bytes,
    );
    let (repair_queue, audits) = (RepairQueue::nobodys(), AuditRequests::nobodys());
    let options = router_options(settings, &Shared::new(settings), repair_queue, audits);
    let router = Router::new(
        router::Options { rules: rules(settings), ..options },
        Arc::new(store),
        Arc::clone(&letters.letters),
        Arc::new(SystemClock),
        Arc::clone(&limits),
        HealthState::new(),
        metrics.clone(),
    );
    Ok(Replay::start(router, limits, metrics, settings.document.max_event_size))
}

/// A preview that reads the daemon's container and writes nothing.
///
/// # Errors
/// The container cannot be used.
pub async fn preview(settings: &Settings) -> Result<Preview, Error> {
    let credential = credential::connect(&settings.credential.identity)?;
    let store = Arc::new(connect_store(settings, credential).await?);
    let rules = rules(settings);
    Ok(Preview::new(store, Arc::new(SystemClock), rules, settings.document.max_event_size))
}

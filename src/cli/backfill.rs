//! `twinsync backfill`: brings in the twins that existed before the streams.

use std::sync::atomic::Ordering;

use serde::Serialize;

use super::{
    Error, Sources, output,
    reconcile::{Session, stopped, watched},
};
use crate::{
    domain::id::HubName,
    ports::{Call, NoteStore},
    runtime::{
        rate_limited_registry::RateLimitedRegistry,
        reconcile::{
            backfill::{self, Counts, Progress, note_name},
            candidates::Ended,
        },
    },
    telemetry::Purpose,
};

/// Arguments of `backfill`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    sources: Sources,
    /// Only this hub; by default all configured hubs, one after the other.
    #[arg(long, value_name = "NAME")]
    hub: Option<String>,
    /// Begins from the beginning, even if an earlier backfill was stopped before its end.
    #[arg(long)]
    restart: bool,
    /// Prints one JSON object per hub.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    hub: &'a str,
    #[serde(flatten)]
    counts: Counts,
    seconds: f64,
    gets: u64,
    queries: u64,
    request_units: f64,
}

/// Brings in all twins. Documents that are there and right stay unchanged.
pub async fn run(arguments: &Arguments) -> Result<(), Error> {
    let session = Session::begin(&arguments.sources).await?;
    for registry in session.hubs(arguments.hub.as_deref())? {
        let notes = session.reconciler.notes.as_ref();
        if arguments.restart {
            forget(notes, registry.hub()).await?;
        }
        let counts = fill(&session, &registry, notes, arguments.json).await?;
        let line = Line {
            hub: registry.hub(),
            counts,
            seconds: session.seconds(),
            gets: registry.rate_limiter().calls(Call::Get),
            queries: registry.rate_limiter().calls(Call::Query),
            request_units: session.metrics.request_units(Purpose::Backfill),
        };
        match arguments.json {
            true => output::json(&line)?,
            false => output::line(text(&line))?,
        }
        if counts.rejected + counts.unknown > 0 {
            return Err(Error::Failed(format!(
                "{} twins were refused by Cosmos DB, and there was no answer about {}: see the log",
                counts.rejected, counts.unknown
            )));
        }
    }
    Ok(())
}

async fn forget(notes: &dyn NoteStore, hub: &HubName) -> Result<(), Error> {
    // A note that cannot be parsed counts as no note.
    let forgotten = notes.save(&note_name(hub), b"{}").await;
    forgotten.map_err(|error| Error::Failed(error.to_string()))
}

async fn fill(
    session: &Session,
    registry: &std::sync::Arc<RateLimitedRegistry>,
    notes: &dyn NoteStore,
    quiet: bool,
) -> Result<Counts, Error> {
    let progress = std::sync::Arc::new(Progress::default());
    let concurrency = session.reconciler.backfill_concurrency;
    let work =
        backfill::run(&session.reconciler.reconciler, registry, notes, concurrency, &progress, &session.stop);
    let position = || (progress.counts().listed, progress.devices.load(Ordering::Relaxed));
    let label = format!("backfill of {}", registry.hub());
    match watched(quiet, label, position, Box::pin(work)).await {
        Ok(counts) => Ok(counts),
        Err(backfill::Error::Ended(Ended::Stopped)) => Err(stopped(
            "run the command again, or start the daemon: the backfill continues where it stopped",
        )),
        Err(error) => Err(Error::Failed(error.to_string())),
    }
}

fn text(line: &Line<'_>) -> String {
    let Counts { listed, created, corrected, present, gone, rejected, unknown } = line.counts;
    format!(
        "{}: {listed} twins in {:.1} s ({} point reads, {} queries, {:.0} RU): \
         {created} created, {corrected} corrected, {present} needed nothing, {gone} gone, {rejected} refused, {unknown} not known",
        line.hub, line.seconds, line.gets, line.queries, line.request_units
    )
}

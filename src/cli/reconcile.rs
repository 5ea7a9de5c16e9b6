//! The common parts of `backfill`, `audit` and `resync`.

use std::{
    io::IsTerminal,
    sync::Arc,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use super::{Error, Sources};
use crate::{
    app::{self, reconcile::ReconcileTools},
    config::{self, Settings},
    domain::id::HubName,
    runtime::rate_limited_registry::RateLimitedRegistry,
    telemetry::{self, Metrics},
};

/// How often a progress bar is updated.
const POLL: Duration = Duration::from_millis(200);
/// The log filter while a progress bar is shown.
const LOG_FILTER: &str = "warn";

/// The dependencies of a command that asks the hubs.
pub(super) struct Session {
    pub(super) reconciler: ReconcileTools,
    pub(super) metrics: Metrics,
    pub(super) stop: CancellationToken,
    started: Instant,
}

impl Session {
    /// Loads the configuration and connects.
    pub(super) async fn begin(sources: &Sources) -> Result<Self, Error> {
        let settings = sources.load()?;
        require_hub(&settings)?;
        // Only lines that need attention: the command itself reports the rest.
        let quiet = config::Telemetry { log_filter: LOG_FILTER.to_owned(), ..settings.telemetry.clone() };
        telemetry::init(&quiet).map_err(|error| Error::Failed(error.to_string()))?;
        let stop = app::stop_on_signals()?;
        let metrics = Metrics::new().map_err(|error| Error::Failed(error.to_string()))?;
        let reconciler = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(stopped("nothing was changed")),
            reconciler = Box::pin(app::reconcile::reconcile_tools(&settings, &metrics)) => reconciler?,
        };
        Ok(Self { reconciler, metrics, stop, started: Instant::now() })
    }

    /// All hubs, or the named one.
    pub(super) fn hubs(&self, name: Option<&str>) -> Result<Vec<Arc<RateLimitedRegistry>>, Error> {
        let all = &self.reconciler.registries;
        let Some(name) = name else {
            return Ok(all.clone());
        };
        match self.reconciler.reconciler.registry(&HubName::new(name)) {
            Some(registry) => Ok(vec![Arc::clone(registry)]),
            None => {
                let known: Vec<_> = all.iter().map(|registry| registry.hub().as_str()).collect();
                Err(Error::Usage(format!(
                    "the hub {name:?} is not configured; configured: {}",
                    known.join(", ")
                )))
            }
        }
    }

    /// Seconds since the command began to work.
    pub(super) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}

fn require_hub(settings: &Settings) -> Result<(), Error> {
    match settings.iothub.is_configured() {
        true => Ok(()),
        false => Err(Error::Usage(
            "no IoT hub is configured: set iothub.hosts (identity with the role IoT Hub Data Reader) or iothub.connection_strings"
                .to_owned(),
        )),
    }
}

/// The error of a command that was asked to stop.
pub(super) fn stopped(then: &str) -> Error {
    Error::Failed(format!("stopped on request; {then}"))
}

/// Shows a progress bar on a terminal while `work` runs.
pub(super) async fn watched<T>(
    quiet: bool,
    label: String,
    position: impl Fn() -> (u64, u64),
    work: impl Future<Output = T>,
) -> T {
    if quiet || !std::io::stderr().is_terminal() {
        return work.await;
    }
    let style =
        ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len}  {per_sec}  {elapsed}, {eta} left");
    let bar = ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(label);
    let mut work = std::pin::pin!(work);
    let mut polls = tokio::time::interval(POLL);
    loop {
        tokio::select! {
            biased;
            done = &mut work => {
                bar.finish_and_clear();
                return done;
            }
            _ = polls.tick() => {
                let (done, of) = position();
                // The hub's count is an estimate, and does not include modules.
                bar.set_length(of.max(done));
                bar.set_position(done);
            }
        }
    }
}

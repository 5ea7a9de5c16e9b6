//! Logs, metrics and health: everything that the daemon reports about itself.
//!
//! | module | holds |
//! |---|---|
//! | [`event`] | one struct per operational fact: emits log and metric together, so that they cannot disagree |
//! | [`Metrics`] | the counters behind them, rendered for Prometheus |
//! | [`name`] | the names of all metrics |
//! | `limit` | holds back log lines that repeat, and counts them; adds the replica's name to each line |
//! | `final_line` | lines that depend on nothing: why the process ends, and panics |
//! | [`trace`] | traces of sampled events |
//! | [`RecentWarnings`] | the warnings and errors that were logged, one entry per kind |
//! | [`HealthState`] | the state that the components report, for the health endpoints |
//!
//! No secrets, payloads or property values, at any level; no device ids as labels. Levels: TRACE per event,
//! DEBUG per condition, INFO a change in the state of the service, WARN alert if frequent, ERROR needs a person.

mod counts;
pub mod event;
mod final_line;
mod gauges;
mod health_state;
mod label;
mod limit;
mod metrics;
pub mod name;
mod partition;
mod process;
pub mod process_limits;
pub mod reason;
mod recent_warnings;
mod replica;
mod scans;
mod serving;
mod text;
mod tokens;
pub mod trace;

#[cfg(test)]
mod tests;

use std::io::IsTerminal as _;

use tracing_subscriber::{
    Layer as _,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use self::limit::{Limited, Recoveries, Shape};
pub use self::{
    counts::{Counts, ShownCounts},
    final_line::{PANICKED, final_line},
    health_state::{HealthState, Heartbeat, View},
    label::{
        Decision, Purpose, ReadOutcome, RegistryCall, RegistryOutcome, ServedOperation, ServedOutcome,
        TwinRead, Unauthorized, WriteKind, WriteOutcome,
    },
    metrics::{Latency, Metrics, StreamMetrics},
    partition::{PartitionMetrics, Watched, behind},
    recent_warnings::{Entry, RecentWarnings},
    replica::replica,
    scans::{Audited, Backfilled, HubScans, Scan, ScanProgress, Scans},
    serving::{Renewed, ServeMetrics},
    tokens::{Given, Scope, Tokens},
};
use crate::config::{self, LogFormat};

/// Version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Source revision of this build, if the builder set `TWINSYNC_REVISION`.
pub const REVISION: &str = match option_env!("TWINSYNC_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// The answer of `/metrics`: all counters, the gauges of the health state, and the metrics of the process.
pub fn exposition(metrics: &Metrics, health: &HealthState) -> String {
    metrics.render() + &health.render() + &process::render(&metrics.receiving())
}

/// Code of an unexpected error: a defect of the program or of the machine.
pub const INTERNAL: &str = "INTERNAL";

/// Logging could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter expression is wrong. Loading the configuration rejects it earlier.
    #[error("cannot parse telemetry.log_filter")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// This process has already started logging.
    #[error("cannot start logging twice in one process")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Starts logging to standard error for the whole process, including panics. Warnings and errors are also kept in [`RecentWarnings`].
///
/// # Errors
/// Logging was already started.
pub fn init(settings: &config::Telemetry) -> Result<RecentWarnings, Error> {
    let filter = settings.log_filter.parse::<Targets>()?;
    let output = fmt::layer().with_writer(std::io::stderr);
    let lines = limit::lines();
    let recoveries = Recoveries(lines.clone()).with_filter(LevelFilter::INFO);
    let output = match settings.log_format {
        LogFormat::Text => output
            .map_event_format(|inner| {
                // Set on the format itself: its output goes through `Limited`, not directly to a terminal.
                let inner = inner.with_ansi(std::io::stderr().is_terminal());
                Limited { inner, shape: Shape::Text, lines }
            })
            .boxed(),
        LogFormat::Json => output
            .json()
            .flatten_event(true)
            .with_ansi(false)
            .map_event_format(|inner| Limited { inner, shape: Shape::Json, lines })
            .boxed(),
    };
    let recent_warnings = RecentWarnings::default();
    let seen = recent_warnings.clone().with_filter(LevelFilter::WARN);
    tracing_subscriber::registry().with(output.with_filter(filter)).with(seen).with(recoveries).try_init()?;
    final_line::log_panics(settings.log_format);
    Ok(recent_warnings)
}

//! Logs, metrics and health: what the daemon tells about itself.
//!
//! | module | holds |
//! |---|---|
//! | [`event`] | one struct per operational fact: emits log and metric together, so that they cannot disagree |
//! | [`Metrics`] | the counters behind them, rendered for Prometheus |
//! | [`name`] | the names of all metrics |
//! | [`Board`] | what the components say about their state, for the health endpoints |
//!
//! No secrets, payloads or property values, at any level; no device ids as labels. Levels: TRACE per event,
//! DEBUG per condition, INFO a change in the state of the service, WARN alert if frequent, ERROR needs a person.

mod board;
pub mod event;
mod gauges;
mod label;
mod metrics;
pub mod name;
mod partition;
pub mod reason;

use std::io::IsTerminal as _;

use tracing_subscriber::{EnvFilter, util::SubscriberInitExt as _};

pub use self::{
    board::{Board, Heartbeat},
    label::{Decision, Purpose, ReadOutcome, RegistryCall, RegistryOutcome, WriteKind, WriteOutcome},
    metrics::{Latency, Metrics, StreamMetrics},
    partition::{PartitionMetrics, Watched},
};
use crate::config::{self, LogFormat};

/// Version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Source revision of this build, where the builder gave `TWINSYNC_REVISION`.
pub const REVISION: &str = match option_env!("TWINSYNC_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// Logging could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter expression is wrong; loading the configuration refuses it before.
    #[error("cannot parse telemetry.log_filter")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// This process logs already.
    #[error("cannot start logging twice in one process")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Starts logging to standard error, for the whole process.
///
/// # Errors
/// It was started before.
pub fn init(settings: &config::Telemetry) -> Result<(), Error> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(&settings.log_filter)?)
        .with_writer(std::io::stderr);
    match settings.log_format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).finish().try_init()?,
        LogFormat::Json => builder.json().flatten_event(true).with_ansi(false).finish().try_init()?,
    }
    Ok(())
}

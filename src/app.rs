//! The composition root: builds the adapters, spawns the tasks, owns the order of shutdown.
//!
//! | module | holds |
//! |---|---|
//! | `connections`, `connect` | the connections of a daemon, and how long it waits for a dependency that is missing |
//! | `options` | the options of each part, from the settings |
//! | `pipeline` | the path of events: prepared, started, drained |
//! | [`reconcile`] | repair, backfill and audit: in the background, and as commands |
//! | [`serve`], [`check`], [`dead_letter_commands`] | the tools of the other commands |
//! | `monitoring`, `traces` | page, health and metrics; the exporter of traces |
//!
//! Start: health and metrics listen first, then credential → container and stores → streams. Temporary failures are waited out. A failure
//! that a person has to fix ends the start with a code (`connect`). A running daemon waits failures out.
//!
//! Shutdown: stop intake → drain with a deadline → checkpoint → close. Events that are not drained in time were not completed, so they are
//! replayed. A second signal exits at once, which costs the same.

pub mod check;
mod connect;
mod connections;
pub mod dead_letter_commands;
mod monitoring;
mod options;
mod pipeline;
pub mod reconcile;
pub mod serve;
mod shared;
mod traces;

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::{
    connect::Connector, monitoring::Monitoring, options::about, pipeline::consume, shared::Shared,
    traces::Traces,
};
pub use self::{connections::Connections, pipeline::Process};
use crate::{
    adapters::{
        blob, checkpoints, cosmos,
        credential::{self, NoToken},
        dead_letters, iothub, otlp,
    },
    config::Settings,
    domain::grace_period::Nature,
    http,
    ports::{NoteError, SystemClock},
    runtime::{receive_threads::ReceiveThreads, router::Panicked, start::StartError, twins::Twins},
    serve::access,
    telemetry::{self, HealthState, Metrics, RecentWarnings},
};

/// Why the daemon could not start, or had to stop. The message is one line that says how to fix it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no credential.
    #[error(transparent)]
    Credential(#[from] credential::Error),
    /// The credential gives no token.
    #[error(transparent)]
    NoToken(#[from] NoToken),
    /// The container cannot be used.
    #[error(transparent)]
    Cosmos(#[from] cosmos::ConnectError),
    /// The store for checkpoints cannot be used.
    #[error(transparent)]
    Checkpoints(#[from] checkpoints::Error),
    /// The store for dead letters cannot be used.
    #[error(transparent)]
    DeadLetters(#[from] dead_letters::Error),
    /// The address for health and metrics is in use.
    #[error(transparent)]
    Http(#[from] http::Error),
    /// An IoT hub cannot be asked.
    #[error(transparent)]
    IotHub(#[from] iothub::Error),
    /// No caller is configured that may read.
    #[error(
        "[serve] lets nobody in: set serve.connection_strings, or serve.entra_tenant with roles or principals (SERVE_NOT_CONFIGURED)"
    )]
    ServesNobody,
    /// The configuration does not say who may read.
    #[error("{0} (SERVE_NOT_CONFIGURED)")]
    Access(#[from] access::SettingsError),
    /// The client that fetches the keys of Entra ID cannot be set up.
    #[error("cannot set up an HTTP client: {0}")]
    HttpClient(String),
    /// The certificate cannot be used.
    #[error("cannot set up TLS: {0} (CERTIFICATE_UNUSABLE)")]
    Certificate(String),
    /// The note that a backfill is planned cannot be written.
    #[error("{0} (NOTE_NOT_KEPT)")]
    Note(#[from] NoteError),
    /// The container cannot be searched for documents.
    #[error("cannot query the container for documents: {0} (COSMOS_UNAVAILABLE)")]
    Scan(String),
    /// Traces cannot be sent.
    #[error(transparent)]
    Traces(#[from] otlp::Error),
    /// Metrics cannot be set up.
    #[error("cannot set up metrics: {0}")]
    Metrics(String),
    /// A stream cannot be consumed.
    #[error(transparent)]
    Stream(#[from] StartError),
    /// The threads that receive cannot be started.
    #[error("cannot start the threads that receive events: {0}")]
    Threads(std::io::Error),
    /// Signals cannot be received.
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
    /// A task panicked.
    #[error(transparent)]
    Panicked(#[from] Panicked),
}

impl From<blob::Error> for Error {
    fn from(error: blob::Error) -> Self {
        Self::Checkpoints(error.into())
    }
}

impl Error {
    /// Stable code; `docs/errors/<code>.md` explains it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Credential(_) => credential::Error::CODE,
            Self::NoToken(_) => NoToken::CODE,
            Self::Cosmos(error) => error.code(),
            Self::Checkpoints(error) => error.code(),
            Self::DeadLetters(error) => error.code(),
            Self::Http(_) => http::Error::CODE,
            Self::IotHub(error) => error.code(),
            Self::ServesNobody | Self::Access(_) => "SERVE_NOT_CONFIGURED",
            Self::Certificate(_) => "CERTIFICATE_UNUSABLE",
            Self::Traces(_) => otlp::Error::CODE,
            Self::Note(_) => "NOTE_NOT_KEPT",
            Self::Scan(_) => "COSMOS_UNAVAILABLE",
            Self::Stream(error) => error.code(),
            Self::Panicked(_) => telemetry::PANICKED,
            Self::HttpClient(_) | Self::Metrics(_) | Self::Threads(_) | Self::Signals(_) => {
                telemetry::INTERNAL
            }
        }
    }

    /// Whether waiting may help.
    fn nature(&self) -> Nature {
        match self {
            Self::NoToken(error) if error.refused => Nature::Refused,
            Self::NoToken(_) | Self::Note(_) | Self::Scan(_) => Nature::Passing,
            Self::Cosmos(error) => error.nature(),
            Self::Checkpoints(error) => error.nature(),
            Self::DeadLetters(error) => error.nature(),
            Self::Stream(error) => error.nature(),
            Self::Credential(_)
            | Self::Http(_)
            | Self::IotHub(_)
            | Self::ServesNobody
            | Self::Access(_)
            | Self::HttpClient(_)
            | Self::Certificate(_)
            | Self::Traces(_)
            | Self::Metrics(_)
            | Self::Threads(_)
            | Self::Signals(_)
            | Self::Panicked(_) => Nature::Final,
        }
    }
}

/// Runs the daemon until SIGTERM or SIGINT. A second signal exits at once. `recent_warnings` holds its logged warnings and errors.
///
/// # Errors
/// The daemon cannot start, a person has to decide something, or a task panicked.
pub async fn run(settings: &Settings, recent_warnings: RecentWarnings) -> Result<(), Error> {
    let stop = stop_on_signals()?;
    let metrics = Metrics::new().map_err(|error| Error::Metrics(error.to_string()))?;
    // This comes first: an error here leaves nothing to shut down.
    let threads = ReceiveThreads::start().map_err(Error::Threads)?;
    for thread in threads.handles() {
        metrics.receives_on(thread.metrics());
    }
    let health = HealthState::with_limits(settings.http.blocked_after, settings.eventhubs.retention);
    for hub in settings.eventhubs.hubs() {
        metrics.stream(hub); // at zero from the first scrape on
    }
    if let Some(interval) = settings.audit.interval.filter(|_| !settings.iothub.hubs.is_empty()) {
        metrics.set_audit_interval(interval);
    }
    let replica = telemetry::replica();
    let hubs = settings.iothub.hubs.iter().map(|hub| hub.name.clone()).collect();
    let twins = Twins::new(hubs, metrics.clone(), stop.clone());
    let monitoring =
        Monitoring::start(settings, about(settings, replica, recent_warnings), &health, &metrics, &twins)
            .await?;
    let connector = Connector { grace: settings.start.refused_grace, health: &health, metrics: &metrics };
    let traces = Traces::start(settings, &metrics, &health)?;
    let process = Process {
        replica: replica.to_owned(),
        clock: Arc::new(SystemClock),
        threads: Some(Arc::new(threads)),
        tracer: traces.tracer.clone(),
        health: health.clone(),
        metrics: metrics.clone(),
    };
    // Aborted at the end, so a task that hangs does not delay the shutdown.
    let mut refreshes = JoinSet::new();
    let outcome = tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        connections = Box::pin(Connections::connect(settings, &connector, &health)) => match connections {
            Ok(mut connections) => {
                let hubs = std::mem::take(&mut connections.shared_hubs);
                let observer = &monitoring.observer;
                refreshes.spawn(observer.clone().refresh_other_partitions(hubs, monitoring.closing.clone()));
                let archive = Arc::clone(&connections.archive);
                refreshes.spawn(observer.clone().count_dead_letters(archive, monitoring.closing.clone()));
                let shared = Shared::new(settings);
                twins.open(connections.twins_access(settings, &shared, &metrics));
                Box::pin(consume(settings, connections, &shared, process, stop.clone())).await
            }
            Err(error) => Err(error),
        },
    };
    stop.cancel(); // for whatever reason: requests no longer wait for twins
    traces.end().await;
    monitoring.end().await;
    outcome
}

/// Runs a daemon over existing connections until `stop`. Then it drains and commits. Health and metrics are not served.
///
/// # Errors
/// The daemon cannot start, a person has to decide something, or one of its tasks panicked.
pub async fn run_over(
    settings: &Settings,
    connections: Connections,
    process: Process,
    stop: CancellationToken,
) -> Result<(), Error> {
    consume(settings, connections, &Shared::new(settings), process, stop).await
}

/// Returns a token that the first SIGTERM or SIGINT cancels. The second signal ends the process.
pub(crate) fn stop_on_signals() -> Result<CancellationToken, Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        for round in 0.. {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if round > 0 {
                tracing::info!(
                    "asked to stop a second time: ending at once; events that are not completed are received again after the next start"
                );
                std::process::exit(130);
            }
            token.cancel();
        }
    });
    Ok(stop)
}

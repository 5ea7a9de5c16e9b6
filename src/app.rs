//! The composition root: builds the adapters, spawns the tasks, owns the order of shutdown.
//!
//! | module | holds |
//! |---|---|
//! | `connections`, `connect` | what a daemon connects to, and for how long it waits for what is not there |
//! | `options` | what each part is told, from the settings |
//! | `pipeline` | the way of events: prepared, started, drained |
//! | [`reconcile`] | repair, backfill and audit: in the background, and as commands |
//! | [`serve`], [`check`], [`dead_letter_commands`] | what the other commands work with |
//! | `monitoring`, `traces` | page, health and metrics; the exporter of traces |
//!
//! Start: health and metrics listen first; then credential → container and stores → streams. What passes is waited for, what a
//! person has to mend ends the start with a code (`connect`). Once running, trouble is waited out.
//!
//! Shutdown: stop intake → drain with a deadline → checkpoint → close. What is not drained in time was not
//! completed, so it is replayed; a second signal exits at once, which costs the same.

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

/// Why the daemon could not start, or had to stop. One line that says how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No credential.
    #[error(transparent)]
    Credential(#[from] credential::Error),
    /// The credential gives no token.
    #[error(transparent)]
    NoToken(#[from] NoToken),
    /// No container.
    #[error(transparent)]
    Cosmos(#[from] cosmos::ConnectError),
    /// No place for checkpoints.
    #[error(transparent)]
    Checkpoints(#[from] checkpoints::Error),
    /// No place for dead letters.
    #[error(transparent)]
    DeadLetters(#[from] dead_letters::Error),
    /// The address for health and metrics is taken.
    #[error(transparent)]
    Http(#[from] http::Error),
    /// An IoT hub cannot be asked.
    #[error(transparent)]
    IotHub(#[from] iothub::Error),
    /// Nobody is allowed to read.
    #[error(
        "[serve] lets nobody in: set serve.connection_strings, or serve.entra_tenant with roles or principals (SERVE_NOT_CONFIGURED)"
    )]
    ServesNobody,
    /// It cannot be decided who may read.
    #[error("{0} (SERVE_NOT_CONFIGURED)")]
    Access(#[from] access::SettingsError),
    /// The client that fetches the keys of Entra ID cannot be set up.
    #[error("cannot set up an HTTP client: {0}")]
    HttpClient(String),
    /// The certificate cannot be used.
    #[error("cannot speak TLS: {0} (CERTIFICATE_UNUSABLE)")]
    Certificate(String),
    /// It cannot be noted that a backfill is to be done.
    #[error("{0} (NOTE_NOT_KEPT)")]
    Note(#[from] NoteError),
    /// The documents cannot be looked through.
    #[error("cannot look for documents in the container: {0} (COSMOS_UNAVAILABLE)")]
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

    /// Whether waiting helps.
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

/// Runs the daemon until SIGTERM or SIGINT; a second signal exits at once. `recent_warnings` is what it logs.
pub async fn run(settings: &Settings, recent_warnings: RecentWarnings) -> Result<(), Error> {
    let stop = stop_on_signals()?;
    let metrics = Metrics::new().map_err(|error| Error::Metrics(error.to_string()))?;
    // Before anything that would have to be ended.
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
    // Aborted in the end: what hangs holds nobody up.
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
    stop.cancel(); // whatever the reason: nobody waits for twins any more
    traces.end().await;
    monitoring.end().await;
    outcome
}

/// Runs a daemon over an outside world that is there already, until `stop`; then it drains and commits. Health and metrics are
/// not served.
///
/// # Errors
/// It cannot start, a person has to decide something, or one of its tasks panicked.
pub async fn run_over(
    settings: &Settings,
    connections: Connections,
    process: Process,
    stop: CancellationToken,
) -> Result<(), Error> {
    consume(settings, connections, &Shared::new(settings), process, stop).await
}

/// A token that the first SIGTERM or SIGINT cancels; the second ends the process.
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
                    "asked to stop a second time: ending at once; what was not durable is replayed"
                );
                std::process::exit(130);
            }
            token.cancel();
        }
    });
    Ok(stop)
}

//! The composition root: builds the adapters, spawns the tasks, owns the order of shutdown.
//!
//! Start: health and metrics listen first; then credential → container and stores → streams. What passes is waited for, what a
//! person has to mend ends the start with a code (`reach`). Once running, trouble is waited out.
//!
//! Shutdown: stop intake → drain with a deadline → checkpoint → close. What is not drained in time was not
//! completed, so it is replayed; a second signal exits at once, which costs the same.

pub mod check;
mod connect;
pub mod dead_letter_commands;
mod monitoring;
pub mod registry;
pub mod serve;
mod traces;

use std::{sync::Arc, time::Duration};

use azure_core::credentials::TokenCredential;
use azure_messaging_eventhubs::CheckpointStore;
use futures::future::try_join_all;
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use self::{
    connect::{Connector, Needed},
    monitoring::Monitoring,
    traces::Traces,
};
use crate::{
    adapters::{
        blob, checkpoints,
        cosmos::{self, CosmosStore},
        credential::{self, NoToken},
        dead_letters,
        eventhubs::{self, EventHub},
        iothub, mounts, notes, otlp,
    },
    config::{self, Settings},
    domain::{
        decide::Rules,
        grace_period::Nature,
        health::{Dependency, Phase},
        id::DocumentIdScheme,
        lane::Bound,
        retry::Backoff,
    },
    http,
    ports::{
        Clock, DeadLetterArchive, DeadLetters, EventSource, NoteError, NoteStore, SharedCheckpoints,
        SystemClock, TwinChanges, TwinStore,
    },
    runtime::{
        budgeted_store::BudgetedStore,
        counts,
        documents::{DocumentCache, document_cache},
        in_flight::InFlight,
        lease,
        rate_limited_registry::RateLimitedRegistry,
        receive_threads::ReceiveThreads,
        reconcile::{repair_queue::RepairQueue, requests::AuditRequests},
        replicas::{Budgets, Replicas},
        request_unit_budget::RequestUnitBudget,
        router::{self, Panicked, Router},
        start::{self, StartError},
        stream::{self, Stream},
        twins::{self, Twins},
        watch,
    },
    serve::access,
    status::{About, SharedHub},
    telemetry::{self, HealthState, Metrics, RecentWarnings, Scope, trace::Tracer},
};

/// Batches on their way from the partitions to the router.
const INTAKE: usize = 64;
/// How far apart the clocks within one IoT hub may be; Azure keeps its machines far closer. An event within it is
/// compared by its version, and at worst looked at once more.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);
/// How often lag is measured at least.
const LAG_INTERVAL: Duration = Duration::from_secs(5);

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

/// The outside world of one daemon.
pub struct Connections {
    /// Where events come from; one or two hubs.
    pub sources: Vec<Arc<dyn EventSource>>,
    /// Where documents go.
    pub store: Arc<dyn TwinStore>,
    /// Where progress is kept.
    pub checkpoints: Arc<dyn CheckpointStore>,
    /// The hubs once more where other replicas may own their partitions, for those who look at the status.
    pub shared_hubs: Vec<SharedHub>,
    /// Where events go that can never be applied.
    pub dead_letters: Arc<dyn DeadLetters>,
    /// The same, from the side of the reader.
    pub archive: Arc<dyn DeadLetterArchive>,
    /// The IoT hubs themselves, where they may be asked.
    pub registries: Vec<Arc<RateLimitedRegistry>>,
    /// Where long scans keep their notes.
    pub notes: Arc<dyn NoteStore>,
    /// What changes in the container, for declared counts.
    pub changes: Arc<dyn TwinChanges>,
}

/// What a daemon takes from the process that it runs in.
pub struct Process {
    /// Names it among the replicas; unique.
    pub replica: String,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Where partitions are received; `None`: among everything else.
    pub threads: Option<Arc<ReceiveThreads>>,
    /// Makes traces.
    pub tracer: Option<Tracer>,
    /// What readiness and the status page are computed from.
    pub health: HealthState,
    /// Counts what happens.
    pub metrics: Metrics,
}

impl Connections {
    /// Connects to everything that `settings` name, and waits for what is not there yet.
    async fn connect(
        settings: &Settings,
        connector: &Connector<'_>,
        health: &HealthState,
    ) -> Result<Self, Error> {
        let credential = credential::connect_noting(&settings.credential.identity, health.tokens())?;
        let signed = [
            match &settings.checkpoint.store {
                config::CheckpointStore::Blob(blob) => Some(blob),
                config::CheckpointStore::Memory | config::CheckpointStore::File { .. } => None,
            },
            match &settings.dead_letters {
                config::DeadLetters::Blob(blob) => Some(blob),
                config::DeadLetters::File { .. } => None,
            },
        ];
        if let Some(end) = signed.into_iter().flatten().find_map(config::Blob::signature_ends) {
            health.tokens().configured(Scope::Signature, end);
        }
        let registries = registry::registries(settings, &credential, connector.metrics, health)?;
        // On its own, so that nothing else is blamed where there is no token.
        let token = || async { Ok(credential::probe(&credential).await?) };
        connector.until(Needed::Dependency(Dependency::Credential), token).await?;
        let store = connector.until(Needed::Store, || connect_store(settings, Arc::clone(&credential)));
        let progress = connector.until(Needed::Dependency(Dependency::Checkpoints), || async {
            let checkpoints = checkpoints::open(&settings.checkpoint.store, &credential).await?;
            Ok((checkpoints, notes::open(&settings.checkpoint.store, &credential).await?))
        });
        let letters = connector.until(Needed::Dependency(Dependency::DeadLetters), || async {
            Ok(dead_letters::open(&settings.dead_letters, &credential).await?)
        });
        // All at once: a person sees everything that is to be mended.
        let (store, (checkpoints, notes), dead_letters) = tokio::try_join!(store, progress, letters)?;
        mounts::warn_about_ephemeral(settings).await;
        let source = |hub: &str| event_source(settings, &credential, hub);
        let shared_hubs = checkpoints.shared.as_ref();
        let shared_hubs = shared_hubs.map(|checkpoints| shared_hubs_of(settings, &credential, checkpoints));
        let store = Arc::new(store);
        Ok(Self {
            changes: Arc::clone(&store) as Arc<dyn TwinChanges>,
            sources: settings.eventhubs.hubs().into_iter().map(source).collect(),
            store,
            checkpoints: checkpoints.store,
            shared_hubs: shared_hubs.unwrap_or_default(),
            dead_letters: dead_letters.letters,
            archive: dead_letters.archive,
            registries,
            notes,
        })
    }
}

fn event_source(
    settings: &Settings,
    credential: &Arc<dyn TokenCredential>,
    hub: &str,
) -> Arc<dyn EventSource> {
    Arc::new(EventHub::new(eventhubs_options(settings, hub), Arc::clone(credential)))
}

/// The Event Hubs, for those who look at how far behind the checkpoints of all replicas are.
fn shared_hubs_of(
    settings: &Settings,
    credential: &Arc<dyn TokenCredential>,
    checkpoints: &Arc<dyn SharedCheckpoints>,
) -> Vec<SharedHub> {
    let hub = |hub: &str| SharedHub {
        source: event_source(settings, credential, hub),
        checkpoints: Arc::clone(checkpoints),
        namespace: settings.eventhubs.namespace.clone(),
        consumer_group: settings.eventhubs.consumer_group.clone(),
    };
    settings.eventhubs.hubs().into_iter().map(hub).collect()
}

async fn connect_store(
    settings: &Settings,
    credential: Arc<dyn TokenCredential>,
) -> Result<CosmosStore, Error> {
    let access = cosmos_access(settings, credential);
    Ok(CosmosStore::connect(&cosmos_options(settings), access).await?)
}

fn cosmos_access(settings: &Settings, credential: Arc<dyn TokenCredential>) -> cosmos::Access {
    match &settings.cosmos.key {
        Some(key) => cosmos::Access::Key(key.expose().to_owned()),
        None => cosmos::Access::Token(credential),
    }
}

fn cosmos_options(settings: &Settings) -> cosmos::Options {
    let cosmos = &settings.cosmos;
    cosmos::Options {
        endpoint: cosmos.endpoint.clone(),
        database: cosmos.database.clone(),
        container: cosmos.container.clone(),
        region: cosmos.application_region.clone(),
        write_region: cosmos.write_region.clone(),
        request_timeout: cosmos.request_timeout,
        binary_encoding: cosmos.binary_encoding,
        id_scheme: settings.document.id,
    }
}

fn eventhubs_options(settings: &Settings, hub: &str) -> eventhubs::Options {
    let eventhubs = &settings.eventhubs;
    eventhubs::Options {
        namespace: eventhubs.namespace.clone(),
        hub: hub.to_owned(),
        consumer_group: eventhubs.consumer_group.clone(),
        endpoint: eventhubs
            .endpoint
            .as_ref()
            .map(|endpoint| endpoint.as_str().trim_end_matches('/').to_owned()),
        prefetch: eventhubs.prefetch.get(),
        open_timeout: eventhubs.open_timeout,
    }
}

/// Where partitions go on, and what to do where that leaves a choice.
fn start_options(settings: &Settings, audits: &AuditRequests) -> start::Options {
    start::Options {
        namespace: settings.eventhubs.namespace.clone(),
        consumer_group: settings.eventhubs.consumer_group.clone(),
        fresh: match settings.eventhubs.start {
            config::Start::Earliest => start::Fresh::Earliest,
            config::Start::Latest => start::Fresh::Latest,
        },
        refused_grace: settings.start.refused_grace,
        classify: classify_checkpoint_error,
        policy: start::Policy {
            on_invalid: match settings.checkpoint.on_invalid {
                config::OnInvalid::Stop => start::OnInvalid::Stop,
                config::OnInvalid::Earliest | config::OnInvalid::EarliestAndAudit => {
                    start::OnInvalid::Earliest
                }
            },
            audits: match settings.checkpoint.on_invalid {
                config::OnInvalid::Stop | config::OnInvalid::Earliest => AuditRequests::nobodys(),
                config::OnInvalid::EarliestAndAudit => audits.clone(),
            },
        },
    }
}

fn stream_options(
    settings: &Settings,
    replica: &str,
    leads: Option<watch::Sender<bool>>,
    audits: &AuditRequests,
    replicas: &Arc<Replicas>,
) -> stream::Options {
    stream::Options {
        start: start_options(settings, audits),
        sharing: match settings.checkpoint.store {
            // Both belong to one process.
            config::CheckpointStore::Memory | config::CheckpointStore::File { .. } => stream::Sharing::Alone,
            config::CheckpointStore::Blob(_) => stream::Sharing::Leases(lease::Options {
                owner: replica.to_owned(),
                duration: settings.lease.duration,
                renew_interval: settings.lease.renew_interval,
            }),
        },
        max_body_bytes: settings.document.max_event_size,
        tracer: None,
        commit_interval: settings.checkpoint.interval,
        lag_interval: LAG_INTERVAL.min(settings.eventhubs.stall_timeout / 2),
        partition_discovery_interval: settings.eventhubs.partition_discovery_interval,
        stall_limit: settings.eventhubs.stall_timeout,
        leads,
        replicas: Arc::clone(replicas),
    }
}

/// Understands an error of the checkpoint store. One that is none of ours is the SDK's own, about a request that it did not
/// even send.
fn classify_checkpoint_error(error: &azure_core::Error) -> start::CheckpointError {
    let known = checkpoints::Error::find(error);
    start::CheckpointError {
        reason: credential::one_line(error),
        code: known.map_or("CHECKPOINT_REFUSED", checkpoints::Error::code),
        nature: known.map_or(Nature::Final, checkpoints::Error::nature),
    }
}

fn about(settings: &Settings, replica: &str, recent_warnings: RecentWarnings) -> About {
    About {
        replica: replica.to_owned(),
        retention: settings.eventhubs.retention,
        streams: settings.eventhubs.hubs().into_iter().map(ToOwned::to_owned).collect(),
        hubs: settings.iothub.hubs.iter().map(|hub| hub.name.to_string()).collect(),
        recent_warnings,
    }
}

fn rules(settings: &Settings) -> Rules {
    let seconds = settings.document.tombstone_ttl.as_secs();
    Rules {
        id_scheme: settings.document.id,
        tombstone_ttl_seconds: u32::try_from(seconds).unwrap_or(u32::MAX),
        clock_tolerance: CLOCK_TOLERANCE,
        forgets_after: None,
    }
}

/// What all replicas together may use.
fn budgets(settings: &Settings) -> Budgets {
    Budgets {
        registry_share: settings.iothub.share,
        request_units_per_second: settings
            .cosmos
            .max_request_units_per_second
            .map(|units| units.get().into()),
    }
}

/// What the streams and the background work share about the store.
#[derive(Clone)]
struct Shared {
    cache: DocumentCache,
    budget: RequestUnitBudget,
}

impl Shared {
    fn new(settings: &Settings) -> Self {
        let cap = budgets(settings).request_units_per_second;
        Self { cache: document_cache(settings.cache.max_bytes as u64), budget: RequestUnitBudget::new(cap) }
    }
}

fn router_options(
    settings: &Settings,
    shared: &Shared,
    repair_queue: RepairQueue,
    audits: AuditRequests,
) -> router::Options {
    router::Options {
        rules: rules(settings),
        most_concurrency: settings.cosmos.concurrency_max.get() as usize,
        budget: shared.budget.clone(),
        repair_queue,
        audits,
        linger: settings.router.linger,
        max_batch: settings.router.max_events_per_write.get() as usize,
        bound: Bound {
            items: settings.router.max_in_flight_events_per_twin.get() as usize,
            weight: settings.router.max_in_flight_bytes_per_twin,
        },
        give_up_after: settings.router.give_up_twin_after,
        tracer: None,
        cache: shared.cache.clone(),
        backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(30)),
    }
}

fn counting_options(settings: &Settings) -> counts::Options {
    let counting = &settings.counting;
    counts::Options {
        declared: counting.declared.clone().into(),
        interval: counting.interval,
        recount_interval: counting.recount_interval,
    }
}

/// What twins are read from that somebody asks for.
fn twins_access(
    settings: &Settings,
    connections: &Connections,
    shared: &Shared,
    metrics: &Metrics,
) -> twins::Access {
    let registries = connections.registries.iter();
    twins::Access {
        budgeted_store: BudgetedStore {
            store: Arc::clone(&connections.store),
            budget: shared.budget.clone(),
            metrics: metrics.clone(),
        },
        documents: shared.cache.clone(),
        registries: registries.map(|registry| (registry.hub().clone(), Arc::clone(registry))).collect(),
        hub_limit: settings.iothub.request_timeout,
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
                twins.open(twins_access(settings, &connections, &shared, &metrics));
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

/// Consumes the streams of `outside` until `stop`, then drains and commits.
async fn consume(
    settings: &Settings,
    connections: Connections,
    shared: &Shared,
    process: Process,
    stop: CancellationToken,
) -> Result<(), Error> {
    let Process { replica, clock, threads, tracer, health, metrics } = process;
    let (health, metrics) = (&health, &metrics);
    let connector = Connector { grace: settings.start.refused_grace, health, metrics };
    let (leads, led) = watch::channel(false);
    let (requests, audit_asked) = AuditRequests::channel(Arc::clone(&clock));
    let audits = if connections.registries.is_empty() { AuditRequests::nobodys() } else { requests };
    // Before the streams, which would fill an empty container.
    let background = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        background = Box::pin(registry::prepare(settings, &connections, shared, &clock, audits.clone(), &connector)) => background?,
    };
    let replicas = Arc::new(Replicas::new(
        budgets(settings),
        connections.registries.clone(),
        shared.budget.clone(),
        metrics.clone(),
    ));
    let prepare = connections.sources.into_iter().enumerate().map(|(place, source)| {
        let checkpoints = Arc::clone(&connections.checkpoints);
        let leads = (place == 0).then(|| leads.clone());
        let mut options = stream_options(settings, &replica, leads, &audits, &replicas);
        options.tracer.clone_from(&tracer);
        let what = Needed::Dependency(Dependency::EventHub(source.name().to_owned()));
        connector.until(what, move || {
            let (source, checkpoints) = (Arc::clone(&source), Arc::clone(&checkpoints));
            let prepare =
                Stream::prepare(source, checkpoints, options.clone(), health.clone(), metrics.clone());
            async { Ok(prepare.await?) }
        })
    });
    let streams = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        prepared = try_join_all(prepare) => prepared?,
    };
    let counting = counts::Tools {
        changes: connections.changes,
        budget: shared.budget.clone(),
        clock: Arc::clone(&clock),
        health: health.clone(),
        metrics: metrics.clone(),
    };
    let limits = InFlight::new(
        settings.router.max_in_flight_events.get() as usize,
        settings.router.max_in_flight_bytes,
    );
    let router = Router::new(
        router::Options {
            tracer,
            ..router_options(settings, shared, background.repair_queue(), audits.clone())
        },
        connections.store,
        connections.dead_letters,
        clock,
        Arc::clone(&limits),
        health.clone(),
        metrics.clone(),
    );
    let (intake, batches) = mpsc::channel(INTAKE);
    // Ends with this function, however that ends.
    let mut router = AbortOnDropHandle::new(tokio::spawn(router.run(batches)));
    let mut consumers = JoinSet::new();
    let (intake_stop, drained) = (stop.child_token(), CancellationToken::new());
    let mut background = background.spawn(&led, &audit_asked, &intake_stop, health.scans());
    background.spawn(Box::pin(counts::run(counting, counting_options(settings), intake_stop.clone())));
    for stream in streams {
        let (limits, threads) = (Arc::clone(&limits), threads.clone());
        let run = stream.run(limits, intake.clone(), threads, intake_stop.clone(), drained.clone());
        consumers.spawn(Box::pin(run));
    }
    drop(intake);
    health.set_phase(Phase::Running);
    tracing::info!(version = telemetry::VERSION, "running");
    if settings.iothub.hubs.len() > 1 && settings.document.id == DocumentIdScheme::Device {
        tracing::warn!(
            hubs = settings.iothub.hubs.len(),
            code = "DOCUMENT_FOREIGN",
            "several IoT hubs with document.id = \"device\": where two have a device of one id, the first has the document, and \
             events of the other become dead letters"
        );
    }

    // What ends by itself has failed: everything else is brought to an orderly end.
    let mut outcome = Ok(());
    let mut router_ended = false;
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        ended = &mut router => {
            router_ended = true;
            // In order, it ends when nobody hands anything over any more: all streams have ended, and say why below.
            if !matches!(ended, Ok(Ok(()))) {
                outcome = Err(Panicked.into());
            }
        }
        Some(ended) = consumers.join_next() => outcome = consumer_ended(ended),
        // Its tasks end with the stop only; before, it is a panic.
        Some(_) = background.join_next() => outcome = Err(Panicked.into()),
    }
    health.set_phase(Phase::Stopping);
    tracing::info!("stopping: no more intake, finishing what was received");
    intake_stop.cancel();
    if !router_ended {
        match timeout(settings.shutdown.drain_timeout, &mut router).await {
            Ok(Ok(Ok(()))) => {}
            Ok(_) => outcome = Err(Panicked.into()),
            Err(_) => {
                router.abort();
                let (events, _) = limits.used();
                tracing::warn!(
                    events,
                    code = "DRAIN_INCOMPLETE",
                    "not everything was durable in time: it is replayed after the next start"
                );
            }
        }
    }
    background.shutdown().await; // what it had under way is conditional, or done again
    // Leases were kept until here; they end with the last checkpoint.
    drained.cancel();
    while let Some(ended) = consumers.join_next().await {
        outcome = outcome.and(consumer_ended(ended));
    }
    outcome
}

fn consumer_ended(ended: Result<Result<(), stream::Error>, tokio::task::JoinError>) -> Result<(), Error> {
    match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(stream::Error::Start(error))) => Err(error.into()),
        Ok(Err(stream::Error::Panicked(_))) | Err(_) => Err(Panicked.into()),
    }
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

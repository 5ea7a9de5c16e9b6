//! `twinsync serve`: IoT Hub's read API, answered from the copy. It reads the container, and measures how far the copy lags. It writes
//! nothing and owns no partition, so any number of such processes may run.

use std::{sync::Arc, time::Duration};

use azure_core::credentials::TokenCredential;
use time::OffsetDateTime;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Error,
    connect::{Connector, Needed},
    connections::{connect_store, shared_hubs_of},
    monitoring::Monitoring,
    options::{about, budgets},
    stop_on_signals,
};
use crate::{
    adapters::{checkpoints, cosmos::CosmosStore, credential},
    config::{self, Encryption, Settings},
    domain::{
        health::{Dependency, Failure, Phase},
        id::{HubName, TwinKey},
        query::Root,
        ticks::Ticks,
    },
    http,
    ports::{Clock, SystemClock, TwinSelection, TwinStore},
    runtime::{
        budgeted_store::BudgetedStore,
        documents::document_cache,
        queries::{Limits, Queries},
        request_unit_budget::RequestUnitBudget,
        router::Panicked,
        store_watch,
        twins::{Access as TwinsAccess, Places, Twins},
    },
    serve::{
        self, Api, Callers, Lag, Parts, Tls,
        access::{
            Access, Denied,
            entra::{self, KeyEvent},
        },
        tls::{CertificateEvent, Files, PERIOD, Rotation},
    },
    status::{About, OtherPartitions, WholeLag},
    telemetry::{
        self, HealthState, Metrics, RecentWarnings, Renewed, Scope, ServeMetrics,
        event::{CertificateChanged, DependencyChanged, Fault, KeysRenewed},
    },
};

/// Maximum numbers of requests at the same time. Each has its own connection, and connections are limited.
const PLACES: Places = Places { waiters: 256, readers: 512 };
/// How often the lag of the copy is measured. That costs a listing of checkpoints per Event Hub and a request per partition.
const LAG_INTERVAL: Duration = Duration::from_secs(15);
/// Time limit of that measurement. After it, the lag is reported as unknown.
const LAG_LIMIT: Duration = Duration::from_secs(20);
/// How often the age of the Entra ID keys is checked. Keys older than an hour are fetched again.
const KEYS_INTERVAL: Duration = Duration::from_secs(300);
/// Configuration key of the address.
const LISTEN: &str = "serve.listen";

/// Serves until SIGTERM or SIGINT. A second signal exits at once. `recent_warnings` holds its logged warnings and errors.
///
/// # Errors
/// The process cannot start.
pub async fn run(settings: &Settings, recent_warnings: RecentWarnings) -> Result<(), Error> {
    let serve = settings.serve.as_ref().ok_or(Error::ServesNobody)?;
    let stop = stop_on_signals()?;
    let metrics = Metrics::new().map_err(|error| Error::Metrics(error.to_string()))?;
    let served = ServeMetrics::new(&metrics, Denied::ALL.map(Denied::label));
    let health = HealthState::with_limits(settings.http.blocked_after, settings.eventhubs.retention);
    // Errors that a person has to fix are reported first, before any wait.
    let access = Arc::new(access(serve, &health, &served)?);
    let (tls, rotation) = encryption(serve, &health).await?.unzip();
    let listener = http::bind_for(LISTEN, serve.listen).await?;
    let hubs: Vec<HubName> = serve.hub.iter().cloned().collect();
    let twins = Twins::with_places(hubs, metrics.clone(), stop.clone(), PLACES);
    let about = About {
        streams: Vec::new(),
        hubs: Vec::new(),
        ..about(settings, telemetry::replica(), recent_warnings)
    };
    let monitoring = Monitoring::start(settings, about, &health, &metrics, &twins).await?;
    let callers = Callers::new(serve.max_request_units_per_second.map(|units| units.get().into()));
    let lag = Lag::default();
    let api = Api::new(Parts {
        access: Arc::clone(&access),
        twins: twins.clone(),
        callers: callers.clone(),
        lag: lag.clone(),
        metrics: served.clone(),
        hub: serve.hub.clone(),
        hub_host: serve.hub_host.clone(),
        most_queries: serve.max_concurrent_queries,
        max_wait: serve.max_query_time,
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(callers.run(stop.clone()));
    tasks.spawn(renew_keys(access, stop.clone()));
    if let Some(rotation) = rotation {
        tasks.spawn(watch_certificate(rotation, health.clone(), served.clone(), stop.clone()));
    }
    // The server answers at once. Until the store is connected, it answers that it is not.
    let mut server = {
        let (api, served, stop) = (api.clone(), served.clone(), stop.clone());
        tokio::spawn(async move { serve::serve(listener, tls, &api, served, stop).await })
    };
    let connector = Connector { grace: settings.start.refused_grace, health: &health, metrics: &metrics };
    let outcome = tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        connected = Box::pin(connect(settings, &connector)) => match connected {
            Ok(Connected { store, credential }) => {
                let budget = RequestUnitBudget::new(budgets(settings).request_units_per_second);
                open(settings, serve, &store, &budget, &metrics, &twins, &api);
                let watched: Arc<dyn TwinStore> = store;
                let key = TwinKey::device(serve.hub.as_ref().map_or("twinsync", HubName::as_str), "twinsync-store-watch");
                tasks.spawn(store_watch::run(watched, key, budget, health.clone(), metrics.clone(), stop.clone()));
                // Other checkpoint stores belong to one process, so the lag is unknown.
                if let config::CheckpointStore::Blob(_) = settings.checkpoint.store {
                    let settings = settings.clone();
                    tasks.spawn(watch_lag(settings, credential, lag, health.clone(), served, stop.clone()));
                }
                health.set_phase(Phase::Running);
                tracing::info!(version = telemetry::VERSION, address = %serve.listen, "serving IoT Hub's read API");
                // A task that ends before the stop has panicked.
                tokio::select! {
                    biased;
                    () = stop.cancelled() => Ok(()),
                    _ = &mut server => Err(Panicked.into()),
                    Some(_) = tasks.join_next() => Err(Panicked.into()),
                }
            }
            Err(error) => Err(error),
        },
    };
    health.set_phase(Phase::Stopping);
    stop.cancel(); // for whatever reason
    if !server.is_finished() {
        let _ = server.await; // it limits the time for open requests itself
    }
    while tasks.join_next().await.is_some() {}
    monitoring.end().await;
    outcome
}

/// The dependencies that the API reads from.
struct Connected {
    store: Arc<CosmosStore>,
    credential: Arc<dyn TokenCredential>,
}

async fn connect(settings: &Settings, connector: &Connector<'_>) -> Result<Connected, Error> {
    let credential = credential::connect_noting(&settings.credential.identity, connector.health.tokens())?;
    let token = || async { Ok(credential::probe(&credential).await?) };
    connector.until(Needed::Dependency(Dependency::Credential), token).await?;
    let store = connector.until(Needed::Store, || connect_store(settings, Arc::clone(&credential))).await?;
    Ok(Connected { store: Arc::new(store), credential })
}

/// From now on, twins and queries are answered.
fn open(
    settings: &Settings,
    serve: &config::Serve,
    store: &Arc<CosmosStore>,
    budget: &RequestUnitBudget,
    metrics: &Metrics,
    twins: &Twins,
    api: &Api,
) {
    let budgeted_store = BudgetedStore {
        store: Arc::clone(store) as Arc<dyn TwinStore>,
        budget: budget.clone(),
        metrics: metrics.clone(),
    };
    twins.open(TwinsAccess {
        budgeted_store,
        documents: document_cache(0), // nothing is written here
        registries: Default::default(),
        hub_limit: settings.iothub.request_timeout,
    });
    api.open(Queries {
        selection: Arc::clone(store) as Arc<dyn TwinSelection>,
        budget: budget.clone(),
        metrics: metrics.clone(),
        limits: Limits {
            request_units: serve.max_request_units.get().into(),
            time: serve.max_query_time,
            held: serve.max_rows_in_memory.get() as usize,
        },
        place: match serve.identity_fields {
            true => Root::place_as_of_last_audit,
            false => Root::place_kept_by_events,
        },
    });
}

/// Decides who may read, from the settings.
fn access(serve: &config::Serve, health: &HealthState, metrics: &ServeMetrics) -> Result<Access, Error> {
    let tokens = |entra: &config::Entra| entra::Settings {
        authority: entra.authority.as_str().trim_end_matches('/').to_owned(),
        audiences: entra.audiences.clone(),
        roles: entra.roles.iter().cloned().collect(),
        principals: entra.principals.iter().cloned().collect(),
        ..entra::Settings::new(entra.tenant.clone())
    };
    let settings = serve::access::Settings {
        hosts: serve.hosts.clone(),
        policies: serve.policies.clone(),
        longest_signature: serve.max_signature_lifetime,
        entra: serve.entra.as_ref().map(tokens),
    };
    let fetch = entra::Http::new().map_err(|error| Error::HttpClient(credential::one_line(&error)))?;
    let (health, metrics) = (health.clone(), metrics.clone());
    let report = move |event| keys_changed(event, &health, &metrics);
    Ok(Access::new(&settings, Arc::new(fetch), Arc::new(report))?)
}

fn keys_changed(event: KeyEvent, health: &HealthState, metrics: &ServeMetrics) {
    match event {
        KeyEvent::Renewed { keys } => {
            KeysRenewed { keys, at: SystemClock.now() }.emit(metrics);
            DependencyChanged::post(health, &Dependency::EntraKeys, None);
        }
        KeyEvent::NotRenewed { error, age: _ } => {
            metrics.renewal_failed(Renewed::Keys);
            let reason = credential::one_line(&error);
            let fault = Fault { failure: Failure::Silent, code: "ENTRA_KEYS_UNAVAILABLE", reason: &reason };
            DependencyChanged::post(health, &Dependency::EntraKeys, Some(fault));
        }
    }
}

/// The TLS configuration. `None`: a proxy in front handles TLS.
async fn encryption(serve: &config::Serve, health: &HealthState) -> Result<Option<(Tls, Rotation)>, Error> {
    let Encryption::Files { certificate, key } = &serve.encryption else { return Ok(None) };
    let loaded = Tls::load(Files { certificate: certificate.clone(), key: key.clone() }).await;
    let (tls, rotation) = loaded.map_err(|error| Error::Certificate(credential::one_line(&error)))?;
    if let Some(end) = ticks(tls.expires_at()) {
        health.tokens().configured(Scope::Certificate, end);
    }
    Ok(Some((tls, rotation)))
}

async fn watch_certificate(
    rotation: Rotation,
    health: HealthState,
    metrics: ServeMetrics,
    stop: CancellationToken,
) {
    let changed = |event| match event {
        CertificateEvent::Changed { expires_at } => {
            let expires = ticks(expires_at).unwrap_or(Ticks::new(i64::MAX));
            health.tokens().configured(Scope::Certificate, expires);
            CertificateChanged::Taken { expires }.emit(&metrics);
        }
        CertificateEvent::Kept { error, expires_at } => {
            let expires = ticks(expires_at).unwrap_or(Ticks::new(i64::MAX));
            let reason = credential::one_line(&error);
            CertificateChanged::Kept { reason: &reason, expires }.emit(&metrics);
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        never = rotation.run(PERIOD, changed) => match never {},
    }
}

/// The end of a certificate. `None`: too far in the future for ticks, which is harmless.
fn ticks(at: OffsetDateTime) -> Option<Ticks> {
    let milliseconds = at.unix_timestamp().checked_mul(1_000)?;
    Ticks::from_unix_milliseconds(milliseconds)
}

/// Fetches the keys of Entra ID at the start, so that no caller waits for them, and keeps them fresh without requests.
async fn renew_keys(access: Arc<Access>, stop: CancellationToken) {
    let mut timer = interval(KEYS_INTERVAL);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = timer.tick() => access.refresh_keys(),
        }
    }
}

/// Measures periodically how far the copy lags.
async fn watch_lag(
    settings: Settings,
    credential: Arc<dyn TokenCredential>,
    lag: Lag,
    health: HealthState,
    metrics: ServeMetrics,
    stop: CancellationToken,
) {
    let mut timer = interval(LAG_INTERVAL);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Opened by the first measurement that succeeds, and then kept: it remembers since when events wait.
    let mut others = None;
    loop {
        let measured = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            measured = async {
                timer.tick().await;
                timeout(LAG_LIMIT, measure(&settings, &credential, &mut others)).await
            } => measured,
        };
        let failed = match measured {
            Ok(Ok(whole)) => {
                lag.found(serve::MeasuredLag { events: whole.events, at_least: whole.at_least });
                None
            }
            Ok(Err(reason)) => Some(reason),
            Err(_) => Some(format!("no answer within {} s", LAG_LIMIT.as_secs())),
        };
        metrics.set_lag(lag.get().map(|(behind, _)| behind.events));
        if failed.is_some() {
            metrics.renewal_failed(Renewed::Lag);
        }
        let fault =
            failed.as_deref().map(|reason| Fault { failure: Failure::Silent, code: "LAG_UNKNOWN", reason });
        DependencyChanged::post(&health, &Dependency::Lag, fault);
    }
}

async fn measure(
    settings: &Settings,
    credential: &Arc<dyn TokenCredential>,
    others: &mut Option<OtherPartitions>,
) -> Result<WholeLag, String> {
    if others.is_none() {
        let shared = checkpoints::open_shared_read_only(&settings.checkpoint.store, credential).await;
        let shared = shared.map_err(|error| credential::one_line(&error))?;
        *others = shared.map(|shared| OtherPartitions::new(shared_hubs_of(settings, credential, &shared)));
    }
    match others {
        Some(others) => others.whole().await,
        None => Err("the checkpoints belong to one process".to_owned()),
    }
}

//! The connections of one daemon, which it opens at its start.

use std::sync::Arc;

use azure_core::credentials::TokenCredential;
use azure_messaging_eventhubs::CheckpointStore;

use super::{
    Error,
    connect::{Connector, Needed},
    options::{cosmos_access, cosmos_options, eventhubs_options},
    shared::Shared,
};
use crate::{
    adapters::{
        checkpoints, cosmos::CosmosStore, credential, dead_letters, eventhubs::EventHub, iothub, mounts,
        notes,
    },
    config::{self, Settings},
    domain::health::Dependency,
    ports::{
        DeadLetterArchive, DeadLetters, EventSource, NoteStore, SharedCheckpoints, TwinChanges, TwinStore,
    },
    runtime::{
        budgeted_store::BudgetedStore, quota::RateLimiter, rate_limited_registry::RateLimitedRegistry, twins,
    },
    status::SharedHub,
    telemetry::{HealthState, Metrics, Scope},
};

/// The connections of one daemon.
pub struct Connections {
    /// The sources of events: one or two Event Hubs.
    pub sources: Vec<Arc<dyn EventSource>>,
    /// The store of the documents.
    pub store: Arc<dyn TwinStore>,
    /// The store of the checkpoints.
    pub checkpoints: Arc<dyn CheckpointStore>,
    /// The Event Hubs once more, for the status, if other replicas may own their partitions.
    pub shared_hubs: Vec<SharedHub>,
    /// The store for events that can never be applied.
    pub dead_letters: Arc<dyn DeadLetters>,
    /// The same store, for readers.
    pub archive: Arc<dyn DeadLetterArchive>,
    /// The registries of the IoT hubs, if they may be asked.
    pub registries: Vec<Arc<RateLimitedRegistry>>,
    /// The store for the notes of long scans.
    pub notes: Arc<dyn NoteStore>,
    /// The change feed of the container, for declared counts.
    pub changes: Arc<dyn TwinChanges>,
}

impl Connections {
    /// Connects to everything in `settings`, and waits for dependencies that are not there yet.
    pub(super) async fn connect(
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
        let registries = connect_registries(settings, &credential, connector.metrics, health)?;
        // The token is requested separately, so that a missing token is not blamed on a service.
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
        // All at the same time, so that a person sees everything that has to be fixed.
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

    /// The dependencies for answering requests for twins.
    pub(super) fn twins_access(
        &self,
        settings: &Settings,
        shared: &Shared,
        metrics: &Metrics,
    ) -> twins::Access {
        let registries = self.registries.iter();
        twins::Access {
            budgeted_store: BudgetedStore {
                store: Arc::clone(&self.store),
                budget: shared.budget.clone(),
                metrics: metrics.clone(),
            },
            documents: shared.cache.clone(),
            registries: registries.map(|registry| (registry.hub().clone(), Arc::clone(registry))).collect(),
            hub_limit: settings.iothub.request_timeout,
        }
    }
}

pub(super) fn event_source(
    settings: &Settings,
    credential: &Arc<dyn TokenCredential>,
    hub: &str,
) -> Arc<dyn EventSource> {
    Arc::new(EventHub::new(eventhubs_options(settings, hub), Arc::clone(credential)))
}

/// The Event Hubs, for a status that shows how far the checkpoints of all replicas lag.
pub(super) fn shared_hubs_of(
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

pub(super) async fn connect_store(
    settings: &Settings,
    credential: Arc<dyn TokenCredential>,
) -> Result<CosmosStore, Error> {
    let access = cosmos_access(settings, credential);
    Ok(CosmosStore::connect(&cosmos_options(settings), access).await?)
}

/// The configured hubs, each within its share of the quota.
pub(super) fn connect_registries(
    settings: &Settings,
    credential: &Arc<dyn TokenCredential>,
    metrics: &Metrics,
    health: &HealthState,
) -> Result<Vec<Arc<RateLimitedRegistry>>, iothub::Error> {
    let hub = &settings.iothub;
    let rate_limited = |registry| {
        let rate_limiter = RateLimiter::new(hub.tier, hub.units.get(), hub.share);
        Arc::new(RateLimitedRegistry::new(registry, rate_limiter, metrics.clone()).shown_on(health))
    };
    Ok(iothub::connect(hub, credential)?.into_iter().map(rate_limited).collect())
}

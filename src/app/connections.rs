//! The outside world of one daemon: what it connects to at its start.

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

impl Connections {
    /// Connects to everything that `settings` name, and waits for what is not there yet.
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

    /// What twins are read from that somebody asks for.
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

/// The Event Hubs, for those who look at how far behind the checkpoints of all replicas are.
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

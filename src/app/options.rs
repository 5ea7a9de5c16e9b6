//! The options of each part, from the settings: one function per part. No other code decides about them.

use std::{sync::Arc, time::Duration};

use azure_core::credentials::TokenCredential;

use super::shared::Shared;
use crate::{
    adapters::{checkpoints, cosmos, credential, eventhubs},
    config::{self, Settings},
    domain::{decide::Rules, grace_period::Nature, lane::Bound, retry::Backoff},
    runtime::{
        counts, lease,
        reconcile::{repair_queue::RepairQueue, requests::AuditRequests},
        replicas::{Budgets, Replicas},
        router, start, stream, watch,
    },
    status::About,
    telemetry::RecentWarnings,
};

/// How far the clocks within one IoT hub may differ. Azure keeps its machines far closer. An event within this tolerance is compared by its
/// version, and in the worst case its twin is checked once more.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);
/// Maximum time between two lag measurements.
const LAG_INTERVAL: Duration = Duration::from_secs(5);

pub(super) fn cosmos_access(settings: &Settings, credential: Arc<dyn TokenCredential>) -> cosmos::Access {
    match &settings.cosmos.key {
        Some(key) => cosmos::Access::Key(key.expose().to_owned()),
        None => cosmos::Access::Token(credential),
    }
}

pub(super) fn cosmos_options(settings: &Settings) -> cosmos::Options {
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

pub(super) fn eventhubs_options(settings: &Settings, hub: &str) -> eventhubs::Options {
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

/// Where partitions resume, and what to do when there is a choice.
pub(super) fn start_options(settings: &Settings, audits: &AuditRequests) -> start::Options {
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

pub(super) fn stream_options(
    settings: &Settings,
    replica: &str,
    leads: Option<watch::Sender<bool>>,
    audits: &AuditRequests,
    replicas: &Arc<Replicas>,
) -> stream::Options {
    stream::Options {
        start: start_options(settings, audits),
        sharing: match settings.checkpoint.store {
            // Both stores belong to one process.
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

/// Classifies an error of the checkpoint store. An error that is not from this project's adapters comes from the SDK, and concerns a
/// request that was not sent.
pub(super) fn classify_checkpoint_error(error: &azure_core::Error) -> start::CheckpointError {
    let known = checkpoints::Error::find(error);
    start::CheckpointError {
        reason: credential::one_line(error),
        code: known.map_or("CHECKPOINT_REFUSED", checkpoints::Error::code),
        nature: known.map_or(Nature::Final, checkpoints::Error::nature),
    }
}

pub(super) fn about(settings: &Settings, replica: &str, recent_warnings: RecentWarnings) -> About {
    About {
        replica: replica.to_owned(),
        retention: settings.eventhubs.retention,
        streams: settings.eventhubs.hubs().into_iter().map(ToOwned::to_owned).collect(),
        hubs: settings.iothub.hubs.iter().map(|hub| hub.name.to_string()).collect(),
        recent_warnings,
    }
}

pub(super) fn rules(settings: &Settings) -> Rules {
    let seconds = settings.document.tombstone_ttl.as_secs();
    Rules {
        id_scheme: settings.document.id,
        tombstone_ttl_seconds: u32::try_from(seconds).unwrap_or(u32::MAX),
        clock_tolerance: CLOCK_TOLERANCE,
        forgets_after: None,
    }
}

/// The budgets of all replicas together.
pub(super) fn budgets(settings: &Settings) -> Budgets {
    Budgets {
        registry_share: settings.iothub.share,
        request_units_per_second: settings
            .cosmos
            .max_request_units_per_second
            .map(|units| units.get().into()),
    }
}

pub(super) fn router_options(
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

pub(super) fn counting_options(settings: &Settings) -> counts::Options {
    let counting = &settings.counting;
    counts::Options {
        declared: counting.declared.clone().into(),
        interval: counting.interval,
        recount_interval: counting.recount_interval,
    }
}

//! Gauges that are computed from the health state when they are requested.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    counts::Counts,
    name,
    partition::{Watched, behind},
    text::{Page, labels},
    tokens::{Given, Scope},
};
use crate::domain::{
    health::{Dependency, Facts, Failure, Outage, PartitionState, StoreState},
    id::PartitionId,
    readiness,
    ticks::Ticks,
};

/// The present values in Prometheus' text format.
pub(super) fn render(
    facts: &Facts,
    watched: &[(PartitionId, Arc<dyn Watched>)],
    retention: Duration,
    tokens: &BTreeMap<Scope, Given>,
    counts: &Counts,
) -> String {
    let mut page = Page::default();
    let report = readiness::assess(facts);
    page.sample(name::READY, Some(bit(report.ready.is_yes())));
    let store = match facts.store {
        StoreState::Unknown => None,
        StoreState::Reachable => Some(true),
        StoreState::Unreachable { .. } => Some(false),
    };
    page.sample(name::STORE_UP, store.map(bit));
    for (name, dependencies) in [
        (name::DEAD_LETTER_STORE_UP, [Dependency::DeadLetters].as_slice()),
        (name::CHECKPOINT_STORE_UP, &[Dependency::Checkpoints, Dependency::Leases]),
    ] {
        let asked: Vec<_> =
            dependencies.iter().filter_map(|dependency| facts.dependencies.get(dependency)).collect();
        let up = (!asked.is_empty()).then(|| bit(asked.into_iter().all(answers)));
        page.sample(name, up);
    }
    let registries = facts.dependencies.iter().filter_map(|(dependency, outage)| match dependency {
        Dependency::Registry(hub) => Some((labels(&[("hub", hub)]), bit(answers(outage)))),
        _ => None,
    });
    let ends = tokens.iter().filter_map(|(scope, given)| {
        let end = given.expires?.seconds_since(Ticks::new(0));
        Some((labels(&[("scope", scope.label())]), end))
    });
    page.samples(name::TOKEN_EXPIRY, ends);
    page.samples(name::REGISTRY_UP, registries);
    let eventhubs = facts.dependencies.iter().filter_map(|(dependency, outage)| match dependency {
        Dependency::EventHub(stream) => Some((labels(&[("stream", stream)]), bit(answers(outage)))),
        _ => None,
    });
    page.samples(name::EVENTHUB_UP, eventhubs);
    let receives = |state: &PartitionState| bit(*state == PartitionState::Receiving);
    let partitions = facts.partitions.iter().map(|(id, standing)| (of(id), receives(&standing.state)));
    page.samples(name::PARTITION_UP, partitions);
    let lags = || watched.iter().filter_map(|(id, watched)| Some((id, watched.metrics().lag()?)));
    page.samples(name::LAG_EVENTS, lags().map(|(id, (events, _))| (of(id), events as f64)));
    page.samples(
        name::LAG_MEASURED,
        lags().map(|(id, (_, at))| (of(id), at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64())),
    );
    let age = |watched: &Arc<dyn Watched>| watched.oldest_incomplete().map_or(Duration::ZERO, |(_, age)| age);
    page.samples(
        name::OLDEST_INCOMPLETE_AGE,
        watched.iter().map(|(id, watched)| (of(id), age(watched).as_secs_f64())),
    );
    page.samples(
        name::CHECKPOINT_AGE,
        watched
            .iter()
            .map(|(id, watched)| (of(id), age(watched).max(watched.metrics().unwritten_for()).as_secs_f64())),
    );
    page.sample(name::RETENTION, Some(retention.as_secs_f64()));
    let now = Ticks::new(0).after(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    let left = |watched: &dyn Watched| Some((retention.as_secs_f64() - behind(watched, now)?).max(0.0));
    page.samples(
        name::TIME_TO_LOSS,
        watched.iter().filter_map(|(id, watched)| Some((of(id), left(watched.as_ref())?))),
    );
    counts.render(&mut page);
    page.text()
}

/// A dependency that throttles is reachable.
fn answers(outage: &Option<Outage>) -> bool {
    outage.as_ref().is_none_or(|outage| outage.failure == Failure::Throttled)
}

fn bit(yes: bool) -> f64 {
    if yes { 1.0 } else { 0.0 }
}

fn of(PartitionId { stream, partition }: &PartitionId) -> String {
    labels(&[("stream", stream), ("partition", partition)])
}

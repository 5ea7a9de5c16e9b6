//! Gauges that are computed when they are asked for, from what is on the board.

use std::{
    fmt::{Display, Write as _},
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use super::{name, partition::Watched};
use crate::domain::{
    health::{self, Dependency, Facts, Failure, Outage, PartitionState, StoreState},
    id::PartitionId,
};

/// Prometheus' text format of what is known now.
pub(super) fn render(facts: &Facts, watched: &[(PartitionId, Arc<dyn Watched>)]) -> String {
    let mut page = Page::default();
    let report = health::assess(facts);
    page.gauge(
        name::READY,
        "Whether the process does its work, as /readyz says",
        [("", bit(report.ready.is_yes()))],
    );
    let store = match facts.store {
        StoreState::Unknown => None,
        StoreState::Reachable => Some(true),
        StoreState::Unreachable { .. } => Some(false),
    };
    page.gauge(name::STORE_UP, "Whether Cosmos DB answers", store.map(|up| ("", bit(up))));
    for (name, help, dependencies) in [
        (
            name::DEAD_LETTER_STORE_UP,
            "Whether the store for dead letters answers",
            [Dependency::DeadLetters].as_slice(),
        ),
        (
            name::CHECKPOINT_STORE_UP,
            "Whether the store for checkpoints and leases answers",
            &[Dependency::Checkpoints, Dependency::Leases],
        ),
    ] {
        let asked: Vec<_> =
            dependencies.iter().filter_map(|dependency| facts.dependencies.get(dependency)).collect();
        let up = (!asked.is_empty()).then(|| bit(asked.into_iter().all(answers)));
        page.gauge(name, help, up.map(|up| ("", up)));
    }
    let registries = facts.dependencies.iter().filter_map(|(dependency, outage)| match dependency {
        Dependency::Registry(hub) => Some((labels(&[("hub", hub)]), bit(answers(outage)))),
        _ => None,
    });
    page.gauge(name::REGISTRY_UP, "Whether the registry of an IoT hub answers", registries);
    let eventhubs = facts.dependencies.iter().filter_map(|(dependency, outage)| match dependency {
        Dependency::EventHub(stream) => Some((labels(&[("stream", stream)]), bit(answers(outage)))),
        _ => None,
    });
    page.gauge(name::EVENTHUB_UP, "Whether an Event Hub answers how much waits in its partitions", eventhubs);
    let receives = |state: &PartitionState| bit(*state == PartitionState::Receiving);
    let partitions = facts.partitions.iter().map(|(id, standing)| (of(id), receives(&standing.state)));
    page.gauge(name::PARTITION_UP, "Whether the partition is being received from", partitions);
    let lags = || watched.iter().filter_map(|(id, watched)| Some((id, watched.metrics().lag()?)));
    page.gauge(
        name::LAG_EVENTS,
        "Events in the partition that are not completed",
        lags().map(|(id, (events, _))| (of(id), events as f64)),
    );
    page.gauge(
        name::LAG_MEASURED,
        "When the lag was measured, in seconds since the Unix epoch: an old one says nothing",
        lags().map(|(id, (_, at))| (of(id), at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64())),
    );
    let age = |watched: &Arc<dyn Watched>| watched.oldest_incomplete().map_or(Duration::ZERO, |(_, age)| age);
    page.gauge(
        name::OLDEST_INCOMPLETE_AGE,
        "Seconds since the oldest event was received that is not completed; 0 where there is none",
        watched.iter().map(|(id, watched)| (of(id), age(watched).as_secs_f64())),
    );
    page.gauge(
        name::CHECKPOINT_AGE,
        "Seconds for which the checkpoint has been behind what was received",
        watched
            .iter()
            .map(|(id, watched)| (of(id), age(watched).max(watched.metrics().unwritten_for()).as_secs_f64())),
    );
    page.0
}

/// Who throttles is there.
fn answers(outage: &Option<Outage>) -> bool {
    outage.as_ref().is_none_or(|outage| outage.failure == Failure::Throttled)
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn gauge(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (impl Display, f64)>) {
        // Writing to a String cannot fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} gauge\n");
        for (labels, value) in samples {
            let _ = writeln!(self.0, "{name}{labels} {value}");
        }
    }
}

fn bit(yes: bool) -> f64 {
    if yes { 1.0 } else { 0.0 }
}

fn of(PartitionId { stream, partition }: &PartitionId) -> String {
    labels(&[("stream", stream), ("partition", partition)])
}

fn labels(pairs: &[(&str, &str)]) -> String {
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    format!("{{{}}}", pairs.join(","))
}

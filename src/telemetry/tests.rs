//! What is served on `/metrics`, and the page that tells people about it, are one and the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::*;
use crate::domain::{
    health::{Dependency, Failure, PartitionState, StoreState},
    id::{PartitionId, SequenceNumber},
    ticks::Ticks,
};

/// A metric: its kind and the names of its labels.
type Shape = (String, BTreeSet<String>);

struct Waiting(PartitionMetrics);

impl Watched for Waiting {
    fn metrics(&self) -> &PartitionMetrics {
        &self.0
    }

    fn oldest_incomplete(&self) -> Option<(SequenceNumber, Duration)> {
        Some((SequenceNumber(7), Duration::from_secs(1)))
    }
}

/// What a daemon serves to which everything has happened.
fn served() -> BTreeMap<String, Shape> {
    let metrics = Metrics::new().unwrap();
    let _ = metrics.stream("s");
    metrics.registry("h");
    let second = Some(1.0);
    metrics.event_durable(Latency {
        freshness: second,
        hub_to_eventhub: second,
        eventhub_to_received: second,
        received_to_durable: second,
    });
    metrics.events_written(1);
    metrics.set_audit_unjudged("h", "recent", 0);
    metrics.set_replicas_alive(1);
    metrics.set_registry_share(0.5);
    metrics.set_request_units_limit(400.0);
    metrics.set_partitions("s", 1, 0);
    metrics.set_partitions_owned("s", 1);
    metrics.set_backfill_twins("h", "equal", 1);
    metrics.audit_finished("h", Ticks::new(1), 0, &BTreeMap::new());
    metrics.registry_asked(RegistryCall::Get, RegistryOutcome::Present, Purpose::Repair, Duration::ZERO);
    let board = Board::new();
    let partition = PartitionId { stream: "s".into(), partition: "0".into() };
    let waiting = Arc::new(Waiting(PartitionMetrics::default()));
    waiting.0.set_lag(1);
    let watched: Arc<dyn Watched> = Arc::clone(&waiting) as _;
    board.watch_partition(&partition, Arc::downgrade(&watched));
    board.set_partition(&partition, PartitionState::Receiving);
    board.set_store(StoreState::Reachable);
    for dependency in [
        Dependency::Checkpoints,
        Dependency::DeadLetters,
        Dependency::EventHub("s".into()),
        Dependency::Registry("h".into()),
    ] {
        board.is_down(dependency, Failure::Silent, "503");
    }
    shapes(&format!("{}{}", metrics.render(), board.render()))
}

/// The metrics of Prometheus' text format that have a sample.
fn shapes(text: &str) -> BTreeMap<String, Shape> {
    let kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let shape = |(name, kind): (&str, &str)| {
        let sample = text.lines().find_map(|line| {
            let rest = line.strip_prefix(name)?;
            let rest =
                ["_bucket", "_sum", "_count"].iter().find_map(|end| rest.strip_prefix(end)).unwrap_or(rest);
            rest.starts_with([' ', '{']).then_some(rest)
        })?;
        let labels =
            sample.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(labels, _)| labels);
        let labels = labels.split(',').filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
        let labels = labels.filter(|label| label != "le").collect();
        Some((name.to_owned(), (kind.to_owned(), labels)))
    };
    kinds.filter_map(shape).collect()
}

/// The metrics of the table in `docs/metrics.md`.
fn documented() -> BTreeMap<String, Shape> {
    let page = include_str!("../../docs/metrics.md");
    let (_, table) = page.split_once("## All of them").expect("a table of all metrics");
    let row = |line: &str| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let name = cells.get(1)?.strip_prefix('`')?.strip_suffix('`')?;
        // Between backticks.
        let labels = cells.get(4)?.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        Some((name.to_owned(), (cells[2].to_owned(), labels)))
    };
    let rows: Vec<_> = table.lines().filter_map(row).collect();
    let by_name: BTreeMap<_, _> = rows.iter().cloned().collect();
    assert_eq!(by_name.len(), rows.len(), "each of them once");
    by_name
}

#[test]
fn every_metric_is_on_the_page_with_its_kind_and_labels_and_the_page_has_no_other() {
    let (served, documented) = (served(), documented());
    let named: BTreeSet<_> = include_str!("name.rs")
        .split('"')
        .filter(|text| text.starts_with("twinsync_") && !text.contains(char::is_whitespace))
        .map(str::to_owned)
        .collect();
    let names = |shapes: &BTreeMap<String, Shape>| shapes.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&served), named, "`served` has to make each of them happen");
    assert_eq!(names(&documented), named, "docs/metrics.md");
    for (name, shape) in &served {
        assert_eq!(&documented[name], shape, "{name} in docs/metrics.md");
    }
}

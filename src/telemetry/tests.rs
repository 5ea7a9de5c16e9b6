//! The metrics on `/metrics` and the page that documents them are the same.

mod lines;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

mod deploy;

use super::*;
use crate::domain::{
    health::{Dependency, Failure, PartitionState, StoreState},
    id::{PartitionId, SequenceNumber},
    query::Counted,
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

/// The metrics of a daemon in which every event has occurred.
fn served() -> BTreeMap<String, Shape> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let _entered = runtime.enter();
    let metrics = Metrics::new().unwrap();
    metrics.receives_on(runtime.metrics());
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
    metrics.set_audit_undecided("h", "recent", 0);
    metrics.set_audit_interval(Duration::from_secs(86_400));
    metrics.set_replicas_alive(1);
    metrics.set_registry_share(0.5);
    metrics.set_request_units_limit(400.0);
    metrics.set_partitions("s", 1, 0);
    metrics.set_partitions_owned("s", 1);
    metrics.set_backfill_twins("h", "equal", 1);
    metrics.audit_finished("h", Ticks::new(1), 0, &BTreeMap::new());
    metrics.registry_asked(RegistryCall::Get, RegistryOutcome::Present, Purpose::Repair, Duration::ZERO);
    ServeMetrics::new(&metrics, ["missing"]).keys_renewed(Ticks::new(0));
    let health = HealthState::new();
    health.counts().begin([].into());
    let counted = Counted { name: "all".to_owned(), total: 1, rows: None };
    health.counts().current(Some(vec![counted]), 0, Ticks::new(1));
    let partition = PartitionId { stream: "s".into(), partition: "0".into() };
    let waiting = Arc::new(Waiting(PartitionMetrics::default()));
    waiting.0.set_lag(1);
    let watched: Arc<dyn Watched> = Arc::clone(&waiting) as _;
    health.watch_partition(&partition, Arc::downgrade(&watched));
    health.set_partition(&partition, PartitionState::Receiving);
    health.set_store(StoreState::Reachable);
    health.tokens().given(Scope::Cosmos, Some(Ticks::new(1)));
    for dependency in [
        Dependency::Checkpoints,
        Dependency::DeadLetters,
        Dependency::EventHub("s".into()),
        Dependency::Registry("h".into()),
    ] {
        health.is_down(dependency, Failure::Silent, "503");
    }
    shapes(&exposition(&metrics, &health))
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

/// The table in `docs/metrics.md`, as generated from the descriptions.
fn reference() -> String {
    let mut rows: Vec<_> = name::DESCRIPTIONS.iter().collect();
    rows.sort_by_key(|metric| metric.name);
    let row = |name::Description { name, kind, labels, help }: &name::Description| {
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        let cells = format!("| `{name}` | {} | {help} | {} |", kind.label(), labels.join(", "));
        cells.replace(" |  |", " | |")
    };
    let head = "| metric | kind | meaning | labels |\n|---|---|---|---|".to_owned();
    std::iter::once(head).chain(rows.into_iter().map(row)).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_metric_is_described_with_its_kind_and_labels_and_is_served() {
    let named: Vec<_> =
        include_str!("name.rs").split_terminator('"').skip(1).step_by(2).map(str::to_owned).collect();
    let described: BTreeMap<_, Shape> = name::DESCRIPTIONS
        .iter()
        .map(|metric| {
            let labels = metric.labels.iter().map(|label| (*label).to_owned()).collect();
            (metric.name.to_owned(), (metric.kind.label().to_owned(), labels))
        })
        .collect();
    assert_eq!(described.len(), name::DESCRIPTIONS.len(), "each metric must be described once");
    assert_eq!(
        described.keys().cloned().collect::<BTreeSet<_>>(),
        named.into_iter().collect(),
        "each name must have a description"
    );
    let mut served = served();
    // A machine without a memory limit does not have this metric.
    served.entry(name::MEMORY_LIMIT.to_owned()).or_insert_with(|| ("gauge".to_owned(), BTreeSet::new()));
    assert_eq!(served, described, "`served` must cause each metric");
}

/// `TWINSYNC_WRITE_DOCS=1 cargo test -p twinsync --lib the_reference` writes the table.
#[test]
fn the_reference_in_the_documentation_is_generated_from_the_descriptions() {
    const MARKS: [&str; 2] = ["<!-- generated from src/telemetry/name/described.rs -->\n", "\n<!-- end -->"];
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let page = std::fs::read_to_string(&path).expect("readable");
    let (before, rest) = page.split_once(MARKS[0]).expect("a mark where the table begins");
    let (table, after) = rest.split_once(MARKS[1]).expect("a mark where it ends");
    let reference = reference();
    if std::env::var_os("TWINSYNC_WRITE_DOCS").is_some() {
        let [begin, end] = MARKS;
        std::fs::write(&path, format!("{before}{begin}{reference}{end}{after}")).expect("writable");
        return;
    }
    assert_eq!(table, reference, "docs/metrics.md: generate it with TWINSYNC_WRITE_DOCS=1");
}

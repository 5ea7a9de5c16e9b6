//! The spans of one event, made from its recorded trace.

use opentelemetry::Value;

use super::*;
use crate::domain::{
    id::Position,
    message::{Properties, Property},
    twin::{Sections, TwinVersion},
};

struct Bench {
    tracer: Tracer,
    spans: mpsc::Receiver<SpanData>,
    metrics: Metrics,
    partition: PartitionId,
    present: Present,
}

fn bench(change: impl FnOnce(&mut Options), most_waiting: usize) -> Bench {
    let mut options = Options {
        namespace: "contoso.servicebus.windows.net".into(),
        consumer_group: "$Default".into(),
        database: "replica".into(),
        container: "twins".into(),
        account: "contoso.documents.azure.com".into(),
        ratio: Ratio::new(1.0).unwrap(),
        slow_after: Some(Duration::from_secs(10)),
        device_ids: false,
    };
    change(&mut options);
    let metrics = Metrics::new().unwrap();
    let (tracer, spans) = Tracer::new(options, metrics.clone(), most_waiting);
    let partition = PartitionId { stream: "twins".into(), partition: "3".into() };
    Bench { tracer, spans, metrics, partition, present: Present::new(Ticks::new(20_000_000_000_000_000)) }
}

fn message(properties: &[(&str, &str)]) -> Message {
    let properties =
        properties.iter().map(|(name, value)| (name.to_string(), Property::Text((*value).into())));
    Message {
        position: Position { sequence_number: SequenceNumber(7), offset: Default::default() },
        enqueued: Some(Ticks::new(19_999_999_999_000_000)),
        body: b"{\"secret\":1}".as_slice().into(),
        application_properties: properties.collect(),
        annotations: Properties::default(),
    }
}

impl Bench {
    fn event(&self) -> EventTrace {
        let sampler = self.tracer.sampler(&self.partition);
        *Tracer::begin(Some(&sampler), SequenceNumber(7), message(&[]).enqueued).expect("all are sampled")
    }

    fn ended<'a>(&'a self, message: &'a Message, received_ago: Duration) -> Ended<'a> {
        Ended {
            partition: &self.partition,
            message,
            twin: None,
            operation: Some(Ticks::new(19_999_999_998_000_000)),
            received: self.present.instant.checked_sub(received_ago).expect("the machine runs"),
            trace: None,
            write: None,
            decision: Decision::Applied,
            reason: None,
            present: self.present,
        }
    }

    fn taken(&mut self) -> Vec<SpanData> {
        std::iter::from_fn(|| self.spans.try_recv().ok()).collect()
    }
}

fn attribute(span: &SpanData, name: &str) -> Option<Value> {
    span.attributes.iter().find(|attribute| attribute.key.as_str() == name).map(|found| found.value.clone())
}

fn updated() -> TwinEvent {
    let change = Change::Updated { version: TwinVersion(9), patch: Sections::default().into() };
    TwinEvent { key: TwinKey::device("hub", "pump"), at: Ticks::new(0), change }
}

#[test]
fn what_is_not_sampled_records_nothing_and_makes_no_span_unless_it_is_remarkable() {
    let mut bench = bench(|options| options.ratio = Ratio::new(0.0).unwrap(), 100);
    let sampler = bench.tracer.sampler(&bench.partition);
    assert!(Tracer::begin(Some(&sampler), SequenceNumber(7), None).is_none());
    assert!(Tracer::begin(None, SequenceNumber(7), None).is_none(), "without a sampler there is no trace");
    let (message, short, long) = (message(&[]), Duration::from_millis(3), Duration::from_secs(11));
    let mut why = Vec::new();
    for (decision, took) in [
        (Decision::Applied, short),
        (Decision::Applied, long),
        (Decision::Gap, short),
        (Decision::DeadLettered, short),
        (Decision::Duplicate, short),
    ] {
        let ended = Ended { decision, ..bench.ended(&message, took) };
        bench.tracer.ended(&ended);
        let spans = bench.taken();
        why.push(
            spans.first().and_then(|root| attribute(root, "twinsync.sampled")).map(|why| why.to_string()),
        );
    }
    let expected = [None, Some("slow"), Some("flagged"), Some("dead_letter"), None];
    assert_eq!(why, expected.map(|why| why.map(str::to_owned)));
}

#[test]
fn remarkable_ones_are_told_up_to_a_rate() {
    let mut bench = bench(|options| options.ratio = Ratio::new(0.0).unwrap(), 10_000);
    let message = message(&[]);
    for _ in 0..500 {
        bench.tracer.ended(&Ended { decision: Decision::Suspect, ..bench.ended(&message, Duration::ZERO) });
    }
    let roots = bench.taken().iter().filter(|span| span.name.starts_with("process")).count();
    // The rate may allow the spans of at most two seconds meanwhile.
    assert!((20..=40).contains(&roots), "{roots}");
}

#[test]
fn a_write_of_one_event_is_told_inside_and_names_no_device_unless_it_may() {
    for device_ids in [false, true] {
        let mut bench = bench(|options| options.device_ids = device_ids, 100);
        let (mut trace, message, twin) = (bench.event(), message(&[]), TwinKey::device("hub", "pump"));
        trace.dispatched(&updated());
        let mut write = *Tracer::write(1);
        write.attempted("read_item", Instant::now(), "present", false, 1.0);
        write.attempted("replace_item", Instant::now(), "conflict", true, 2.5);
        bench.present = Present::new(bench.present.at);
        let ended = Ended {
            trace: Some(&trace),
            write: Some(&write),
            twin: Some(&twin),
            ..bench.ended(&message, Duration::from_millis(5))
        };
        let id = bench.tracer.ended(&ended).expect("sampled");
        bench.tracer.shared_write(&write, vec![id], bench.present);
        let spans = bench.taken();
        let names: Vec<_> = spans.iter().map(|span| &*span.name).collect();
        let expected = [
            "process twins",
            "hub to Event Hubs",
            "Event Hubs to received",
            "waiting for room",
            "waiting in the lane",
            "write",
            "read_item twins",
            "replace_item twins",
        ];
        assert_eq!(names, expected, "the write must not have a trace of its own");
        let conflict = &spans[7];
        assert_eq!(conflict.parent_span_id, spans[5].span_context.span_id());
        assert_eq!(attribute(conflict, "error.type"), Some("conflict".into()));
        assert_eq!(attribute(conflict, "azure.cosmosdb.operation.request_charge"), Some(2.5.into()));
        assert_eq!(attribute(&spans[5], "twinsync.write.conflicts"), Some(1.into()));
        assert_eq!(attribute(&spans[0], "twinsync.twin.version"), Some(9.into()));
        let printed = format!("{spans:?}");
        assert_eq!(printed.contains("pump"), device_ids, "{printed}");
        assert!(!printed.contains("secret"), "{printed}");
    }
}

#[test]
fn of_very_many_requests_the_first_are_told_and_all_are_counted() {
    let mut write = *Tracer::write(1);
    for _ in 0..1000 {
        write.attempted("replace_item", Instant::now(), "unavailable", true, 0.5);
    }
    assert_eq!((write.attempts.len(), write.attempted, write.request_units), (MOST_ATTEMPTS, 1000, 500.0));
}

#[test]
fn the_context_of_a_message_is_linked() {
    let context = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for (properties, links) in [
        (&[("traceparent", context)][..], 1),
        (&[("Diagnostic-Id", context)], 1),
        (&[("traceparent", "nonsense"), ("tracestate", "timestamp=1")], 0),
        (&[], 0),
    ] {
        let mut bench = bench(|_| {}, 100);
        let (trace, message) = (bench.event(), message(properties));
        bench.tracer.ended(&Ended { trace: Some(&trace), ..bench.ended(&message, Duration::ZERO) });
        let spans = bench.taken();
        assert_eq!(spans[0].links.len(), links, "{properties:?}");
    }
}

#[test]
fn a_trace_without_room_is_dropped_whole_and_counted() {
    let mut bench = bench(|_| {}, 4);
    let (trace, message) = (bench.event(), message(&[]));
    for _ in 0..2 {
        bench.tracer.ended(&Ended { trace: Some(&trace), ..bench.ended(&message, Duration::ZERO) });
    }
    assert_eq!(bench.taken().len(), 3, "only the first trace");
    let text = bench.metrics.render();
    assert!(text.contains("twinsync_otlp_spans_total{outcome=\"dropped\"} 3"), "{text}");
}

#[test]
fn the_page_lists_every_attribute_and_no_other() {
    let page = include_str!("../../../docs/tracing.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    let documented: std::collections::BTreeSet<_> = rows.map(|(name, _)| name).collect();
    let source = include_str!("spans.rs");
    let named = source.split("KeyValue::new(\"").skip(1).filter_map(|rest| rest.split('"').next());
    assert_eq!(
        named.collect::<std::collections::BTreeSet<_>>(),
        documented,
        "left: spans.rs, right: docs/tracing.md"
    );
}

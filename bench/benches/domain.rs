#![expect(missing_docs, reason = "criterion generates functions")]
//! The cost of the pure core, without any I/O: `cargo bench -p bench-sync`.
//!
//! One event is a change of a device's reported properties with its metadata, as IoT Hub sends it. The twin has the number of other
//! properties that its name says.

use std::{hint::black_box, sync::Arc, time::Duration};

use bench_sync::pure::Load;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Map, Value, json};
use twinsync::domain::{
    decide::{Rules, decide},
    decode::{Decoded, decode},
    document::{Document, ETag},
    event::TwinEvent,
    id::{DocumentIdScheme, Position, SequenceNumber},
    lane::{Bound, Lanes},
    merge,
    message::{Message, Property},
    progress::Progress,
    ticks::Ticks,
    undeliverable::MAX_DEPTH,
    upsert::{Action, Upsert},
};

const RULES: Rules = Rules {
    id_scheme: DocumentIdScheme::Device,
    tombstone_ttl_seconds: 86_400,
    clock_tolerance: Duration::from_secs(5),
    forgets_after: None,
};
const NOW: Ticks = Ticks::new(19_250_568_000_000_000);
const LARGEST_BODY: usize = 1 << 20;
/// Number of events per write.
const BATCH: u64 = 16;
/// Number of properties of a small and a large twin.
const PROPERTIES: [usize; 2] = [20, 400];

fn message(operation: &str, number: u64, body: &Value) -> Message {
    let text = |text: &str| Property::Text(text.to_owned().into());
    Message {
        position: Position {
            sequence_number: SequenceNumber(number as i64),
            offset: (number * 512).to_string().into(),
        },
        enqueued: Some(NOW),
        body: body.to_string().into_bytes().into(),
        application_properties: [
            ("hubName", "contoso"),
            ("deviceId", "pump-000017"),
            ("opType", operation),
            (
                "iothub-message-schema",
                if operation == "updateTwin" {
                    "twinChangeNotification"
                } else {
                    "deviceLifecycleNotification"
                },
            ),
        ]
        .map(|(name, value)| (name, text(value)))
        .into_iter()
        .chain([(
            "operationTimestamp",
            Property::Text(NOW.after(Duration::from_millis(number)).to_string().into()),
        )])
        .collect(),
        annotations: [
            ("iothub-connection-device-id", "pump-000017"),
            (
                "iothub-message-source",
                if operation == "updateTwin" { "twinChangeEvents" } else { "deviceLifecycleEvents" },
            ),
            ("user-id", "hub"),
        ]
        .map(|(name, value)| (name, text(value)))
        .into_iter()
        .collect(),
    }
}

/// The registration of a device with this number of properties.
fn created(properties: usize) -> Message {
    let mut tags = Map::new();
    for number in 0..properties {
        let group = tags.entry(format!("group{:02}", number / 8)).or_insert_with(|| json!({}));
        group[format!("setting-{number:04}")] = json!(format!("{number:032x}"));
    }
    let updated = "2031-01-01T00:00:00.0000000Z";
    let section = json!({"$metadata": {"$lastUpdated": updated}, "$version": 1});
    let body = json!({
        "deviceId": "pump-000017", "etag": "AAAAAAAAAAE=", "version": 2, "status": "enabled", "tags": tags,
        "properties": {"desired": section.clone(), "reported": section}
    });
    message("createDeviceIdentity", 0, &body)
}

fn changed(number: u64) -> Message {
    let updated = "2031-01-01T00:00:00.0000000Z";
    let stamp = json!({"$lastUpdated": updated});
    let body = json!({
        "version": 2 + number,
        "properties": {"reported": {
            "temperature": 20.5 + number as f64, "battery": number % 100, "network": {"wifi": {"rssi": -61}},
            "$metadata": {
                "$lastUpdated": updated, "temperature": stamp, "battery": stamp,
                "network": {"$lastUpdated": updated, "wifi": {"$lastUpdated": updated, "rssi": stamp}}
            },
            "$version": 1 + number
        }}
    });
    message("updateTwin", number, &body)
}

fn event(message: &Message) -> TwinEvent {
    match decode(message, LARGEST_BODY) {
        Decoded::Event(event) => event,
        other => panic!("{other:?}"),
    }
}

fn stored(properties: usize) -> Document {
    let mut document = None;
    decide(&mut document, &event(&created(properties)), NOW, &RULES);
    document.expect("is there")
}

fn decoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    let message = changed(1);
    group.throughput(Throughput::Elements(1));
    group.bench_function("change", |bencher| bencher.iter(|| decode(black_box(&message), LARGEST_BODY)));
    group.bench_function("parse only", |bencher| {
        bencher.iter(|| serde_json::from_slice::<Value>(black_box(&message.body)));
    });
    let deep = Message { body: "[".repeat(MAX_DEPTH * 4).into_bytes().into(), ..message };
    group.bench_function("refused", |bencher| bencher.iter(|| decode(black_box(&deep), LARGEST_BODY)));
    group.finish();
}

fn deciding(criterion: &mut Criterion) {
    for properties in PROPERTIES {
        let mut group = criterion.benchmark_group(format!("twin of {properties} properties"));
        group.throughput(Throughput::Elements(1));
        let before = stored(properties);
        let (first, next) = (event(&changed(1)), event(&changed(2)));
        let mut warm = Some(before.clone());
        decide(&mut warm, &first, NOW, &RULES);
        group.bench_function("decide: applied", |bencher| {
            bencher.iter_batched_ref(
                || warm.clone(),
                |document| decide(document, black_box(&next), NOW, &RULES),
                BatchSize::SmallInput,
            );
        });
        let mut same = warm.clone();
        group.bench_function("decide: duplicate", |bencher| {
            bencher.iter(|| decide(&mut same, black_box(&first), NOW, &RULES));
        });
        let document = warm.clone().expect("is there");
        group
            .bench_function("serialise", |bencher| bencher.iter(|| serde_json::to_vec(black_box(&document))));
        let text = serde_json::to_vec(&document).expect("serialises");
        group.bench_function("read back", |bencher| {
            bencher.iter(|| serde_json::from_slice::<Document>(black_box(&text)));
        });
        group.bench_function("weigh", |bencher| bencher.iter(|| black_box(&document).weight()));
        let section = document.twin().expect("content").tags.clone();
        let patch = json!({"group00": {"setting-0001": "other"}});
        let patch = patch.as_object().expect("an object");
        group.bench_function("merge: patch", |bencher| {
            bencher.iter_batched_ref(
                || section.clone(),
                |section| merge::patch(section, black_box(patch)),
                BatchSize::SmallInput,
            );
        });
        group.finish();
    }
}

/// A write of several events, from a cached document to the bytes that are sent. This is the product's own part of it.
fn writing(criterion: &mut Criterion) {
    for properties in PROPERTIES {
        let mut group = criterion.benchmark_group(format!("twin of {properties} properties"));
        let messages: Vec<_> = (1..=BATCH).map(changed).collect();
        let events: Vec<_> = messages.iter().map(event).collect();
        let document = Arc::new(stored(properties));
        group.throughput(Throughput::Elements(BATCH));
        let bring = |events: Vec<TwinEvent>, cached: Arc<Document>| {
            let mut upsert = Upsert::new(events, Some((cached, ETag("1".into()))), RULES);
            let Action::Replace(document, _) = upsert.action(NOW) else { panic!("no write") };
            let bytes = serde_json::to_vec(document.as_ref()).expect("serialises");
            drop(document);
            upsert.written(ETag("2".into()));
            (bytes, upsert.finish())
        };
        group.bench_function("upsert", |bencher| {
            bencher.iter_batched(
                || (events.clone(), Arc::new(Document::clone(&document))),
                |(events, cached)| bring(events, cached),
                BatchSize::SmallInput,
            );
        });
        group.bench_function("decode, upsert", |bencher| {
            bencher.iter_batched(
                || Arc::new(Document::clone(&document)),
                |cached| bring(messages.iter().map(event).collect(), cached),
                BatchSize::SmallInput,
            );
        });
        group.finish();
    }
}

/// The product's own part of an event of the hot workload: decoding, deciding, and serializing the document once per write. The reported
/// time is per event.
fn whole(criterion: &mut Criterion) {
    const TWINS: usize = 100;
    const ROUNDS: usize = 64;
    let mut group = criterion.benchmark_group("whole");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let load = runtime.block_on(Load::new(TWINS, ROUNDS, 1 << 10)).expect("a load");
    group.throughput(Throughput::Elements((TWINS * ROUNDS) as u64));
    for batch in [1, 4, 16, 64] {
        group.bench_function(format!("{batch} events per write"), |bencher| {
            bencher.iter_batched_ref(
                || load.clone(),
                |load| load.apply(batch).expect("applied"),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn progressing(criterion: &mut Criterion) {
    const EVENTS: u64 = 2_000;
    let mut group = criterion.benchmark_group("progress");
    group.throughput(Throughput::Elements(EVENTS));
    let position = |number: u64| Position {
        sequence_number: SequenceNumber(number as i64),
        offset: (number * 512).to_string().into(),
    };
    for (name, stride) in [("in order", 1), ("out of order", 7)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut progress = Progress::default();
                let tickets: Vec<_> = (0..EVENTS)
                    .map(|number| progress.begin(position(number), Duration::ZERO).expect("new"))
                    .collect();
                for first in 0..stride {
                    for ticket in tickets.iter().skip(stride - 1 - first).step_by(stride) {
                        progress.complete(*ticket);
                    }
                }
                progress.durable().cloned()
            });
        });
    }
    group.finish();
}

fn routing(criterion: &mut Criterion) {
    const EVENTS: u64 = 10_000;
    let mut group = criterion.benchmark_group("lanes");
    group.throughput(Throughput::Elements(EVENTS));
    let keys: Vec<_> = (0..100)
        .map(|number| twinsync::domain::id::TwinKey::device("contoso", format!("pump-{number:06}")))
        .collect();
    for (name, twins) in [("one twin", 1), ("a hundred twins", 100)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let bound = Bound { items: 100_000, weight: usize::MAX };
                let mut lanes = Lanes::new(256, bound);
                for number in 0..EVENTS as usize {
                    lanes.push(&keys[number % twins], number, 500, Duration::ZERO, Duration::ZERO);
                }
                let mut taken = 0;
                while let Some((key, batch)) = lanes.next(Duration::ZERO, false) {
                    taken += batch.len();
                    lanes.done(&key, Duration::ZERO);
                }
                taken
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = domain;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = decoding, deciding, writing, whole, progressing, routing
}
criterion_main!(domain);

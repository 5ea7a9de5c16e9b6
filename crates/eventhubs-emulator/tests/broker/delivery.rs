//! Which events arrive, and in which form.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use azure_core_amqp::{AmqpSimpleValue, AmqpValue};
use azure_messaging_eventhubs::StartLocation;
use eventhubs_emulator::{Event, Value};

use crate::client::{
    GROUP, HUB, SINGLE, TOKEN, append_all, broker, consumer, consumer_of_group, event, next, receiver, take,
    text, within,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_event_keeps_its_properties_and_annotations_and_gains_its_position() {
    let broker = broker().await;
    let before = SystemTime::now() - Duration::from_millis(1);
    broker.append(SINGLE, "device-1", event("first")).expect("an append");
    broker.append(SINGLE, "device-1", event("second")).expect("an append");
    let consumer = consumer(&broker, SINGLE).await;
    let receiver = receiver(&consumer, "0", StartLocation::Earliest, false).await;
    let mut stream = Box::pin(receiver.stream_events());
    let first = next(&mut stream).await.expect("an event");
    let second = next(&mut stream).await.expect("an event");

    assert_eq!(text(&first), "first");
    assert_eq!((first.sequence_number(), second.sequence_number()), (Some(0), Some(1)));
    let offset =
        |offset: &Option<String>| offset.as_ref().expect("an offset").parse::<i64>().expect("a number");
    assert!(offset(first.offset()) < offset(second.offset()), "offsets grow");
    let enqueued = first.enqueued_time().expect("a time");
    assert!(enqueued >= before && enqueued <= SystemTime::now(), "{enqueued:?}");
    assert_eq!(first.partition_key().as_deref(), Some("device-1"));

    let properties = first.event_data().properties().expect("application properties");
    assert_eq!(properties.get("opType"), Some(&AmqpSimpleValue::String("updateTwin".to_owned())));
    assert_eq!(first.event_data().content_type(), Some("application/json"));
    let system = first.system_properties();
    assert_eq!(system.get("iothub-message-source"), Some(&AmqpValue::String("twinChangeEvents".to_owned())));
    let stamped = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
    assert_eq!(system.get("iothub-enqueuedtime"), Some(&AmqpValue::TimeStamp(stamped.into())));
    let raw = first.raw_amqp_message().properties.as_ref().expect("message properties");
    assert_eq!(raw.content_encoding.as_ref().map(|encoding| encoding.0.as_str()), Some("utf-8"));
    assert_eq!(raw.user_id, Some(vec![0xff, 0x00]));
}

/// A frame holds 64 KiB, so larger events need several frames. Wherever a frame begins, these bodies look like messages
/// with a binary value.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_any_size_and_content_arrives_byte_by_byte() {
    let broker = broker().await;
    let value = [0x00, 0x53, 0x77, 0xa0, 0x04];
    let bodies: Vec<Vec<u8>> = [0, 1, 255, 256, 60_000, 65_000, 65_536, 200_000, 1_000_000]
        .into_iter()
        .flat_map(|size| (0..value.len()).map(move |start| (size, start)))
        .map(|(size, start)| value.into_iter().cycle().skip(start).take(size).collect())
        .collect();
    for body in &bodies {
        broker.append(SINGLE, "device-1", Event { body: body.clone(), ..event("") }).expect("an append");
    }
    let consumer = consumer(&broker, SINGLE).await;
    let receiver = receiver(&consumer, "0", StartLocation::Earliest, false).await;
    let mut stream = Box::pin(receiver.stream_events());
    for (number, body) in bodies.iter().enumerate() {
        let seen = next(&mut stream).await.expect("an event");
        let seen = seen.event_data().body().expect("a body");
        assert!(seen == body, "event {number} of {} bytes arrives with {}", body.len(), seen.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_of_value_arrives_as_that_type() {
    let broker = broker().await;
    let values = [
        ("text", Value::Text("x".to_owned())),
        ("time", Value::Timestamp(1000)),
        ("long", Value::Long(i64::MIN)),
        ("int", Value::Integer(-7)),
        ("double", Value::Double(0.1)),
        ("truth", Value::Boolean(true)),
        ("bytes", Value::Binary(vec![0, 255])),
    ];
    let values: BTreeMap<String, Value> =
        values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let event = Event { application_properties: values.clone(), annotations: values, ..Event::default() };
    broker.append(SINGLE, "", event).expect("an append");
    let consumer = consumer(&broker, SINGLE).await;
    let receiver = receiver(&consumer, "0", StartLocation::Earliest, false).await;
    let received = next(&mut Box::pin(receiver.stream_events())).await.expect("an event");

    let second = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    let annotations = received.system_properties();
    assert_eq!(annotations.get("text"), Some(&AmqpValue::String("x".to_owned())));
    assert_eq!(annotations.get("time"), Some(&AmqpValue::TimeStamp(second.into())));
    assert_eq!(annotations.get("long"), Some(&AmqpValue::Long(i64::MIN)));
    assert_eq!(annotations.get("int"), Some(&AmqpValue::Int(-7)));
    assert_eq!(annotations.get("double"), Some(&AmqpValue::Double(0.1)));
    assert_eq!(annotations.get("truth"), Some(&AmqpValue::Boolean(true)));
    assert_eq!(annotations.get("bytes"), Some(&AmqpValue::Binary(vec![0, 255])));
    let properties = received.event_data().properties().expect("application properties");
    assert_eq!(properties.get("long"), Some(&AmqpSimpleValue::Long(i64::MIN)));
    assert_eq!(properties.get("bytes"), Some(&AmqpSimpleValue::Binary(vec![0, 255])));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_reader_gets_an_event_at_once() {
    let broker = broker().await;
    let consumer = consumer(&broker, SINGLE).await;
    let receiver = receiver(&consumer, "0", StartLocation::Earliest, false).await;
    append_all(&broker, ["first"]);
    let mut stream = Box::pin(receiver.stream_events());
    next(&mut stream).await.expect("the link is up");
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let appended = Instant::now();
        append_all(&broker, ["event"]);
        next(&mut stream).await.expect("an event");
        slowest = slowest.max(appended.elapsed());
    }
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_consumer_groups_read_the_same_events_independently() {
    let broker = broker().await;
    append_all(&broker, ["a", "b", "c"]);
    let all = [(0, "a"), (1, "b"), (2, "c")].map(|(number, body)| (number, body.to_owned()));
    for group in ["$Default", GROUP] {
        let consumer = consumer_of_group(&broker, SINGLE, group, TOKEN).await;
        let receiver = receiver(&consumer, "0", StartLocation::Earliest, false).await;
        assert_eq!(take(&receiver, 3).await, all, "{group}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_keeps_the_order_of_appends() {
    let broker = broker().await;
    let bodies: Vec<String> = (0..2000).map(|number| number.to_string()).collect();
    append_all(&broker, &bodies);
    let consumer = consumer(&broker, SINGLE).await;
    let receiver = receiver(&consumer, "0", StartLocation::Earliest, false).await;
    let expected: Vec<(i64, String)> = (0..).zip(bodies).collect();
    assert_eq!(take(&receiver, 2000).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_with_one_key_share_a_partition_and_without_a_key_they_spread() {
    let broker = broker().await;
    let keyed: Vec<u16> =
        (0..20).map(|_| broker.append(HUB, "device-17", event("x")).expect("an append").partition).collect();
    assert!(keyed.iter().all(|partition| *partition == keyed[0]), "{keyed:?}");
    let mut spread: Vec<u16> =
        (0..4).map(|_| broker.append(HUB, "", event("x")).expect("an append").partition).collect();
    spread.sort_unstable();
    assert_eq!(spread, [0, 1, 2, 3]);
    let mut by_key: Vec<u16> = (0..200)
        .map(|number| {
            broker.append(HUB, &format!("device-{number}"), event("x")).expect("an append").partition
        })
        .collect();
    by_key.sort_unstable();
    by_key.dedup();
    assert_eq!(by_key, [0, 1, 2, 3], "keys reach every partition");
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_a_receiver_and_its_client_takes_less_than_a_second() {
    let broker = broker().await;
    append_all(&broker, ["a"]);
    let consumer = consumer(&broker, SINGLE).await;
    let receiver = receiver(&consumer, "0", StartLocation::Earliest, false).await;
    take(&receiver, 1).await;
    within("management", consumer.get_eventhub_properties()).await.expect("properties");
    let started = Instant::now();
    within("closing the receiver", receiver.close()).await.expect("the receiver closes");
    within("closing the client", consumer.close()).await.expect("the client closes");
    let took = started.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    within("the broker's connections to end", async {
        while broker.faults().counters().open_connections > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_by_bytes_drops_the_oldest_and_moves_the_beginning() {
    let broker = broker().await;
    append_all(&broker, (0..10).map(|number| number.to_string()));
    let whole = &broker.partitions(SINGLE).expect("partitions")[0];
    assert_eq!((whole.first_sequence_number, whole.last_sequence_number, whole.events), (0, 9, 10));
    broker.limit_partitions(whole.bytes / 2);
    let half = &broker.partitions(SINGLE).expect("partitions")[0];
    assert!(half.first_sequence_number >= 5 && half.bytes <= whole.bytes / 2, "{half:?}");
    assert_eq!(half.last_sequence_number, 9);
    append_all(&broker, ["10"]);

    let consumer = consumer(&broker, SINGLE).await;
    let properties =
        within("properties", consumer.get_partition_properties("0")).await.expect("partition properties");
    let first = broker.partitions(SINGLE).expect("partitions")[0].first_sequence_number;
    assert!(first > half.first_sequence_number, "the bound holds for later appends");
    assert_eq!(properties.beginning_sequence_number, first);
    let receiver = receiver(&consumer, "0", StartLocation::SequenceNumber(1), true).await;
    assert_eq!(
        take(&receiver, 1).await,
        [(first, first.to_string())],
        "an expired position begins at the oldest"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_properties_describe_hub_and_partitions() {
    let broker = broker().await;
    let consumer = consumer(&broker, HUB).await;
    let hub = within("properties", consumer.get_eventhub_properties()).await.expect("hub properties");
    assert_eq!(hub.name, HUB);
    assert_eq!(hub.partition_ids, ["0", "1", "2", "3"]);
    assert!(hub.created_on.is_some());

    let empty =
        within("properties", consumer.get_partition_properties("2")).await.expect("partition properties");
    assert!(empty.is_empty);
    assert_eq!((empty.beginning_sequence_number, empty.last_enqueued_sequence_number), (0, -1));
    assert_eq!(empty.last_enqueued_offset, "-1");

    let appended = broker.append(HUB, "key", event("x")).expect("an append");
    let id = appended.partition.to_string();
    let filled =
        within("properties", consumer.get_partition_properties(&id)).await.expect("partition properties");
    assert!(!filled.is_empty);
    assert_eq!((filled.id, filled.eventhub.as_str()), (id, HUB));
    assert_eq!(filled.last_enqueued_sequence_number, 0);
    assert!(filled.last_enqueued_time_utc.is_some());
}

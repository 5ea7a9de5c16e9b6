//! Events from the SDK's producer.

use azure_core_amqp::AmqpSimpleValue;
use azure_messaging_eventhubs::{
    EventDataBatchOptions, SendBatchOptions, SendEventOptions, StartLocation, models::EventData,
};

use crate::client::{HUB, SINGLE, broker, consumer, next, producer, receiver, take, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_single_event_arrives_with_its_properties() {
    let broker = broker().await;
    let producer = producer(&broker, SINGLE).await;
    let event = EventData::builder()
        .with_body(b"one".to_vec())
        .with_content_type("text/plain".to_owned())
        .add_property("colour".to_owned(), "red")
        .build();
    within("sending", producer.send_event(event, None)).await.expect("the event is sent");
    let consumer = consumer(&broker, SINGLE).await;
    let receiver = receiver(&consumer, "0", StartLocation::Earliest, false).await;
    let received = next(&mut Box::pin(receiver.stream_events())).await.expect("an event");
    assert_eq!(received.event_data().body(), Some(b"one".as_slice()));
    assert_eq!(received.event_data().content_type(), Some("text/plain"));
    let properties = received.event_data().properties().expect("application properties");
    assert_eq!(properties.get("colour"), Some(&AmqpSimpleValue::String("red".to_owned())));
    assert_eq!(received.sequence_number(), Some(0));
    within("closing", producer.close()).await.expect("the producer closes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_arrives_as_its_events_in_order() {
    let broker = broker().await;
    let producer = producer(&broker, SINGLE).await;
    let batch = within("creating a batch", producer.create_batch(None)).await.expect("a batch");
    for number in 0..500 {
        assert!(batch.try_add_event_data(number.to_string(), None).expect("an event"), "it fits");
    }
    within("sending", producer.send_batch(batch, None::<SendBatchOptions>)).await.expect("the batch is sent");
    assert_eq!(broker.partitions(SINGLE).expect("partitions")[0].events, 500, "accepted means appended");
    let consumer = consumer(&broker, SINGLE).await;
    let receiver = receiver(&consumer, "0", StartLocation::Earliest, false).await;
    let expected: Vec<(i64, String)> = (0..500).map(|number| (number, number.to_string())).collect();
    assert_eq!(take(&receiver, 500).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_explicit_partition_is_obeyed_by_single_events_and_batches() {
    let broker = broker().await;
    let producer = producer(&broker, HUB).await;
    let options = SendEventOptions { partition_id: Some("2".to_owned()) };
    within("sending", producer.send_event("single", Some(options))).await.expect("the event is sent");
    let options = EventDataBatchOptions { partition_id: Some("2".to_owned()), ..Default::default() };
    let batch = within("creating a batch", producer.create_batch(Some(options))).await.expect("a batch");
    batch.try_add_event_data("batched", None).expect("an event");
    within("sending", producer.send_batch(batch, None::<SendBatchOptions>)).await.expect("the batch is sent");
    let events: Vec<usize> =
        broker.partitions(HUB).expect("partitions").iter().map(|partition| partition.events).collect();
    assert_eq!(events, [0, 0, 2, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_with_one_partition_key_share_the_partition_of_appends_with_that_key() {
    let broker = broker().await;
    let appended = broker.append(HUB, "device-9", crate::client::event("appended")).expect("an append");
    let producer = producer(&broker, HUB).await;
    for _ in 0..3 {
        let options =
            EventDataBatchOptions { partition_key: Some("device-9".to_owned()), ..Default::default() };
        let batch = within("creating a batch", producer.create_batch(Some(options))).await.expect("a batch");
        batch.try_add_event_data("batched", None).expect("an event");
        within("sending", producer.send_batch(batch, None::<SendBatchOptions>)).await.expect("it is sent");
    }
    assert_eq!(broker.partitions(HUB).expect("partitions")[usize::from(appended.partition)].events, 4);
    let consumer = consumer(&broker, HUB).await;
    let id = appended.partition.to_string();
    let receiver = receiver(&consumer, &id, StartLocation::SequenceNumber(1), true).await;
    let event = next(&mut Box::pin(receiver.stream_events())).await.expect("an event");
    assert_eq!(event.partition_key().as_deref(), Some("device-9"));
}

//! Every start position, at its boundary.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use azure_messaging_eventhubs::StartLocation;
use eventhubs_emulator::Broker;

use crate::client::{SINGLE, append_all, broker, consumer, next, receiver, take, within};

/// The first sequence number that a reader at this position receives from the events 0 to 9. A new event gets
/// number 10.
async fn first(broker: &Broker, location: StartLocation, inclusive: bool) -> i64 {
    let consumer = consumer(broker, SINGLE).await;
    let receiver = receiver(&consumer, "0", location, inclusive).await;
    take(&receiver, 1).await[0].0
}

async fn ten_events() -> Broker {
    let broker = broker().await;
    append_all(&broker, (0..10).map(|number| number.to_string()));
    broker
}

#[tokio::test(flavor = "multi_thread")]
async fn earliest_begins_with_the_oldest_event() {
    assert_eq!(first(&ten_events().await, StartLocation::Earliest, false).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn latest_begins_with_the_next_event() {
    let broker = Arc::new(ten_events().await);
    let consumer = consumer(&broker, SINGLE).await;
    let receiver = receiver(&consumer, "0", StartLocation::Latest, false).await;
    let mut stream = Box::pin(receiver.stream_events());
    // The SDK attaches with the first poll. Events from before the attach must not arrive.
    let attached = {
        let broker = Arc::clone(&broker);
        tokio::spawn(async move {
            within("the attach", async {
                while broker.faults().counters().attaches == 0 {
                    tokio::task::yield_now().await;
                }
            })
            .await;
            append_all(&broker, ["new"]);
        })
    };
    let event = next(&mut stream).await.expect("an event");
    assert_eq!(event.sequence_number(), Some(10));
    attached.await.expect("the append");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_number_is_exclusive_unless_inclusive() {
    let broker = ten_events().await;
    assert_eq!(first(&broker, StartLocation::SequenceNumber(4), false).await, 5);
    assert_eq!(first(&broker, StartLocation::SequenceNumber(4), true).await, 4);
    assert_eq!(first(&broker, StartLocation::SequenceNumber(-1), false).await, 0);
    assert_eq!(first(&broker, StartLocation::SequenceNumber(9), true).await, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_is_exclusive_unless_inclusive() {
    let broker = ten_events().await;
    let consumer = consumer(&broker, SINGLE).await;
    let reader = receiver(&consumer, "0", StartLocation::SequenceNumber(4), true).await;
    let event = next(&mut Box::pin(reader.stream_events())).await.expect("an event");
    let offset = event.offset().clone().expect("an offset");
    assert_eq!(first(&broker, StartLocation::Offset(offset.clone()), false).await, 5);
    assert_eq!(first(&broker, StartLocation::Offset(offset), true).await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enqueued_time_is_exclusive_unless_inclusive() {
    let broker = ten_events().await;
    let before = broker.partitions(SINGLE).expect("partitions")[0].last_enqueued_at;
    // The log's times are in milliseconds. The next event must have a later one.
    while now() <= before {
        tokio::task::yield_now().await;
    }
    append_all(&broker, ["late"]);
    let late = broker.partitions(SINGLE).expect("partitions")[0].last_enqueued_at;
    let time = |milliseconds: i64| {
        SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(milliseconds).expect("after the epoch"))
    };
    assert_eq!(first(&broker, StartLocation::EnqueuedTime(time(before)), false).await, 10);
    assert_eq!(first(&broker, StartLocation::EnqueuedTime(time(late)), true).await, 10);
    assert_eq!(first(&broker, StartLocation::EnqueuedTime(time(0)), true).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_position_of_the_newest_event_waits_for_the_next_one() {
    let broker = ten_events().await;
    let offset = broker.partitions(SINGLE).expect("partitions")[0].last_offset.clone();
    let mut readers = Vec::new();
    for location in [StartLocation::SequenceNumber(9), StartLocation::Offset(offset)] {
        let consumer = consumer(&broker, SINGLE).await;
        let receiver = receiver(&consumer, "0", location, false).await;
        readers.push(tokio::spawn(async move { take(&receiver, 1).await }));
    }
    within("both attaches", async {
        while broker.faults().counters().attaches < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    append_all(&broker, ["new"]);
    for reader in readers {
        assert_eq!(within("the new event", reader).await.expect("a reader"), [(10, "new".to_owned())]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_behind_the_end_is_refused_as_the_service_refuses_it() {
    let broker = ten_events().await;
    for location in [StartLocation::SequenceNumber(10), StartLocation::Offset("999999999".to_owned())] {
        // The SDK keeps one receiver per client and partition, so another position needs another client.
        let consumer = consumer(&broker, SINGLE).await;
        let receiver = receiver(&consumer, "0", location, false).await;
        let error = next(&mut Box::pin(receiver.stream_events())).await.expect_err("a refusal");
        let text = format!("{error:?}");
        assert!(text.contains("ArgumentError"), "{text}");
    }
}

fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after the epoch");
    i64::try_from(elapsed.as_millis()).expect("fits")
}

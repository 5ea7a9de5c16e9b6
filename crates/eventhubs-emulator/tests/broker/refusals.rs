//! What the broker refuses. A refusal is an error for the client, not a wait.

use azure_messaging_eventhubs::{SendEventOptions, StartLocation};

use crate::client::{
    HUB, SINGLE, TOKEN, broker, consumer, consumer_of_group, next, producer, receiver, start, within,
};

#[tokio::test(flavor = "multi_thread")]
async fn unknown_hubs_partitions_and_groups_are_not_found() {
    let broker = broker().await;
    for (hub, group, partition) in
        [("nowhere", "$Default", "0"), (HUB, "nobody", "0"), (HUB, "$Default", "4"), (HUB, "$Default", "00")]
    {
        let consumer = consumer_of_group(&broker, hub, group, TOKEN).await;
        let receiver = receiver(&consumer, partition, StartLocation::Earliest, false).await;
        let error = next(&mut Box::pin(receiver.stream_events())).await.expect_err("a refusal");
        let text = format!("{error:?}");
        assert!(text.contains("NotFound") || text.contains("not-found"), "{hub}/{group}/{partition}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_not_case_sensitive() {
    let broker = broker().await;
    broker.append(SINGLE, "", crate::client::event("x")).expect("an append");
    let consumer = consumer_of_group(&broker, "LifeCycle", "$default", TOKEN).await;
    let receiver = receiver(&consumer, "0", StartLocation::Earliest, false).await;
    next(&mut Box::pin(receiver.stream_events())).await.expect("an event");
}

#[tokio::test(flavor = "multi_thread")]
async fn management_does_not_find_unknown_hubs_and_partitions() {
    let broker = broker().await;
    let unknown = consumer(&broker, "nowhere").await;
    within("properties", unknown.get_eventhub_properties()).await.expect_err("no such hub");
    let known = consumer(&broker, HUB).await;
    within("properties", known.get_partition_properties("17")).await.expect_err("no such partition");
    within("properties", known.get_eventhub_properties()).await.expect("the link still answers");
}

#[tokio::test(flavor = "multi_thread")]
async fn sending_to_an_unknown_hub_or_partition_fails() {
    let broker = broker().await;
    let nowhere = producer(&broker, "nowhere").await;
    within("sending", nowhere.send_event("x", None)).await.expect_err("no such hub");
    let known = producer(&broker, HUB).await;
    let options = SendEventOptions { partition_id: Some("4".to_owned()) };
    within("sending", known.send_event("x", Some(options))).await.expect_err("no such partition");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_accepted_token_opens_a_receiver() {
    let broker = start(Some("the-one-token".to_owned())).await;
    broker.append(SINGLE, "", crate::client::event("x")).expect("an append");
    let refused = consumer_of_group(&broker, SINGLE, "$Default", TOKEN).await;
    let reader = receiver(&refused, "0", StartLocation::Earliest, false).await;
    next(&mut Box::pin(reader.stream_events())).await.expect_err("another token");

    let accepted = consumer_of_group(&broker, SINGLE, "$Default", "the-one-token").await;
    let reader = receiver(&accepted, "0", StartLocation::Earliest, false).await;
    next(&mut Box::pin(reader.stream_events())).await.expect("an event");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sixth_reader_of_a_partition_and_group_is_refused() {
    let broker = broker().await;
    broker.append(SINGLE, "", crate::client::event("x")).expect("an append");
    let mut open = Vec::new();
    for _ in 0..5 {
        let consumer = consumer(&broker, SINGLE).await;
        let reader = receiver(&consumer, "0", StartLocation::Earliest, false).await;
        next(&mut Box::pin(reader.stream_events())).await.expect("an event");
        open.push((reader, consumer));
    }
    let sixth = consumer(&broker, SINGLE).await;
    let reader = receiver(&sixth, "0", StartLocation::Earliest, false).await;
    next(&mut Box::pin(reader.stream_events())).await.expect_err("a refusal");

    let (reader, consumer) = open.pop().expect("five readers");
    within("closing", reader.close()).await.expect("the receiver closes");
    within("closing", consumer.close()).await.expect("the client closes");
    let successor = crate::client::consumer(&broker, SINGLE).await;
    let reader = receiver(&successor, "0", StartLocation::Earliest, false).await;
    next(&mut Box::pin(reader.stream_events())).await.expect("a place became free");
}

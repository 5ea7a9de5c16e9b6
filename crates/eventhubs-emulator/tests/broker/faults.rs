//! Every fault of [`eventhubs_emulator::Faults`], as the SDK's client sees it.

use std::{
    error::Error,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use azure_messaging_eventhubs::StartLocation;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use eventhubs_emulator::Event;
use fe2o3_amqp::link::{LinkStateError, RecvError};

use crate::client::{
    DEADLINE, Reader, SINGLE, append_all, broker, consumer, next, receiver, take, text, within,
};

/// An unsigned JSON Web Token that expires in the second of `expires`.
fn token_until(expires: SystemTime) -> String {
    let seconds = expires.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    format!("e30.{}.unsigned", URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{seconds}}}"#)))
}

/// The AMQP library's error inside the SDK's error.
fn receive_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a RecvError> {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        current = error.source();
    }
    None
}

/// The condition with which the broker closed the link.
fn condition(error: &(dyn Error + 'static)) -> String {
    match receive_error(error) {
        Some(RecvError::LinkStateError(LinkStateError::RemoteClosedWithError(error))) => {
            format!("{:?}", error.condition)
        }
        other => panic!("{other:?} in {error:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_connection_is_an_error_and_not_a_hang() {
    let broker = broker().await;
    let reader = Reader::behind_the_first_event(&broker).await;
    broker.faults().drop_connections();
    reader.next().await.expect_err("the connection is gone");

    let reader = Reader::open(&broker).await;
    assert_eq!(reader.take(1).await[0].1, "a", "new connections are welcome");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_refused_for_a_while() {
    let broker = broker().await;
    broker.faults().refuse_connections(DEADLINE);
    let opening = azure_messaging_eventhubs::ConsumerClient::builder()
        .with_retry_options(azure_messaging_eventhubs::RetryOptions { max_retries: 0, ..Default::default() })
        .with_custom_endpoint(format!("amqp://{}", broker.address()))
        .open("localhost", SINGLE.to_owned(), std::sync::Arc::new(crate::client::Credential("t")));
    assert!(within("opening", opening).await.is_err(), "the connection is closed at once");
    broker.faults().refuse_connections(Duration::ZERO);
    consumer(&broker, SINGLE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_closed_with_an_error_shows_its_condition() {
    let broker = broker().await;
    let reader = Reader::behind_the_first_event(&broker).await;
    let closed = broker.faults().close_receivers(SINGLE, 0, Some("amqp:link:stolen")).expect("a partition");
    assert_eq!(closed, 1);
    let error = reader.next().await.expect_err("the link is closed");
    assert!(condition(&error).contains("Stolen"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_closed_without_an_error_ends_the_stream_with_an_error() {
    let broker = broker().await;
    let reader = Reader::behind_the_first_event(&broker).await;
    assert_eq!(broker.faults().close_receivers(SINGLE, 0, None).expect("a partition"), 1);
    reader.next().await.expect_err("the link is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_tokens_fail_as_often_as_told() {
    let broker = broker().await;
    append_all(&broker, ["a"]);
    broker.faults().refuse_tokens(1);
    let reader = Reader::open(&broker).await;
    reader.next().await.expect_err("401");
    let reader = Reader::open(&broker).await;
    reader.next().await.expect("an event");
    assert_eq!(broker.faults().counters().put_tokens, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_refused_for_a_while() {
    let broker = broker().await;
    append_all(&broker, ["a"]);
    broker.faults().refuse_tokens_for(DEADLINE);
    for _ in 0..2 {
        let reader = Reader::open(&broker).await;
        reader.next().await.expect_err("401");
    }
    broker.faults().refuse_tokens_for(Duration::ZERO);
    let reader = Reader::open(&broker).await;
    reader.next().await.expect("an event");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_ends_with_its_token_and_an_expired_one_opens_none() {
    let broker = broker().await;
    append_all(&broker, ["a"]);
    let expires = SystemTime::now() + Duration::from_secs(3);
    // The client assumes that the token is valid for an hour, and does nothing when it expires.
    let token: &'static str = Box::leak(token_until(expires).into_boxed_str());
    let reader = Reader::with_token(&broker, token).await;
    reader.next().await.expect("an event");
    let error = reader.next().await.expect_err("the token has expired");
    assert!(SystemTime::now() > expires - Duration::from_secs(1), "and not earlier than its second");
    assert!(condition(&error).contains("UnauthorizedAccess"), "{error:?}");
    let reader = Reader::with_token(&broker, token).await;
    reader.next().await.expect_err("401");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_went_down_comes_back_on_its_port_with_its_logs() {
    let broker = broker().await;
    let reader = Reader::behind_the_first_event(&broker).await;
    broker.go_down().await;
    reader.next().await.expect_err("the connection is gone");
    tokio::net::TcpStream::connect(broker.address()).await.expect_err("nobody listens");
    append_all(&broker, ["b"]);
    broker.come_back().await.expect("the port is free");
    broker.come_back().await.expect("it is up already");
    let reader = Reader::open(&broker).await;
    assert_eq!(reader.take(2).await, [(0, "a".to_owned()), (1, "b".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_token_link_is_an_error_and_not_a_hang() {
    let broker = broker().await;
    append_all(&broker, ["a"]);
    broker.faults().close_token_links(1);
    let reader = Reader::open(&broker).await;
    reader.next().await.expect_err("no answer");
    let reader = Reader::open(&broker).await;
    reader.next().await.expect("an event");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_partition_delivers_nothing_until_it_is_released() {
    let broker = broker().await;
    let reader = Reader::behind_the_first_event(&broker).await;
    broker.faults().stall(SINGLE, 0).expect("a partition");
    append_all(&broker, ["b"]);
    // The link has to be attached and silent. That nothing arrives can only be observed over some time.
    let silence = tokio::time::timeout(Duration::from_millis(300), reader.next()).await;
    assert!(silence.is_err(), "{silence:?}");
    let properties = within("properties", reader.client.get_partition_properties("0"))
        .await
        .expect("partition properties");
    assert_eq!(properties.last_enqueued_sequence_number, 1, "management shows what the link withholds");
    broker.faults().release(SINGLE, 0).expect("a partition");
    assert_eq!(text(&reader.next().await.expect("an event")), "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_between_good_events_is_one_decode_error_and_the_link_goes_on() {
    let broker = broker().await;
    append_all(&broker, ["a", "b"]);
    assert_eq!(broker.faults().append_undecodable(SINGLE, 0).expect("a partition"), 2);
    append_all(&broker, ["d", "e"]);
    let reader = Reader::open(&broker).await;
    assert_eq!(text(&reader.next().await.expect("an event")), "a");
    assert_eq!(text(&reader.next().await.expect("an event")), "b");
    let error = reader.next().await.expect_err("the poison");
    assert!(matches!(receive_error(&error), Some(RecvError::MessageDecode(_))), "{error:?}");
    let rest = reader.take(2).await;
    assert_eq!(rest, [(3, "d".to_owned()), (4, "e".to_owned())], "the same link continues behind it");
    assert_eq!(broker.faults().counters().attaches, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn expiry_moves_the_beginning() {
    let broker = broker().await;
    append_all(&broker, (0..5).map(|number| number.to_string()));
    broker.faults().expire_before(SINGLE, 0, 3).expect("a partition");
    let reader = Reader::open(&broker).await;
    assert_eq!(reader.take(1).await, [(3, "3".to_owned())]);
    broker.faults().expire_before(SINGLE, 0, 100).expect("a partition");
    let state = &broker.partitions(SINGLE).expect("partitions")[0];
    assert_eq!((state.first_sequence_number, state.last_sequence_number, state.events), (5, 4, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_hub_starts_over_and_refuses_old_positions() {
    let broker = broker().await;
    append_all(&broker, (0..5).map(|number| number.to_string()));
    let reader = Reader::open(&broker).await;
    reader.next().await.expect("an event");
    broker.faults().recreate(SINGLE).expect("a hub");
    within("the end of the stream", async { while reader.next().await.is_ok() {} }).await;
    append_all(&broker, ["new"]);
    let old = receiver(&reader.client, "0", StartLocation::SequenceNumber(4), false).await;
    next(&mut Box::pin(old.stream_events())).await.expect_err("the position is of the old hub");
    let reader = Reader::open(&broker).await;
    assert_eq!(reader.take(1).await, [(0, "new".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_added_in_use_and_keys_move() {
    let broker = broker().await;
    broker.limit_partitions(10_000);
    append_all(&broker, ["old"]);
    let reader = Reader::open(&broker).await;
    reader.next().await.expect("an event");
    assert_eq!(broker.add_partitions(SINGLE, 2).expect("a hub"), 3);
    let properties = reader.client.get_eventhub_properties().await.expect("properties");
    assert_eq!(properties.partition_ids, ["0", "1", "2"]);
    for number in 0..300 {
        let event = Event { body: vec![b'x'; 100], ..Event::default() };
        broker.append(SINGLE, &format!("device-{number}"), event).expect("appended");
    }
    let partitions = broker.partitions(SINGLE).expect("a hub");
    assert!(partitions.iter().all(|partition| partition.last_sequence_number > 50), "{partitions:?}");
    assert!(partitions.iter().all(|partition| partition.bytes <= 10_000), "{partitions:?}");
    reader.next().await.expect("who was there reads on");
    let late = receiver(&reader.client, "2", StartLocation::Earliest, false).await;
    take(&late, 1).await;
    for count in [0, 1_022] {
        broker.add_partitions(SINGLE, count).expect_err("none, or too many");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_counters_count() {
    let broker = broker().await;
    append_all(&broker, ["a", "b"]);
    let reader = Reader::open(&broker).await;
    reader.take(2).await;
    let counters = broker.faults().counters();
    assert_eq!((counters.connections, counters.open_connections), (1, 1));
    assert_eq!((counters.put_tokens, counters.attaches, counters.delivered), (1, 1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_broker_is_gone_and_its_clients_learn_it() {
    let broker = broker().await;
    let reader = Reader::behind_the_first_event(&broker).await;
    within("the stop", broker.stop()).await;
    reader.next().await.expect_err("the broker is gone");
    assert_eq!(broker.faults().counters().open_connections, 0);
    tokio::net::TcpStream::connect(broker.address()).await.expect_err("nobody listens");
}

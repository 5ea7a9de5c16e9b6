//! A broker with two hubs, and the SDK's clients for it.

use std::{sync::Arc, time::Duration};

use azure_core::{
    credentials::{AccessToken, TokenCredential, TokenRequestOptions},
    time::OffsetDateTime,
};
use azure_messaging_eventhubs::{
    ConsumerClient, EventReceiver, OpenReceiverOptions, ProducerClient, RetryOptions, StartLocation,
    StartPosition, models::ReceivedEventData,
};
use eventhubs_emulator::{Broker, Event, HubOptions, Options, Value};
use futures::{Stream, StreamExt};

/// A hub with four partitions and a consumer group besides the default one.
pub(crate) const HUB: &str = "twin-changes";
/// A hub with one partition.
pub(crate) const SINGLE: &str = "lifecycle";
pub(crate) const GROUP: &str = "twinsync";
pub(crate) const TOKEN: &str = "a-token";

/// Long enough for a slow machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) async fn broker() -> Broker {
    start(None).await
}

pub(crate) async fn start(accepted_token: Option<String>) -> Broker {
    let hub = |name: &str, partitions| HubOptions {
        name: name.to_owned(),
        partitions,
        consumer_groups: vec![GROUP.to_owned()],
    };
    let options = Options {
        listen: ([127, 0, 0, 1], 0).into(),
        hubs: vec![hub(HUB, 4), hub(SINGLE, 1)],
        accepted_token,
    };
    Broker::start(options).await.expect("the broker starts")
}

/// Fails the test after [`DEADLINE`] instead of hanging. The message says what was waited for.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_elapsed) => panic!("no end within {DEADLINE:?}: {what}"),
    }
}

#[derive(Debug)]
pub(crate) struct Credential(pub(crate) &'static str);

#[async_trait::async_trait]
impl TokenCredential for Credential {
    async fn get_token(
        &self,
        _scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let expires_on = OffsetDateTime::now_utc() + Duration::from_secs(3600);
        Ok(AccessToken::new(self.0, expires_on))
    }
}

fn no_retries() -> RetryOptions {
    RetryOptions { max_retries: 0, ..RetryOptions::default() }
}

fn endpoint(broker: &Broker) -> String {
    format!("amqp://{}", broker.address())
}

pub(crate) async fn consumer(broker: &Broker, hub: &str) -> ConsumerClient {
    consumer_of_group(broker, hub, "$Default", TOKEN).await
}

pub(crate) async fn consumer_of_group(
    broker: &Broker,
    hub: &str,
    group: &str,
    token: &'static str,
) -> ConsumerClient {
    let opening = ConsumerClient::builder()
        .with_consumer_group(group.to_owned())
        .with_retry_options(no_retries())
        .with_custom_endpoint(endpoint(broker))
        .open("localhost", hub.to_owned(), Arc::new(Credential(token)));
    within("opening a consumer", opening).await.expect("the consumer opens")
}

pub(crate) async fn producer(broker: &Broker, hub: &str) -> ProducerClient {
    let opening = ProducerClient::builder()
        .with_retry_options(no_retries())
        .with_custom_endpoint(endpoint(broker))
        .open("localhost", hub, Arc::new(Credential(TOKEN)));
    within("opening a producer", opening).await.expect("the producer opens")
}

pub(crate) async fn receiver(
    consumer: &ConsumerClient,
    partition: &str,
    location: StartLocation,
    inclusive: bool,
) -> EventReceiver {
    let options = OpenReceiverOptions {
        start_position: Some(StartPosition { location, inclusive }),
        prefetch: Some(1000),
        ..OpenReceiverOptions::default()
    };
    within("opening a receiver", consumer.open_receiver_on_partition(partition.to_owned(), Some(options)))
        .await
        .expect("the receiver opens")
}

pub(crate) async fn next<S>(stream: &mut S) -> azure_messaging_eventhubs::Result<ReceivedEventData>
where
    S: Stream<Item = azure_messaging_eventhubs::Result<ReceivedEventData>> + Unpin,
{
    within("the next event", stream.next()).await.expect("the stream goes on")
}

/// A client that reads the only partition of [`SINGLE`] from its beginning.
pub(crate) struct Reader {
    pub(crate) client: ConsumerClient,
    pub(crate) receiver: EventReceiver,
}

impl Reader {
    pub(crate) async fn open(broker: &Broker) -> Self {
        Self::with_token(broker, TOKEN).await
    }

    pub(crate) async fn with_token(broker: &Broker, token: &'static str) -> Self {
        let client = consumer_of_group(broker, SINGLE, "$Default", token).await;
        let receiver = receiver(&client, "0", StartLocation::Earliest, false).await;
        Self { client, receiver }
    }

    /// Opens a reader that has received the first event, so its link is attached.
    pub(crate) async fn behind_the_first_event(broker: &Broker) -> Self {
        append_all(broker, ["a"]);
        let reader = Self::open(broker).await;
        assert_eq!(text(&reader.next().await.expect("an event")), "a");
        reader
    }

    pub(crate) async fn next(&self) -> azure_messaging_eventhubs::Result<ReceivedEventData> {
        next(&mut Box::pin(self.receiver.stream_events())).await
    }

    pub(crate) async fn take(&self, count: usize) -> Vec<(i64, String)> {
        take(&self.receiver, count).await
    }
}

/// The next `count` events as (sequence number, body).
pub(crate) async fn take(receiver: &EventReceiver, count: usize) -> Vec<(i64, String)> {
    let mut stream = Box::pin(receiver.stream_events());
    let mut events = Vec::with_capacity(count);
    while events.len() < count {
        let event = next(&mut stream).await.expect("an event");
        events.push((event.sequence_number().expect("a sequence number"), text(&event)));
    }
    events
}

pub(crate) fn text(event: &ReceivedEventData) -> String {
    let body = event.event_data().body().expect("one data section");
    String::from_utf8(body.to_vec()).expect("a body of text")
}

/// An event as IoT Hub sends it, with this body.
pub(crate) fn event(body: &str) -> Event {
    let property = |(name, value): (&str, &str)| (name.to_owned(), Value::from(value));
    Event {
        body: body.as_bytes().to_vec(),
        application_properties: [("hubName", "hub"), ("deviceId", "device-1"), ("opType", "updateTwin")]
            .map(property)
            .into(),
        annotations: [
            ("iothub-connection-device-id".to_owned(), Value::from("device-1")),
            ("iothub-message-source".to_owned(), Value::from("twinChangeEvents")),
            ("iothub-enqueuedtime".to_owned(), Value::Timestamp(1_700_000_000_123)),
        ]
        .into(),
        content_type: Some("application/json".to_owned()),
        content_encoding: Some("utf-8".to_owned()),
        correlation_id: Some("correlation".to_owned()),
        user_id: Some(vec![0xff, 0x00]),
    }
}

/// Appends events with these bodies to the hub's only partition.
pub(crate) fn append_all(broker: &Broker, bodies: impl IntoIterator<Item = impl AsRef<str>>) {
    for body in bodies {
        broker.append(SINGLE, "", event(body.as_ref())).expect("an append");
    }
}

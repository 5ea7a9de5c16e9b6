//! The [`EventSource`] on Azure Event Hubs.
//!
//! Facts about azure_messaging_eventhubs 0.15 that shape this file:
//! - with retries, it re-attaches silently at the *original* position, competes for stolen links and can lock up; with
//!   `max_retries: 0`, all of that becomes plain errors, and we do the recovery;
//! - locks are connection-wide, so every partition has a separate client, and with it a separate connection;
//! - opening has no timeout, resolves names on the thread that it runs on, and blocks that thread meanwhile; a client
//!   whose connection was dropped never works again;
//! - a stream ends with its first error; after a message that could not be decoded, a new stream on the same receiver
//!   continues with the next message, while a new receiver would get the same message again;
//! - renewal of tokens stops permanently with the first failure, so every client has a separate credential that knows
//!   when its last token expires, and the client is replaced at that time;
//! - management answers of an unexpected type panic inside the SDK, so those calls run in a separate task.

mod classify;

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use azure_core::credentials::TokenCredential;
use azure_core_amqp::{
    AmqpSimpleValue, AmqpTimestamp, AmqpValue,
    message::{AmqpAnnotationKey, AmqpMessageBody},
};
use azure_messaging_eventhubs::{
    ConsumerClient, EventHubsError, OpenReceiverOptions, RetryOptions, StartLocation, StartPosition,
    models::ReceivedEventData,
};
use futures::StreamExt;
use tokio::{
    sync::{Mutex, mpsc},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use self::classify::classify;
use super::credential::EventHubsCredential;
use crate::{
    domain::{
        id::{Position, SequenceNumber},
        message::{Message, Property},
        progress::Extent,
        ticks::Ticks,
    },
    ports::{EventSource, Receiver, SourceError, Start},
};

/// How many messages that cannot be decoded are skipped in a row on one link. Their credit is never returned, so a link
/// that receives only such messages would run out of credit.
const UNDECODABLE_IN_A_ROW: usize = 64;
/// The maximum number of events that are passed on at once.
const CHUNK: usize = 256;
/// Limit of a clean close; a half-open peer never answers.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// How to connect to one Event Hub.
#[derive(Debug, Clone)]
pub struct Options {
    /// Fully qualified namespace, e.g. `contoso.servicebus.windows.net`.
    pub namespace: String,
    /// Name of the Event Hub.
    pub hub: String,
    /// Consumer group; it should be used by the daemon only.
    pub consumer_group: String,
    /// Another address to connect to, for emulators: `amqp://127.0.0.1:5672`.
    pub endpoint: Option<String>,
    /// Events in flight per partition.
    pub prefetch: u32,
    /// Limit of opening and of each management call.
    pub open_timeout: Duration,
}

/// One Event Hub.
pub struct EventHub {
    options: Options,
    credential: Arc<dyn TokenCredential>,
    /// Kept between management calls, dropped with the first error, because a broken client never recovers.
    management: Mutex<Option<Connected>>,
    /// The number of its partitions, if known; 0 before the first request.
    partitions: AtomicUsize,
}

/// A client, and the credential that only this client uses.
struct Connected {
    client: Arc<ConsumerClient>,
    credential: Arc<EventHubsCredential>,
}

/// The number of events that all links of an Event Hub together may prefetch: events in the client's buffers count
/// towards no other limit.
const AHEAD: usize = 16_000;
/// With fewer events per link, credit would be transferred more often than events.
const AHEAD_LEAST: u32 = 250;

/// The number of events that the link of a partition may prefetch, if the Event Hub has this many partitions.
fn prefetch(wanted: u32, partitions: usize) -> u32 {
    let share = u32::try_from(AHEAD / partitions.max(1)).unwrap_or(u32::MAX);
    wanted.min(share.max(AHEAD_LEAST))
}

impl EventHub {
    /// Creates the source; nothing is connected before the first call. `credential` is the process's own, not yet
    /// wrapped for Event Hubs.
    pub fn new(options: Options, credential: Arc<dyn TokenCredential>) -> Self {
        Self { options, credential, management: Mutex::new(None), partitions: AtomicUsize::new(0) }
    }

    async fn connect(&self) -> Result<(ConsumerClient, Arc<EventHubsCredential>), SourceError> {
        let limit = self.options.open_timeout;
        self.resolve(limit).await?;
        let credential = EventHubsCredential::new(Arc::clone(&self.credential));
        let mut builder = ConsumerClient::builder()
            .with_consumer_group(self.options.consumer_group.clone())
            .with_retry_options(RetryOptions { max_retries: 0, ..RetryOptions::default() });
        if let Some(endpoint) = &self.options.endpoint {
            builder = builder.with_custom_endpoint(endpoint.clone());
        }
        let presented: Arc<dyn TokenCredential> = Arc::clone(&credential) as _;
        let open = builder.open(&self.options.namespace, self.options.hub.clone(), presented);
        match timeout(limit, Box::pin(open)).await {
            Ok(Ok(client)) => Ok((client, credential)),
            Ok(Err(error)) => Err(classify("opening the connection", &error)),
            Err(_) => Err(silent("opening the connection", limit)),
        }
    }

    /// Checks whether the name can be resolved. The SDK would block its thread during name resolution, and several
    /// blocked threads would stop the whole process. If a name was resolved just before, the SDK rarely waits.
    async fn resolve(&self, limit: Duration) -> Result<(), SourceError> {
        const OPERATION: &str = "resolving the host name";
        /// Only the name matters, not the port.
        const PORT: u16 = 5671;
        let endpoint = self.options.endpoint.as_ref().and_then(|endpoint| url::Url::parse(endpoint).ok());
        let host = endpoint.as_ref().and_then(url::Url::host_str).unwrap_or(&self.options.namespace);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        match timeout(limit, tokio::net::lookup_host((host, PORT))).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                Err(SourceError::Lost { operation: OPERATION, reason: format!("{host}: {error}") })
            }
            Err(_) => Err(silent(OPERATION, limit)),
        }
    }

    /// Runs a management call in a separate task on the management connection.
    async fn manage<T, F>(
        &self,
        operation: &'static str,
        call: impl FnOnce(Arc<ConsumerClient>) -> F,
    ) -> Result<T, SourceError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, EventHubsError>> + Send + 'static,
    {
        let mut management = self.management.lock().await;
        let Connected { client, credential } = match management.take() {
            Some(connected) if !connected.credential.is_expired() => connected,
            stale => {
                if let Some(client) = stale.and_then(|stale| Arc::into_inner(stale.client)) {
                    close_client(client).await;
                }
                let (client, credential) = self.connect().await?;
                Connected { client: Arc::new(client), credential }
            }
        };
        let limit = self.options.open_timeout;
        let mut task = tokio::spawn(call(Arc::clone(&client)));
        let result = match timeout(limit, &mut task).await {
            Ok(Ok(result)) => result.map_err(|error| classify(operation, &error)),
            Ok(Err(_panicked)) => {
                let reason = "the SDK could not parse the answer".to_owned();
                Err(SourceError::Lost { operation, reason })
            }
            Err(_) => {
                task.abort();
                Err(silent(operation, limit))
            }
        };
        if result.is_ok() {
            *management = Some(Connected { client, credential });
        } else if let Some(client) = Arc::into_inner(client) {
            close_client(client).await;
        }
        result
    }
}

#[async_trait]
impl EventSource for EventHub {
    fn name(&self) -> &str {
        &self.options.hub
    }

    async fn partitions(&self) -> Result<Vec<String>, SourceError> {
        let properties = self
            .manage("reading the Event Hub's properties", |client| async move {
                client.get_eventhub_properties().await
            })
            .await?;
        self.partitions.store(properties.partition_ids.len(), Ordering::Relaxed); // an independent counter
        Ok(properties.partition_ids)
    }

    async fn extent(&self, partition: &str) -> Result<Extent, SourceError> {
        let partition = partition.to_owned();
        let properties = self
            .manage("reading the partition's properties", |client| async move {
                client.get_partition_properties(&partition).await
            })
            .await?;
        Ok(Extent {
            first: SequenceNumber(properties.beginning_sequence_number),
            last: SequenceNumber(properties.last_enqueued_sequence_number),
            is_empty: properties.is_empty,
            newest: properties.last_enqueued_time_utc.and_then(moment),
        })
    }

    async fn close(&self) {
        let connected = self.management.lock().await.take();
        if let Some(client) = connected.and_then(|connected| Arc::into_inner(connected.client)) {
            close_client(client).await;
        }
    }

    async fn open(&self, partition: &str, start: Start) -> Result<Box<dyn Receiver>, SourceError> {
        let (location, inclusive) = match start {
            Start::Earliest => (StartLocation::Earliest, false),
            Start::At(position) => (StartLocation::Offset(position.offset.into()), true),
            Start::After(number) => (StartLocation::SequenceNumber(number.0), false),
        };
        let (client, credential) = self.connect().await?;
        let options = OpenReceiverOptions {
            prefetch: Some(prefetch(self.options.prefetch, self.partitions.load(Ordering::Relaxed))),
            start_position: Some(StartPosition { location, inclusive }),
            ..OpenReceiverOptions::default()
        };
        let (chunks, received) = mpsc::channel(2);
        let stop = CancellationToken::new();
        let partition = partition.to_owned();
        let pump = tokio::spawn(pump(client, credential, partition, options, chunks, stop.clone()));
        Ok(Box::new(PartitionReceiver { received, stop, pump }))
    }
}

/// Receives through a task that owns client, receiver and stream, because the stream borrows from the receiver and a
/// started receive must not be dropped.
struct PartitionReceiver {
    received: mpsc::Receiver<Result<Vec<Message>, SourceError>>,
    stop: CancellationToken,
    pump: JoinHandle<()>,
}

#[async_trait]
impl Receiver for PartitionReceiver {
    async fn receive(&mut self) -> Result<Vec<Message>, SourceError> {
        self.received.recv().await.unwrap_or_else(|| {
            Err(SourceError::Lost { operation: "receiving", reason: "the receiver has ended".into() })
        })
    }

    async fn close(mut self: Box<Self>) {
        self.stop.cancel();
        self.received.close();
        if timeout(CLOSE_LIMIT * 2, &mut self.pump).await.is_err() {
            self.pump.abort();
        }
    }
}

impl Drop for PartitionReceiver {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

type Chunks = mpsc::Sender<Result<Vec<Message>, SourceError>>;

async fn pump(
    client: ConsumerClient,
    credential: Arc<EventHubsCredential>,
    partition: String,
    options: OpenReceiverOptions,
    chunks: Chunks,
    stop: CancellationToken,
) {
    match client.open_receiver_on_partition(partition, Some(options)).await {
        Err(error) => drop(chunks.send(Err(classify("opening the receiver", &error))).await),
        Ok(receiver) => {
            let mut undecodable = 0;
            while undecodable < UNDECODABLE_IN_A_ROW {
                match stream(&receiver, &credential, &chunks, &stop).await {
                    Next::SkippedAfter(good) => undecodable = if good { 1 } else { undecodable + 1 },
                    Next::Ended => break,
                }
            }
            let _ = timeout(CLOSE_LIMIT, receiver.close()).await;
        }
    }
    close_client(client).await;
}

enum Next {
    /// A message was skipped; the flag says whether good ones came before it.
    SkippedAfter(bool),
    Ended,
}

async fn stream(
    receiver: &azure_messaging_eventhubs::EventReceiver,
    credential: &EventHubsCredential,
    chunks: &Chunks,
    stop: &CancellationToken,
) -> Next {
    let mut events = receiver.stream_events().ready_chunks(CHUNK);
    let mut good = false;
    let mut expired = pin!(credential.expired());
    loop {
        let chunk = tokio::select! {
            biased;
            () = stop.cancelled() => return Next::Ended,
            () = &mut expired => {
                // If the receiver was dropped, this message is not needed.
                let _ = chunks.send(Err(SourceError::TokenExpired)).await;
                return Next::Ended;
            }
            chunk = events.next() => chunk,
        };
        let Some(chunk) = chunk else { return Next::Ended };
        let mut messages = Vec::with_capacity(chunk.len());
        let mut failure = None;
        for event in chunk {
            match event.map_err(|error| classify("receiving", &error)).and_then(|event| translate(&event)) {
                Ok(message) => messages.push(message),
                Err(error) => failure = Some(error), // always the last item of its chunk: the stream has ended
            }
        }
        if !messages.is_empty() {
            good = true;
            if chunks.send(Ok(messages)).await.is_err() {
                return Next::Ended;
            }
        }
        if let Some(error) = failure {
            let skipped = matches!(error, SourceError::Undecodable(_));
            if chunks.send(Err(error)).await.is_err() || !skipped {
                return Next::Ended;
            }
            return Next::SkippedAfter(good);
        }
    }
}

async fn close_client(client: ConsumerClient) {
    // An error here means that the connection is already gone.
    let _ = timeout(CLOSE_LIMIT, client.close()).await;
}

fn translate(event: &ReceivedEventData) -> Result<Message, SourceError> {
    // Without both, there is no position to check or to resume from.
    let (Some(number), Some(offset)) = (event.sequence_number(), event.offset()) else {
        let reason =
            "an event without sequence number or offset: this is not a partition of Event Hubs".to_owned();
        return Err(SourceError::Lost { operation: "receiving", reason });
    };
    let raw = event.raw_amqp_message();
    let body = match &raw.body {
        AmqpMessageBody::Binary(sections) => sections.concat(),
        AmqpMessageBody::Value(AmqpValue::Binary(bytes)) => bytes.clone(),
        AmqpMessageBody::Value(AmqpValue::String(text)) => text.clone().into_bytes(),
        AmqpMessageBody::Value(_) | AmqpMessageBody::Sequence(_) | AmqpMessageBody::Empty => Vec::new(),
    };
    let application_properties = raw.application_properties.as_ref().map(|properties| {
        properties.0.iter().map(|(name, value)| (name.as_str(), simple_property(value))).collect()
    });
    let annotations = raw.message_annotations.as_ref().map(|annotations| {
        let ours = annotations.0.iter().filter_map(|(key, value)| match key {
            AmqpAnnotationKey::Symbol(name) if !name.0.starts_with("x-opt-") => {
                Some((name.0.as_str(), property(value)))
            }
            AmqpAnnotationKey::Symbol(_) | AmqpAnnotationKey::Ulong(_) => None,
        });
        ours.collect()
    });
    Ok(Message {
        position: Position { sequence_number: SequenceNumber(number), offset: offset.into() },
        enqueued: event.enqueued_time().and_then(|time| ticks(&AmqpTimestamp(Some(time)))),
        body: body.into(),
        application_properties: application_properties.unwrap_or_default(),
        annotations: annotations.unwrap_or_default(),
    })
}

/// The scalar types, which the SDK declares twice.
macro_rules! scalar_property {
    ($value:expr, $kind:ident) => {
        match $value {
            $kind::String(text) => Property::Text(text.into()),
            $kind::Symbol(symbol) => Property::Text(symbol.0.as_str().into()),
            $kind::Uuid(id) => Property::Text(id.to_string().into()),
            $kind::Char(character) => Property::Text(character.to_string().into()),
            $kind::Boolean(value) => Property::Boolean(*value),
            $kind::UByte(number) => Property::Integer((*number).into()),
            $kind::UShort(number) => Property::Integer((*number).into()),
            $kind::UInt(number) => Property::Integer((*number).into()),
            $kind::ULong(number) => i64::try_from(*number)
                .map_or_else(|_| Property::Other(number.to_string().into()), Property::Integer),
            $kind::Byte(number) => Property::Integer((*number).into()),
            $kind::Short(number) => Property::Integer((*number).into()),
            $kind::Int(number) => Property::Integer((*number).into()),
            $kind::Long(number) => Property::Integer(*number),
            $kind::Float(number) => Property::Number((*number).into()),
            $kind::Double(number) => Property::Number(*number),
            $kind::TimeStamp(time) => {
                ticks(time).map_or_else(|| Property::Other("timestamp out of range".into()), Property::Time)
            }
            $kind::Binary(bytes) => Property::Binary(bytes.as_slice().into()),
            // Types that twin events never use; the SDK's own Debug shows no content.
            other => Property::Other(format!("{other:?}").into()),
        }
    };
}

fn property(value: &AmqpValue) -> Property<'_> {
    scalar_property!(value, AmqpValue)
}

fn simple_property(value: &AmqpSimpleValue) -> Property<'_> {
    scalar_property!(value, AmqpSimpleValue)
}

fn moment(time: std::time::SystemTime) -> Option<Ticks> {
    let since = time.duration_since(std::time::UNIX_EPOCH).ok().filter(|since| !since.is_zero())?;
    Ticks::from_unix_milliseconds(i64::try_from(since.as_millis()).ok()?)
}

fn ticks(time: &AmqpTimestamp) -> Option<Ticks> {
    use std::time::UNIX_EPOCH;
    let time = time.0?;
    let milliseconds = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).ok()?,
        Err(before) => i64::try_from(before.duration().as_millis()).ok()?.checked_neg()?,
    };
    Ticks::from_unix_milliseconds(milliseconds)
}

fn silent(operation: &'static str, limit: Duration) -> SourceError {
    SourceError::Lost { operation, reason: format!("no answer within {} s", limit.as_secs_f32()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_deliver_less_ahead_where_there_are_many_of_them() {
        assert_eq!(prefetch(2_000, 0), 2_000, "the number of partitions is unknown");
        assert_eq!(prefetch(2_000, 8), 2_000);
        assert_eq!(prefetch(2_000, 32), 500);
        assert_eq!(prefetch(2_000, 1_000), 250);
        assert_eq!(prefetch(100, 1_000), 100, "never more than the configured prefetch");
    }
}

//! The product's own part of an event's cost, without any I/O: decoding, deciding, serializing.
//!
//! The messages are those of the workloads: the hub's model makes them from the same load. The work of Azure's clients before and after is
//! not included.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use devkit::{
    fleet::{Pace, Rounds, RunnerError, State},
    iothub::{HubNames, Notification, Options, Route, RouteError, Service},
};
use twinsync::domain::{
    decide::Rules,
    decode::{Decoded, decode},
    document::{Document, ETag},
    event::TwinEvent,
    id::{DocumentIdScheme, Position, SequenceNumber},
    message::{Message, Property},
    ticks::Ticks,
    upsert::{Action, Upsert},
};

/// The rules for decisions, in the default configuration.
pub const RULES: Rules = Rules {
    id_scheme: DocumentIdScheme::Device,
    tombstone_ttl_seconds: 8 * 86_400,
    clock_tolerance: Duration::from_secs(5),
    forgets_after: None,
};
/// Larger than any body of these loads, in bytes.
const LARGEST_BODY: usize = 1 << 20;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The load is invalid.
    #[error(transparent)]
    Load(#[from] RunnerError),
    /// The hub's model refused the load.
    #[error("the hub refuses the load: {0}")]
    Refused(String),
    /// The product did not accept a message as an event.
    #[error("a message of the load is no event: {0}")]
    NoEvent(String),
    /// A batch of events did not lead to a write.
    #[error("nothing is to be written for a batch of {0} events")]
    NoWrite(usize),
}

/// A load that can be applied: each twin's document and messages.
#[derive(Debug, Clone)]
pub struct Load {
    twins: Vec<Twin>,
    now: Ticks,
}

#[derive(Debug, Clone)]
struct Twin {
    /// The document as in the cache.
    document: Option<Arc<Document>>,
    messages: Vec<Message>,
}

/// The result of applying a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Number of events.
    pub events: usize,
    /// Number of documents serialized.
    pub writes: usize,
    /// Size of these documents in bytes.
    pub bytes: usize,
}

impl Load {
    /// Creates this many twins, with `bytes` of tags and desired properties, and this many changes of each.
    ///
    /// # Errors
    /// The load is invalid.
    pub async fn new(devices: usize, rounds: usize, bytes: usize) -> Result<Self, Error> {
        let recorder = Arc::new(Recorder::default());
        let route: Arc<dyn Route> = Arc::clone(&recorder) as _;
        let hub = Arc::new(Service::new(Options::default(), HubNames::default(), route));
        hub.keep_history(0);
        let runner = devkit::fleet::Runner::new(hub);
        let load = Rounds { devices, register: true, rounds, bytes, ..Rounds::default() };
        runner.start_rounds(load, Pace::Backlog)?;
        let progress = runner.phase_end().await;
        if progress.state != State::Done {
            return Err(Error::Refused(progress.error.unwrap_or_default()));
        }
        let recorded = std::mem::take(&mut *recorder.0.lock().unwrap_or_else(PoisonError::into_inner));
        let now = recorded.values().flatten().filter_map(|message| message.enqueued).max();
        let now = now.unwrap_or(Ticks::new(0));
        let twins = recorded.into_values().map(|messages| Twin::new(messages, now));
        Ok(Self { twins: twins.collect::<Result<_, _>>()?, now })
    }

    /// Mean size of a change with its properties in bytes, as the product computes it.
    pub fn bytes_per_event(&self) -> f64 {
        let weights = self.twins.iter().flat_map(|twin| &twin.messages).map(Message::weight);
        let (count, bytes) =
            weights.fold((0_usize, 0_usize), |(count, bytes), weight| (count + 1, bytes + weight));
        bytes as f64 / count.max(1) as f64
    }

    /// Decodes, decides and serializes all events, with this many events of a twin per write. This consumes the load.
    ///
    /// # Errors
    /// A message is no event, or leads to no write.
    pub fn apply(&mut self, batch: usize) -> Result<Applied, Error> {
        let mut applied = Applied { events: 0, writes: 0, bytes: 0 };
        for twin in &mut self.twins {
            for messages in std::mem::take(&mut twin.messages).chunks(batch.max(1)) {
                applied.bytes += twin.take(messages, self.now)?;
                applied.events += messages.len();
                applied.writes += 1;
            }
        }
        Ok(applied)
    }
}

impl Twin {
    /// The first message must be the registration.
    fn new(mut messages: Vec<Message>, now: Ticks) -> Result<Self, Error> {
        if messages.is_empty() {
            return Err(Error::NoEvent("there is none".to_owned()));
        }
        let changes = messages.split_off(1);
        let events = messages.iter().map(event).collect::<Result<_, _>>()?;
        let mut upsert = Upsert::new(events, None, RULES);
        upsert.absent();
        match upsert.action(now) {
            Action::Create(document) => Ok(Self { document: Some(document), messages: changes }),
            Action::Read | Action::Replace(..) | Action::Done => Err(Error::NoWrite(messages.len())),
        }
    }

    /// From received messages to the bytes that are sent, and to the document in the cache.
    fn take(&mut self, messages: &[Message], now: Ticks) -> Result<usize, Error> {
        let events = messages.iter().map(event).collect::<Result<_, _>>()?;
        // As in the product, the cache gives its document away during the write, so that it is changed in place.
        let cached = self.document.take().map(|document| (document, ETag("1".into())));
        let mut upsert = Upsert::new(events, cached, RULES);
        let Action::Replace(document, _) = upsert.action(now) else {
            return Err(Error::NoWrite(messages.len()));
        };
        let bytes =
            serde_json::to_vec(document.as_ref()).map_or(0, |bytes| std::hint::black_box(bytes).len());
        drop(document);
        upsert.written(ETag("2".into()));
        let (_, stored) = upsert.finish();
        self.document = stored.map(|(document, _)| document);
        Ok(bytes)
    }
}

fn event(message: &Message) -> Result<TwinEvent, Error> {
    match decode(message, LARGEST_BODY) {
        Decoded::Event(event) => Ok(event),
        other => Err(Error::NoEvent(format!("{other:?}"))),
    }
}

/// Seconds per event: the median of this many runs over equal loads.
///
/// # Errors
/// As for [`Load::apply`].
pub fn seconds_per_event(load: &Load, batch: usize, runs: usize) -> Result<f64, Error> {
    let mut all = Vec::with_capacity(runs);
    for _ in 0..runs.max(1) {
        let mut load = load.clone();
        let began = Instant::now();
        let applied = load.apply(batch)?;
        all.push(began.elapsed().as_secs_f64() / applied.events.max(1) as f64);
    }
    all.sort_by(f64::total_cmp);
    Ok(all.get(all.len() / 2).copied().unwrap_or(f64::NAN))
}

/// Records the hub's notifications, by partition key.
#[derive(Default)]
struct Recorder(Mutex<BTreeMap<String, Vec<Message>>>);

impl Route for Recorder {
    fn append(&self, _hub: &str, partition_key: &str, notification: &Notification) -> Result<(), RouteError> {
        let mut recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.entry(partition_key.to_owned()).or_default().push(message(notification));
        Ok(())
    }
}

/// The message that the adapter makes of the delivered event.
fn message(notification: &Notification) -> Message {
    let text = |entries: Vec<(&'static str, String)>| -> Vec<_> {
        entries.into_iter().map(|(key, value)| (key, Property::Text(value.into()))).collect()
    };
    let enqueued = Ticks::from_unix_milliseconds(notification.enqueued_time());
    let mut annotations = text(notification.text_annotations());
    annotations.extend(enqueued.map(|time| ("iothub-enqueuedtime", Property::Time(time))));
    annotations.push(("user-id", Property::Binary(notification.user_id().into())));
    annotations.push(("correlation-id", Property::Text(notification.correlation_id().into())));
    Message {
        position: Position {
            sequence_number: SequenceNumber(i64::try_from(notification.number).unwrap_or(i64::MAX)),
            offset: (notification.number * 512).to_string().into(),
        },
        enqueued,
        body: notification.body_bytes().into(),
        application_properties: text(notification.application_properties()).into_iter().collect(),
        annotations: annotations.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_event_of_the_load_is_applied_and_every_batch_is_one_write() {
        let load = Load::new(3, 10, 1 << 10).await.expect("a load");
        let one = load.clone().apply(1).expect("applied");
        let four = load.clone().apply(4).expect("applied");
        assert_eq!((one.events, one.writes), (30, 30));
        assert_eq!((four.events, four.writes), (30, 9));
        assert!(one.bytes / one.writes > 1 << 10, "the whole document: {one:?}");
        assert!(seconds_per_event(&load, 4, 3).expect("a figure") > 0.0);
    }
}

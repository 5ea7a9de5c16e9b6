//! Messages as bytes: encoding, decoding, batches, and the annotations that the broker sets.
//!
//! The log holds encoded messages. An event of IoT Hub takes about 0.7 KB in this form, and three to four
//! times as much as a tree of AMQP values. Events are delivered in this form, see `envelope`.

use std::sync::Arc;

use fe2o3_amqp::link::delivery::Sendable;
use fe2o3_amqp_types::{
    definitions::MessageFormat,
    messaging::{
        self, AmqpValue, Body,
        annotations::{AnnotationKey, OwnedKey},
        message::__private::{Deserializable, Serializable},
    },
    primitives::{Timestamp, Value},
};
use serde::{Serialize, Serializer, ser::SerializeStruct};
use serde_amqp::{
    __constants::{DESCRIBED_BASIC, DESCRIPTOR},
    descriptor::Descriptor,
};

/// A message with any body.
pub(super) type Message = messaging::Message<Body<Value>>;

/// Annotation with the partition key that chose the partition.
pub(super) const PARTITION_KEY: &str = "x-opt-partition-key";
const SEQUENCE_NUMBER: &str = "x-opt-sequence-number";
const OFFSET: &str = "x-opt-offset";
const ENQUEUED_TIME: &str = "x-opt-enqueued-time";

/// Message format of a batch: each data section is one complete encoded message.
const BATCH_FORMAT: MessageFormat = 0x8001_3700;

/// Where and when an event was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Position in the partition. It has no gaps.
    pub(super) sequence_number: i64,
    /// Position in bytes. It grows, with gaps.
    pub(super) offset: i64,
    /// Milliseconds since the Unix epoch.
    pub(super) enqueued_at: i64,
}

/// What the log stores of one event.
#[derive(Debug, Clone)]
pub(super) enum Payload {
    /// An encoded, stamped message.
    Encoded(Arc<[u8]>),
    /// A delivery that no client can decode.
    Undecodable,
}

impl Payload {
    /// Number of bytes that count against the log's size limit.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Encoded(bytes) => bytes.len(),
            Self::Undecodable => 0,
        }
    }
}

/// A batch that does not have the form that its message format requires.
#[derive(Debug, thiserror::Error)]
pub(super) enum BatchError {
    /// The message has the format of a batch, but its body does not consist of data sections.
    #[error("a batch needs data sections, one per event")]
    NoDataSections,
    /// A data section is no encoded message.
    #[error("a section of the batch is not an encoded message")]
    Section(#[from] serde_amqp::Error),
}

/// Encodes a complete message.
pub(super) fn encode(message: &Message) -> Result<Vec<u8>, serde_amqp::Error> {
    serde_amqp::to_vec(&Serializable(message))
}

/// Decodes a complete message.
pub(super) fn decode(bytes: &[u8]) -> Result<Message, serde_amqp::Error> {
    serde_amqp::from_slice::<Deserializable<Message>>(bytes).map(|decoded| decoded.0)
}

/// Returns the events of one transfer, with their partition key: the sections of a batch, or the message
/// itself.
///
/// Of the message around a batch, only the partition key is used. It holds for all events of the batch. If it
/// is missing, the key of the first event is used.
pub(super) fn events(
    format: Option<MessageFormat>,
    message: Message,
) -> Result<(Option<String>, Vec<Message>), BatchError> {
    let key = partition_key(&message);
    if format != Some(BATCH_FORMAT) {
        return Ok((key, vec![message]));
    }
    let Body::Data(sections) = message.body else {
        return Err(BatchError::NoDataSections);
    };
    let mut events: Vec<Message> =
        sections.into_iter().map(|section| decode(&section.0)).collect::<Result<_, _>>()?;
    let key = key.or_else(|| events.first().and_then(partition_key));
    if let Some(key) = &key {
        for event in &mut events {
            set_partition_key(event, key);
        }
    }
    Ok((key, events))
}

/// The partition key that the sender set.
pub(super) fn partition_key(message: &Message) -> Option<String> {
    let annotations = message.message_annotations.as_ref()?;
    match annotations.get(&PARTITION_KEY as &dyn AnnotationKey)? {
        Value::String(key) => Some(key.clone()),
        _ => None,
    }
}

/// Sets the partition key: readers see the key of a batch on each of its events.
fn set_partition_key(message: &mut Message, key: &str) {
    let annotations = message.message_annotations.get_or_insert_default();
    annotations.insert(OwnedKey::from(PARTITION_KEY), Value::String(key.to_owned()));
}

/// Sets the broker's annotations. They replace annotations of the sender with the same names.
pub(super) fn stamp(message: &mut Message, stamp: Stamp) {
    let annotations = message.message_annotations.get_or_insert_default();
    // The types must be exactly long, string and timestamp: the Rust client treats a value of another type as
    // absent.
    annotations.insert(OwnedKey::from(SEQUENCE_NUMBER), Value::Long(stamp.sequence_number));
    annotations.insert(OwnedKey::from(OFFSET), Value::String(stamp.offset.to_string()));
    annotations.insert(
        OwnedKey::from(ENQUEUED_TIME),
        Value::Timestamp(Timestamp::from_milliseconds(stamp.enqueued_at)),
    );
    // Delivery annotations are meant for the broker only, not for the reader.
    message.delivery_annotations = None;
}

/// The delivery for [`Payload::Undecodable`]: an AMQP value section that ends in the middle of its value.
pub(super) fn undecodable() -> Sendable<AmqpValue<Truncated>> {
    Sendable::from(AmqpValue(Truncated))
}

/// Serializes as the descriptor of a described value, without the value.
#[derive(Debug, Clone)]
pub(super) struct Truncated;

impl Serialize for Truncated {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut described = serializer.serialize_struct(DESCRIBED_BASIC, 1)?;
        described.serialize_field(DESCRIPTOR, &Descriptor::Code(0))?;
        described.end()
    }
}

//! An event before it is appended to a partition's log, in the few AMQP types that IoT Hub uses.

use std::collections::BTreeMap;

use fe2o3_amqp_types::{
    messaging::{
        Annotations, ApplicationProperties, Batch, Body, Data, MessageAnnotations, MessageId, Properties,
        annotations::OwnedKey,
    },
    primitives::{Binary, SimpleValue, Symbol, Timestamp, Value as AmqpValue},
};

use super::wire::{self, Message};

/// An event to append. The broker adds its position and time to it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Event {
    /// The payload: one AMQP data section.
    pub body: Vec<u8>,
    /// Application properties, e.g. `opType` and `deviceId` of a twin change.
    pub application_properties: BTreeMap<String, Value>,
    /// Message annotations, e.g. `iothub-message-source`. The annotations that the broker sets (`x-opt-…`)
    /// replace those with the same name.
    pub annotations: BTreeMap<String, Value>,
    /// Media type of the body.
    pub content_type: Option<String>,
    /// Encoding of the body, e.g. `utf-8`.
    pub content_encoding: Option<String>,
    /// Correlation id, sent as a string.
    pub correlation_id: Option<String>,
    /// User id: opaque bytes that need not be text.
    pub user_id: Option<Vec<u8>>,
}

/// A value of an annotation or an application property.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// AMQP string.
    Text(String),
    /// AMQP timestamp: milliseconds since the Unix epoch.
    Timestamp(i64),
    /// AMQP long.
    Long(i64),
    /// AMQP int.
    Integer(i32),
    /// AMQP double.
    Double(f64),
    /// AMQP boolean.
    Boolean(bool),
    /// AMQP binary.
    Binary(Vec<u8>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Long(number)
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Boolean(truth)
    }
}

/// `AmqpValue` and `SimpleValue` have the same variants for all of our values.
macro_rules! from_value {
    ($($amqp:ident),*) => {$(
        impl From<Value> for $amqp {
            fn from(value: Value) -> Self {
                match value {
                    Value::Text(text) => Self::String(text),
                    Value::Timestamp(milliseconds) => Self::Timestamp(Timestamp::from_milliseconds(milliseconds)),
                    Value::Long(number) => Self::Long(number),
                    Value::Integer(number) => Self::Int(number),
                    Value::Double(number) => Self::Double(number.into()),
                    Value::Boolean(truth) => Self::Bool(truth),
                    Value::Binary(bytes) => Self::Binary(Binary::from(bytes)),
                }
            }
        }
    )*};
}

from_value!(AmqpValue, SimpleValue);

impl Event {
    /// Converts the event to an AMQP message. A `partition_key` that is not empty becomes an annotation that
    /// readers see.
    pub(super) fn into_message(self, partition_key: &str) -> Message {
        let mut annotations: Annotations =
            self.annotations.into_iter().map(|(name, value)| (OwnedKey::from(name), value.into())).collect();
        if !partition_key.is_empty() {
            annotations
                .insert(OwnedKey::from(wire::PARTITION_KEY), AmqpValue::String(partition_key.to_owned()));
        }
        let properties = Properties {
            user_id: self.user_id.map(Binary::from),
            correlation_id: self.correlation_id.map(MessageId::String),
            content_type: self.content_type.map(Symbol::from),
            content_encoding: self.content_encoding.map(Symbol::from),
            ..Properties::default()
        };
        let application_properties = (!self.application_properties.is_empty()).then(|| {
            ApplicationProperties(
                self.application_properties.into_iter().map(|(name, value)| (name, value.into())).collect(),
            )
        });
        Message {
            header: None,
            delivery_annotations: None,
            message_annotations: Some(MessageAnnotations(annotations)),
            properties: (properties != Properties::default()).then_some(properties),
            application_properties,
            body: Body::Data(Batch::new(vec![Data(Binary::from(self.body))])),
            footer: None,
        }
    }
}

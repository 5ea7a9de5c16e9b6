//! One event on its way into a partition's log, in the few AMQP types that IoT Hub uses.

use std::collections::BTreeMap;

use fe2o3_amqp_types::{
    messaging::{
        Annotations, ApplicationProperties, Batch, Body, Data, MessageAnnotations, MessageId, Properties,
        annotations::OwnedKey,
    },
    primitives::{Binary, SimpleValue, Symbol, Timestamp, Value as AmqpValue},
};

use super::wire::{self, Message};

/// One event as it lies in a partition's log, before the broker stamps it with its position.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Event {
    /// The payload: one AMQP data section.
    pub body: Vec<u8>,
    /// Application properties, e.g. `opType` and `deviceId` of a twin change.
    pub application_properties: BTreeMap<String, Value>,
    /// Message annotations, e.g. `iothub-message-source`. The broker's own (`x-opt-…`) win over equal names.
    pub annotations: BTreeMap<String, Value>,
    /// Media type of the body.
    pub content_type: Option<String>,
    /// Encoding of the body, e.g. `utf-8`.
    pub content_encoding: Option<String>,
    /// Correlation id, sent as a string.
    pub correlation_id: Option<String>,
    /// User id: opaque bytes, not necessarily text.
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

/// Both of AMQP's types for values have the same variants for ours.
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
    /// The AMQP message of this event; `partition_key` becomes the annotation that readers see.
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

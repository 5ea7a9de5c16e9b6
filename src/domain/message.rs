//! A message received from Event Hubs, without SDK types.

mod properties;

use std::borrow::Cow;

use bytes::Bytes;

use super::{id::Position, ticks::Ticks};

pub use self::properties::Properties;

/// Approximate memory of a message in flight beside body and properties, in bytes: its slot, the decoded event, and the
/// data needed to complete it.
const BESIDES: usize = 512;

/// One received message with everything that `decode`, or a person who reads a dead letter, may need.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Its position in its partition.
    pub position: Position,
    /// When Event Hubs stored it (`x-opt-enqueued-time`).
    pub enqueued: Option<Ticks>,
    /// The bytes of the body. Several data sections are joined; a body of another kind is empty.
    pub body: Bytes,
    /// AMQP application properties: IoT Hub writes `hubName`, `deviceId`, `opType`, … here.
    pub application_properties: Properties,
    /// AMQP message annotations: `iothub-*`.
    pub annotations: Properties,
}

impl Message {
    /// Approximate memory of this message, in bytes, as in-flight limits count it.
    pub fn weight(&self) -> usize {
        self.body.len() + self.application_properties.weight() + self.annotations.weight() + BESIDES
    }
}

/// The value of a property or annotation. Types that twin events never use are kept in printed form.
#[derive(Debug, Clone, PartialEq)]
pub enum Property<'a> {
    /// A string or symbol.
    Text(Cow<'a, str>),
    /// A whole number of any width.
    Integer(i64),
    /// A floating-point number.
    Number(f64),
    /// A boolean.
    Boolean(bool),
    /// A point in time.
    Time(Ticks),
    /// Bytes that may not be text: `user-id` has been seen with trailing garbage.
    Binary(Cow<'a, [u8]>),
    /// Any other AMQP type, printed.
    Other(Cow<'a, str>),
}

impl<'a> Property<'a> {
    /// The value as text. Some clients deliver text as bytes or numbers as strings; both are tolerated.
    pub fn as_text(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(Cow::Borrowed(bytes)) => std::str::from_utf8(bytes).ok().map(Into::into),
            Self::Binary(Cow::Owned(bytes)) => String::from_utf8(bytes).ok().map(Into::into),
            Self::Integer(number) => Some(number.to_string().into()),
            Self::Number(_) | Self::Boolean(_) | Self::Time(_) | Self::Other(_) => None,
        }
    }

    /// The value as a point in time: an AMQP timestamp, Unix milliseconds, or ISO 8601 text.
    pub fn as_time(self) -> Option<Ticks> {
        match self {
            Self::Time(time) => Some(time),
            Self::Integer(milliseconds) => Ticks::from_unix_milliseconds(milliseconds),
            Self::Text(text) => time_of(&text),
            Self::Binary(bytes) => std::str::from_utf8(&bytes).ok().and_then(time_of),
            Self::Number(_) | Self::Boolean(_) | Self::Other(_) => None,
        }
    }

    /// The same value, owned.
    pub fn into_owned(self) -> Property<'static> {
        match self {
            Self::Text(text) => Property::Text(text.into_owned().into()),
            Self::Integer(number) => Property::Integer(number),
            Self::Number(number) => Property::Number(number),
            Self::Boolean(value) => Property::Boolean(value),
            Self::Time(time) => Property::Time(time),
            Self::Binary(bytes) => Property::Binary(bytes.into_owned().into()),
            Self::Other(text) => Property::Other(text.into_owned().into()),
        }
    }
}

fn time_of(text: &str) -> Option<Ticks> {
    Ticks::parse(text).or_else(|| text.trim().parse().ok().and_then(Ticks::from_unix_milliseconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::SequenceNumber;

    #[test]
    fn the_weight_is_that_of_body_and_properties_beside_the_rest() {
        let of = |body: &'static str, properties: &[(&str, &str)], annotations: &[(&str, &str)]| {
            let packed = |pairs: &[(&str, &str)]| {
                pairs
                    .iter()
                    .map(|(name, text)| (*name, Property::Text((*text).into())))
                    .collect::<Properties>()
            };
            let message = Message {
                position: Position { sequence_number: SequenceNumber(1), offset: Default::default() },
                enqueued: None,
                body: body.into(),
                application_properties: packed(properties),
                annotations: packed(annotations),
            };
            message.weight()
        };
        assert_eq!([of("", &[], &[]), of("12345", &[], &[])], [BESIDES, BESIDES + 5]);
        let one: &[(&str, &str)] = &[("name", "value")];
        let properties = of("", one, &[]) - BESIDES;
        assert!((9..=16).contains(&properties), "{properties}");
        assert_eq!(
            [of("", &[], one), of("1", one, one)],
            [BESIDES + properties, BESIDES + 1 + 2 * properties]
        );
    }
}

//! The JSON form of a dead letter: it contains everything needed to assess the event and to replay it exactly.
//!
//! Types of properties are kept, because `decode` treats a string and a number with the same text differently. A body
//! is kept as text if it is UTF-8, so that people can read it, and as base64 otherwise.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::{
    domain::{
        id::{PartitionId, Position, SequenceNumber},
        message::{Message, Properties, Property},
        ticks::Ticks,
    },
    ports::StoredLetter,
};

/// Whether both are dead letters of the same event. The time and the reason of storing do not matter.
///
/// Compared in stored form: NaN is not equal to itself, but its dead letter is the same.
pub(super) fn same_event(left: &StoredLetter, right: &StoredLetter) -> bool {
    let event = |letter: &StoredLetter| {
        let file = LetterFile {
            stored_at: None,
            reason: String::new(),
            detail: String::new(),
            ..LetterFile::from(letter)
        };
        serde_json::to_vec(&file).ok()
    };
    event(left).is_some_and(|event_of_left| Some(event_of_left) == event(right))
}

/// The stored form.
pub(super) fn to_json(letter: &StoredLetter) -> serde_json::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(&LetterFile::from(letter))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The dead letter, or a text that says what is wrong with it.
pub(super) fn from_json(bytes: &[u8]) -> Result<StoredLetter, String> {
    let file: LetterFile = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    file.letter()
}

/// The dead letter in its stored form, for scripts.
///
/// # Errors
/// No dead letter causes an error.
pub fn to_value(letter: &StoredLetter) -> serde_json::Result<serde_json::Value> {
    serde_json::to_value(LetterFile::from(letter))
}

/// Content of a file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LetterFile {
    format: Format,
    stored_at: Option<Moment>,
    reason: String,
    detail: String,
    stream: String,
    partition: String,
    sequence_number: i64,
    offset: String,
    enqueued: Option<Moment>,
    application_properties: BTreeMap<String, StoredProperty>,
    annotations: BTreeMap<String, StoredProperty>,
    body: Bytes,
}

#[derive(Debug, Serialize, Deserialize)]
enum Format {
    #[serde(rename = "twinsync-dead-letter-1")]
    One,
}

/// `{"text": "…"}` or `{"base64": "…"}`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Bytes {
    Text(String),
    Base64(String),
}

/// Calendar text if the time has one, otherwise its ticks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Moment {
    Text(Ticks),
    Ticks(i64),
}

/// A property with its type as the key, e.g. `{"integer": 7}`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredProperty {
    Text(String),
    Integer(i64),
    Number(f64),
    /// The bits of a number that cannot be written in JSON.
    NumberBits(u64),
    Boolean(bool),
    Time(Moment),
    Binary(String),
    Other(String),
}

impl From<&StoredLetter> for LetterFile {
    fn from(letter: &StoredLetter) -> Self {
        let message = &letter.message;
        let stored = |properties: &Properties| {
            let pairs = properties.iter();
            pairs.map(|(name, value)| (name.to_owned(), StoredProperty::from(value))).collect()
        };
        Self {
            format: Format::One,
            stored_at: letter.stored_at.map(Moment::from),
            reason: letter.reason.clone(),
            detail: letter.detail.clone(),
            stream: letter.partition.stream.clone(),
            partition: letter.partition.partition.clone(),
            sequence_number: message.position.sequence_number.0,
            offset: message.position.offset.to_string(),
            enqueued: message.enqueued.map(Moment::from),
            application_properties: stored(&message.application_properties),
            annotations: stored(&message.annotations),
            body: match std::str::from_utf8(&message.body) {
                Ok(text) => Bytes::Text(text.to_owned()),
                Err(_) => Bytes::Base64(STANDARD.encode(&message.body)),
            },
        }
    }
}

impl LetterFile {
    fn letter(self) -> Result<StoredLetter, String> {
        let properties = |stored: BTreeMap<String, StoredProperty>| {
            let pairs = stored.into_iter();
            pairs.map(|(name, value)| Ok((name, value.property()?))).collect::<Result<Properties, String>>()
        };
        Ok(StoredLetter {
            stored_at: self.stored_at.map(Moment::ticks),
            partition: PartitionId { stream: self.stream, partition: self.partition },
            reason: self.reason,
            detail: self.detail,
            message: Message {
                position: Position {
                    sequence_number: SequenceNumber(self.sequence_number),
                    offset: self.offset.into(),
                },
                enqueued: self.enqueued.map(Moment::ticks),
                body: match self.body {
                    Bytes::Text(text) => text.into_bytes().into(),
                    Bytes::Base64(text) => decode(&text)?.into(),
                },
                application_properties: properties(self.application_properties)?,
                annotations: properties(self.annotations)?,
            },
        })
    }
}

fn decode(text: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(text).map_err(|error| format!("bad base64: {error}"))
}

impl From<Ticks> for Moment {
    fn from(ticks: Ticks) -> Self {
        match Ticks::parse(&ticks.to_string()) == Some(ticks) {
            true => Self::Text(ticks),
            false => Self::Ticks(ticks.get()),
        }
    }
}

impl Moment {
    fn ticks(self) -> Ticks {
        match self {
            Self::Text(ticks) => ticks,
            Self::Ticks(ticks) => Ticks::new(ticks),
        }
    }
}

impl From<Property<'_>> for StoredProperty {
    fn from(property: Property<'_>) -> Self {
        match property {
            Property::Text(text) => Self::Text(text.into_owned()),
            Property::Integer(number) => Self::Integer(number),
            Property::Number(number) if number.is_finite() => Self::Number(number),
            Property::Number(number) => Self::NumberBits(number.to_bits()),
            Property::Boolean(value) => Self::Boolean(value),
            Property::Time(ticks) => Self::Time(Moment::from(ticks)),
            Property::Binary(bytes) => Self::Binary(STANDARD.encode(bytes)),
            Property::Other(text) => Self::Other(text.into_owned()),
        }
    }
}

impl StoredProperty {
    fn property(self) -> Result<Property<'static>, String> {
        Ok(match self {
            Self::Text(text) => Property::Text(text.into()),
            Self::Integer(number) => Property::Integer(number),
            Self::Number(number) => Property::Number(number),
            Self::NumberBits(bits) => Property::Number(f64::from_bits(bits)),
            Self::Boolean(value) => Property::Boolean(value),
            Self::Time(moment) => Property::Time(moment.ticks()),
            Self::Binary(text) => Property::Binary(decode(&text)?.into()),
            Self::Other(text) => Property::Other(text.into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn property() -> impl Strategy<Value = Property<'static>> {
        prop_oneof![
            any::<String>().prop_map(|text| Property::Text(text.into())),
            any::<i64>().prop_map(Property::Integer),
            any::<f64>().prop_map(Property::Number),
            any::<bool>().prop_map(Property::Boolean),
            any::<i64>().prop_map(|ticks| Property::Time(Ticks::new(ticks))),
            any::<Vec<u8>>().prop_map(|bytes| Property::Binary(bytes.into())),
            any::<String>().prop_map(|text| Property::Other(text.into())),
        ]
    }

    fn properties() -> impl Strategy<Value = Properties> {
        proptest::collection::btree_map(any::<String>(), property(), 0..5).prop_map(Properties::from_iter)
    }

    fn letter() -> impl Strategy<Value = StoredLetter> {
        let body = prop_oneof![any::<Vec<u8>>(), any::<String>().prop_map(String::into_bytes)];
        let message = (any::<(i64, String, Option<i64>)>(), body, properties(), properties()).prop_map(
            |((number, offset, enqueued), body, application_properties, annotations)| Message {
                position: Position { sequence_number: SequenceNumber(number), offset: offset.into() },
                enqueued: enqueued.map(Ticks::new),
                body: body.into(),
                application_properties,
                annotations,
            },
        );
        (any::<(Option<i64>, String, String, String, String)>(), message).prop_map(
            |((stored_at, stream, partition, reason, detail), message)| StoredLetter {
                stored_at: stored_at.map(Ticks::new),
                partition: PartitionId { stream, partition },
                reason,
                detail,
                message,
            },
        )
    }

    proptest! {
        #[test]
        fn every_dead_letter_reads_back_unchanged(letter in letter()) {
            let read = from_json(&to_json(&letter).unwrap()).unwrap();
            // NaN is not equal to itself, so the printed forms are compared.
            prop_assert_eq!(format!("{read:?}"), format!("{letter:?}"));
            prop_assert!(same_event(&read, &letter));
        }

        #[test]
        fn no_bytes_panic(bytes in any::<Vec<u8>>()) {
            let _ = from_json(&bytes);
        }
    }
}

//! Properties by name, for many messages with the same few names.
//!
//! Many messages wait in memory at once, and each has a dozen properties that are rarely read. So they are packed into
//! one memory block, in the order of their names:
//!
//! ```text
//! name                             value
//! place in KNOWN, one byte         kind, one byte, then: nothing · 8 bytes · length, bytes
//! or UNKNOWN, length, bytes
//! ```
//!
//! Lengths have seven bits in each byte, the low ones first; the highest bit says that more follow.

use std::{borrow::Cow, cmp::Ordering, fmt};

use super::Property;
use crate::domain::ticks::Ticks;

/// The names that IoT Hub gives to properties and annotations of twin events.
const KNOWN: [&str; 18] = [
    "deviceId",
    "dt-dataschema",
    "dt-subject",
    "hubName",
    "iothub-app-iothub-creation-time-utc",
    "iothub-connection-auth-generation-id",
    "iothub-connection-auth-method",
    "iothub-connection-device-id",
    "iothub-connection-module-id",
    "iothub-enqueuedtime",
    "iothub-message-schema",
    "iothub-message-source",
    "iothub-sequencenumber",
    "moduleId",
    "opType",
    "operationTimestamp",
    "sequence-number",
    "user-id",
];

/// Precedes a name that is not in [`KNOWN`].
const UNKNOWN: u8 = u8::MAX;

/// The byte before a value.
mod kind {
    pub(super) const TEXT: u8 = 0;
    pub(super) const INTEGER: u8 = 1;
    pub(super) const NUMBER: u8 = 2;
    pub(super) const NO: u8 = 3;
    pub(super) const YES: u8 = 4;
    pub(super) const TIME: u8 = 5;
    pub(super) const BINARY: u8 = 6;
    pub(super) const OTHER: u8 = 7;
}

/// Named values, each name once, in the order of names.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Properties(Box<[u8]>);

impl Properties {
    /// The value of this name, if there is one.
    pub fn get(&self, name: &str) -> Option<Property<'_>> {
        let mut entries = Entries(&self.0);
        let wanted = Name::of(name);
        while let Some(found) = entries.name() {
            if found == wanted {
                return entries.value();
            }
            entries.skip_value()?;
        }
        None
    }

    /// Sets the value of a name; returns the previous value. Packs all properties again.
    pub fn insert(&mut self, name: impl Into<String>, value: Property<'_>) -> Option<Property<'static>> {
        let name = name.into();
        let before = self.get(&name).map(Property::into_owned);
        *self = self.iter().chain([(name.as_str(), value)]).collect();
        before
    }

    /// Removes a name and returns its value. Packs all others again.
    pub fn remove(&mut self, name: &str) -> Option<Property<'static>> {
        let value = self.get(name)?.into_owned();
        *self = self.iter().filter(|(other, _)| *other != name).collect();
        Some(value)
    }

    /// Removes all properties.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Names and values, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Property<'_>)> {
        let mut entries = Entries(&self.0);
        std::iter::from_fn(move || {
            let name = entries.name()?;
            Some((name.text(), entries.value()?))
        })
    }

    /// The size of the properties, in bytes.
    pub fn weight(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.iter()).finish()
    }
}

/// If a name occurs more than once, the last value counts.
impl<'a, N: AsRef<str>> FromIterator<(N, Property<'a>)> for Properties {
    fn from_iter<I: IntoIterator<Item = (N, Property<'a>)>>(iterator: I) -> Self {
        let unpacked = |(text, value): (N, _)| Unpacked { place: place(text.as_ref()), text, value };
        let mut entries: Vec<_> = iterator.into_iter().map(unpacked).collect();
        entries.sort_by(|one, other| one.name().order(other.name())); // stable: the last stays last
        let mut packed = Vec::with_capacity(entries.iter().map(Unpacked::size).sum());
        let mut entries = entries.iter().peekable();
        while let Some(entry) = entries.next() {
            if entries.peek().is_none_or(|next| next.name() != entry.name()) {
                pack_name(&mut packed, entry.name());
                pack_value(&mut packed, &entry.value);
            }
        }
        Self(packed.into_boxed_slice())
    }
}

/// A property to be packed.
struct Unpacked<'a, N> {
    /// The place of its name in [`KNOWN`].
    place: Option<u8>,
    text: N,
    value: Property<'a>,
}

impl<N: AsRef<str>> Unpacked<'_, N> {
    fn name(&self) -> Name<'_> {
        self.place.map_or_else(|| Name::Other(self.text.as_ref()), Name::Known)
    }

    /// Its size when packed, in bytes. If this were an estimate, each message would cost another allocation.
    fn size(&self) -> usize {
        let bytes = |length: usize| length_bytes(length) + length;
        let name = match self.name() {
            Name::Known(_) => 0,
            Name::Other(name) => bytes(name.len()),
        };
        let value = match &self.value {
            Property::Text(text) | Property::Other(text) => bytes(text.len()),
            Property::Binary(binary) => bytes(binary.len()),
            Property::Integer(_) | Property::Number(_) | Property::Time(_) => size_of::<u64>(),
            Property::Boolean(_) => 0,
        };
        1 + name + 1 + value
    }
}

impl<'a, N: AsRef<str>, const COUNT: usize> From<[(N, Property<'a>); COUNT]> for Properties {
    fn from(properties: [(N, Property<'a>); COUNT]) -> Self {
        properties.into_iter().collect()
    }
}

/// The number of bytes that a packed length takes.
fn length_bytes(length: usize) -> usize {
    let bits = usize::BITS - length.leading_zeros();
    bits.div_ceil(7).max(1) as usize
}

fn pack_name(packed: &mut Vec<u8>, name: Name<'_>) {
    match name {
        Name::Known(place) => packed.push(place),
        Name::Other(name) => {
            packed.push(UNKNOWN);
            pack_bytes(packed, name.as_bytes());
        }
    }
}

fn pack_value(packed: &mut Vec<u8>, value: &Property<'_>) {
    match value {
        Property::Text(text) => {
            packed.push(kind::TEXT);
            pack_bytes(packed, text.as_bytes());
        }
        Property::Integer(number) => {
            packed.push(kind::INTEGER);
            packed.extend_from_slice(&number.to_le_bytes());
        }
        Property::Number(number) => {
            packed.push(kind::NUMBER);
            packed.extend_from_slice(&number.to_le_bytes());
        }
        Property::Boolean(false) => packed.push(kind::NO),
        Property::Boolean(true) => packed.push(kind::YES),
        Property::Time(time) => {
            packed.push(kind::TIME);
            packed.extend_from_slice(&time.get().to_le_bytes());
        }
        Property::Binary(bytes) => {
            packed.push(kind::BINARY);
            pack_bytes(packed, bytes);
        }
        Property::Other(text) => {
            packed.push(kind::OTHER);
            pack_bytes(packed, text.as_bytes());
        }
    }
}

fn pack_bytes(packed: &mut Vec<u8>, bytes: &[u8]) {
    let mut length = bytes.len();
    while length >= 0x80 {
        packed.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    packed.push(length as u8);
    packed.extend_from_slice(bytes);
}

/// The place of a name in [`KNOWN`]. Most names differ in length, so hardly any text is compared: this is faster than a
/// binary search.
fn place(name: &str) -> Option<u8> {
    KNOWN.iter().position(|known| *known == name).and_then(|place| u8::try_from(place).ok())
}

/// A name as it is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name<'a> {
    Known(u8),
    Other(&'a str),
}

impl<'a> Name<'a> {
    fn of(name: &'a str) -> Self {
        place(name).map_or(Self::Other(name), Self::Known)
    }

    fn text(self) -> &'a str {
        match self {
            Self::Known(place) => KNOWN.get(usize::from(place)).copied().unwrap_or_default(),
            Self::Other(name) => name,
        }
    }

    /// The order of the texts.
    fn order(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Known(one), Self::Known(other)) => one.cmp(&other),
            (one, other) => one.text().cmp(other.text()),
        }
    }
}

/// The remaining packed entries. Only this module packs entries, so none is ever truncated; if one were, reading would
/// end.
struct Entries<'a>(&'a [u8]);

impl<'a> Entries<'a> {
    fn name(&mut self) -> Option<Name<'a>> {
        match self.byte()? {
            UNKNOWN => self.text().map(Name::Other),
            place => Some(Name::Known(place)),
        }
    }

    fn value(&mut self) -> Option<Property<'a>> {
        Some(match self.byte()? {
            kind::TEXT => Property::Text(self.text()?.into()),
            kind::INTEGER => Property::Integer(i64::from_le_bytes(self.eight()?)),
            kind::NUMBER => Property::Number(f64::from_le_bytes(self.eight()?)),
            kind::NO => Property::Boolean(false),
            kind::YES => Property::Boolean(true),
            kind::TIME => Property::Time(Ticks::new(i64::from_le_bytes(self.eight()?))),
            kind::BINARY => Property::Binary(self.bytes()?.into()),
            kind::OTHER => Property::Other(Cow::Borrowed(self.text()?)),
            _ => return None,
        })
    }

    fn skip_value(&mut self) -> Option<()> {
        match self.byte()? {
            kind::NO | kind::YES => {}
            kind::INTEGER | kind::NUMBER | kind::TIME => drop(self.eight()?),
            _ => drop(self.bytes()?),
        }
        Some(())
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn eight(&mut self) -> Option<[u8; 8]> {
        let (eight, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*eight)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let (mut length, mut shift) = (0_usize, 0);
        loop {
            let byte = self.byte()?;
            length |= usize::from(byte & 0x7f).checked_shl(shift)?;
            if byte < 0x80 {
                break;
            }
            shift += 7;
        }
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_names_are_in_order_and_take_one_byte() {
        assert!(KNOWN.is_sorted());
        for known in KNOWN {
            let properties = Properties::from([(known, Property::Boolean(true))]);
            assert_eq!(properties.weight(), 2, "{known}");
            assert_eq!(properties.get(known), Some(Property::Boolean(true)), "{known}");
        }
    }

    #[test]
    fn what_waits_in_memory_takes_little_more_than_its_texts() {
        let text = "x".repeat(30);
        let properties: Properties =
            KNOWN.iter().map(|name| (*name, Property::Text(text.as_str().into()))).collect();
        assert_eq!(properties.weight(), KNOWN.len() * (30 + 3));
    }

    #[test]
    fn the_size_is_known_before_packing() {
        for (length, bytes) in
            [(0, 1), (1, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3), (usize::MAX, 10)]
        {
            assert_eq!(length_bytes(length), bytes, "{length}");
        }
        for length in [0, 127, 128, 16_384] {
            let text = "x".repeat(length);
            for value in [
                Property::Text(text.as_str().into()),
                Property::Other(text.as_str().into()),
                Property::Binary(text.as_bytes().into()),
                Property::Integer(-1),
                Property::Number(0.5),
                Property::Time(Ticks::new(1)),
                Property::Boolean(true),
            ] {
                for name in ["opType", text.as_str()] {
                    let entry = Unpacked { place: place(name), text: name, value: value.clone() };
                    let properties = Properties::from([(name, value.clone())]);
                    assert_eq!(
                        entry.size(),
                        properties.weight(),
                        "{value:?} with a name of {} bytes",
                        name.len()
                    );
                }
            }
        }
    }

    #[test]
    fn they_are_shown_by_name() {
        let properties =
            Properties::from([("hubName", Property::Text("contoso".into())), ("x", Property::Integer(7))]);
        let shown = format!("{properties:?}");
        assert!(["hubName", "contoso", "x", "7"].iter().all(|part| shown.contains(part)), "{shown}");
    }

    fn value() -> impl Strategy<Value = Property<'static>> {
        prop_oneof![
            ".{0,300}".prop_map(|text| Property::Text(text.into())),
            any::<i64>().prop_map(Property::Integer),
            any::<f64>().prop_map(Property::Number),
            any::<bool>().prop_map(Property::Boolean),
            any::<i64>().prop_map(|time| Property::Time(Ticks::new(time))),
            prop::collection::vec(any::<u8>(), 0..20_000).prop_map(|bytes| Property::Binary(bytes.into())),
            ".{0,9}".prop_map(|text| Property::Other(text.into())),
        ]
    }

    proptest! {
        #[test]
        fn it_behaves_as_a_map_does(script in prop::collection::vec(("[a-e]{1,2}|deviceId|opType", value(), any::<bool>()), 0..40)) {
            let (mut properties, mut map) = (Properties::default(), BTreeMap::new());
            for (name, value, keep) in script {
                if keep {
                    prop_assert_eq!(properties.insert(name.clone(), value.clone()), map.insert(name, value));
                } else {
                    prop_assert_eq!(properties.remove(&name), map.remove(&name));
                }
            }
            let all: Vec<_> = properties.iter().collect();
            prop_assert_eq!(&all, &map.iter().map(|(name, value)| (name.as_str(), value.clone())).collect::<Vec<_>>());
            for (name, value) in &map {
                prop_assert_eq!(properties.get(name), Some(value.clone()));
            }
            prop_assert_eq!(properties.get("nobody"), None);
            prop_assert_eq!(&properties, &all.into_iter().rev().collect(), "the order of insertion must not matter");
        }

        #[test]
        fn the_last_of_one_name_counts(values in prop::collection::vec(any::<i64>(), 1..5)) {
            let properties: Properties = values.iter().map(|value| ("opType", Property::Integer(*value))).collect();
            prop_assert_eq!(properties.get("opType"), values.last().map(|value| Property::Integer(*value)));
            prop_assert_eq!(properties.iter().count(), 1);
        }
    }
}

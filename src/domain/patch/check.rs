//! Checks the body of a change without building anything from it.
//!
//! Everything in it is read in the same way as when it is applied. So a text with half a surrogate pair or a number out
//! of range is found now, while the event can still become a dead letter.

use std::{borrow::Cow, fmt};

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::super::twin::TwinVersion;
use super::{Counted, merge};

/// The contents of a body.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) is_object: bool,
    pub(super) wrong_section: bool,
    pub(super) version: Option<TwinVersion>,
    pub(super) ids: Map<String, Value>,
    pub(super) counted: Counted,
}

/// A key, copied only if it is written with escapes.
pub(super) struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// The visitor methods for values that are not objects: the result is always `$value`; arrays are read to their end.
macro_rules! anything_else_is {
    ($value:expr, but $($what:ident),*) => {
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("any JSON")
        }

        fn visit_bool<E: de::Error>(self, _: bool) -> Result<Self::Value, E> {
            Ok($value)
        }

        fn visit_f64<E: de::Error>(self, _: f64) -> Result<Self::Value, E> {
            Ok($value)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            while items.next_element_seed(Anything)?.is_some() {}
            Ok($value)
        }

        $(anything_else_is!(@ $what $value);)*
    };
    (@ integers $value:expr) => {
        fn visit_i64<E: de::Error>(self, _: i64) -> Result<Self::Value, E> {
            Ok($value)
        }

        fn visit_u64<E: de::Error>(self, _: u64) -> Result<Self::Value, E> {
            Ok($value)
        }
    };
    (@ text $value:expr) => {
        fn visit_str<E: de::Error>(self, _: &str) -> Result<Self::Value, E> {
            Ok($value)
        }
    };
    (@ null $value:expr) => {
        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok($value)
        }
    };
    (@ objects $value:expr) => {
        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            while entries.next_key_seed(Anything)?.is_some() {
                entries.next_value_seed(Anything)?;
            }
            Ok($value)
        }
    };
}

/// Implements reading of each of these types from any value.
macro_rules! read_as_it_comes {
    ($($seed:ident),*) => {$(
        impl<'de> DeserializeSeed<'de> for $seed {
            type Value = <Self as Visitor<'de>>::Value;

            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
                deserializer.deserialize_any(self)
            }
        }
    )*};
}

read_as_it_comes!(Anything, Body, Properties, Section, Whole, Version, Id);

/// Any value.
struct Anything;

impl<'de> Visitor<'de> for Anything {
    type Value = ();

    anything_else_is!((), but integers, text, null, objects);
}

/// The body of a change.
pub(super) struct Body;

impl<'de> Visitor<'de> for Body {
    type Value = Found;

    anything_else_is!(Found::default(), but integers, text, null);

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Found, A::Error> {
        let mut found = Found { is_object: true, ..Found::default() };
        let (mut tags, mut sections) = (Kind::Nothing, Sections::default());
        while let Some(name) = entries.next_key_seed(Key)? {
            match name.as_ref() {
                "version" => found.version = entries.next_value_seed(Version)?,
                "tags" => tags = entries.next_value_seed(Section)?.kind,
                "properties" => sections = entries.next_value_seed(Properties)?,
                "deviceId" | "moduleId" => {
                    if let Some(id) = entries.next_value_seed(Id)? {
                        found.ids.insert(name.into_owned(), id);
                    }
                }
                _ => entries.next_value_seed(Anything)?,
            }
        }
        let Sections { is_wrong, desired, reported } = sections;
        found.wrong_section = is_wrong || [tags, desired.kind, reported.kind].contains(&Kind::Wrong);
        found.counted = Counted { desired: desired.version, reported: reported.version };
        Ok(found)
    }
}

/// The kind of value in the place of a section.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Nothing,
    Object,
    Wrong,
}

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    kind: Kind,
    version: Option<i64>,
}

#[derive(Debug, Default)]
struct Sections {
    is_wrong: bool,
    desired: Seen,
    reported: Seen,
}

/// The object around desired and reported properties.
struct Properties;

impl<'de> Visitor<'de> for Properties {
    type Value = Sections;

    anything_else_is!(Sections { is_wrong: true, ..Sections::default() }, but integers, text);

    fn visit_unit<E: de::Error>(self) -> Result<Sections, E> {
        Ok(Sections::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Sections, A::Error> {
        let mut sections = Sections::default();
        while let Some(name) = entries.next_key_seed(Key)? {
            match name.as_ref() {
                "desired" => sections.desired = entries.next_value_seed(Section)?,
                "reported" => sections.reported = entries.next_value_seed(Section)?,
                _ => entries.next_value_seed(Anything)?,
            }
        }
        Ok(sections)
    }
}

/// A section, or another value in its place.
struct Section;

impl<'de> Visitor<'de> for Section {
    type Value = Seen;

    anything_else_is!(Seen { kind: Kind::Wrong, version: None }, but integers, text);

    fn visit_unit<E: de::Error>(self) -> Result<Seen, E> {
        Ok(Seen::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Seen, A::Error> {
        let mut version = None;
        while let Some(name) = entries.next_key_seed(Key)? {
            match name.as_ref() {
                merge::VERSION => version = entries.next_value_seed(Whole)?,
                _ => entries.next_value_seed(Anything)?,
            }
        }
        Ok(Seen { kind: Kind::Object, version })
    }
}

/// A whole number, if the value is one.
struct Whole;

impl<'de> Visitor<'de> for Whole {
    type Value = Option<i64>;

    anything_else_is!(None, but text, null, objects);

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Option<i64>, E> {
        Ok(Some(number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Option<i64>, E> {
        Ok(i64::try_from(number).ok())
    }
}

/// A version: a whole number, or a text that contains one.
struct Version;

impl<'de> Visitor<'de> for Version {
    type Value = Option<TwinVersion>;

    anything_else_is!(None, but null, objects);

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Option<TwinVersion>, E> {
        Ok(Some(TwinVersion(number)))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Option<TwinVersion>, E> {
        Ok(i64::try_from(number).ok().map(TwinVersion))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Option<TwinVersion>, E> {
        Ok(text.parse().ok().map(TwinVersion))
    }
}

/// An id, if the value is a text.
struct Id;

impl<'de> Visitor<'de> for Id {
    type Value = Option<Value>;

    anything_else_is!(None, but integers, null, objects);

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Option<Value>, E> {
        Ok(Some(Value::from(text)))
    }
}

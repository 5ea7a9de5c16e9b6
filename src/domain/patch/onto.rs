//! Merges the body of a change into a twin while it is read.
//!
//! The result is the same as RFC 7396 on trees with the same pruning of `$metadata`. Pruning is needed only if the
//! patch may have left an entry without its property, so it is done only then. A stored section has no entry without
//! its property.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::super::twin::{drop_etags, is_reserved, is_volatile};
use super::{
    super::{
        document::Twin,
        merge::{self, METADATA},
    },
    check::Key,
};

/// The body of a change, applied to the content of a twin.
pub(super) struct Body<'a>(pub(super) &'a mut Twin);

impl<'de> DeserializeSeed<'de> for Body<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Body<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body of a change")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let Self(twin) = self;
        drop_etags(&mut twin.root);
        while let Some(name) = entries.next_key_seed(Key)? {
            match name.as_ref() {
                "tags" => entries.next_value_seed(Section(&mut twin.tags))?,
                "properties" => entries.next_value_seed(Properties(twin))?,
                name if is_reserved(name) || is_volatile(name) => {
                    entries.next_value::<IgnoredAny>()?;
                }
                _ => {
                    let value = entries.next_value()?;
                    twin.root.insert(name.into_owned(), value);
                }
            }
        }
        Ok(())
    }
}

struct Properties<'a>(&'a mut Twin);

impl<'de> DeserializeSeed<'de> for Properties<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Properties<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("properties")
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(name) = entries.next_key_seed(Key)? {
            match name.as_ref() {
                "desired" => entries.next_value_seed(Section(&mut self.0.desired))?,
                "reported" => entries.next_value_seed(Section(&mut self.0.reported))?,
                _ => {
                    entries.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// A section; null means no change.
struct Section<'a>(&'a mut merge::Section);

impl<'de> DeserializeSeed<'de> for Section<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Section<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a section")
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut leftovers = false;
        while let Some(name) = entries.next_key_seed(Key)? {
            let is_metadata = name == METADATA;
            merge_entry(self.0, name, &mut entries, Place { is_metadata }, &mut leftovers)?;
            leftovers |= is_metadata && !self.0.get(METADATA).is_some_and(Value::is_object);
        }
        if leftovers {
            merge::prune_metadata(self.0);
        }
        Ok(())
    }
}

/// A place in a section.
#[derive(Debug, Clone, Copy)]
struct Place {
    is_metadata: bool,
}

/// Merges the value of `name` into `level`. Sets `leftovers` if metadata may remain without its property.
fn merge_entry<'de, A: MapAccess<'de>>(
    level: &mut Map<String, Value>,
    name: std::borrow::Cow<'de, str>,
    entries: &mut A,
    place: Place,
    leftovers: &mut bool,
) -> Result<(), A::Error> {
    if let Some(slot) = level.get_mut(name.as_ref()) {
        if !entries.next_value_seed(Slot { slot, place, leftovers })? && !planted!(NullIgnored) {
            level.remove(name.as_ref());
            *leftovers |= !place.is_metadata;
        }
        return Ok(());
    }
    let mut slot = Value::Null;
    if entries.next_value_seed(Slot { slot: &mut slot, place, leftovers })? {
        // An object with new metadata usually has new properties too, but that is not known here.
        *leftovers |= place.is_metadata && !name.starts_with('$');
        level.insert(name.into_owned(), slot);
    }
    Ok(())
}

/// The place of one value. Returns whether there is a value afterwards.
struct Slot<'a> {
    slot: &'a mut Value,
    place: Place,
    leftovers: &'a mut bool,
}

impl Slot<'_> {
    fn set(self, value: Value) -> bool {
        *self.leftovers |= self.slot.is_object() && !self.place.is_metadata;
        *self.slot = value;
        true
    }
}

impl<'de> DeserializeSeed<'de> for Slot<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Slot<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E: de::Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<bool, E> {
        Ok(self.set(value.into()))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<bool, E> {
        Ok(self.set(number.into()))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<bool, E> {
        Ok(self.set(number.into()))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<bool, E> {
        Ok(self.set(number.into()))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<bool, E> {
        if let Value::String(present) = self.slot {
            present.clear();
            present.push_str(text);
            return Ok(true);
        }
        Ok(self.set(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<bool, A::Error> {
        let mut array = Vec::with_capacity(items.size_hint().unwrap_or(0));
        while let Some(item) = items.next_element()? {
            array.push(item);
        }
        Ok(self.set(Value::Array(array)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<bool, A::Error> {
        if !self.slot.is_object() {
            *self.slot = Value::Object(Map::new());
        }
        let Value::Object(level) = self.slot else { return Ok(true) };
        while let Some(name) = entries.next_key_seed(Key)? {
            merge_entry(level, name, &mut entries, self.place, self.leftovers)?;
        }
        Ok(true)
    }
}

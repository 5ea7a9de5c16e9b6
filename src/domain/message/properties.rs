//! Properties by name, made for many messages with the same few names.

use std::borrow::Cow;

use super::Property;

/// A name. Those that IoT Hub gives take no memory of their own.
pub type Name = Cow<'static, str>;

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

/// Named values, each name once, in the order of names.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Properties(Vec<(Name, Property)>);

impl Properties {
    /// The value of this name.
    pub fn get(&self, name: &str) -> Option<&Property> {
        self.place(name).ok().and_then(|place| self.0.get(place)).map(|(_, value)| value)
    }

    /// Sets the value of a name; returns the one that it had.
    pub fn insert(&mut self, name: impl Into<Name>, value: Property) -> Option<Property> {
        let name = known(name.into());
        match self.0.binary_search_by(|(other, _)| other.cmp(&name)) {
            Ok(place) => self.0.get_mut(place).map(|(_, old)| std::mem::replace(old, value)),
            Err(place) => {
                self.0.insert(place, (name, value));
                None
            }
        }
    }

    /// Takes a name out, with its value.
    pub fn remove(&mut self, name: &str) -> Option<Property> {
        self.place(name).ok().map(|place| self.0.remove(place).1)
    }

    /// Takes all of them out.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Names and values, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Property)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value))
    }

    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| other.as_ref().cmp(name))
    }
}

/// A name as text of the program, where it is one that IoT Hub gives.
fn known(name: Name) -> Name {
    match name {
        Cow::Borrowed(_) => name,
        Cow::Owned(text) => name_of(&text).unwrap_or(Cow::Owned(text)),
    }
}

fn name_of(text: &str) -> Option<Name> {
    KNOWN.binary_search(&text).ok().and_then(|place| KNOWN.get(place)).map(|name| Cow::Borrowed(*name))
}

/// The name `text`, without a copy where it is one that IoT Hub gives.
pub fn name(text: &str) -> Name {
    name_of(text).unwrap_or_else(|| Cow::Owned(text.to_owned()))
}

impl<N: Into<Name>> FromIterator<(N, Property)> for Properties {
    fn from_iter<I: IntoIterator<Item = (N, Property)>>(iterator: I) -> Self {
        let iterator = iterator.into_iter();
        let mut properties = Self(Vec::with_capacity(iterator.size_hint().1.unwrap_or(0).min(64)));
        properties.extend(iterator);
        properties
    }
}

impl<N: Into<Name>> Extend<(N, Property)> for Properties {
    fn extend<I: IntoIterator<Item = (N, Property)>>(&mut self, iterator: I) {
        for (name, value) in iterator {
            self.insert(name, value);
        }
    }
}

impl<N: Into<Name>, const COUNT: usize> From<[(N, Property); COUNT]> for Properties {
    fn from(properties: [(N, Property); COUNT]) -> Self {
        properties.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_names_are_in_order_and_take_no_memory() {
        assert!(KNOWN.is_sorted());
        for known in KNOWN {
            assert!(matches!(name(known), Cow::Borrowed(text) if text == known));
            let properties = Properties::from([(known.to_owned(), Property::Integer(1))]);
            assert!(matches!(properties.0.as_slice(), [(Cow::Borrowed(_), _)]), "{known}");
        }
        assert!(matches!(name("other"), Cow::Owned(text) if text == "other"));
    }

    proptest! {
        #[test]
        fn it_behaves_as_a_map_does(script in prop::collection::vec(("[a-e]{1,2}|deviceId|opType", 0_i64..9, any::<bool>()), 0..40)) {
            let (mut properties, mut map) = (Properties::default(), BTreeMap::new());
            for (name, value, keep) in script {
                if keep {
                    properties.insert(name.clone(), Property::Integer(value));
                    map.insert(name, Property::Integer(value));
                } else {
                    prop_assert_eq!(properties.remove(&name), map.remove(&name));
                }
            }
            let all: Vec<_> = properties.iter().collect();
            prop_assert_eq!(all, map.iter().map(|(name, value)| (name.as_str(), value)).collect::<Vec<_>>());
            for (name, value) in &map {
                prop_assert_eq!(properties.get(name), Some(value));
            }
            prop_assert_eq!(properties.get("nobody"), None);
        }
    }
}

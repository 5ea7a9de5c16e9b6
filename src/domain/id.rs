//! Names of things: twins, streams, partitions, positions.
//!
//! A twin is known by (hub, device, module?). The id of its document is an injective, case-preserving
//! encoding of that key, so two twins can never share a document.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The identity of one twin: a device's, or that of one of its modules.
///
/// Module events carry the device's id too; only `module` tells them apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TwinKey {
    /// Name of the IoT hub, without its domain.
    pub hub: String,
    /// Device id: case-sensitive, at most 128 characters.
    pub device: String,
    /// Module id, for the twin of a module.
    pub module: Option<String>,
}

impl TwinKey {
    /// The twin of a device.
    pub fn device(hub: impl Into<String>, device: impl Into<String>) -> Self {
        Self { hub: hub.into(), device: device.into(), module: None }
    }

    /// The twin of a module.
    pub fn module(hub: impl Into<String>, device: impl Into<String>, module: impl Into<String>) -> Self {
        Self { hub: hub.into(), device: device.into(), module: Some(module.into()) }
    }

    /// The key of the device that this twin belongs to.
    pub fn parent(&self) -> Self {
        Self { module: None, ..self.clone() }
    }

    /// Whether both name the same twin. Names of hubs are host names, and told apart without case; those of devices and
    /// modules are not.
    pub fn is_same_twin(&self, other: &Self) -> bool {
        self.hub.eq_ignore_ascii_case(&other.hub)
            && (&self.device, &self.module) == (&other.device, &other.module)
    }

    /// Whether this is the twin of a module.
    pub fn is_module(&self) -> bool {
        self.module.is_some()
    }
}

impl fmt::Display for TwinKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.hub, self.device)?;
        self.module.as_ref().map_or(Ok(()), |module| write!(f, "/{module}"))
    }
}

/// How the key of a twin becomes the id of its document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentIdScheme {
    /// `deviceId`, or `deviceId|moduleId`: for a container that holds one hub.
    #[default]
    Device,
    /// `hubName|deviceId…`: for a container that several hubs share.
    HubDevice,
}

/// Stands between the parts of a document id; percent-encoded inside the parts, so it cannot occur there.
const SEPARATOR: char = '|';

impl DocumentIdScheme {
    /// Encodes `key` as a document id.
    ///
    /// Injective and case-preserving. `/ \ ? #` are what Cosmos DB or its SDKs refuse in an id, `%` is the
    /// escape itself, control characters break URLs; all of them, and the separator, are percent-encoded.
    pub fn document_id(self, key: &TwinKey) -> String {
        let mut id = String::with_capacity(key.device.len() + 8);
        if self == Self::HubDevice {
            encode_into(&mut id, &key.hub);
            id.push(SEPARATOR);
        }
        encode_into(&mut id, &key.device);
        if let Some(module) = &key.module {
            id.push(SEPARATOR);
            encode_into(&mut id, module);
        }
        id
    }
}

fn encode_into(out: &mut String, part: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for character in part.chars() {
        if matches!(character, '/' | '\\' | '?' | '#' | '%' | SEPARATOR) || character.is_control() {
            let mut buffer = [0; 4];
            for byte in character.encode_utf8(&mut buffer).bytes() {
                out.push('%');
                out.push(HEX[usize::from(byte >> 4)] as char);
                out.push(HEX[usize::from(byte & 15)] as char);
            }
        } else {
            out.push(character);
        }
    }
}

/// The number of an event within its partition; Event Hubs counts up by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SequenceNumber(pub i64);

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One partition of one of the streams we consume.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId {
    /// Name of the Event Hub.
    pub stream: String,
    /// The partition's id within the hub, as Event Hubs names it: `0`, `1`, …
    pub partition: String,
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stream, self.partition)
    }
}

/// Where an event lies in its partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Its sequence number.
    pub sequence_number: SequenceNumber,
    /// Its offset: opaque text (geo-replicated namespaces do not use numbers), never parsed. Empty where it is not known.
    pub offset: String,
}

impl Position {
    /// Whether `other`, of the same number, can be the same event. Offsets of a namespace change their form when it becomes
    /// geo-replicated, from a number to parts with colons between them: two forms prove nothing.
    pub fn is_same_event(&self, other: &Self) -> bool {
        let form = |position: &Self| position.offset.contains(':');
        let unknown = self.offset.is_empty() || other.offset.is_empty();
        self.sequence_number == other.sequence_number
            && (unknown || form(self) != form(other) || self.offset == other.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specials_are_escaped_and_case_is_kept() {
        let id = |key: TwinKey| DocumentIdScheme::Device.document_id(&key);
        assert_eq!(id(TwinKey::device("h", "Pump-7")), "Pump-7");
        assert_eq!(id(TwinKey::device("h", "a/b\\c?d#e%f|g")), "a%2Fb%5Cc%3Fd%23e%25f%7Cg");
        assert_eq!(id(TwinKey::device("h", "tab\there\u{85}")), "tab%09here%C2%85");
        assert_eq!(id(TwinKey::module("h", "d'1", "$edgeHub")), "d'1|$edgeHub");
    }

    #[test]
    fn hubs_are_told_apart_without_case_and_devices_with_it() {
        let key = TwinKey::module("Contoso", "Pump", "m");
        assert!(key.is_same_twin(&TwinKey::module("contoso", "Pump", "m")));
        for other in [
            TwinKey::module("fabrikam", "Pump", "m"),
            TwinKey::module("Contoso", "pump", "m"),
            TwinKey::module("Contoso", "Pump", "M"),
            TwinKey::device("Contoso", "Pump"),
        ] {
            assert!(!key.is_same_twin(&other), "{other}");
        }
    }

    #[test]
    fn several_hubs_in_one_container_do_not_collide() {
        let id = |hub, device| DocumentIdScheme::HubDevice.document_id(&TwinKey::device(hub, device));
        assert_eq!(id("h1", "d"), "h1|d");
        assert_ne!(id("a|b", "c"), id("a", "b|c"));
    }

    proptest::proptest! {
        #[test]
        fn different_twins_never_share_a_document(
            a in "[a|%/?#2F]{0,6}", b in "[a|%/?#2F]{0,6}", am in proptest::option::of("[a|%7C]{0,4}"), bm in proptest::option::of("[a|%7C]{0,4}")
        ) {
            let left = TwinKey { hub: "h".into(), device: a, module: am };
            let right = TwinKey { hub: "h".into(), device: b, module: bm };
            for scheme in [DocumentIdScheme::Device, DocumentIdScheme::HubDevice] {
                proptest::prop_assert_eq!(left == right, scheme.document_id(&left) == scheme.document_id(&right));
            }
        }
    }
}

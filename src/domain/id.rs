//! Identifiers: twins, streams, partitions, positions.
//!
//! A twin is identified by (hub, device, module?). The id of its document is an injective, case-preserving encoding of
//! that key, so two twins can never share a document. Only the name of the hub is case-insensitive. [`HubName`]
//! converts it to lower case; no other code compares names of hubs.

use std::{cell::RefCell, fmt, ops::Deref, sync::Arc};

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// The name of an IoT hub, without its domain, in lower case. It is the first label of a host name, and DNS ignores
/// case (RFC 4343). Events, configuration and old documents may use another case.
///
/// Cheap to clone. Also cheap to create from a name that this thread has used before: no allocation, whatever the case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HubName(Arc<str>);

/// The number of names that a thread remembers. A daemon has few hubs. An endless number of names comes only from a
/// broken producer; such names are allocated each time.
const REMEMBERED: usize = 16;

thread_local! {
    static NAMES: RefCell<Vec<HubName>> = const { RefCell::new(Vec::new()) };
}

impl HubName {
    /// The hub with this name, in any case.
    pub fn new(spelt: &str) -> Self {
        NAMES.with_borrow_mut(|names| {
            if let Some(known) = names.iter().find(|known| known.0.eq_ignore_ascii_case(spelt)) {
                return known.clone();
            }
            let name = Self(spelt.to_ascii_lowercase().into());
            if names.len() == REMEMBERED {
                names.remove(0);
            }
            names.push(name.clone());
            name
        })
    }

    /// The name, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for HubName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<&str> for HubName {
    fn from(spelt: &str) -> Self {
        Self::new(spelt)
    }
}

impl From<String> for HubName {
    fn from(spelt: String) -> Self {
        Self::new(&spelt)
    }
}

impl From<&Self> for HubName {
    fn from(name: &Self) -> Self {
        name.clone()
    }
}

impl fmt::Display for HubName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for HubName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The identity of one twin: of a device or of one of its modules.
///
/// Module events also contain the device's id; only `module` distinguishes the two.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TwinKey {
    /// The IoT hub.
    pub hub: HubName,
    /// Device id: case-sensitive, at most 128 characters.
    pub device: String,
    /// Module id, for the twin of a module.
    pub module: Option<String>,
}

impl TwinKey {
    /// The twin of a device.
    pub fn device(hub: impl Into<HubName>, device: impl Into<String>) -> Self {
        Self { hub: hub.into(), device: device.into(), module: None }
    }

    /// The twin of a module.
    pub fn module(hub: impl Into<HubName>, device: impl Into<String>, module: impl Into<String>) -> Self {
        Self { hub: hub.into(), device: device.into(), module: Some(module.into()) }
    }

    /// The key of the device that this twin belongs to.
    pub fn parent(&self) -> Self {
        Self { module: None, ..self.clone() }
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

/// How the document id is derived from the key of a twin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentIdScheme {
    /// `deviceId`, or `deviceId|moduleId`: for a container that holds one hub.
    #[default]
    Device,
    /// `hubName|deviceId…`: for a container that several hubs share.
    HubDevice,
}

/// Separates the parts of a document id; percent-encoded inside the parts, so it cannot occur there.
const SEPARATOR: char = '|';

impl DocumentIdScheme {
    /// Whether a twin's document may be stored under another id than the one of this scheme. A document keeps the id
    /// that it was created with; that may be the device's id alone, or contain the hub in another case.
    pub fn may_lie_elsewhere(self) -> bool {
        self == Self::HubDevice
    }

    /// Encodes `key` as a document id.
    ///
    /// Injective and case-preserving. Cosmos DB or its SDKs refuse `/ \ ? #` in an id, `%` is the escape character, and
    /// control characters break URLs. All of them, and the separator, are percent-encoded. So are the dots of `.` and
    /// `..`, because every URL parser resolves them (WHATWG URL), so a read would return the list of all documents.
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
        match id.as_str() {
            "." | ".." => id.replace('.', "%2E"),
            _ => id,
        }
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

/// The number of an event within its partition; Event Hubs increments it by one.
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
    /// The partition's id within the Event Hub: `0`, `1`, …
    pub partition: String,
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stream, self.partition)
    }
}

/// The position of an event in its partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Its sequence number.
    pub sequence_number: SequenceNumber,
    /// Its offset: opaque text (geo-replicated namespaces do not use numbers), never parsed. Empty if unknown.
    pub offset: SmolStr,
}

impl Position {
    /// Whether `other`, with the same sequence number, can be the same event. When a namespace becomes geo-replicated,
    /// the form of its offsets changes from a number to parts separated by colons. So offsets of two different forms
    /// prove nothing.
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
        assert_eq!(
            [".", "..", "...", "a.b"].map(|device| id(TwinKey::device("h", device))),
            ["%2E", "%2E%2E", "...", "a.b"]
        );
        assert_eq!(id(TwinKey::module("h", ".", "..")), ".|..", "dots are no path segment here");
        assert_eq!(id(TwinKey::device("h", "%2E")), "%252E", "it must not be the id of another device");
    }

    #[test]
    fn a_module_belongs_to_its_device_and_ids_with_hubs_may_have_been_others() {
        let (module, device) = (TwinKey::module("h", "d", "m"), TwinKey::device("h", "d"));
        assert_eq!([module.parent(), device.parent()], [device.clone(), device]);
        assert_eq!(format!("{:?}", module.hub), "\"h\"");
        let schemes = [DocumentIdScheme::Device, DocumentIdScheme::HubDevice];
        assert_eq!(schemes.map(DocumentIdScheme::may_lie_elsewhere), [false, true]);
    }

    #[test]
    fn hubs_are_told_apart_without_case_and_devices_with_it() {
        let key = TwinKey::module("Contoso", "Pump", "m");
        assert_eq!(key, TwinKey::module("contoso", "Pump", "m"));
        assert_eq!(key.hub.as_str(), "contoso");
        for other in [
            TwinKey::module("fabrikam", "Pump", "m"),
            TwinKey::module("Contoso", "pump", "m"),
            TwinKey::module("Contoso", "Pump", "M"),
            TwinKey::device("Contoso", "Pump"),
        ] {
            assert_ne!(key, other);
        }
    }

    #[test]
    fn a_hub_that_was_met_before_costs_no_memory_however_it_is_spelt() {
        let name = HubName::new("Contoso-1");
        for spelt in ["contoso-1", "Contoso-1", "CONTOSO-1"] {
            assert!(Arc::ptr_eq(&name.0, &HubName::new(spelt).0), "{spelt}");
        }
        // Many other names evict it, which changes nothing else.
        for number in 0..1000 {
            assert_eq!(HubName::new(&format!("Hub{number}")).as_str(), format!("hub{number}"));
        }
        assert_eq!(HubName::new("CONTOSO-1"), name);
        NAMES.with_borrow(|names| assert_eq!(names.len(), REMEMBERED));
    }

    #[test]
    fn several_hubs_in_one_container_do_not_collide() {
        let id = |hub, device| DocumentIdScheme::HubDevice.document_id(&TwinKey::device(hub, device));
        assert_eq!(id("h1", "d"), "h1|d");
        assert_eq!(id("H1", "D"), "h1|D");
        assert_ne!(id("a|b", "c"), id("a", "b|c"));
    }

    proptest::proptest! {
        #[test]
        fn different_twins_never_share_a_document(
            a in "[a|%/?#2FE.]{0,6}", b in "[a|%/?#2FE.]{0,6}", am in proptest::option::of("[a|%7C]{0,4}"), bm in proptest::option::of("[a|%7C]{0,4}")
        ) {
            let left = TwinKey { hub: "h".into(), device: a, module: am };
            let right = TwinKey { hub: "h".into(), device: b, module: bm };
            for scheme in [DocumentIdScheme::Device, DocumentIdScheme::HubDevice] {
                proptest::prop_assert_eq!(left == right, scheme.document_id(&left) == scheme.document_id(&right));
            }
        }
    }
}

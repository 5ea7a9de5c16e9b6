//! The parts of a twin, whatever the source: an event, the registry, a query, or our document.

use serde_json::{Map, Value};

/// The version of a twin: starts again with each incarnation and grows by one with each accepted write.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct TwinVersion(pub i64);

impl TwinVersion {
    /// The first version of a new identity's twin (seen in every captured create event).
    pub const INITIAL: Self = Self(2);

    /// Whether `self` directly follows `earlier`.
    pub fn follows(self, earlier: Self) -> bool {
        earlier.0.checked_add(1) == Some(self.0)
    }
}

/// The parts of a twin body, or of a patch to one.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sections {
    /// Fields beside the sections: `etag`, `status`, `capabilities`, … Ids and version are not among them.
    pub root: Map<String, Value>,
    /// Tags.
    pub tags: Option<Map<String, Value>>,
    /// Desired properties with `$version` and `$metadata`.
    pub desired: Option<Map<String, Value>>,
    /// Reported properties with `$version` and `$metadata`.
    pub reported: Option<Map<String, Value>>,
}

/// Root fields whose new value is in almost no event: they change with each write by the hub.
pub(super) const ETAGS: [&str; 2] = ["etag", "deviceEtag"];

/// Removes from a root the fields that are valid for one write only.
pub(super) fn drop_etags(root: &mut Map<String, Value>) {
    for name in ETAGS {
        root.remove(name);
    }
}

/// Root fields that the hub changes without any event, whenever a device does something. A copy of them would be wrong
/// most of the time, so they are never kept, whatever the source.
pub(super) fn is_volatile(name: &str) -> bool {
    matches!(
        name,
        "connectionState" | "connectionStateUpdatedTime" | "lastActivityTime" | "cloudToDeviceMessageCount"
    )
}

/// Root names that are ours or Cosmos DB's. If a twin root has such a field, that field is dropped.
pub(super) fn is_reserved(name: &str) -> bool {
    name.starts_with('_')
        || matches!(
            name,
            "id" | "ttl" | "hubName" | "deviceId" | "moduleId" | "version" | "tags" | "properties" | "sync"
        )
}

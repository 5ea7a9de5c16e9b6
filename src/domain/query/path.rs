//! Paths into a twin: a root field, and property names below it.

use std::{cmp::Ordering, fmt};

use serde_json::Value;

use super::token::{begins_name, continues_name};

macro_rules! roots {
    ($($(#[$doc:meta])* $variant:ident => $name:literal,)*) => {
        /// A root field of a twin, as the service's REST API returns twins.
        ///
        /// Source: the `Twin` definition of `api-version=2021-04-12`, and the example twin in the documentation of the
        /// query language (learn: iot-hub/query-twins).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Root { $($(#[$doc])* $variant,)* }

        impl Root {
            /// Every root field.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name in a twin.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

roots! {
    /// Id of the device.
    DeviceId => "deviceId",
    /// Id of the module, in a module's twin.
    ModuleId => "moduleId",
    /// ETag of the twin.
    Etag => "etag",
    /// ETag of the identity.
    DeviceEtag => "deviceEtag",
    /// `enabled` or `disabled`.
    Status => "status",
    /// The reason of the status.
    StatusReason => "statusReason",
    /// When the status changed.
    StatusUpdateTime => "statusUpdateTime",
    /// `Connected` or `Disconnected`. Only the hub knows.
    ConnectionState => "connectionState",
    /// When the connection state changed. Only the hub knows.
    ConnectionStateUpdatedTime => "connectionStateUpdatedTime",
    /// When the device was last active. Only the hub knows.
    LastActivityTime => "lastActivityTime",
    /// Messages that wait for the device. Only the hub knows.
    CloudToDeviceMessageCount => "cloudToDeviceMessageCount",
    /// How the device authenticates.
    AuthenticationType => "authenticationType",
    /// Thumbprints of its certificates.
    X509Thumbprint => "x509Thumbprint",
    /// Its plug-and-play model.
    ModelId => "modelId",
    /// Version of the twin.
    Version => "version",
    /// Tags.
    Tags => "tags",
    /// Desired and reported properties.
    Properties => "properties",
    /// Whether it is an Edge device.
    Capabilities => "capabilities",
    /// Scope of an Edge device and of its children.
    DeviceScope => "deviceScope",
    /// Scopes of its parents.
    ParentScopes => "parentScopes",
    /// Configurations that apply to it. Only the hub knows.
    Configurations => "configurations",
}

impl Root {
    /// The field with this name, in any case: the hub ignores the case of root names (`SELECT DeviceID …`).
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|root| root.name().eq_ignore_ascii_case(name))
    }

    /// Whether it belongs to the identity of a device or module, which no event contains. The hub's own answers contain
    /// it. So a copy has it as of the last such answer, if there was one.
    ///
    /// Source: events contain only `etag`, `version`, tags and properties beside the ids (learn:
    /// iot-hub-devguide-messages-d2c, notifications; Azure-docs#44675 for `capabilities`).
    pub const fn is_of_the_identity(self) -> bool {
        matches!(
            self,
            Self::Etag
                | Self::DeviceEtag
                | Self::Status
                | Self::StatusReason
                | Self::StatusUpdateTime
                | Self::AuthenticationType
                | Self::X509Thumbprint
                | Self::ModelId
                | Self::Capabilities
                | Self::DeviceScope
                | Self::ParentScopes
        )
    }

    /// Whether only the hub knows its value: it changes without any event, so a copy would be wrong most of the time.
    pub const fn is_known_to_the_hub_only(self) -> bool {
        matches!(
            self,
            Self::ConnectionState
                | Self::ConnectionStateUpdatedTime
                | Self::LastActivityTime
                | Self::CloudToDeviceMessageCount
                | Self::Configurations
        )
    }
}

/// A path into a twin. Two paths are equal if they lead to the same place, whatever their position in a query.
#[derive(Debug, Clone)]
pub struct Path {
    pub(super) root: Root,
    pub(super) below: Vec<String>,
    /// Its position in the query, in characters.
    pub(super) position: usize,
}

impl Path {
    /// The root field at its start.
    pub fn root(&self) -> Root {
        self.root
    }

    /// The names below the root field, case-sensitive.
    pub fn below(&self) -> &[String] {
        &self.below
    }

    /// The value at this path in a twin; `None` if a name is missing or is below something that is not an object. Null
    /// is a value.
    pub fn find<'a>(&self, twin: &'a Value) -> Option<&'a Value> {
        let root = twin.as_object()?.get(self.root.name())?;
        self.below.iter().try_fold(root, |value, name| value.as_object()?.get(name))
    }

    /// The name of its column if there is no alias: the last name.
    pub fn column(&self) -> &str {
        self.below.last().map_or(self.root.name(), String::as_str)
    }

    fn places(&self) -> (Root, &[String]) {
        (self.root, &self.below)
    }
}

impl PartialEq for Path {
    fn eq(&self, other: &Self) -> bool {
        self.places() == other.places()
    }
}

impl Eq for Path {}

impl PartialOrd for Path {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Path {
    fn cmp(&self, other: &Self) -> Ordering {
        self.places().cmp(&other.places())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.root.name())?;
        self.below.iter().try_for_each(|name| {
            f.write_str(".")?;
            write_name(f, name)
        })
    }
}

/// Words that the hub does not accept as names, or that a related language is known not to accept: `tags.group` fails
/// there (MicrosoftDocs/azure-docs#17106). Here they are names after a dot and after AS; they are escaped in print, so
/// that the hub accepts the text.
///
/// Source: the list of reserved words of Azure Digital Twins (learn: digital-twins/reference-query-reserved), and the
/// keywords of this language.
const RESERVED: [&str; 36] = [
    "all",
    "and",
    "as",
    "asc",
    "avg",
    "by",
    "count",
    "desc",
    "devices",
    "ends_with",
    "endswith",
    "false",
    "from",
    "group",
    "in",
    "is_bool",
    "is_defined",
    "is_null",
    "is_number",
    "is_object",
    "is_primitive",
    "is_string",
    "max",
    "min",
    "nin",
    "not",
    "null",
    "or",
    "order",
    "select",
    "startswith",
    "sum",
    "top",
    "true",
    "undefined",
    "where",
];

/// Writes a name, in `[[ ]]` unless it is a plain name.
pub(super) fn write_name(f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
    let is_plain = name.is_ascii()
        && name.starts_with(begins_name)
        && name.chars().all(continues_name)
        && !RESERVED.iter().any(|word| word.eq_ignore_ascii_case(name));
    if is_plain { f.write_str(name) } else { write!(f, "[[{name}]]") }
}

#[cfg(test)]
mod tests;

//! Paths to values in a twin.

use serde_json::Value;

/// The names at the top of a twin. These are accepted in upper and lower case. Names below are
/// case-sensitive.
const ROOTS: [&str; 20] = [
    "deviceId",
    "moduleId",
    "etag",
    "deviceEtag",
    "status",
    "statusReason",
    "statusUpdateTime",
    "connectionState",
    "lastActivityTime",
    "cloudToDeviceMessageCount",
    "authenticationType",
    "x509Thumbprint",
    "modelId",
    "version",
    "tags",
    "properties",
    "capabilities",
    "deviceScope",
    "parentScopes",
    "configurations",
];

/// The path to a value in a twin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    root: String,
    below: Vec<String>,
}

impl Path {
    /// Creates a path from its parts as they are written, without the prefix `devices.`.
    pub(super) fn new(root: String, below: Vec<String>) -> Self {
        let known = ROOTS.into_iter().find(|known| known.eq_ignore_ascii_case(&root));
        Self { root: known.map_or(root, str::to_owned), below }
    }

    /// The last part of the path. It is the name of a column without an alias.
    pub(super) fn name(&self) -> &str {
        self.below.last().unwrap_or(&self.root)
    }

    /// The value at this path. `None` means undefined.
    pub(super) fn of<'a>(&self, twin: &'a Value) -> Option<&'a Value> {
        let root = twin.as_object()?.get(&self.root)?;
        self.below.iter().try_fold(root, |value, name| value.as_object()?.get(name))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn path(text: &str) -> Path {
        let mut parts = text.split('.').map(str::to_owned);
        Path::new(parts.next().unwrap(), parts.collect())
    }

    #[test]
    fn roots_are_known_in_any_case_and_names_below_are_not() {
        let twin = json!({"deviceId": "a", "tags": {"Floor": 3, "odd": null, "list": [1]}, "own": 1});
        for (text, value) in [
            ("DeviceID", Some(json!("a"))),
            ("TAGS.Floor", Some(json!(3))),
            ("tags.floor", None),
            ("tags.odd", Some(json!(null))),
            ("tags.odd.deeper", None),
            ("tags.list.0", None),
            ("own", Some(json!(1))),
            ("Own", None),
        ] {
            assert_eq!(path(text).of(&twin), value.as_ref(), "{text}");
        }
        assert_eq!(path("X509thumbPRINT").name(), "x509Thumbprint");
        assert_eq!(path("Tags.Floor").name(), "Floor");
    }
}

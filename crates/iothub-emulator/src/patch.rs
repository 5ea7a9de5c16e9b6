//! The body of a back end's write: tags, desired properties, or both.

use serde_json::{Map, Value};

use super::Error;

/// Fields of a twin that clients send back after reading it. The service ignores them.
const READ_ONLY: [&str; 12] = [
    "authenticationType",
    "capabilities",
    "cloudToDeviceMessageCount",
    "connectionState",
    "deviceEtag",
    "deviceId",
    "etag",
    "lastActivityTime",
    "moduleId",
    "status",
    "version",
    "x509Thumbprint",
];

/// The writable sections of a twin, as a merge patch or as a replacement.
#[derive(Clone, Debug, Default)]
pub(super) struct ServicePatch {
    pub(super) tags: Option<Map<String, Value>>,
    pub(super) desired: Option<Map<String, Value>>,
}

impl ServicePatch {
    /// Parses `{"tags": {…}, "properties": {"desired": {…}}}`. Either part may be absent. `$metadata` and
    /// `$version` of a section, reported properties and read-only fields are ignored, because clients send complete
    /// twins back.
    pub(super) fn read(body: &Value) -> Result<Self, Error> {
        let mut patch = Self::default();
        for (key, value) in object(body, "")? {
            match key.as_str() {
                "tags" => patch.tags = Some(section(value, "/tags")?),
                "properties" => {
                    for (key, value) in object(value, "/properties")? {
                        match key.as_str() {
                            "desired" => patch.desired = Some(section(value, "/properties/desired")?),
                            "reported" => {}
                            other => return Err(unknown(&format!("/properties/{other}"))),
                        }
                    }
                }
                other if READ_ONLY.contains(&other) => {}
                other => return Err(unknown(&format!("/{other}"))),
            }
        }
        Ok(patch)
    }

    /// Parses a body as [`ServicePatch::read`] does, but refuses one that writes nothing.
    pub(super) fn read_change(body: &Value) -> Result<Self, Error> {
        let patch = Self::read(body)?;
        if patch.tags.is_none() && patch.desired.is_none() {
            return Err(Error::InvalidTwin {
                path: "/".to_owned(),
                reason: "the patch has neither tags nor properties.desired".to_owned(),
            });
        }
        Ok(patch)
    }
}

/// Parses the reported properties that a device sends.
pub(super) fn read_reported(body: &Value) -> Result<Map<String, Value>, Error> {
    section(body, "/properties/reported")
}

fn section(value: &Value, path: &str) -> Result<Map<String, Value>, Error> {
    let mut values = object(value, path)?.clone();
    values.remove("$metadata");
    values.remove("$version");
    Ok(values)
}

fn object<'a>(value: &'a Value, path: &str) -> Result<&'a Map<String, Value>, Error> {
    value.as_object().ok_or_else(|| Error::InvalidTwin {
        path: if path.is_empty() { "/".to_owned() } else { path.to_owned() },
        reason: "expected a JSON object".to_owned(),
    })
}

fn unknown(path: &str) -> Error {
    Error::InvalidTwin { path: path.to_owned(), reason: "unknown field".to_owned() }
}

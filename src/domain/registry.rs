//! Twins as the hub's service API shows them.

use serde_json::{Map, Value};

use super::{
    decode,
    event::{Sections, TwinVersion},
    id::{HubName, TwinKey},
    merge::Section,
    ticks::Ticks,
};

/// A twin that a point read answered.
#[derive(Debug, Clone, PartialEq)]
pub struct RegistryTwin {
    /// The twin.
    pub key: TwinKey,
    /// Its version.
    pub version: TwinVersion,
    /// Its content.
    pub twin: Sections,
    /// The hub's time of the answer, in whole seconds rounded down as HTTP has them.
    pub at: Ticks,
}

/// A twin that a query answered: up to 30 minutes old.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The twin.
    pub key: TwinKey,
    /// Its version.
    pub version: TwinVersion,
    /// Its content.
    pub twin: Sections,
}

/// Why an answer is no twin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Odd {
    /// It is no JSON object with the parts of a twin.
    #[error("the answer is no twin")]
    NoTwin,
    /// It is the twin of another device or module than was asked for.
    #[error("the answer is another twin's")]
    Another,
}

impl Row {
    /// Reads a row; `hub` is the hub that was asked.
    ///
    /// # Errors
    /// It is no twin.
    pub fn read(hub: &HubName, value: Value) -> Result<Self, Odd> {
        let Value::Object(mut body) = value else {
            return Err(Odd::NoTwin);
        };
        let id = |body: &Map<String, Value>, name| {
            body.get(name).and_then(Value::as_str).filter(|id| !id.is_empty()).map(str::to_owned)
        };
        let device = id(&body, "deviceId").ok_or(Odd::NoTwin)?;
        let key = TwinKey { hub: hub.clone(), device, module: id(&body, "moduleId") };
        let version = body.remove("version").as_ref().and_then(decode::version).ok_or(Odd::NoTwin)?;
        let mut twin = decode::sections(body).map_err(|_| Odd::NoTwin)?;
        // The service writes what a twin does not have as null; a document leaves it out.
        twin.root.retain(|_, value| !value.is_null());
        Ok(Self { key, version, twin })
    }

    /// The newest change that the twin's metadata tell of. Tags have no metadata, so there may have been newer ones.
    pub fn last_updated(&self) -> Option<Ticks> {
        last_updated(&self.twin)
    }
}

impl RegistryTwin {
    /// Reads the answer to a point read of `key` at the hub's time `at`.
    ///
    /// # Errors
    /// It is no twin, or another's.
    pub fn read(key: &TwinKey, value: Value, at: Ticks) -> Result<Self, Odd> {
        let Row { key: found, version, twin } = Row::read(&key.hub, value)?;
        if found != *key {
            return Err(Odd::Another);
        }
        Ok(Self { key: found, version, twin, at })
    }
}

/// The newest `$lastUpdated` of the property sections.
pub(super) fn last_updated(twin: &Sections) -> Option<Ticks> {
    let of = |section: &Option<Section>| {
        let written = section.as_ref()?.get("$metadata")?.get("$lastUpdated")?.as_str()?;
        Ticks::parse(written)
    };
    of(&twin.desired).max(of(&twin.reported))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer() -> Value {
        json!({
            "deviceId": "d", "etag": "AAAAAAAAAAc=", "deviceEtag": "NTY=", "status": "enabled",
            "connectionState": "Connected", "lastActivityTime": "2031-01-01T00:00:00Z",
            "cloudToDeviceMessageCount": 0, "x509Thumbprint": {"primaryThumbprint": null}, "modelId": null,
            "version": 9, "tags": {"a": 1},
            "properties": {
                "desired": {"x": 1, "$metadata": {"$lastUpdated": "2031-01-01T00:00:01.5Z"}, "$version": 4},
                "reported": {"$metadata": {"$lastUpdated": "0001-01-01T00:00:00Z"}, "$version": 1}
            }
        })
    }

    #[test]
    fn a_twin_is_read_without_what_changes_silently() {
        let key = TwinKey::device("h", "d");
        let at = Ticks::parse("2031-01-01T00:00:02Z").expect("a time");
        let twin = RegistryTwin::read(&key, answer(), at).expect("a twin");
        assert_eq!((twin.version, twin.at), (TwinVersion(9), at));
        let names: Vec<_> = twin.twin.root.keys().map(String::as_str).collect();
        assert_eq!(names, ["deviceEtag", "etag", "status", "x509Thumbprint"]);
        assert_eq!(twin.twin.tags.expect("tags")["a"], 1);
        assert_eq!(twin.twin.reported.expect("reported")["$version"], 1);
    }

    #[test]
    fn the_newest_change_is_told_by_the_metadata() {
        let row = Row::read(&"h".into(), answer()).expect("a row");
        assert_eq!(row.last_updated(), Ticks::parse("2031-01-01T00:00:01.5Z"));
        let bare = Row::read(&"h".into(), json!({"deviceId": "d", "version": 2})).expect("a row");
        assert_eq!(bare.last_updated(), None);
    }

    #[test]
    fn what_is_no_twin_or_anothers_is_refused() {
        let key = TwinKey::device("h", "D");
        for value in [
            json!(null),
            json!([]),
            json!({}),
            json!({"deviceId": "", "version": 1}),
            json!({"deviceId": "d"}),
            json!({"deviceId": "d", "version": 2, "tags": 3}),
        ] {
            assert_eq!(Row::read(&"h".into(), value).map(|row| row.key), Err(Odd::NoTwin));
        }
        assert_eq!(RegistryTwin::read(&key, answer(), Ticks::new(0)), Err(Odd::Another));
        let module = TwinKey::module("h", "d", "m");
        assert_eq!(RegistryTwin::read(&module, answer(), Ticks::new(0)), Err(Odd::Another));
    }
}

//! Twins as returned by the hub's service API.

use std::{cmp::Ordering, time::Duration};

use serde_json::{Map, Value};

use super::{
    body::{sections, version},
    document::{Document, Flag, State},
    drift::{Drift, Strictness, drift},
    id::{HubName, TwinKey},
    merge::Section,
    ticks::Ticks,
    twin::{Sections, TwinVersion},
};

/// A twin returned by a point read.
#[derive(Debug, Clone, PartialEq)]
pub struct RegistryTwin {
    /// The twin.
    pub key: TwinKey,
    /// Its version.
    pub version: TwinVersion,
    /// Its content.
    pub twin: Sections,
    /// The hub's time of the answer, in whole seconds, rounded down as in HTTP.
    pub at: Ticks,
}

/// A twin returned by a query: up to 30 minutes old.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The twin.
    pub key: TwinKey,
    /// Its version.
    pub version: TwinVersion,
    /// Its content.
    pub twin: Sections,
}

/// A twin named by a query, without its content: up to 30 minutes old.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwinReference {
    /// The twin.
    pub key: TwinKey,
    /// Its version.
    pub version: TwinVersion,
}

/// Why an answer is not a twin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotATwin {
    /// It is not a JSON object with the parts of a twin.
    #[error("the answer is not a twin")]
    NoTwin,
    /// It is the twin of another device or module than was asked for.
    #[error("the answer is a different twin")]
    Another,
}

impl Row {
    /// Reads a row; `hub` is the hub that was queried.
    ///
    /// # Errors
    /// It is not a twin.
    pub fn read(hub: &HubName, value: Value) -> Result<Self, NotATwin> {
        let Value::Object(mut body) = value else {
            return Err(NotATwin::NoTwin);
        };
        let TwinReference { key, version } = TwinReference::of(hub, &body)?;
        body.remove("version");
        let mut twin = sections(body).map_err(|_| NotATwin::NoTwin)?;
        // The service writes absent fields as null; a document omits them.
        twin.root.retain(|_, value| !value.is_null());
        Ok(Self { key, version, twin })
    }

    /// The newest change according to the twin's metadata. Tags have no metadata, so they may have changed later.
    pub fn last_updated(&self) -> Option<Ticks> {
        last_updated(&self.twin)
    }
}

impl TwinReference {
    /// Reads a row, which may contain more than the reference; `hub` is the hub that was queried.
    ///
    /// # Errors
    /// It does not name a twin, or has no version of it.
    pub fn read(hub: &HubName, value: &Value) -> Result<Self, NotATwin> {
        Self::of(hub, value.as_object().ok_or(NotATwin::NoTwin)?)
    }

    fn of(hub: &HubName, body: &Map<String, Value>) -> Result<Self, NotATwin> {
        let id = |name| body.get(name).and_then(Value::as_str).filter(|id| !id.is_empty()).map(str::to_owned);
        let device = id("deviceId").ok_or(NotATwin::NoTwin)?;
        let key = TwinKey { hub: hub.clone(), device, module: id("moduleId") };
        let version = body.get("version").and_then(version).ok_or(NotATwin::NoTwin)?;
        Ok(Self { key, version })
    }
}

impl From<Row> for TwinReference {
    fn from(Row { key, version, twin: _ }: Row) -> Self {
        Self { key, version }
    }
}

impl RegistryTwin {
    /// Reads the answer to a point read of `key`, given at the hub's time `at`.
    ///
    /// # Errors
    /// It is not a twin, or it is another twin.
    pub fn read(key: &TwinKey, value: Value, at: Ticks) -> Result<Self, NotATwin> {
        let Row { key: found, version, twin } = Row::read(&key.hub, value)?;
        if found != *key {
            return Err(NotATwin::Another);
        }
        Ok(Self { key: found, version, twin, at })
    }
}

/// The newest `$lastUpdated` of the property sections.
pub(super) fn last_updated(twin: &Sections) -> Option<Ticks> {
    written_at(twin).max()
}

/// When the property sections were last written, if they say so.
fn written_at(twin: &Sections) -> impl Iterator<Item = Ticks> {
    [&twin.desired, &twin.reported].into_iter().flatten().filter_map(section_written_at)
}

fn section_written_at(section: &Section) -> Option<Ticks> {
    Ticks::parse(section.get("$metadata")?.get("$lastUpdated")?.as_str()?)
}

/// The time shown for a section that was never written.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Whether the hub's answer is an earlier state than the one that `stored` has seen, as after a failover. Then other
/// twins may have gone back too, and no event reports those that do not change afterwards.
///
/// Versions of a twin and of its sections only grow, unless the twin is created again. In that case, its sections were
/// written after everything that the document holds, if they have times. If the deletion of a twin was undone, its
/// sections were written before the deletion.
pub fn went_back(stored: &Document, version: TwinVersion, twin: &Sections, tolerance: Duration) -> bool {
    let never = Ticks::parse(NEVER);
    let written = || written_at(twin).filter(|written| Some(*written) != never);
    let outlived = |ended: Ticks| written().any(|written| written.after(tolerance) < ended);
    let ended = match stored.state {
        State::Live { .. } | State::Partial { .. } => stored.previous,
        State::Deleted => Some(stored.last),
    };
    let is_behind = stored.twin().is_some_and(|held| {
        let sections = [(&held.desired, &twin.desired), (&held.reported, &twin.reported)];
        let mut sections =
            sections.into_iter().filter_map(|(held, answered)| Some((held, answered.as_ref()?)));
        version < held.version
            || (version == held.version && is_another_content(stored, version, twin))
            || sections.any(|(held, answered)| is_another_write(held, answered))
    });
    let is_new = written().filter(|written| *written > stored.last).count() == 2;
    (is_behind && !is_new) || ended.is_some_and(outlived)
}

/// Whether a document without skipped versions up to `version` has other content than the hub's answer of that version.
fn is_another_content(stored: &Document, version: TwinVersion, twin: &Sections) -> bool {
    matches!(stored.state, State::Live { .. })
        && !stored.flags.contains(&Flag::Gap)
        && matches!(
            drift(Some(stored), Some((version, twin)), Strictness::Content),
            Some(Drift::Different(_))
        )
}

/// Whether a section in the hub's answer does not follow the stored one: its version is lower, or the version is the
/// same but the time of the write differs.
fn is_another_write(stored: &Section, answered: &Section) -> bool {
    let version = |section: &Section| section.get("$version").and_then(Value::as_i64);
    match (version(stored), version(answered)) {
        (Some(stored_version), Some(answered_version)) => match answered_version.cmp(&stored_version) {
            Ordering::Less => true,
            Ordering::Equal => {
                let times = (section_written_at(stored), section_written_at(answered));
                matches!(times, (Some(stored), Some(answered)) if stored != answered)
            }
            Ordering::Greater => false,
        },
        (Some(_) | None, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::{
        decide::{Rules, decide},
        event::{Change, TwinEvent},
        id::DocumentIdScheme,
    };

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
    fn a_reference_is_read_from_its_columns_and_from_a_whole_twin() {
        let module = json!({"deviceId": "d", "moduleId": "m", "version": 7});
        let reference = |key| TwinReference { key, version: TwinVersion(7) };
        assert_eq!(TwinReference::read(&"h".into(), &module), Ok(reference(TwinKey::module("h", "d", "m"))));
        let whole = json!({"deviceId": "d", "version": 7, "tags": {"a": 1}, "properties": {"desired": {}}});
        assert_eq!(TwinReference::read(&"h".into(), &whole), Ok(reference(TwinKey::device("h", "d"))));
        let row = Row::read(&"h".into(), whole).expect("a row");
        assert_eq!(TwinReference::from(row), reference(TwinKey::device("h", "d")));
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
            assert_eq!(Row::read(&"h".into(), value).map(|row| row.key), Err(NotATwin::NoTwin));
        }
        for value in [json!(null), json!({"deviceId": "", "version": 1}), json!({"deviceId": "d"})] {
            assert_eq!(TwinReference::read(&"h".into(), &value), Err(NotATwin::NoTwin), "{value}");
        }
        assert_eq!(RegistryTwin::read(&key, answer(), Ticks::new(0)), Err(NotATwin::Another));
        let module = TwinKey::module("h", "d", "m");
        assert_eq!(RegistryTwin::read(&module, answer(), Ticks::new(0)), Err(NotATwin::Another));
    }

    #[test]
    fn a_twin_that_went_back_is_told_from_one_that_was_created_anew() {
        let second =
            |second: i64| Ticks::parse("2031-01-01T00:00:00Z").expect("a time").get() + second * 10_000_000;
        let key = TwinKey::device("h", "d");
        let twin = |desired: &str, reported: &str| {
            let section = |at| json!({"$version": 1, "$metadata": {"$lastUpdated": at}}).as_object().cloned();
            Sections { desired: section(desired), reported: section(reported), ..Sections::default() }
        };
        let (early, late) = ("2031-01-01T00:00:01Z", "2031-01-01T00:10:00Z");
        let document = |events: &[(i64, Change)]| {
            let rules = Rules {
                id_scheme: DocumentIdScheme::Device,
                tombstone_ttl_seconds: 60,
                clock_tolerance: Duration::ZERO,
                forgets_after: None,
            };
            let mut document = None;
            for (at, change) in events.iter().cloned() {
                let event = TwinEvent { key: key.clone(), at: Ticks::new(second(at)), change };
                decide(&mut document, &event, Ticks::new(0), &rules);
            }
            document.expect("stored")
        };
        let created = |at| (at, Change::Created { version: TwinVersion(2), twin: twin(early, early) });
        let update = |at, version| {
            (at, Change::Updated { version: TwinVersion(version), patch: Sections::default().into() })
        };
        let live = document(&[created(1), update(2, 3), update(60, 4)]);
        let deleted = document(&[created(1), (60, Change::Deleted)]);
        let again = document(&[created(1), (60, Change::Deleted), update(90, 3)]);
        for (stored, version, twin, expected) in [
            (&live, 3, twin(early, early), true),
            (&live, 3, twin(early, late), true),
            (&live, 3, twin(late, NEVER), true),
            (&live, 3, twin(late, late), false),
            (&live, 3, twin("2031-01-01T00:01:00Z", "2031-01-01T00:01:00Z"), true),
            (&live, 3, twin(NEVER, NEVER), true),
            (&live, 4, twin(early, early), false),
            (&live, 4, twin(early, late), true),
            (&live, 9, twin(early, late), true),
            (&live, 9, twin(late, late), false),
            (&live, 9, twin(early, early), false),
            (&deleted, 3, twin(early, late), true),
            (&deleted, 3, twin(late, late), false),
            (&deleted, 2, twin(NEVER, NEVER), false),
            (&again, 3, twin(early, late), true),
            (&again, 3, twin(late, late), false),
        ] {
            let found = went_back(stored, TwinVersion(version), &twin, Duration::ZERO);
            assert_eq!(found, expected, "{version} {twin:?} over {stored:?}");
        }
        let tagged = Sections { tags: json!({"a": 1}).as_object().cloned(), ..twin(early, early) };
        let with_gap = document(&[created(1), update(2, 3), update(60, 5)]);
        for (stored, version, expected) in [(&live, 4, true), (&with_gap, 5, false)] {
            let found = went_back(stored, TwinVersion(version), &tagged, Duration::ZERO);
            assert_eq!(found, expected, "other content under the same version, over {stored:?}");
        }
        let shortly_after = twin("2031-01-01T00:00:57Z", late);
        assert!(went_back(&deleted, TwinVersion(3), &shortly_after, Duration::ZERO));
        assert!(went_back(&deleted, TwinVersion(3), &shortly_after, Duration::from_secs(2)));
        assert!(!went_back(&deleted, TwinVersion(3), &shortly_after, Duration::from_secs(3)));
    }
}

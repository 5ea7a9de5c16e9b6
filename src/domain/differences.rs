//! The differences between a document and the hub's twin, value by value, for people.
//!
//! [`drift`](super::drift::drift) decides whether they differ; this module finds where, by the same rules.

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    document::Twin,
    merge::{self, Section},
    twin::{ETAGS, Sections, TwinVersion},
};

/// A value that differs between the two sides.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Its place in a twin, as a JSON Pointer (RFC 6901), e.g. `/properties/desired/rate`.
    pub path: String,
    /// The value in the document; `None` if it has none.
    pub stored: Option<Value>,
    /// The value in the hub; `None` if it has none.
    pub hub: Option<Value>,
}

/// The differences found, and whether there are more than were asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Differences {
    /// The differences, in the order of their paths within each section.
    pub found: Vec<Difference>,
    /// Whether the search stopped because `most` were found.
    pub more: bool,
}

/// The first `most` differences between `stored` and the hub's twin. `$metadata` and everything that events do not keep
/// up to date are not compared: see [`super::drift`].
pub fn differences(stored: &Twin, version: TwinVersion, twin: &Sections, most: usize) -> Differences {
    let mut walk = Walk { differences: Differences::default(), most };
    if stored.version != version {
        walk.note("/version", Some(&Value::from(stored.version.0)), Some(&Value::from(version.0)));
    }
    let held = stored.root.iter().filter(|(name, _)| !ETAGS.contains(&name.as_str()));
    for (name, value) in held {
        walk.value(&format!("/{}", escaped(name)), Some(value), twin.root.get(name));
    }
    let nothing = Section::new();
    for (path, stored, twin) in [
        ("/tags", &stored.tags, &twin.tags),
        ("/properties/desired", &stored.desired, &twin.desired),
        ("/properties/reported", &stored.reported, &twin.reported),
    ] {
        let twin = twin.as_ref().unwrap_or(&nothing);
        // Only a section has metadata at its top level.
        let content = |section: &Section| -> Section {
            let kept = section.iter().filter(|(name, _)| *name != "$metadata");
            kept.map(|(name, value)| (name.clone(), value.clone())).collect()
        };
        walk.objects(path, &content(stored), &content(twin));
    }
    walk.differences
}

struct Walk {
    differences: Differences,
    most: usize,
}

impl Walk {
    fn objects(&mut self, path: &str, stored: &Map<String, Value>, hub: &Map<String, Value>) {
        for (name, value) in stored {
            self.value(&format!("{path}/{}", escaped(name)), Some(value), hub.get(name));
        }
        for (name, value) in hub.iter().filter(|(name, _)| !stored.contains_key(*name)) {
            self.value(&format!("{path}/{}", escaped(name)), None, Some(value));
        }
    }

    fn value(&mut self, path: &str, stored: Option<&Value>, hub: Option<&Value>) {
        match (stored, hub) {
            (Some(stored), Some(hub)) if merge::same_value(stored, hub) => {}
            (Some(Value::Object(stored)), Some(Value::Object(hub))) => self.objects(path, stored, hub),
            // Arrays are replaced whole, so they are compared whole.
            (stored, hub) => self.note(path, stored, hub),
        }
    }

    fn note(&mut self, path: &str, stored: Option<&Value>, hub: Option<&Value>) {
        if self.differences.found.len() == self.most {
            self.differences.more = true;
            return;
        }
        let (stored, hub) = (stored.cloned(), hub.cloned());
        self.differences.found.push(Difference { path: path.to_owned(), stored, hub });
    }
}

/// A name, escaped as a part of a JSON Pointer.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::{
        document::{Document, State},
        drift::{Drift, Strictness, drift},
        testing::document,
    };

    fn section(value: Value) -> Section {
        value.as_object().expect("an object").clone()
    }

    fn stored() -> Twin {
        Twin {
            version: TwinVersion(7),
            root: section(json!({"etag": "old", "status": "enabled"})),
            tags: section(json!({"a": 1, "list": [1, 2]})),
            desired: section(json!({"x": {"y": 1, "z/~": true}, "$version": 2, "$metadata": {"x": {}}})),
            reported: section(json!({"$version": 1})),
        }
    }

    fn hub(change: impl Fn(&mut Sections)) -> Sections {
        let twin = stored();
        let mut sections = Sections {
            root: section(json!({"etag": "new", "status": "enabled", "capabilities": {"iotEdge": false}})),
            tags: Some(section(json!({"a": 1.0, "list": [1, 2]}))),
            desired: Some(twin.desired),
            reported: Some(twin.reported),
        };
        change(&mut sections);
        sections
    }

    /// The differences as `path stored hub`; agrees with `drift`.
    fn found(version: i64, twin: &Sections) -> Vec<String> {
        let found = differences(&stored(), TwinVersion(version), twin, 100).found;
        let state = State::Live { born: None, twin: stored() };
        let document = Document { state, ..document(7) };
        let drift = drift(Some(&document), Some((TwinVersion(version), twin)), Strictness::Content);
        assert_eq!(matches!(drift, Some(Drift::Different(_))), !found.is_empty(), "{drift:?} {found:?}");
        let shown = |value: &Option<Value>| value.as_ref().map_or("-".to_owned(), Value::to_string);
        found.iter().map(|it| format!("{} {} {}", it.path, shown(&it.stored), shown(&it.hub))).collect()
    }

    #[test]
    fn what_is_the_same_by_the_rules_of_drift_is_no_difference() {
        let metadata = |twin: &mut Sections| {
            let desired = twin.desired.as_mut().expect("there");
            desired.insert("$metadata".into(), json!({"$lastUpdated": "2031-01-01T00:00:00Z"}));
        };
        assert_eq!(found(7, &hub(metadata)), Vec::<String>::new());
    }

    #[test]
    fn every_value_that_differs_is_named_with_both_sides() {
        let twin = hub(|twin| {
            twin.root.insert("status".into(), json!("disabled"));
            let tags = twin.tags.as_mut().expect("there");
            tags.insert("list".into(), json!([1, 3]));
            tags.insert("new".into(), json!({"deep": null}));
            let desired = twin.desired.as_mut().expect("there");
            desired.insert("x".into(), json!({"y": 1}));
            twin.reported = None;
        });
        let expected = [
            "/version 7 8",
            "/status \"enabled\" \"disabled\"",
            "/tags/list [1,2] [1,3]",
            "/tags/new - {\"deep\":null}",
            "/properties/desired/x/z~1~0 true -",
            "/properties/reported/$version 1 -",
        ];
        assert_eq!(found(8, &twin), expected);
    }

    #[test]
    fn no_more_are_told_than_asked_for() {
        let many: Section = (0..50).map(|number| (format!("n{number:02}"), json!(number))).collect();
        let twin = hub(|twin| twin.tags = Some(many.clone()));
        let Differences { found, more } = differences(&stored(), TwinVersion(7), &twin, 10);
        assert_eq!((found.len(), more), (10, true));
        let Differences { found, more } = differences(&stored(), TwinVersion(7), &twin, 52);
        assert_eq!((found.len(), more), (52, false), "all differences");
    }
}

//! How a document differs from the hub's twin.
//!
//! The comparison covers what events keep up to date: version, tags, desired and reported properties, and the root
//! fields that the document holds. `$metadata` is compared only on request. Root fields change without any event, so a
//! document made by events does not hold them. That is not a difference; it is reported separately as *incomplete*. The
//! hub's ETags are never compared, because no event contains the new ETag.

use super::{
    document::{Document, Twin},
    merge::{self, Section},
    twin::{ETAGS, Sections, TwinVersion},
};

/// How strict the comparison is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// Without `$metadata`.
    Content,
    /// With `$metadata`.
    Metadata,
}

/// The classes of difference, the most serious first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Drift {
    /// The hub has the twin, but there is no document, or only a tombstone.
    Missing,
    /// There is a document, but the hub does not have the twin.
    Extra,
    /// Their contents differ.
    Different(Part),
    /// The contents are equal, or were not compared, and the document is flagged.
    Flagged,
    /// The contents are equal, but the document lacks fields of the identity, because no event contains them. What it
    /// holds is right.
    Incomplete,
}

/// The first part that differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The tags.
    Tags,
    /// The desired properties.
    Desired,
    /// The reported properties.
    Reported,
    /// A field of the root, such as `status`.
    Root,
    /// The version only.
    Version,
    /// `$metadata` only.
    Metadata,
    /// The stored item is not a document.
    Damaged,
}

/// The class of documents that claim to be the document of a twin but are not: nothing updates them.
pub const ORPHAN: &str = "orphan";

/// The class of documents that are right but lack fields of the identity.
pub const INCOMPLETE: &str = "incomplete";

impl Drift {
    /// The name of its class in reports and metrics.
    pub const fn class(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Different(_) => "different",
            Self::Flagged => "flagged",
            Self::Incomplete => INCOMPLETE,
        }
    }

    /// The names of the classes of wrong or flagged documents.
    pub const CLASSES: [&'static str; 4] = ["missing", "extra", "different", "flagged"];
}

impl Part {
    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tags => "tags",
            Self::Desired => "desired",
            Self::Reported => "reported",
            Self::Root => "root",
            Self::Version => "version",
            Self::Metadata => "metadata",
            Self::Damaged => "damaged",
        }
    }
}

/// How `document` differs from the hub's twin, if it does. If the hub does not have the twin, an absent document is no
/// difference, and neither is a tombstone.
pub fn drift(
    document: Option<&Document>,
    twin: Option<(TwinVersion, &Sections)>,
    strictness: Strictness,
) -> Option<Drift> {
    let stored = document.and_then(Document::twin);
    match (stored, twin) {
        (None, Some(_)) => return Some(Drift::Missing),
        (Some(_), None) => return Some(Drift::Extra),
        (None, None) => {}
        (Some(stored), Some((version, twin))) => {
            if let Some(part) = difference(stored, version, twin, strictness) {
                return Some(Drift::Different(part));
            }
        }
    }
    if document.is_some_and(Document::is_flagged) {
        return Some(Drift::Flagged);
    }
    let (stored, (_, twin)) = stored.zip(twin)?;
    let lacks = |name: &&str| twin.root.contains_key(*name) && !stored.root.contains_key(*name);
    IDENTITY.iter().any(lacks).then_some(Drift::Incomplete)
}

/// Root fields that belong to the identity of a device or module, beside its ETag (the `Twin` definition of `api-version=2021-04-12`).
const IDENTITY: [&str; 9] = [
    "status",
    "statusReason",
    "statusUpdateTime",
    "authenticationType",
    "x509Thumbprint",
    "modelId",
    "capabilities",
    "deviceScope",
    "parentScopes",
];

fn difference(stored: &Twin, version: TwinVersion, twin: &Sections, strictness: Strictness) -> Option<Part> {
    let nothing = Section::new();
    let sections = [
        (Part::Tags, &stored.tags, &twin.tags),
        (Part::Desired, &stored.desired, &twin.desired),
        (Part::Reported, &stored.reported, &twin.reported),
    ];
    for (part, stored, twin) in sections {
        if !same_content(stored, twin.as_ref().unwrap_or(&nothing)) {
            return Some(part);
        }
    }
    let held = stored.root.iter().filter(|(name, _)| !ETAGS.contains(&name.as_str()));
    for (name, value) in held {
        // A field that the hub has dropped is a difference; a field that no event ever contains is not.
        if !twin.root.get(name).is_some_and(|theirs| merge::same_value(value, theirs)) {
            return Some(Part::Root);
        }
    }
    if stored.version != version {
        return Some(Part::Version);
    }
    // Compared as it would be stored: the service keeps the metadata of removed properties.
    let same = |stored: &Section, twin: &Option<Section>| {
        merge::same(stored, &merge::whole(twin.as_ref().unwrap_or(&nothing)))
    };
    let strict =
        strictness == Strictness::Metadata && sections.iter().any(|(_, stored, twin)| !same(stored, twin));
    strict.then_some(Part::Metadata)
}

/// Equality without `$metadata`, which exists only at the top level of a section.
fn same_content(left: &Section, right: &Section) -> bool {
    let content = |section: &Section| section.len() - usize::from(section.contains_key("$metadata"));
    content(left) == content(right)
        && left
            .iter()
            .filter(|(name, _)| *name != "$metadata")
            .all(|(name, value)| right.get(name).is_some_and(|other| merge::same_value(value, other)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;
    use crate::domain::{
        document::{Flag, Operation, State},
        id::TwinKey,
        registry::Row,
        ticks::Ticks,
    };

    fn row(change: impl Fn(&mut Value)) -> Row {
        let mut body = json!({
            "deviceId": "d", "version": 7, "etag": "new", "deviceEtag": "x", "status": "enabled", "modelId": "dtmi:a;1",
            "tags": {"a": 1.0},
            "properties": {
                "desired": {"x": {"y": 1}, "$version": 2, "$metadata": {"$lastUpdated": "2031-01-01T00:00:00Z", "gone": {}}},
                "reported": {"$version": 1}
            }
        });
        change(&mut body);
        Row::read(&"h".into(), body).expect("a twin")
    }

    fn document() -> Document {
        let section = |value: Value| value.as_object().expect("an object").clone();
        Document {
            id: "d".into(),
            key: TwinKey::device("h", "d"),
            state: State::Live {
                born: None,
                twin: Twin {
                    version: TwinVersion(7),
                    root: section(json!({"etag": "old", "status": "enabled"})),
                    tags: section(json!({"a": 1})),
                    desired: section(
                        json!({"x": {"y": 1}, "$version": 2, "$metadata": {"$lastUpdated": "2031-01-01T00:00:00Z"}}),
                    ),
                    reported: section(json!({"$version": 1})),
                },
            },
            last: Ticks::new(1),
            flags: BTreeSet::new(),
            refused: None,
            previous: None,
            confirmed_until: None,
            cascade: None,
            applied_at: Ticks::new(1),
            operation: Operation::Update,
            ttl_seconds: None,
        }
    }

    fn found(document: Option<&Document>, row: Option<&Row>, strictness: Strictness) -> Option<Drift> {
        drift(document, row.map(|row| (row.version, &row.twin)), strictness)
    }

    #[test]
    fn etags_and_the_spelling_of_numbers_are_no_difference() {
        for strictness in [Strictness::Content, Strictness::Metadata] {
            let row = row(|body| body["modelId"] = json!(null));
            assert_eq!(found(Some(&document()), Some(&row), strictness), None);
        }
    }

    #[test]
    fn fields_that_events_never_bring_make_a_document_incomplete_and_nothing_worse() {
        let incomplete = Some(Drift::Incomplete);
        assert_eq!(found(Some(&document()), Some(&row(|_| {})), Strictness::Content), incomplete);
        let flagged = Document { flags: BTreeSet::from([Flag::Gap]), ..document() };
        assert_eq!(found(Some(&flagged), Some(&row(|_| {})), Strictness::Content), Some(Drift::Flagged));
        let other = row(|body| body["tags"]["b"] = json!(2));
        let tags = Some(Drift::Different(Part::Tags));
        assert_eq!(found(Some(&document()), Some(&other), Strictness::Content), tags);
    }

    #[test]
    fn classes_and_parts_have_the_names_of_the_reports() {
        let drifts = [Drift::Missing, Drift::Extra, Drift::Different(Part::Tags), Drift::Flagged];
        assert_eq!(drifts.map(Drift::class), Drift::CLASSES);
        assert_eq!(Drift::Incomplete.class(), "incomplete");
        let parts = [
            Part::Tags,
            Part::Desired,
            Part::Reported,
            Part::Root,
            Part::Version,
            Part::Metadata,
            Part::Damaged,
        ];
        let names = ["tags", "desired", "reported", "root", "version", "metadata", "damaged"];
        assert_eq!(parts.map(Part::name), names);
    }

    #[test]
    fn a_section_without_metadata_has_the_same_content() {
        let without = row(|body| {
            body["modelId"] = json!(null);
            body["properties"]["desired"].as_object_mut().expect("a section").remove("$metadata");
        });
        assert_eq!(found(Some(&document()), Some(&without), Strictness::Content), None);
    }

    #[test]
    fn every_part_is_compared() {
        type Change = fn(&mut Value);
        let cases: [(Part, Change); 6] = [
            (Part::Tags, |body| body["tags"]["b"] = json!(2)),
            (Part::Tags, |body| body["tags"] = json!(null)),
            (Part::Desired, |body| body["properties"]["desired"]["x"]["y"] = json!([1])),
            (Part::Reported, |body| body["properties"]["reported"]["$version"] = json!(2)),
            (Part::Root, |body| body["status"] = json!("disabled")),
            (Part::Version, |body| body["version"] = json!(6)),
        ];
        for (part, change) in cases {
            let differs = found(Some(&document()), Some(&row(change)), Strictness::Content);
            assert_eq!(differs, Some(Drift::Different(part)));
        }
    }

    #[test]
    fn metadata_count_only_where_asked_for() {
        let other = row(|body| {
            body["properties"]["desired"]["$metadata"]["$lastUpdated"] = json!("2031-01-01T00:00:01Z");
        });
        let content = found(Some(&document()), Some(&other), Strictness::Content);
        assert_eq!(content, Some(Drift::Incomplete), "no difference of the content");
        let strict = found(Some(&document()), Some(&other), Strictness::Metadata);
        assert_eq!(strict, Some(Drift::Different(Part::Metadata)));
    }

    #[test]
    fn presence_is_compared_on_both_sides() {
        let tombstone = Document { state: State::Deleted, ..document() };
        let twin = row(|_| {});
        for absent in [None, Some(&tombstone)] {
            assert_eq!(found(absent, Some(&twin), Strictness::Content), Some(Drift::Missing));
            assert_eq!(found(absent, None, Strictness::Content), None);
        }
        assert_eq!(found(Some(&document()), None, Strictness::Content), Some(Drift::Extra));
    }

    #[test]
    fn a_flag_is_told_even_where_nothing_differs() {
        let twin = row(|_| {});
        let flagged = Document { flags: BTreeSet::from([Flag::Gap]), ..document() };
        assert_eq!(found(Some(&flagged), Some(&twin), Strictness::Content), Some(Drift::Flagged));
        let tombstone = Document { state: State::Deleted, ..flagged };
        assert_eq!(found(Some(&tombstone), None, Strictness::Content), Some(Drift::Flagged));
    }
}

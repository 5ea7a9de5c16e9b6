//! What a reader requires who has changed a twin in the hub and wants to read that change in the copy.
//!
//! A version counts within one incarnation of a twin: a device that is deleted and created again starts from the
//! beginning. So a version alone cannot distinguish the new twin from a copy of the old one whose deletion has not
//! arrived yet; a time can.

use serde_json::Value;

use super::{
    document::{Document, Twin},
    merge::Section,
    ticks::Ticks,
    twin::TwinVersion,
};

/// Conditions that a document must meet; all of them must hold. Without conditions, every existing document meets the
/// requirement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadRequirement {
    /// The minimum `version` of the twin.
    pub version: Option<TwinVersion>,
    /// The minimum `properties.desired.$version`.
    pub desired: Option<TwinVersion>,
    /// The minimum `properties.reported.$version`.
    pub reported: Option<TwinVersion>,
    /// The minimum time, by the hub's clock, of the newest change in the document.
    pub changed: Option<Ticks>,
    /// The document must not be flagged: with a gap, a change of a lower version may be missing.
    pub unflagged: bool,
}

impl ReadRequirement {
    /// The names of the conditions in requests.
    pub const NAMES: [&str; 5] =
        ["min_version", "min_desired_version", "min_reported_version", "min_time", "unflagged"];

    /// Reads the conditions of a request; `value` returns the value of a name, if there is one.
    ///
    /// # Errors
    /// One sentence that says what to write. It repeats no value, because a token may be there by mistake.
    pub fn read<'a>(value: impl Fn(&str) -> Option<&'a str>) -> Result<Self, String> {
        let version = |name: &str| {
            let version = |text: &str| match text.parse::<i64>() {
                Ok(version) if version >= 0 => Ok(TwinVersion(version)),
                Ok(_) | Err(_) => Err(format!("{name} is not a whole number of 0 or more")),
            };
            value(name).map(version).transpose()
        };
        let time = |text: &str| {
            Ticks::parse(text).ok_or_else(|| "min_time is not a time such as 2031-01-31T08:00:00Z".to_owned())
        };
        Ok(Self {
            version: version("min_version")?,
            desired: version("min_desired_version")?,
            reported: version("min_reported_version")?,
            changed: value("min_time").map(time).transpose()?,
            unflagged: match value("unflagged") {
                Some("true") => true,
                Some("false") | None => false,
                Some(_) => return Err("unflagged is neither true nor false".to_owned()),
            },
        })
    }

    /// Whether there is any condition.
    pub fn is_something(&self) -> bool {
        *self != Self::default()
    }

    /// Whether a document meets the requirement. An absent or deleted twin never does.
    pub fn is_met_by(&self, document: Option<&Document>) -> bool {
        let Some((document, twin)) = document.and_then(|document| Some((document, document.twin()?))) else {
            return false;
        };
        let Self { version, desired, reported, changed, unflagged } = *self;
        version.is_none_or(|least| twin.version >= least)
            && desired.is_none_or(|least| section_version(&twin.desired) >= Some(least))
            && reported.is_none_or(|least| section_version(&twin.reported) >= Some(least))
            && changed.is_none_or(|least| document.last >= least)
            && !(unflagged && document.is_flagged())
    }
}

/// Versions of a twin and of its sections, if present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The version of the twin.
    pub twin: TwinVersion,
    /// The version of the desired properties.
    pub desired: Option<TwinVersion>,
    /// The version of the reported properties.
    pub reported: Option<TwinVersion>,
}

impl Versions {
    /// The versions of a twin.
    pub fn of(twin: &Twin) -> Self {
        Self {
            twin: twin.version,
            desired: section_version(&twin.desired),
            reported: section_version(&twin.reported),
        }
    }
}

fn section_version(section: &Section) -> Option<TwinVersion> {
    section.get("$version").and_then(Value::as_i64).map(TwinVersion)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::{
        document::{Flag, State},
        testing::document,
    };

    /// Version 7, desired 3, reported 5, changed at second 100.
    fn stored() -> Document {
        let mut stored = document(7);
        stored.last = Ticks::new(100);
        if let State::Live { twin, .. } = &mut stored.state {
            twin.desired.insert("$version".into(), json!(3));
            twin.reported.insert("$version".into(), json!(5));
        }
        stored
    }

    #[test]
    fn conditions_are_read_from_their_names() {
        let of = |pairs: &'static [(&str, &str)]| {
            ReadRequirement::read(|name| {
                pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
            })
        };
        assert_eq!(of(&[]), Ok(ReadRequirement::default()));
        let all = of(&[
            ("min_version", "0"),
            ("min_desired_version", "2"),
            ("min_reported_version", "3"),
            ("min_time", "2031-01-31T08:00:00Z"),
            ("unflagged", "true"),
        ]);
        let expected = ReadRequirement {
            version: Some(TwinVersion(0)),
            desired: Some(TwinVersion(2)),
            reported: Some(TwinVersion(3)),
            changed: Ticks::parse("2031-01-31T08:00:00Z"),
            unflagged: true,
        };
        assert_eq!(all, Ok(expected));
        assert_eq!(of(&[("unflagged", "false")]), Ok(ReadRequirement::default()));
        for name in ReadRequirement::NAMES {
            for value in ["-1", "x", ""] {
                let error = ReadRequirement::read(|asked| (asked == name).then_some(value)).expect_err(name);
                assert!(error.starts_with(name), "{error}");
            }
        }
    }

    #[test]
    fn each_condition_holds_from_its_bound_on() {
        let nothing = ReadRequirement::default();
        let version = TwinVersion;
        for (requirement, met) in [
            (nothing, true),
            (ReadRequirement { version: Some(version(7)), ..nothing }, true),
            (ReadRequirement { version: Some(version(8)), ..nothing }, false),
            (ReadRequirement { desired: Some(version(3)), ..nothing }, true),
            (ReadRequirement { desired: Some(version(4)), ..nothing }, false),
            (ReadRequirement { reported: Some(version(5)), ..nothing }, true),
            (ReadRequirement { reported: Some(version(6)), ..nothing }, false),
            (ReadRequirement { changed: Some(Ticks::new(100)), ..nothing }, true),
            (ReadRequirement { changed: Some(Ticks::new(101)), ..nothing }, false),
            (ReadRequirement { version: Some(version(6)), desired: Some(version(4)), ..nothing }, false),
            (ReadRequirement { unflagged: true, ..nothing }, true),
        ] {
            assert_eq!(requirement.is_met_by(Some(&stored())), met, "{requirement:?}");
            assert_eq!(requirement.is_something(), requirement != nothing);
        }
    }

    #[test]
    fn who_wants_it_unflagged_waits_until_no_flag_is_left() {
        let flagged = Document { flags: [Flag::Gap].into(), ..stored() };
        let reached = ReadRequirement { version: Some(TwinVersion(7)), ..ReadRequirement::default() };
        assert!(reached.is_met_by(Some(&flagged)));
        assert!(!ReadRequirement { unflagged: true, ..reached }.is_met_by(Some(&flagged)));
        assert!(ReadRequirement { unflagged: true, ..reached }.is_met_by(Some(&stored())));
    }

    #[test]
    fn a_twin_that_is_not_there_meets_nothing_and_sections_without_a_version_are_before_any() {
        let deleted = Document { state: State::Deleted, ..stored() };
        for absent in [None, Some(&deleted)] {
            assert!(!ReadRequirement::default().is_met_by(absent));
        }
        let bare = document(7);
        let desired = ReadRequirement { desired: Some(TwinVersion(1)), ..ReadRequirement::default() };
        assert!(!desired.is_met_by(Some(&bare)));
        assert_eq!(Versions::of(bare.twin().expect("a twin")).desired, None);
        let versions = Versions::of(stored().twin().expect("a twin")).reported;
        assert_eq!(versions, Some(TwinVersion(5)));
    }
}

//! A merge patch as the hub sent it: kept as text until it is applied, and applied without building a tree.
//!
//! A parsed patch needs ten times the memory of its text while it waits in its lane, and most of what the parser
//! allocates is discarded afterwards. So a patch is checked once when it arrives, and merged into the document while it
//! is read for the second time. Memory is allocated only for what is new in the document.

mod check;
mod onto;

use std::fmt;

use bytes::Bytes;
use serde::de::DeserializeSeed;
use serde_json::{Map, Value};

use super::{
    body,
    document::Twin,
    merge,
    twin::{Sections, TwinVersion},
    undeliverable::Undeliverable,
};

/// A merge patch of a twin: the checked body of a change event.
#[derive(Clone)]
pub struct Patch {
    text: Bytes,
    counted: Counted,
}

/// The `$version` of the sections that count their writes, if the patch contains it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) desired: Option<i64>,
    pub(super) reported: Option<i64>,
}

/// The result of checking the body of a change.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) patch: Patch,
    /// The version after the patch, if the body contains it.
    pub(super) version: Option<TwinVersion>,
    /// `deviceId` and `moduleId`, if the body contains them.
    pub(super) ids: Map<String, Value>,
    /// Whether a section is neither an object nor null.
    pub(super) wrong_section: bool,
}

impl Patch {
    /// Checks the body of a change, which must not nest deeper than a document may.
    ///
    /// # Errors
    /// It is not JSON, or not an object.
    pub(super) fn check(text: Bytes) -> Result<Checked, Undeliverable> {
        let mut deserializer = serde_json::Deserializer::from_slice(&text);
        // The depth has been checked before.
        deserializer.disable_recursion_limit();
        let found = check::Body
            .deserialize(&mut deserializer)
            .and_then(|found| deserializer.end().map(|()| found))
            .map_err(|_| Undeliverable::NotJson)?;
        let check::Found { is_object, wrong_section, version, ids, counted } = found;
        match is_object {
            true => Ok(Checked { patch: Self { text, counted }, version, ids, wrong_section }),
            false => Err(Undeliverable::NotObject),
        }
    }

    /// The patch as a tree, for all uncommon cases.
    pub fn sections(&self) -> Sections {
        // The text was checked. If it still cannot be parsed, it is treated as empty.
        body::tree(&self.text).and_then(body::sections).unwrap_or_default()
    }

    /// The `$version` of the sections, if it contains them.
    pub(super) fn counted(&self) -> Counted {
        self.counted
    }

    /// Applies the patch to the content of a twin, except for the version.
    pub(super) fn apply(&self, twin: &mut Twin) {
        if self.apply_text(twin).is_err() {
            // A name occurs twice, first with a value that is not a section: only a tree shows which one counts. A
            // merge patch may be applied again to a twin that it has already changed in part.
            self.apply_tree(twin);
        }
    }

    fn apply_text(&self, twin: &mut Twin) -> serde_json::Result<()> {
        let mut deserializer = serde_json::Deserializer::from_slice(&self.text);
        deserializer.disable_recursion_limit();
        onto::Body(twin).deserialize(&mut deserializer)
    }

    fn apply_tree(&self, twin: &mut Twin) {
        let Sections { root, tags, desired, reported } = self.sections();
        twin.root.extend(root);
        for (section, patch) in
            [(&mut twin.tags, tags), (&mut twin.desired, desired), (&mut twin.reported, reported)]
        {
            if let Some(patch) = patch {
                merge::patch(section, &patch);
            }
        }
    }
}

impl fmt::Debug for Patch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Patch").field(&self.sections()).finish()
    }
}

impl PartialEq for Patch {
    fn eq(&self, other: &Self) -> bool {
        self.sections() == other.sections()
    }
}

impl From<Sections> for Patch {
    fn from(sections: Sections) -> Self {
        let Sections { root: mut body, tags, desired, reported } = sections;
        let version = |section: &Option<merge::Section>| section.as_ref()?.get(merge::VERSION)?.as_i64();
        let counted = Counted { desired: version(&desired), reported: version(&reported) };
        let mut properties = Map::new();
        for (name, section) in [("desired", desired), ("reported", reported)] {
            properties.extend(section.map(|section| (name.to_owned(), Value::Object(section))));
        }
        body.extend(tags.map(|tags| ("tags".to_owned(), Value::Object(tags))));
        if !properties.is_empty() {
            body.insert("properties".to_owned(), Value::Object(properties));
        }
        Self { text: Value::Object(body).to_string().into(), counted }
    }
}

#[cfg(test)]
mod tests;

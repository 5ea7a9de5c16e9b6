//! Merge rules of one twin section: RFC 7396 patches, maintenance of `$metadata`, and the notes that a partial document
//! needs so that a base can be put under it later.
//!
//! | patch value | effect on the key |
//! |---|---|
//! | `null` | deleted, at any depth, also inside objects that the patch creates |
//! | object | merged; onto a scalar, an array or nothing: onto `{}` |
//! | scalar, array | replaced whole |

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A section of a twin.
pub type Section = Map<String, Value>;

pub(super) const METADATA: &str = "$metadata";
/// The counter of writes to a section.
pub(super) const VERSION: &str = "$version";

/// Applies a merge patch to a section and removes the `$metadata` of properties that no longer exist.
pub fn patch(section: &mut Section, patch: &Section) {
    for (name, change) in patch {
        if change.is_null() {
            section.remove(name);
        } else {
            json_patch::merge(section.entry(name.as_str()).or_insert(Value::Null), change);
        }
    }
    prune_metadata(section);
}

/// The section whose complete content is `body`, without nulls: they are not values.
pub fn whole(body: &Section) -> Section {
    let mut section = Section::new();
    patch(&mut section, body);
    section
}

/// Equality, ignoring how numbers are written: a store that keeps doubles returns `1.0` as `1`.
pub fn same(left: &Section, right: &Section) -> bool {
    left.len() == right.len()
        && left.iter().all(|(name, value)| right.get(name).is_some_and(|other| same_value(value, other)))
}

/// The same comparison for single values.
pub(super) fn same_value(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left == right || left.as_f64() == right.as_f64(),
        (Value::Object(left), Value::Object(right)) => same(left, right),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same_value(left, right))
        }
        (left, right) => left == right,
    }
}

/// Removes `$metadata` entries whose property no longer exists.
///
/// The pruning by the service is known to be unreliable, and a patch that deletes or replaces an object says nothing
/// about the metadata inside it.
pub(super) fn prune_metadata(section: &mut Section) {
    let Some(Value::Object(mut metadata)) = section.remove(METADATA) else {
        return;
    };
    prune_level(&mut metadata, section);
    section.insert(METADATA.to_owned(), Value::Object(metadata));
}

fn prune_level(metadata: &mut Section, values: &Section) {
    // Names that start with `$` belong to the service: `$lastUpdated`, `$lastUpdatedVersion`, …
    metadata.retain(|name, _| name.starts_with('$') || values.contains_key(name));
    let nothing = Section::new();
    for (name, entry) in metadata.iter_mut().filter(|(name, _)| !name.starts_with('$')) {
        if let Value::Object(entry) = entry {
            prune_level(entry, values.get(name).and_then(Value::as_object).unwrap_or(&nothing));
        }
    }
}

/// The maximum size of the notes of one section, in bytes, as [`Notes::weight`] counts them. Without a limit, a sender
/// that deletes and sets new keys again and again before a base arrives would make the document too large for the
/// store.
const NOTES_BYTES_MAX: usize = 64 << 10;

/// The notes of a partial section. They are needed because a merge patch composed of several patches cannot express
/// "deleted, then set".
///
/// Paths are JSON Pointers. A key that is neither here nor in the content is unknown: the base decides.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Notes {
    /// The whole section was replaced, so nothing of a base remains.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub whole: bool,
    /// Keys that were deleted and not set again.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub deleted: BTreeSet<String>,
    /// Objects that were set after their key had held nothing or a scalar, so nothing of a base remains inside them.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub replaced: BTreeSet<String>,
    /// Keys that were deleted and set again: the deletion removed the base's `$metadata` for them.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub renewed: BTreeSet<String>,
    /// The notes exceeded their limit and were discarded. A base would then restore values that must not come back.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub given_up: bool,
}

impl Notes {
    /// Whether there are no notes.
    pub fn is_empty(&self) -> bool {
        let Self { whole, deleted, replaced, renewed, given_up } = self;
        !whole && !given_up && deleted.is_empty() && replaced.is_empty() && renewed.is_empty()
    }

    /// Approximate size of the notes in memory, in bytes.
    pub fn weight(&self) -> usize {
        // A string in a B-tree, and its allocation.
        let of = |paths: &BTreeSet<String>| paths.iter().map(|path| 64 + path.len()).sum::<usize>();
        of(&self.deleted) + of(&self.replaced) + of(&self.renewed)
    }

    /// Discards the notes: from now on, values of a base can no longer be distinguished from deleted ones. The note
    /// that the whole section was replaced needs no space and is kept.
    pub fn give_up(&mut self) {
        if !self.whole && !self.is_empty() {
            *self = Self { given_up: true, ..Self::default() };
        }
    }

    /// Records that the whole section was replaced.
    pub fn replace_all(&mut self) {
        *self = Self { whole: true, ..Self::default() };
    }

    /// Records what `patch` does to `content`, which is the section *before* the patch.
    pub fn record(&mut self, content: &Section, patch: &Section) {
        if self.whole || self.given_up {
            return;
        }
        self.record_level(content, patch, "");
        if self.weight() > NOTES_BYTES_MAX {
            self.give_up();
        }
    }

    fn record_level(&mut self, content: &Section, patch: &Section, prefix: &str) {
        let nothing = Section::new();
        for (name, change) in patch {
            let path = child(prefix, name);
            match change {
                Value::Null => {
                    self.forget(&path);
                    self.deleted.insert(path);
                }
                Value::Object(_) if self.replaced.contains(&path) => {}
                Value::Object(inner) => match content.get(name) {
                    Some(Value::Object(below)) => self.record_level(below, inner, &path),
                    None if !self.deleted.contains(&path) => self.record_level(&nothing, inner, &path),
                    Some(_) | None => {
                        self.set_anew(&path);
                        self.replaced.insert(path);
                    }
                },
                Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                    self.set_anew(&path);
                }
            }
        }
    }

    /// The value at `path` is new and does not depend on the previous value. Only `$metadata` of the key itself may
    /// have been kept.
    fn set_anew(&mut self, path: &str) {
        let renewed = self.deleted.contains(path) || self.renewed.contains(path);
        self.forget(path);
        if renewed {
            self.renewed.insert(path.to_owned());
        }
    }

    fn forget(&mut self, path: &str) {
        for paths in [&mut self.deleted, &mut self.replaced, &mut self.renewed] {
            if paths.is_empty() {
                continue;
            }
            paths.remove(path);
            // In string order, the paths inside a path sort between the path with `/` and the path with the character
            // after `/`.
            let below: Vec<_> = paths.range(format!("{path}/")..format!("{path}0")).cloned().collect();
            for path in below {
                paths.remove(&path);
            }
        }
    }

    /// Puts `base` under `content`: the stored content, its deletions and its whole replacements win.
    pub fn put_under(&self, base: &Section, content: Section) -> Section {
        if self.whole {
            return content;
        }
        let mut result = whole(base);
        if let Some(Value::Object(metadata)) = result.get_mut(METADATA) {
            for path in &self.renewed {
                remove(metadata, path);
            }
            for path in &self.replaced {
                if let Some(entry) = find(metadata, path) {
                    entry.retain(|name, _| name.starts_with('$'));
                }
            }
        }
        self.overlay(&mut result, content, "");
        for path in &self.deleted {
            remove(&mut result, path);
        }
        prune_metadata(&mut result);
        result
    }

    fn overlay(&self, base: &mut Section, content: Section, prefix: &str) {
        for (name, value) in content {
            let path = child(prefix, &name);
            match value {
                Value::Object(inner) if !self.replaced.contains(&path) => {
                    let mut below = match base.remove(&name) {
                        Some(Value::Object(below)) => below,
                        Some(_) | None => Section::new(),
                    };
                    self.overlay(&mut below, inner, &path);
                    base.insert(name, Value::Object(below));
                }
                value => {
                    base.insert(name, value);
                }
            }
        }
    }
}

fn child(prefix: &str, name: &str) -> String {
    format!("{prefix}/{}", name.replace('~', "~0").replace('/', "~1"))
}

fn name_of(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

/// The object at `path`, if there is one.
fn find<'a>(section: &'a mut Section, path: &str) -> Option<&'a mut Section> {
    path.split('/').skip(1).try_fold(section, |level, step| match level.get_mut(&name_of(step)) {
        Some(Value::Object(below)) => Some(below),
        Some(_) | None => None,
    })
}

fn remove(section: &mut Section, path: &str) {
    if let Some((parent, step)) = path.rsplit_once('/')
        && let Some(level) = find(section, parent)
    {
        level.remove(&name_of(step));
    }
}

#[cfg(test)]
mod tests;

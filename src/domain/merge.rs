//! Merge algebra of one twin section: RFC 7396 patches, `$metadata` upkeep, and what a partial document
//! has to remember so that a base can be put under it later.
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
/// The counter of a section's writes.
pub(super) const VERSION: &str = "$version";

/// Applies a merge patch to a section and drops `$metadata` of properties that no longer exist.
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

/// A section as it is when `body` is all of it: nulls are no values.
pub fn whole(body: &Section) -> Section {
    let mut section = Section::new();
    patch(&mut section, body);
    section
}

/// Equality, but for how numbers are spelt: a store that keeps doubles gives `1.0` back as `1`.
pub fn same(left: &Section, right: &Section) -> bool {
    left.len() == right.len()
        && left.iter().all(|(name, value)| right.get(name).is_some_and(|other| same_value(value, other)))
}

/// The same for single values.
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

/// Removes `$metadata` entries whose property is gone.
///
/// The service's own pruning is known to be unreliable, and a patch that deletes or replaces an object says
/// nothing about the metadata below it.
pub(super) fn prune_metadata(section: &mut Section) {
    let Some(Value::Object(mut metadata)) = section.remove(METADATA) else {
        return;
    };
    prune_level(&mut metadata, section);
    section.insert(METADATA.to_owned(), Value::Object(metadata));
}

fn prune_level(metadata: &mut Section, values: &Section) {
    // Names that start with `$` are the service's own: `$lastUpdated`, `$lastUpdatedVersion`, …
    metadata.retain(|name, _| name.starts_with('$') || values.contains_key(name));
    let nothing = Section::new();
    for (name, entry) in metadata.iter_mut().filter(|(name, _)| !name.starts_with('$')) {
        if let Value::Object(entry) = entry {
            prune_level(entry, values.get(name).and_then(Value::as_object).unwrap_or(&nothing));
        }
    }
}

/// What the notes of one section may hold, in bytes of their paths. Whoever deletes and sets ever new keys for as long as no base
/// comes would otherwise make a document that no store takes.
const NOTES_BYTES_MAX: usize = 64 << 10;

/// What a partial section must remember: a merge patch composed of several cannot say "deleted, then set".
///
/// Paths are JSON Pointers. A key that is neither here nor in the content is unknown: the base decides.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Notes {
    /// The whole section was replaced: nothing of a base shows through.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub whole: bool,
    /// Keys that were deleted and not set again.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub deleted: BTreeSet<String>,
    /// Objects that were set after their key had held nothing or a scalar: nothing of a base shows through.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub replaced: BTreeSet<String>,
    /// Keys that were deleted and set again: the base's `$metadata` of them went with the deletion.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub renewed: BTreeSet<String>,
    /// There was more to remember than is kept: a base would show through where it must not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub given_up: bool,
}

impl Notes {
    /// Whether there is nothing to remember.
    pub fn is_empty(&self) -> bool {
        let Self { whole, deleted, replaced, renewed, given_up } = self;
        !whole && !given_up && deleted.is_empty() && replaced.is_empty() && renewed.is_empty()
    }

    /// Bytes that they hold, roughly.
    pub fn weight(&self) -> usize {
        // A text in a B-tree, and its allocation.
        let of = |paths: &BTreeSet<String>| paths.iter().map(|path| 64 + path.len()).sum::<usize>();
        of(&self.deleted) + of(&self.replaced) + of(&self.renewed)
    }

    /// Forgets everything: what a base says can no longer be told from what was deleted. That the section was replaced whole
    /// takes no room and is kept.
    pub fn give_up(&mut self) {
        if !self.whole && !self.is_empty() {
            *self = Self { given_up: true, ..Self::default() };
        }
    }

    /// Notes that the section was replaced whole.
    pub fn replace_all(&mut self) {
        *self = Self { whole: true, ..Self::default() };
    }

    /// Notes what `patch` does to `content`, which is the section *before* the patch.
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

    /// A value stands at `path` that owes nothing to what was there; only `$metadata` of the key itself may
    /// have come through.
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
            // In the order of texts, what lies below a path stands between it with `/` and with what follows `/`.
            let below: Vec<_> = paths.range(format!("{path}/")..format!("{path}0")).cloned().collect();
            for path in below {
                paths.remove(&path);
            }
        }
    }

    /// Puts `base` under `content`: what is stored, its deletions and whole replacements win.
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

/// The object at `path`, where there is one.
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

//! Which terms an indexing policy puts into the index.

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
};

use serde_json::Value;

/// An indexing policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cosmos) struct Policy {
    is_on: bool,
    included: Vec<Pattern>,
    excluded: Vec<Pattern>,
}

/// A path of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    segments: Vec<String>,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// `/?`: the scalar at this path.
    Scalar,
    /// `/*`: everything below this path.
    Below,
}

/// The path segment for the elements of an array.
pub(super) const ELEMENT: &str = "[]";

impl Policy {
    /// Parses a policy in the form of the REST API.
    ///
    /// # Errors
    /// The policy is invalid. The text says why.
    pub(in crate::cosmos) fn read(policy: &Value) -> Result<Self, String> {
        let patterns = |name: &str| -> Result<Vec<Pattern>, String> {
            let paths = policy.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let path = |entry: &Value| {
                let path = entry.get("path").and_then(Value::as_str).ok_or("an entry has no path")?;
                Pattern::read(path)
                    .ok_or_else(|| format!("{path:?} is not a path that ends with /? or /* under {name}"))
            };
            paths.iter().map(path).collect()
        };
        let mode = policy.get("indexingMode").and_then(Value::as_str).unwrap_or("consistent");
        let is_on = match mode.to_ascii_lowercase().as_str() {
            "consistent" => true,
            "none" => false,
            _ => return Err(format!("the indexing mode {mode:?} is not known")),
        };
        let policy =
            Self { is_on, included: patterns("includedPaths")?, excluded: patterns("excludedPaths")? };
        let is_root = |pattern: &&Pattern| pattern.segments.is_empty() && pattern.end == End::Below;
        match is_on && policy.included.iter().chain(&policy.excluded).find(is_root).is_none() {
            true => Err("the root /* is neither included nor excluded".to_owned()),
            false => Ok(policy),
        }
    }

    /// Whether the index contains the values at this path. Of the patterns that match, the most precise one decides.
    /// `id` is always indexed.
    pub(super) fn indexes(&self, path: &[impl AsRef<str>]) -> bool {
        if let [only] = path
            && only.as_ref() == "id"
        {
            return self.is_on;
        }
        let best = |patterns: &[Pattern]| patterns.iter().filter_map(|pattern| pattern.fits(path)).max();
        match (self.is_on, best(&self.included), best(&self.excluded)) {
            (false, ..) | (true, None, _) => false,
            (true, Some(_), None) => true,
            (true, Some(included), Some(excluded)) => included >= excluded,
        }
    }

    /// The terms of a document, each once, as hashes in ascending order. A path that is included by name has a term even
    /// if the document has no value there.
    pub(super) fn terms(&self, document: &Value) -> Box<[u64]> {
        if !self.is_on {
            return Box::default();
        }
        let (mut terms, mut path) = (BTreeSet::new(), Vec::new());
        self.collect(document, &mut path, &mut terms);
        for (number, pattern) in self.included.iter().enumerate() {
            if pattern.end == End::Scalar && !pattern.is_in(document) {
                terms.insert(hash(&("undefined", number)));
            }
        }
        terms.into_iter().collect()
    }

    fn collect<'a>(&self, value: &'a Value, path: &mut Vec<&'a str>, terms: &mut BTreeSet<u64>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    path.push(name);
                    self.collect(value, path, terms);
                    path.pop();
                }
            }
            Value::Array(elements) => {
                path.push(ELEMENT);
                for element in elements {
                    self.collect(element, path, terms);
                }
                path.pop();
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                if self.indexes(path) {
                    terms.insert(hash(&(path, value)));
                }
            }
        }
    }
}

impl Pattern {
    fn read(path: &str) -> Option<Self> {
        let mut segments = Vec::new();
        let mut rest = path.strip_prefix('/')?;
        loop {
            // A quoted segment may contain anything but a quote.
            let (segment, after) = match rest.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            };
            match (after.strip_prefix('/'), segment) {
                (Some(after), _) => {
                    segments.push(segment.to_owned());
                    rest = after;
                }
                (None, "?") => return Some(Self { segments, end: End::Scalar }),
                (None, "*") => return Some(Self { segments, end: End::Below }),
                (None, _) => return None,
            }
        }
    }

    /// How precisely the pattern matches a path. `None`: it does not match.
    fn fits(&self, path: &[impl AsRef<str>]) -> Option<usize> {
        let mut both = self.segments.iter().zip(path);
        let begins = self.segments.len() <= path.len() && both.all(|(own, other)| own == other.as_ref());
        match self.end {
            End::Below => begins.then_some(2 * self.segments.len()),
            End::Scalar => {
                (begins && self.segments.len() == path.len()).then_some(2 * self.segments.len() + 1)
            }
        }
    }

    /// Whether a document has a value at this path.
    fn is_in(&self, document: &Value) -> bool {
        let mut found = document;
        for segment in &self.segments {
            let next = if segment == ELEMENT { found.get(0) } else { found.get(segment) };
            match next {
                Some(next) => found = next,
                None => return false,
            }
        }
        true
    }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(included: &[&str], excluded: &[&str]) -> Policy {
        let paths = |paths: &[&str]| paths.iter().map(|path| json!({"path": path})).collect::<Vec<_>>();
        Policy::read(&json!({"includedPaths": paths(included), "excludedPaths": paths(excluded)}))
            .expect("a policy")
    }

    #[test]
    fn terms_are_distinct_pairs_of_path_and_scalar() {
        let all = policy(&["/*"], &["/\"_etag\"/?"]);
        let terms = |document: Value| all.terms(&document).len();
        assert_eq!(terms(json!({"a": 1, "b": {"c": "x", "d": null}})), 3);
        assert_eq!(terms(json!({"a": [1, 1, 2], "b": {}, "c": []})), 2);
        assert_eq!(terms(json!({"_etag": "x"})), 0);
        assert_ne!(all.terms(&json!({"a": 1})), all.terms(&json!({"a": 2})));
        assert_ne!(all.terms(&json!({"a": 1})), all.terms(&json!({"b": 1})));
    }

    #[test]
    fn the_most_precise_path_decides_and_quotes_are_only_quotes() {
        let lean = policy(&["/*", "/sync/state/?"], &["/sync/*", "/p/\"$metadata\"/*", "/p/\"a/b\"/?"]);
        for (path, expected) in [
            (vec!["sync", "state"], true),
            (vec!["sync", "last"], false),
            (vec!["p", "$metadata", "x"], false),
            (vec!["p", "a/b"], false),
            (vec!["p", "x"], true),
        ] {
            assert_eq!(lean.indexes(&path), expected, "{path:?}");
        }
    }

    #[test]
    fn a_path_included_by_name_has_a_term_where_there_is_nothing() {
        let named = policy(&["/a/?", "/b/?"], &["/*"]);
        assert_eq!(named.terms(&json!({"a": 1, "c": 1})).len(), 2);
        assert_eq!(named.terms(&json!({"a": 1, "b": 1})).len(), 2);
        assert_eq!(named.terms(&json!({"id": "x", "a": 1, "b": 1})).len(), 3, "and `id` always");
    }

    #[test]
    fn what_is_no_policy_is_refused() {
        for wrong in [
            json!({"indexingMode": "lazy", "includedPaths": [{"path": "/*"}]}),
            json!({"includedPaths": [{"path": "/a"}], "excludedPaths": [{"path": "/*"}]}),
            json!({"includedPaths": [{"path": "/a/?"}]}),
            json!({"includedPaths": [{}]}),
        ] {
            assert!(Policy::read(&wrong).is_err(), "{wrong}");
        }
        let none = Policy::read(&json!({"indexingMode": "none"})).expect("no index is a policy");
        assert_eq!((none.terms(&json!({"a": 1})).len(), none.indexes(&["a"])), (0, false));
    }
}

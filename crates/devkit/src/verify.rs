//! Compares every document in Cosmos DB with its hub's twin, for all hubs.
//!
//! It reads both sides over their sockets. It uses none of twinsync's code, and compares with the hub model's state
//! instead of its events. Hub names are compared without case. A document must have `hubName`, `deviceId`,
//! `moduleId`, `version`, `tags` and `properties` as in the twin, and `sync.state` `live`. A deleted twin must have
//! no document, or a tombstone: `sync.state` `deleted` and neither tags nor properties. If a side cannot be read,
//! this is an error and never "0 different".

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::stack::Endpoints;

mod compare;
mod counts;
mod read;

pub use counts::wrong_counts;
pub use read::Error;

/// Maximum number of differences in a report.
const SHOWN: usize = 20;

/// Identifies a twin across hubs: hub in lower case, device, module.
type Key = (String, String, Option<String>);

/// How the documents differ from the twins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Number of twins of all hubs.
    pub twins: u64,
    /// Number of documents in Cosmos DB, including tombstones.
    pub documents: u64,
    /// Tombstones of twins that do not exist.
    pub tombstones: u64,
    /// Documents that differ from their twin or are not live, and tombstones with content.
    pub different: u64,
    /// Twins that have no document, or a tombstone.
    pub missing: u64,
    /// Documents without a twin that are no tombstones, and second documents of a twin.
    pub extra: u64,
    /// Documents with a flag. A flag is no difference.
    pub flagged: u64,
    /// The first differences.
    pub differences: Vec<Difference>,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The hub's name.
    pub hub_name: String,
    /// The device.
    pub device_id: String,
    /// The module, if it is a module's twin.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub module_id: Option<String>,
    /// The position, as a JSON pointer such as `/properties/reported/a`. `/` means the whole document.
    pub path: String,
    /// The value in the twin, shortened.
    pub expected: String,
    /// The value in the document, shortened.
    pub found: String,
}

impl Report {
    /// Whether every twin has an equal document, and there are no extra documents.
    pub fn is_equal(&self) -> bool {
        self.different == 0 && self.missing == 0 && self.extra == 0
    }

    fn show(&mut self, key: &Key, path: &str, expected: &str, found: &str) {
        if self.differences.len() < SHOWN {
            let (hub_name, device_id, module_id) = key.clone();
            self.differences.push(Difference {
                hub_name,
                device_id,
                module_id,
                path: path.to_owned(),
                expected: expected.to_owned(),
                found: found.to_owned(),
            });
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} twins, {} different, {} missing, {} extra ({} tombstones, {} flagged)",
            self.twins, self.different, self.missing, self.extra, self.tombstones, self.flagged
        )?;
        for difference in &self.differences {
            let Difference { hub_name, device_id, module_id, path, expected, found } = difference;
            let module = module_id.as_deref().map(|module| format!("/{module}")).unwrap_or_default();
            write!(
                formatter,
                "\n  {hub_name}/{device_id}{module} {path}: expected {expected}, found {found}"
            )?;
        }
        Ok(())
    }
}

/// Reads all twins and all documents of a devkit, and compares them.
///
/// # Errors
/// One side could not be read completely.
pub async fn verify(endpoints: &Endpoints) -> Result<Report, Error> {
    let mut twins = BTreeMap::new();
    for hub in endpoints.iothubs() {
        let of_hub = read::twins(endpoints, &hub.name).await?;
        twins.extend(of_hub.into_iter().map(|twin| (key(Some(&hub.name), &twin), twin)));
    }
    Ok(compare(twins, read::documents(endpoints).await?))
}

/// All documents of a devkit's container, in no particular order.
///
/// # Errors
/// They could not be read completely.
pub async fn documents(endpoints: &Endpoints) -> Result<Vec<Value>, Error> {
    read::documents(endpoints).await
}

/// Compares twins in the form of a GET with documents.
fn compare(mut twins: BTreeMap<Key, Value>, documents: Vec<Value>) -> Report {
    let mut report =
        Report { twins: twins.len() as u64, documents: documents.len() as u64, ..Report::default() };
    let mut seen: BTreeMap<Key, ()> = BTreeMap::new();
    for document in documents {
        let key = key(document.get("hubName").and_then(Value::as_str), &document);
        let flags = document.pointer("/sync/flags").and_then(Value::as_array);
        report.flagged += u64::from(flags.is_some_and(|flags| !flags.is_empty()));
        if seen.insert(key.clone(), ()).is_some() {
            report.extra += 1;
            report.show(&key, "/", "one document", "another document of the same twin");
            continue;
        }
        let is_tombstone = document.pointer("/sync/state").and_then(Value::as_str) == Some("deleted");
        match (twins.remove(&key), is_tombstone) {
            (Some(twin), false) => {
                if let Some(found) = compare::document(&twin, &document) {
                    report.different += 1;
                    report.show(&key, &found.path, &found.expected, &found.found);
                }
            }
            (Some(_), true) => {
                report.missing += 1;
                report.show(&key, "/sync/state", "live", "deleted");
            }
            (None, true) => {
                report.tombstones += 1;
                if let Some(part) =
                    ["tags", "properties"].into_iter().find(|part| document.get(part).is_some())
                {
                    report.different += 1;
                    report.show(&key, &format!("/{part}"), "nothing in a tombstone", "content");
                }
            }
            (None, false) => {
                report.extra += 1;
                report.show(&key, "/", "no document", "a document");
            }
        }
    }
    for key in twins.keys() {
        report.missing += 1;
        report.show(key, "/", "a document", "none");
    }
    report
}

fn key(hub_name: Option<&str>, value: &Value) -> Key {
    let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    (
        hub_name.unwrap_or_default().to_ascii_lowercase(),
        text("deviceId").unwrap_or_default(),
        text("moduleId"),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn twin(device_id: &str) -> Value {
        json!({"deviceId": device_id, "etag": "AAAAAAAAAAE=", "version": 2, "properties": {
            "desired": {"$metadata": {"$lastUpdated": "x"}, "$version": 1},
            "reported": {"a": 1, "$metadata": {"$lastUpdated": "x", "a": {"$lastUpdated": "x"}}, "$version": 1}}})
    }

    fn document(device_id: &str) -> Value {
        let mut document = twin(device_id);
        document["id"] = json!(device_id);
        document["hubName"] = json!("h");
        document["tags"] = json!({});
        document["sync"] = json!({"state": "live", "flags": []});
        document
    }

    fn tombstone(device_id: &str) -> Value {
        json!({"id": device_id, "hubName": "h", "deviceId": device_id, "sync": {"state": "deleted", "flags": ["suspect"]}})
    }

    fn compare(hub: &str, twins: Vec<Value>, documents: Vec<Value>) -> Report {
        super::compare(twins.into_iter().map(|twin| (key(Some(hub), &twin), twin)).collect(), documents)
    }

    fn figures(report: &Report) -> [u64; 5] {
        [report.tombstones, report.different, report.missing, report.extra, report.flagged]
    }

    #[test]
    fn equal_documents_and_tombstones_of_deleted_twins_are_equal() {
        let report =
            compare("h", vec![twin("a"), twin("b")], vec![document("b"), tombstone("c"), document("a")]);
        assert_eq!(figures(&report), [1, 0, 0, 0, 1]);
        assert!(report.is_equal() && report.differences.is_empty());
        assert_eq!(report.to_string(), "2 twins, 0 different, 0 missing, 0 extra (1 tombstones, 1 flagged)");
    }

    #[test]
    fn missing_extra_doubled_and_foreign_documents_are_told_apart() {
        let mut foreign = document("a");
        foreign["hubName"] = json!("other");
        let mut module = document("a");
        module["moduleId"] = json!("m");
        let report = compare(
            "h",
            vec![twin("a"), twin("b"), twin("c")],
            vec![foreign, module, document("b"), document("b"), tombstone("c")],
        );
        // Missing: a, and c, which has a tombstone. Extra: the document of another hub, the module, the second b.
        assert_eq!(figures(&report), [0, 0, 2, 3, 1]);
        assert!(!report.is_equal());
    }

    #[test]
    fn twins_of_one_id_in_two_hubs_are_two_and_a_hubs_name_has_no_case() {
        let twins = ["h", "Other"].map(|hub| (key(Some(hub), &twin("a")), twin("a")));
        let mut theirs = document("a");
        theirs["hubName"] = json!("OTHER");
        let report = super::compare(BTreeMap::from(twins.clone()), vec![document("a"), theirs.clone()]);
        assert!(report.is_equal() && report.twins == 2, "{report}");
        // Two documents of one twin, with the hub's name spelled differently, and none of the other twin.
        let mut again = theirs.clone();
        again["hubName"] = json!("other");
        let report = super::compare(BTreeMap::from(twins), vec![theirs, again]);
        assert_eq!(figures(&report), [0, 0, 1, 1, 0], "{report}");
    }

    #[test]
    fn a_document_that_is_not_live_or_a_tombstone_with_content_is_different() {
        let mut partial = document("a");
        partial["sync"]["state"] = json!("partial");
        let mut full = tombstone("b");
        full["tags"] = json!({});
        let report = compare("h", vec![twin("a")], vec![partial, full]);
        assert_eq!(figures(&report), [1, 2, 0, 0, 1]);
        assert_eq!(report.differences[0].path, "/sync/state");
        assert_eq!(report.differences[1].path, "/tags");
    }

    #[test]
    fn at_most_twenty_differences_are_shown_and_all_are_counted() {
        let report = compare("h", (0..50).map(|n| twin(&n.to_string())).collect(), Vec::new());
        assert_eq!((report.missing, report.differences.len()), (50, SHOWN));
    }
}

//! The container of the documents: time to live and index.

use std::time::Duration;

use super::{Finding, words};

/// What a container does with documents that have no time to live of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultTtl {
    /// Time to live is switched off: the `ttl` of a document has no effect.
    Off,
    /// Documents without a time to live of their own stay.
    Forever,
    /// They are deleted this many seconds after their last change.
    Seconds(u32),
}

/// Which paths of the documents are indexed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Indexing {
    /// Whether there is an index.
    pub is_on: bool,
    /// Patterns of included paths, e.g. `/*` and `/sync/state/?`.
    pub included: Vec<String>,
    /// Patterns of excluded paths.
    pub excluded: Vec<String>,
}

/// What is known about the container beside its partition key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Time to live.
    pub default_ttl: DefaultTtl,
    /// Index; `None` if the account does not report it.
    pub indexing: Option<Indexing>,
}

/// The paths used by the daemon's own queries: scans over flagged documents and over existing twins, and the modules of
/// a device.
pub const QUERIED: [&str; 5] = ["/sync/state", "/sync/flags/[]", "/sync/cascade", "/sync/op", "/moduleId"];

/// Paths that no query uses and that every change of a twin modifies.
const BOOKKEEPING: [&str; 4] = [
    "/properties/desired/$metadata/$lastUpdated",
    "/properties/desired/$version",
    "/properties/reported/$metadata/$lastUpdated",
    "/properties/reported/$version",
];

/// Evaluates the time to live; tombstones stay for `tombstones`.
pub fn time_to_live(default: DefaultTtl, tombstones: Duration) -> Finding {
    const REMEDY: &str = "switch it on without a default: `az cosmosdb sql container update -a ACCOUNT -g GROUP -d DATABASE -n \
                          CONTAINER --ttl -1`";
    match default {
        DefaultTtl::Forever => {
            Finding::ok(format!("switched on: tombstones expire after {}", words::duration(tombstones)))
        }
        DefaultTtl::Off => Finding::warn(
            "COSMOS_TIME_TO_LIVE",
            "time to live is switched off: the tombstones of deleted twins stay for ever",
            REMEDY,
        ),
        DefaultTtl::Seconds(seconds) => Finding::fail(
            "COSMOS_TIME_TO_LIVE",
            format!(
                "documents of twins that do not change are deleted after {}, without notice",
                words::duration(Duration::from_secs(seconds.into()))
            ),
            REMEDY,
        ),
    }
}

/// Evaluates the index.
pub fn indexing(policy: Option<&Indexing>) -> Finding {
    const REMEDY: &str = "apply deploy/cosmos/indexing-policy.json: `az cosmosdb sql container update -a ACCOUNT -g GROUP -d \
                          DATABASE -n CONTAINER --idx @indexing-policy.json`";
    let Some(policy) = policy else {
        return Finding::Skipped("the account does not report its indexing policy".to_owned());
    };
    if !policy.is_on {
        return Finding::warn(
            "COSMOS_INDEXING",
            "there is no index: each query for flagged documents reads the whole container and pays for it in request units",
            REMEDY,
        );
    }
    let missing: Vec<_> = QUERIED.into_iter().filter(|path| !policy.indexes(path)).collect();
    if !missing.is_empty() {
        return Finding::warn(
            "COSMOS_INDEXING",
            format!(
                "{} not indexed: each query for flagged documents reads the whole container and pays for it in request units",
                list(&missing)
            ),
            REMEDY,
        );
    }
    let idle: Vec<_> = BOOKKEEPING.into_iter().filter(|path| policy.indexes(path)).collect();
    if !idle.is_empty() {
        return Finding::warn(
            "COSMOS_INDEXING",
            format!(
                "{} indexed, although no query uses that: each change of a twin pays for it in request units",
                list(&idle)
            ),
            REMEDY,
        );
    }
    Finding::ok("what twinsync queries is indexed, and what changes with every write is not")
}

fn list(paths: &[&str]) -> String {
    let paths: Vec<_> = paths.iter().map(|path| path.trim_end_matches("/[]")).collect();
    format!("{} {}", paths.join(", "), if paths.len() == 1 { "is" } else { "are" })
}

impl Indexing {
    /// Whether the value at a path is indexed. Of the patterns that match, the most specific one decides (Microsoft's
    /// page "Indexing policies in Azure Cosmos DB"). If two are equally specific, the one that includes decides.
    fn indexes(&self, path: &str) -> bool {
        let best = |patterns: &[String]| patterns.iter().filter_map(|pattern| fits(pattern, path)).max();
        match (best(&self.included), best(&self.excluded)) {
            (Some(included), Some(excluded)) => included >= excluded,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }
}

/// How specifically a pattern matches a path; `None` if it does not match.
fn fits(pattern: &str, path: &str) -> Option<usize> {
    let mut segments: Vec<_> = pattern.split('/').skip(1).map(|segment| segment.trim_matches('"')).collect();
    let last = segments.pop()?;
    let path: Vec<_> = path.split('/').skip(1).collect();
    match last {
        "*" => path.starts_with(&segments).then_some(2 * segments.len()),
        "?" => (path == segments).then_some(2 * segments.len() + 1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::checks::Verdict;

    fn policy(included: &[&str], excluded: &[&str]) -> Indexing {
        let owned = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
        Indexing { is_on: true, included: owned(included), excluded: owned(excluded) }
    }

    #[test]
    fn a_default_end_would_delete_twins_that_rest() {
        let of = |default| time_to_live(default, Duration::from_secs(8 * 86_400));
        assert_eq!(of(DefaultTtl::Forever).verdict(), Verdict::Ok);
        assert!(of(DefaultTtl::Forever).text().contains("8 d"));
        assert_eq!(of(DefaultTtl::Off).verdict(), Verdict::Warn);
        let found = of(DefaultTtl::Seconds(86_400));
        assert!(found.verdict() == Verdict::Fail && found.text().contains("1 d"), "{found:?}");
    }

    #[test]
    fn the_most_exact_pattern_decides() {
        for (included, excluded, path, expected) in [
            (vec!["/*"], vec!["/\"_etag\"/?"], "/sync/state", true),
            (vec!["/*"], vec!["/sync/*"], "/sync/state", false),
            (vec!["/*", "/sync/state/?"], vec!["/sync/*"], "/sync/state", true),
            (vec!["/sync/*"], vec!["/*"], "/sync/flags/[]", true),
            (vec!["/sync/flags/?"], vec!["/*"], "/sync/flags/[]", false),
            (vec!["/sync/flags/[]/?"], vec!["/*"], "/sync/flags/[]", true),
            (vec!["/\"sync\"/*"], vec!["/*"], "/sync/op", true),
            (vec![], vec![], "/sync/op", false),
            (vec!["/sync/*"], vec!["/sync/?"], "/sync", false), // a value is more specific than all below it
            (vec!["/a/?"], vec!["/*"], "/a", true),
            (vec!["/a/b/?"], vec!["/a/b/*"], "/a/b", true),
            (vec!["/a/b/c/d/?"], vec!["/a/b/c/d/*"], "/a/b/c/d", true),
            (vec!["/a/b/*"], vec!["/a/?"], "/a/b", true),
            (vec!["/a/*"], vec!["/a/b/c/*"], "/a/b/c", false),
        ] {
            assert_eq!(
                policy(&included, &excluded).indexes(path),
                expected,
                "{included:?} {excluded:?} {path}"
            );
        }
    }

    #[test]
    fn what_our_queries_need_is_warned_of_and_what_costs_is_said() {
        let of = |policy: &Indexing| indexing(Some(policy));
        let all = of(&policy(&["/*"], &["/\"_etag\"/?"]));
        assert!(all.verdict() == Verdict::Warn && all.text().contains("$metadata"), "{all:?}");
        let lean = of(&policy(&["/sync/*", "/moduleId/?"], &["/*"]));
        assert!(lean.verdict() == Verdict::Ok, "{lean:?}");
        let found = of(&policy(&["/*"], &["/sync/*"]));
        assert!(found.verdict() == Verdict::Warn && found.text().contains("/sync/flags"), "{found:?}");
        assert!(!found.text().contains("moduleId"), "{found:?}");
        assert_eq!(of(&Indexing::default()).verdict(), Verdict::Warn);
        assert_eq!(indexing(None).verdict(), Verdict::Skipped);
    }

    /// The policy that the documentation recommends, as the account would return it.
    fn recommended() -> Indexing {
        let policy: serde_json::Value =
            serde_json::from_str(include_str!("../../../deploy/cosmos/indexing-policy.json"))
                .expect("is JSON");
        let paths = |name: &str| -> Vec<String> {
            let entries = policy[name].as_array().expect("a list").iter();
            entries.map(|entry| entry["path"].as_str().expect("a path").to_owned()).collect()
        };
        let is_on = policy["indexingMode"] == "consistent";
        Indexing { is_on, included: paths("includedPaths"), excluded: paths("excludedPaths") }
    }

    #[test]
    fn the_recommended_policy_is_right_and_has_what_dashboards_ask_for() {
        let policy = recommended();
        assert_eq!(indexing(Some(&policy)).verdict(), Verdict::Ok);
        for (path, expected) in [
            ("/hubName", true),
            ("/deviceId", true),
            ("/moduleId", true),
            ("/status", true),
            ("/capabilities/iotEdge", true),
            ("/tags/site/building", true),
            ("/properties/desired/rate", true),
            ("/properties/reported/firmware/version", true),
            ("/etag", false),
            ("/version", false),
            ("/properties/desired/$metadata/rate/$lastUpdated", false),
            ("/properties/desired/$version", false),
            ("/sync/last", false),
            ("/sync/born", false),
            ("/sync/base/first", false),
        ] {
            assert_eq!(policy.indexes(path), expected, "{path}");
        }
    }
}

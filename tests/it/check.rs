//! `twinsync check`: a correct setup passes, each problem is reported once, and running replicas are not
//! disturbed.

use std::collections::BTreeSet;

use devkit::stack::Options;
use serde_json::Value;
use twinsync::domain::checks::Kind;

use crate::registry::bench::{Bench, Ended};

mod blobs;
mod cosmos;
mod eventhubs;
mod iothub;
mod local;
mod running;

/// The fields of the JSON report. `docs/check.md` has a row for each.
const FIELDS: [&str; 7] = ["schema", "version", "connect", "complete", "verdict", "exitCode", "checks"];
const FIELDS_OF_CHECKS: [&str; 7] = ["check", "subject", "verdict", "text", "remedy", "code", "page"];

/// A report of `--json`, checked against the documentation.
pub(crate) struct Report {
    pub(crate) code: i32,
    json: Value,
}

impl Report {
    fn of(ended: &Ended) -> Self {
        let json = ended.json();
        assert_eq!(ended.out.lines().count(), 1, "the output is not one line: {}", ended.out);
        assert_eq!(json["schema"], 1, "{json}");
        assert_eq!(json["exitCode"].as_i64(), Some(ended.code.into()), "{json:#}");
        let report = Self { code: ended.code, json };
        let fields =
            |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<BTreeSet<_>>();
        let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(fields(&report.json), named(&FIELDS));
        for line in report.lines() {
            assert_eq!(fields(line), named(&FIELDS_OF_CHECKS));
            let has_problem = matches!(line["verdict"].as_str(), Some("warn" | "fail"));
            assert_eq!(line["remedy"].is_string(), has_problem, "{line:#}");
            assert_eq!(line["code"].is_string(), has_problem, "{line:#}");
            if let Some(page) = line["page"].as_str() {
                let page = format!("{}/{page}", env!("CARGO_MANIFEST_DIR"));
                assert!(std::path::Path::new(&page).exists(), "{page}");
            }
        }
        report
    }

    fn lines(&self) -> &[Value] {
        self.json["checks"].as_array().expect("a list")
    }

    /// The lines of one check.
    pub(crate) fn about(&self, check: &str) -> Vec<&Value> {
        self.lines().iter().filter(|line| line["check"] == check).collect()
    }

    /// Asserts that a check has this verdict and code, and this text in its text or remedy.
    #[track_caller]
    pub(crate) fn says(&self, check: &str, verdict: &str, code: &str, words: &str) {
        let fits = |line: &&&Value| {
            let text = format!("{} {}", line["text"], line["remedy"]);
            line["verdict"] == verdict && line["code"].as_str().unwrap_or("") == code && text.contains(words)
        };
        let found = self.about(check);
        assert!(found.iter().any(|line| fits(&line)), "{check} {verdict} {code} {words:?}: {:#}", self.json);
    }

    /// The checks with the verdict `warn` or `fail`.
    pub(crate) fn wrong(&self) -> BTreeSet<&str> {
        let wrong = |line: &&Value| matches!(line["verdict"].as_str(), Some("warn" | "fail"));
        self.lines().iter().filter(wrong).filter_map(|line| line["check"].as_str()).collect()
    }
}

/// Runs `check --json` with these arguments.
pub(crate) async fn check(bench: &Bench, arguments: &[&str]) -> Report {
    let all: Vec<_> = ["check", "--json"].iter().chain(arguments).copied().collect();
    Report::of(&bench.run(&all).await)
}

/// The same with environment variables.
pub(crate) async fn check_with(bench: &Bench, variables: &[(&str, &str)], arguments: &[&str]) -> Report {
    let all: Vec<_> = ["check", "--json"].iter().chain(arguments).copied().collect();
    Report::of(&bench.run_with(variables, &all).await)
}

/// A correct setup. It keeps everything in blobs, so it does not depend on the disks of this machine.
pub(crate) async fn right() -> Bench {
    let options = Options { azurite: true, ..Options::default() };
    Bench::over(options, "", "[dead_letters]\nstore = \"blob\"\n[checkpoint]\nstore = \"blob\"\n").await
}

/// The rows of the table of all checks in `docs/check.md`: name, whether it connects, codes.
fn documented() -> Vec<(String, bool, Vec<String>)> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/check.md");
    let page = std::fs::read_to_string(page).expect("a page");
    let (_, table) = page.split_once("## The checks").expect("a section");
    let (table, _) = table.split_once("\n## ").expect("another section");
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, connects, _, codes] = cells.as_slice() else { panic!("a row has not four cells: {row}") };
        let codes = codes.split(", ").filter(|code| *code != "the same").map(str::to_owned);
        (name.trim_matches('`').to_owned(), *connects == "yes", codes.collect())
    })
    .collect()
}

#[test]
fn the_table_lists_every_check_in_order_and_every_code_has_a_page() {
    let rows = documented();
    let listed: Vec<_> = rows.iter().map(|(name, connects, _)| (name.as_str(), *connects)).collect();
    assert_eq!(listed, Kind::ALL.map(|kind| (kind.name(), kind.connects())));
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/check.md")).expect("a page");
    for field in FIELDS
        .iter()
        .map(ToString::to_string)
        .chain(FIELDS_OF_CHECKS.map(|field| format!("checks[].{field}")))
    {
        assert!(page.contains(&format!("`{field}`")) || page.contains(&format!("`{field}[]`")), "{field}");
    }
    for code in rows.iter().flat_map(|(_, _, codes)| codes) {
        let page = format!("{}/docs/errors/{code}.md", env!("CARGO_MANIFEST_DIR"));
        assert!(std::fs::read_to_string(&page).is_ok_and(|text| text.contains(code)), "{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_correct_setup_passes_all_checks_in_order() {
    let bench = right().await;
    let report = check(&bench, &["--connect"]).await;
    assert_eq!((report.code, report.wrong()), (0, BTreeSet::new()), "{:#}", report.json);
    let names: Vec<_> = report.lines().iter().filter_map(|line| line["check"].as_str()).collect();
    let mut kinds = names.clone();
    kinds.dedup();
    assert_eq!(kinds, Kind::ALL.map(Kind::name), "each check is listed, and its lines are adjacent");
    let ended = bench.run(&["check", "--connect"]).await;
    assert_eq!(ended.code, 0, "{}", ended.errors);
    for words in ["\nCosmos DB\n", "  ok      cosmos.write ", "ok, 4 skipped"] {
        assert!(ended.out.contains(words), "{words}: {}", ended.out);
    }
    assert!(!ended.out.contains('\u{1b}'), "colours in an output that is no terminal: {}", ended.out);
    assert_eq!(ended.errors, "");
}

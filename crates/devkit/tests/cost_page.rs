//! The arithmetic of `docs/cost.html`, run by Node.js: it gives the examples of `docs/cost.md`, and its prices per
//! request are those of the local Cosmos DB host.

#![expect(clippy::unwrap_used, reason = "a test fails by panic, in its helpers too")]

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use devkit::cosmos::price;
use serde_json::{Value, json};

fn page(name: &str) -> String {
    let docs: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    std::fs::read_to_string(&docs).unwrap_or_else(|error| panic!("{}: {error}", docs.display()))
}

/// The results of the page's own formula for each of these inputs.
fn run(expression: &str, given: &[Value]) -> Vec<Value> {
    let html = page("cost.html");
    let (_, formula) = html.split_once("<script id=\"formula\">").expect("the page has a formula");
    let (formula, _) = formula.split_once("</script>").unwrap();
    let given = Value::from(given);
    let script = format!("{formula}\nconsole.log(JSON.stringify({given}.map((given) => {expression})));");
    let mut node = Command::new("node")
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Node.js is installed");
    node.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = node.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

fn near(found: &Value, expected: f64, what: &str) {
    let found = found.as_f64().unwrap_or_else(|| panic!("{what}: {found}"));
    assert!(
        (found - expected).abs() <= 1e-9 * expected.abs().max(1.0),
        "{what}: {found} instead of {expected}"
    );
}

/// A table cell as a number, and the value of one unit of its last digit.
fn number(cell: &str) -> (f64, f64) {
    let plain = cell.trim().trim_start_matches('$').replace(',', "");
    let digits = plain.split_once('.').map_or(0, |(_, digits)| digits.len());
    (
        plain.parse().unwrap_or_else(|_| panic!("{cell:?} is no number")),
        10_f64.powi(-i32::try_from(digits).unwrap()),
    )
}

#[test]
fn the_examples_come_out_of_the_formula() {
    let text = page("cost.md");
    let (_, examples) = text.split_once("\n## Examples\n").expect("a section");
    let rows: Vec<Vec<&str>> = examples
        .lines()
        .skip_while(|line| !line.starts_with("|---"))
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert!(rows.len() >= 4, "{rows:?}");
    const GIVEN: [&str; 5] = ["devices", "changesPerDay", "kib", "burstShare", "lingerMs"];
    const FOUND: [&str; 5] = ["meanUnits", "peakUnits", "provisionedCost", "autoscaleCost", "serverlessCost"];
    let given: Vec<_> = rows
        .iter()
        .map(|row| Value::from_iter(GIVEN.iter().zip(row).map(|(name, cell)| (*name, json!(number(cell).0)))))
        .collect();
    for (row, found) in rows.iter().zip(run("cost({...DEFAULTS, ...given})", &given)) {
        for (name, cell) in FOUND.iter().zip(&row[GIVEN.len()..]) {
            let (shown, digit) = number(cell);
            let exact = found[*name].as_f64().unwrap_or_else(|| panic!("{name}: {found}"));
            assert!((exact - shown).abs() <= 0.5001 * digit, "{name}: {exact}, shown as {cell}: {row:?}");
        }
    }
}

#[test]
fn prices_per_request_are_those_of_the_local_host() {
    let kib = [0.5, 1.0, 1.5, 2.0, 5.0, 8.0, 20.0, 32.0, 500.0];
    let given: Vec<_> = kib.iter().map(|kib| json!(kib)).collect();
    for (kib, found) in kib.iter().zip(run("[bySize(given, 1), bySize(given, 2), scan(1, given, 1)]", &given))
    {
        let bytes = (kib * 1_024.0) as usize;
        near(&found[0], price::read(bytes), "read");
        near(&found[1], price::create(bytes, 0), "write");
        near(&found[2], price::query(kib * 1_024.0), "scan");
    }
    let given = [json!({"kib": 8, "modifiedTerms": 3})];
    let found = run("cost({...DEFAULTS, ...given}).replace", &given);
    near(&found[0], price::replace(8 << 10, 8 << 10, 3, 3), "replace");
}

#[test]
fn a_linger_as_long_as_the_gap_merges_what_comes_in_bursts_and_regions_multiply() {
    let given = [
        json!({"burstShare": 0.5, "gapMs": 100, "lingerMs": 0}),
        json!({"burstShare": 0.5, "gapMs": 100, "lingerMs": 50}),
        json!({"burstShare": 0.5, "gapMs": 100, "lingerMs": 1_000}),
        json!({"devices": 0}),
        json!({"regions": 2}),
        json!({"regions": 1}),
        json!({"peakFactor": 12, "peakHours": 4}),
    ];
    let found = run("cost({...DEFAULTS, ...given})", &given);
    for (found, expected) in found.iter().zip([1.0, 0.75, 0.5]) {
        near(&found["writesPerChange"], expected, "writes");
    }
    // Without load, the smallest throughput still has to be paid for 730 hours.
    near(&found[3]["provisioned"], 400.0, "provisioned");
    near(&found[3]["provisionedCost"], 4.0 * 0.008 * 730.0, "provisioned");
    near(&found[3]["autoscaleCost"], 0.1 * 10.0 * 0.012 * 730.0, "autoscale");
    near(&found[4]["provisionedCost"], 2.0 * found[5]["provisionedCost"].as_f64().unwrap(), "regions");
    assert_eq!(found[4]["serverlessCost"], Value::Null, "one region only");
    assert_eq!(found[6]["notes"].as_array().unwrap().len(), 2, "{}", found[6]["notes"]);
}

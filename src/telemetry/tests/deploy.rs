//! `deploy/` and `docs/runbook.md` match the served metrics: every metric and label exists, and every alert has its section, its tests, and
//! an end.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde_json::Value;

use super::name;

/// Labels that Prometheus adds to scraped samples.
const OF_THE_SCRAPE: [&str; 2] = ["job", "instance"];

/// Words of PromQL that may occur in the place of a metric name.
const WORDS: [&str; 39] = [
    "abs",
    "absent",
    "and",
    "avg",
    "avg_over_time",
    "bool",
    "by",
    "changes",
    "clamp_max",
    "clamp_min",
    "count",
    "deriv",
    "group_left",
    "group_right",
    "histogram_quantile",
    "ignoring",
    "increase",
    "inf",
    "label_replace",
    "label_values",
    "last_over_time",
    "max",
    "max_over_time",
    "min",
    "min_over_time",
    "offset",
    "on",
    "or",
    "query_result",
    "rate",
    "round",
    "scalar",
    "sort_desc",
    "sum",
    "time",
    "topk",
    "unless",
    "vector",
    "without",
];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[derive(Debug, Default)]
struct Rule {
    /// Name of the alert, or of the recorded series.
    name: String,
    is_alert: bool,
    fields: BTreeMap<String, String>,
}

impl Rule {
    fn field(&self, name: &str) -> &str {
        self.fields.get(name).unwrap_or_else(|| panic!("{} has no {name}", self.name))
    }
}

/// The rules. They are written in a small subset of YAML: one key per line, blocks with `|`.
fn rules() -> Vec<Rule> {
    let text = read("deploy/prometheus/twinsync.rules.yml");
    let mut rules: Vec<Rule> = Vec::new();
    let mut block: Option<(usize, String)> = None;
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let (depth, line) = (line.len() - line.trim_start().len(), line.trim());
        if let Some((indent, field)) = &block
            && (depth > *indent || line.is_empty())
        {
            let rule = rules.last_mut().expect("within a rule");
            let expression = rule.fields.entry(field.clone()).or_default();
            expression.push_str(line);
            expression.push('\n');
            continue;
        }
        block = None;
        if line.is_empty() {
            continue;
        }
        let begins = line.strip_prefix("- ");
        let (key, value) = begins.unwrap_or(line).split_once(':').unwrap_or_else(|| panic!("{line}"));
        let value = value.trim();
        match (begins.is_some(), key) {
            (true, "alert" | "record") => {
                rules.push(Rule {
                    name: value.to_owned(),
                    is_alert: key == "alert",
                    fields: BTreeMap::new(),
                });
            }
            (true, "name") | (false, "groups" | "rules" | "labels" | "annotations") => {}
            (false, _) if value == "|" => block = Some((depth, key.to_owned())),
            (false, _) => {
                let value =
                    value.strip_prefix('\'').and_then(|value| value.strip_suffix('\'')).unwrap_or(value);
                rules
                    .last_mut()
                    .expect("within a rule")
                    .fields
                    .insert(key.to_owned(), value.replace("''", "'"));
            }
            _ => panic!("unknown line: {line}"),
        }
    }
    rules
}

fn alerts() -> Vec<Rule> {
    rules().into_iter().filter(|rule| rule.is_alert).collect()
}

/// The names of metrics in an expression, each with the labels in its selector.
fn metrics(expression: &str) -> Vec<(String, Vec<String>)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    let mut rest = expression;
    while let Some(c) = rest.chars().next() {
        if c == '"' {
            let end = rest[1..].find('"').unwrap_or_else(|| panic!("a quote without end: {expression}"));
            rest = &rest[end + 2..];
        } else if c == '[' {
            rest = &rest[rest.find(']').unwrap_or_else(|| panic!("a range without end: {expression}"))..];
        } else if c == '{' {
            let end = rest.find('}').unwrap_or_else(|| panic!("a selector without end: {expression}"));
            let (_, labels) =
                found.last_mut().unwrap_or_else(|| panic!("a selector of nothing: {expression}"));
            let matchers = rest[1..end].split(',').filter(|matcher| !matcher.trim().is_empty());
            labels
                .extend(matchers.map(|matcher| matcher.trim().chars().take_while(|c| is_name(*c)).collect()));
            rest = &rest[end..];
        } else if is_name(c) {
            let word: String = rest.chars().take_while(|c| is_name(*c)).collect();
            rest = &rest[word.len()..];
            let is_grouping =
                ["by", "on", "ignoring", "without", "group_left", "group_right"].contains(&word.as_str());
            if is_grouping && let Some(end) = rest.find(')') {
                rest = &rest[end..];
            } else if !word.starts_with(|c: char| c.is_ascii_digit()) && !WORDS.contains(&word.as_str()) {
                found.push((word, Vec::new()));
            }
            continue;
        } else {
            rest = &rest[c.len_utf8()..];
        }
    }
    found
}

/// Checks that every metric of the expression is served or recorded, with these labels.
fn is_about_what_is_served(place: &str, expression: &str) {
    let recorded: Vec<_> = rules().into_iter().filter(|rule| !rule.is_alert).map(|rule| rule.name).collect();
    for (metric, labels) in metrics(expression) {
        if recorded.contains(&metric) || ["up", "ALERTS"].contains(&metric.as_str()) {
            continue;
        }
        let ends = ["_bucket", "_sum", "_count"].iter();
        let histogram = ends.filter_map(|end| metric.strip_suffix(end)).find_map(name::described);
        let histogram = histogram.filter(|found| found.kind == name::Kind::Histogram);
        let found =
            name::described(&metric).filter(|found| found.kind != name::Kind::Histogram).or(histogram);
        let found = found.unwrap_or_else(|| panic!("{place}: {metric} is not served: {expression}"));
        for label in labels {
            let is_bound = label == "le" && metric.ends_with("_bucket");
            assert!(
                is_bound || found.labels.contains(&label.as_str()) || OF_THE_SCRAPE.contains(&label.as_str()),
                "{place}: {metric} has no label {label}: {expression}"
            );
        }
    }
}

#[test]
fn every_rule_is_about_what_is_served() {
    let rules = rules();
    assert!(rules.len() > 30, "{}", rules.len());
    for rule in &rules {
        is_about_what_is_served(&rule.name, rule.field("expr"));
    }
}

#[test]
fn every_alert_says_what_is_wrong_how_urgent_it_is_and_where_to_read_on() {
    for alert in alerts() {
        assert!(["page", "ticket"].contains(&alert.field("severity")), "{}", alert.name);
        for field in ["summary", "description"] {
            assert!(alert.field(field).len() > 15, "{}: {field}", alert.name);
        }
        let link = format!("/runbook.md#{}", alert.name.to_lowercase());
        assert!(
            alert.field("runbook_url").ends_with(&link),
            "{}: {}",
            alert.name,
            alert.field("runbook_url")
        );
        // An expression that counts over a range needs no `for`.
        let counts = ["increase(", "changes("].iter().any(|function| alert.field("expr").contains(function));
        assert!(alert.fields.contains_key("for") || counts, "{}: `for` is missing", alert.name);
    }
}

#[test]
fn whoever_is_told_of_alerts_is_told_of_those_that_exist() {
    let names: Vec<_> = alerts().into_iter().map(|alert| alert.name).collect();
    let text = read("deploy/prometheus/alertmanager.example.yml");
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !".+".contains(c));
    let named: Vec<_> = words.filter(|word| word.starts_with("Twinsync") && *word != "Twinsync.+").collect();
    assert!(named.len() > 20, "{named:?}");
    for name in named {
        assert!(names.iter().any(|found| found == name), "{name}");
    }
}

#[test]
fn every_alert_has_its_section_in_the_runbook_and_every_section_its_alert() {
    let page = read("docs/runbook.md");
    let sections: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let alerts = alerts();
    let names: Vec<_> = alerts.iter().map(|alert| alert.name.as_str()).collect();
    assert_eq!(sections, names, "the sections must be in the order of the alerts");
    for (section, alert) in page.split("\n## ").skip(1).zip(&alerts) {
        let severity = alert.field("severity");
        assert!(section.contains(&format!("\n\n*{severity}.* **First:**")), "{}: {severity}", alert.name);
        for part in
            ["What it means.", "What the page shows.", "Do.", "When it ends by itself.", "If nobody acts."]
        {
            assert!(section.contains(&format!("- **{part}**")), "{}: {part}", alert.name);
        }
        let row = format!("| [{}](#{}) | {severity} |", alert.name, alert.name.to_lowercase());
        assert!(page.contains(&row), "not in the list: {row}");
    }
}

#[test]
fn every_link_to_and_from_the_runbook_leads_somewhere() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let anchor = |heading: &str| heading.trim().to_lowercase().replace(' ', "-");
    for (page, least) in [("runbook.md", 60), ("outages.md", 20), ("metrics.md", 4)] {
        let text = read(&format!("docs/{page}"));
        let links: Vec<_> =
            text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0)).collect();
        assert!(links.len() > least, "{page}: {}", links.len());
        for link in links {
            let (file, section) = link.split_once('#').unwrap_or((link, ""));
            let path = docs.join(if file.is_empty() { page } else { file });
            assert!(path.exists(), "{page}: {link}");
            if !section.is_empty() {
                let text = std::fs::read_to_string(&path).expect("readable");
                let mut headings = text.lines().filter(|line| line.starts_with('#'));
                let found = headings.any(|line| anchor(line.trim_start_matches('#')) == section);
                assert!(found, "{page}: {link}");
            }
        }
    }
}

#[test]
fn every_alert_is_tested_where_it_fires_and_where_it_does_not() {
    let tests = ["twinsync.test.yml", "twinsync.days.test.yml"];
    let tests: String = tests.iter().map(|file| read(&format!("deploy/prometheus/{file}"))).collect();
    let (mut fires, mut silent) = (BTreeSet::new(), BTreeSet::new());
    for check in tests.split("alertname: ").skip(1) {
        let mut lines = check.lines().map(str::trim);
        let name = lines.next().expect("a name").to_owned();
        let expected = lines.next().expect("what is expected");
        if expected == "exp_alerts: []" {
            silent.insert(name)
        } else {
            fires.insert(name)
        };
    }
    let names: BTreeSet<_> = alerts().into_iter().map(|alert| alert.name).collect();
    assert_eq!(fires, names, "each alert needs a test that it fires");
    assert_eq!(silent, names, "each alert needs a test that it does not fire");
    for rule in rules().iter().filter(|rule| !rule.is_alert) {
        assert!(tests.contains(&format!("{}{{", rule.name)) || tests.contains(&rule.name), "{}", rule.name);
    }
}

/// Every text below a key, at any depth.
fn texts<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(key).and_then(Value::as_str));
            fields.values().for_each(|value| texts(value, key, found));
        }
        Value::Array(values) => values.iter().for_each(|value| texts(value, key, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn the_dashboard_shows_every_metric_and_nothing_else() {
    let text = read("deploy/grafana/twinsync.json");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let mut queries = Vec::new();
    texts(&dashboard, "expr", &mut queries);
    let mut variables = Vec::new();
    texts(&dashboard, "definition", &mut variables);
    let variables = variables.iter().map(|variable| {
        let inner = variable.strip_prefix("label_values(").and_then(|rest| rest.rsplit_once(','));
        inner.unwrap_or_else(|| panic!("{variable}")).0
    });
    let queries: Vec<_> = queries.into_iter().chain(variables).collect();
    let mut shown = BTreeSet::new();
    for query in &queries {
        is_about_what_is_served("the dashboard", query);
        shown.extend(metrics(query).into_iter().map(|(metric, _)| metric));
    }
    for metric in name::DESCRIPTIONS {
        let is_shown = ["", "_bucket"].iter().any(|end| shown.contains(&format!("{}{end}", metric.name)));
        assert!(is_shown, "no panel of deploy/grafana/twinsync.json shows {}: add one", metric.name);
    }
}

#[test]
fn the_dashboard_can_be_imported_anywhere() {
    let text = read("deploy/grafana/twinsync.json");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    assert!(
        dashboard["id"].is_null() && dashboard["uid"].is_string(),
        "Grafana assigns the id at the import"
    );
    assert!(dashboard["schemaVersion"].as_u64().is_some_and(|version| version >= 39));
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let names: Vec<_> = variables.iter().filter_map(|variable| variable["name"].as_str()).collect();
    assert_eq!(names, ["datasource", "job", "instance"]);
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().expect("a title");
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{title}");
        let place = |side: &str| panel["gridPos"][side].as_u64().expect("a place");
        assert!(place("x") + place("w") <= 24, "{title}");
        for row in place("y")..place("y") + place("h") {
            for column in place("x")..place("x") + place("w") {
                assert!(taken.insert((row, column)), "{title} overlaps another panel");
            }
        }
        if panel["type"] != "row" {
            assert!(
                panel["description"].as_str().is_some_and(|text| text.len() > 4),
                "{title}: the description is missing"
            );
            let targets = panel["targets"].as_array().expect("queries");
            let uids = targets.iter().map(|target| &target["datasource"]["uid"]);
            assert!(uids.chain([&panel["datasource"]["uid"]]).all(|uid| uid == "${datasource}"), "{title}");
        }
    }
}

#[test]
fn names_and_labels_are_found_in_expressions() {
    let found = metrics(
        "sum by (job, le) (rate(a_b{x=\"y{\", z!~\"1\"}[5m] offset 1h)) / on (job) group_left () c:d > 1e3",
    );
    let expected = [("a_b", vec!["x", "z"]), ("c:d", vec![])];
    let expected = expected
        .map(|(name, labels)| (name.to_owned(), labels.into_iter().map(str::to_owned).collect::<Vec<_>>()));
    assert_eq!(found, expected);
}

//! The shape of all log lines, read from the source: their fields are those of the table in `docs/logs.md`, a partition is always named by
//! the same two fields, and each WARN or ERROR has a code with a page.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// One call that logs.
#[derive(Debug)]
struct Call {
    /// Shown in the messages of failed tests.
    #[expect(dead_code, reason = "shown by Debug")]
    place: String,
    level: String,
    /// Name and expression.
    fields: BTreeMap<String, String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The program's source without its tests.
fn sources() -> Vec<(PathBuf, String)> {
    fn scan(directory: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(directory).expect("readable").map(|entry| entry.expect("readable").path()) {
            let name = entry.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if name == "tests" || name == "tests.rs" || name.ends_with("_tests.rs") {
                continue;
            }
            if entry.is_dir() {
                scan(&entry, found);
            } else if name.ends_with(".rs") {
                let text = fs::read_to_string(&entry).expect("readable");
                let program = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
                found.push((entry, program));
            }
        }
    }
    let mut found = Vec::new();
    scan(&root().join("src"), &mut found);
    found
}

/// The arguments of the macro call at the start of `text`, split at commas outside of brackets and strings.
fn arguments(text: &str) -> Vec<String> {
    let (mut parts, mut part, mut depth) = (Vec::new(), String::new(), 0);
    let (mut in_string, mut escaped) = (false, false);
    for letter in text.chars() {
        let outside = !in_string;
        match letter {
            '"' if !escaped => in_string = !in_string,
            '(' | '[' | '{' if outside => depth += 1,
            ')' | ']' | '}' if outside && depth == 0 => break,
            ')' | ']' | '}' if outside => depth -= 1,
            ',' if outside && depth == 0 => {
                parts.push(std::mem::take(&mut part).trim().to_owned());
                continue;
            }
            _ => {}
        }
        escaped = letter == '\\' && !escaped;
        part.push(letter);
    }
    parts.push(part.trim().to_owned());
    parts.retain(|part| !part.is_empty());
    parts
}

fn calls() -> Vec<Call> {
    let mut calls = Vec::new();
    for (path, text) in sources() {
        for (at, start) in text.match_indices("tracing::") {
            let rest = &text[at + start.len()..];
            let Some((level, rest)) = rest.split_once("!(") else { continue };
            if !["error", "warn", "info", "debug", "trace"].contains(&level) {
                continue;
            }
            // A target is not a field.
            let arguments = arguments(rest).into_iter().filter(|part| !part.starts_with("target:"));
            let fields = arguments.take_while(|part| !part.starts_with('"'));
            // `in ID` of a `facts!` table stands for the fields `stream` and `partition`.
            let fields = fields.flat_map(|part| match part.strip_prefix("in ") {
                Some(id) => vec![format!("stream = %{id}.stream"), format!("partition = %{id}.partition")],
                None => vec![part],
            });
            let fields = fields.map(|part| {
                let (name, value) = part.split_once(" = ").unwrap_or((&part, &part));
                (name.trim_start_matches(['%', '?']).to_owned(), value.to_owned())
            });
            let line = text[..at].lines().count();
            calls.push(Call {
                place: format!("{}:{line}", path.strip_prefix(root()).unwrap_or(&path).display()),
                level: level.to_owned(),
                fields: fields.collect(),
            });
        }
    }
    assert!(calls.len() > 60, "the scan found too few calls: {}", calls.len());
    calls
}

/// Codes in the source: upper-case words with underscores that are not names of variables.
fn codes() -> BTreeSet<String> {
    let is_code = |text: &str| {
        let upper = text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
        let others = ["AZURE_", "CARGO_", "NO_COLOR", "OTEL_", "TOKIO_", "TWINSYNC_"];
        let named = text.contains('_') && !others.iter().any(|prefix| text.starts_with(prefix));
        upper && (named && text.len() > 5 || ["INTERNAL", "PANICKED"].contains(&text))
    };
    let texts = sources();
    // Names of functions of the query language have the same form as codes.
    let texts = texts.iter().filter(|(path, _)| !path.starts_with(root().join("src/domain/query")));
    let literals = texts.flat_map(|(_, text)| text.split('"'));
    literals.filter(|text| is_code(text)).map(str::to_owned).collect()
}

#[test]
fn every_warning_and_error_has_a_code() {
    for call in calls().iter().filter(|call| ["warn", "error"].contains(&call.level.as_str())) {
        assert!(call.fields.contains_key("code"), "{call:?}");
    }
}

#[test]
fn every_code_has_a_page_that_says_what_to_do_and_every_page_a_code() {
    let pages = fs::read_dir(root().join("docs/errors")).expect("readable");
    let pages: BTreeMap<_, _> = pages
        .map(|page| page.expect("readable").path())
        .map(|page| {
            let name = page.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
            (name, fs::read_to_string(&page).expect("readable"))
        })
        .collect();
    assert_eq!(codes(), pages.keys().cloned().collect(), "left: in the source, right: in docs/errors");
    for (code, page) in &pages {
        assert!(page.starts_with(&format!("# {code}\n")), "{code}");
        for part in ["**What it means.**", "**What twinsync does.**", "**What to do.**"] {
            assert!(page.contains(part), "{part} in {code}");
        }
    }
}

#[test]
fn a_partition_is_always_its_stream_and_its_id_and_a_hub_is_an_iot_hub() {
    for call in calls() {
        if let Some(partition) = call.fields.get("partition") {
            assert!(call.fields.contains_key("stream"), "{call:?}");
            assert!(
                !partition.contains(".id(") && !partition.contains("format!"),
                "a part of the partition's name: {call:?}"
            );
        }
        if let Some(hub) = call.fields.get("hub") {
            assert!(
                !["stream", "source", "eventhub"].iter().any(|word| hub.contains(word))
                    || hub.contains("hub(dependency)"),
                "{call:?}"
            );
        }
        for other in ["partition_id", "event_hub", "eventhub", "hub_name"] {
            assert!(!call.fields.contains_key(other), "{call:?}");
        }
    }
}

#[test]
fn every_field_is_in_the_table_of_the_page_and_the_table_has_no_other() {
    let page = include_str!("../../../docs/logs.md");
    let (_, table) = page.split_once("## Fields").expect("a table of all fields");
    let table = table.split("\n## ").next().unwrap_or_default();
    let documented: BTreeSet<_> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once(" |"))
        .flat_map(|(names, _)| names.split('`').filter(|name| !name.trim_matches([' ', ',']).is_empty()))
        .map(str::to_owned)
        .collect();
    let everywhere =
        ["timestamp", "level", "target", "message", "replica", "held_back", "location", "thread"];
    let fields = calls().into_iter().flat_map(|call| call.fields.into_keys());
    let fields: BTreeSet<_> = fields.chain(everywhere.map(str::to_owned)).collect();
    assert_eq!(fields, documented, "left: in the source, right: in docs/logs.md");
}

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::domain::headline::Level;

const DOCUMENT: &str = include_str!("../../../docs/status.md");

/// An answer in which no field is missing. Maps with variable names are empty.
fn full() -> Status {
    let at = Ticks::new(0);
    Status {
        schema: SCHEMA,
        at,
        replica: Replica {
            name: String::new(),
            version: String::new(),
            revision: String::new(),
            started: at,
            phase: String::new(),
        },
        headline: Headline { level: Level::Good, text: String::new() },
        live: true,
        ready: true,
        reasons: Vec::new(),
        warnings: Vec::new(),
        freshness: Freshness { oldest_incomplete_seconds: 0.0, p50_seconds: None, p99_seconds: None },
        loss: Some(Loss {
            seconds: 0.0,
            stream: String::new(),
            partition: String::new(),
            retention_seconds: 0.0,
        }),
        partitions: vec![Partition {
            stream: String::new(),
            partition: String::new(),
            ours: true,
            basis: None,
            owner: None,
            state: String::new(),
            reason: None,
            next_try: None,
            lag_events: None,
            lag_measured: None,
            lag_seconds: None,
            retention_used: None,
            oldest_incomplete: None,
            oldest_incomplete_seconds: 0.0,
            checkpoint_age_seconds: None,
        }],
        dependencies: vec![Dependency {
            name: String::new(),
            state: String::new(),
            reason: None,
            down_since: None,
            asked: None,
            next_try: None,
            needed: true,
        }],
        tokens: vec![Token {
            scope: String::new(),
            obtained: None,
            expires: None,
            failed: None,
            reason: None,
        }],
        flow: Flow {
            completed_per_second: None,
            arrived_per_second: None,
            lag_events: None,
            caught_up_in_seconds: None,
            in_flight_events: 0,
            in_flight_bytes: 0,
        },
        store: Store {
            request_units_per_second: BTreeMap::new(),
            throttled_share: None,
            writes_per_second: None,
            concurrency_limit: 0,
        },
        decisions: BTreeMap::new(),
        twins: Twins {
            in_trouble: 0,
            full: 0,
            repairs_waiting: 0,
            rejected: 0,
            still_different: 0,
            events_lost: 0,
        },
        counts: Counts {
            as_of: Some(at),
            documents: 0,
            unreadable: 0,
            counts: vec![Count {
                name: String::new(),
                query: String::new(),
                total: Some(0),
                rows: Some(Vec::new()),
                omitted: 0,
            }],
        },
        dead_letters: DeadLetters {
            since_start: 0,
            by_reason: BTreeMap::new(),
            command: String::new(),
            stored: StoredDeadLetters::default(),
        },
        hubs: vec![Hub {
            hub: String::new(),
            done_by: None,
            scan: Some(Scan {
                what: String::new(),
                stage: String::new(),
                started: at,
                dealt_with: 0,
                out_of: None,
                out_of_is: None,
                per_second: None,
                done_in_seconds: None,
                waits_for: None,
            }),
            backfill_completed: None,
            audit_twins: None,
            clean_audit: None,
            clean_audit_twins: None,
            next_audit: None,
            backfill: BTreeMap::new(),
            audit_completed: None,
            audit_differences_left: None,
            audit_differences: BTreeMap::new(),
        }],
        log: vec![Logged {
            level: String::new(),
            code: None,
            hint: None,
            message: String::new(),
            count: 0,
            first: at,
            last: at,
        }],
        history: History::default(),
    }
}

/// The path of each value: `a.b`, or `a[].b` for values in a list.
fn paths(value: &Value, way: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, field) in fields {
                let way = if way.is_empty() { name.clone() } else { format!("{way}.{name}") };
                paths(field, &way, found);
            }
        }
        Value::Array(list) if list.first().is_some_and(Value::is_object) => {
            for entry in list {
                paths(entry, &format!("{way}[]"), found);
            }
        }
        _ => {
            found.insert(way.to_owned());
        }
    }
}

/// The first cell of each row of the tables in a chapter.
fn documented() -> BTreeSet<String> {
    let chapter = DOCUMENT.split("\n## ").find(|chapter| chapter.starts_with("The answer"));
    let rows = chapter.expect("the chapter").lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.filter_map(|row| row.split_once("` |"));
    cells.map(|(way, _)| way.to_owned()).collect()
}

#[test]
fn every_field_is_documented_and_no_other_is() {
    let answer = serde_json::to_value(full()).expect("JSON");
    let mut fields = BTreeSet::new();
    paths(&answer, "", &mut fields);
    let documented = documented();
    let missing: Vec<_> = fields.difference(&documented).collect();
    let gone: Vec<_> = documented.difference(&fields).collect();
    assert!(missing.is_empty(), "docs/status.md does not document {missing:#?}");
    assert!(gone.is_empty(), "docs/status.md documents fields that the answer does not have: {gone:#?}");
}

/// Fields are only added within a schema: an answer of the first release with this schema can still be parsed.
#[test]
fn an_answer_of_the_first_release_with_this_schema_is_understood() {
    let first = include_str!("first_answer.json");
    let status: Status = serde_json::from_str(first).expect("understood");
    assert_eq!(status.schema, SCHEMA);
    assert_eq!(status.partitions.len(), 2);
}

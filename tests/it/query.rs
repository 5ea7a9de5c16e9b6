//! The query language, compared with an independent implementation.
//!
//! devkit's hub has its own evaluator, written from the same documentation by other authors. Both evaluate random queries over random
//! twins and must select the same twins and return the same rows.

use std::fmt::Write as _;

use devkit::iothub::query::{Dialect, Query as HubQuery};
use serde_json::{Value, json};
use twinsync::domain::query::Query;

/// Number of queries, each over `TWINS` twins: 10⁵ pairs.
const QUERIES: u64 = 2_500;
const TWINS: usize = 40;
/// Maximum nesting of conditions.
const DEPTH: u32 = 4;
/// Maximum number of groups and rows: more than there are twins.
const BOUND: usize = 1_000;

/// Random numbers from a seed (xorshift).
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

const PATHS: [&str; 15] = [
    "deviceId",
    "DEVICEID",
    "status",
    "version",
    "tags",
    "tags.a",
    "tags.b",
    "devices.tags.a",
    "tags.[[odd name]]",
    "tags.a.x",
    "properties.desired.x",
    "properties.desired.$version",
    "properties.reported.x",
    "properties.reported.t.now",
    "capabilities.iotEdge",
];
const LITERALS: [&str; 16] = [
    "null",
    "true",
    "false",
    "0",
    "1",
    "1.0",
    "-1",
    "2.5",
    "1e3",
    "9007199254740993",
    "9007199254740992.0",
    "''",
    "'a'",
    "'ab'",
    r"'\u00e9'",
    "'d3'",
];

fn value(draw: &mut Draw) -> Value {
    match draw.below(16) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(false),
        3 => json!(0),
        4 => json!(1),
        5 => json!(1.0),
        6 => json!(-1),
        7 => json!(2.5),
        8 => json!(9_007_199_254_740_993_i64),
        9 => json!(""),
        10 => json!("a"),
        11 => json!("ab"),
        12 => json!("é"),
        13 => json!([1, "a"]),
        14 => json!({"x": 1}),
        _ => json!([]),
    }
}

fn twin(number: usize, draw: &mut Draw) -> Value {
    let mut twin = json!({
        "deviceId": format!("d{number:02}"),
        "status": draw.of(&["enabled", "disabled"]),
        "version": draw.below(5),
        "tags": {},
        "properties": {"desired": {"$version": draw.below(3)}, "reported": {}},
    });
    for (section, names) in [
        ("/tags", &["a", "b", "odd name"][..]),
        ("/properties/desired", &["x"]),
        ("/properties/reported", &["x", "t"]),
    ] {
        let section = twin.pointer_mut(section).and_then(Value::as_object_mut).expect("a section");
        for name in names {
            if !draw.one_in(4) {
                let value = if *name == "t" { json!({ "now": value(draw) }) } else { value(draw) };
                section.insert((*name).to_owned(), value);
            }
        }
    }
    if draw.one_in(3) {
        twin["capabilities"] = json!({"iotEdge": draw.one_in(2)});
    }
    twin
}

fn condition(draw: &mut Draw, depth: u32) -> String {
    let kind = if depth == 0 { 3 + draw.below(7) } else { draw.below(10) };
    let path = draw.of(&PATHS);
    match kind {
        0 => format!("({} AND {})", condition(draw, depth - 1), condition(draw, depth - 1)),
        1 => format!("({} OR {})", condition(draw, depth - 1), condition(draw, depth - 1)),
        2 => format!("NOT ({})", condition(draw, depth - 1)),
        3 | 4 => {
            let sign = draw.of(&["=", "!=", "<>", "<", "<=", ">", ">="]);
            let right = if draw.one_in(5) { draw.of(&PATHS) } else { draw.of(&LITERALS) };
            if draw.one_in(5) { format!("{right} {sign} {path}") } else { format!("{path} {sign} {right}") }
        }
        5 => {
            let list: Vec<_> = (0..=draw.below(3)).map(|_| draw.of(&LITERALS)).collect();
            format!("{path} {} [{}]", draw.of(&["IN", "NIN", "in"]), list.join(", "))
        }
        6 => {
            let tests = [
                "IS_DEFINED",
                "IS_NULL",
                "IS_BOOL",
                "IS_NUMBER",
                "IS_STRING",
                "IS_OBJECT",
                "IS_ARRAY",
                "is_primitive",
            ];
            format!("{}({path})", draw.of(&tests))
        }
        7 => format!(
            "{}({path}, {})",
            draw.of(&["STARTSWITH", "ENDSWITH", "CONTAINS"]),
            draw.of(&LITERALS[11..])
        ),
        8 => format!("ARRAY_CONTAINS({path}, {})", draw.of(&LITERALS)),
        _ => path.to_owned(),
    }
}

/// A query. Every aggregate and column has its own name.
fn query(draw: &mut Draw) -> String {
    let mut text = "SELECT ".to_owned();
    if draw.one_in(6) {
        let _ = write!(text, "TOP {} ", 1 + draw.below(12));
    }
    let groups: Vec<_> = (0..draw.below(3)).map(|_| draw.of(&["tags.a", "tags.b", "status"])).collect();
    let (mut grouped, mut sorted) = (false, false);
    match draw.below(5) {
        0 | 1 => text.push('*'),
        2 => {
            let columns = [
                "deviceId AS c0",
                "tags.a AS c1",
                "properties.reported.t.now",
                "version",
                "tags.[[odd name]] AS c2",
            ];
            let first = draw.below(columns.len());
            text.push_str(&columns[first..=first + draw.below(columns.len() - first)].join(", "));
        }
        _ => {
            grouped = true;
            let mut columns = vec!["COUNT()".to_owned()];
            for (number, aggregate) in ["SUM", "AVG", "MIN", "MAX"].into_iter().enumerate() {
                if draw.one_in(2) {
                    let path =
                        draw.of(&["tags.a", "version", "properties.desired.x", "properties.reported.t.now"]);
                    columns.push(format!("{aggregate}({path}) AS r{number}"));
                }
            }
            let keys = groups.iter().enumerate().map(|(number, key)| format!("{key} AS k{number}"));
            columns.extend(keys);
            text.push_str(&columns.join(", "));
        }
    }
    text.push_str(" FROM devices");
    if !draw.one_in(4) {
        let _ = write!(text, " WHERE {}", condition(draw, DEPTH));
    }
    if grouped && !groups.is_empty() {
        let _ = write!(text, " GROUP BY {}", groups.join(", "));
    } else if !grouped && draw.one_in(3) {
        sorted = true;
    }
    if sorted {
        let keys = ["tags.a", "tags.b DESC", "version", "properties.reported.t.now ASC", "deviceId DESC"];
        let first = draw.below(keys.len());
        let _ = write!(text, " ORDER BY {}", keys[first..=first + draw.below(keys.len() - first)].join(", "));
    }
    text
}

/// The rows that the product returns.
fn rows(query: &Query, twins: &[Value]) -> Vec<Value> {
    let selected = twins.iter().filter(|twin| query.matches(twin));
    if query.is_grouped() {
        let mut fold = query.aggregation(BOUND);
        selected.for_each(|twin| fold.add(twin).expect("within the bound"));
        return fold.rows();
    }
    if query.is_sorted() {
        let mut sorter = query.sorter(BOUND);
        selected.for_each(|twin| sorter.add(twin).expect("within the bound"));
        return sorter.rows();
    }
    let top = query.top().map_or(usize::MAX, |top| top as usize);
    selected.take(top).map(|twin| query.row(twin)).collect()
}

/// Equality of JSON. Numbers are compared by value, doubles without their last digits.
fn are_equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            let (left, right) = (left.as_f64().unwrap_or(f64::NAN), right.as_f64().unwrap_or(f64::NAN));
            (left - right).abs() <= 1e-9 * left.abs().max(right.abs())
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| are_equal(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(name, left)| right.get(name).is_some_and(|right| are_equal(left, right)))
        }
        _ => left == right,
    }
}

#[test]
fn random_queries_give_the_rows_that_another_evaluator_gives() {
    let seed = 0x9e37_79b9_7f4a_7c15;
    let mut draw = Draw(seed);
    let (mut pairs, mut selected, mut shown) = (0, 0, 0);
    for number in 0..QUERIES {
        let twins: Vec<_> = (0..TWINS).map(|number| twin(number, &mut draw)).collect();
        let text = query(&mut draw);
        let ours = Query::parse(&text).unwrap_or_else(|error| panic!("query {number}: {text}: {error}"));
        let hubs = HubQuery::parse(&text, Dialect::Extended)
            .unwrap_or_else(|error| panic!("query {number}: {text}: {error}"));
        for twin in &twins {
            assert_eq!(ours.matches(twin), hubs.selects(twin), "query {number}: {text}\nof {twin}");
            pairs += 1;
            selected += usize::from(ours.matches(twin));
        }
        let matching: Vec<_> = twins.iter().filter(|twin| hubs.selects(twin)).collect();
        let (left, right) = (rows(&ours, &twins), hubs.answer(matching.into_iter()));
        shown += right.len();
        assert!(
            are_equal(&json!(left), &json!(right)),
            "query {number}: {text}\nours: {}\nthe hub's: {}\nof {}",
            json!(left),
            json!(right),
            json!(twins)
        );
        let again = Query::parse(&ours.to_string()).unwrap_or_else(|error| panic!("{ours}: {error}"));
        assert_eq!(again.to_string(), ours.to_string(), "printed and parsed again: {text}");
    }
    assert_eq!(pairs, 100_000);
    // About half of the twins must be selected, so that a query that selects none or all does not decide the result.
    assert!((pairs / 4..pairs * 3 / 4).contains(&selected), "{selected} of {pairs} selected");
    assert!(shown > 20_000, "{shown} rows");
}

//! Which queries are refused, and the position of the error.

use super::*;

/// Each query with the position of its error, in characters from 0.
const REFUSED: &[(&str, usize)] = &[
    ("", 0),
    ("   ", 3),
    ("SELECT", 6),
    ("DELETE * FROM devices", 0),
    ("SELECT * FROM", 13),
    ("SELECT FROM devices", 7),
    ("SELECT * devices", 9),
    ("SELECT * FROM device", 14),
    ("SELECT * FROM devices.jobs", 22),
    ("SELECT * FROM devices.modules.x", 29),
    ("SELECT * FROM devices d", 22),
    ("SELECT * FROM devices; DROP", 21),
    ("SELECT *, version FROM devices", 8),
    ("SELECT deviceId, FROM devices", 17),
    ("SELECT deviceId version FROM devices", 16),
    ("SELECT deviceId AS FROM devices", 24),
    ("SELECT deviceId AS 'd' FROM devices", 19),
    ("SELECT 'deviceId' FROM devices", 7),
    ("SELECT null FROM devices", 7),
    ("SELECT deviceId, DEVICEID FROM devices", 17),
    ("SELECT tags.a, properties.desired.a FROM devices", 15),
    ("SELECT version AS etag, etag FROM devices", 24),
    ("SELECT COUNT(), version AS $1 FROM devices", 16),
    ("SELECT version, COUNT() FROM devices", 7),
    ("SELECT COUNT(*) FROM devices", 13),
    ("SELECT COUNT(version) FROM devices", 13),
    ("SELECT SUM() FROM devices", 11),
    ("SELECT SUM(1) FROM devices", 11),
    ("SELECT MEDIAN(version) FROM devices", 7),
    ("SELECT TOP * FROM devices", 11),
    ("SELECT TOP -1 * FROM devices", 11),
    ("SELECT TOP 1.5 * FROM devices", 11),
    ("SELECT TOP FROM devices", 11),
    ("SELECT * FROM devices WHERE", 27),
    ("SELECT * FROM devices WHERE AND", 28),
    ("SELECT * FROM devices WHERE 1", 29),
    ("SELECT * FROM devices WHERE true", 32),
    ("SELECT * FROM devices WHERE tags.a =", 36),
    ("SELECT * FROM devices WHERE tags.a == 1", 36),
    ("SELECT * FROM devices WHERE tags.a = 1 = 1", 39),
    ("SELECT * FROM devices WHERE tags.a = 'x", 37),
    ("SELECT * FROM devices WHERE tags.a = 'x' 'y'", 41),
    ("SELECT * FROM devices WHERE tags.a LIKE 'x'", 35),
    ("SELECT * FROM devices WHERE tags.a = 1 AND", 42),
    ("SELECT * FROM devices WHERE tags.a = 1 OR OR tags.b = 1", 42),
    ("SELECT * FROM devices WHERE tags..a = 1", 33),
    ("SELECT * FROM devices WHERE tags. = 1", 34),
    ("SELECT * FROM devices WHERE .tags = 1", 28),
    ("SELECT * FROM devices WHERE tags.a-b = 1", 34),
    ("SELECT * FROM devices WHERE tags.[[a = 1", 33),
    ("SELECT * FROM devices WHERE tags.[a] = 1", 33),
    ("SELECT * FROM devices WHERE tags.[[a]]] = 1", 38),
    ("SELECT * FROM devices WHERE tags[[a]] = 1", 32),
    ("SELECT * FROM devices WHERE (tags.a = 1", 39),
    ("SELECT * FROM devices WHERE tags.a = 1)", 38),
    ("SELECT * FROM devices WHERE ()", 29),
    ("SELECT * FROM devices WHERE (tags.a) = 1", 37),
    ("SELECT * FROM devices WHERE tags.a = (1)", 37),
    ("SELECT * FROM devices WHERE tags.a IN []", 39),
    ("SELECT * FROM devices WHERE tags.a IN ['a',]", 43),
    ("SELECT * FROM devices WHERE tags.a IN ('a')", 38),
    ("SELECT * FROM devices WHERE tags.a IN [1, tags.b]", 42),
    ("SELECT * FROM devices WHERE tags.a IN [1", 40),
    ("SELECT * FROM devices WHERE tags.a NOT IN [1]", 35),
    ("SELECT * FROM devices WHERE tags.a = [1]", 37),
    ("SELECT * FROM devices WHERE IS_DEFINED()", 39),
    ("SELECT * FROM devices WHERE IS_DEFINED('a')", 39),
    ("SELECT * FROM devices WHERE IS_DEFINED(tags.a, tags.b)", 45),
    ("SELECT * FROM devices WHERE IS_INTEGER(tags.a)", 28),
    ("SELECT * FROM devices WHERE IS_DEFINED(tags.a) = true", 47),
    ("SELECT * FROM devices WHERE STARTSWITH(tags.a)", 45),
    ("SELECT * FROM devices WHERE STARTSWITH(tags.a, 'a', true)", 50),
    ("SELECT * FROM devices WHERE ENDS_WITH(tags.a, 'a')", 28),
    ("SELECT * FROM devices WHERE ARRAY_CONTAINS(tags.a, tags.b)", 51),
    ("SELECT * FROM devices WHERE ARRAY_CONTAINS('a', 1)", 43),
    ("SELECT * FROM devices WHERE COUNT() = 1", 28),
    ("SELECT * FROM devices WHERE tags.a = 1e999", 37),
    ("SELECT * FROM devices WHERE tags.a = 01", 37),
    ("SELECT * FROM devices WHERE tags.a = 1.", 37),
    ("SELECT * FROM devices WHERE tags.a = 0x1F", 37),
    ("SELECT * FROM devices WHERE tags.a = +1", 37),
    ("SELECT * FROM devices WHERE tags.a = - 1", 37),
    ("SELECT * FROM devices WHERE tags.a = 1 + 1", 39),
    (r"SELECT * FROM devices WHERE tags.a = 'x\q'", 39),
    (r"SELECT * FROM devices WHERE tags.a = 'x\u12'", 39),
    (r"SELECT * FROM devices WHERE tags.a = 'x\u+123'", 39),
    (r"SELECT * FROM devices WHERE tags.a = 'x\ud800'", 39),
    (r"SELECT * FROM devices WHERE tags.a = 'x\udc00\ud800'", 39),
    (r"SELECT * FROM devices WHERE tags.a = 'x\ud800\u0041'", 39),
    (r"SELECT * FROM devices WHERE tags.a = 'x\'", 37),
    ("SELECT * FROM devices WHERE tags.a = 'é' @", 41),
    ("SELECT * FROM devices GROUP BY version", 22),
    ("SELECT version FROM devices GROUP version", 34),
    ("SELECT version FROM devices GROUP BY", 36),
    ("SELECT version FROM devices GROUP BY version,", 45),
    ("SELECT version FROM devices GROUP BY version WHERE version = 1", 45),
    ("SELECT version, etag FROM devices GROUP BY version", 16),
    ("SELECT tags FROM devices GROUP BY tags.a", 7),
    ("SELECT COUNT() FROM devices GROUP BY COUNT()", 42),
    ("SELECT * FROM devices ORDER version", 28),
    ("SELECT * FROM devices ORDER BY", 30),
    ("SELECT * FROM devices ORDER BY version UP", 39),
    ("SELECT * FROM devices ORDER BY version ASC DESC", 43),
    ("SELECT * FROM devices ORDER BY 1", 31),
    ("SELECT version FROM devices GROUP BY version ORDER BY etag", 54),
    ("SELECT COUNT() FROM devices ORDER BY version", 37),
    ("SELECT version FROM devices ORDER BY version GROUP BY version", 45),
];

#[test]
fn what_is_wrong_is_refused_with_its_place() {
    for (text, at) in REFUSED {
        let error = Query::parse(text, Dialect::Extended).expect_err(text);
        assert_eq!(error.at(), *at, "{text}: {error}");
        assert!(error.to_string().len() > 50, "{text}: {error}");
        assert!(Query::parse(text, Dialect::Hub).is_err(), "{text}");
    }
}

#[test]
fn what_is_not_the_hubs_is_refused_as_the_hub() {
    for (text, at) in [
        ("SELECT * FROM devices ORDER BY version", 22),
        ("SELECT * FROM devices WHERE tags.a order by version", 35),
        ("SELECT * FROM devices WHERE STARTS_WITH(tags.a, 'a')", 28),
        ("SELECT * FROM devices WHERE NOT contains(tags.a, 'a')", 32),
    ] {
        assert!(Query::parse(text, Dialect::Extended).is_ok(), "{text}");
        let error = Query::parse(text, Dialect::Hub).expect_err(text);
        assert_eq!(error.at(), at, "{text}: {error}");
        assert!(error.to_string().contains("IoT Hub"), "{text}: {error}");
    }
}

#[test]
fn long_and_deep_queries_are_refused() {
    let of =
        |condition: &str| Query::parse(&format!("SELECT * FROM devices WHERE {condition}"), Dialect::Hub);
    let deep = |depth: usize| format!("{}a{}", "NOT (".repeat(depth), ")".repeat(depth));
    assert!(of(&deep(32)).is_ok() && of(&deep(33)).is_err());
    assert!(
        of(&format!("{}a", "NOT ".repeat(64))).is_ok() && of(&format!("{}a", "NOT ".repeat(65))).is_err()
    );
    assert!(of(&deep(1_000)).is_err());
    let long =
        |length: usize| format!("a = '{}'", "é".repeat(length - "SELECT * FROM devices WHERE a = ''".len()));
    assert!(of(&long(LONGEST)).is_ok());
    assert_eq!(of(&long(LONGEST + 1)).unwrap_err().at(), LONGEST);
}

/// A repeatable generator, sufficient to reach every byte of the queries.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

#[test]
fn no_text_makes_it_panic() {
    let alphabet: Vec<char> = "'\"\\[]().,*=<>!-+eE09uxdD_$@ \n\u{0}é😀\u{d7ff}".chars().collect();
    let good = [
        r#"SELECT TOP 3 tags.[[a b]] AS x, COUNT(), MIN(tags.t) FROM devices WHERE etag = "\ud83d\ude00\n" AND
           NOT (tags.a IN [1, -2.5e3, 'x'] OR IS_DEFINED(tags.b)) GROUP BY tags.[[a b]] ORDER BY tags.[[a b]] DESC"#,
        "SELECT * FROM devices.modules WHERE devices.moduleId NIN ['$edgeAgent'] AND ARRAY_CONTAINS(tags.l, null)",
    ];
    let twins = [json!({"deviceId": "a", "tags": {"a b": 1}}), json!(null)];
    let mut random = Random(7);
    let mut understood = 0;
    for round in 0..20_000 {
        let mut text: Vec<char> = good[round % good.len()].chars().collect();
        for _ in 0..=random.below(4) {
            let (at, other) = (random.below(text.len()), random.below(text.len()));
            match random.below(4) {
                0 => text[at] = alphabet[random.below(alphabet.len())],
                1 => text.insert(at, alphabet[random.below(alphabet.len())]),
                2 => text.swap(at, other),
                _ => drop(text.drain(at.min(other)..at.max(other))),
            }
            text.push(' ');
        }
        let text: String = text.into_iter().collect();
        match Query::parse(&text, Dialect::Extended) {
            Ok(query) => {
                query.answer(twins.iter());
                understood += 1;
            }
            Err(error) => assert!(error.at() <= text.chars().count(), "{text}: {error}"),
        }
    }
    assert!(understood > 500, "{understood}");
}

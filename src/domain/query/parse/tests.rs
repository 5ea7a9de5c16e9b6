use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{
    Aggregate, Collection, Condition, Direction, Item, Operand, Query, QueryErrorKind, Root, Selected,
    Selection, TextTest, TypeTest,
    testing::{any_query, condition, path, query},
};
use super::{CHARACTERS_MAX, NESTING_MAX};

use QueryErrorKind::{Duplicate, Jobs, NotGrouped, Syntax, TooDeep, TooLong, UnknownField, Unsupported};

/// A mark shows the position of the error.
#[test]
fn wrong_queries_are_refused_where_they_are_wrong() {
    let cases = [
        ("", Syntax, "begins with SELECT"),
        ("^SELEKT * FROM devices", Syntax, "begins with SELECT"),
        ("SELECT ^", Syntax, "write a path here"),
        ("SELECT *^", Syntax, "write FROM devices"),
        ("SELECT * ^devices", Syntax, "write FROM devices"),
        ("SELECT * FROM ^", Syntax, "no such collection"),
        ("SELECT * FROM ^c", Syntax, "no such collection"),
        ("SELECT * FROM devices.^twins", Syntax, "no such collection"),
        ("SELECT * FROM ^devices.jobs", Jobs, "jobs cannot be served from a copy of twins"),
        ("SELECT * FROM ^DEVICES.Jobs WHERE devices.jobs.jobId = 'j'", Jobs, "ask the hub itself"),
        ("SELECT *^, tags FROM devices", Syntax, "stands alone"),
        ("SELECT tags, ^* FROM devices", Syntax, "stands alone"),
        ("SELECT ^DISTINCT tags.a FROM devices", Unsupported, "GROUP BY"),
        ("SELECT ^VALUE tags.a FROM devices", Unsupported, "SELECT VALUE"),
        ("SELECT TOP ^0 * FROM devices", Syntax, "1 or more"),
        ("SELECT TOP ^-1 * FROM devices", Syntax, "1 or more"),
        ("SELECT TOP ^1.5 * FROM devices", Syntax, "1 or more"),
        ("SELECT TOP ^n * FROM devices", Syntax, "1 or more"),
        ("SELECT TOP ^99999999999999999999 * FROM devices", Syntax, "1 or more"),
        ("SELECT COUNT(^*) FROM devices", Syntax, "write COUNT()"),
        ("SELECT COUNT(^1) FROM devices", Syntax, "write COUNT()"),
        ("SELECT COUNT ^FROM devices", Syntax, "after COUNT, write `(`"),
        ("SELECT AVG(^) FROM devices", Syntax, "AVG needs a path"),
        ("SELECT SUM(tags.a^, tags.b) FROM devices", Syntax, "takes one path"),
        ("SELECT tags.a AS ^'x' FROM devices", Syntax, "the name of the column"),
        ("SELECT tags.a, ^properties.reported.a FROM devices", Duplicate, "two columns would be named `a`"),
        ("SELECT deviceId, ^DeviceID FROM devices", Duplicate, "`deviceId`"),
        ("SELECT COUNT(), ^tags.a AS $1 FROM devices", Duplicate, "`$1`"),
        ("SELECT ^tags.a, COUNT() AS n FROM devices", NotGrouped, "write it into GROUP BY"),
        ("SELECT COUNT() AS n, ^tags.b FROM devices GROUP BY tags.a", NotGrouped, "tags.b is neither"),
        ("SELECT * FROM devices GROUP BY ^tags.a", NotGrouped, "SELECT * does not go with GROUP BY"),
        ("SELECT COUNT() AS n FROM devices ^ORDER BY tags.a", Unsupported, "sorts twins"),
        ("SELECT ^foo FROM devices", UnknownField, "no field `foo`"),
        ("SELECT * FROM devices WHERE ^property.reported.x = 1", UnknownField, "properties.reported"),
        ("SELECT * FROM devices WHERE devices.^modules.deviceId = 'd'", UnknownField, "leave it out"),
        ("SELECT * FROM devices WHERE ^hubName = 'h'", UnknownField, "no field `hubName`"),
        ("SELECT ^LOWER(deviceId) FROM devices", Unsupported, "LOWER is for routes"),
        ("SELECT ^IS_DEFINED(tags.a) FROM devices", Unsupported, "stands after WHERE only"),
        ("SELECT * FROM devices WHERE", Syntax, "write a path or a value here"),
        ("SELECT * FROM devices WHERE tags.^", Syntax, "after a dot, write a name"),
        ("SELECT * FROM devices WHERE tags.^2nd = 1", Syntax, "[[2nd]]"),
        ("SELECT * FROM devices WHERE tags^[[a]] = 1", Unsupported, "write a dot before"),
        ("SELECT * FROM devices WHERE tags.a^[0] = 1", Unsupported, "array indexes"),
        ("SELECT * FROM devices WHERE tags.my^-name = 1", Unsupported, "[[my-name]]"),
        ("SELECT * FROM devices WHERE tags.a ^+ 1 = 2", Unsupported, "arithmetic (`+`) is not served"),
        ("SELECT * FROM devices WHERE tags.a = tags.b ^% 2", Unsupported, "arithmetic (`%`)"),
        ("SELECT * FROM devices WHERE tags.a = 1 ^+ 1", Syntax, "cannot stand here"),
        ("SELECT * FROM devices WHERE tags.^[[a = 1", Syntax, "close it with `]]`"),
        ("SELECT * FROM devices WHERE tags.^[[]] = 1", Syntax, "an escaped name is empty"),
        ("SELECT * FROM devices WHERE tags.a = ^'north", Syntax, "a text has no end"),
        ("SELECT * FROM devices WHERE tags.a = '^\\x'", Syntax, "a backslash begins one of"),
        ("SELECT * FROM devices WHERE tags.a = '^\\u12G4'", Syntax, "four hexadecimal digits"),
        ("SELECT * FROM devices WHERE tags.a = 'é^\\ud83d'", Syntax, "half of a surrogate pair"),
        ("SELECT * FROM devices WHERE tags.a = ^01", Syntax, "`01` is not a number"),
        ("SELECT * FROM devices WHERE tags.a = ^1.", Syntax, "`1.` is not a number"),
        ("SELECT * FROM devices WHERE tags.a = ^1e999", Syntax, "`1e999` is not a number"),
        ("SELECT * FROM devices WHERE tags.a = ^0xfg", Syntax, "hexadecimal"),
        ("SELECT * FROM devices WHERE tags.a = ^- 1", Syntax, "before the digits"),
        ("SELECT * FROM devices WHERE tags.a = ^undefined", Unsupported, "IS_DEFINED(path)"),
        ("SELECT * FROM devices WHERE tags.a =^= 1", Syntax, "one `=`"),
        ("SELECT * FROM devices WHERE tags.a ^! 1", Syntax, "`!=`"),
        ("SELECT * FROM devices WHERE tags.a = 1 ^&& tags.b = 2", Syntax, "write AND"),
        ("SELECT * FROM devices WHERE tags.a = ^@p", Syntax, "no parameters"),
        ("SELECT * FROM devices WHERE tags.a = north", UnknownField, "no field `north`"),
        ("SELECT * FROM devices WHERE ^'a'", Syntax, "by itself is no condition"),
        ("SELECT * FROM devices WHERE ^1 AND tags.a", Syntax, "by itself is no condition"),
        ("SELECT * FROM devices WHERE (tags.a = 1^", Syntax, "close the parenthesis"),
        ("SELECT * FROM devices WHERE tags.a = 1^)", Syntax, "closes nothing"),
        ("SELECT * FROM devices WHERE (tags.a) ^= 1", Syntax, "leave the parentheses"),
        ("SELECT * FROM devices WHERE (tags.a) ^IN [1]", Syntax, "leave the parentheses"),
        ("SELECT * FROM devices WHERE (tags.a) ^NIN [1]", Syntax, "leave the parentheses"),
        ("SELECT * FROM devices WHERE tags.a IN ^('a')", Syntax, "in brackets"),
        ("SELECT * FROM devices WHERE tags.a IN ['a' ^'b']", Syntax, "another value"),
        ("SELECT * FROM devices WHERE tags.a IN ['a', ^tags.b]", Syntax, "values only"),
        ("SELECT * FROM devices WHERE tags.a ^NOT IN ['a']", Syntax, "write NIN"),
        ("SELECT * FROM devices WHERE tags.a ^LIKE 'a%'", Unsupported, "STARTSWITH"),
        ("SELECT * FROM devices WHERE tags.a ^BETWEEN 1 AND 2", Unsupported, ">= a AND"),
        ("SELECT * FROM devices WHERE tags.a ^IS NULL", Unsupported, "IS_NULL(path)"),
        ("SELECT * FROM devices WHERE ^abs(tags.a) = 1", Unsupported, "the function ABS is for routes"),
        ("SELECT * FROM devices WHERE tags.a = ^length(tags.b)", Unsupported, "LENGTH is for routes"),
        ("SELECT * FROM devices WHERE ^GetDate() > 1", Unsupported, "there is no function GETDATE"),
        ("SELECT * FROM devices WHERE ^count() > 1", Unsupported, "COUNT is an aggregate"),
        ("SELECT * FROM devices WHERE IS_DEFINED ^tags.a", Syntax, "after IS_DEFINED, write `(`"),
        ("SELECT * FROM devices WHERE IS_DEFINED(^'a')", Syntax, "write a path here"),
        ("SELECT * FROM devices WHERE IS_DEFINED(tags.a^, tags.b)", Syntax, "takes one path"),
        ("SELECT * FROM devices WHERE STARTSWITH(deviceId^)", Syntax, "with `,` between"),
        ("SELECT * FROM devices WHERE STARTSWITH(deviceId, 'a'^, true)", Syntax, "takes two texts"),
        ("SELECT * FROM devices WHERE ARRAY_CONTAINS(tags.a, ^tags.b)", Syntax, "looks for a value"),
        ("SELECT * FROM devices WHERE IS_NULL(tags.a) ^< true", Syntax, "by = or != "),
        ("SELECT * FROM devices WHERE IS_NULL(tags.a) = ^1", Syntax, "true or false only"),
        (
            "SELECT * FROM devices WHERE tags.a = ^is_defined(tags.b)",
            Unsupported,
            "IS_DEFINED is a condition",
        ),
        ("SELECT * FROM devices WHERE ^desired.rate = 1", UnknownField, "write properties.desired or"),
        ("SELECT * FROM devices WHERE ^Property.rate = 1", UnknownField, "write properties.desired or"),
        ("SELECT * FROM devices ^LIMIT 5", Unsupported, "TOP n"),
        ("SELECT * FROM devices WHERE tags.a = 1 ^JOIN tags.b", Unsupported, "in two queries"),
        ("SELECT COUNT() AS n FROM devices ^HAVING n > 1", Unsupported, "HAVING"),
        ("SELECT * FROM devices ^d WHERE d.tags.a = 1", Syntax, "write WHERE"),
        ("SELECT * FROM devices^;", Syntax, "leave the `;` out"),
        ("SELECT * FROM devices GROUP ^tags.a", Syntax, "after GROUP, write BY"),
        ("SELECT * FROM devices ORDER ^tags.a", Syntax, "after ORDER, write BY"),
        ("SELECT * FROM devices ORDER BY tags.a ^WHERE tags.a = 1", Syntax, "in this order"),
        ("SELECT * FROM devices ORDER BY tags.a,^", Syntax, "write a path here"),
    ];
    for (marked, kind, part) in cases {
        let text = marked.replace('^', "");
        let position = marked.chars().position(|c| c == '^');
        let error = Query::parse(&text).expect_err(marked);
        assert_eq!((error.kind, true), (kind, error.message.contains(part)), "{marked}: {error}");
        if let Some(position) = position {
            assert_eq!(error.position, position, "{marked}: {error}");
        }
        assert!(error.to_string().starts_with(&format!("at character {}: ", error.position)));
        assert!(!error.message.ends_with('.') && error.message.len() > 20, "{error}");
    }
}

#[test]
fn an_error_at_the_end_stands_behind_the_last_character() {
    for text in ["", "SELECT * FROM devices WHERE", "SELECT * FROM devices WHERE tags.ä ="] {
        assert_eq!(Query::parse(text).expect_err(text).position, text.chars().count(), "{text}");
    }
}

#[test]
fn length_and_nesting_are_limited() {
    let of_length = |length: usize| {
        let frame = "SELECT * FROM devices WHERE tags.a = ''".len();
        Query::parse(&format!("SELECT * FROM devices WHERE tags.a = '{}'", "ö".repeat(length - frame)))
    };
    assert!(of_length(CHARACTERS_MAX).is_ok());
    let error = of_length(CHARACTERS_MAX + 1).expect_err("too long");
    assert_eq!((error.kind, error.position), (TooLong, CHARACTERS_MAX));
    for (open, close) in [("(", ")"), ("NOT ", "")] {
        let of_depth = |depth: usize| {
            Query::parse(&format!(
                "SELECT * FROM devices WHERE {}tags.a{}",
                open.repeat(depth),
                close.repeat(depth)
            ))
        };
        let deepest = of_depth(NESTING_MAX).expect("is allowed");
        assert_eq!(query(&deepest.to_string()), deepest);
        let error = of_depth(NESTING_MAX + 1).expect_err("too deep");
        assert_eq!((error.kind, error.position), (TooDeep, 28 + NESTING_MAX * open.len()));
    }
    let one_after_another = vec!["(NOT tags.a)"; NESTING_MAX + 1].join(" AND ");
    assert!(Query::parse(&format!("SELECT * FROM devices WHERE {one_after_another}")).is_ok());
    let list = format!("SELECT * FROM devices WHERE tags.a = {}1{}", "[ ".repeat(65), "]".repeat(65));
    assert_eq!(Query::parse(&list).expect_err("too deep").kind, TooDeep);
    let boolean =
        format!("SELECT * FROM devices WHERE {}IS_NULL(tags.a) = false", "NOT ".repeat(NESTING_MAX));
    assert_eq!(Query::parse(&boolean).expect_err("too deep").kind, TooDeep);
}

#[test]
fn clauses_say_what_they_say() {
    let all = query(
        "select top 5 deviceId as id, tags.a from DEVICES.Modules where tags.b = 1 order by tags.a desc, version, status asc",
    );
    assert_eq!(all.top(), Some(5));
    assert_eq!(all.collection(), Collection::Modules);
    let item = |text: &str, alias: Option<&str>| Item {
        selected: Selected::Path(path(text)),
        alias: alias.map(str::to_owned),
    };
    assert_eq!(*all.selection(), Selection::Items(vec![item("deviceId", Some("id")), item("tags.a", None)]));
    let order: Vec<_> = all.order.iter().map(|order| (order.path.to_string(), order.direction)).collect();
    use Direction::{Ascending, Descending};
    let expected = [("tags.a", Descending), ("version", Ascending), ("status", Ascending)];
    assert_eq!(order, expected.map(|(path, direction)| (path.to_owned(), direction)));
    let grouped = query("SELECT tags.a, AVG(tags.b) AS mean FROM devices GROUP BY devices.tags.a");
    assert_eq!(grouped.groups, [path("tags.a")]);
    assert!(grouped.is_grouped() && !grouped.is_sorted());
    let Selection::Items(items) = grouped.selection() else { panic!("the query has no columns") };
    assert_eq!(items[1].selected, Selected::Aggregate(Aggregate::Average, Some(path("tags.b"))));
}

#[test]
fn root_names_have_no_case_and_all_others_do() {
    for root in Root::ALL {
        for spelt in [root.name().to_owned(), root.name().to_uppercase(), root.name().to_lowercase()] {
            assert_eq!(path(&spelt).root(), *root);
            assert_eq!(path(&format!("Devices.{spelt}")).root(), *root);
        }
    }
    assert_ne!(path("properties.Desired.a"), path("properties.desired.a"));
    assert_ne!(path("tags.A"), path("TAGS.a"));
}

#[test]
fn names_after_a_dot_are_names_whatever_they_are_elsewhere() {
    for (text, below) in [
        ("tags.group.select", vec!["group", "select"]),
        ("tags.[[group]].[[a.b c]]", vec!["group", "a.b c"]),
        ("tags.$version", vec!["$version"]),
        ("tags . a", vec!["a"]),
        ("[[tags]].x1", vec!["x1"]),
        ("tags.größe", vec!["größe"]),
        ("tags.[[a]]]", vec!["a]"]),
        ("tags.[[a]b]]", vec!["a]b"]),
        ("tags.[['x']]", vec!["'x'"]),
        ("tags.devices.count", vec!["devices", "count"]),
    ] {
        assert_eq!(path(text).below(), below, "{text}");
    }
    let aliases = query("SELECT COUNT() AS count, MAX(version) AS [[the top]] FROM devices");
    assert_eq!(aliases.to_string(), "SELECT COUNT() AS [[count]], MAX(version) AS [[the top]] FROM devices");
}

#[test]
fn constants_are_what_they_look_like() {
    for (text, value) in [
        ("'a'", json!("a")),
        ("\"it's\"", json!("it's")),
        (r#"'\' \" \\ \/ \b\f\n\r\t'"#, json!("' \" \\ / \u{8}\u{c}\n\r\t")),
        (r"'\u00e9\ud83d\ude00'", json!("é😀")),
        ("''", json!("")),
        ("0", json!(0)),
        ("-0.0", json!(0)),
        ("-7", json!(-7)),
        ("1.5e3", json!(1500.0)),
        ("9007199254740993", json!(9_007_199_254_740_993_i64)),
        ("-9223372036854775808", json!(i64::MIN)),
        ("18446744073709551615", json!(u64::MAX)),
        ("0xFF", json!(255)),
        ("-0x10", json!(-16)),
        ("TRUE", json!(true)),
        ("False", json!(false)),
        ("null", json!(null)),
        ("[]", json!([])),
        ("[1, 'a', [null]]", json!([1, "a", [null]])),
        ("[[1], [2]]", json!([[1], [2]])),
        ("[[[1]]]", json!([[[1]]])),
    ] {
        let Condition::Compare(_, _, Operand::Literal(found)) = condition(&format!("tags.a = {text}")) else {
            panic!("{text} was not parsed as a constant");
        };
        assert_eq!(found, value, "{text}");
    }
}

#[test]
fn operators_bind_as_in_sql() {
    let same = [
        ("tags.a OR tags.b AND NOT tags.c = 1", "tags.a OR (tags.b AND (NOT (tags.c = 1)))"),
        ("NOT tags.a AND tags.b", "(NOT tags.a) AND tags.b"),
        ("NOT tags.a IN ['x'] OR tags.b", "(NOT (tags.a IN ['x'])) OR tags.b"),
        ("tags.a <> 1", "tags.a != 1"),
        ("starts_with(deviceId, 'a')", "STARTSWITH(deviceId, 'a')"),
        ("Ends_With(deviceId, 'a')", "ENDSWITH(deviceId, 'a')"),
        ("is_defined(tags.a) = true", "IS_DEFINED(tags.a)"),
        ("is_defined(tags.a) != false", "IS_DEFINED(tags.a)"),
        ("is_defined(tags.a) = false", "NOT IS_DEFINED(tags.a)"),
        ("is_defined(tags.a) <> TRUE", "NOT IS_DEFINED(tags.a)"),
        ("(((tags.a)))", "tags.a"),
        ("devices.tags.a = devices.deviceId", "tags.a = deviceId"),
    ];
    for (one, other) in same {
        assert_eq!(condition(one), condition(other), "{one}");
    }
    assert_ne!(condition("tags.a AND (tags.b OR tags.c)"), condition("tags.a AND tags.b OR tags.c"));
    assert_eq!(condition("1 < tags.a"), {
        let left = Operand::Literal(json!(1));
        Condition::Compare(left, super::super::Comparison::Less, Operand::Path(path("tags.a")))
    });
    assert_eq!(condition("true"), Condition::Constant(true));
    assert_eq!(condition("tags.on"), Condition::Holds(path("tags.on")));
    for test in TypeTest::ALL {
        assert_eq!(
            condition(&format!("{}(tags.a)", test.name().to_lowercase())),
            Condition::Type(*test, path("tags.a"))
        );
    }
    for test in TextTest::ALL {
        let expected =
            Condition::Text(*test, Operand::Path(path("tags.a")), Operand::Literal(Value::from("x")));
        assert_eq!(condition(&format!("{}(tags.a, 'x')", test.name())), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        let _ = Query::parse(&text);
        let _ = Query::parse(&format!("SELECT * FROM devices WHERE {text}"));
    }

    #[test]
    fn no_mix_of_tokens_makes_the_parser_panic(
        words in proptest::collection::vec(proptest::sample::select(vec![
            "SELECT", "*", "FROM", "devices", ".", "modules", "WHERE", "tags", "a", "(", ")", "[", "]", "[[", "]]", "'x'", "1", "-",
            "AND", "OR", "NOT", "IN", "NIN", "=", "<", ",", "COUNT", "GROUP", "ORDER", "BY", "TOP", "AS", "IS_DEFINED", "STARTSWITH",
            "\\", "'", "null", "0x", "1e", "\u{1f600}",
        ]), 0..40),
        gap in proptest::sample::select(vec!["", " "]),
    ) {
        let _ = Query::parse(&words.join(gap));
        let _ = Query::parse(&format!("SELECT * FROM devices WHERE {}", words.join(gap)));
    }

    #[test]
    fn no_damage_to_a_query_makes_the_parser_panic(query in any_query(), at in any::<prop::sample::Index>(), put in any::<char>(), cut in 0..4_usize) {
        let mut characters: Vec<char> = query.to_string().chars().collect();
        let at = at.index(characters.len());
        let end = (at + cut).min(characters.len());
        characters.splice(at..end, [put]);
        let text: String = characters.iter().collect();
        if let Err(error) = Query::parse(&text) {
            prop_assert!(error.position <= characters.len(), "{}: {}", text, error);
        }
    }

    #[test]
    fn what_is_printed_parses_to_the_same(query in any_query()) {
        let text = query.to_string();
        prop_assume!(text.chars().count() <= CHARACTERS_MAX);
        let parsed = Query::parse(&text).map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
        prop_assert_eq!(&parsed, &query, "{}", text);
        prop_assert_eq!(parsed.to_string(), text);
    }
}

//! The query language of twins, as far as it is understood.
//!
//! ```text
//! SELECT * FROM devices [WHERE condition]            devices.modules for module twins
//! SELECT path [AS name], … FROM devices [WHERE …]
//! SELECT COUNT() AS name FROM devices [WHERE …]
//! condition: NOT, AND, OR, parentheses; = != <> < <= > >=; IN, NIN ['a', 'b'];
//!            IS_DEFINED(path), STARTSWITH(path, 'text'), ENDSWITH(path, 'text')
//! ```
//!
//! Keywords, functions and the names at the top of a twin are known in any case, names below are case-sensitive. A path that a twin does not have, and a
//! comparison of two types, is undefined: neither it nor its negation selects the twin. Anything else is refused.

use serde_json::Value;

mod condition;
mod parser;
mod path;
mod row;
mod token;

use condition::Condition;
pub(super) use row::Column;

/// The longest query that the service takes.
const LONGEST: usize = 8_192;

/// What a query asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Collection {
    /// Twins of devices.
    Devices,
    /// Twins of modules.
    Modules,
}

/// What a query answers with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Selection {
    /// The twins themselves.
    Twins,
    /// A row of these columns per twin.
    Columns(Vec<Column>),
    /// One object with the count under this name.
    Count(String),
}

/// A query that was understood.
#[derive(Debug)]
pub(super) struct Query {
    /// What it answers with.
    pub(super) selection: Selection,
    /// What it asks for.
    pub(super) collection: Collection,
    condition: Option<Condition>,
}

/// Why a query was not understood; for the client to read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot understand the query at character {at}: {reason}")]
pub(super) struct QueryError {
    at: usize,
    reason: String,
}

impl Query {
    /// Understands a query.
    pub(super) fn parse(text: &str) -> Result<Self, QueryError> {
        if text.chars().count() > LONGEST {
            return Err(QueryError {
                at: LONGEST,
                reason: format!("it is longer than {LONGEST} characters"),
            });
        }
        parser::parse(text)
    }

    /// Whether the twin, as the service's REST API shows it, is selected.
    pub(super) fn selects(&self, twin: &Value) -> bool {
        self.condition.as_ref().is_none_or(|condition| condition.holds(twin) == Some(true))
    }

    /// Whether every twin of the collection is selected.
    pub(super) fn selects_all(&self) -> bool {
        self.condition.is_none()
    }
}

impl Selection {
    /// What a selected twin adds to the answer, a count aside.
    pub(super) fn row(&self, twin: &Value) -> Value {
        match self {
            Self::Twins | Self::Count(_) => twin.clone(),
            Self::Columns(columns) => row::row(columns, twin),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn selects(condition: &str) -> bool {
        let twin = json!({
            "deviceId": "x'_OR_'a'='a1", "status": "enabled", "version": 7,
            "tags": {"site": "north", "floor": 3, "odd": null, "$x": "y"},
            "properties": {"desired": {"on": true, "$version": 4}, "reported": {"t": {"now": 21.5}}},
        });
        let query = format!("SELECT * FROM devices WHERE {condition}");
        Query::parse(&query).unwrap_or_else(|error| panic!("{query}: {error}")).selects(&twin)
    }

    #[test]
    fn conditions_select_by_value_and_type() {
        for condition in [
            r"deviceId = 'x\'_OR_\'a\'=\'a1'",
            r#"deviceId = "x'_OR_'a'='a1""#,
            r"deviceId IN ['b', 'x\u0027_OR_\'a\'=\'a1']",
            "deviceId NIN ['b']",
            "tags.site = 'north' AND tags.floor = 3",
            "tags.floor = 3.0 and tags.floor >= 3 and tags.floor < 3.5 and tags.floor > -1e2",
            "properties.desired.on = true",
            "properties.desired.$version = 4",
            "properties.reported.t.now > 21",
            "tags.site = 'south' OR tags.site != 'south' AND status = 'enabled'",
            "NOT (tags.site = 'south' OR tags.floor <> 3)",
            "IS_DEFINED(properties.reported.t) AND NOT is_defined(tags.nobody)",
            "startswith(tags.site, 'no') AND ENDSWITH(tags.site, 'th')",
            "NOT STARTSWITH(tags.site, 'so')",
            "3 = tags.floor",
            "tags.odd = null",
        ] {
            assert!(selects(condition), "{condition}");
        }
    }

    #[test]
    fn what_is_undefined_or_of_another_type_selects_neither_way() {
        for condition in
            ["tags.nobody = 1", "tags.floor = '3'", "tags.floor < 'a'", "STARTSWITH(tags.floor, '3')"]
        {
            assert!(!selects(condition), "{condition}");
            assert!(!selects(&format!("NOT ({condition})")), "NOT {condition}");
        }
        assert!(selects("tags.nobody = 1 OR tags.floor = 3"));
        assert!(!selects("NOT (tags.nobody = 1 AND tags.floor = 3)"));
        assert!(selects("NOT (tags.nobody = 1 AND tags.floor = 4)"));
        assert!(!selects("tags.Floor = 3"), "names below the top are case-sensitive");
        assert!(selects("TAGS.floor = 3"), "names at the top are not");
    }

    #[test]
    fn or_binds_less_than_and_and_not_binds_most() {
        assert!(selects("tags.floor = 3 OR tags.floor = 4 AND tags.floor = 5"));
        assert!(!selects("(tags.floor = 3 OR tags.floor = 4) AND tags.floor = 5"));
        assert!(selects("NOT tags.floor = 4 AND tags.floor = 3"));
    }

    #[test]
    fn collections_and_counts_are_told_apart() {
        let of = |text| {
            let Query { selection, collection, .. } = Query::parse(text).unwrap();
            (selection, collection)
        };
        assert_eq!(of("select * from devices"), (Selection::Twins, Collection::Devices));
        assert_eq!(of(" SELECT *\nFROM devices.modules "), (Selection::Twins, Collection::Modules));
        let count = Selection::Count("numberOfDevices".to_owned());
        assert_eq!(of("SELECT COUNT() AS numberOfDevices FROM devices"), (count, Collection::Devices));
    }

    #[test]
    fn columns_are_shown_under_their_last_part_or_their_alias() {
        let twin = json!({
            "deviceId": "a", "version": 7,
            "tags": {"site": "north", "odd": null}, "properties": {"desired": {"site": {"x": 1}}},
        });
        for (items, row) in [
            ("deviceId, version", json!({"deviceId": "a", "version": 7})),
            ("DEVICEID, devices.Version", json!({"deviceId": "a", "version": 7})),
            ("deviceid AS Id", json!({"Id": "a"})),
            ("tags.site, properties.desired.site as wanted", json!({"site": "north", "wanted": {"x": 1}})),
            ("tags.odd, tags.nobody, etag", json!({"odd": null})),
        ] {
            let query = Query::parse(&format!("SELECT {items} FROM devices")).unwrap();
            assert_eq!(query.selection.row(&twin), row, "{items}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_its_place() {
        let deep = format!("SELECT * FROM devices WHERE {}a = 1", "NOT ".repeat(1_000));
        let long = format!("SELECT * FROM devices WHERE a = '{}'", "x".repeat(LONGEST));
        for text in [
            "",
            "SELECT deviceId, FROM devices",
            "SELECT deviceId version FROM devices",
            "SELECT deviceId, DEVICEID FROM devices",
            "SELECT tags.a, properties.desired.a FROM devices",
            "SELECT version AS etag, etag FROM devices",
            "SELECT *, version FROM devices",
            "SELECT version, COUNT() AS c FROM devices",
            "SELECT * FROM devices.jobs",
            "SELECT * FROM devices ORDER BY deviceId",
            "SELECT * FROM devices WHERE",
            "SELECT * FROM devices WHERE tags.a",
            "SELECT * FROM devices WHERE tags.a = ",
            "SELECT * FROM devices WHERE tags.a = 'x",
            "SELECT * FROM devices WHERE tags.a = 'x' 'y'",
            "SELECT * FROM devices WHERE tags..a = 1",
            "SELECT * FROM devices WHERE (tags.a = 1",
            "SELECT * FROM devices WHERE tags.a IN []",
            "SELECT * FROM devices WHERE tags.a IN [1, tags.b]",
            "SELECT * FROM devices WHERE ARRAY_CONTAINS(tags.a, 1)",
            "SELECT * FROM devices WHERE tags.a = 1e999",
            "SELECT * FROM devices WHERE tags.a = 'x\\q'",
            "SELECT * FROM devices WHERE tags.a = 'x\\ud800'",
            "SELECT * FROM devices; DROP",
            deep.as_str(),
            long.as_str(),
        ] {
            let error = Query::parse(text).expect_err(text);
            assert!(error.at <= LONGEST && error.reason.len() > 10, "{text}: {error}");
        }
    }
}

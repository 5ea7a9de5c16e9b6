//! All queries for documents in one place, so that an indexing policy can be checked against them.

use azure_data_cosmos::Query;

use crate::ports::{Filter, Which};

/// The modules in a device's partition, of any hub. Several hubs may share a container, and old documents may have the
/// hub's name in another case.
pub(super) const MODULES: &str = "SELECT c.hubName, c.moduleId FROM c WHERE IS_DEFINED(c.moduleId)";

/// The names of hubs, as written in documents; used only by a check, for one page.
pub(super) const HUB_NAMES: &str = "SELECT c.hubName FROM c WHERE IS_DEFINED(c.hubName)";

/// The documents of the device, or of one of its modules, in the device's partition, for any hub.
pub(super) fn twin(fields: &str, module: Option<&str>) -> azure_data_cosmos::Result<Query> {
    let query = Query::from(twin_text(fields, module.is_some()));
    match module {
        None => Ok(query),
        Some(module) => query.with_parameter("@module", module),
    }
}

fn twin_text(fields: &str, is_module: bool) -> String {
    let condition = if is_module { "c.moduleId = @module" } else { "NOT IS_DEFINED(c.moduleId)" };
    format!("SELECT {fields} FROM c WHERE {condition}")
}

/// The documents of a scan.
pub(super) fn scan(which: Which) -> String {
    let condition = match which {
        Which::Present => "c.sync.state IN ('live', 'partial')",
        // Empty flags are not stored. A pending cascade that was not caused by a repair is completed by the streams.
        Which::Flagged => {
            "IS_DEFINED(c.sync.flags) OR c.sync.state = 'partial' OR (IS_DEFINED(c.sync.cascade) AND c.sync.op = 'snapshot')"
        }
    };
    format!(
        "SELECT c.id, c.hubName, c.deviceId, c.moduleId, c.sync.appliedAt AS appliedAt FROM c WHERE {condition}"
    )
}

/// Documents of existing twins that match a condition of the caller.
pub(super) fn selection(fields: &str, filter: &Filter) -> azure_data_cosmos::Result<Query> {
    let mut query = Query::from(selection_text(fields, filter));
    if let Some(hub) = &filter.hub {
        query = query.with_parameter("@hub", hub.as_str())?;
    }
    filter
        .parameters
        .iter()
        .try_fold(query, |query, (name, value)| query.with_parameter(name.as_str(), value))
}

fn selection_text(fields: &str, filter: &Filter) -> String {
    let kind = if filter.of_modules { "IS_DEFINED(c.moduleId)" } else { "NOT IS_DEFINED(c.moduleId)" };
    // Old documents may have the name in another case.
    let hub = if filter.hub.is_some() { " AND LOWER(c.hubName) = @hub" } else { "" };
    format!(
        "SELECT {fields} FROM c WHERE c.sync.state IN ('live', 'partial') AND {kind}{hub} AND ({})",
        filter.condition
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::checks::QUERIED;

    /// The paths by which a query filters and sorts, in the form of an indexing policy.
    fn looks_at(query: &str) -> BTreeSet<String> {
        let (_, condition) = query.split_once(" WHERE ").expect("has a condition");
        let names = condition.split(|c: char| !c.is_alphanumeric() && c != '.' && c != '_');
        names
            .filter_map(|name| name.strip_prefix("c."))
            .map(|path| format!("/{}", path.replace('.', "/")))
            .collect()
    }

    #[test]
    fn the_index_that_a_check_asks_for_serves_every_query_of_the_daemon() {
        let all = [
            MODULES.to_owned(),
            twin_text("*", false),
            twin_text("*", true),
            scan(Which::Present),
            scan(Which::Flagged),
            selection_text("*", &everything()),
        ];
        let looked_at: BTreeSet<_> = all.iter().flat_map(|query| looks_at(query)).collect();
        let indexed: BTreeSet<_> =
            QUERIED.iter().map(|path| path.trim_end_matches("/[]").to_owned()).collect();
        assert_eq!(looked_at, indexed);
        assert_eq!(looks_at(HUB_NAMES), BTreeSet::from(["/hubName".to_owned()]));
    }

    fn everything() -> Filter {
        Filter { hub: None, of_modules: false, condition: "true".to_owned(), parameters: Vec::new() }
    }

    #[test]
    fn a_condition_from_outside_cannot_leave_its_parentheses() {
        let filter = Filter {
            hub: Some("h".into()),
            of_modules: true,
            condition: "c.tags['a'] = @q0 OR true".to_owned(),
            parameters: vec![("@q0".to_owned(), "') OR (1 = 1".into())],
        };
        assert_eq!(
            selection_text("*", &filter),
            "SELECT * FROM c WHERE c.sync.state IN ('live', 'partial') AND IS_DEFINED(c.moduleId) AND LOWER(c.hubName) = @hub \
             AND (c.tags['a'] = @q0 OR true)"
        );
    }

    #[test]
    fn there_are_no_other_queries() {
        for (file, source) in [
            ("cosmos.rs", include_str!("../cosmos.rs")),
            ("inspection.rs", include_str!("inspection.rs")),
            ("probe.rs", include_str!("probe.rs")),
            ("selection.rs", include_str!("selection.rs")),
        ] {
            assert!(!source.contains("FROM c"), "{file} has a query as well");
        }
    }
}

//! Counts declared in the configuration: which twins are counted, and how they are grouped.

use super::{
    Collection, Condition, Item, Path, Query, QueryError, Root, Selected, Selection, aggregate::Aggregate,
    parse,
};

/// The maximum length of the name of a count.
const NAME_MAX: usize = 63;
/// The column with the number of twins.
const NUMBER: &str = "twins";

/// A count that is kept current: it has the same rows as [`Declared::query`], without a query to the store each time.
#[derive(Debug, Clone, PartialEq)]
pub struct Declared {
    name: String,
    query: Query,
    labels: Vec<String>,
}

/// Why a count cannot be declared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeclaredError {
    /// The name is not valid.
    #[error(
        "{0:?} cannot be the name of a count: write up to {NAME_MAX} lower-case letters, digits and _, a letter first, e.g. \"by_site\""
    )]
    Name(String),
    /// The condition cannot be parsed.
    #[error("{0}")]
    Condition(QueryError),
    /// A path to group by cannot be parsed.
    #[error("{0}")]
    Group(QueryError),
    /// It groups by a value that is different for every twin.
    #[error(
        "{0} is different for every twin: count all twins without group_by, or group by a tag or property"
    )]
    PerTwin(String),
    /// Two paths would have the same label.
    #[error("two paths would both have the name {0:?}: leave one of them out")]
    Label(String),
    /// It uses a field that only the hub knows.
    #[error("{0} changes without an event, so only the hub knows it: leave it out")]
    HubOnly(String),
    /// It uses a field that no event contains.
    #[error(
        "{0} is not in any event, so few documents have it: set iothub.identity = \"on\", or leave it out"
    )]
    Identity(String),
}

impl Declared {
    /// A count of the twins of `collection` for which `condition` holds, or of all twins without a condition, grouped
    /// by the values at the paths in `groups`. `identity`: whether documents contain the hub's fields of identities
    /// (`status`, …).
    ///
    /// # Errors
    /// It cannot be parsed, or the count cannot be kept current.
    pub fn new(
        name: &str,
        collection: Collection,
        condition: Option<&str>,
        groups: Option<&str>,
        identity: bool,
    ) -> Result<Self, DeclaredError> {
        let is_name = name.len() <= NAME_MAX
            && name.starts_with(|first: char| first.is_ascii_lowercase())
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if !is_name {
            return Err(DeclaredError::Name(name.to_owned()));
        }
        let condition = condition.map(parse::condition).transpose().map_err(DeclaredError::Condition)?;
        let groups = groups.map(parse::paths).transpose().map_err(DeclaredError::Group)?.unwrap_or_default();
        let labels = labels(&groups)?;
        let query = counting(collection, condition, groups, &labels);
        let mut wrong = None;
        query.for_each_path(&mut |path| {
            if path.root().is_known_to_the_hub_only() {
                wrong.get_or_insert_with(|| DeclaredError::HubOnly(path.to_string()));
            } else if !identity && path.root().is_of_the_identity() {
                wrong.get_or_insert_with(|| DeclaredError::Identity(path.to_string()));
            }
        });
        if let Some(error) = wrong {
            return Err(error);
        }
        Ok(Self { name: name.to_owned(), query, labels })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The query that has the same rows.
    pub fn query(&self) -> &Query {
        &self.query
    }

    /// The names of its groups: the columns of each row, and the labels of the metric.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The paths that it groups by.
    pub fn groups(&self) -> &[Path] {
        &self.query.groups
    }
}

fn counting(
    collection: Collection,
    condition: Option<Condition>,
    groups: Vec<Path>,
    labels: &[String],
) -> Query {
    let column = |(path, label): (&Path, &String)| Item {
        selected: Selected::Path(path.clone()),
        alias: Some(label.clone()),
    };
    let number =
        Item { selected: Selected::Aggregate(Aggregate::Count, None), alias: Some(NUMBER.to_owned()) };
    let items = groups.iter().zip(labels).map(column).chain([number]).collect();
    let selection = Selection::Items(items);
    Query { top: None, selection, collection, condition, groups, order: Vec::new() }
}

/// The paths in the form of Prometheus label names: `tags.site` becomes `tags_site`.
fn labels(groups: &[Path]) -> Result<Vec<String>, DeclaredError> {
    let mut labels = Vec::<String>::new();
    for path in groups {
        if matches!(path.root(), Root::DeviceId | Root::Version) {
            return Err(DeclaredError::PerTwin(path.to_string()));
        }
        let names = std::iter::once(path.root().name()).chain(path.below().iter().map(String::as_str));
        let label = names.collect::<Vec<_>>().join("_").replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        // It begins with the name of a root field, so it is never one of Prometheus' own names, nor `name` or `twins`.
        if labels.contains(&label) {
            return Err(DeclaredError::Label(label));
        }
        labels.push(label);
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(condition: Option<&str>, groups: Option<&str>) -> Result<Declared, DeclaredError> {
        Declared::new("c", Collection::Devices, condition, groups, false)
    }

    #[test]
    fn a_count_is_a_query_that_anybody_could_ask() {
        let count =
            declared(Some("tags.site != 'lab'"), Some("properties.reported.[[fw-1]], tags.site")).unwrap();
        assert_eq!(count.labels(), ["properties_reported_fw_1", "tags_site"]);
        let text = count.query().to_string();
        assert_eq!(
            text,
            "SELECT properties.reported.[[fw-1]] AS properties_reported_fw_1, tags.site AS tags_site, COUNT() AS twins \
             FROM devices WHERE tags.site != 'lab' GROUP BY properties.reported.[[fw-1]], tags.site"
        );
        assert_eq!(Query::parse(&text).as_ref(), Ok(count.query()));
        let all = Declared::new("c", Collection::Modules, None, None, false).unwrap();
        assert_eq!(all.query().to_string(), "SELECT COUNT() AS twins FROM devices.modules");
    }

    #[test]
    fn what_cannot_be_kept_is_refused_with_the_place() {
        for name in ["", "1a", "A", "a-b", "a b", &"a".repeat(64)] {
            let found = Declared::new(name, Collection::Devices, None, None, false);
            assert_eq!(found, Err(DeclaredError::Name(name.to_owned())));
        }
        // Nothing after a condition can change what is counted.
        for condition in
            ["tags.a = 1 GROUP BY tags.b", "tags.a = 1 ORDER BY tags.b", "tags.a = ", "", "(1 = 1"]
        {
            let found = declared(Some(condition), None);
            assert!(matches!(found, Err(DeclaredError::Condition(_))), "{condition}: {found:?}");
        }
        let DeclaredError::Condition(error) = declared(Some("tags.a = 1 tags.b"), None).unwrap_err() else {
            panic!()
        };
        assert_eq!(error.position, 11, "{error}");
        assert!(matches!(declared(None, Some("tags.a tags.b")), Err(DeclaredError::Group(_))));
        assert!(matches!(declared(None, Some("site")), Err(DeclaredError::Group(_))));
        assert!(matches!(declared(None, Some("tags.a, deviceId")), Err(DeclaredError::PerTwin(_))));
        assert!(matches!(declared(None, Some("tags.a-b")), Err(DeclaredError::Group(_))));
        assert_eq!(
            declared(None, Some("tags.[[a-b]], tags.a_b")),
            Err(DeclaredError::Label("tags_a_b".to_owned()))
        );
        let connected = declared(Some("connectionState = 'Connected'"), None);
        assert_eq!(connected, Err(DeclaredError::HubOnly("connectionState".to_owned())));
    }

    #[test]
    fn fields_of_the_identity_need_documents_that_have_them() {
        for (condition, groups) in [(Some("status = 'enabled'"), None), (None, Some("capabilities.iotEdge"))]
        {
            assert!(matches!(declared(condition, groups), Err(DeclaredError::Identity(_))));
            assert!(Declared::new("c", Collection::Devices, condition, groups, true).is_ok());
        }
    }
}

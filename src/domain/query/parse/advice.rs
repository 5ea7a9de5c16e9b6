//! Advice for common mistakes: what to write instead.

use super::{
    super::{
        aggregate::Aggregate,
        error::{QueryError, QueryErrorKind},
        token::{Token, Tokens, shortened},
    },
    condition,
};

/// Functions that the hub's documentation has only for routes (learn: iot-hub/iot-hub-devguide-query-language).
const ROUTE_FUNCTIONS: [&str; 15] = [
    "ABS",
    "EXP",
    "POWER",
    "SQUARE",
    "CEILING",
    "FLOOR",
    "SIGN",
    "SQRT",
    "AS_NUMBER",
    "CONCAT",
    "LENGTH",
    "LOWER",
    "UPPER",
    "SUBSTRING",
    "INDEX_OF",
];

/// The error for a name followed by `(` where no such function is allowed.
pub(super) fn no_such_function(position: usize, name: &str) -> QueryError {
    let upper = shortened(&name.to_ascii_uppercase());
    if Aggregate::named(name).is_some() {
        let message = format!("{upper} is an aggregate: it stands after SELECT only, and takes a path");
        return QueryError::unsupported(position, message);
    }
    if ROUTE_FUNCTIONS.contains(&upper.as_str()) {
        let message =
            format!("the function {upper} is for routes and not for twins: compare the path itself");
        return QueryError::unsupported(position, message);
    }
    if condition::is_function(name) {
        let message = format!(
            "{upper} is a condition: it stands after WHERE only, by itself or compared with true or false"
        );
        return QueryError::unsupported(position, message);
    }
    let known = condition::functions().collect::<Vec<_>>().join(", ");
    QueryError::unsupported(position, format!("there is no function {upper}: conditions have {known}"))
}

pub(super) fn unknown_field(position: usize, name: &str) -> QueryError {
    let name = shortened(name);
    let message = match name.to_ascii_lowercase().as_str() {
        "property" | "desired" | "reported" => {
            format!(
                "a twin has no field `{name}`: write properties.desired or properties.reported before the name"
            )
        }
        "modules" => "a path never begins with `devices.modules`: leave it out".to_owned(),
        _ => format!(
            "a twin has no field `{name}`: begin with tags, properties.desired, properties.reported \
             or a field of the twin itself"
        ),
    };
    QueryError::new(position, QueryErrorKind::UnknownField, message)
}

/// The error for text after the last clause that is not a clause.
pub(super) fn after_the_last_clause(tokens: &Tokens) -> QueryError {
    let position = tokens.position();
    let no_part = |what: &str, instead: &str| {
        QueryError::unsupported(position, format!("{what} not part of the language: {instead}"))
    };
    let word = match tokens.current() {
        Token::Word(word) => word.to_ascii_uppercase(),
        Token::Sign(")") => {
            return QueryError::syntax(
                position,
                "this `)` closes nothing: leave it out, or write `(` before",
            );
        }
        _ => String::new(),
    };
    match word.as_str() {
        "LIMIT" | "OFFSET" => no_part("LIMIT and OFFSET are", "write SELECT TOP n, or ask page by page"),
        "HAVING" => no_part("HAVING is", "leave it out, and choose among the rows"),
        "JOIN" => no_part("JOIN is", "ask for devices and for devices.modules in two queries"),
        "LIKE" => no_part("LIKE is", "use STARTSWITH, ENDSWITH or CONTAINS"),
        "BETWEEN" => no_part("BETWEEN is", "write path >= a AND path <= b"),
        "IS" => no_part("IS is", "use IS_NULL(path) or IS_DEFINED(path)"),
        _ => {
            let found = tokens.current().quoted();
            let message = format!(
                "{found} cannot stand here: write WHERE, GROUP BY, ORDER BY, in this order, \
                 or end the query"
            );
            QueryError::syntax(position, message)
        }
    }
}

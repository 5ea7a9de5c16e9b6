//! Why a query is refused: the position of the error, and what to write instead.

/// A query that cannot be answered.
///
/// The message names what is wrong and says what to do; it quotes words of the query, never values of a twin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {position}: {message}")]
pub struct QueryError {
    /// The position of the error: the number of characters before it.
    pub position: usize,
    /// The kind of error.
    pub kind: QueryErrorKind,
    /// What is wrong and what to do, in one sentence.
    pub message: String,
}

/// The kinds of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QueryErrorKind {
    /// The text does not follow the grammar.
    Syntax,
    /// The text is longer than a query may be.
    TooLong,
    /// Parentheses, `NOT` or lists are nested deeper than a query may be.
    TooDeep,
    /// It asks for jobs; a copy of twins has no jobs.
    Jobs,
    /// It uses a feature of the hub, of routes or of Cosmos DB that is not supported here.
    Unsupported,
    /// A path begins with a name that no twin has.
    UnknownField,
    /// It uses a field that changes without any event, so that only the hub knows its value.
    HubOnly,
    /// Two columns of a row would have the same name.
    Duplicate,
    /// A column is neither an aggregate nor in GROUP BY.
    NotGrouped,
}

impl QueryError {
    pub(super) fn new(position: usize, kind: QueryErrorKind, message: impl Into<String>) -> Self {
        Self { position, kind, message: message.into() }
    }

    pub(super) fn syntax(position: usize, message: impl Into<String>) -> Self {
        Self::new(position, QueryErrorKind::Syntax, message)
    }

    pub(super) fn unsupported(position: usize, message: impl Into<String>) -> Self {
        Self::new(position, QueryErrorKind::Unsupported, message)
    }
}

/// There are more rows or groups than the caller keeps in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// `GROUP BY` has too many different keys.
    #[error(
        "the query has more than {max} groups: group by a field with fewer different values, or select fewer twins with WHERE"
    )]
    Groups {
        /// The maximum number of groups.
        max: usize,
    },
    /// `ORDER BY` has too many twins.
    #[error(
        "the query has more than {max} rows to sort: ask for the first of them with TOP {max} or less, \
         or select fewer twins with WHERE"
    )]
    Rows {
        /// The maximum number of rows.
        max: usize,
    },
}

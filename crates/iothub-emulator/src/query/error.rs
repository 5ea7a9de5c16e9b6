//! Errors of the parser.

/// Why a query could not be parsed. The message is meant for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot understand the query at character {at}: {reason}")]
pub struct QueryError {
    at: usize,
    reason: String,
}

impl QueryError {
    /// The position in the text, in characters from 0.
    pub fn at(&self) -> usize {
        self.at
    }
}

/// Creates an error at a position in characters.
pub(super) fn error(at: usize, reason: impl Into<String>) -> QueryError {
    QueryError { at, reason: reason.into() }
}

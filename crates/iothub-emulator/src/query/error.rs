//! Why a query was not understood.

/// Why a query was not understood; for the client to read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot understand the query at character {at}: {reason}")]
pub struct QueryError {
    at: usize,
    reason: String,
}

impl QueryError {
    /// Where, in characters from 0.
    pub fn at(&self) -> usize {
        self.at
    }
}

/// An error at this character.
pub(super) fn error(at: usize, reason: impl Into<String>) -> QueryError {
    QueryError { at, reason: reason.into() }
}

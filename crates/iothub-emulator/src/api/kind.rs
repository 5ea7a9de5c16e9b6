//! Kinds of requests.

/// Kinds of requests: what is counted, limited and made to fail apart from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    ReadTwin,
    WriteTwin,
    Query,
    Statistics,
    Other,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::ReadTwin => "readTwin",
            Self::WriteTwin => "writeTwin",
            Self::Query => "query",
            Self::Statistics => "statistics",
            Self::Other => "other",
        }
    }
}

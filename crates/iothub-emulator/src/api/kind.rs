//! Kinds of requests.

/// Kinds of requests. They are counted and limited separately, and faults can apply to one kind only.
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

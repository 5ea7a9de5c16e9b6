//! Facts about the declared counts.

use crate::telemetry::metrics::Metrics;

/// A change of the declared counts, other than their values.
#[derive(Debug, Clone, Copy)]
pub enum CountsChanged<'a> {
    /// All documents were read for the first time.
    Complete {
        /// Number of documents, including tombstones and later changes.
        documents: u64,
    },
    /// A recount has a different result.
    Corrected {
        /// Number of twins that were counted differently.
        twins: usize,
    },
    /// The position in the change feed was lost.
    BegunAnew,
    /// A count has more groups than the limit.
    TooManyGroups {
        /// Name of the count.
        name: &'a str,
    },
}

impl CountsChanged<'_> {
    /// INFO for the first, WARN for the others.
    pub fn emit(&self, metrics: &Metrics) {
        match self {
            Self::Complete { documents } => {
                tracing::info!(documents, "the declared counts are complete, and kept current from here on");
            }
            Self::Corrected { twins } => {
                metrics.counts_corrected(*twins);
                tracing::warn!(
                    code = "COUNTS_CORRECTED",
                    twins,
                    "the declared counts were wrong about some twins and are right again: documents were removed without a tombstone, by \
                     something else than twinsync"
                );
            }
            Self::BegunAnew => tracing::warn!(
                code = "CHANGE_FEED_LOST",
                "the change feed of the container does not continue where it ended: all documents are counted again, and until then no count \
                 is shown"
            ),
            Self::TooManyGroups { name } => tracing::warn!(
                code = "COUNT_TOO_WIDE",
                name,
                "a declared count has more groups than the limit: only its total is shown until all documents are counted again"
            ),
        }
    }
}

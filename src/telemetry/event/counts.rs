//! Facts about the declared counts.

use crate::telemetry::metrics::Metrics;

/// Something about the counts has changed, beside their numbers.
#[derive(Debug, Clone, Copy)]
pub enum CountsChanged<'a> {
    /// All documents were read for the first time.
    Complete {
        /// How many there were, tombstones and later changes included.
        documents: u64,
    },
    /// A recount has come to something else.
    Corrected {
        /// Twins that were counted in another way.
        twins: usize,
    },
    /// The changes do not go on where they ended.
    BegunAnew,
    /// A count has more groups than are told apart.
    TooManyGroups {
        /// Its name.
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
                "the change feed of the container does not go on where it ended: all documents are counted anew, and until then no count \
                 is shown"
            ),
            Self::TooManyGroups { name } => tracing::warn!(
                code = "COUNT_TOO_WIDE",
                name,
                "a declared count has more groups than are told apart: only its total is shown until all documents are counted anew"
            ),
        }
    }
}

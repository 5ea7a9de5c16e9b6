//! State for the store that the streams, the background work and the lookups share.

use crate::{
    config::Settings,
    runtime::{
        documents::{DocumentCache, document_cache},
        request_unit_budget::RequestUnitBudget,
    },
};

/// State for the store that the streams and the background work share.
#[derive(Clone)]
pub(super) struct Shared {
    /// Documents that are kept for the next write of their twin.
    pub(super) cache: DocumentCache,
    /// The cap on request units.
    pub(super) budget: RequestUnitBudget,
}

impl Shared {
    /// Creates an empty cache and an unused budget.
    pub(super) fn new(settings: &Settings) -> Self {
        let cap = settings.cosmos.max_request_units_per_second.map(|units| units.get().into());
        Self { cache: document_cache(settings.cache.max_bytes as u64), budget: RequestUnitBudget::new(cap) }
    }
}

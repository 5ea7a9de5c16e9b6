//! The store for background work: its operations stay within the cap on request units, and are counted under their purpose.

use std::sync::Arc;

use futures::{Stream, StreamExt};

use crate::{
    domain::{
        document::{Document, ETag},
        id::{HubName, TwinKey},
        invariant::Invariant,
        quota::Purpose,
    },
    ports::{Charged, Read, Scanned, StoreError, TwinStore, Which, Write},
    runtime::request_unit_budget::RequestUnitBudget,
    telemetry::{
        Metrics, ReadOutcome, WriteKind, WriteOutcome,
        event::{InvariantBroken, ModulesQueried, ReadFinished, WriteFinished},
    },
};

/// The store, the cap on request units and the metrics.
#[derive(Clone)]
pub struct BudgetedStore {
    /// The store of the documents.
    pub store: Arc<dyn TwinStore>,
    /// The request units that may be spent, shared with the streams.
    pub budget: RequestUnitBudget,
    /// Counts operations and request units.
    pub metrics: Metrics,
}

impl BudgetedStore {
    /// Reads a document.
    pub async fn read(&self, key: &TwinKey, purpose: Purpose) -> Read {
        self.read_charged(key, purpose).await.outcome
    }

    /// Reads a document, and returns the request units that were charged.
    pub async fn read_charged(&self, key: &TwinKey, purpose: Purpose) -> Charged<Read> {
        self.budget.allowed().await;
        let Charged { outcome, request_units } = self.store.read(key).await;
        self.budget.spend(request_units);
        let message = match &outcome {
            Read::Present(..) | Read::Absent => None,
            Read::Damaged(_, reason) | Read::Foreign(reason) | Read::Refused(reason) => Some(reason.as_str()),
            Read::Unknown(trouble) => Some(trouble.message.as_str()),
        };
        ReadFinished {
            purpose: purpose.into(),
            twin: key,
            outcome: ReadOutcome::from(&outcome),
            request_units,
            message,
        }
        .emit(&self.metrics);
        Charged { outcome, request_units }
    }

    /// The hubs that have a document of this device or module. See [`TwinStore::hubs`].
    pub async fn hubs(
        &self,
        device: &str,
        module: Option<&str>,
        purpose: Purpose,
    ) -> Charged<Result<Vec<HubName>, StoreError>> {
        self.budget.allowed().await;
        let charged = self.store.hubs(device, module).await;
        self.budget.spend(charged.request_units);
        self.metrics.request_units_spent(purpose.into(), charged.request_units);
        charged
    }

    /// Creates the document, or replaces the one with this `etag`.
    pub async fn write(
        &self,
        key: &TwinKey,
        document: &Document,
        etag: Option<&ETag>,
        purpose: Purpose,
    ) -> Write {
        if document.key != *key {
            let detail = format!("a document of {} was to be written as that of {key}", document.key);
            InvariantBroken { invariant: Invariant::DocumentIsOfItsTwin, detail: &detail }
                .emit(&self.metrics);
            return Write::Rejected(detail);
        }
        self.budget.allowed().await;
        let (kind, charged) = match etag {
            None => (WriteKind::Create, self.store.create(key, document).await),
            Some(etag) => (WriteKind::Replace, self.store.replace(key, document, etag).await),
        };
        let Charged { outcome, request_units } = charged;
        self.budget.spend(request_units);
        let message = match &outcome {
            Write::Written(_) | Write::Conflict => None,
            Write::Rejected(reason) => Some(reason.as_str()),
            Write::Unknown(trouble) => Some(trouble.message.as_str()),
        };
        WriteFinished {
            purpose: purpose.into(),
            twin: key,
            kind,
            outcome: WriteOutcome::from(&outcome),
            events: 0,
            request_units,
            message,
        }
        .emit(&self.metrics);
        outcome
    }

    /// The modules of a device that have a document.
    ///
    /// # Errors
    /// The store gave no answer.
    pub async fn modules(&self, device: &TwinKey, purpose: Purpose) -> Result<Vec<TwinKey>, StoreError> {
        self.budget.allowed().await;
        let Charged { outcome, request_units } = self.store.modules(device).await;
        self.budget.spend(request_units);
        let modules = outcome.as_ref().map(Vec::len);
        ModulesQueried { purpose: purpose.into(), twin: device, modules, request_units }.emit(&self.metrics);
        outcome
    }

    /// Scans documents. See [`TwinStore::scan`].
    pub fn scan(
        &self,
        which: Which,
        purpose: Purpose,
    ) -> impl Stream<Item = Result<Vec<Scanned>, StoreError>> + Send + '_ {
        self.store.scan(which).then(move |Charged { outcome, request_units }| async move {
            self.budget.spend(request_units);
            self.metrics.request_units_spent(purpose.into(), request_units);
            self.budget.allowed().await;
            outcome
        })
    }
}

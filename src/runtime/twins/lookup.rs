//! One lookup: reads the document of a twin, and finds its hub if that is unknown.

use tokio::time::{Instant, timeout_at};

use super::{Access, Outcome, TwinRequest};
use crate::{
    domain::{
        document::Document,
        id::{HubName, TwinKey},
        quota::Purpose,
    },
    ports::{Charged, Read, StoreError, StoreErrorKind},
    runtime::documents::Stored,
};

/// Result of one lookup.
pub(super) enum Lookup {
    Document(Stored),
    Nothing(Option<String>),
    StoreError(StoreError),
    WhichHub(Vec<HubName>),
    Refused(String),
}

impl Lookup {
    pub(super) fn document(&self) -> Option<&Document> {
        match self {
            Self::Document((document, _)) => Some(document),
            Self::Nothing(_) | Self::StoreError(_) | Self::WhichHub(_) | Self::Refused(_) => None,
        }
    }

    /// The outcome of a request that does not wait, or whose requirement this lookup meets.
    pub(super) fn into_outcome(self) -> Outcome {
        match self {
            Self::Document(stored) if stored.0.twin().is_none() => Outcome::Deleted(stored),
            Self::Document(stored) => Outcome::Found(stored),
            Self::Nothing(reason) => Outcome::Absent(reason),
            Self::StoreError(trouble) => Outcome::Unavailable(trouble),
            Self::WhichHub(hubs) => Outcome::WhichHub(hubs),
            Self::Refused(reason) => Outcome::Refused(reason),
        }
    }

    /// The outcome of a request whose wait timed out.
    pub(super) fn into_disappointment(self) -> Outcome {
        match self {
            Self::Document(stored) => Outcome::TimedOut(Some(stored)),
            Self::Nothing(_) => Outcome::TimedOut(None),
            Self::StoreError(_) | Self::WhichHub(_) | Self::Refused(_) => self.into_outcome(),
        }
    }
}

/// A requested twin. Its hub may still be unknown.
pub(super) struct Wanted<'a> {
    pub(super) request: &'a TwinRequest,
    pub(super) hub: Option<HubName>,
    /// Request units that the lookups have cost.
    pub(super) request_units: f64,
}

impl Wanted<'_> {
    pub(super) fn key(&self) -> Option<TwinKey> {
        let TwinRequest { device, module, .. } = self.request;
        self.hub.as_ref().map(|hub| TwinKey {
            hub: hub.clone(),
            device: device.clone(),
            module: module.clone(),
        })
    }
}

impl Access {
    pub(super) async fn look_up(&self, wanted: &mut Wanted<'_>, limit: Instant) -> Lookup {
        self.charged_lookup(wanted, limit).await.0
    }

    /// Reads the document once. Also returns the request units that this cost.
    pub(super) async fn charged_lookup(&self, wanted: &mut Wanted<'_>, limit: Instant) -> (Lookup, f64) {
        let began = Instant::now();
        let silent = |kind: StoreErrorKind, code: &'static str, what: &str| {
            let seconds = began.elapsed().as_secs_f64();
            let message = format!("{what} within {seconds:.1} s");
            Lookup::StoreError(StoreError { kind, retry_after: None, code, message })
        };
        if timeout_at(limit, self.budgeted_store.budget.allowed()).await.is_err() {
            // The streams and the cap on request units take priority over reads.
            let turn = "the read did not get its turn: the store throttles, or cosmos.max_request_units_per_second is used up;";
            let lookup = silent(StoreErrorKind::Throttled, "COSMOS_THROTTLED", &format!("{turn} no read"));
            return (lookup, 0.0);
        }
        let looked_up = async {
            let (key, spent) = match wanted.key() {
                Some(key) => (key, 0.0),
                None => match self.find_hub(wanted.request).await {
                    Charged { outcome: Ok(key), request_units } => (key, request_units),
                    Charged { outcome: Err(lookup), request_units } => return (lookup, request_units, None),
                },
            };
            let Charged { outcome, request_units } =
                self.budgeted_store.read_charged(&key, Purpose::Request).await;
            (seen(outcome), spent + request_units, Some(key.hub))
        };
        match timeout_at(limit, looked_up).await {
            Ok((lookup, request_units, hub)) => {
                wanted.hub = wanted.hub.take().or(hub);
                wanted.request_units += request_units;
                (lookup, request_units)
            }
            Err(_) => {
                let what = "the document store gave no answer";
                (silent(StoreErrorKind::Unavailable, "COSMOS_UNAVAILABLE", what), 0.0)
            }
        }
    }

    /// Finds the hub of a twin if no hub is configured: only the stored documents show which hubs exist.
    async fn find_hub(&self, request: &TwinRequest) -> Charged<Result<TwinKey, Lookup>> {
        let TwinRequest { device, module, .. } = request;
        let Charged { outcome, request_units } =
            self.budgeted_store.hubs(device, module.as_deref(), Purpose::Request).await;
        let outcome = match outcome {
            Err(trouble) => Err(Lookup::StoreError(trouble)),
            Ok(mut hubs) => match (hubs.pop(), hubs.is_empty()) {
                (None, _) => Err(Lookup::Nothing(None)),
                (Some(hub), true) => Ok(TwinKey { hub, device: device.clone(), module: module.clone() }),
                (Some(last), false) => {
                    hubs.push(last);
                    Err(Lookup::WhichHub(hubs))
                }
            },
        };
        Charged { outcome, request_units }
    }
}

fn seen(read: Read) -> Lookup {
    match read {
        Read::Present(document, etag) => Lookup::Document((document, etag)),
        Read::Absent => Lookup::Nothing(None),
        Read::Foreign(reason) => Lookup::Nothing(Some(reason)),
        Read::Refused(reason) => Lookup::Refused(reason),
        Read::Damaged(_, reason) => Lookup::StoreError(StoreError {
            kind: StoreErrorKind::Unavailable,
            retry_after: None,
            code: "DOCUMENT_DAMAGED",
            message: format!(
                "what is stored under the twin's id is not a twin document ({reason}): its next change, a repair or `twinsync resync` replaces it"
            ),
        }),
        Read::Unknown(trouble) => Lookup::StoreError(trouble),
    }
}

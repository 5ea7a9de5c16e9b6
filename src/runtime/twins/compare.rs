//! Compares the hub's twin with its document.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{sync::Semaphore, time::timeout};

use super::MOST_COMPARISONS;
use crate::{
    domain::{
        differences::{Differences, differences},
        document::Document,
        drift::{Drift, Strictness, drift},
        id::{HubName, TwinKey},
        quota::Purpose,
        registry::RegistryTwin,
        ticks::Ticks,
    },
    ports::Got,
    runtime::rate_limited_registry::RateLimitedRegistry,
};

/// How long a request may wait for its turn in the hub's quota, and a little more. After that, the client has disconnected.
const TURN_LIMIT: Duration = Duration::from_secs(5);
/// Maximum number of differences that are reported.
const MOST_DIFFERENCES: usize = 200;

/// The answer of the hub, compared with the document.
#[derive(Debug)]
pub struct Comparison {
    /// The hub's time of its answer, if known.
    pub at: Option<Ticks>,
    /// The hub's twin, if there is one.
    pub twin: Option<Box<RegistryTwin>>,
    /// Result of the comparison.
    pub found: Compared,
}

/// How a document compares with the hub's twin.
#[derive(Debug)]
pub enum Compared {
    /// Both are equal.
    Equal,
    /// The hub has the twin, and the copy does not.
    Missing,
    /// The copy has the twin, and the hub does not.
    Extra,
    /// Both have the twin, and they differ.
    Different(Differences),
    /// The hub of this twin is not configured, so it cannot be asked.
    NotConfigured,
    /// The hub gave no answer.
    Unknown {
        /// The reason.
        reason: String,
        /// How long the hub asked to wait.
        retry_after: Option<Duration>,
    },
}

/// Asks hubs for single twins.
pub(super) struct Comparer {
    places: Semaphore,
}

impl Comparer {
    pub(super) fn new() -> Self {
        Self { places: Semaphore::new(MOST_COMPARISONS) }
    }

    /// Asks the hub of `key`, after `document` was read. So the hub's answer is newer than the document.
    pub(super) async fn compare(
        &self,
        registries: &BTreeMap<HubName, Arc<RateLimitedRegistry>>,
        key: Option<&TwinKey>,
        document: Option<&Document>,
        call_limit: Duration,
    ) -> Comparison {
        let without_answer = |found| Comparison { at: None, twin: None, found };
        let Some((key, registry)) = key.and_then(|key| Some((key, registries.get(&key.hub)?))) else {
            return without_answer(Compared::NotConfigured);
        };
        let Ok(_place) = self.places.try_acquire() else {
            let reason =
                format!("{MOST_COMPARISONS} comparisons are already in progress: try again in a moment");
            return without_answer(Compared::Unknown { reason, retry_after: Some(Duration::from_secs(1)) });
        };
        // A call that hangs ends by its own limit, and counts as unanswered.
        let limit = TURN_LIMIT + call_limit;
        match timeout(limit, registry.get(key, Purpose::Request)).await {
            Ok(Got::Present(twin)) => {
                let found = compared(document, Some(&twin));
                Comparison { at: Some(twin.at), found, twin: Some(twin) }
            }
            Ok(Got::Absent(at)) => Comparison { at: Some(at), twin: None, found: compared(document, None) },
            Ok(Got::Unknown(trouble)) => without_answer(Compared::Unknown {
                reason: trouble.message,
                retry_after: trouble.retry_after,
            }),
            Err(_) => without_answer(Compared::Unknown {
                reason: format!(
                    "the request did not get its turn within {} s: the hub throttles, or our share of its quota (iothub.share) is used up; repairs go first",
                    limit.as_secs()
                ),
                retry_after: None,
            }),
        }
    }
}

fn compared(document: Option<&Document>, twin: Option<&RegistryTwin>) -> Compared {
    let answer = twin.map(|twin| (twin.version, &twin.twin));
    match drift(document, answer, Strictness::Content) {
        // A flagged document may still be right, and an incomplete one says nothing wrong.
        None | Some(Drift::Flagged | Drift::Incomplete) => Compared::Equal,
        Some(Drift::Missing) => Compared::Missing,
        Some(Drift::Extra) => Compared::Extra,
        Some(Drift::Different(_)) => match (document.and_then(Document::twin), answer) {
            (Some(stored), Some((version, twin))) => {
                Compared::Different(differences(stored, version, twin, MOST_DIFFERENCES))
            }
            (Some(_) | None, _) => Compared::Different(Differences::default()),
        },
    }
}

//! Checks the IoT hubs.

use std::{collections::BTreeSet, sync::Arc};

use azure_core::credentials::TokenCredential;
use futures::future::join_all;

use super::{
    Inspector, LIMIT, Shared, WHOLE_LIMIT,
    credential::{Scope, Tokens},
};
use crate::{
    adapters,
    config::{Hub, HubAccess},
    domain::{
        checks::{Checked, Finding, Kind, Problem, Seen, document_ids, hub_names, quota},
        id::TwinKey,
    },
    ports::{Got, QueryError, StoreError, StoreErrorKind, TwinRegistry},
};

/// Code of the finding for a hub that does not answer.
const CODE: &str = "IOTHUB_UNAVAILABLE";

const REMEDY: &str = "check iothub.hosts or iothub.connection_strings, DNS and the hub's network rules";

fn failed(code: &'static str, message: &str) -> Finding {
    let problem = Problem::of_error(code, message);
    Finding::Fail(match message.contains("; ") {
        true => problem,
        false => Problem { remedy: REMEDY.to_owned(), ..problem },
    })
}

/// The finding for a hub without an answer. A hub that throttles is reachable.
fn unanswered(trouble: &StoreError) -> Finding {
    match trouble.kind {
        StoreErrorKind::Throttled => Finding::warn(
            trouble.code,
            format!("the hub throttles: {}", trouble.message),
            "check who else reads from it, raise its units, or lower iothub.share",
        ),
        StoreErrorKind::Unavailable | StoreErrorKind::Contradictory | StoreErrorKind::Newer => {
            failed(trouble.code, &trouble.message)
        }
    }
}

impl Inspector<'_> {
    /// Runs the checks of this section.
    pub(super) async fn iothub(
        &self,
        credential: Option<&Arc<dyn TokenCredential>>,
        tokens: &Tokens,
        shared: &Shared,
    ) -> Vec<Checked> {
        let settings = &self.settings.iothub;
        let (count, scheme) = (settings.hubs.len(), self.settings.document.id);
        let mut lines = vec![
            Checked::new(
                Kind::IotHubQuota,
                quota(count, settings.tier, settings.units.get(), settings.share),
            ),
            Checked::new(Kind::IotHubDocumentIds, document_ids(count, scheme)),
        ];
        if !self.connect {
            return lines;
        }
        if settings.hubs.is_empty() {
            let why = || Finding::Skipped("no IoT hub is configured".to_owned());
            let rest = [Kind::IotHubRead, Kind::IotHubQuery, Kind::IotHubNames];
            lines.extend(rest.map(|kind| Checked::new(kind, why())));
            return lines;
        }
        let asked = join_all(settings.hubs.iter().map(|hub| self.hub(hub, credential, tokens))).await;
        for (hub, (read, _)) in settings.hubs.iter().zip(&asked) {
            lines.push(Checked::about(Kind::IotHubRead, hub.name.as_str(), read.clone()));
        }
        for (hub, (_, query)) in settings.hubs.iter().zip(&asked) {
            lines.push(Checked::about(Kind::IotHubQuery, hub.name.as_str(), query.clone()));
        }
        let events = Shared::told(&shared.events).await;
        let documents = Shared::told::<BTreeSet<String>>(&shared.documents).await;
        let nothing = events.partitions.is_none() && documents.is_empty();
        let seen = Seen { events: events.hub_names, documents };
        let configured: Vec<_> = settings.hubs.iter().map(|hub| hub.name.clone()).collect();
        let names =
            if nothing { Finding::needs(Kind::EventHubsHub, "") } else { hub_names(&configured, &seen) };
        lines.push(Checked::new(Kind::IotHubNames, names));
        lines
    }

    /// Reads a twin that does not exist, and requests one row of a query.
    async fn hub(
        &self,
        hub: &Hub,
        credential: Option<&Arc<dyn TokenCredential>>,
        tokens: &Tokens,
    ) -> (Finding, Finding) {
        let missing = match (&hub.access, credential) {
            (_, None) => Some(Finding::needs(Kind::CredentialKind, "")),
            (HubAccess::Credential, Some(_)) => tokens.missing(Scope::IotHub),
            (HubAccess::Policy { .. }, Some(_)) => None,
        };
        let (None, Some(credential)) = (missing.clone(), credential) else {
            let missing = missing.unwrap_or_else(super::stopped);
            return (missing.clone(), missing);
        };
        let mut settings = self.settings.iothub.clone();
        settings.request_timeout = settings.request_timeout.min(LIMIT);
        let registry = match adapters::iothub::IotHub::connect(&settings, hub, credential) {
            Ok(registry) => registry,
            Err(error) => {
                let finding = Finding::of_error(error.code(), &error.to_string());
                return (finding, Finding::needs(Kind::IotHubRead, hub.name.as_str()));
            }
        };
        let late = |late: String| failed(CODE, &late);
        let (read, query) = tokio::join!(
            self.within(WHOLE_LIMIT, late, read(&registry, hub)),
            self.within(WHOLE_LIMIT, late, query(&registry))
        );
        (read.unwrap_or_else(|finding| finding), query.unwrap_or_else(|finding| finding))
    }
}

/// Reads a twin with a random name, which no device has.
async fn read(registry: &dyn TwinRegistry, hub: &Hub) -> Finding {
    let nobody = format!("twinsync-check-{:032x}", rand::random::<u128>());
    match registry.get(&TwinKey::device(&hub.name, nobody)).await {
        Got::Absent(_) => {
            Finding::ok("a request for a twin that does not exist is answered with the hub's own 404")
        }
        Got::Present(_) => Finding::fail(
            CODE,
            "the hub returned a twin that cannot exist",
            "check iothub.endpoint, and any proxy or gateway on the way: this is not an IoT hub",
        ),
        Got::Unknown(trouble) => unanswered(&trouble),
    }
}

async fn query(registry: &dyn TwinRegistry) -> Finding {
    match registry.query("SELECT * FROM devices", None, 1).await {
        Ok(_) => Finding::ok("a query is answered"),
        Err(QueryError::StoreError(trouble)) => unanswered(&trouble),
        Err(error @ (QueryError::Expired | QueryError::Refused(_))) => failed(CODE, &error.to_string()),
    }
}

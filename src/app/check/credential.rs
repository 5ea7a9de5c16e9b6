//! Checks the identity of this process, whether its credential gives tokens, and whether this machine's clock is right.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use azure_core::{credentials::TokenCredential, time::OffsetDateTime};
use futures::future::join_all;
use url::Url;

use super::{Inspector, LIMIT};
use crate::{
    adapters::{
        cosmos,
        credential::{self, NoToken},
        date, iothub,
    },
    config::{HubAccess, Identity, Settings},
    domain::checks::{Checked, Finding, Kind, clock, token},
};

/// Time limit of a token request. If this machine has no metadata service, it may take this long to find out.
const TOKEN_LIMIT: Duration = Duration::from_secs(10);

/// The services that need tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    EventHubs,
    Cosmos,
    Storage,
    IotHub,
}

impl Scope {
    const fn name(self) -> &'static str {
        match self {
            Self::EventHubs => "Event Hubs",
            Self::Cosmos => "Cosmos DB",
            Self::Storage => "storage",
            Self::IotHub => "IoT Hub",
        }
    }

    const fn of_token(self) -> &'static str {
        match self {
            Self::EventHubs => credential::EVENT_HUBS_SCOPE,
            Self::Cosmos => cosmos::SCOPE,
            Self::Storage => credential::STORAGE_SCOPE,
            Self::IotHub => iothub::SCOPE,
        }
    }
}

/// The findings about the tokens that are needed.
#[derive(Debug, Default)]
pub(super) struct Tokens(BTreeMap<Scope, Finding>);

impl Tokens {
    /// Why a service cannot be asked, if its token is missing. `None` also if no token is needed.
    pub(super) fn missing(&self, scope: Scope) -> Option<Finding> {
        let unusable = self.0.get(&scope).is_some_and(|finding| !finding.is_usable());
        unusable.then(|| Finding::needs(Kind::CredentialToken, scope.name()))
    }
}

/// Creates the credential, without I/O.
pub(super) fn make(settings: &Settings) -> Result<Arc<dyn TokenCredential>, Finding> {
    let identity = &settings.credential.identity;
    if let Identity::Workload { token_file, .. } = identity
        && let Err(error) = std::fs::File::open(token_file)
    {
        return Err(Finding::fail(
            credential::Error::CODE,
            format!("the token file {} cannot be read: {error}", token_file.display()),
            "label the pod with azure.workload.identity/use: \"true\", and check that its service account is annotated",
        ));
    }
    credential::connect(identity).map_err(|error| {
        Finding::fail(
            credential::Error::CODE,
            error.to_string().trim_end_matches(&format!(" ({})", credential::Error::CODE)),
            "complete the section [credential], or set credential.kind to one that works here",
        )
    })
}

impl Inspector<'_> {
    /// The services for which this credential must give tokens.
    fn scopes(&self) -> Vec<Scope> {
        let settings = self.settings;
        let mut scopes = vec![Scope::EventHubs];
        if settings.cosmos.key.is_none() {
            scopes.push(Scope::Cosmos);
        }
        if self.blob().is_some_and(|(blob, _)| !blob.container_url.expose().contains('?')) {
            scopes.push(Scope::Storage);
        }
        if settings.iothub.hubs.iter().any(|hub| hub.access == HubAccess::Credential) {
            scopes.push(Scope::IotHub);
        }
        scopes
    }

    /// Requests all tokens that are needed.
    pub(super) async fn tokens(&self, credential: &Arc<dyn TokenCredential>) -> Tokens {
        let ask = async |scope: Scope| {
            let late = |late: String| {
                Finding::fail(
                    NoToken::CODE,
                    format!("the credential gives no token: {late}"),
                    "check the section [credential], and that the token service can be reached from here",
                )
            };
            let work = credential::token_expiry(credential, scope.of_token());
            let finding = match self.within(TOKEN_LIMIT, late, work).await {
                Ok(Ok(expires)) => self.assess(expires),
                Ok(Err(error)) => Finding::of_error(NoToken::CODE, &error.to_string()),
                Err(finding) => finding,
            };
            (scope, finding)
        };
        Tokens(join_all(self.scopes().into_iter().map(ask)).await.into_iter().collect())
    }

    fn assess(&self, expires: OffsetDateTime) -> Finding {
        if let Identity::Emulator { .. } = self.settings.credential.identity {
            return Finding::ok("a fixed text instead of a token");
        }
        let left = expires - OffsetDateTime::now_utc();
        token(left.is_positive().then(|| left.unsigned_abs()))
    }

    /// Runs the checks of this section.
    pub(super) async fn credential(
        &self,
        made: &Result<Arc<dyn TokenCredential>, Finding>,
        tokens: &Tokens,
    ) -> Vec<Checked> {
        let kind = match made {
            Ok(_) => Finding::ok(self.identity()),
            Err(finding) => finding.clone(),
        };
        let mut lines = vec![Checked::new(Kind::CredentialKind, kind)];
        if !self.connect {
            return lines;
        }
        match made {
            Ok(_) => lines.extend(tokens.0.iter().map(|(scope, finding)| {
                Checked::about(Kind::CredentialToken, scope.name(), finding.clone())
            })),
            Err(_) => {
                lines.push(Checked::new(Kind::CredentialToken, Finding::needs(Kind::CredentialKind, "")));
            }
        }
        lines.push(Checked::new(Kind::Clock, self.clock().await));
        lines
    }

    /// The identity in words.
    fn identity(&self) -> String {
        let credential = &self.settings.credential;
        let user_assigned = |client_id: &Option<String>| match client_id {
            Some(client_id) => format!("managed identity with client id {client_id}"),
            None => "managed identity of this machine".to_owned(),
        };
        let kind = credential.identity.kind();
        let words = match &credential.identity {
            Identity::Workload { tenant_id, client_id, .. } => {
                format!("workload identity with client id {client_id} of tenant {tenant_id}")
            }
            Identity::Managed { client_id } => user_assigned(client_id),
            Identity::ClientSecret { tenant_id, client_id, .. } => {
                format!("service principal with client id {client_id} of tenant {tenant_id}")
            }
            Identity::Cli { tenant_id } => {
                let of = tenant_id.as_ref().map(|tenant| format!(" in tenant {tenant}")).unwrap_or_default();
                format!("the user who is logged in with the Azure CLI{of}")
            }
            Identity::Emulator { .. } => "a fixed text, for emulators".to_owned(),
        };
        let auto = if credential.chosen_automatically { ", chosen by \"auto\"" } else { "" };
        format!("\"{kind}\"{auto}: {words}")
    }

    async fn clock(&self) -> Finding {
        let settings = self.settings;
        let mut services: Vec<(String, Url, Option<&str>)> =
            vec![("Cosmos DB".to_owned(), settings.cosmos.endpoint.clone(), None)];
        if let Some((blob, _)) = self.blob()
            && let Ok(url) = Url::parse(blob.container_url.expose().split('?').next().unwrap_or_default())
        {
            services.push(("storage".to_owned(), url, None));
        }
        for hub in &settings.iothub.hubs {
            let url = hub.endpoint.clone().or_else(|| Url::parse(&format!("https://{}", hub.host)).ok());
            services.extend(url.map(|url| (format!("IoT hub {}", hub.name), url, Some(hub.host.as_str()))));
        }
        let measure = services.iter().map(|(name, url, host)| date::measure(name, url, *host, LIMIT));
        let late = |_| clock(&[]);
        match self.within(LIMIT * 2, late, join_all(measure)).await {
            Ok(measured) => clock(&measured.into_iter().flatten().collect::<Vec<_>>()),
            Err(finding) => finding,
        }
    }
}

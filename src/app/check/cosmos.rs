//! Checks the Cosmos DB account and the container of the documents.

use std::sync::Arc;

use azure_core::credentials::TokenCredential;

use super::{
    super::options::{cosmos_access, cosmos_options},
    Inspector, LIMIT, Shared, WHOLE_LIMIT,
    credential::{Scope, Tokens},
    stopped,
};
use crate::{
    adapters::cosmos::{Access, AccountProperties, Failed, Inspected, Options, Probed},
    domain::checks::{Checked, Finding, Kind, Problem, indexing, time_to_live},
};

/// The checks that are skipped if the account cannot be used.
const AFTER_ACCOUNT: [Kind; 7] = [
    Kind::CosmosConsistency,
    Kind::CosmosRegions,
    Kind::CosmosContainer,
    Kind::CosmosTimeToLive,
    Kind::CosmosIndexing,
    Kind::CosmosQuery,
    Kind::CosmosWrite,
];

fn late(what: &str) -> impl FnOnce(String) -> Finding {
    let what = what.to_owned();
    move |late| {
        Finding::fail(
            "COSMOS_UNAVAILABLE",
            format!("{what}: {late}"),
            "check cosmos.endpoint, DNS and the account's network rules",
        )
    }
}

fn failed(failed: &Failed) -> Finding {
    let problem = Problem::of_error(failed.code, &failed.message);
    if failed.code == "COSMOS_THROTTLED" {
        return Finding::warn(
            failed.code,
            problem.text,
            "raise the container's throughput, or check who else uses it; run this again when there is less load",
        );
    }
    Finding::Fail(match failed.message.contains("; ") {
        true => problem,
        false => Problem {
            remedy: "check the state of the account, its throughput and cosmos.request_timeout, and run this again".to_owned(),
            ..problem
        },
    })
}

impl Inspector<'_> {
    /// Runs the checks of this section.
    pub(super) async fn cosmos(
        &self,
        credential: Option<&Arc<dyn TokenCredential>>,
        tokens: &Tokens,
        shared: &Shared,
    ) -> Vec<Checked> {
        if !self.connect {
            return Vec::new();
        }
        let lines = match credential {
            None => skipped(Kind::CosmosAccount, Finding::needs(Kind::CredentialKind, "")),
            Some(_) if tokens.missing(Scope::Cosmos).is_some() => {
                skipped(Kind::CosmosAccount, tokens.missing(Scope::Cosmos).unwrap_or_else(stopped))
            }
            Some(credential) => {
                let mut options = cosmos_options(self.settings);
                options.request_timeout = options.request_timeout.min(LIMIT);
                let access = cosmos_access(self.settings, Arc::clone(credential));
                Box::pin(self.account(&options, access, shared)).await
            }
        };
        shared
            .documents
            .send_if_modified(|told| told.is_none() && told.replace(Default::default()).is_none());
        lines
    }

    async fn account(&self, options: &Options, access: Access, shared: &Shared) -> Vec<Checked> {
        let asked =
            self.within(WHOLE_LIMIT, late("the account"), AccountProperties::ask(options, &access)).await;
        let properties = match asked {
            Ok(Ok(properties)) => properties,
            Ok(Err(error)) => {
                return skipped(Kind::CosmosAccount, Finding::of_error(error.code(), &error.to_string()));
            }
            Err(finding) => return skipped(Kind::CosmosAccount, finding),
        };
        let access_by = match &access {
            Access::Key(_) => "with the account's key",
            Access::Token(_) => "with the credential",
        };
        let account = Finding::ok(format!("{} answers {access_by}", options.endpoint));
        let regions = match properties.regions(options) {
            Ok(regions) => Finding::ok(format!("writes go to {regions}")),
            Err(error) => Finding::of_error(error.code(), &error.to_string()),
        };
        let one_region = regions.is_usable();
        let mut lines = vec![
            Checked::new(Kind::CosmosAccount, account),
            Checked::new(Kind::CosmosConsistency, consistency(&properties, options)),
            Checked::new(Kind::CosmosRegions, regions),
        ];
        if !one_region {
            let [_, _, rest @ ..] = AFTER_ACCOUNT;
            lines.extend(rest.map(|kind| Checked::new(kind, Finding::needs(Kind::CosmosRegions, ""))));
            return lines;
        }
        let open = Box::pin(Inspected::open(options, access, &properties));
        let inspected = match self.within(WHOLE_LIMIT, late("the container"), open).await {
            Ok(Ok(inspected)) => inspected,
            other => {
                let finding = match other {
                    Ok(Err(error)) => Finding::of_error(error.code(), &error.to_string()),
                    Ok(Ok(_)) => stopped(),
                    Err(finding) => finding,
                };
                let name = format!("{}/{}", options.database, options.container);
                lines.push(Checked::about(Kind::CosmosContainer, name, finding));
                let [_, _, _, rest @ ..] = AFTER_ACCOUNT;
                lines.extend(rest.map(|kind| Checked::new(kind, Finding::needs(Kind::CosmosContainer, ""))));
                return lines;
            }
        };
        let container = inspected.container();
        let name = format!("{}/{}", options.database, options.container);
        let there = Finding::ok("it exists, with the partition key /deviceId");
        lines.push(Checked::about(Kind::CosmosContainer, name, there));
        let ttl = time_to_live(container.default_ttl, self.settings.document.tombstone_ttl);
        lines.push(Checked::new(Kind::CosmosTimeToLive, ttl));
        lines.push(Checked::new(Kind::CosmosIndexing, indexing(container.indexing.as_ref())));
        let (query, (), write) = tokio::join!(
            self.query(&inspected),
            async {
                let names =
                    self.within(WHOLE_LIMIT, late("the documents"), Box::pin(inspected.hub_names())).await;
                shared.documents.send_replace(Some(names.ok().and_then(Result::ok).unwrap_or_default()));
            },
            // Not dropped when the run is stopped, because it removes its test write.
            async { written(&inspected.write(self.stop).await) },
        );
        lines.push(Checked::new(Kind::CosmosQuery, query));
        lines.push(Checked::new(Kind::CosmosWrite, write));
        lines
    }

    async fn query(&self, inspected: &Inspected) -> Finding {
        match self.within(WHOLE_LIMIT, late("query_items"), Box::pin(inspected.query())).await {
            Ok(Ok(())) => Finding::ok("the query for flagged documents is answered"),
            Ok(Err(error)) => failed(&error),
            Err(finding) => finding,
        }
    }
}

fn consistency(properties: &AccountProperties, options: &Options) -> Finding {
    match properties.consistency(options) {
        Ok(Some(level @ ("Strong" | "BoundedStaleness" | "Session"))) => Finding::ok(level),
        Ok(unknown) => Finding::warn(
            "COSMOS_CONSISTENCY",
            format!(
                "the account reports no consistency level that twinsync knows: {}",
                unknown.unwrap_or("none")
            ),
            "make sure that it is Session or stronger: `az cosmosdb show -n ACCOUNT -g GROUP --query consistencyPolicy`",
        ),
        Err(error) => Finding::of_error(error.code(), &error.to_string()),
    }
}

fn written(probed: &Probed) -> Finding {
    match (&probed.worked, &probed.left) {
        (Some(Ok(())), None) => {
            Finding::ok("a document was created, read, replaced with a condition and removed again")
        }
        (Some(Err(error)), None) => failed(error),
        (None, None) => stopped(),
        (_, Some(left)) => Finding::fail(
            "COSMOS_UNAVAILABLE",
            format!("the test document could not be removed: {left}"),
            "delete that document; if time to live is switched on for the container, it expires within five minutes",
        ),
    }
}

/// The first finding, and a skipped line for every check that depends on it.
fn skipped(first: Kind, finding: Finding) -> Vec<Checked> {
    let rest = AFTER_ACCOUNT.map(|kind| Checked::new(kind, Finding::needs(first, "")));
    std::iter::once(Checked::new(first, finding)).chain(rest).collect()
}

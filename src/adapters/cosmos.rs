//! The [`TwinStore`] on Azure Cosmos DB.
//!
//! Facts about azure_data_cosmos 1.0 that shape this file: it has no end-to-end timeout unless one is set; it would
//! retry a 429 by itself for up to 270 s, which hides backpressure from our scheduler; after an ambiguous failure it
//! re-sends writes, so a failed condition may be the answer to our own stored write (the state machine in
//! [`crate::domain::upsert`] handles that). Nothing is retried here.
//!
//! A status counts as Cosmos DB's answer about a document only if the answer comes from Cosmos DB (proxies also answer
//! with 404 and 400) and has no substatus. A substatus would mean that the answer is about the container, the account
//! or the session: see `cosmos::answer`.
//!
//! What reads see: the SDK keeps a session token per physical partition. It takes the token from every answer to a
//! write or read, also from 409, 412 and 404, and sends it with each read and query that asks for Session consistency.
//! So a read sees at least what this process has written or read, and after a failed condition at least the write that
//! made it fail. The first read of a process may be older; the condition of the following write detects that. A replica
//! of the account that is behind the session answers 404 with the substatus 1002; this is *unknown*, never *absent*.
//! `docs/adr/0005` gives the argument.

mod account;
mod answer;
mod changes;
mod connection;
mod inspection;
mod probe;
mod queries;
mod selection;

use std::{collections::BTreeSet, num::NonZeroU32, sync::Arc, time::Duration};

use async_trait::async_trait;
use azure_core::credentials::TokenCredential;
use azure_data_cosmos::{
    ContainerClient, CosmosError, FeedScope, Query,
    feed::QueryPageIterator,
    options::{ItemWriteOptions, MaxItemCountHint, Precondition, QueryOptions},
};
use futures::{TryStreamExt, stream::BoxStream};
use serde::Deserialize;
use serde_json::Value;

use self::{account::Account, answer::Meaning};
pub use self::{
    inspection::{AccountProperties, Failed, Inspected},
    probe::Probed,
};
use super::credential::NoToken;
use crate::{
    domain::{
        document::{Document, ETag, Item, Misplaced},
        grace_period::Nature,
        id::{DocumentIdScheme, HubName, TwinKey},
        ticks::Ticks,
    },
    ports::{Charged, Read, Scanned, StoreError, StoreErrorKind, TwinStore, Which, Write},
};

/// The partition key of all our containers.
pub const PARTITION_KEY: &str = "/deviceId";

/// The scope of a token for an account.
pub const SCOPE: &str = account::SCOPE;

/// Documents per page of a scan.
const SCAN_PAGE: NonZeroU32 = NonZeroU32::new(1000).expect("1,000 is not 0");

/// How to connect to the container.
#[derive(Debug, Clone)]
pub struct Options {
    /// Account endpoint, e.g. `https://contoso.documents.azure.com/`.
    pub endpoint: url::Url,
    /// Database name.
    pub database: String,
    /// Container name.
    pub container: String,
    /// The region in which the daemon runs; the SDK prefers replicas near it.
    pub region: Option<String>,
    /// The region for all reads and writes, if the account accepts writes in several regions.
    pub write_region: Option<String>,
    /// Limit of one operation, including its inner retries; at least one second.
    pub request_timeout: Duration,
    /// Whether bodies are sent in Cosmos DB's binary encoding; third-party emulators reject it.
    pub binary_encoding: bool,
    /// How document ids are made.
    pub id_scheme: DocumentIdScheme,
}

/// How to authenticate.
#[derive(Clone)]
pub enum Access {
    /// With the account key.
    Key(String),
    /// With Microsoft Entra ID; needs a Cosmos DB data-plane role.
    Token(Arc<dyn TokenCredential>),
}

/// Why the container cannot be used. Each message says how to fix it.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No answer from the account.
    #[error(
        "cannot reach the Cosmos DB account {endpoint}: {reason}; check cosmos.endpoint, DNS, network rules and that the account exists ({})", self.code()
    )]
    Unreachable {
        /// The account.
        endpoint: String,
        /// The SDK's message, on one line.
        reason: String,
    },
    /// The account refuses our credential.
    #[error(
        "the Cosmos DB account {endpoint} refused the credential ({reason}); check cosmos.key, or give the identity the role `Cosmos DB Built-in Data Contributor` on it ({})", self.code()
    )]
    Refused {
        /// The account.
        endpoint: String,
        /// The status.
        reason: String,
    },
    /// The database or the container does not exist.
    #[error(
        "the container `{container}` of database `{database}` does not exist in {endpoint}; create it with partition key /deviceId and a default time to live of -1, e.g. `az cosmosdb sql container create -a ACCOUNT -g GROUP -d {database} -n {container} -p /deviceId --ttl -1 --idx @deploy/cosmos/indexing-policy.json` ({})", self.code()
    )]
    Missing {
        /// The account.
        endpoint: String,
        /// Database name.
        database: String,
        /// Container name.
        container: String,
    },
    /// Reads of the account may not see what was written before them.
    #[error(
        "the Cosmos DB account {endpoint} has the consistency level {level}, with which modules of a deleted device could remain without being noticed; twinsync needs Session or stronger: `az cosmosdb update -n ACCOUNT -g GROUP --default-consistency-level Session` ({})", self.code()
    )]
    Consistency {
        /// The account.
        endpoint: String,
        /// The consistency level of the account.
        level: String,
    },
    /// The account accepts writes in several regions, and it is unknown in which one we write.
    #[error(
        "the Cosmos DB account {endpoint} accepts writes in several regions ({regions}), and between regions the last write wins, whatever its condition; {named}: set it to one of these regions, the same for all replicas ({})", self.code()
    )]
    MultiWrite {
        /// The account.
        endpoint: String,
        /// The regions that accept writes.
        regions: String,
        /// What is wrong with the setting.
        named: String,
    },
    /// The container has another partition key.
    #[error(
        "the container `{container}` has the partition key {found}, twinsync needs /deviceId; the partition key of a container cannot be changed: create a new container ({})", self.code()
    )]
    PartitionKey {
        /// Container name.
        container: String,
        /// The partition key of the container.
        found: String,
    },
    /// There is no token: the account was not called.
    #[error("cannot use the Cosmos DB account {endpoint}: {reason}")]
    NoToken {
        /// The account.
        endpoint: String,
        /// Which credential provides no token, and why.
        reason: NoToken,
    },
}

impl ConnectError {
    /// Stable code; `docs/errors/<code>.md` explains it.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "COSMOS_UNAVAILABLE",
            Self::Refused { .. } => "COSMOS_REFUSED",
            Self::Missing { .. } => "COSMOS_NOT_FOUND",
            Self::Consistency { .. } => "COSMOS_CONSISTENCY",
            Self::MultiWrite { .. } => "COSMOS_MULTI_WRITE",
            Self::PartitionKey { .. } => "COSMOS_PARTITION_KEY",
            Self::NoToken { .. } => NoToken::CODE,
        }
    }

    /// Whether waiting helps. The same deployment that started this process may still be creating the container.
    pub const fn nature(&self) -> Nature {
        match self {
            Self::Unreachable { .. } => Nature::Passing,
            Self::Refused { .. } | Self::Missing { .. } => Nature::Refused,
            Self::NoToken { reason, .. } if reason.refused => Nature::Refused,
            Self::NoToken { .. } => Nature::Passing,
            Self::Consistency { .. } | Self::MultiWrite { .. } | Self::PartitionKey { .. } => Nature::Final,
        }
    }
}

/// The store.
pub struct CosmosStore {
    container: ContainerClient,
    id_scheme: DocumentIdScheme,
    /// The SDK's own limit must not be the only one: a hang outside its pipeline would block a lane.
    limit: Duration,
}

impl CosmosStore {
    /// Connects and makes sure that the container exists and has our partition key.
    ///
    /// # Errors
    /// The container cannot be used; the message says how to fix it.
    pub async fn connect(options: &Options, access: Access) -> Result<Self, ConnectError> {
        let endpoint = options.endpoint.to_string();
        let unreachable = |reason: String| ConnectError::Unreachable { endpoint: endpoint.clone(), reason };
        let told = Account::ask(&options.endpoint, &access, options.request_timeout).await;
        let excluded = match &told {
            Ok(account) => {
                account.check_consistency(&options.endpoint)?;
                account.pin(&options.endpoint, options.write_region.as_deref())?
            }
            Err(_) => None, // reported below, unless the account as a whole is unreachable
        };
        let (container, properties) = connection::open(options, access, excluded).await?;
        match told {
            Ok(_) => {}
            // Without the names of the other regions, they cannot be excluded.
            Err(reason) if options.write_region.is_some() => {
                return Err(unreachable(format!("its regions cannot be read: {reason}")));
            }
            Err(reason) => tracing::warn!(
                endpoint,
                code = "COSMOS_ACCOUNT_UNREADABLE",
                %reason,
                "the properties of the Cosmos DB account cannot be read: make sure that its consistency level is \
                 Session or stronger (COSMOS_CONSISTENCY), and that it accepts writes in one region only \
                 (COSMOS_MULTI_WRITE)"
            ),
        }
        connection::check_partition_key(options, &properties)?;
        Ok(Self::over(container, options))
    }

    fn over(container: ContainerClient, options: &Options) -> Self {
        Self {
            container,
            id_scheme: options.id_scheme,
            limit: options.request_timeout + Duration::from_secs(2),
        }
    }

    fn id(&self, key: &TwinKey) -> String {
        self.id_scheme.document_id(key)
    }

    /// The next page of a scan, and the position of the scan after it.
    async fn step(
        &self,
        scan: Scan,
        which: Which,
    ) -> Option<(Charged<Result<Vec<Scanned>, StoreError>>, Scan)> {
        let mut pages = match scan {
            Scan::End => return None,
            Scan::At(pages) => pages,
            Scan::Begin => {
                let options = QueryOptions::default().with_max_item_count(MaxItemCountHint::Limit(SCAN_PAGE));
                let everywhere = FeedScope::full_container();
                let query =
                    self.container.query_items(Query::from(queries::scan(which)), everywhere, Some(options));
                match self.limited("query_items", Box::pin(query)).await {
                    Ok(feed) => Box::new(feed.into_pages()),
                    Err(failure) => return Some((failed(&failure), Scan::End)),
                }
            }
        };
        match self.limited("query_items", Box::pin(pages.try_next())).await {
            Ok(page) => {
                let page = page?;
                let request_units = page.headers().request_charge().map_or(0.0, |charge| charge.value());
                let rows = page.into_items().into_iter();
                let rows = rows.filter_map(|row| serde_json::from_value::<ScannedRow>(row).ok());
                let outcome = Ok(rows.map(Scanned::from).collect());
                Some((Charged { outcome, request_units }, Scan::At(pages)))
            }
            Err(failure) => Some((failed(&failure), Scan::End)),
        }
    }

    /// Searches for a twin's document under other ids. Older releases used the hub's name in ids without converting it
    /// to lower case, and a document never changes its id.
    ///
    /// Costs a query within one partition, and runs only if there is no document under the twin's id.
    async fn read_elsewhere(&self, key: &TwinKey, spent: f64) -> Charged<Read> {
        let found = match queries::twin("*", key.module.as_deref()) {
            Ok(query) => self.within(&key.device, query).await,
            Err(error) => Err(Failure::Answered("query_items", error)),
        };
        match found {
            Ok((items, request_units)) => {
                let outcome = match Misplaced::among(items, key) {
                    None => Read::Absent,
                    Some(Misplaced { document: Ok(document), etag, .. }) => {
                        Read::Present(Arc::new(*document), etag)
                    }
                    Some(Misplaced { document: Err(format), id, .. }) => newer(&id, format),
                };
                Charged { outcome, request_units: spent + request_units }
            }
            Err(failure) => {
                Charged { request_units: spent + failure.charge(), outcome: Read::Unknown(failure.trouble()) }
            }
        }
    }

    /// The rows of a query within a device's partition, and their cost.
    async fn within(&self, device: &str, query: Query) -> Result<(Vec<Value>, f64), Failure> {
        let collect = Box::pin(async {
            let scope = FeedScope::partition(device.to_owned());
            let pages = self.container.query_items::<Value>(query, scope, None).await?.into_pages();
            pages
                .try_fold((Vec::new(), 0.0), |(mut rows, units), page| async move {
                    let charge = page.headers().request_charge().map_or(0.0, |charge| charge.value());
                    rows.extend(page.into_items());
                    Ok((rows, units + charge))
                })
                .await
        });
        self.limited("query_items", collect).await
    }

    async fn limited<T>(
        &self,
        operation: &'static str,
        future: impl Future<Output = azure_data_cosmos::Result<T>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(self.limit, future).await {
            Ok(result) => result.map_err(|error| Failure::Answered(operation, error)),
            Err(_) => Err(Failure::Silent(operation, self.limit)),
        }
    }
}

/// Why there is no result.
enum Failure {
    Answered(&'static str, CosmosError),
    Silent(&'static str, Duration),
}

impl Failure {
    fn charge(&self) -> f64 {
        let Self::Answered(_, error) = self else {
            return 0.0;
        };
        let headers = error.response().map(|response| response.headers());
        headers.and_then(|headers| headers.request_charge).map_or(0.0, |charge| charge.value())
    }

    fn trouble(&self) -> StoreError {
        match self {
            Self::Silent(..) => {
                let (kind, code) = (StoreErrorKind::Unavailable, answer::UNAVAILABLE);
                StoreError { kind, code, retry_after: None, message: self.to_string() }
            }
            Self::Answered(_, error) => {
                let headers = error.response().map(|response| response.headers());
                let retry_after = headers.and_then(|headers| headers.retry_after_ms);
                StoreError {
                    kind: match error.status().is_throttled() {
                        true => StoreErrorKind::Throttled,
                        false => StoreErrorKind::Unavailable,
                    },
                    code: match NoToken::find(error) {
                        Some(_) => NoToken::CODE,
                        None => answer::code(&answer::Answer::of(error)),
                    },
                    retry_after: retry_after.map(Duration::from_millis),
                    message: self.to_string(),
                }
            }
        }
    }

    /// The meaning of the failure for the document.
    fn meaning(&self) -> Meaning {
        match self {
            Self::Silent(..) => Meaning::Nothing,
            Self::Answered(_, error) => answer::meaning(&answer::Answer::of(error)),
        }
    }

    fn into_write(self, over: Writes) -> Write {
        match (self.meaning(), over) {
            (Meaning::Conflict, _) | (Meaning::Missing, Writes::Something) => Write::Conflict,
            (Meaning::Refused | Meaning::TooLarge, _) => Write::Rejected(self.to_string()),
            // A create needs no existing document, only the container.
            (Meaning::Missing, Writes::Nothing) | (Meaning::Nothing, _) => Write::Unknown(self.trouble()),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Silent(operation, limit) => {
                write!(f, "{operation}: no answer within {} s", limit.as_secs())
            }
            Self::Answered(operation, error) => {
                write!(f, "{operation}: {}", one_line(error))?;
                answer::remedy(&answer::Answer::of(error)).map_or(Ok(()), |remedy| write!(f, "; {remedy}"))
            }
        }
    }
}

/// What must exist for a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writes {
    Nothing,
    Something,
}

/// `Display` of a [`CosmosError`] is one line with status and message; `Debug` would print diagnostics.
fn one_line(error: &CosmosError) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(300).collect()
}

/// A row of a scan. An item without these fields is not one of our documents and is ignored.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ScannedRow {
    id: String,
    hub_name: String,
    device_id: String,
    module_id: Option<String>,
    applied_at: Ticks,
}

impl From<ScannedRow> for Scanned {
    fn from(row: ScannedRow) -> Self {
        let ScannedRow { id, hub_name, device_id, module_id, applied_at } = row;
        Self { id, key: TwinKey { hub: hub_name.into(), device: device_id, module: module_id }, applied_at }
    }
}

/// The position of a scan.
enum Scan {
    Begin,
    At(Box<QueryPageIterator<Value>>),
    End,
}

#[async_trait]
impl TwinStore for CosmosStore {
    async fn read(&self, key: &TwinKey) -> Charged<Read> {
        let id = self.id(key);
        let read = Box::pin(self.container.read_item(key.device.clone(), &id, None));
        let response = match self.limited("read_item", read).await {
            Ok(response) => response,
            Err(failure) => {
                let outcome = match failure.meaning() {
                    Meaning::Missing if self.id_scheme.may_lie_elsewhere() => {
                        return self.read_elsewhere(key, failure.charge()).await;
                    }
                    Meaning::Missing => Read::Absent,
                    Meaning::Refused => Read::Refused(failure.to_string()),
                    Meaning::Conflict | Meaning::TooLarge | Meaning::Nothing => {
                        Read::Unknown(failure.trouble())
                    }
                };
                return Charged { outcome, request_units: failure.charge() };
            }
        };
        let request_units = response.headers().request_charge().map_or(0.0, |charge| charge.value());
        let etag = response.headers().etag().map(|etag| ETag(etag.to_string()));
        let outcome = match (etag, response.into_model::<Value>()) {
            (None, _) => unknown("read_item: the answer has no ETag".into()),
            (Some(etag), Err(error)) => Read::Damaged(etag, one_line(&error)),
            (Some(etag), Ok(item)) => match Item::of(item, key) {
                Item::Document(document) => Read::Present(Arc::new(*document), etag),
                Item::Damaged(reason) => Read::Damaged(etag, reason),
                Item::Foreign(whose) => Read::Foreign(format!(
                    "the document `{id}` belongs to {whose}: two hubs share this container; set document.id = \"hub_device\" for both, or give each hub its own container (DOCUMENT_FOREIGN)"
                )),
                Item::Newer(format) => newer(&id, format),
            },
        };
        Charged { outcome, request_units }
    }

    async fn create(&self, key: &TwinKey, document: &Document) -> Charged<Write> {
        let create = Box::pin(self.container.create_item(key.device.clone(), &document.id, document, None));
        finish_write(self.limited("create_item", create).await, Writes::Nothing)
    }

    async fn replace(&self, key: &TwinKey, document: &Document, etag: &ETag) -> Charged<Write> {
        let condition = Precondition::if_match(etag.0.as_str());
        let options = ItemWriteOptions::default().with_precondition(condition);
        let replace =
            Box::pin(self.container.replace_item(key.device.clone(), &document.id, document, Some(options)));
        finish_write(self.limited("replace_item", replace).await, Writes::Something)
    }

    async fn modules(&self, device: &TwinKey) -> Charged<Result<Vec<TwinKey>, StoreError>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Row {
            hub_name: String,
            module_id: String,
        }
        // The partition key limits the query to devices with this id.
        match self.within(&device.device, Query::from(queries::MODULES)).await {
            Ok((rows, request_units)) => {
                let rows = rows.into_iter().filter_map(|row| serde_json::from_value::<Row>(row).ok());
                let keys = rows.map(|row| TwinKey::module(row.hub_name, &*device.device, row.module_id));
                let modules: BTreeSet<_> = keys.filter(|module| module.hub == device.hub).collect();
                Charged { outcome: Ok(modules.into_iter().collect()), request_units }
            }
            Err(failure) => failed(&failure),
        }
    }

    async fn hubs(&self, device: &str, module: Option<&str>) -> Charged<Result<Vec<HubName>, StoreError>> {
        let query =
            queries::twin("c.hubName", module).map_err(|error| Failure::Answered("query_items", error));
        let found = match query {
            Ok(query) => self.within(device, query).await,
            Err(failure) => Err(failure),
        };
        match found {
            Ok((rows, request_units)) => {
                let name = |row: &Value| row.get("hubName").and_then(Value::as_str).map(HubName::new);
                let hubs: BTreeSet<_> = rows.iter().filter_map(name).collect();
                Charged { outcome: Ok(hubs.into_iter().collect()), request_units }
            }
            Err(failure) => failed(&failure),
        }
    }

    fn scan(&self, which: Which) -> BoxStream<'_, Charged<Result<Vec<Scanned>, StoreError>>> {
        Box::pin(futures::stream::unfold(Scan::Begin, move |scan| self.step(scan, which)))
    }
}

fn unknown(message: String) -> Read {
    let (kind, code) = (StoreErrorKind::Unavailable, answer::UNAVAILABLE);
    Read::Unknown(StoreError { kind, code, retry_after: None, message })
}

fn newer(id: &str, format: i64) -> Read {
    let message = format!(
        "the document `{id}` has format {format}, which a newer release has written: update this replica (DOCUMENT_NEWER)"
    );
    let (kind, code) = (StoreErrorKind::Newer, "DOCUMENT_NEWER");
    Read::Unknown(StoreError { kind, code, retry_after: None, message })
}

fn failed<T>(failure: &Failure) -> Charged<Result<T, StoreError>> {
    Charged { request_units: failure.charge(), outcome: Err(failure.trouble()) }
}

fn finish_write(
    result: Result<azure_data_cosmos::models::ItemResponse, Failure>,
    over: Writes,
) -> Charged<Write> {
    match result {
        Ok(response) => {
            let request_units = response.headers().request_charge().map_or(0.0, |charge| charge.value());
            let outcome = match response.headers().etag() {
                Some(etag) => Write::Written(ETag(etag.to_string())),
                // It is stored, but the next write could not use its ETag: read again.
                None => Write::Conflict,
            };
            Charged { outcome, request_units }
        }
        Err(failure) => Charged { request_units: failure.charge(), outcome: failure.into_write(over) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_page_and_tells_whether_waiting_helps() {
        let (endpoint, reason) = ("https://a/".to_owned(), "x".to_owned());
        let (database, container) = ("d".to_owned(), "c".to_owned());
        let no_token = |refused| NoToken { kind: "managed", reason: "x".into(), refused };
        for (error, nature) in [
            (
                ConnectError::Unreachable { endpoint: endpoint.clone(), reason: reason.clone() },
                Nature::Passing,
            ),
            (ConnectError::Refused { endpoint: endpoint.clone(), reason }, Nature::Refused),
            (
                ConnectError::Missing { endpoint: endpoint.clone(), database, container: container.clone() },
                Nature::Refused,
            ),
            (ConnectError::PartitionKey { container, found: "/id".into() }, Nature::Final),
            (ConnectError::NoToken { endpoint: endpoint.clone(), reason: no_token(true) }, Nature::Refused),
            (ConnectError::NoToken { endpoint, reason: no_token(false) }, Nature::Passing),
        ] {
            let code = error.code();
            assert_eq!(error.nature(), nature, "{code}");
            let page = format!("{}/docs/errors/{code}.md", env!("CARGO_MANIFEST_DIR"));
            assert!(std::fs::read_to_string(&page).is_ok_and(|text| text.contains(code)), "{page}");
            assert!(error.to_string().contains(code) && !error.to_string().contains('\n'), "{error}");
        }
    }
}

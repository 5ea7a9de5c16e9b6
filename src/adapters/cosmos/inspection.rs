//! How `twinsync check` inspects an account and its container.
//!
//! It only reads; the only document that is written, and removed again, is the one in `probe`.

use std::{collections::BTreeSet, num::NonZeroU32, time::Duration};

use azure_data_cosmos::{
    FeedScope, Query,
    models::{ContainerProperties, IndexingMode, PropertyPath, TimeToLive},
    options::{MaxItemCountHint, QueryOptions},
};
use futures::TryStreamExt;
use serde::Deserialize;
use serde_json::Value;

use super::{Access, Account, ConnectError, CosmosStore, Failure, Options, connection, queries};
use crate::{
    domain::checks::{Container, DefaultTtl, Indexing},
    ports::{StoreErrorKind, Which},
};

/// How often a throttled operation is tried: throttling is normal while a daemon is busy.
const TRIES: u32 = 6;

/// The longest wait between two attempts, whatever the account asks for.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// The answer of an account about itself.
#[derive(Debug, Clone)]
pub struct AccountProperties {
    account: Account,
}

impl AccountProperties {
    /// Asks the account.
    ///
    /// # Errors
    /// There is no usable answer.
    pub async fn ask(options: &Options, access: &Access) -> Result<Self, ConnectError> {
        let asked = Account::ask(&options.endpoint, access, options.request_timeout).await;
        asked.map(|account| Self { account }).map_err(|error| error.into_error(&options.endpoint))
    }

    /// The default consistency; `None` if the account does not report it.
    ///
    /// # Errors
    /// It is weaker than we need.
    pub fn consistency(&self, options: &Options) -> Result<Option<&str>, ConnectError> {
        self.account.check_consistency(&options.endpoint)?;
        Ok(self.account.level())
    }

    /// The regions that accept writes, for people.
    ///
    /// # Errors
    /// There are several, and it is unknown in which one we write.
    pub fn regions(&self, options: &Options) -> Result<String, ConnectError> {
        self.account.pin(&options.endpoint, options.write_region.as_deref())?;
        Ok(self.account.write_regions())
    }
}

/// A container that was opened for inspection.
pub struct Inspected {
    pub(super) store: CosmosStore,
    properties: ContainerProperties,
}

/// Why an operation failed, with the code of the page that explains it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Stable code.
    pub code: &'static str,
    /// One line; it says what to do if that is known.
    pub message: String,
}

impl From<&Failure> for Failed {
    fn from(failure: &Failure) -> Self {
        let trouble = failure.trouble();
        Self { code: trouble.code, message: trouble.message }
    }
}

impl Inspected {
    /// Opens the container.
    ///
    /// # Errors
    /// It cannot be used, or has another partition key.
    pub async fn open(
        options: &Options,
        access: Access,
        properties: &AccountProperties,
    ) -> Result<Self, ConnectError> {
        let excluded = properties.account.pin(&options.endpoint, options.write_region.as_deref())?;
        let (container, properties) = connection::open(options, access, excluded).await?;
        connection::check_partition_key(options, &properties)?;
        Ok(Self { store: CosmosStore::over(container, options), properties })
    }

    /// The properties of the container.
    pub fn container(&self) -> Container {
        let paths = |paths: &[PropertyPath]| paths.iter().map(|path| path.path.clone()).collect();
        Container {
            default_ttl: match self.properties.default_ttl {
                TimeToLive::NoDefault => DefaultTtl::Forever,
                TimeToLive::Seconds(seconds) => DefaultTtl::Seconds(seconds),
                _ => DefaultTtl::Off,
            },
            indexing: self.properties.indexing_policy.as_ref().map(|policy| Indexing {
                is_on: policy.indexing_mode != Some(IndexingMode::None),
                included: paths(&policy.included_paths),
                excluded: paths(&policy.excluded_paths),
            }),
        }
    }

    /// Reads the first page of the scan over flagged documents, as the daemon does.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn query(&self) -> Result<(), Failed> {
        self.first_page(queries::scan(Which::Flagged).into(), NonZeroU32::MIN).await.map(drop)
    }

    /// The names of hubs in some documents, as written there.
    ///
    /// # Errors
    /// There is no answer to the query.
    pub async fn hub_names(&self) -> Result<BTreeSet<String>, Failed> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Row {
            hub_name: String,
        }
        const SOME: NonZeroU32 = NonZeroU32::new(100).expect("100 is not 0");
        let query = Query::from(queries::HUB_NAMES);
        let rows = self.first_page(query, SOME).await?;
        let rows = rows.into_iter().filter_map(|row| serde_json::from_value::<Row>(row).ok());
        Ok(rows.map(|row| row.hub_name).collect())
    }

    async fn first_page(&self, query: Query, most: NonZeroU32) -> Result<Vec<Value>, Failed> {
        let first = || {
            let query = query.clone();
            async move {
                let options = QueryOptions::default().with_max_item_count(MaxItemCountHint::Limit(most));
                let everywhere = FeedScope::full_container();
                let feed =
                    self.store.container.query_items::<Value>(query, everywhere, Some(options)).await?;
                feed.into_pages().try_next().await
            }
        };
        let page = self.with_retries("query_items", first).await;
        let page = page.map_err(|failure| Failed::from(&failure))?;
        Ok(page.map(|page| page.into_items()).unwrap_or_default())
    }

    /// Runs an operation within the limit of one operation, and retries it while it is throttled.
    pub(super) async fn with_retries<T, F>(
        &self,
        operation: &'static str,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = azure_data_cosmos::Result<T>>,
    {
        let mut tries = 1;
        loop {
            let failure = match self.store.limited(operation, Box::pin(attempt())).await {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            let trouble = failure.trouble();
            if trouble.kind != StoreErrorKind::Throttled || tries == TRIES {
                return Err(failure);
            }
            tries += 1;
            tokio::time::sleep(trouble.retry_after.unwrap_or(WAIT_MAX).min(WAIT_MAX)).await;
        }
    }
}

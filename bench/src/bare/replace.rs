//! Read and conditional replace: the minimum that every writer without lost updates does.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use azure_core::credentials::Secret;
use azure_data_cosmos::{
    AccountEndpoint, AccountReference, ContainerClient, CosmosClient, FeedScope, Query, RoutingStrategy,
    options::{BinaryEncodingOptions, ItemWriteOptions, MaxItemCountHint, Precondition, QueryOptions},
};
use devkit::stack::Endpoints;
use futures::{TryStreamExt as _, future::try_join_all};
use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::MissedTickBehavior;

use super::{Took, Watch};

/// Number of documents per page of the query before the measurement.
const PAGE: NonZeroU32 = NonZeroU32::new(5_000).expect("5,000 is not 0");
/// Number of documents whose size is measured.
const WEIGHED: NonZeroU32 = NonZeroU32::new(100).expect("100 is not 0");
/// How often a loop with a rate wakes up.
const TICK: Duration = Duration::from_millis(5);

/// The speed of the loop.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Pace {
    /// Reads and replaces every document once, this many concurrently.
    Concurrent(usize),
    /// Replaces this many documents per second without reading them, for this many seconds. A writer with a warm cache
    /// does the same.
    Rate(f64, f64),
}

/// Which documents to replace.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Replace {
    pub(crate) endpoints: Endpoints,
    pub(crate) pace: Pace,
    /// Seed for the order of the documents.
    pub(crate) seed: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    id: String,
    device_id: String,
}

impl Replace {
    pub(super) async fn perform(self) -> Result<Took> {
        let container = connect(&self.endpoints).await?;
        let mut rows = rows(&container).await?;
        rows.shuffle(&mut StdRng::seed_from_u64(self.seed));
        match self.pace {
            Pace::Concurrent(concurrency) => {
                let count = rows.len() as u64;
                let rows = Arc::new(Mutex::new(rows));
                let watch = Watch::start()?;
                let workers = (0..concurrency).map(|_| {
                    let (container, rows) = (container.clone(), Arc::clone(&rows));
                    tokio::spawn(async move {
                        while let Some(row) = take(&rows) {
                            read_and_replace(&container, row).await?;
                        }
                        anyhow::Ok(())
                    })
                });
                for worker in try_join_all(workers).await? {
                    worker?;
                }
                watch.stop(count)
            }
            Pace::Rate(rate, seconds) => at_rate(&container, rows, rate, seconds).await,
        }
    }
}

async fn at_rate(container: &ContainerClient, rows: Vec<Row>, rate: f64, seconds: f64) -> Result<Took> {
    let mut cached = Vec::with_capacity(rows.len());
    for row in rows {
        let (item, etag) = read(container, &row).await?;
        cached.push((row, item, etag));
    }
    let documents = cached.len();
    let watch = Watch::start()?;
    let began = Instant::now();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut done = 0_u64;
    while began.elapsed().as_secs_f64() < seconds {
        ticks.tick().await;
        let due = (began.elapsed().as_secs_f64() * rate) as u64;
        // As in the daemon, one document has at most one write at a time.
        let round = usize::try_from(due - done)?.min(documents);
        let first = usize::try_from(done)? % documents;
        cached.rotate_left(first);
        let (batch, _) = cached.split_at_mut(round);
        let writes = batch.iter_mut().map(|(row, item, etag)| async {
            *etag = replace(container, row, item, etag).await?;
            anyhow::Ok(())
        });
        try_join_all(writes).await?;
        cached.rotate_right(first);
        done += round as u64;
    }
    watch.stop(done)
}

fn take(rows: &Mutex<Vec<Row>>) -> Option<Row> {
    rows.lock().unwrap_or_else(PoisonError::into_inner).pop()
}

async fn read_and_replace(container: &ContainerClient, row: Row) -> Result<()> {
    let (item, etag) = read(container, &row).await?;
    replace(container, &row, &item, &etag).await?;
    Ok(())
}

async fn read(container: &ContainerClient, row: &Row) -> Result<(Value, String)> {
    let answer = container.read_item(row.device_id.clone(), &row.id, None).await?;
    let etag = answer.headers().etag().context("a document without an ETag")?.to_string();
    Ok((answer.into_model()?, etag))
}

async fn replace(container: &ContainerClient, row: &Row, item: &Value, etag: &str) -> Result<String> {
    let options = ItemWriteOptions::default().with_precondition(Precondition::if_match(etag));
    let answer = container.replace_item(row.device_id.clone(), &row.id, item, Some(options)).await?;
    Ok(answer.headers().etag().context("a document without an ETag")?.to_string())
}

/// The mean size of some documents in bytes, in the form in which they are written.
///
/// # Errors
/// Cosmos DB does not answer.
pub(crate) async fn document_bytes(endpoints: &Endpoints) -> Result<f64> {
    /// The properties that the account adds. They are not written.
    const ADDED: [&str; 6] = ["_rid", "_self", "_etag", "_attachments", "_ts", "_lsn"];
    let container = connect(endpoints).await?;
    let options = QueryOptions::default().with_max_item_count(MaxItemCountHint::Limit(WEIGHED));
    let query = Query::from("SELECT * FROM c");
    let mut pages =
        container.query_items::<Value>(query, FeedScope::full_container(), Some(options)).await?.into_pages();
    let (mut bytes, mut documents) = (0, 0_usize);
    let page = pages.try_next().await?.context("there is no page of documents")?;
    for mut document in page.into_items() {
        let fields = document.as_object_mut().context("a document that is no object")?;
        fields.retain(|name, _| !ADDED.contains(&name.as_str()));
        bytes += serde_json::to_vec(&document)?.len();
        documents += 1;
    }
    ensure!(documents > 0, "there are no documents");
    Ok(bytes as f64 / documents as f64)
}

async fn rows(container: &ContainerClient) -> Result<Vec<Row>> {
    let options = QueryOptions::default().with_max_item_count(MaxItemCountHint::Limit(PAGE));
    let query = Query::from("SELECT c.id, c.deviceId FROM c");
    let mut pages =
        container.query_items::<Row>(query, FeedScope::full_container(), Some(options)).await?.into_pages();
    let mut rows = Vec::new();
    while let Some(page) = pages.try_next().await? {
        rows.extend(page.into_items());
    }
    Ok(rows)
}

/// Connects with the options that the daemon uses for an emulator.
pub(crate) async fn connect(endpoints: &Endpoints) -> Result<ContainerClient> {
    let endpoint: AccountEndpoint = endpoints.cosmos.parse()?;
    let account =
        AccountReference::with_authentication_key(endpoint, Secret::new(endpoints.cosmos_key.clone()));
    let client = CosmosClient::builder()
        .with_binary_encoding_options(BinaryEncodingOptions::new().with_enabled(false))
        .build(account, RoutingStrategy::PreferredRegions(Vec::new()))
        .await?;
    let database = client.database_client(&endpoints.database);
    Ok(database.container_client(&endpoints.container, None).await?)
}

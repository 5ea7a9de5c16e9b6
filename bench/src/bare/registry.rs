//! The minimum cost of a backfill and an audit: the same twins, with the clients alone.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use azure_data_cosmos::ContainerClient;
use devkit::stack::Endpoints;
use futures::{StreamExt as _, TryStreamExt as _, future::try_join_all};
use reqwest::{Client, RequestBuilder, Url, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use twinsync::domain::id::{DocumentIdScheme, HubName, TwinKey};

use super::{Took, Watch, connect};

/// The page size that the product requests.
const ROWS: usize = 1_000;
const API_VERSION: &str = "api-version=2021-04-12";
const MOST_ROWS: &str = "x-ms-max-item-count";
const CONTINUATION: &str = "x-ms-continuation";
const QUERY: &str = "SELECT * FROM devices";

/// Reads every device's twin from the hub and creates its document. The device ids are read before the measurement.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Fill {
    pub(crate) endpoints: Endpoints,
    /// Number of twins that are processed concurrently.
    pub(crate) concurrency: usize,
}

/// Reads the pages of a query over all devices, and each device's document.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Scan {
    pub(crate) endpoints: Endpoints,
    /// Number of documents that are read concurrently.
    pub(crate) concurrency: usize,
}

impl Fill {
    pub(super) async fn perform(self) -> Result<Took> {
        let container = connect(&self.endpoints).await?;
        let hub = Arc::new(Hub::new(self.endpoints)?);
        let mut devices = Vec::new();
        let mut from = None;
        loop {
            let (rows, next) = hub.page(from.as_deref()).await?;
            for row in rows {
                devices.push(device_of(&row)?.to_owned());
            }
            from = next;
            if from.is_none() {
                break;
            }
        }
        let count = devices.len() as u64;
        let devices = Arc::new(Mutex::new(devices));
        let watch = Watch::start()?;
        let workers = (0..self.concurrency).map(|_| {
            let (container, hub, devices) = (container.clone(), Arc::clone(&hub), Arc::clone(&devices));
            tokio::spawn(async move {
                while let Some(device) = take(&devices) {
                    let twin = hub.twin(&device).await?;
                    create(&container, &hub, device, twin).await?;
                }
                anyhow::Ok(())
            })
        });
        for worker in try_join_all(workers).await? {
            worker?;
        }
        watch.stop(count)
    }
}

impl Scan {
    pub(super) async fn perform(self) -> Result<Took> {
        let container = connect(&self.endpoints).await?;
        let hub = Hub::new(self.endpoints)?;
        let watch = Watch::start()?;
        let (mut count, mut from) = (0, None);
        loop {
            let (rows, next) = hub.page(from.as_deref()).await?;
            count += rows.len() as u64;
            let reads = rows.into_iter().map(|row| {
                let (container, hub) = (&container, &hub);
                async move {
                    let device = device_of(&row)?;
                    let answer =
                        container.read_item(device.to_owned(), &hub.document_id(device), None).await?;
                    std::hint::black_box((row, answer.into_model::<Value>()?));
                    anyhow::Ok(())
                }
            });
            let reads = futures::stream::iter(reads).buffer_unordered(self.concurrency);
            reads.try_collect::<()>().await?;
            from = next;
            if from.is_none() {
                return watch.stop(count);
            }
        }
    }
}

async fn create(container: &ContainerClient, hub: &Hub, device: String, mut twin: Value) -> Result<()> {
    let id = hub.document_id(&device);
    let fields = twin.as_object_mut().context("a twin that is no object")?;
    fields.insert("id".to_owned(), Value::from(id.as_str()));
    fields.insert("hubName".to_owned(), Value::from(hub.name.as_str()));
    container.create_item(device, &id, &twin, None).await?;
    Ok(())
}

fn device_of(row: &Value) -> Result<&str> {
    row["deviceId"].as_str().context("a twin without an id")
}

fn take(devices: &Mutex<Vec<String>>) -> Option<String> {
    devices.lock().unwrap_or_else(PoisonError::into_inner).pop()
}

/// The hub's service API, with the client that the product uses.
struct Hub {
    client: Client,
    endpoints: Endpoints,
    name: HubName,
}

impl Hub {
    fn new(endpoints: Endpoints) -> Result<Self> {
        let name = HubName::new(&endpoints.iothub_name);
        Ok(Self { client: Client::builder().http1_only().build()?, endpoints, name })
    }

    fn document_id(&self, device: &str) -> String {
        DocumentIdScheme::Device.document_id(&TwinKey::device(&self.name, device))
    }

    fn url(&self, path: [&str; 2]) -> Result<Url> {
        let mut url: Url = self.endpoints.iothub.parse().context("the hub has no URL")?;
        url.path_segments_mut().ok().context("the hub's URL takes no path")?.extend(path);
        url.set_query(Some(API_VERSION));
        Ok(url)
    }

    async fn ask(&self, request: RequestBuilder) -> Result<reqwest::Response> {
        let request = request
            .bearer_auth(&self.endpoints.token)
            .header(header::HOST, self.endpoints.iothub_host_name.as_str());
        let answer = request.send().await?;
        ensure!(answer.status().is_success(), "the hub answers {}", answer.status());
        Ok(answer)
    }

    async fn twin(&self, device: &str) -> Result<Value> {
        Ok(self.ask(self.client.get(self.url(["twins", device])?)).await?.json().await?)
    }

    async fn page(&self, from: Option<&str>) -> Result<(Vec<Value>, Option<String>)> {
        let request = self.client.post(self.url(["devices", "query"])?).header(MOST_ROWS, ROWS);
        let request = match from {
            Some(from) => request.header(CONTINUATION, from),
            None => request,
        };
        let answer = self.ask(request.json(&json!({ "query": QUERY }))).await?;
        let next = answer.headers().get(CONTINUATION).and_then(|next| next.to_str().ok());
        let next = next.filter(|next| !next.is_empty()).map(str::to_owned);
        Ok((answer.json().await?, next))
    }
}

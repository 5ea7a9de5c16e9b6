//! Reads both sides completely.

use std::num::NonZeroU32;

use azure_core::credentials::Secret;
use azure_data_cosmos::{
    AccountEndpoint, AccountReference, CosmosClient, FeedScope, Query, RoutingStrategy,
    options::{BinaryEncodingOptions, MaxItemCountHint, QueryOptions},
};
use futures::TryStreamExt;
use serde::Deserialize;
use serde_json::Value;

use crate::stack::Endpoints;

/// Number of twins per request to the control port.
const TWINS_PER_PAGE: usize = 2_000;
/// Number of documents per query page. The emulator copies a partition for each page, so large pages are
/// faster.
const DOCUMENTS_PER_PAGE: NonZeroU32 = NonZeroU32::new(5_000).expect("5,000 is not 0");

/// One side could not be read, so the two sides cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The control port did not answer with twins.
    #[error("cannot read the hub's twins from {url}")]
    Twins {
        /// The URL of the request.
        url: String,
        /// The reason.
        #[source]
        source: reqwest::Error,
    },
    /// The endpoint is not a URL.
    #[error("the cosmos db endpoint {endpoint:?} is not a url: {reason}")]
    Endpoint {
        /// The endpoint.
        endpoint: String,
        /// The reason.
        reason: String,
    },
    /// The container did not answer with documents.
    #[error("cannot read the documents of container {container:?} from {endpoint}: {reason}")]
    Documents {
        /// The account.
        endpoint: String,
        /// The container.
        container: String,
        /// The message of the SDK's error. The error itself also prints diagnostics, which do not help a
        /// reader.
        reason: String,
    },
}

#[derive(Deserialize)]
struct TwinPage {
    twins: Vec<Value>,
    #[serde(default)]
    continuation: Option<String>,
}

/// Reads all twins of a hub from the control port.
pub(super) async fn twins(endpoints: &Endpoints, hub: &str) -> Result<Vec<Value>, Error> {
    let control = endpoints.control.trim_end_matches('/');
    let failed = |source| Error::Twins { url: format!("{control}/twins"), source };
    let client = reqwest::Client::new();
    let limit = TWINS_PER_PAGE.to_string();
    let mut twins = Vec::new();
    let mut continuation: Option<String> = None;
    loop {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("hub", hub).append_pair("limit", &limit);
        if let Some(continuation) = &continuation {
            query.append_pair("continuation", continuation);
        }
        let url = format!("{control}/twins?{}", query.finish());
        let response =
            client.get(url).send().await.and_then(reqwest::Response::error_for_status).map_err(failed)?;
        let page: TwinPage = response.json().await.map_err(failed)?;
        twins.extend(page.twins);
        continuation = page.continuation;
        if continuation.is_none() {
            return Ok(twins);
        }
    }
}

/// Reads all documents of the container with the SDK.
pub(super) async fn documents(endpoints: &Endpoints) -> Result<Vec<Value>, Error> {
    let failed = |error: azure_data_cosmos::CosmosError| Error::Documents {
        endpoint: endpoints.cosmos.clone(),
        container: endpoints.container.clone(),
        reason: format!("{:?}: {error}", error.status()),
    };
    let endpoint: AccountEndpoint = endpoints.cosmos.parse().map_err(|error| Error::Endpoint {
        endpoint: endpoints.cosmos.clone(),
        reason: format!("{error}"),
    })?;
    let account =
        AccountReference::with_authentication_key(endpoint, Secret::new(endpoints.cosmos_key.clone()));
    let client = CosmosClient::builder()
        .with_binary_encoding_options(BinaryEncodingOptions::new().with_enabled(false))
        .build(account, RoutingStrategy::PreferredRegions(vec!["Local".into()]))
        .await
        .map_err(failed)?;
    let container = client
        .database_client(endpoints.database.clone())
        .container_client(endpoints.container.clone(), None)
        .await
        .map_err(failed)?;
    let options = QueryOptions::default().with_max_item_count(MaxItemCountHint::Limit(DOCUMENTS_PER_PAGE));
    let mut pages = container
        .query_items::<Value>(Query::from("SELECT * FROM c"), FeedScope::full_container(), Some(options))
        .await
        .map_err(failed)?
        .into_pages();
    let mut documents = Vec::new();
    while let Some(page) = pages.try_next().await.map_err(failed)? {
        documents.extend(page.into_items());
    }
    Ok(documents)
}

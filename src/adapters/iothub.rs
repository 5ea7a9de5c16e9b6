//! The [`TwinRegistry`] on the service API of Azure IoT Hub.
//!
//! Plain HTTPS, because the SDK has no client for it. Facts that shape this file: a point read is current, a query may
//! be 30 minutes old (Microsoft's page "IoT Hub query language"). A 404 may also come from a proxy or from another
//! host, so only a 404 with the hub's own error means that the twin does not exist. Redirects are not followed, because
//! the token would be sent along. Nothing is retried here, and no call lasts longer than `iothub.request_timeout`,
//! including its token and its body.

mod access;
mod address;
mod answer;
mod refusal;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use azure_core::credentials::TokenCredential;
use reqwest::{
    Client, RequestBuilder,
    header::{AUTHORIZATION, HOST, HeaderValue},
};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use self::{access::Access, answer::Answer};
use super::credential::one_line;
use crate::{
    config,
    domain::{
        id::{HubName, TwinKey},
        registry::{NotATwin, RegistryTwin, Row, TwinReference},
    },
    ports::{Continuation, Got, Page, QueryError, StoreError, StoreErrorKind, TWIN_UNANSWERED, TwinRegistry},
};

/// The version of the service API that we use: the newest one that every Microsoft SDK also uses.
const API_VERSION: &str = "api-version=2021-04-12";

/// The scope of a token for a hub.
pub const SCOPE: &str = access::SCOPE;

/// Limit of connecting, if the limit of the whole call is longer.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// The maximum size of a twin in bytes: its three sections may have 72 KiB (Microsoft's page "Understand device
/// twins"), and with many small values the metadata is a multiple of that.
const TWIN_BYTES_MAX: usize = 4 << 20;

/// The maximum size of a page in bytes. The service's pages are far smaller.
const PAGE_BYTES_MAX: usize = 64 << 20;

/// The maximum size of an answer with counts, in bytes.
const COUNT_BYTES_MAX: usize = 64 << 10;

/// The operation, for messages.
const GET: &str = "get twin";
const QUERY: &str = "query twins";
const COUNT: &str = "count devices";

/// Names of the headers for the size and the continuation of a query's pages.
const MOST_ROWS: &str = "x-ms-max-item-count";
const CONTINUATION: &str = "x-ms-continuation";

/// The client of a hub cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The HTTP client cannot be created, e.g. because there are no trusted certificates.
    #[error("cannot set up the client of IoT hub {hub}: {reason} ({})", self.code())]
    Client {
        /// The hub.
        hub: String,
        /// The client's message.
        reason: String,
    },
    /// The key of the policy is not valid.
    #[error(
        "cannot set up the client of IoT hub {hub}: the key of policy `{policy}` is not base64; copy the whole connection \
         string from the hub's page of shared access policies ({})", self.code()
    )]
    Key {
        /// The hub.
        hub: String,
        /// The policy.
        policy: String,
    },
}

impl Error {
    /// Stable code; `docs/errors/IOTHUB_UNUSABLE.md` explains it.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Client { .. } | Self::Key { .. } => "IOTHUB_UNUSABLE",
        }
    }
}

/// Creates a client for each configured hub. No I/O: only the first call shows whether a hub answers.
///
/// # Errors
/// A client cannot be created.
pub fn connect(
    settings: &config::IotHub,
    credential: &Arc<dyn TokenCredential>,
) -> Result<Vec<Arc<dyn TwinRegistry>>, Error> {
    let connect = |hub| IotHub::connect(settings, hub, credential);
    settings.hubs.iter().map(|hub| Ok(Arc::new(connect(hub)?) as Arc<dyn TwinRegistry>)).collect()
}

/// The client of one hub.
pub struct IotHub {
    name: HubName,
    host: String,
    /// The address of requests: the host, or the emulator in its place.
    base: Url,
    emulated: bool,
    access: Access,
    client: Client,
    limit: Duration,
}

impl fmt::Debug for IotHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IotHub")
            .field("host", &self.host)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

impl IotHub {
    /// Creates the client of `hub`. No I/O.
    ///
    /// # Errors
    /// The client cannot be created.
    pub fn connect(
        settings: &config::IotHub,
        hub: &config::Hub,
        credential: &Arc<dyn TokenCredential>,
    ) -> Result<Self, Error> {
        let failed = |reason: String| Error::Client { hub: hub.name.to_string(), reason };
        let access = match &hub.access {
            config::HubAccess::Credential => Access::token(Arc::clone(credential)),
            config::HubAccess::Policy { name, key } => Access::policy(&hub.host, name, key)
                .ok_or_else(|| Error::Key { hub: hub.name.to_string(), policy: name.clone() })?,
        };
        let base = match &hub.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => {
                Url::parse(&format!("https://{}", hub.host)).map_err(|error| failed(error.to_string()))?
            }
        };
        let mut builder = Client::builder()
            .user_agent(concat!("twinsync/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_LIMIT.min(settings.request_timeout))
            .redirect(reqwest::redirect::Policy::none());
        let emulated = hub.endpoint.is_some();
        if emulated {
            // HTTP/2 has no Host header beside the address, and an emulator needs that header to distinguish hubs.
            builder = builder.http1_only();
        }
        Ok(Self {
            name: hub.name.clone(),
            host: hub.host.clone(),
            base,
            emulated,
            access,
            client: builder.build().map_err(|error| failed(one_line(&error)))?,
            limit: settings.request_timeout,
        })
    }

    /// The URL of `path`, which is already encoded.
    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let path = format!("{}{path}", url.path().trim_end_matches('/'));
        url.set_path(&path);
        url.set_query(Some(API_VERSION));
        url
    }

    /// Sends a request and reads the whole answer, with any status.
    async fn call(
        &self,
        operation: &'static str,
        request: RequestBuilder,
        most_bytes: usize,
    ) -> Result<Answer, StoreError> {
        let failed = |reason: String| StoreError {
            kind: StoreErrorKind::Unavailable,
            code: answer::UNAVAILABLE,
            retry_after: None,
            message: format!("{operation}: {reason}"),
        };
        let exchange = async {
            let authorization = self.access.authorization().await.map_err(failed)?;
            let mut request = request.header(AUTHORIZATION, authorization);
            if self.emulated {
                request = request.header(HOST, self.host.as_str());
            }
            // The URL names the device; the caller knows better how to show it.
            let lost = |error: reqwest::Error| failed(one_line(&error.without_url()));
            let response = request.send().await.map_err(lost)?;
            Answer::read(operation, response, most_bytes).await.map_err(|error| match error {
                answer::ReadError::TooLarge => failed(format!("the answer has more than {most_bytes} bytes")),
                answer::ReadError::Lost(error) => lost(error),
            })
        };
        match tokio::time::timeout(self.limit, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(failed(format!("no answer within {:?}", self.limit))),
        }
    }
}

impl IotHub {
    /// Requests a page and converts its rows with `read`.
    async fn page<R>(
        &self,
        query: &str,
        from: Option<&Continuation>,
        most_rows: u32,
        read: impl Fn(&HubName, Value) -> Result<R, NotATwin> + Send,
    ) -> Result<Page<R>, QueryError> {
        let mut request = self.client.post(self.url("/devices/query")).header(MOST_ROWS, most_rows);
        if let Some(Continuation(from)) = from {
            // A text that no header can contain was never a continuation.
            let from = HeaderValue::from_str(from).map_err(|_| QueryError::Expired)?;
            request = request.header(CONTINUATION, from);
        }
        let request = request.json(&json!({ "query": query }));
        let answer = self.call(QUERY, request, PAGE_BYTES_MAX).await.map_err(QueryError::StoreError)?;
        if answer.is_bad_request() {
            // The service's answer to an unknown continuation is not documented. The query itself was checked with its
            // first page. So if a later page is refused, its continuation is wrong. If that is not the cause, starting
            // again shows the real error.
            return Err(match from {
                Some(_) => QueryError::Expired,
                None => QueryError::Refused(answer.reason()),
            });
        }
        if !answer.is_ok() {
            return Err(QueryError::StoreError(answer.trouble(&self.access)));
        }
        let at = answer.at().map_err(QueryError::StoreError)?;
        let values: Vec<Value> = answer.json().map_err(QueryError::StoreError)?;
        let found = values.len();
        let rows: Vec<R> = values.into_iter().filter_map(|value| read(&self.name, value).ok()).collect();
        let next = answer.continuation().map_err(QueryError::StoreError)?.filter(|next| !next.is_empty());
        Ok(Page { odd: found - rows.len(), rows, next: next.map(|next| Continuation(next.to_owned())), at })
    }
}

#[async_trait]
impl TwinRegistry for IotHub {
    fn hub(&self) -> &HubName {
        &self.name
    }

    fn unaskable(&self, key: &TwinKey) -> Option<String> {
        address::twin(key).is_none().then(|| format!("{GET}: the id of {key} cannot be part of a URL"))
    }

    async fn get(&self, key: &TwinKey) -> Got {
        let Some(path) = address::twin(key) else {
            let message = self.unaskable(key).unwrap_or_default();
            return Got::Unknown(StoreError {
                kind: StoreErrorKind::Unavailable,
                code: TWIN_UNANSWERED,
                retry_after: None,
                message,
            });
        };
        let answer = match self.call(GET, self.client.get(self.url(&path)), TWIN_BYTES_MAX).await {
            Ok(answer) => answer,
            Err(trouble) => return Got::Unknown(trouble),
        };
        let outcome = if answer.is_ok() {
            let read = answer.at().and_then(|at| {
                let twin = RegistryTwin::read(key, answer.json::<Value>()?, at);
                twin.map_err(|odd| answer.odd(odd.to_string()))
            });
            read.map(|twin| Got::Present(Box::new(twin)))
        } else if answer.says_that_none_is(key) {
            answer.at().map(Got::Absent)
        } else {
            Err(answer.trouble(&self.access))
        };
        outcome.unwrap_or_else(Got::Unknown)
    }

    async fn query(
        &self,
        query: &str,
        from: Option<&Continuation>,
        most_rows: u32,
    ) -> Result<Page, QueryError> {
        self.page(query, from, most_rows, Row::read).await
    }

    async fn references(
        &self,
        query: &str,
        from: Option<&Continuation>,
        most_rows: u32,
    ) -> Result<Page<TwinReference>, QueryError> {
        self.page(query, from, most_rows, |hub, value| TwinReference::read(hub, &value)).await
    }

    async fn device_count(&self) -> Result<u64, QueryError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Statistics {
            total_device_count: u64,
        }
        let request = self.client.get(self.url("/statistics/devices"));
        let answer = self.call(COUNT, request, COUNT_BYTES_MAX).await.map_err(QueryError::StoreError)?;
        if answer.is_bad_request() {
            return Err(QueryError::Refused(answer.reason()));
        }
        if !answer.is_ok() {
            return Err(QueryError::StoreError(answer.trouble(&self.access)));
        }
        let statistics: Statistics = answer.json().map_err(QueryError::StoreError)?;
        Ok(statistics.total_device_count)
    }
}

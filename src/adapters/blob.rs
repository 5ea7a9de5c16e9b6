//! A container of Azure Blob Storage, for all data that is stored in blobs.
//!
//! Facts about azure_storage_blob 1.1 that shape this file: the only secret that it supports is a signature (SAS) in
//! the URL, which then appears in the debug output of its errors and in their sources; it would retry for a minute,
//! longer than a lease lasts; a slash at the end of the container's URL would silently change the names of all blobs.
//!
//! *Invariants*: the SDK never gets the signature, so it cannot show it: the signature is added to the request below
//! all code that logs (`Signing`). Every call has a time limit. Errors are one line and have no sources.

mod probe;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use azure_core::{
    credentials::TokenCredential,
    error::ErrorKind,
    http::{
        AsyncRawResponse, ClientOptions, ExponentialRetryOptions, HttpClient, HttpClientOptions, Request,
        RetryOptions, StatusCode, Transport, Url, new_http_client,
    },
    time::Duration as Span,
};
use azure_storage_blob::{
    BlobContainerClient, BlobContainerClientOptions, models::BlobContainerClientListBlobsOptions,
};
use futures::TryStreamExt;

pub use self::probe::Probed;
use super::credential::{NoToken, one_line};
use crate::{
    config::{self, Secret},
    domain::grace_period::Nature,
};

/// Limit of one request, including its retries.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(5);

/// Limit of reading all pages of a listing.
pub const LIST_LIMIT: Duration = Duration::from_secs(15);

/// The operation named in an error when no client can be created.
const SET_UP: &str = "set up a client";

/// Why a container cannot be used. Each message is one line, says how to fix it, and contains no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The container does not exist, and we may not create it.
    #[error(
        "cannot {operation} in blob container {place}: the container does not exist ({reason}); create it, or give \
         the identity the right to create it ({})", self.code()
    )]
    Missing {
        /// The operation that was tried.
        operation: &'static str,
        /// The container.
        place: String,
        /// The service's message.
        reason: String,
    },
    /// The service refuses our request.
    #[error(
        "cannot {operation} in blob container {place}: refused ({reason}); give the identity the role `Storage Blob Data \
         Contributor`, or set blob.container_url with a signature that has not expired and allows rwdlc ({})", self.code()
    )]
    Refused {
        /// The operation that was tried.
        operation: &'static str,
        /// The container.
        place: String,
        /// The HTTP status.
        status: StatusCode,
        /// The service's message.
        reason: String,
    },
    /// The service does not support our version of its API.
    #[error(
        "cannot {operation} in blob container {place}: the service does not support our version of its API \
         ({reason}); set blob.api_version to a version that it supports ({})", self.code()
    )]
    Version {
        /// The operation that was tried.
        operation: &'static str,
        /// The container.
        place: String,
        /// The service's message.
        reason: String,
    },
    /// The request did not match what is stored: the blob has another state, or there is no such blob.
    #[error("cannot {operation} in blob container {place}: {reason} ({})", self.code())]
    State {
        /// The operation that was tried.
        operation: &'static str,
        /// The container.
        place: String,
        /// The HTTP status.
        status: StatusCode,
        /// The service's message.
        reason: String,
    },
    /// There is no token: the service was not called.
    #[error("cannot {operation} in blob container {place}: {reason}")]
    NoToken {
        /// The operation that was tried.
        operation: &'static str,
        /// The container.
        place: String,
        /// Which credential provides no token, and why.
        reason: NoToken,
    },
    /// The service asks for less load. Temporary.
    #[error(
        "cannot {operation} in blob container {place}: the storage account throttles requests ({reason}); check who \
         else uses it, and what its limits are ({})", self.code()
    )]
    Throttled {
        /// The operation that was tried.
        operation: &'static str,
        /// The container.
        place: String,
        /// The service's message.
        reason: String,
    },
    /// No usable answer. Temporary.
    #[error(
        "cannot {operation} in blob container {place}: {reason}; check blob.container_url, network rules and the state of \
         the storage account ({})", self.code()
    )]
    Unavailable {
        /// The operation that was tried.
        operation: &'static str,
        /// The container.
        place: String,
        /// The cause.
        reason: String,
    },
}

impl Error {
    /// Stable code; `docs/errors/<code>.md` explains it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "BLOB_CONTAINER_MISSING",
            Self::Refused { .. } => "BLOB_REFUSED",
            Self::Version { .. } => "BLOB_API_VERSION",
            Self::State { .. } => "BLOB_STATE",
            Self::NoToken { .. } => NoToken::CODE,
            Self::Throttled { .. } => "BLOB_THROTTLED",
            Self::Unavailable { .. } => "BLOB_UNAVAILABLE",
        }
    }

    /// Whether waiting helps. A state that does not match can be temporary, e.g. while a container with this name is
    /// being deleted; so it is retried during the grace period only.
    pub fn nature(&self) -> Nature {
        match self {
            Self::Missing { .. } | Self::Refused { .. } | Self::State { .. } => Nature::Refused,
            Self::NoToken { reason, .. } if reason.refused => Nature::Refused,
            Self::Version { .. } => Nature::Final,
            Self::NoToken { .. } | Self::Throttled { .. } | Self::Unavailable { .. } => Nature::Passing,
        }
    }

    /// The error kind for callers of the SDK's traits: it contains the status, but not the answer. Blob Storage
    /// throttles with 503, which has another meaning for other services. So the status for throttling is returned
    /// instead.
    pub(super) fn kind(&self) -> ErrorKind {
        let status = match self {
            Self::Missing { .. } => StatusCode::NotFound,
            Self::Version { .. } => StatusCode::BadRequest,
            Self::Throttled { .. } => StatusCode::TooManyRequests,
            Self::Refused { status, .. } | Self::State { status, .. } => *status,
            Self::NoToken { .. } => return ErrorKind::Credential,
            Self::Unavailable { .. } => return ErrorKind::Io,
        };
        ErrorKind::HttpResponse { status, error_code: None, raw_response: None }
    }
}

/// A container that can be used.
pub struct Container {
    client: BlobContainerClient,
    place: String,
    url: Url,
    credential: Option<Arc<dyn TokenCredential>>,
    options: BlobContainerClientOptions,
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Container").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Container {
    /// Creates the client and makes sure that the container exists. The container is created if the identity has
    /// permission.
    ///
    /// # Errors
    /// The container cannot be used; the message says what to do.
    pub async fn open(
        settings: &config::Blob,
        credential: Arc<dyn TokenCredential>,
    ) -> Result<Arc<Self>, Error> {
        let container = Self::new(settings, credential)?;
        match container.probe().await {
            Err(Error::Missing { reason, .. }) => container.create(reason).await?,
            other => other?,
        }
        Ok(Arc::new(container))
    }

    /// Like [`Container::open`], for callers that only read: a container that does not exist is an error.
    ///
    /// # Errors
    /// The container cannot be used; the message says what to do.
    pub async fn open_existing(
        settings: &config::Blob,
        credential: Arc<dyn TokenCredential>,
    ) -> Result<Arc<Self>, Error> {
        let container = Self::new(settings, credential)?;
        container.probe().await?;
        Ok(Arc::new(container))
    }

    /// Creates the client. No I/O.
    fn new(settings: &config::Blob, credential: Arc<dyn TokenCredential>) -> Result<Self, Error> {
        let whole = settings.container_url.expose();
        let (address, signature) = match whole.split_once('?') {
            Some((address, query)) => (address, Some(Secret::new(query))),
            None => (whole, None),
        };
        // With a trailing slash, blob names would begin with a slash.
        let place = address.trim_end_matches('/').to_owned();
        let failed = |reason: String| Error::Unavailable {
            operation: SET_UP,
            place: place.clone(),
            reason: redact(&reason),
        };
        let url = Url::parse(&place).map_err(|error| failed(error.to_string()))?;
        let retry = ExponentialRetryOptions {
            max_retries: 2,
            max_total_elapsed: Span::seconds(3),
            ..ExponentialRetryOptions::default()
        };
        // Storage computes its digests over the transferred bytes, so nothing may be decompressed on the way.
        let inner = new_http_client(Some(HttpClientOptions { automatic_decompression: false }));
        let credential = Some(credential).filter(|_| signature.is_none());
        let mut options = BlobContainerClientOptions {
            client_options: ClientOptions {
                retry: RetryOptions::exponential(retry),
                transport: Some(Transport::new(Arc::new(Signing { inner, signature }))),
                ..ClientOptions::default()
            },
            ..BlobContainerClientOptions::default()
        };
        if let Some(version) = &settings.api_version {
            options.version.clone_from(version);
        }
        let client = BlobContainerClient::new(url.clone(), credential.clone(), Some(options.clone()))
            .map_err(|error| failed(one_line(&error)))?;
        Ok(Self { client, place, url, credential, options })
    }

    /// Creates another client of the same container, for SDK code that needs its own. It shares the connections.
    ///
    /// # Errors
    /// The SDK cannot create a client.
    pub fn new_client(&self) -> Result<BlobContainerClient, Error> {
        BlobContainerClient::new(self.url.clone(), self.credential.clone(), Some(self.options.clone()))
            .map_err(|error| self.failed(SET_UP, &error))
    }

    /// The SDK's client, for use inside [`Container::call`].
    pub fn client(&self) -> &BlobContainerClient {
        &self.client
    }

    /// The address of the container, without any secret.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Waits at most `limit` for a request of the SDK's client, and translates its error.
    ///
    /// # Errors
    /// The service's error, or there was no answer. A dropped or failed write may have been applied.
    pub async fn call<T>(
        &self,
        operation: &'static str,
        limit: Duration,
        request: impl Future<Output = azure_core::Result<T>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(limit, request).await {
            Ok(result) => result.map_err(|error| self.failed(operation, &error)),
            Err(_) => Err(Error::Unavailable {
                operation,
                place: self.place.clone(),
                reason: format!("no answer within {} s", limit.as_secs()),
            }),
        }
    }

    /// Translates an error of the SDK.
    fn failed(&self, operation: &'static str, error: &azure_core::Error) -> Error {
        let place = self.place.clone();
        if let Some(reason) = NoToken::find(error) {
            return Error::NoToken { operation, place, reason: reason.clone() };
        }
        let ErrorKind::HttpResponse { status, error_code, .. } = error.kind() else {
            return Error::Unavailable { operation, place, reason: redact(&one_line(error)) };
        };
        let status = *status;
        let code = error_code.as_deref().unwrap_or("no reason given");
        let reason = redact(&format!("{} {code}", u16::from(status)));
        match status {
            StatusCode::Unauthorized | StatusCode::Forbidden => {
                Error::Refused { operation, place, status, reason }
            }
            StatusCode::TooManyRequests => Error::Throttled { operation, place, reason },
            StatusCode::ServiceUnavailable if code == "ServerBusy" => {
                Error::Throttled { operation, place, reason }
            }
            StatusCode::NotFound if code == "ContainerNotFound" => {
                Error::Missing { operation, place, reason }
            }
            StatusCode::BadRequest if code == "InvalidHeaderValue" => {
                Error::Version { operation, place, reason }
            }
            StatusCode::NotFound | StatusCode::Conflict | StatusCode::PreconditionFailed => {
                Error::State { operation, place, status, reason }
            }
            _ => Error::Unavailable { operation, place, reason },
        }
    }

    /// Checks that the container exists and can be listed.
    ///
    /// Uses a listing, because a signature for the container allows that, but not reading the container's properties.
    async fn probe(&self) -> Result<(), Error> {
        let first = async {
            let options = BlobContainerClientListBlobsOptions { maxresults: Some(1), ..Default::default() };
            self.client.list_blobs(Some(options))?.into_pages().try_next().await
        };
        self.call("list blobs", REQUEST_LIMIT, first).await.map(drop)
    }

    /// Creates the container, unless another process has just created it.
    async fn create(&self, missing: String) -> Result<(), Error> {
        let operation = "create the container";
        let created = self.call(operation, REQUEST_LIMIT, self.client.create(None)).await;
        match created {
            Ok(_) => {
                tracing::info!(container = self.place, "created the blob container");
                Ok(())
            }
            Err(Error::State { reason, .. }) if reason.contains("ContainerAlreadyExists") => Ok(()),
            Err(Error::Refused { reason, .. }) => Err(Error::Missing {
                operation: "store anything",
                place: self.place.clone(),
                reason: format!("{missing}; creating it failed: {reason}"),
            }),
            Err(other) => Err(other),
        }
    }
}

/// The HTTP client that adds the signature to every request, and removes the request's URL from every error.
struct Signing {
    inner: Arc<dyn HttpClient>,
    signature: Option<Secret>,
}

impl fmt::Debug for Signing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signing").field("signature", &self.signature).finish_non_exhaustive()
    }
}

#[async_trait]
impl HttpClient for Signing {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let answer = match &self.signature {
            None => self.inner.execute_request(request).await,
            Some(signature) => {
                let mut signed = request.clone();
                let query = match request.url().query() {
                    Some(query) if !query.is_empty() => format!("{query}&{}", signature.expose()),
                    _ => signature.expose().to_owned(),
                };
                signed.url_mut().set_query(Some(&query));
                self.inner.execute_request(&signed).await
            }
        };
        let (status, headers, body) = answer.map_err(without_url)?.deconstruct();
        Ok(AsyncRawResponse::new(status, headers, Box::pin(body.map_err(without_url))))
    }
}

/// The error without its sources, because one of them contains the URL with the signature. Their messages are kept,
/// without the signature.
fn without_url(error: azure_core::Error) -> azure_core::Error {
    azure_core::Error::with_message(error.kind().clone(), redact(&one_line(&error)))
}

/// The text without any signature: in a URL with a signature, the whole query is removed; in other text, the value is
/// removed.
pub(super) fn redact(text: &str) -> String {
    const NAME: &str = "sig=";
    let mut redacted = String::with_capacity(text.len());
    let mut rest = text;
    // ASCII lower-casing keeps all byte positions.
    while let Some(at) = rest.to_ascii_lowercase().find(NAME) {
        let (before, value) = rest.split_at(at + NAME.len());
        let ends = |character: char| character.is_whitespace() || "()<>[]{}\"'`,;".contains(character);
        // Starts at the beginning of the URL's query, if the text is one URL without a break up to here.
        let query = before.rfind('?').filter(|begin| !before[*begin..].contains(ends));
        redacted.push_str(query.map_or(before, |begin| &before[..=begin]));
        redacted.push_str(config::REDACTED);
        let ends = |character: char| ends(character) || (query.is_none() && character == '&');
        rest = &value[value.find(ends).unwrap_or(value.len())..];
    }
    redacted + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_page() {
        let (operation, place, reason) = ("read", "https://a/c".to_owned(), "x".to_owned());
        let status = StatusCode::Forbidden;
        for error in [
            Error::Missing { operation, place: place.clone(), reason: reason.clone() },
            Error::Refused { operation, place: place.clone(), status, reason: reason.clone() },
            Error::Version { operation, place: place.clone(), reason: reason.clone() },
            Error::State { operation, place: place.clone(), status, reason: reason.clone() },
            Error::NoToken {
                operation,
                place: place.clone(),
                reason: NoToken { kind: "managed", reason: reason.clone(), refused: true },
            },
            Error::Throttled { operation, place: place.clone(), reason: reason.clone() },
            Error::Unavailable { operation, place, reason },
        ] {
            let code = error.code();
            let page = format!("{}/docs/errors/{code}.md", env!("CARGO_MANIFEST_DIR"));
            assert!(std::fs::read_to_string(&page).is_ok_and(|text| text.contains(code)), "{page}");
            assert!(error.to_string().contains(code), "{error}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }

    #[test]
    fn no_signature_survives_redaction() {
        for (text, expected) in [
            ("nothing", "nothing"),
            ("https://a/c?sv=1&sig=ab%2Bc%3D&se=2", "https://a/c?[redacted]"),
            ("url (https://a/c?SIG=abc): x? sig=x", "url (https://a/c?[redacted]): x? sig=[redacted]"),
            (
                "\"https://a/c?sig=x\"/\"https://b/c?sig=y\"",
                "\"https://a/c?[redacted]\"/\"https://b/c?[redacted]\"",
            ),
            ("ä sig=", "ä sig=[redacted]"),
            ("sv=1&sig=x&se=2", "sv=1&sig=[redacted]&se=2"),
        ] {
            assert_eq!(redact(text), expected);
        }
    }
}

//! An answer of the hub: read with limits, and translated.

use std::time::Duration;

use azure_core::time::{OffsetDateTime, parse_rfc7231};
use reqwest::{
    Response, StatusCode,
    header::{DATE, HeaderMap, RETRY_AFTER},
};
use serde::de::DeserializeOwned;

use super::{
    super::blob::redact,
    CONTINUATION,
    access::Access,
    refusal::{Kind, Refusal},
};
use crate::{
    config::REDACTED,
    domain::{id::TwinKey, ticks::Ticks},
    ports::{StoreError, StoreErrorKind},
};

/// Code of a hub that gives no usable answer.
pub(super) const UNAVAILABLE: &str = "IOTHUB_UNAVAILABLE";

/// The number of bytes that are read of a refusal: enough for any error of the hub.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

/// The maximum wait that is accepted from a hint; a longer hint is shortened to this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Headers with hints in milliseconds; they are more precise than the standard header.
const RETRY_AFTER_MS: [&str; 2] = ["retry-after-ms", "x-ms-retry-after-ms"];

/// The header with the name of an error.
const ERROR_CODE: &str = "iothub-errorcode";

/// Why an answer could not be read.
pub(super) enum ReadError {
    /// It has more bytes than the limit.
    TooLarge,
    /// The connection broke.
    Lost(reqwest::Error),
}

/// A whole answer.
pub(super) struct Answer {
    operation: &'static str,
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    /// Reads the answer. A refusal is cut at its limit.
    pub(super) async fn read(
        operation: &'static str,
        mut response: Response,
        most_bytes: usize,
    ) -> Result<Self, ReadError> {
        let status = response.status();
        let most_bytes = if status.is_success() { most_bytes } else { REFUSAL_BYTES_MAX };
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(ReadError::Lost)? {
            if body.len() + chunk.len() > most_bytes {
                if status.is_success() {
                    return Err(ReadError::TooLarge);
                }
                break;
            }
            body.extend_from_slice(&chunk);
        }
        let headers = std::mem::take(response.headers_mut());
        Ok(Self { operation, status, headers, body })
    }

    pub(super) fn is_ok(&self) -> bool {
        self.status == StatusCode::OK
    }

    pub(super) fn is_bad_request(&self) -> bool {
        self.status == StatusCode::BAD_REQUEST
    }

    /// Whether the hub itself says that the twin does not exist.
    pub(super) fn says_that_none_is(&self, key: &TwinKey) -> bool {
        self.status == StatusCode::NOT_FOUND && self.refusal().says_that_none_is(key)
    }

    /// The text of a header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Where the next page begins. If the continuation cannot be read, that is an error: otherwise the scan would seem
    /// to end here, and all later twins would seem to be gone.
    pub(super) fn continuation(&self) -> Result<Option<&str>, StoreError> {
        let Some(value) = self.headers.get(CONTINUATION) else { return Ok(None) };
        value.to_str().map(Some).map_err(|_| self.odd("its continuation token is not text".to_owned()))
    }

    /// The hub's time of the answer, in whole seconds.
    pub(super) fn at(&self) -> Result<Ticks, StoreError> {
        let date = self.header(DATE.as_str()).ok_or_else(|| self.odd("it has no Date header".to_owned()))?;
        let seconds = parse_rfc7231(date.trim()).map(OffsetDateTime::unix_timestamp).ok();
        seconds
            .and_then(|seconds| Ticks::from_unix_milliseconds(seconds.checked_mul(1000)?))
            .ok_or_else(|| self.odd("its Date header is not a date".to_owned()))
    }

    /// The body of an answer that is not a refusal.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, StoreError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            // The parser's error text may quote the content.
            let place = format!("line {} column {}", error.line(), error.column());
            self.odd(format!("its body does not have the expected form ({place})"))
        })
    }

    /// An answer that cannot be used.
    pub(super) fn odd(&self, reason: String) -> StoreError {
        StoreError {
            kind: StoreErrorKind::Unavailable,
            code: UNAVAILABLE,
            retry_after: None,
            message: format!("{}: cannot use the answer: {reason}", self.operation),
        }
    }

    fn refusal(&self) -> Refusal {
        Refusal::read(self.header(ERROR_CODE), &self.body)
    }

    /// The service's message, in one line.
    pub(super) fn reason(&self) -> String {
        let text = self.refusal().text;
        match text.as_str() {
            "" => self.status.as_u16().to_string(),
            text => format!("{} {}", self.status.as_u16(), without_secrets(text)),
        }
    }

    /// The error for an answer that does not say whether the twin exists.
    pub(super) fn trouble(&self, access: &Access) -> StoreError {
        let kind = match self.status {
            StatusCode::TOO_MANY_REQUESTS => StoreErrorKind::Throttled,
            _ => StoreErrorKind::Unavailable,
        };
        let code = match self.status {
            StatusCode::TOO_MANY_REQUESTS => "IOTHUB_THROTTLED",
            StatusCode::FORBIDDEN if self.refusal().kind == Some(Kind::QuotaExceeded) => {
                "IOTHUB_QUOTA_EXCEEDED"
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "IOTHUB_REFUSED",
            _ => UNAVAILABLE,
        };
        let reason = self.reason();
        let remedy = match self.status {
            StatusCode::FORBIDDEN if self.refusal().kind == Some(Kind::QuotaExceeded) => {
                "the hub's daily quota of messages is used up: add units, or wait for midnight UTC"
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => access.remedy(),
            StatusCode::NOT_FOUND => {
                "this answer is not from the hub: check iothub.hosts, iothub.endpoint, and any proxy or gateway on the way"
            }
            status if status.is_redirection() => {
                "redirects are not followed: check iothub.hosts, iothub.endpoint, and any proxy or gateway on the way"
            }
            _ => "",
        };
        let separator = if remedy.is_empty() { "" } else { "; " };
        let message = format!("{}: {reason}{separator}{remedy}", self.operation);
        StoreError { kind, code, retry_after: self.retry_after(), message }
    }

    /// How long the service asks us to wait.
    fn retry_after(&self) -> Option<Duration> {
        let milliseconds = RETRY_AFTER_MS
            .into_iter()
            .find_map(|name| self.header(name)?.trim().parse().ok())
            .map(Duration::from_millis);
        let wait = milliseconds.or_else(|| self.standard_retry_after())?;
        Some(wait.min(RETRY_AFTER_MAX))
    }

    /// In seconds, or as a date, which is compared with the hub's clock if the answer has its time.
    fn standard_retry_after(&self) -> Option<Duration> {
        let text = self.header(RETRY_AFTER.as_str())?.trim();
        if let Ok(seconds) = text.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let until = parse_rfc7231(text).ok()?;
        let date = self.header(DATE.as_str()).and_then(|date| parse_rfc7231(date.trim()).ok());
        let seconds = (until - date.unwrap_or_else(OffsetDateTime::now_utc)).whole_seconds();
        Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
    }
}

/// The hub's own messages contain no signature or token; an intermediary might repeat the request.
fn without_secrets(text: &str) -> String {
    // ASCII lower-casing keeps all byte positions.
    match text.to_ascii_lowercase().find("bearer ") {
        Some(at) => format!("{}{REDACTED}", redact(&text[..at])),
        None => redact(text),
    }
}

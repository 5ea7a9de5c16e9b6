//! Error answers in the form of IoT Hub.

use std::borrow::Cow;

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use serde::Serialize;
use time::{OffsetDateTime, UtcOffset, macros::format_description};

/// Why a request is refused.
///
/// Source of form and codes: Microsoft's page "Understand Azure IoT Hub error codes", and bodies in public issues
/// (Azure/Industrial-IoT#831, Azure/iotedgehubdev#95; helium/console#1039 shows the header).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The value of the header `iothub-errorcode`. The body repeats it.
    pub code: &'static str,
    /// The error message that clients show: what is wrong, and what to do.
    pub message: Cow<'static, str>,
    /// The value of the header `Retry-After`, in seconds.
    pub retry_after_seconds: Option<u64>,
}

/// The body of an error, with the fields in the order of IoT Hub.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ErrorBody<'a> {
    message: String,
    exception_message: &'a str,
}

impl Refusal {
    /// Creates a refusal with a constant message.
    pub const fn new(status: u16, code: &'static str, message: &'static str) -> Self {
        Self { status, code, message: Cow::Borrowed(message), retry_after_seconds: None }
    }

    /// Creates a refusal with a message that is composed at run time.
    pub fn saying(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { message: Cow::Owned(message.into()), ..Self::new(status, code, "") }
    }

    /// 400: the request is invalid, and would fail again.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::saying(400, "ArgumentInvalid", message)
    }

    /// 429: throttled. Clients wait and retry automatically.
    pub fn throttled(seconds: u64, message: impl Into<String>) -> Self {
        Self::saying(429, "ThrottlingException", message).retry_after(seconds)
    }

    /// 503: a temporary failure.
    pub fn unavailable(seconds: u64, message: impl Into<String>) -> Self {
        Self::saying(503, "ServiceUnavailable", message).retry_after(seconds)
    }

    /// Sets when to try again, in seconds. Never 0, because clients take 0 for "at once".
    #[must_use]
    pub const fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_seconds = Some(if seconds == 0 { 1 } else { seconds });
        self
    }

    /// The answer. The log line of the refusal has the same `tracking_id`.
    pub fn response(&self, tracking_id: &str, now: OffsetDateTime) -> Response {
        let mut response = Response::new(Body::from(self.body(tracking_id, now)));
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        headers.insert("iothub-errorcode", HeaderValue::from_static(self.code));
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == 405 {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET"));
        }
        response
    }

    /// The body. The Node client extracts code and message from `Message`, at the colon and the semicolon.
    fn body(&self, tracking_id: &str, now: OffsetDateTime) -> String {
        let form = format_description!("[month]/[day]/[year] [hour]:[minute]:[second]");
        let at = now.to_offset(UtcOffset::UTC).format(form).unwrap_or_default();
        let body = ErrorBody {
            message: format!("ErrorCode:{};{}", self.code, self.message),
            exception_message: &format!("Tracking ID:{tracking_id}-TimeStamp:{at}"),
        };
        serde_json::to_string(&body).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_body_is_that_of_iot_hub() {
        // The body from Azure/Industrial-IoT#831, with this service's id.
        assert_eq!(
            Refusal::new(401, "IotHubUnauthorizedAccess", "Unauthorized")
                .body("da9f966f95d14c49a08a549552d1081c", datetime!(2020-11-03 09:18:24 +2)),
            r#"{"Message":"ErrorCode:IotHubUnauthorizedAccess;Unauthorized","ExceptionMessage":"Tracking ID:da9f966f95d14c49a08a549552d1081c-TimeStamp:11/03/2020 07:18:24"}"#
        );
    }

    #[test]
    fn headers_say_the_code_and_when_to_try_again() {
        let response = Refusal::throttled(0, "later").response("x", OffsetDateTime::UNIX_EPOCH);
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()["iothub-errorcode"], "ThrottlingException");
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        assert_eq!(response.headers().get(header::ALLOW), None);
    }
}

//! Answers in the form that the service gives them.

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
};
use serde_json::{Value, json};

use crate::{Error, Timestamp, TwinId};

/// An answer before it becomes an HTTP response.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Value,
    /// The time for the `Date` header, if the answer shows the hub at a certain time.
    pub(super) at: Option<Timestamp>,
    pub(super) headers: Vec<(&'static str, String)>,
}

impl Answer {
    pub(super) fn ok(body: Value) -> Self {
        Self { status: StatusCode::OK, body, at: None, headers: Vec::new() }
    }

    /// An error in the service's form: a message that begins with the error code, and a tracking id.
    pub(super) fn problem(status: StatusCode, code: &str, message: &str) -> Self {
        let body = json!({
            "Message": format!("ErrorCode:{code};{message}"),
            "ExceptionMessage": format!("Tracking ID:devkit-{}", status.as_u16()),
        });
        // Source for this header: helium/console#1039.
        let headers = vec![("iothub-errorcode", code.to_owned())];
        Self { status, body, at: None, headers }
    }

    pub(super) fn bad_request(message: &str) -> Self {
        Self::problem(StatusCode::BAD_REQUEST, "ArgumentInvalid", message)
    }

    /// An injected error: the code and message that the service uses for this status.
    pub(super) fn fault(status: u16) -> Self {
        let (code, message) = match status {
            429 => ("ThrottlingException", "Too many requests, please try again later"),
            502 => ("BadGateway", "The gateway got no valid answer"),
            503 => ("ServiceUnavailable", "The service is unavailable, please try again later"),
            _ => ("ServerError", "An unexpected error occurred, please try again later"),
        };
        Self::problem(
            StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            code,
            message,
        )
    }

    pub(super) fn refused(error: &Error) -> Self {
        let (status, code) = match error {
            Error::NotFound(id) if id.module_id().is_some() => (StatusCode::NOT_FOUND, "ModuleNotFound"),
            Error::NotFound(_) => (StatusCode::NOT_FOUND, "DeviceNotFound"),
            Error::AlreadyExists(_) => (StatusCode::CONFLICT, "DeviceAlreadyExists"),
            Error::EtagMismatch(_) => (StatusCode::PRECONDITION_FAILED, "PreconditionFailed"),
            Error::InvalidId { .. } | Error::InvalidTwin { .. } | Error::TooLarge { .. } => {
                (StatusCode::BAD_REQUEST, "ArgumentInvalid")
            }
        };
        Self::problem(status, code, &error.to_string())
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Returns the response without a body, and the body. `now` is the hub's time.
    pub(super) fn response(&self, now: Timestamp) -> (Response<Body>, Vec<u8>) {
        let body = serde_json::to_vec(&self.body).unwrap_or_default();
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        let at = self.at.unwrap_or(now).http_date();
        for (name, value) in self.headers.iter().map(|(name, value)| (*name, value)).chain([("date", &at)]) {
            // The ids, ETags and tokens here are printable. If a value were not, only its header would be
            // missing.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
        (response, body)
    }
}

/// Parses the id in a request. If it is invalid, returns the answer that says why.
pub(super) fn twin_id(device: String, module: Option<String>) -> Result<TwinId, Answer> {
    let id = match module {
        None => TwinId::device(device),
        Some(module) => TwinId::module(device, module),
    };
    id.map_err(|error| Answer::refused(&error))
}

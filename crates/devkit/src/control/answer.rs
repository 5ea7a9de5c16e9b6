//! Error answers of the control port, and parsing of bodies.

use axum::{
    Json,
    body::Bytes,
    extract::rejection::{PathRejection, QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::{
    broker, cosmos,
    fleet::{ImportError, RunnerError},
    iothub::{self, FailoverError, RouteError, ServiceError, USUAL_HISTORY},
};

/// An error answer.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": { "code": self.code, "message": self.message } })))
            .into_response()
    }
}

impl From<iothub::Error> for Problem {
    fn from(error: iothub::Error) -> Self {
        let (status, code) = match &error {
            iothub::Error::InvalidId { .. } => (StatusCode::BAD_REQUEST, "invalid_id"),
            iothub::Error::NotFound(_) => (StatusCode::NOT_FOUND, "not_found"),
            iothub::Error::AlreadyExists(_) => (StatusCode::CONFLICT, "already_exists"),
            iothub::Error::EtagMismatch(_) => (StatusCode::PRECONDITION_FAILED, "etag_mismatch"),
            iothub::Error::InvalidTwin { .. } => (StatusCode::BAD_REQUEST, "invalid_twin"),
            iothub::Error::TooLarge { .. } => (StatusCode::BAD_REQUEST, "too_large"),
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<RouteError> for Problem {
    fn from(error: RouteError) -> Self {
        let message = format!("{error}: {}", error.source);
        Self::new(StatusCode::BAD_GATEWAY, "not_delivered", message)
    }
}

impl From<ServiceError> for Problem {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Refused(error) => error.into(),
            ServiceError::NotDelivered(error) => error.into(),
        }
    }
}

impl From<FailoverError> for Problem {
    fn from(error: FailoverError) -> Self {
        match error {
            FailoverError::NoHistory => Self::new(
                StatusCode::CONFLICT,
                "history_off",
                format!(
                    "{error}: use `devkit up --history {USUAL_HISTORY}` or `PUT /history {{\"changes\": {USUAL_HISTORY}}}`"
                ),
            ),
            FailoverError::NotDelivered(error) => error.into(),
        }
    }
}

impl From<RunnerError> for Problem {
    fn from(error: RunnerError) -> Self {
        let (status, code) = match &error {
            RunnerError::Plan(_) | RunnerError::Rate(_) => (StatusCode::BAD_REQUEST, "invalid_plan"),
            RunnerError::Busy => (StatusCode::CONFLICT, "busy"),
            RunnerError::NotWaiting => (StatusCode::CONFLICT, "not_waiting"),
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<broker::Error> for Problem {
    fn from(error: broker::Error) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<cosmos::Error> for Problem {
    fn from(error: cosmos::Error) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<iothub::api::Error> for Problem {
    fn from(error: iothub::api::Error) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<ImportError> for Problem {
    fn from(error: ImportError) -> Self {
        match error {
            ImportError::Modules(_) => Self::new(StatusCode::BAD_REQUEST, "invalid_plan", error.to_string()),
            ImportError::Refused(error) => error.into(),
        }
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::bad_request(rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::bad_request(rejection.body_text())
    }
}

/// Parses a JSON body, whatever its content type is.
pub(super) fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    serde_json::from_slice(body)
        .map_err(|error| Problem::bad_request(format!("the body is not as expected: {error}")))
}

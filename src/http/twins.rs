//! Single twins as JSON, for clients with the token.
//!
//! | path | the twin |
//! |---|---|
//! | `/api/twins/DEVICE` | of a device |
//! | `/api/twins/DEVICE/modules/MODULE` | of a module |
//! | `/api/twins?device=DEVICE&module=MODULE` | the same, for ids that a path cannot contain: `.` and `..` |
//!
//! `docs/twins.md` describes parameters and answers. An unknown parameter is refused: a misspelled `min_version` must not become a request
//! that does not wait.

mod parameters;
mod schema;

use std::{sync::Arc, sync::atomic::AtomicBool};

use axum::{
    Extension, Json, Router,
    extract::{Path, RawQuery, State, rejection::PathRejection},
    http::{HeaderValue, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;

use self::{
    parameters::{Id, request},
    schema::Twin,
};
use super::bearer_auth;
use crate::{
    listener::Connection,
    runtime::twins::{Answer, MOST_READERS, MOST_WAITERS, Outcome},
};

/// The routes for twins.
pub(super) fn routes(state: super::State) -> Router<super::State> {
    Router::new()
        .route("/api/twins", get(by_query))
        .route("/api/twins/{device}", get(device))
        .route("/api/twins/{device}/modules/{module}", get(module))
        .route_layer(middleware::from_fn_with_state(state, bearer_auth::ask))
}

type About = Option<Extension<Connection>>;

async fn by_query(state: State<super::State>, about: About, query: RawQuery) -> Response {
    answer(&state, about, Id::InQuery, query).await
}

async fn device(
    state: State<super::State>,
    about: About,
    path: Result<Path<String>, PathRejection>,
    query: RawQuery,
) -> Response {
    let id = path.map_or(Id::Unreadable, |Path(device)| Id::Device(device));
    answer(&state, about, id, query).await
}

async fn module(
    state: State<super::State>,
    about: About,
    path: Result<Path<(String, String)>, PathRejection>,
    query: RawQuery,
) -> Response {
    let id = path.map_or(Id::Unreadable, |Path((device, module))| Id::Module(device, module));
    answer(&state, about, id, query).await
}

async fn answer(state: &super::State, about: About, id: Id, RawQuery(query): RawQuery) -> Response {
    let request = match request(id, query.as_deref().unwrap_or_default()) {
        Ok(request) => request,
        Err(error) => {
            state.twins.not_understood();
            return (StatusCode::BAD_REQUEST, Json(json!({ "error": error }))).into_response();
        }
    };
    // Without a connection, as in a test, nothing can be displaced either.
    let kept =
        about.map_or_else(|| Arc::new(AtomicBool::new(false)), |Extension(connection)| connection.kept);
    let answer = state.twins.answer(&request, &kept).await;
    let status = status(&answer.outcome);
    let retry_after = retry_after(&answer);
    let mut response = (status, Json(Twin::new(&request, answer))).into_response();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

const fn status(outcome: &Outcome) -> StatusCode {
    match outcome {
        Outcome::Found(_) => StatusCode::OK,
        Outcome::Absent(_) | Outcome::Deleted(_) => StatusCode::NOT_FOUND,
        Outcome::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
        Outcome::Unavailable(_) | Outcome::Busy | Outcome::Starting | Outcome::Stopping => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Outcome::WhichHub(_) | Outcome::Refused(_) => StatusCode::BAD_REQUEST,
    }
}

/// Seconds after which a retry makes sense. Never 0, because clients take 0 for "at once".
fn retry_after(answer: &Answer) -> Option<u64> {
    match &answer.outcome {
        Outcome::Unavailable(trouble) => {
            Some(trouble.retry_after.map_or(1, |hint| hint.as_secs_f64().ceil() as u64).max(1))
        }
        Outcome::Busy | Outcome::Starting | Outcome::Stopping => Some(1),
        Outcome::Found(_)
        | Outcome::Absent(_)
        | Outcome::Deleted(_)
        | Outcome::TimedOut(_)
        | Outcome::WhichHub(_)
        | Outcome::Refused(_) => None,
    }
}

/// The error, and what to do.
fn error(outcome: &Outcome) -> Option<String> {
    Some(match outcome {
        Outcome::Found(_) => return None,
        Outcome::Absent(Some(reason)) => reason.clone(),
        Outcome::Absent(None) => {
            "the copy has no such twin: ids are case-sensitive; a twin that was just created takes a moment, add \
             min_version=1 and wait=5s"
                .to_owned()
        }
        Outcome::Deleted(_) => "the twin was deleted".to_owned(),
        Outcome::TimedOut(Some(_)) => {
            "the copy did not reach the requested state in time, and is as shown here; ask again, or see how far \
             behind it is at /api/status"
                .to_owned()
        }
        Outcome::TimedOut(None) => {
            "the copy has no such twin yet: ask again, or see how far behind it is at /api/status".to_owned()
        }
        Outcome::Unavailable(trouble) => format!("the document store gives no answer: {}", trouble.message),
        Outcome::Busy => format!(
            "too many requests for twins at the same time (the limits are {MOST_WAITERS} that wait and {MOST_READERS} that do not): try again"
        ),
        Outcome::Starting => "starting: the document store is not connected yet; see /readyz".to_owned(),
        Outcome::Stopping => "stopping: ask another replica, or this one when it has started again".to_owned(),
        Outcome::WhichHub(hubs) => {
            let names: Vec<_> = hubs.iter().map(|hub| hub.as_str()).collect();
            format!("several IoT hubs could be meant: add hub=NAME with one of {}", names.join(", "))
        }
        Outcome::Refused(reason) => format!("no document can have this id: {reason}"),
    })
}

#[cfg(test)]
mod tests;

//! The status page and its files. They are part of the binary, so the page works without internet access.

use axum::{
    Json,
    extract::Path,
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use serde_json::json;

use crate::status::codes;

pub(super) async fn page() -> Html<&'static str> {
    Html(include_str!("page/index.html"))
}

pub(super) async fn style() -> Response {
    typed("text/css; charset=utf-8", include_str!("page/page.css"))
}

pub(super) async fn script() -> Response {
    typed("text/javascript; charset=utf-8", include_str!("page/page.js"))
}

/// The page about one twin. It contains no twin: the script asks for the token, and then requests the twin with it.
pub(super) async fn twin() -> Html<&'static str> {
    Html(include_str!("page/twin.html"))
}

pub(super) async fn twin_style() -> Response {
    typed("text/css; charset=utf-8", include_str!("page/twin.css"))
}

pub(super) async fn twin_script() -> Response {
    typed("text/javascript; charset=utf-8", include_str!("page/twin.js"))
}

pub(super) async fn error(Path(code): Path<String>) -> Response {
    match codes::page(&code) {
        Some(text) => typed("text/plain; charset=utf-8", text),
        None => {
            let known: Vec<_> = codes::codes().collect();
            let error = "there is no page about this code";
            (StatusCode::NOT_FOUND, Json(json!({ "error": error, "codes": known }))).into_response()
        }
    }
}

fn typed(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

//! The status page and what belongs to it: in the binary, so that it works without internet.

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

/// The page about one twin. It holds none: the script asks for the token, and with it for the twin.
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

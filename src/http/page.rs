//! The status page and what belongs to it: in the binary, so that it works without internet.

use axum::{
    Json,
    extract::Path,
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use include_dir::{Dir, File, include_dir};
use serde_json::json;

/// What each code means and what to do about it, one page per code.
static ERRORS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/docs/errors");

pub(super) async fn page() -> Html<&'static str> {
    Html(include_str!("page/index.html"))
}

pub(super) async fn style() -> Response {
    typed("text/css; charset=utf-8", include_str!("page/page.css"))
}

pub(super) async fn script() -> Response {
    typed("text/javascript; charset=utf-8", include_str!("page/page.js"))
}

pub(super) async fn error(Path(code): Path<String>) -> Response {
    match ERRORS.get_file(format!("{code}.md")).and_then(File::contents_utf8) {
        Some(text) => typed("text/plain; charset=utf-8", text),
        None => {
            let known: Vec<_> = ERRORS.files().filter_map(|file| file.path().file_stem()?.to_str()).collect();
            let error = "there is no page about this code";
            (StatusCode::NOT_FOUND, Json(json!({ "error": error, "codes": known }))).into_response()
        }
    }
}

fn typed(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

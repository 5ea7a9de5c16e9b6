//! The status page and what belongs to it: in the binary, so that it works without internet.

use axum::{
    Json,
    extract::Path,
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use serde_json::json;

macro_rules! page {
    ($code:literal) => {
        ($code, include_str!(concat!("../../docs/errors/", $code, ".md")))
    };
}

/// What each code means and what to do about it.
const ERRORS: &[(&str, &str)] = &[
    page!("BLOB_API_VERSION"),
    page!("BLOB_CONTAINER_MISSING"),
    page!("BLOB_REFUSED"),
    page!("BLOB_STATE"),
    page!("BLOB_UNAVAILABLE"),
    page!("CHECKPOINT_DAMAGED"),
    page!("CHECKPOINT_DIRECTORY_IN_USE"),
    page!("CHECKPOINT_INVALID"),
    page!("CHECKPOINT_IO"),
    page!("CHECKPOINT_REFUSED"),
    page!("CONFIG_INVALID"),
    page!("COSMOS_NOT_FOUND"),
    page!("COSMOS_PARTITION_KEY"),
    page!("COSMOS_REFUSED"),
    page!("COSMOS_UNAVAILABLE"),
    page!("CREDENTIAL_NO_TOKEN"),
    page!("CREDENTIAL_UNUSABLE"),
    page!("DEAD_LETTER_DAMAGED"),
    page!("DEAD_LETTER_DIRECTORY_UNUSABLE"),
    page!("DOCUMENT_FOREIGN"),
    page!("DOCUMENT_NEWER"),
    page!("DOUBT_REFUSED"),
    page!("EVENTHUBS_NOT_FOUND"),
    page!("EVENTHUBS_REFUSED"),
    page!("EVENTHUBS_UNAVAILABLE"),
    page!("EVENTS_LOST"),
    page!("HTTP_ADDRESS_UNUSABLE"),
    page!("IOTHUB_UNUSABLE"),
    page!("STORAGE_EPHEMERAL"),
];

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
    match ERRORS.iter().find(|(known, _)| *known == code) {
        Some((_, text)) => typed("text/plain; charset=utf-8", text),
        None => {
            let known: Vec<_> = ERRORS.iter().map(|(code, _)| code).collect();
            let error = "there is no page about this code";
            (StatusCode::NOT_FOUND, Json(json!({ "error": error, "codes": known }))).into_response()
        }
    }
}

fn typed(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_about_a_code_is_in_the_binary() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/errors");
        let files = std::fs::read_dir(folder).expect("the folder of the pages").map(|file| {
            let name = file.expect("a file").file_name().into_string().expect("a plain name");
            name.strip_suffix(".md").expect("a page").to_owned()
        });
        let mut files: Vec<_> = files.collect();
        files.sort();
        assert_eq!(files, ERRORS.iter().map(|(code, _)| *code).collect::<Vec<_>>());
    }
}

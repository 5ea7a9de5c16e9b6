//! Queries, and their answers page by page.
//!
//! If each twin gives one row, twins are read in the order of their ids, and a page begins after the last twin of the previous page. So it
//! does not matter which twins were added or deleted since. Other results (groups, `TOP`) are computed again for each page, and a page
//! begins after a number of rows.

use axum::http::HeaderMap;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::answer::twin_id;
use super::{
    super::query::{Collection, Dialect, Query},
    answer::Answer,
    faults::Injector,
};
use crate::{Service, TwinId};

const DEFAULT_PAGE: usize = 100;
const LARGEST_PAGE: usize = 1_000;
/// Number of twins that are read while the hub is locked.
const CHUNK: usize = 250;

#[derive(Deserialize)]
struct Body {
    query: String,
}

/// Answers one page of a query.
pub(super) async fn query(
    hub: &Service,
    injector: &Injector,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Answer, Answer> {
    let Body { query: text } =
        serde_json::from_slice(body).map_err(|error| Answer::bad_request(&error.to_string()))?;
    let query = Query::parse(&text, Dialect::Hub).map_err(|error| Answer::bad_request(&error.to_string()))?;
    let after = match header_text(headers, "x-ms-continuation")? {
        Some(token) => Some(Position::decode(token, &text)?),
        None => None,
    };
    let size = page_size(headers)?.min(injector.largest_page());
    let (rows, next) = match (query.is_row_by_row(), after) {
        (true, after @ (None | Some(Position::Behind { .. }))) => {
            let after = after.and_then(Position::twin).transpose()?;
            let (twins, last) = matches(hub, injector, &query, after, size).await;
            let rows = twins.iter().filter_map(|twin| query.row(twin)).collect();
            (rows, last.map(|last| Position::behind(&last)))
        }
        (false, after @ (None | Some(Position::Rows(_)))) => {
            let begin = after.map_or(0, Position::rows);
            let (twins, _) = matches(hub, injector, &query, None, usize::MAX - 1).await;
            let mut rows = query.answer(twins.iter());
            let end = begin.saturating_add(size);
            let next = (rows.len() > end).then_some(Position::Rows(end));
            (rows.drain(begin.min(rows.len())..end.min(rows.len())).collect(), next)
        }
        (true, Some(Position::Rows(_))) | (false, Some(Position::Behind { .. })) => {
            return Err(Answer::bad_request(UNKNOWN));
        }
    };
    let kind = if query.is_raw() { "Raw" } else { "Twin" };
    let answer = Answer::ok(Value::Array(rows)).with("x-ms-item-type", kind);
    Ok(match next {
        Some(next) => answer.with("x-ms-continuation", next.encode(&text)),
        None => answer,
    })
}

/// Returns up to `size` twins after `after`, and the id of the last one if there are more.
async fn matches(
    hub: &Service,
    injector: &Injector,
    query: &Query,
    mut after: Option<TwinId>,
    size: usize,
) -> (Vec<Value>, Option<TwinId>) {
    let wanted = |id: &TwinId| match query.collection() {
        Collection::Devices => id.module_id().is_none(),
        Collection::Modules => id.module_id().is_some(),
    };
    let mut found: Vec<Value> = Vec::new();
    let mut last = None;
    loop {
        // One twin more than the page holds shows whether there is another page.
        let chunk = if query.selects_all() { CHUNK.min(size + 1 - found.len()) } else { CHUNK };
        let view = hub.scan(after.as_ref(), chunk, injector.stale_by(), wanted);
        for (id, twin) in view.twins {
            if !query.selects(&twin) {
                continue;
            }
            if found.len() == size {
                return (found, last);
            }
            found.push(twin);
            last = Some(id);
        }
        after = match view.next {
            Some(next) => Some(next),
            None => return (found, None),
        };
        tokio::task::yield_now().await;
    }
}

fn page_size(headers: &HeaderMap) -> Result<usize, Answer> {
    let Some(text) = header_text(headers, "x-ms-max-item-count")? else {
        return Ok(DEFAULT_PAGE);
    };
    match text.parse() {
        Ok(size @ 1..=LARGEST_PAGE) => Ok(size),
        Ok(_) | Err(_) => {
            Err(Answer::bad_request(&format!("x-ms-max-item-count is between 1 and {LARGEST_PAGE}")))
        }
    }
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Answer> {
    let text = headers.get(name).map(|value| value.to_str()).transpose();
    text.map_err(|_| Answer::bad_request(&format!("{name} is not text")))
}

const UNKNOWN: &str = "the continuation is not one that the service gave out";

/// Where a page begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Position {
    /// After this twin.
    Behind { device: String, module: Option<String> },
    /// After this number of rows.
    Rows(usize),
}

/// The content of a continuation token, which also identifies the query that it belongs to.
#[derive(Serialize, Deserialize)]
struct Continuation {
    query: String,
    position: Position,
}

impl Position {
    fn behind(last: &TwinId) -> Self {
        Self::Behind { device: last.device_id().to_owned(), module: last.module_id().map(str::to_owned) }
    }

    fn twin(self) -> Option<Result<TwinId, Answer>> {
        match self {
            Self::Behind { device, module } => Some(twin_id(device, module)),
            Self::Rows(_) => None,
        }
    }

    fn rows(self) -> usize {
        match self {
            Self::Behind { .. } => 0,
            Self::Rows(rows) => rows,
        }
    }

    fn encode(self, query: &str) -> String {
        let continuation = Continuation { query: fingerprint(query), position: self };
        URL_SAFE_NO_PAD.encode(json!(continuation).to_string())
    }

    fn decode(token: &str, query: &str) -> Result<Self, Answer> {
        let continuation: Option<Continuation> =
            URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        match continuation {
            Some(Continuation { query: of, position }) if of == fingerprint(query) => Ok(position),
            Some(_) => Err(Answer::bad_request("the continuation belongs to another query")),
            None => Err(Answer::bad_request(UNKNOWN)),
        }
    }
}

fn fingerprint(query: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(query))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_continuation_goes_on_with_its_own_query_only() {
        let id = TwinId::module("odd#1", "$edgeHub").unwrap();
        for position in [Position::behind(&id), Position::Rows(7)] {
            let token = position.clone().encode("SELECT * FROM devices");
            assert_eq!(Position::decode(&token, "SELECT * FROM devices").unwrap(), position);
            assert_eq!(Position::decode(&token, "SELECT * FROM devices.modules").unwrap_err().status, 400);
        }
        assert_eq!(Position::behind(&id).twin().unwrap().unwrap(), id);
        assert_eq!(Position::decode("nonsense", "SELECT * FROM devices").unwrap_err().status, 400);
    }
}

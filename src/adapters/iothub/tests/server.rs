//! A server with scripted answers.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, Response as HttpResponse},
};
use url::Url;

/// The time of every answer that is not created with `bare`.
pub(super) const DATE: &str = "Tue, 27 May 2031 10:00:07 GMT";

/// What the server saw.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) target: String,
    headers: HeaderMap,
    pub(super) body: String,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// An answer.
pub(super) type Response = HttpResponse<Body>;

type Answers = Arc<Mutex<VecDeque<Response>>>;

/// A server that sends one scripted answer after another.
pub(super) struct Server {
    pub(super) endpoint: Url,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(super) async fn start(answers: impl IntoIterator<Item = Response>) -> Self {
        let answers: Answers = Arc::new(Mutex::new(answers.into_iter().collect()));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let app = Router::new().fallback(answer).with_state((answers, Arc::clone(&seen)));
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { endpoint, seen, task }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn answer(
    State((answers, seen)): State<(Answers, Arc<Mutex<Vec<Seen>>>)>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    seen.lock().unwrap().push(Seen {
        method: parts.method.to_string(),
        target: parts.uri.to_string(),
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    });
    let scripted = answers.lock().unwrap().pop_front();
    scripted.expect("no more calls than scripted")
}

/// An answer with the usual Date.
pub(super) fn with(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
    bare(status, &[headers, &[("date", DATE)]].concat(), body)
}

pub(super) fn bare(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
    let mut response = HttpResponse::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body.into()).unwrap()
}

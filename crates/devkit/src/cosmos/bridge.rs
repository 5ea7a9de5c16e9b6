//! Handles one HTTP request with the emulator.

use std::sync::Arc;

use axum::{
    body::{Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use azure_core::http::{Method as AzureMethod, Request as AzureRequest};
use azure_data_cosmos_driver::in_memory_emulator::InMemoryEmulatorHttpClient;
use serde_json::{Value, json};
use url::Url;

use super::{
    ELSEWHERE,
    authorization::MasterKey,
    counters::{Counting, Marks},
    faults::{Answer, ContainerOverrides, Injector, Moment, Operation, Overrides},
    headers::{PARTITION_KEY, STRATEGY},
    price::{Asked, Ledger, Throughput},
    reply::Reply,
    stale_reads::StaleReads,
};

/// Much larger than the service's limit of 2 MiB per document, which the emulator checks.
const LARGEST_BODY_BYTES: usize = 16 * 1024 * 1024;

/// The host name of the second write region.
const ELSEWHERE_HOST: &str = "localhost";
const REQUEST_CHARGE: &str = "x-ms-request-charge";

/// The state that requests need.
pub(super) struct Account {
    pub(super) emulator: InMemoryEmulatorHttpClient,
    /// The address that clients connect to. The emulator determines its region from it.
    pub(super) url: Url,
    /// `None`: authorization is not checked.
    pub(super) key: Option<MasterKey>,
    pub(super) counting: Counting,
    pub(super) injector: Injector,
    pub(super) stale_reads: StaleReads,
    /// Computes the request units.
    pub(super) ledger: Ledger,
    /// `None`: nothing is throttled.
    pub(super) throughput: Option<Throughput>,
    /// The indexing policy that the container reports.
    pub(super) indexing_policy: Value,
}

pub(super) async fn handle(State(account): State<Arc<Account>>, request: Request) -> Response {
    let operation = Operation::of(request.method(), request.uri().path(), request.headers());
    // HTTP/2 has the host in the target instead.
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| request.uri().host());
    let mut marks = Marks {
        session: request.headers().get(STRATEGY).is_some_and(|strategy| strategy == "Session"),
        elsewhere: host.is_some_and(|host| host.starts_with(ELSEWHERE_HOST)),
        scan: false,
    };
    let mut reply = account.answer(operation, request).await;
    marks.scan = reply.is_scan;
    // Refusals have a date as well.
    let ahead_seconds = account.injector.date_ahead_seconds();
    if ahead_seconds != 0 {
        date(ahead_seconds, &mut reply.headers);
    }
    account.counting.record(operation, marks, reply.status.as_u16(), reply.request_units);
    reply.into_response()
}

impl Account {
    /// Returns the answer, with its request units.
    async fn answer(&self, operation: Operation, request: Request) -> Reply {
        let (parts, body) = request.into_parts();
        if let Some(key) = &self.key
            && let Err(refusal) = key.verify(&parts.method, parts.uri.path(), &parts.headers)
        {
            return problem(StatusCode::UNAUTHORIZED, "Unauthorized", &refusal.to_string());
        }
        let partition_key = parts.headers.get(PARTITION_KEY);
        let verdict = self.injector.decide(operation, partition_key.and_then(|key| key.to_str().ok()));
        if !verdict.delay.is_zero() {
            tokio::time::sleep(verdict.delay).await;
        }
        if let Some(answer) = verdict.answer
            && answer.when == Moment::Before
        {
            return faulty(answer);
        }
        let body = match to_bytes(body, LARGEST_BODY_BYTES).await {
            Ok(body) => body,
            Err(error) => {
                return problem(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", &error.to_string());
            }
        };
        let overrides = verdict.overrides;
        let path = parts.uri.path();
        if operation == Operation::Read
            && overrides.is_behind()
            && let Some(reply) = self.stale_reads.answer(path, &parts.headers, overrides.is_session())
        {
            return reply;
        }
        let written = overrides.is_behind().then(|| document_path(operation, path, &body)).flatten();
        let before = match &written {
            Some(path) => Some(self.read_document(path, &parts.headers).await),
            None => None,
        };
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        let request = match self.translate(&parts.method, target, &parts.headers, body.clone()) {
            Ok(request) => request,
            Err(reason) => return problem(StatusCode::BAD_REQUEST, "BadRequest", &reason),
        };
        let asked = Asked { operation, path, headers: &parts.headers, body: &body };
        if let Some(refusal) = self.throttle(asked) {
            return refusal;
        }
        let mut reply = self.dispatch(&request).await;
        self.price(asked, &mut reply);
        if let (Some(path), Some(before), true) = (written, before, reply.status.is_success()) {
            self.stale_reads.wrote(&path, before, &reply, overrides.stale_reads);
        }
        if operation == Operation::Metadata && reply.status.is_success() {
            match path.trim_matches('/').split('/').collect::<Vec<_>>().as_slice() {
                [""] => self.override_account(&overrides, &mut reply),
                ["dbs", _, "colls", _] if parts.method == Method::GET => {
                    self.override_container(&overrides.container, &mut reply);
                }
                _ => {}
            }
        }
        match verdict.answer {
            // An error of the emulator is passed on: there is no success to hide.
            Some(answer) if reply.status.is_success() => {
                Reply { request_units: reply.request_units, is_scan: reply.is_scan, ..faulty(answer) }
            }
            Some(_) | None => reply,
        }
    }

    /// Returns a refusal if no throughput is left for the request.
    fn throttle(&self, asked: Asked<'_>) -> Option<Reply> {
        if asked.operation == Operation::Metadata {
            return None;
        }
        let wait = self.throughput.as_ref()?.admit(&Ledger::place(asked.headers)).err()?;
        let retry_after_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        Some(faulty(Answer {
            status: 429,
            substatus: None,
            gateway: false,
            when: Moment::Before,
            retry_after_ms,
        }))
    }

    /// Sets the request units of a reply, if the model gives a better price than the emulator.
    fn price(&self, asked: Asked<'_>, reply: &mut Reply) {
        if let Some(charge) = self.ledger.charge(asked, reply) {
            (reply.request_units, reply.is_scan) = (charge.request_units, charge.is_scan);
            if let Ok(value) = HeaderValue::from_str(&format!("{:.2}", charge.request_units)) {
                reply.headers.insert(REQUEST_CHARGE, value);
            }
        }
        if let Some(throughput) = self.throughput.as_ref().filter(|_| asked.operation != Operation::Metadata)
        {
            throughput.spend(&Ledger::place(asked.headers), reply.request_units);
        }
    }

    /// The answer to a read of this document.
    async fn read_document(&self, path: &str, headers: &HeaderMap) -> Reply {
        let needed = [PARTITION_KEY, "x-ms-version"]
            .into_iter()
            .filter_map(|name| Some((HeaderName::from_static(name), headers.get(name)?.clone())));
        match self.translate(&Method::GET, path, &needed.collect(), Bytes::new()) {
            Ok(request) => self.dispatch(&request).await,
            Err(reason) => problem(StatusCode::BAD_REQUEST, "BadRequest", &reason),
        }
    }

    /// Changes the account's properties as the faults require.
    fn override_account(&self, overrides: &Overrides, reply: &mut Reply) {
        if overrides.consistency.is_none() && !overrides.multi_write {
            return;
        }
        let Ok(mut account) = serde_json::from_slice::<Value>(&reply.body) else {
            return;
        };
        if let Some(level) = overrides.consistency {
            account["userConsistencyPolicy"]["defaultConsistencyLevel"] = json!(level);
        }
        if overrides.multi_write {
            account["enableMultipleWriteLocations"] = json!(true);
            let mut url = self.url.clone();
            // The port is reachable under this name as well.
            if url.set_host(Some(ELSEWHERE_HOST)).is_ok() {
                let elsewhere = json!({"name": ELSEWHERE, "databaseAccountEndpoint": url.as_str()});
                for locations in ["writableLocations", "readableLocations"] {
                    if let Some(locations) = account[locations].as_array_mut() {
                        locations.push(elsewhere.clone());
                    }
                }
            }
        }
        reply.body = account.to_string().into();
    }

    /// Changes the container's properties as the faults require. The emulator supports neither a time to live nor an indexing policy.
    fn override_container(&self, overrides: &ContainerOverrides, reply: &mut Reply) {
        let Ok(mut container) = serde_json::from_slice::<Value>(&reply.body) else {
            return;
        };
        match overrides.default_ttl {
            Some(0) => {}
            Some(seconds) => container["defaultTtl"] = json!(seconds),
            None => container["defaultTtl"] = json!(-1),
        }
        container["indexingPolicy"] =
            overrides.indexing_policy.as_ref().unwrap_or(&self.indexing_policy).clone();
        if let Some(path) = &overrides.partition_key {
            container["partitionKey"]["paths"] = json!([path]);
        }
        reply.body = container.to_string().into();
    }

    fn translate(
        &self,
        method: &Method,
        target: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<AzureRequest, String> {
        let method: AzureMethod =
            method.as_str().parse().map_err(|_| format!("method {method} is not supported"))?;
        if !target.starts_with('/') || target.starts_with("//") {
            return Err("the request target is not a path".to_owned());
        }
        let url =
            self.url.join(target).map_err(|error| format!("the request target is not a path: {error}"))?;
        let mut request = AzureRequest::new(url, method);
        for (name, value) in headers {
            let value = value.to_str().map_err(|_| format!("header {name} is not text"))?;
            request.insert_header(name.as_str().to_owned(), value.to_owned());
        }
        if !body.is_empty() {
            request.set_body(body);
        }
        Ok(request)
    }

    async fn dispatch(&self, request: &AzureRequest) -> Reply {
        let answer = match self.emulator.execute_request(request).await {
            Ok(answer) => answer.try_into_raw_response().await,
            Err(error) => return problem(StatusCode::BAD_REQUEST, "BadRequest", &error.to_string()),
        };
        let (status, headers, body) = match answer {
            Ok(answer) => answer.deconstruct(),
            Err(error) => {
                return problem(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", &error.to_string());
            }
        };
        let mut reply = Reply {
            status: StatusCode::from_u16(status.into()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            headers: HeaderMap::new(),
            body: Bytes::from(body),
            request_units: 0.0,
            is_scan: false,
        };
        for (name, value) in headers {
            if name.as_str() == REQUEST_CHARGE {
                reply.request_units = value.as_str().parse().unwrap_or(0.0);
            }
            // The server sets the body's length. All other headers are those of the emulator.
            if let (Ok(name), Ok(value)) =
                (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value.as_str()))
                && name != header::CONTENT_LENGTH
                && name != header::TRANSFER_ENCODING
            {
                reply.headers.insert(name, value);
            }
        }
        reply
    }
}

/// Sets the date of an answer.
fn date(ahead_seconds: i64, headers: &mut HeaderMap) {
    let now = time::OffsetDateTime::now_utc() + time::Duration::seconds(ahead_seconds);
    if let Ok(value) = HeaderValue::from_str(&azure_core::time::to_rfc7231(&now)) {
        headers.insert(header::DATE, value);
    }
}

/// The path of the document that a request writes, if it writes a single one.
fn document_path(operation: Operation, path: &str, body: &[u8]) -> Option<String> {
    match operation {
        Operation::Replace | Operation::Delete | Operation::Patch => Some(path.to_owned()),
        Operation::Create | Operation::Upsert => {
            let body: Value = serde_json::from_slice(body).ok()?;
            let id: String = body.get("id")?.as_str()?.bytes().map(escaped).collect();
            Some(format!("{}/{id}", path.trim_end_matches('/')))
        }
        Operation::Read | Operation::Query | Operation::Batch | Operation::Feed | Operation::Metadata => None,
    }
}

/// A byte of an id, escaped as clients do in a path.
fn escaped(byte: u8) -> String {
    match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    }
}

/// An error answer in the service's form.
fn problem(status: StatusCode, code: &str, message: &str) -> Reply {
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    let body = json!({ "code": code, "message": message }).to_string().into();
    Reply { status, headers: headers.into_iter().collect(), body, request_units: 0.0, is_scan: false }
}

fn faulty(answer: Answer) -> Reply {
    let (code, substatus) = match answer.status {
        400 => ("BadRequest", None),
        403 => ("Forbidden", None),
        404 => ("NotFound", None),
        408 => ("RequestTimeout", None),
        410 => ("Gone", None),
        413 => ("RequestEntityTooLarge", None),
        429 => ("TooManyRequests", Some(3200)),
        449 => ("RetryWith", None),
        503 => ("ServiceUnavailable", None),
        _ => ("InternalServerError", None),
    };
    let substatus = answer.substatus.or(substatus);
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if answer.gateway {
        let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("text/html"))];
        let body = "<h1>injected fault</h1>".into();
        return Reply {
            status,
            headers: headers.into_iter().collect(),
            body,
            request_units: 0.0,
            is_scan: false,
        };
    }
    let mut reply = problem(status, code, "injected fault");
    if let Some(substatus) = substatus {
        reply.headers.insert("x-ms-substatus", HeaderValue::from(substatus));
    }
    if matches!(answer.status, 429 | 449) {
        reply.headers.insert("x-ms-retry-after-ms", HeaderValue::from(answer.retry_after_ms));
    }
    reply.headers.insert(REQUEST_CHARGE, HeaderValue::from_static("0"));
    reply
}

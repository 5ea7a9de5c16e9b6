//! One HTTP request in, one HTTP answer out.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use azure_core::http::{Method as AzureMethod, Request as AzureRequest};
use azure_data_cosmos_driver::in_memory_emulator::InMemoryEmulatorHttpClient;
use serde_json::json;
use url::Url;

use super::{
    authorization::MasterKey,
    counters::Counting,
    faults::{Answer, Injector, Moment, Operation},
};

/// Far over the service's limit of 2 MiB per document, which the emulator checks itself.
const LARGEST_BODY_BYTES: usize = 16 * 1024 * 1024;

/// What the handler of requests works with.
pub(super) struct Account {
    pub(super) emulator: InMemoryEmulatorHttpClient,
    /// What clients dial; the emulator finds its region by it.
    pub(super) url: Url,
    /// Absent: requests are not checked.
    pub(super) key: Option<MasterKey>,
    pub(super) counting: Counting,
    pub(super) injector: Injector,
}

pub(super) async fn handle(State(account): State<Arc<Account>>, request: Request) -> Response {
    let operation = Operation::of(request.method(), request.uri().path(), request.headers());
    let (response, request_units) = account.answer(operation, request).await;
    account.counting.record(operation, response.status().as_u16(), request_units);
    response
}

impl Account {
    /// The answer, and the request units that the emulator charged for it.
    async fn answer(&self, operation: Operation, request: Request) -> (Response, f64) {
        let (parts, body) = request.into_parts();
        if let Some(key) = &self.key
            && let Err(refusal) = key.verify(&parts.method, parts.uri.path(), &parts.headers)
        {
            return (problem(StatusCode::UNAUTHORIZED, "Unauthorized", &refusal.to_string()), 0.0);
        }
        let partition_key = parts.headers.get("x-ms-documentdb-partitionkey");
        let verdict = self.injector.judge(operation, partition_key.and_then(|key| key.to_str().ok()));
        if !verdict.delay.is_zero() {
            tokio::time::sleep(verdict.delay).await;
        }
        if let Some(answer) = verdict.answer
            && answer.when == Moment::Before
        {
            return (faulty(answer), 0.0);
        }
        let body = match to_bytes(body, LARGEST_BODY_BYTES).await {
            Ok(body) => body,
            Err(error) => {
                return (
                    problem(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", &error.to_string()),
                    0.0,
                );
            }
        };
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        let request = match self.translate(&parts.method, target, &parts.headers, body) {
            Ok(request) => request,
            Err(reason) => return (problem(StatusCode::BAD_REQUEST, "BadRequest", &reason), 0.0),
        };
        let (response, request_units) = self.dispatch(&request).await;
        match verdict.answer {
            // A failure is told as it is: there is no success to hide.
            Some(answer) if response.status().is_success() => (faulty(answer), request_units),
            Some(_) | None => (response, request_units),
        }
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

    async fn dispatch(&self, request: &AzureRequest) -> (Response, f64) {
        let answer = match self.emulator.execute_request(request).await {
            Ok(answer) => answer.try_into_raw_response().await,
            Err(error) => {
                return (problem(StatusCode::BAD_REQUEST, "BadRequest", &error.to_string()), 0.0);
            }
        };
        let (status, headers, body) = match answer {
            Ok(answer) => answer.deconstruct(),
            Err(error) => {
                return (
                    problem(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", &error.to_string()),
                    0.0,
                );
            }
        };
        let mut response = Response::new(Body::from(Bytes::from(body)));
        *response.status_mut() =
            StatusCode::from_u16(status.into()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut request_units = 0.0;
        for (name, value) in headers {
            if name.as_str() == "x-ms-request-charge" {
                request_units = value.as_str().parse().unwrap_or(0.0);
            }
            // The body's length is the server's business here; the rest goes out as the emulator says.
            if let (Ok(name), Ok(value)) =
                (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value.as_str()))
                && name != header::CONTENT_LENGTH
                && name != header::TRANSFER_ENCODING
            {
                response.headers_mut().insert(name, value);
            }
        }
        (response, request_units)
    }
}

/// An error answer in the service's form.
fn problem(status: StatusCode, code: &str, message: &str) -> Response {
    (status, axum::Json(json!({ "code": code, "message": message }))).into_response()
}

fn faulty(answer: Answer) -> Response {
    let (code, substatus) = match answer.status {
        408 => ("RequestTimeout", None),
        429 => ("TooManyRequests", Some("3200")),
        449 => ("RetryWith", None),
        503 => ("ServiceUnavailable", None),
        _ => ("InternalServerError", None),
    };
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = problem(status, code, "injected fault");
    let headers = response.headers_mut();
    if let Some(substatus) = substatus {
        headers.insert("x-ms-substatus", HeaderValue::from_static(substatus));
    }
    if matches!(answer.status, 429 | 449) {
        headers.insert("x-ms-retry-after-ms", HeaderValue::from(answer.retry_after_ms));
    }
    headers.insert("x-ms-request-charge", HeaderValue::from_static("0"));
    response
}

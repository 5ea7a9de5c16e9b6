//! Sends spans to an OpenTelemetry receiver: OTLP over HTTP, as protobuf.
//!
//! The messages and their encoding come from `opentelemetry-proto`. The exporter of `opentelemetry-otlp` is not used:
//! it reads environment variables in addition to the configuration, retries internally, and does not report what
//! happened to the spans.
//!
//! *Invariants*: only the end of the process waits for this exporter, with a limit. Spans that cannot be sent are kept
//! while there is space, and sent when the receiver is available again. Spans that do not fit or are refused are
//! counted.

use std::{fmt, time::Duration};

use bytes::Bytes;
use opentelemetry::KeyValue;
use opentelemetry_proto::{
    tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    transform::{
        common::tonic::ResourceAttributesWithSchema, trace::tonic::group_spans_by_resource_and_scope,
    },
};
use opentelemetry_sdk::{Resource, trace::SpanData};
use prost::Message as _;
use reqwest::{
    Client, StatusCode,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{blob::redact, credential::one_line};
use crate::{
    config,
    domain::{
        health::{Dependency, Failure},
        retry::Backoff,
    },
    telemetry::{
        HealthState, Metrics, VERSION,
        event::{DependencyChanged, Fault, SpansLeft, SpansRefused},
        replica,
    },
};

/// The maximum number of spans in one request.
const BATCH: usize = 512;
/// How long spans wait for others to share their request.
const LINGER: Duration = Duration::from_secs(1);
/// First and longest wait before a request is sent again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// How long sending the remaining spans may delay the end of the process.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);
/// The number of bytes that are read of an answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Code of a receiver that gives no usable answer.
const UNAVAILABLE: &str = "OTLP_UNAVAILABLE";
/// Code of a receiver that refuses our spans.
const REFUSED: &str = "OTLP_REFUSED";

/// The exporter cannot be created on this machine.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up the export of traces: {reason} ({})", Self::CODE)]
pub struct Error {
    reason: String,
}

impl Error {
    /// Stable code; `docs/errors/OTLP_UNUSABLE.md` explains it.
    pub const CODE: &'static str = "OTLP_UNUSABLE";
}

/// Sends spans.
pub struct Exporter {
    client: Client,
    endpoint: url::Url,
    headers: HeaderMap,
    resource: ResourceAttributesWithSchema,
    timeout: Duration,
    metrics: Metrics,
    health: HealthState,
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").field("endpoint", &self.endpoint.as_str()).finish_non_exhaustive()
    }
}

/// Why a request failed.
struct Failed {
    failure: Failure,
    code: &'static str,
    reason: String,
    /// Whether the same spans may be sent again.
    again: bool,
    /// How long the receiver asked us to wait.
    retry_after: Option<Duration>,
}

impl Failed {
    fn unreachable(reason: impl Into<String>) -> Self {
        let (failure, reason) = (Failure::Silent, reason.into());
        Self { failure, code: UNAVAILABLE, reason, again: true, retry_after: None }
    }
}

impl Exporter {
    /// Creates an exporter.
    ///
    /// # Errors
    /// The HTTP client cannot be created, or a header cannot be sent.
    pub fn new(settings: &config::Otlp, metrics: Metrics, health: HealthState) -> Result<Self, Error> {
        let client = Client::builder()
            .user_agent(concat!("twinsync/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| Error { reason: one_line(&error) })?;
        let mut headers = HeaderMap::new();
        for (name, value) in &settings.headers {
            // Loading the configuration has checked both.
            let unusable = || Error { reason: format!("the header {name:?} of otlp.headers cannot be sent") };
            let mut value = HeaderValue::from_str(value.expose()).map_err(|_| unusable())?;
            value.set_sensitive(true);
            headers.insert(HeaderName::try_from(name).map_err(|_| unusable())?, value);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        Ok(Self {
            client,
            endpoint: settings.endpoint.clone(),
            headers,
            resource: (&resource(settings)).into(),
            timeout: settings.timeout,
            metrics,
            health,
        })
    }

    /// Sends spans as they arrive until `ended`; then sends the remaining ones, within a limit.
    pub async fn run(self, mut spans: mpsc::Receiver<SpanData>, ended: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut unsent = None;
        while unsent.is_none() && self.fill(&mut batch, &mut spans, &ended).await {
            let (count, request) = (batch.len(), self.encode(std::mem::take(&mut batch)));
            unsent = self.deliver(request, count, &ended).await;
        }
        // No more spans are accepted; those received so far are sent while there is time.
        spans.close();
        let until = Instant::now() + FLUSH_LIMIT.min(self.timeout);
        loop {
            let (request, count) = match unsent.take() {
                Some(unsent) => unsent,
                None if batch.is_empty() && spans.recv_many(&mut batch, BATCH).await == 0 => return,
                None => {
                    let count = batch.len();
                    (self.encode(std::mem::take(&mut batch)), count)
                }
            };
            let (code, reason) = match timeout_at(until, self.send(request, count)).await {
                Ok(Ok(())) => continue,
                Ok(Err(failed)) => (failed.code, failed.reason),
                Err(_) => (UNAVAILABLE, "no answer in time".to_owned()),
            };
            let left = count + spans.len();
            self.metrics.spans_dropped(left);
            SpansLeft { spans: left, code, reason: &reason }.emit();
            return;
        }
    }

    /// Collects spans for a request; `false` at the end.
    async fn fill(
        &self,
        batch: &mut Vec<SpanData>,
        spans: &mut mpsc::Receiver<SpanData>,
        ended: &CancellationToken,
    ) -> bool {
        let mut until: Option<Instant> = None;
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            tokio::select! {
                biased;
                () = ended.cancelled() => return false,
                received = spans.recv_many(batch, room) => {
                    if received == 0 {
                        return false; // no more spans will be created
                    }
                    until.get_or_insert_with(|| Instant::now() + LINGER);
                }
                () = async { if let Some(until) = until { tokio::time::sleep_until(until).await } }, if until.is_some() => break,
            }
        }
        true
    }

    /// Sends a request, and retries while that may help. If `ended` comes first, the request is returned.
    async fn deliver(
        &self,
        request: Bytes,
        count: usize,
        ended: &CancellationToken,
    ) -> Option<(Bytes, usize)> {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        loop {
            let sent = tokio::select! {
                biased;
                sent = self.limited(request.clone(), count) => sent,
                () = ended.cancelled() => return Some((request, count)),
            };
            let Err(failed) = sent else {
                DependencyChanged::post(&self.health, &Dependency::Traces, None);
                return None;
            };
            self.metrics.span_export_failed();
            let Failed { failure, code, reason, again, retry_after } = failed;
            let fault = Fault { failure, code, reason: &reason };
            DependencyChanged::post(&self.health, &Dependency::Traces, Some(fault));
            if !again {
                self.metrics.spans_refused(count);
                return None;
            }
            let wait = backoff.next(rand::random(), retry_after);
            self.health.tries_again(&Dependency::Traces, wait);
            tokio::select! {
                biased;
                () = ended.cancelled() => return Some((request, count)),
                () = sleep(wait) => {}
            }
        }
    }

    fn encode(&self, batch: Vec<SpanData>) -> Bytes {
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        ExportTraceServiceRequest { resource_spans }.encode_to_vec().into()
    }

    async fn limited(&self, request: Bytes, count: usize) -> Result<(), Failed> {
        match tokio::time::timeout(self.timeout, self.send(request, count)).await {
            Ok(sent) => sent,
            Err(_) => Err(Failed::unreachable(format!("no answer within {} s", self.timeout.as_secs()))),
        }
    }

    async fn send(&self, request: Bytes, count: usize) -> Result<(), Failed> {
        let lost = |error: reqwest::Error| Failed::unreachable(redact(&one_line(&error.without_url())));
        let request = self.client.post(self.endpoint.clone()).headers(self.headers.clone()).body(request);
        let mut response = request.send().await.map_err(lost)?;
        let (status, retry_after) = (response.status(), retry_after(response.headers()));
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(lost)? {
            let room = ANSWER_BYTES_MAX.saturating_sub(body.len());
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
        if !status.is_success() {
            return Err(refusal(status, retry_after));
        }
        // An answer that cannot be read still shows that the spans were accepted.
        let answer = ExportTraceServiceResponse::decode(body.as_slice()).unwrap_or_default();
        let rejected = answer.partial_success.map_or(0, |partial| {
            let spans = usize::try_from(partial.rejected_spans).unwrap_or(0).min(count);
            if spans > 0 {
                SpansRefused { spans, code: REFUSED, reason: &first_line(&partial.error_message) }.emit();
            }
            spans
        });
        self.metrics.spans_refused(rejected);
        self.metrics.spans_exported(count - rejected);
        Ok(())
    }
}

/// The meaning of a status other than success. A status is retried if the OTLP specification allows that, or if the
/// service is available but fails.
fn refusal(status: StatusCode, retry_after: Option<Duration>) -> Failed {
    let reason = format!("status {status}");
    let (failure, code, again) = match status {
        StatusCode::TOO_MANY_REQUESTS => (Failure::Throttled, UNAVAILABLE, true),
        StatusCode::REQUEST_TIMEOUT => (Failure::Silent, UNAVAILABLE, true),
        status if status.is_server_error() => (Failure::Silent, UNAVAILABLE, true),
        _ => (Failure::Silent, REFUSED, false),
    };
    Failed { failure, code, reason, again, retry_after }
}

/// The wait in seconds; for a date, our own backoff is used.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(Duration::from_secs(300)))
}

/// The receiver's message, shortened for a log line.
fn first_line(text: &str) -> String {
    redact(&text.lines().next().unwrap_or_default().chars().take(200).collect::<String>())
}

/// Our identity in traces.
fn resource(settings: &config::Otlp) -> Resource {
    let own = [
        KeyValue::new("service.name", settings.service_name.clone()),
        KeyValue::new("service.version", VERSION),
        KeyValue::new("service.instance.id", replica()),
    ];
    let more = settings.resource_attributes.iter();
    let more = more.map(|(name, value)| KeyValue::new(name.clone(), value.clone()));
    // The configured attributes win, except for the name, which has a separate setting.
    Resource::builder_empty()
        .with_attributes(own.clone())
        .with_attributes(more)
        .with_attribute(own[0].clone())
        .build()
}

#[cfg(test)]
mod tests;

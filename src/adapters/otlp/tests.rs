//! The exporter against a socket with scripted answers.

use std::{
    collections::VecDeque,
    num::NonZeroU32,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap as Headers, routing::post};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

use super::*;
use crate::{
    config::Secret,
    domain::{
        id::{PartitionId, Position, SequenceNumber},
        message::Message,
        sampling::Ratio,
        ticks::Ticks,
    },
    telemetry::{
        Decision,
        trace::{Ended, Options, Present, Tracer},
    },
};

/// The statuses to answer with, the last one repeatedly, and the requests received.
#[derive(Default)]
struct Script {
    answers: VecDeque<(u16, i64)>,
    arrived: Vec<(Option<String>, usize)>,
}

type Shared = Arc<Mutex<Script>>;

async fn answer(State(script): State<Shared>, headers: Headers, body: Bytes) -> (StatusCode, Vec<u8>) {
    let request = ExportTraceServiceRequest::decode(body).expect("OTLP");
    let scopes = request.resource_spans.iter().flat_map(|group| &group.scope_spans);
    let spans = scopes.map(|scope| scope.spans.len()).sum();
    let token = headers.get("x-token").and_then(|token| token.to_str().ok()).map(str::to_owned);
    let mut script = script.lock().expect("no panic");
    script.arrived.push((token, spans));
    let next = match script.answers.len() {
        0 | 1 => script.answers.front().copied(),
        _ => script.answers.pop_front(),
    };
    let (status, rejected_spans) = next.unwrap_or((200, 0));
    let partial_success =
        Some(ExportTracePartialSuccess { rejected_spans, error_message: "too old\nand more".into() });
    let body = ExportTraceServiceResponse { partial_success }.encode_to_vec();
    (StatusCode::from_u16(status).expect("a status"), body)
}

async fn receiver(answers: &[(u16, i64)]) -> (url::Url, Shared) {
    let script =
        Shared::new(Mutex::new(Script { answers: answers.iter().copied().collect(), ..Script::default() }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let app = Router::new().route("/v1/traces", post(answer)).with_state(Arc::clone(&script));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (format!("http://{address}/v1/traces").parse().expect("a URL"), script)
}

fn settings(endpoint: url::Url) -> config::Otlp {
    config::Otlp {
        endpoint,
        headers: vec![("x-token".into(), Secret::new("hush"))],
        sample_ratio: Ratio::new(1.0).expect("valid"),
        slow_after: None,
        service_name: "twinsync".into(),
        resource_attributes: Vec::new(),
        device_ids: false,
        timeout: Duration::from_secs(2),
        max_queued_spans: NonZeroU32::MIN,
    }
}

/// Creates a trace of three spans.
fn one_trace(tracer: &Tracer) {
    let partition = PartitionId { stream: "twins".into(), partition: "0".into() };
    let message = Message {
        position: Position { sequence_number: SequenceNumber(1), offset: Default::default() },
        enqueued: Some(Ticks::new(1)),
        body: Default::default(),
        application_properties: Default::default(),
        annotations: Default::default(),
    };
    let trace = Tracer::begin(Some(&tracer.sampler(&partition)), SequenceNumber(1), None);
    tracer.ended(&Ended {
        partition: &partition,
        message: &message,
        twin: None,
        operation: None,
        received: Instant::now(),
        trace: trace.as_deref(),
        write: None,
        decision: Decision::Applied,
        reason: None,
        present: Present::new(Ticks::new(2)),
    });
}

struct Bench {
    tracer: Tracer,
    metrics: Metrics,
    health: HealthState,
    ended: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn bench(endpoint: url::Url) -> Bench {
    let (metrics, health) = (Metrics::new().expect("buckets"), HealthState::new());
    let exporter = Exporter::new(&settings(endpoint), metrics.clone(), health.clone()).expect("a client");
    assert!(!format!("{exporter:?}").contains("hush"));
    let options = Options {
        namespace: "n".into(),
        consumer_group: "$Default".into(),
        database: "d".into(),
        container: "c".into(),
        account: "a".into(),
        ratio: Ratio::new(1.0).expect("valid"),
        slow_after: None,
        device_ids: false,
    };
    let (tracer, spans) = Tracer::new(options, metrics.clone(), 1000);
    let ended = CancellationToken::new();
    let task = tokio::spawn(exporter.run(spans, ended.clone()));
    Bench { tracer, metrics, health, ended, task }
}

impl Bench {
    fn count(&self, outcome: &str) -> u64 {
        let text = self.metrics.render();
        let name = format!("twinsync_otlp_spans_total{{outcome=\"{outcome}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).expect("there from the start")
    }

    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !condition(self) {
            assert!(began.elapsed() < Duration::from_secs(30), "never: {what}\n{}", self.metrics.render());
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn warnings(&self) -> Vec<String> {
        crate::domain::readiness::assess(&self.health.facts()).warnings
    }
}

#[tokio::test]
async fn spans_are_sent_with_the_headers_and_again_where_that_may_help() {
    let (endpoint, script) = receiver(&[(503, 0), (429, 0), (200, 0)]).await;
    let bench = bench(endpoint);
    one_trace(&bench.tracer);
    bench.until("all are there", |bench| bench.count("exported") == 3).await;
    let arrived = script.lock().expect("no panic").arrived.clone();
    assert_eq!(arrived, vec![(Some("hush".to_owned()), 3); 3]);
    assert_eq!((bench.count("dropped"), bench.count("refused")), (0, 0));
    assert!(bench.metrics.render().contains("twinsync_otlp_export_failures_total 2"));
    bench.until("it is known to answer", |bench| bench.warnings().is_empty()).await;
}

#[tokio::test]
async fn what_is_refused_is_not_sent_again_and_is_a_warning_with_its_code() {
    let (endpoint, script) = receiver(&[(401, 0)]).await;
    let bench = bench(endpoint);
    for traces in 1..=2 {
        one_trace(&bench.tracer);
        bench.until("it was refused", |bench| bench.count("refused") == 3 * traces).await;
    }
    assert_eq!(script.lock().expect("no panic").arrived.len(), 2);
    bench.health.set_phase(crate::domain::health::Phase::Running);
    let warnings = bench.warnings();
    assert!(
        warnings.len() == 1 && warnings[0].contains("the receiver of traces") && warnings[0].contains("401"),
        "{warnings:?}"
    );
}

#[tokio::test]
async fn a_part_that_is_refused_is_counted_apart() {
    let (endpoint, _) = receiver(&[(200, 2)]).await;
    let bench = bench(endpoint);
    one_trace(&bench.tracer);
    bench.until("all are counted", |bench| (bench.count("exported"), bench.count("refused")) == (1, 2)).await;
}

#[tokio::test]
async fn the_end_sends_what_is_left_and_waits_for_nobody_who_hangs() {
    let (endpoint, script) = receiver(&[(200, 0)]).await;
    let bench = bench(endpoint);
    one_trace(&bench.tracer);
    bench.ended.cancel();
    bench.task.await.expect("no panic");
    assert_eq!(script.lock().expect("no panic").arrived.len(), 1, "a stop must send the remaining spans");

    // The kernel accepts connections, but nothing answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("bound");
    let bench = self::bench(format!("http://{address}/v1/traces").parse().expect("a URL"));
    one_trace(&bench.tracer);
    let began = Instant::now();
    bench.ended.cancel();
    bench.task.await.expect("no panic");
    assert!(began.elapsed() < Duration::from_secs(4), "took {:?}", began.elapsed());
    let text = bench.metrics.render();
    assert!(text.contains("twinsync_otlp_spans_total{outcome=\"dropped\"} 3"), "{text}");
}

#[test]
fn every_code_has_a_page() {
    for code in [UNAVAILABLE, REFUSED, Error::CODE] {
        let page = format!("{}/docs/errors/{code}.md", env!("CARGO_MANIFEST_DIR"));
        assert!(std::fs::exists(&page).is_ok_and(|exists| exists), "{page}");
    }
}

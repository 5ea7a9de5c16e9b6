use super::*;
use crate::telemetry::ServeMetrics;

fn has_line(metrics: &Metrics, line: &str) {
    let text = metrics.render();
    assert!(text.lines().any(|found| found == line), "{line}\nnot in\n{text}");
}

#[test]
fn what_is_counted_is_rendered_with_its_labels() {
    let metrics = Metrics::new().unwrap();
    let stream = metrics.stream("twins");
    stream.decided(Decision::Applied);
    stream.decided_many(Decision::Duplicate, 3);
    metrics.event_ignored("telemetry");
    metrics.event_ignored("telemetry");
    metrics.event_dead_lettered("body_not_json");
    metrics.write_finished(WriteKind::Replace, WriteOutcome::Conflict);
    metrics.read_finished(ReadOutcome::Absent);
    metrics.partition_rebuilt("twins", "stolen");
    metrics.set_in_flight(2, 700);
    metrics.set_cached(9000);
    metrics.set_store_concurrency_limit(64);
    for line in [
        "twinsync_events_total{stream=\"twins\",decision=\"applied\"} 1",
        "twinsync_events_total{stream=\"twins\",decision=\"duplicate\"} 3",
        "twinsync_events_total{stream=\"twins\",decision=\"gap\"} 0",
        "twinsync_events_ignored_total{reason=\"telemetry\"} 2",
        "twinsync_dead_letters_total{reason=\"body_not_json\"} 1",
        "twinsync_writes_total{kind=\"replace\",outcome=\"conflict\"} 1",
        "twinsync_writes_total{kind=\"create\",outcome=\"written\"} 0",
        "twinsync_reads_total{outcome=\"absent\"} 1",
        "twinsync_partition_rebuilds_total{stream=\"twins\",reason=\"stolen\"} 1",
        "twinsync_in_flight_events 2",
        "twinsync_in_flight_bytes 700",
        "twinsync_cache_bytes 9000",
        "twinsync_store_concurrency_limit 64",
    ] {
        has_line(&metrics, line);
    }
    assert!(metrics.render().contains("twinsync_build_info{version="));
}

#[test]
fn request_units_are_a_counter_with_fractions() {
    let metrics = Metrics::new().unwrap();
    for charge in [1.5, 5.81, 0.0, -1.0, f64::NAN, f64::INFINITY] {
        metrics.request_units_spent(Purpose::Live, charge);
    }
    has_line(&metrics, "# TYPE twinsync_request_units_total counter");
    has_line(&metrics, "twinsync_request_units_total{purpose=\"live\"} 7.31");
}

#[test]
fn no_request_unit_is_lost_between_threads() {
    let metrics = Metrics::new().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..10_000).for_each(|_| metrics.request_units_spent(Purpose::Live, 0.5)));
        }
    });
    assert_eq!(metrics.request_units(Purpose::Live), 20_000.0);
}

#[test]
fn latencies_fall_into_buckets_and_negative_ones_count_as_zero() {
    let metrics = Metrics::new().unwrap();
    for freshness in [Some(-5.0), Some(0.012), Some(f64::NAN), None] {
        metrics.event_durable(Latency { freshness, ..Latency::default() });
    }
    metrics.events_written(4);
    for line in [
        "# TYPE twinsync_freshness_seconds histogram",
        "twinsync_freshness_seconds_bucket{le=\"0.001\"} 1",
        "twinsync_freshness_seconds_bucket{le=\"0.015\"} 2",
        "twinsync_freshness_seconds_bucket{le=\"3600\"} 2",
        "twinsync_freshness_seconds_count 2",
        "twinsync_events_per_write_bucket{le=\"5\"} 1",
    ] {
        has_line(&metrics, line);
    }
    let text = metrics.render();
    assert!(!text.contains("twinsync_hub_to_eventhub_seconds_count 1"), "{text}");
}

#[test]
fn every_rendered_metric_is_described() {
    let metrics = Metrics::new().unwrap();
    let _ = metrics.stream("s");
    metrics.event_durable(Latency {
        freshness: Some(1.0),
        hub_to_eventhub: Some(1.0),
        eventhub_to_received: Some(1.0),
        received_to_durable: Some(1.0),
    });
    let text = metrics.render();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap();
        assert!(text.contains(&format!("# HELP {name} ")), "{name}");
    }
}

#[test]
fn every_counter_is_there_before_it_counts() {
    let metrics = Metrics::new().unwrap();
    let _ = metrics.stream("s");
    metrics.registry("h");
    let _ = ServeMetrics::new(&metrics, ["missing"]);
    let text = metrics.render();
    for &Description { name, kind, .. } in name::DESCRIPTIONS {
        // Metrics of the process and its runtime are not zero, and are not stored here.
        if [name::PROCESS_CPU, name::RUNTIME_BUSY, name::RECEIVE_BUSY].contains(&name) {
            continue;
        }
        let sample = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
        if kind == Kind::Histogram {
            let empty = |line: &str| line.starts_with(&format!("{name}_count")) && line.ends_with(" 0");
            assert!(text.lines().any(empty), "{name}: an alert on its increase would miss the first values");
        }
        if matches!(kind, Kind::Counter) {
            let found: Vec<_> = text.lines().filter(sample).collect();
            assert!(!found.is_empty(), "{name}: an alert on its increase would miss the first one");
            assert!(found.iter().all(|line| line.ends_with(" 0")), "{found:?}");
        }
    }
    for line in [
        "twinsync_dead_letters_total{reason=\"rejected_by_store\"} 0",
        "twinsync_dead_letters_total{reason=\"not_json\"} 0",
        "twinsync_partition_rebuilds_total{stream=\"s\",reason=\"stalled\"} 0",
        "twinsync_events_lost_total{stream=\"s\"} 0",
    ] {
        has_line(&metrics, line);
    }
}

#[test]
fn two_daemons_in_one_process_count_apart() {
    let (one, other) = (Metrics::new().unwrap(), Metrics::new().unwrap());
    one.event_ignored("telemetry");
    has_line(&one, "twinsync_events_ignored_total{reason=\"telemetry\"} 1");
    has_line(&other, "twinsync_events_ignored_total{reason=\"telemetry\"} 0");
}

#[tokio::test]
async fn upkeep_ends_with_the_daemon() {
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(Metrics::new().unwrap().run_upkeep(shutdown.clone()));
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(5), task).await.expect("ends").unwrap();
}

use super::*;
use crate::{
    domain::{headline::Level, id::SequenceNumber, other_partitions::Behind, progress::Extent},
    telemetry::{Decision, Latency, PartitionMetrics, Purpose, ReadOutcome},
};

fn partition(name: &str) -> PartitionId {
    PartitionId { stream: "twins".into(), partition: name.into() }
}

struct Watching(PartitionMetrics, Option<Duration>);

impl Watched for Watching {
    fn metrics(&self) -> &PartitionMetrics {
        &self.0
    }

    fn oldest_incomplete(&self) -> Option<(SequenceNumber, Duration)> {
        self.1.map(|age| (SequenceNumber(107), age))
    }
}

struct Bench {
    health: HealthState,
    metrics: Metrics,
    observer: Observer,
}

impl Bench {
    fn new() -> Self {
        Self::with(HealthState::new())
    }

    fn with(health: HealthState) -> Self {
        let metrics = Metrics::new().expect("valid");
        let about = About {
            replica: "replica-a".into(),
            retention: Duration::from_secs(86_400),
            streams: vec!["twins".into()],
            hubs: vec!["contoso".into()],
            recent_warnings: RecentWarnings::default(),
        };
        let observer = Observer::new(health.clone(), metrics.clone(), about);
        health.set_phase(Phase::Running);
        health.set_store(StoreState::Reachable);
        Self { health, metrics, observer }
    }

    /// A partition that holds the events 100 to 199 and is completed up to `durable`.
    fn receives(&self, name: &str, durable: i64, oldest: Option<Duration>) -> Arc<Watching> {
        self.health.set_partition(&partition(name), PartitionState::Receiving);
        let watching = Arc::new(Watching(PartitionMetrics::default(), oldest));
        let extent =
            Extent { first: SequenceNumber(100), last: SequenceNumber(199), is_empty: false, newest: None };
        watching.0.measured(extent, Some(SequenceNumber(durable)));
        let watched: Arc<dyn Watched> = Arc::clone(&watching) as _;
        self.health.watch_partition(&partition(name), Arc::downgrade(&watched));
        watching
    }

    fn sample(&self, seconds_ago: u64) {
        let text = self.observer.exposition();
        let mut sample = self.observer.sample(&self.health.view(), &Exposition::read(&text));
        sample.at =
            sample.at.checked_sub(Duration::from_secs(seconds_ago)).expect("the machine is up for longer");
        self.observer.0.history.lock().expect("not poisoned").push(sample);
    }
}

#[test]
fn a_replica_in_step_says_so_with_its_figures() {
    let bench = Bench::new();
    let _all_done = bench.receives("0", 199, None);
    bench.sample(60);
    bench.metrics.stream("twins").decided_many(Decision::Applied, 600);
    bench.metrics.request_units_spent(Purpose::Live, 1200.0);
    bench.metrics.read_finished(ReadOutcome::Throttled);
    for _ in 0..3 {
        bench.metrics.read_finished(ReadOutcome::Present);
    }
    bench.metrics.event_durable(Latency { freshness: Some(0.004), ..Latency::default() });
    bench.metrics.event_dead_lettered("not_json");
    let status = bench.observer.status();
    assert_eq!((status.headline.level, status.live, status.ready), (Level::Good, true, true), "{status:?}");
    assert!(status.headline.text.starts_with("In step: changes are stored within"), "{status:?}");
    assert!((status.flow.completed_per_second.expect("known") - 10.0).abs() < 0.2, "{:?}", status.flow);
    assert!((status.store.request_units_per_second["live"] - 20.0).abs() < 0.4, "{:?}", status.store);
    assert_eq!(status.store.throttled_share, Some(0.25));
    assert_eq!(status.decisions["applied"], 600);
    assert_eq!(status.dead_letters.by_reason, BTreeMap::from([("not_json".to_owned(), 1)]));
    assert_eq!(status.loss.expect("known").seconds, 86_400.0);
    assert!(status.freshness.p99_seconds.is_some_and(|seconds| seconds <= 0.005));
    let found = &status.partitions[0];
    assert_eq!((found.lag_events, found.lag_seconds, found.retention_used), (Some(0), Some(0.0), Some(0.0)));
    assert_eq!(found.owner.as_deref(), Some("replica-a"));
    assert_eq!(status.hubs[0].audit_completed, None);
}

#[test]
fn what_waits_shows_how_far_behind_it_is_and_what_is_left_until_loss() {
    let bench = Bench::new();
    let _done = bench.receives("0", 199, None);
    let behind = bench.receives("1", 149, Some(Duration::from_secs(2)));
    let received = SystemClock.now().before(Duration::from_secs(70_000));
    behind.0.received(received);
    let status = bench.observer.status();
    let first = &status.partitions[0];
    assert_eq!(
        (first.partition.as_str(), first.lag_events),
        ("1", Some(50)),
        "the partition with the most lag must come first"
    );
    assert_eq!(first.retention_used, Some(0.5));
    assert_eq!(first.oldest_incomplete, Some(107));
    assert!(first.lag_seconds.is_some_and(|behind| (70_000.0..70_100.0).contains(&behind)), "{first:?}");
    let loss = status.loss.expect("known");
    assert_eq!(loss.partition, "1");
    assert!((16_300.0..=16_400.0).contains(&loss.seconds), "{loss:?}");
    assert_eq!(status.headline.level, Level::Bad, "less than a quarter of the retention is left");
}

#[test]
fn the_first_event_after_a_long_rest_is_not_as_old_as_the_rest() {
    let bench = Bench::new();
    let watching = bench.receives("0", 199, None);
    watching.0.received(SystemClock.now().before(Duration::from_secs(90_000)));
    let extent =
        Extent { first: SequenceNumber(100), last: SequenceNumber(200), is_empty: false, newest: None };
    watching.0.measured(extent, Some(SequenceNumber(199)));
    let status = bench.observer.status();
    let found = &status.partitions[0];
    assert_eq!(found.lag_events, Some(1));
    assert!(
        found.lag_seconds.is_some_and(|behind| behind < 60.0),
        "the partition had no lag a moment ago: {found:?}"
    );
    assert_eq!(status.headline.level, Level::Good, "{:?}", status.headline);
}

#[test]
fn without_samples_no_rate_is_claimed_and_red_needs_no_samples() {
    let bench = Bench::new();
    let _all_done = bench.receives("0", 199, None);
    let status = bench.observer.status();
    assert_eq!(status.flow.completed_per_second, None);
    assert_eq!(status.store.throttled_share, None);
    bench.health.set_store(StoreState::Unreachable { reason: "503".into() });
    let status = bench.observer.status();
    assert!(status.headline.text.starts_with("Blocked: the document store has not answered since "));
    assert!(status.headline.text.ends_with(" UTC: 503"), "{:?}", status.headline);
    bench.health.tries_store_again(Duration::from_secs(40));
    let status = bench.observer.status();
    assert!(status.headline.text.contains(", next try in 40 s"), "{:?}", status.headline);
    let cosmos = status.dependencies.iter().find(|found| found.name == "Cosmos DB").expect("listed");
    assert_eq!((cosmos.state.as_str(), cosmos.reason.as_deref()), ("down", Some("503")));
    assert!(cosmos.down_since.is_some_and(|since| status.at.seconds_since(since) < 60.0));
    assert!(cosmos.next_try.is_some_and(|at| (30.0..=40.0).contains(&at.seconds_since(status.at))));
    assert!(cosmos.asked.is_some_and(|asked| status.at.seconds_since(asked) < 60.0));
    bench.health.set_store(StoreState::Reachable);
    let status = bench.observer.status();
    let cosmos = status.dependencies.iter().find(|found| found.name == "Cosmos DB").expect("listed");
    assert_eq!((cosmos.state.as_str(), cosmos.next_try), ("up", None));
}

#[test]
fn partitions_of_others_are_shown_as_theirs_and_stand_by_is_no_trouble() {
    let bench = Bench::new();
    let owners = [("0".to_owned(), Some("replica-b".to_owned())), ("1".to_owned(), None)];
    bench.health.set_owners("twins", owners.clone());
    let status = bench.observer.status();
    assert_eq!(status.headline.text, "Standing by: other replicas own all partitions");
    let found: Vec<_> = status.partitions.iter().map(|found| (found.ours, found.owner.as_deref())).collect();
    assert_eq!(
        found,
        [(false, None), (false, Some("replica-b"))],
        "a partition that nobody reads must come first"
    );
    assert_eq!(status.loss, None, "only the owners know it");
    bench.health.set_owners("twins", owners.into_iter().take(1));
    assert_eq!(bench.observer.status().partitions.len(), 1, "the other partitions must be gone");
}

#[test]
fn dependencies_tell_since_when_and_whether_the_copy_needs_them() {
    let bench = Bench::new();
    bench.health.set_partition(&partition("0"), PartitionState::Waiting { reason: "refused".into() });
    bench.health.is_down(Dependency::Registry("contoso".into()), Failure::Silent, "429");
    bench.health.is_up(Dependency::Checkpoints);
    bench.health.is_up(Dependency::EventHub("twins".into()));
    let status = bench.observer.status();
    let find =
        |name: &str| status.dependencies.iter().find(|found| found.name.starts_with(name)).expect("listed");
    let hubs = find("Event Hub twins");
    assert_eq!((hubs.state.as_str(), hubs.reason.as_deref()), ("down", Some("twins/0: refused")));
    let registry = find("Registry of the IoT hub contoso");
    assert_eq!((registry.state.as_str(), registry.needed), ("down", false));
    assert_eq!(find("Checkpoint store").state, "up");
}

#[test]
fn an_event_hub_whose_connections_hang_is_down_and_one_that_throttles_is_up() {
    let bench = Bench::new();
    let hub = || {
        let status = bench.observer.status();
        let found = status.dependencies.into_iter().find(|found| found.name.starts_with("Event Hub twins"));
        let found = found.expect("listed");
        (found.state, found.reason)
    };
    let reason = |text: &str| Some(text.to_owned());
    bench.health.set_partition(&partition("0"), PartitionState::Receiving);
    for _ in 0..2 {
        bench.health.is_down(Dependency::EventHub("twins".into()), Failure::Silent, "no answer");
    }
    assert_eq!(hub(), ("down".to_owned(), reason("no answer")), "no partition has noticed it");
    bench.health.is_up(Dependency::EventHub("twins".into()));
    assert_eq!(hub(), ("up".to_owned(), None));
    bench.health.set_partition(&partition("0"), PartitionState::Throttled { reason: "busy".into() });
    assert_eq!(hub(), ("up".to_owned(), reason("twins/0: busy")));
    assert_eq!(bench.observer.status().partitions[0].state, "throttled");
}

#[test]
fn the_answer_survives_json_and_says_its_schema() {
    let bench = Bench::new();
    let _all_done = bench.receives("0", 150, Some(Duration::from_millis(5)));
    bench.sample(10);
    bench.sample(5);
    let status = bench.observer.status();
    let text = serde_json::to_string(&status).expect("JSON");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["schema"], SCHEMA);
    assert_eq!(json["partitions"][0]["lagEvents"], 49);
    assert_eq!(json["history"]["intervalSeconds"], 5.0);
    assert_eq!(serde_json::from_value::<Status>(json).expect("reads back"), status);
}

#[tokio::test(start_paused = true)]
async fn samples_are_taken_until_the_end() {
    let bench = Bench::new();
    let stop = CancellationToken::new();
    let task = tokio::spawn(bench.observer.clone().run(stop.clone()));
    tokio::time::sleep(history::INTERVAL * 3 + Duration::from_secs(1)).await;
    stop.cancel();
    task.await.expect("ends");
    assert_eq!(bench.observer.0.history.lock().expect("not poisoned").curves().lag_events.len(), 3);
}

#[test]
fn what_nobody_reads_for_too_long_is_the_headline_with_the_events_that_wait() {
    let bench = Bench::with(HealthState::with_limits(Duration::ZERO, Duration::from_secs(86_400)));
    let _all_done = bench.receives("0", 199, None);
    let owners = [("0", Some("replica-a")), ("1", None), ("2", Some("replica-b"))]
        .map(|(id, owner)| (id.to_owned(), owner.map(str::to_owned)));
    bench.health.set_owners("twins", owners.clone());
    let status = bench.observer.status();
    assert_eq!(status.headline.level, Level::Bad);
    let text = status.headline.text;
    assert!(text.starts_with("Nobody reads twins/1 since ") && text.ends_with("not known"), "{text}");
    assert_eq!(status.partitions[0].state, "unread");
    let found = OthersLag::from([
        (
            partition("1"),
            Ok(Behind {
                events: 1234,
                at_least: Some(Duration::from_secs(80_000)),
                retention_used: 0.5,
                checkpoint_age: Some(Duration::from_secs(90)),
            }),
        ),
        (partition("2"), Err("refused (EVENTHUBS_REFUSED)".to_owned())),
    ]);
    bench.observer.0.others_lag.answered(Ok(found));
    let status = bench.observer.status();
    assert!(status.headline.text.ends_with(" UTC: 1,234 events wait"), "{:?}", status.headline);
    let [unread, own, theirs] = &status.partitions[..] else { panic!("{:#?}", status.partitions) };
    assert_eq!(
        (unread.lag_events, unread.lag_seconds, unread.retention_used),
        (Some(1234), Some(80_000.0), Some(0.5))
    );
    assert_eq!((unread.basis.as_deref(), own.basis.as_deref()), (Some("checkpoint"), Some("own")));
    assert_eq!((theirs.lag_events, theirs.reason.as_deref()), (None, Some("refused (EVENTHUBS_REFUSED)")));
    let loss = status.loss.expect("known");
    assert_eq!(
        (loss.partition.as_str(), loss.seconds),
        ("1", 6_400.0),
        "no replica can receive the events any more"
    );
    bench.health.set_owners("twins", owners.map(|(id, owner)| (id, owner.or(Some("replica-b".to_owned())))));
    assert_ne!(bench.observer.status().headline.level, Level::Bad, "another replica reads the partition");
}

#[test]
fn a_token_that_ends_and_is_not_renewed_is_a_worry_and_no_outage() {
    let bench = Bench::new();
    let _all_done = bench.receives("0", 199, None);
    let (tokens, now) = (bench.health.tokens(), SystemClock.now());
    tokens.given(Scope::Cosmos, Some(now.after(Duration::from_secs(3590))));
    tokens.configured(Scope::Signature, now.after(Duration::from_secs(400 * 86_400)));
    let status = bench.observer.status();
    assert_eq!(status.headline.level, Level::Good, "{:?}", status.headline);
    let scopes: Vec<_> = status.tokens.iter().map(|token| token.scope.as_str()).collect();
    assert_eq!(scopes, ["cosmos", "storage_sas"]);
    assert!(status.tokens[0].obtained.is_some() && status.tokens[1].obtained.is_none());
    tokens.given(Scope::Cosmos, Some(now.after(Duration::from_secs(250))));
    tokens.refused(Scope::Cosmos, "the credential \"managed\" gives no token: 503".into());
    let status = bench.observer.status();
    assert!(status.ready, "the token is still valid");
    assert_eq!(
        status.headline.text,
        "In step, but the token for Cosmos DB expires in 4 min and is not renewed: the credential \"managed\" gives no \
         token: 503"
    );
    assert_eq!(status.headline.level, Level::Attention);
    assert_eq!(status.warnings.len(), 1, "{:?}", status.warnings);
    assert!(status.tokens[0].failed.is_some() && status.tokens[0].reason.is_some());
    tokens.given(Scope::Cosmos, Some(now.after(Duration::from_secs(3600))));
    tokens.configured(Scope::Signature, now.after(Duration::from_secs(86_400)));
    let text = bench.observer.status().headline.text;
    assert_eq!(text, "In step, but the SAS in blob.container_url expires in 24 h: create a new one");
}

/// Each open page requests the status every two or three seconds, so an answer must cost almost nothing. Printed with `--nocapture`.
#[test]
fn an_answer_about_32_partitions_costs_milliseconds_at_most() {
    let bench = Bench::new();
    let watching: Vec<_> = (0..32).map(|number| bench.receives(&number.to_string(), 150, None)).collect();
    for number in 0..180 {
        bench.sample(900 - number * 5);
    }
    let answer = || serde_json::to_string(&bench.observer.status()).expect("JSON");
    let bytes = answer().len();
    let (started, answers) = (Instant::now(), 50);
    for _ in 0..answers {
        answer();
    }
    let each = started.elapsed() / answers;
    println!("{} partitions: {each:?} for each answer of {bytes} bytes", watching.len());
    assert!(each < Duration::from_millis(100), "{each:?}, in a build without optimization");
}

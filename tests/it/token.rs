//! Event Hubs tokens that expire while they cannot be renewed: the adapter and the receive loop of a partition with
//! the broker, over sockets.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use azure_core::{
    credentials::{AccessToken, TokenCredential, TokenRequestOptions},
    error::ErrorKind,
};
use devkit::{
    broker::{Broker, Event, HubOptions, Options},
    metrics::Sample,
    token::{EVENT_HUBS_AUDIENCE, unsigned},
};
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;
use twinsync::{
    adapters::eventhubs::{self, EventHub},
    domain::id::{PartitionId, SequenceNumber},
    ports::{EventSource, Start},
    runtime::{
        in_flight::InFlight,
        intake::Intake,
        partition::Partition,
        progress::Progress,
        reconcile::requests::AuditRequests,
        start::{self, Fresh, OnInvalid, Policy},
        watch,
    },
    telemetry::{HealthState, Metrics},
};

use crate::world::LIMIT;

const HUB: &str = "twin-changes";
/// The lifetime of a token. Long enough for the SDK's attempts of a renewal, which start 15 to 25 seconds after it
/// got such a short token.
const LIFE: Duration = Duration::from_secs(29);
/// The tokens are valid for longer at the broker than the token service says. So the client must act before the
/// broker does.
const LEEWAY: Duration = Duration::from_secs(4);
/// How long the token service stays down after the expiry.
const OUTAGE_AFTER: Duration = Duration::from_secs(3);

/// A token service with outages.
#[derive(Debug, Default)]
struct TokenService {
    away: AtomicBool,
    issued: AtomicU64,
    refused: AtomicU64,
}

#[async_trait::async_trait]
impl TokenCredential for TokenService {
    async fn get_token(
        &self,
        _scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        if self.away.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(azure_core::Error::with_message(ErrorKind::Credential, "the token service is away"));
        }
        self.issued.fetch_add(1, Ordering::SeqCst);
        let expires = SystemTime::now() + LIFE;
        Ok(AccessToken::new(unsigned(EVENT_HUBS_AUDIENCE, expires + LEEWAY), expires.into()))
    }
}

/// Appends a numbered event every 20 ms until `stop`. Returns the number of events.
async fn load(broker: Broker, stop: CancellationToken) -> u64 {
    let mut events = 0;
    while !stop.is_cancelled() {
        let event = crate::poison::twin_change("pump", events.to_string().as_bytes());
        broker.append(HUB, "", Event { ..event }).expect("appended");
        events += 1;
        sleep(Duration::from_millis(20)).await;
    }
    events
}

/// The numbers of the events in order of arrival, with the time of arrival.
async fn collect(mut batches: mpsc::Receiver<Vec<Intake>>) -> Vec<(u64, Instant)> {
    let mut arrived = Vec::new();
    while let Some(batch) = batches.recv().await {
        for intake in batch {
            let Intake::DeadLetter { origin, .. } = intake else { panic!("a number was decoded as a twin") };
            let number = std::str::from_utf8(&origin.message.body).expect("text").parse().expect("a number");
            arrived.push((number, Instant::now()));
        }
    }
    arrived
}

fn rebuilds(metrics: &Metrics, reason: &str) -> u64 {
    Sample::parse(&metrics.render()).count("twinsync_partition_rebuilds_total", reason)
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < LIMIT, "timed out waiting until {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_nobody_could_renew_costs_a_new_client_at_its_expiry_and_no_event() {
    let hub = HubOptions { name: HUB.to_owned(), partitions: 1, consumer_groups: Vec::new() };
    let options = Options { listen: ([127, 0, 0, 1], 0).into(), hubs: vec![hub], accepted_token: None };
    let broker = Broker::start(options).await.expect("starts");
    let tokens = Arc::new(TokenService::default());
    let options = eventhubs::Options {
        namespace: "devkit.servicebus.localhost".to_owned(),
        hub: HUB.to_owned(),
        consumer_group: "$Default".to_owned(),
        endpoint: Some(format!("amqp://{}", broker.address())),
        prefetch: 1000,
        open_timeout: Duration::from_secs(10),
    };
    let credential: Arc<dyn TokenCredential> = tokens.clone();
    let source: Arc<dyn EventSource> = Arc::new(EventHub::new(options, credential));
    let metrics = Metrics::new().expect("buckets");
    let id = PartitionId { stream: HUB.to_owned(), partition: "0".to_owned() };
    let (intake, batches) = mpsc::channel(64);
    let partition = Partition {
        source: source.clone(),
        progress: Progress::new(id, None, &metrics),
        start: Start::Earliest,
        first: SequenceNumber(0),
        options: start::Options {
            namespace: "devkit.servicebus.localhost".to_owned(),
            consumer_group: "$Default".to_owned(),
            fresh: Fresh::Earliest,
            policy: Policy { on_invalid: OnInvalid::Stop, audits: AuditRequests::nobodys() },
            refused_grace: LIMIT,
            classify: |_| unreachable!("no checkpoint is read here"),
        },
        max_body_bytes: 1000,
        limits: InFlight::new(1_000_000, 1 << 30),
        intake,
        health: HealthState::new(),
        metrics: metrics.clone(),
        sampler: None,
        answers: watch::channel(0).1,
    };
    let (stop, end_of_load) = (CancellationToken::new(), CancellationToken::new());
    let loading = tokio::spawn(load(broker.clone(), end_of_load.clone()));
    let arriving = tokio::spawn(collect(batches));
    let running = tokio::spawn(partition.run(stop.clone()));

    let counters = || broker.faults().counters();
    until("the first event is delivered", || counters().delivered > 0).await;
    let begun = Instant::now();
    assert_eq!(tokens.issued.load(Ordering::SeqCst), 1);
    tokens.away.store(true, Ordering::SeqCst);
    until("the rebuild after the expired token is counted", || {
        rebuilds(&metrics, "reason=\"token_expired\"") == 1
    })
    .await;
    let expired = begun.elapsed();
    let (tried, at_expiry) = (tokens.refused.load(Ordering::SeqCst), counters());
    assert!(
        expired > LIFE - Duration::from_secs(1) && expired < LIFE + LEEWAY / 2,
        "expired after {expired:?}"
    );
    assert!(tried >= 4, "too few attempts to renew the token: {tried}");
    assert_eq!((at_expiry.put_tokens, at_expiry.attaches), (1, 1), "the broker must see no attempt");
    let expired = Instant::now();

    sleep(OUTAGE_AFTER).await; // the outage has a fixed length
    tokens.away.store(false, Ordering::SeqCst);
    let back = Instant::now();
    until("the second client has received an event", || {
        counters().attaches == 2 && counters().delivered > at_expiry.delivered
    })
    .await;
    let recovery = back.elapsed();
    let rebuilt = rebuilds(&metrics, "");
    end_of_load.cancel();
    let appended = loading.await.expect("no panic");
    let repeated = counters().delivered.saturating_sub(appended);
    until("all events are delivered", || counters().delivered >= appended).await;
    source.close().await;
    sleep(Duration::from_millis(300)).await; // the time for events that were already delivered
    stop.cancel();
    running.await.expect("no panic").expect("nothing to decide");
    let arrived = arriving.await.expect("no panic");

    let numbers: Vec<_> = arrived.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (0..appended).collect::<Vec<_>>(), "each event must arrive once and in order");
    let last_before = arrived.iter().rfind(|(_, at)| *at <= expired).expect("some came before").1;
    assert!(expired - last_before < Duration::from_secs(1), "events must arrive until the expiry");
    assert_eq!(counters().put_tokens, 2, "each client must send one token");
    println!(
        "fault: token renewal fails around the expiry | injected: {tried} refused requests before it, {} after | events \
         in: {appended} | delivered again: {repeated} | {rebuilt} rebuilds, {} put-tokens | receiving {:.2} s after its end",
        tokens.refused.load(Ordering::SeqCst) - tried,
        counters().put_tokens,
        recovery.as_secs_f64()
    );
}

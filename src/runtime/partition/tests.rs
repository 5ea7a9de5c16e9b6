//! The receive loop with a scripted source: where it opens again after each kind of failure.

use std::collections::VecDeque;

use async_trait::async_trait;
use futures::FutureExt;

use super::*;
use crate::{
    domain::{progress::Extent, ticks::Ticks},
    runtime::{
        lag::Lag,
        reconcile::requests::AuditRequests,
        start::{OnInvalid, Policy},
    },
};

type Script = VecDeque<Result<Vec<i64>, SourceError>>;

/// A source whose links deliver the script, one after the other. The last link stays silent.
#[derive(Default)]
struct Scripted {
    links: Mutex<VecDeque<Script>>,
    opened: Mutex<Vec<Start>>,
    /// Sequence number of the newest event.
    last: i64,
    /// When the newest event arrived.
    newest: Option<Ticks>,
}

#[async_trait]
impl EventSource for Scripted {
    fn name(&self) -> &str {
        "hub"
    }

    async fn partitions(&self) -> Result<Vec<String>, SourceError> {
        Ok(vec!["0".into()])
    }

    async fn extent(&self, _: &str) -> Result<Extent, SourceError> {
        Ok(Extent {
            first: SequenceNumber(0),
            last: SequenceNumber(self.last),
            is_empty: false,
            newest: self.newest,
        })
    }

    async fn open(&self, _: &str, start: Start) -> Result<Box<dyn Receiver>, SourceError> {
        self.opened.lock().unwrap().push(start);
        Ok(Box::new(Link(self.links.lock().unwrap().pop_front().unwrap_or_default())))
    }

    async fn close(&self) {}
}

struct Link(Script);

#[async_trait]
impl Receiver for Link {
    async fn receive(&mut self) -> Result<Vec<Message>, SourceError> {
        match self.0.pop_front() {
            Some(received) => received.map(|numbers| numbers.into_iter().map(message).collect()),
            None => std::future::pending().await,
        }
    }

    async fn close(self: Box<Self>) {}
}

fn message(number: i64) -> Message {
    Message {
        position: Position { sequence_number: SequenceNumber(number), offset: format!("o{number}").into() },
        enqueued: None,
        body: b"{".as_slice().into(), // undeliverable, so the dead letter has the same bytes
        application_properties: Properties::from([
            ("opType".to_owned(), crate::domain::message::Property::Text("updateTwin".into())),
            (
                "iothub-message-schema".to_owned(),
                crate::domain::message::Property::Text("twinChangeNotification".into()),
            ),
        ]),
        annotations: Properties::default(),
    }
}

/// A change of a twin.
fn change(number: i64, device: &str) -> Message {
    use crate::domain::message::Property::Text;
    let mut message =
        Message { body: format!("{{\"version\":{number}}}").into_bytes().into(), ..message(number) };
    for (name, value) in
        [("hubName", "h"), ("deviceId", device), ("operationTimestamp", "2031-05-04T10:00:00Z")]
    {
        message.application_properties.insert(name, Text(value.into()));
    }
    message
}

/// Result of a run.
struct Ran {
    /// Sequence numbers of the dead letters that came out.
    numbers: Vec<i64>,
    /// Where it opened.
    opened: Vec<Start>,
    metrics: Metrics,
    ended: Result<(), StartError>,
    /// Whether an audit was requested.
    audit: bool,
}

/// Runs the loop over these links until this number of dead letters has come out, or until the loop ends.
async fn run(links: Vec<Script>, letters: usize) -> Ran {
    run_with(OnInvalid::Stop, links, letters).await
}

async fn run_with(on_invalid: OnInvalid, links: Vec<Script>, letters: usize) -> Ran {
    let source = Arc::new(Scripted { links: Mutex::new(links.into()), ..Scripted::default() });
    let metrics = Metrics::new().expect("buckets");
    let (audits, mut audit_asked) = AuditRequests::channel(Arc::new(crate::ports::SystemClock));
    let asked = Box::pin(async move { audit_asked.changed().await });
    let (intake, mut batches) = mpsc::channel(1);
    let policy = Policy { on_invalid, audits };
    let partition = with_policy(policy, partition(source.clone(), &metrics, intake));
    let stop = CancellationToken::new();
    let mut task = tokio::spawn(partition.run(stop.clone()));
    let mut numbers = Vec::new();
    let collect = async {
        while numbers.len() < letters {
            let Some(batch) = batches.recv().await else { break };
            for intake in batch {
                let Intake::DeadLetter { origin, .. } = intake else {
                    panic!("the tests send dead letters only")
                };
                numbers.push(origin.message.position.sequence_number.0);
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), collect).await.expect("in time");
    if !batches.is_closed() {
        stop.cancel();
    }
    let ended = (&mut task).await.expect("no panic");
    let opened = source.opened.lock().unwrap().clone();
    let audit = asked.now_or_never().is_some_and(|asked| asked.is_ok());
    Ran { numbers, opened, metrics, ended, audit }
}

/// Options of a partition with a checkpoint at event 4.
fn options() -> start::Options {
    start::Options {
        namespace: "ns".into(),
        consumer_group: "group".into(),
        fresh: start::Fresh::Earliest,
        policy: Policy { on_invalid: OnInvalid::Stop, audits: AuditRequests::nobodys() },
        refused_grace: Duration::from_secs(600),
        classify: |_| unreachable!("no checkpoint is read here"),
    }
}

fn with_policy(policy: Policy, partition: Partition) -> Partition {
    Partition { options: start::Options { policy, ..options() }, ..partition }
}

fn partition(source: Arc<Scripted>, metrics: &Metrics, intake: mpsc::Sender<Vec<Intake>>) -> Partition {
    let id = PartitionId { stream: "hub".into(), partition: "0".into() };
    let checkpoint = Position { sequence_number: SequenceNumber(4), offset: "o4".into() };
    Partition {
        source,
        progress: Progress::new(id, Some(checkpoint.clone()), metrics),
        start: Start::At(checkpoint),
        first: SequenceNumber(0),
        options: options(),
        max_body_bytes: 1000,
        limits: InFlight::new(100, 1 << 20),
        intake,
        health: HealthState::new(),
        metrics: metrics.clone(),
        sampler: None,
        answers: watch::channel(0).1,
    }
}

fn at(number: i64) -> Start {
    Start::At(Position { sequence_number: SequenceNumber(number), offset: format!("o{number}").into() })
}

fn number_of_newest(progress: &Progress) -> i64 {
    progress.newest().expect("there is a checkpoint").sequence_number.0
}

#[tokio::test]
async fn a_link_that_goes_back_is_given_up_and_nothing_is_taken_twice() {
    let back = VecDeque::from([Ok(vec![5, 6]), Ok(vec![5, 6, 7])]);
    let ran = run(vec![back, VecDeque::from([Ok(vec![7, 8])])], 4).await;
    assert_eq!(ran.numbers, [5, 6, 7, 8]);
    assert_eq!(ran.opened, [at(4), at(6)]);
    assert!(ran.metrics.render().contains("reason=\"went_back\"} 1"));
}

fn lost() -> SourceError {
    SourceError::Lost { operation: "receiving", reason: "reset".into() }
}

#[tokio::test]
async fn after_an_error_it_opens_at_the_newest_event_and_takes_it_once() {
    let broken = VecDeque::from([Ok(vec![4, 5, 6]), Err(lost())]);
    let ran = run(vec![broken, VecDeque::from([Ok(vec![6, 7])])], 3).await;
    assert_eq!(ran.numbers, [5, 6, 7]);
    assert_eq!(ran.opened, [at(4), at(6)]);
    let none = "twinsync_events_repeated_total{stream=\"hub\"} 0";
    assert!(ran.metrics.render().contains(none), "the event at the requested position is no repeat");
}

#[tokio::test]
async fn behind_an_undecodable_message_it_opens_after_it_and_drops_repeats() {
    let undecodable = VecDeque::from([Err(SourceError::Undecodable("no AMQP".into())), Err(lost())]);
    let ran = run(vec![undecodable, VecDeque::from([Ok(vec![5, 6])])], 2).await;
    assert_eq!(ran.numbers, [5, 6], "a link that starts at the message would fail again");
    assert_eq!(ran.opened, [at(4), Start::After(SequenceNumber(5))]);
    assert!(ran.metrics.render().contains("twinsync_events_repeated_total{stream=\"hub\"} 1"));
}

#[tokio::test]
async fn an_undecodable_message_is_skipped_on_the_same_link() {
    let script = VecDeque::from([Ok(vec![5]), Err(SourceError::Undecodable("no AMQP".into())), Ok(vec![7])]);
    let ran = run(vec![script], 3).await;
    assert_eq!(ran.numbers, [5, 6, 7], "the dead letter must have the sequence number of the message");
    assert_eq!(ran.opened, [at(4)]);
    assert!(ran.metrics.render().contains("twinsync_events_lost_total{stream=\"hub\"} 0"));
}

#[tokio::test]
async fn lost_events_stop_the_daemon_before_them_unless_it_may_go_on() {
    let links = || vec![VecDeque::from([Ok(vec![5, 6, 10, 11])])];
    let counted = "twinsync_events_lost_total{stream=\"hub\"} 3";
    let stopped = run(links(), 9).await;
    let error = stopped.ended.expect_err("stopped").to_string();
    assert!(error.contains("events 7 to 9") && error.contains("EVENTS_LOST"), "{error}");
    assert_eq!(
        (stopped.numbers, stopped.audit),
        (vec![5, 6], false),
        "the events before the loss must be handled"
    );
    assert!(stopped.metrics.render().contains(counted));

    let went_on = run_with(OnInvalid::Earliest, links(), 4).await;
    went_on.ended.expect("nothing to decide");
    assert_eq!((went_on.numbers, went_on.audit), (vec![5, 6, 10, 11], true));
    assert!(went_on.metrics.render().contains(counted));
}

#[tokio::test]
async fn another_event_under_the_number_of_the_newest_stops_the_daemon_or_starts_the_partition_over() {
    // A hub that was re-created: it delivers a smaller number although event 4 was requested.
    let links = || vec![VecDeque::from([Ok(vec![3, 4, 5])]), VecDeque::from([Ok(vec![0, 1])])];
    let stopped = run(links(), 1).await;
    let error = stopped.ended.expect_err("stopped").to_string();
    assert!(error.contains("re-created") && error.contains("CHECKPOINT_INVALID"), "{error}");
    assert_eq!((stopped.numbers, stopped.audit), (vec![], false));

    let over = run_with(OnInvalid::Earliest, links(), 2).await;
    over.ended.expect("nothing to decide");
    assert_eq!((over.numbers, over.audit), (vec![0, 1], true));
    assert_eq!(over.opened, [at(4), Start::Earliest]);
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_is_recreated_while_nothing_arrives_is_noticed() {
    let source = Arc::new(Scripted {
        links: Mutex::new([VecDeque::new(), VecDeque::from([Ok(vec![0, 1])])].into()),
        last: 1,
        ..Scripted::default()
    });
    let metrics = Metrics::new().expect("buckets");
    let (intake, mut batches) = mpsc::channel(1);
    let policy = Policy { on_invalid: OnInvalid::Earliest, audits: AuditRequests::nobodys() };
    let partition = with_policy(policy, partition(source.clone(), &metrics, intake));
    let progress = Arc::clone(&partition.progress);
    let stop = CancellationToken::new();
    let task = tokio::spawn(partition.run(stop.clone()));
    let (mut lag, limits) = (Lag::new(Duration::from_secs(60)), InFlight::new(100, 1 << 20));
    let port: Arc<dyn EventSource> = source.clone();
    let arrived = loop {
        lag.measure(&port, vec![Arc::clone(&progress)]);
        if let Some(answer) = lag.next().await {
            lag.note(answer, &limits);
        }
        if let Ok(Some(batch)) = tokio::time::timeout(Duration::from_secs(5), batches.recv()).await {
            break batch.len();
        }
    };
    assert_eq!(arrived, 2, "the new Event Hub must be read from its beginning");
    assert_eq!(*source.opened.lock().unwrap(), [at(4), Start::Earliest]);
    stop.cancel();
    task.await.expect("no panic").expect("nothing to decide");
}

/// Measures a partition `rounds` times. Its link is silent after event 4, which was received at `received`. The partition's own event 4
/// arrived at 10. Returns where it opened, and how many events came out.
async fn measured(received: i64, rounds: usize, links: Vec<Script>) -> (Vec<Start>, usize) {
    let newest = Some(Ticks::new(10));
    let source =
        Arc::new(Scripted { links: Mutex::new(links.into()), last: 4, newest, ..Scripted::default() });
    let metrics = Metrics::new().expect("buckets");
    let (intake, mut batches) = mpsc::channel(1);
    let policy = Policy { on_invalid: OnInvalid::Earliest, audits: AuditRequests::nobodys() };
    let partition = with_policy(policy, partition(source.clone(), &metrics, intake));
    let progress = Arc::clone(&partition.progress);
    progress.metrics.received(Ticks::new(received));
    let stop = CancellationToken::new();
    let task = tokio::spawn(partition.run(stop.clone()));
    let (mut lag, limits) = (Lag::new(Duration::from_secs(3600)), InFlight::new(100, 1 << 20));
    let port: Arc<dyn EventSource> = source.clone();
    let mut arrived = 0;
    for _ in 0..rounds {
        lag.measure(&port, vec![Arc::clone(&progress)]);
        if let Some(answer) = lag.next().await {
            lag.note(answer, &limits);
        }
        if let Ok(Some(batch)) = tokio::time::timeout(Duration::from_secs(5), batches.recv()).await {
            arrived += batch.len();
        }
    }
    stop.cancel();
    task.await.expect("no panic").expect("nothing to decide");
    let opened = source.opened.lock().unwrap().clone();
    (opened, arrived)
}

#[tokio::test(start_paused = true)]
async fn a_recreated_hub_that_reaches_the_same_number_is_noticed() {
    let links =
        vec![VecDeque::new(), VecDeque::from([Ok(vec![3])]), VecDeque::from([Ok(vec![0, 1, 2, 3, 4])])];
    let (opened, arrived) = measured(7, 4, links).await;
    assert_eq!(
        (opened, arrived),
        (vec![at(4), at(4), Start::Earliest], 5),
        "the new Event Hub must be read from its beginning"
    );
}

#[tokio::test(start_paused = true)]
async fn a_wrong_suspicion_of_a_recreated_hub_costs_one_connection() {
    let (opened, _) = measured(7, 10, vec![VecDeque::new(), VecDeque::from([Ok(vec![4])])]).await;
    assert_eq!(opened, [at(4), at(4)], "it must connect again only once, although the times keep differing");
    let (opened, _) = measured(10, 10, vec![VecDeque::new()]).await;
    assert_eq!(opened, [at(4)], "it is the event that was received");
}

/// A partition is given up 200 times while the router accepts no events. The loop waits for something else each time. The permits must be
/// returned, and no event may stay open.
#[tokio::test]
async fn rebalances_under_a_full_intake_give_back_all_room() {
    let metrics = Metrics::new().expect("buckets");
    let limits = InFlight::new(8, 1 << 20);
    let (intake, mut batches) = mpsc::channel(1);
    for round in 0..200_i64 {
        // Batches of all sizes, up to more than the limit, so that the loop waits at each of its waits.
        let size = round % 11 + 1;
        let link = VecDeque::from([Ok((5..5 + size).collect()), Ok((5 + size..40).collect())]);
        let source = Arc::new(Scripted { links: Mutex::new([link].into()), ..Scripted::default() });
        let partition =
            Partition { limits: Arc::clone(&limits), ..partition(source, &metrics, intake.clone()) };
        let progress = Arc::clone(&partition.progress);
        let stop = CancellationToken::new();
        let task = tokio::spawn(partition.run(stop.clone()));
        while progress.open() < 8 && !(intake.capacity() == 0 && number_of_newest(&progress) > 4 + size) {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        task.await.expect("no panic").expect("the partition ends without an error");
        let mut newest = 4;
        while let Ok(batch) = batches.try_recv() {
            for intake in batch {
                let Intake::DeadLetter { origin, .. } = intake else {
                    panic!("the tests send dead letters only")
                };
                newest = origin.message.position.sequence_number.0;
                progress.complete(origin.ticket);
            }
        }
        assert_eq!(limits.used(), (0, 0), "round {round}");
        assert_eq!(progress.open(), 0, "no event may stay open");
        let durable = progress.durable().map(|position| position.sequence_number.0);
        assert_eq!((durable, number_of_newest(&progress)), (Some(newest), newest));
    }
}

#[tokio::test]
async fn a_twin_with_too_many_waiting_events_pauses_only_its_own_partition() {
    let metrics = Metrics::new().expect("buckets");
    let (intake, mut batches) = mpsc::channel(8);
    let full = crate::domain::id::TwinKey::device("h", "full");
    let source = Arc::new(Scripted::default());
    let [feeding, other] = [0, 1].map(|_| partition(source.clone(), &metrics, intake.clone()));
    let other = Partition { limits: Arc::clone(&feeding.limits), ..other };
    feeding.limits.set_full(&[full.clone()].into());
    let mut waits =
        Box::pin(feeding.dispatch(vec![change(5, "before"), change(6, "full"), change(7, "behind")], false));
    assert!((&mut waits).now_or_never().is_none(), "the partition must wait");
    assert!(other.dispatch(vec![change(5, "another")], false).await.is_ok());
    let batch = batches.recv().await.expect("open");
    assert_eq!(batch.len(), 1, "the events before it must not wait");
    drop(batch);
    assert_eq!(batches.recv().await.expect("open").len(), 1, "another partition must not wait");

    // If the partition is given up while it waits, the remaining events count as never received.
    drop(waits);
    assert_eq!(feeding.progress.newest().map(|newest| newest.sequence_number), Some(SequenceNumber(5)));
    assert_eq!((feeding.progress.open(), feeding.limits.used()), (1, (0, 0)));

    let mut waits = Box::pin(feeding.dispatch(vec![change(6, "full"), change(7, "behind")], false));
    assert!((&mut waits).now_or_never().is_none(), "the partition must wait");
    feeding.limits.set_full(&Default::default());
    assert!(waits.await.is_ok());
    assert_eq!(batches.recv().await.expect("open").len(), 2);
}

fn refusal() -> SourceError {
    SourceError::NotFound { operation: "receiving", reason: "no such group".into() }
}

/// Links that end with these errors, one after the other.
fn ends_with(errors: impl IntoIterator<Item = SourceError>) -> Vec<Script> {
    errors.into_iter().map(|error| VecDeque::from([Err(error)])).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_endured_for_the_grace_and_then_ends_the_partition_with_its_code() {
    let refused = ends_with((0..10_000).map(|_| refusal()));
    let began = Instant::now();
    let ended = run_for(Duration::from_secs(3600), refused).await;
    let error = ended.expect("it ends by itself").expect_err("with a code");
    assert_eq!(error.code(), "EVENTHUBS_NOT_FOUND");
    assert!(error.to_string().contains("eventhubs.consumer_group"), "{error}");
    let endured = began.elapsed();
    assert!(endured >= options().refused_grace, "{endured:?}");
    assert!(endured < options().refused_grace + Duration::from_secs(60), "{endured:?}");
}

#[tokio::test(start_paused = true)]
async fn what_passes_is_waited_out_for_ever() {
    let lost = ends_with((0..10_000).map(|_| lost()));
    assert!(run_for(Duration::from_secs(86_400), lost).await.is_none());
}

/// A partition whose attempts fail.
struct Trying {
    source: Arc<Scripted>,
    /// Reports that the Event Hub answers.
    tell: watch::Sender<u64>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), StartError>>,
}

fn try_again_and_again(error: impl Fn() -> SourceError) -> Trying {
    let links = Mutex::new(ends_with((0..12).map(|_| error())).into());
    let source = Arc::new(Scripted { links, ..Scripted::default() });
    let metrics = Metrics::new().expect("buckets");
    let (intake, _batches) = mpsc::channel(1);
    let (tell, answers) = watch::channel(0);
    let partition = Partition { answers, ..partition(source.clone(), &metrics, intake) };
    let stop = CancellationToken::new();
    let task = tokio::spawn(partition.run(stop.clone()));
    Trying { source, tell, stop, task }
}

/// After many failures the next attempt is many seconds away.
#[tokio::test(start_paused = true)]
async fn a_waiting_partition_tries_at_once_when_the_event_hub_answers() {
    let Trying { source, tell, stop, task } = try_again_and_again(lost);
    let opened = || source.opened.lock().unwrap().len();
    let next_try = async || {
        let (before, began) = (opened(), Instant::now());
        while opened() == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        began.elapsed()
    };
    // The delay is random, up to 30 s. Of several in a row, at least one is long.
    let mut longest = Duration::ZERO;
    for _ in 0..8 {
        longest = longest.max(next_try().await);
    }
    assert!(longest > Duration::from_secs(1), "{longest:?}");
    for times in 1..3 {
        tell.send_replace(times);
        assert!(next_try().await < Duration::from_millis(10), "it must try at once");
    }
    stop.cancel();
    task.await.expect("no panic").expect("nothing to decide");
}

#[tokio::test(start_paused = true)]
async fn a_throttled_partition_waits_its_time_even_if_the_event_hub_answers() {
    let throttled = || SourceError::Throttled { operation: "receiving", reason: "server-busy".into() };
    let Trying { source, tell, stop, task } = try_again_and_again(throttled);
    for times in 1..20 {
        tokio::time::sleep(THROTTLED_PAUSE / 10).await;
        tell.send_replace(times);
    }
    assert_eq!(
        source.opened.lock().unwrap().len(),
        2,
        "one pause of four seconds must be over, and no other"
    );
    stop.cancel();
    task.await.expect("no panic").expect("nothing to decide");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_now_and_then_on_links_that_stood_is_no_reason_to_end() {
    // For example when a token expires: the link lasted, and so does the next one.
    let links = (0..10_000).map(|_| VecDeque::from([Err(refusal())])).collect();
    let source = LongLived { links: Mutex::new(links), stands: Duration::from_secs(3600) };
    assert!(run_source_for(Duration::from_secs(86_400), Arc::new(source)).await.is_none());
}

/// Runs the loop over these links. Returns `None` if it has not ended within `time`.
async fn run_for(time: Duration, links: Vec<Script>) -> Option<Result<(), StartError>> {
    run_source_for(time, Arc::new(Scripted { links: Mutex::new(links.into()), ..Scripted::default() })).await
}

async fn run_source_for(time: Duration, source: Arc<dyn EventSource>) -> Option<Result<(), StartError>> {
    let metrics = Metrics::new().expect("buckets");
    let (intake, _batches) = mpsc::channel(1);
    let partition = Partition { source, ..partition(Arc::default(), &metrics, intake) };
    tokio::time::timeout(time, partition.run(CancellationToken::new())).await.ok()
}

/// A source whose links last for a while before their script begins.
struct LongLived {
    links: Mutex<VecDeque<Script>>,
    stands: Duration,
}

#[async_trait]
impl EventSource for LongLived {
    fn name(&self) -> &str {
        "hub"
    }

    async fn partitions(&self) -> Result<Vec<String>, SourceError> {
        Ok(vec!["0".into()])
    }

    async fn extent(&self, _: &str) -> Result<Extent, SourceError> {
        Ok(Extent { first: SequenceNumber(0), last: SequenceNumber(4), is_empty: false, newest: None })
    }

    async fn open(&self, _: &str, _: Start) -> Result<Box<dyn Receiver>, SourceError> {
        let link = Link(self.links.lock().unwrap().pop_front().unwrap_or_default());
        Ok(Box::new(LongLivedLink { link, stands: self.stands }))
    }

    async fn close(&self) {}
}

struct LongLivedLink {
    link: Link,
    stands: Duration,
}

#[async_trait]
impl Receiver for LongLivedLink {
    async fn receive(&mut self) -> Result<Vec<Message>, SourceError> {
        tokio::time::sleep(self.stands).await;
        self.link.receive().await
    }

    async fn close(self: Box<Self>) {}
}

//! The loop against a scripted source: where it opens again after each kind of trouble.

use std::collections::VecDeque;

use async_trait::async_trait;

use super::*;
use crate::domain::progress::Extent;

type Script = VecDeque<Result<Vec<i64>, SourceError>>;

/// A source whose links deliver what the script says, one after the other; the last one stays silent.
#[derive(Default)]
struct Scripted {
    links: Mutex<VecDeque<Script>>,
    opened: Mutex<Vec<Start>>,
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
        Ok(Extent { first: SequenceNumber(0), last: SequenceNumber(99), is_empty: false })
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
        position: Position { sequence_number: SequenceNumber(number), offset: format!("o{number}") },
        enqueued: None,
        body: b"{".to_vec(), // undeliverable, so that it comes out as it went in
        application_properties: BTreeMap::from([
            ("opType".to_owned(), crate::domain::message::Property::Text("updateTwin".into())),
            (
                "iothub-message-schema".to_owned(),
                crate::domain::message::Property::Text("twinChangeNotification".into()),
            ),
        ]),
        annotations: BTreeMap::new(),
    }
}

/// Runs the loop over these links until so many letters have come out; their numbers, and where it opened.
async fn run(links: Vec<Script>, letters: usize) -> (Vec<i64>, Vec<Start>, Metrics) {
    let source = Arc::new(Scripted { links: Mutex::new(links.into()), ..Scripted::default() });
    let metrics = Metrics::new().expect("buckets");
    let id = PartitionId { stream: "hub".into(), partition: "0".into() };
    let checkpoint = Position { sequence_number: SequenceNumber(4), offset: "o4".into() };
    let (intake, mut batches) = mpsc::channel(1);
    let partition = Partition {
        source: source.clone(),
        progress: Progress::new(id, Some(checkpoint.clone()), &metrics),
        start: Start::AfterPosition(checkpoint),
        first: SequenceNumber(0),
        max_body_bytes: 1000,
        limits: InFlight::new(100, 1 << 20),
        intake,
        board: Board::new(),
        metrics: metrics.clone(),
    };
    let stop = CancellationToken::new();
    let task = tokio::spawn(partition.run(stop.clone()));
    let mut numbers = Vec::new();
    while numbers.len() < letters {
        let batch = tokio::time::timeout(Duration::from_secs(20), batches.recv()).await.expect("in time");
        for intake in batch.expect("the loop runs") {
            let Intake::Letter { origin, .. } = intake else { panic!("only letters are sent here") };
            numbers.push(origin.message.position.sequence_number.0);
        }
    }
    stop.cancel();
    task.await.expect("no panic");
    let opened = source.opened.lock().unwrap().clone();
    (numbers, opened, metrics)
}

fn first() -> Start {
    Start::AfterPosition(Position { sequence_number: SequenceNumber(4), offset: "o4".into() })
}

#[tokio::test]
async fn a_link_that_goes_back_is_given_up_and_nothing_is_taken_twice() {
    let back = VecDeque::from([Ok(vec![5, 6]), Ok(vec![5, 6, 7])]);
    let (numbers, opened, metrics) = run(vec![back, VecDeque::from([Ok(vec![7, 8])])], 4).await;
    assert_eq!(numbers, [5, 6, 7, 8]);
    assert_eq!(opened, [first(), Start::AfterSequenceNumber(SequenceNumber(6))]);
    assert!(metrics.render().contains("reason=\"went_back\"} 1"));
}

#[tokio::test]
async fn after_an_error_it_opens_behind_the_newest_event_and_drops_repeats() {
    let lost = SourceError::Lost { operation: "receiving", reason: "reset".into() };
    let broken = VecDeque::from([Ok(vec![5, 6]), Err(lost)]);
    // Another link may well deliver again what was there already.
    let (numbers, opened, metrics) = run(vec![broken, VecDeque::from([Ok(vec![6, 7])])], 3).await;
    assert_eq!(numbers, [5, 6, 7]);
    assert_eq!(opened, [first(), Start::AfterSequenceNumber(SequenceNumber(6))]);
    assert!(metrics.render().contains("twinsync_events_repeated_total{stream=\"hub\"} 1"));
}

#[tokio::test]
async fn an_undecodable_message_is_skipped_on_the_same_link() {
    let script = VecDeque::from([Ok(vec![5]), Err(SourceError::Undecodable("no AMQP".into())), Ok(vec![7])]);
    let (numbers, opened, _) = run(vec![script], 3).await;
    assert_eq!(numbers, [5, 6, 7], "its letter takes the place it must have had");
    assert_eq!(opened, [first()]);
}

/// A partition is given up while the router takes nothing in, two hundred times over: whatever the loop waits for then,
/// the room comes back, and nothing is left open that nobody will ever complete.
#[tokio::test]
async fn rebalances_under_a_full_intake_give_back_all_room() {
    let metrics = Metrics::new().expect("buckets");
    let limits = InFlight::new(8, 1 << 20);
    let (intake, mut batches) = mpsc::channel(1);
    for round in 0..200_i64 {
        // Batches of every size up to more than there is room for, so that each of the waits is met.
        let size = round % 11 + 1;
        let link = VecDeque::from([Ok((5..5 + size).collect()), Ok((5 + size..40).collect())]);
        let source = Arc::new(Scripted { links: Mutex::new([link].into()), ..Scripted::default() });
        let id = PartitionId { stream: "hub".into(), partition: round.to_string() };
        let checkpoint = Position { sequence_number: SequenceNumber(4), offset: "o4".into() };
        let partition = Partition {
            source,
            progress: Progress::new(id, Some(checkpoint.clone()), &metrics),
            start: Start::AfterPosition(checkpoint),
            first: SequenceNumber(0),
            max_body_bytes: 1000,
            limits: Arc::clone(&limits),
            intake: intake.clone(),
            board: Board::new(),
            metrics: metrics.clone(),
        };
        let progress = Arc::clone(&partition.progress);
        let stop = CancellationToken::new();
        let task = tokio::spawn(partition.run(stop.clone()));
        while progress.open() < 8
            && !(intake.capacity() == 0 && progress.newest() > Some(SequenceNumber(4 + size)))
        {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        task.await.expect("no panic");
        let mut newest = 4;
        while let Ok(batch) = batches.try_recv() {
            for intake in batch {
                let Intake::Letter { origin, .. } = intake else { panic!("only letters are sent here") };
                newest = origin.message.position.sequence_number.0;
                progress.complete(origin.ticket);
            }
        }
        assert_eq!(limits.used(), (0, 0), "round {round}");
        assert_eq!(progress.open(), 0, "whoever finishes the partition waits for nothing");
        let durable = progress.durable().map(|position| position.sequence_number.0);
        assert_eq!((durable, progress.newest()), (Some(newest), Some(SequenceNumber(newest))));
    }
}

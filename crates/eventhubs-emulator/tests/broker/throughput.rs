//! How fast one reader receives a backlog. This is a lower limit and no benchmark: it fails if delivery
//! becomes many times slower, for example because it waits for credit or acknowledgements. The rate is
//! printed with `--nocapture`.

use std::time::Instant;

use azure_messaging_eventhubs::{OpenReceiverOptions, StartLocation, StartPosition};

use crate::client::{SINGLE, broker, consumer, event, next, within};

const EVENTS: i64 = 100_000;
const FLOOR_PER_SECOND: f64 = 5_000.0;

#[tokio::test(flavor = "multi_thread")]
async fn one_reader_drains_a_backlog_fast() {
    let broker = broker().await;
    let body = "x".repeat(400);
    let started = Instant::now();
    for _ in 0..EVENTS {
        broker.append(SINGLE, "device-1", event(&body)).expect("an append");
    }
    let appending = EVENTS as f64 / started.elapsed().as_secs_f64();
    let bytes = broker.partitions(SINGLE).expect("partitions")[0].bytes;

    let consumer = consumer(&broker, SINGLE).await;
    let options = OpenReceiverOptions {
        start_position: Some(StartPosition { location: StartLocation::Earliest, inclusive: false }),
        prefetch: Some(2000),
        ..OpenReceiverOptions::default()
    };
    let receiver = within("opening", consumer.open_receiver_on_partition("0".to_owned(), Some(options)))
        .await
        .expect("the receiver opens");
    let mut stream = Box::pin(receiver.stream_events());
    next(&mut stream).await.expect("an event");
    let started = Instant::now();
    let mut last = 0;
    while last < EVENTS - 1 {
        last = next(&mut stream).await.expect("an event").sequence_number().expect("a sequence number");
    }
    let receiving = EVENTS as f64 / started.elapsed().as_secs_f64();
    println!("appended {appending:.0}/s, received {receiving:.0}/s, {} bytes each", bytes as i64 / EVENTS);
    assert!(receiving > FLOOR_PER_SECOND, "{receiving:.0} events per second");
}

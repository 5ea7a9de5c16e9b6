//! Tests of the broker with Azure's JavaScript client, and of events between it and the Rust client.

#[path = "../../eventhubs-emulator/tests/broker/client.rs"]
#[expect(dead_code, reason = "shared with the tests of the broker, which use all of it")]
mod client;

use std::{path::Path, time::Duration};

use azure_core_amqp::{AmqpSimpleValue, AmqpValue};
use azure_messaging_eventhubs::StartLocation;
use devkit::{
    broker::Broker,
    javascript::{OfficialClients, Output},
};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use client::{HUB, SINGLE, append_all, broker, consumer, event, next, receiver, text};

const LIMIT: Duration = Duration::from_secs(60);
const SECOND: u64 = 1000;

async fn clients() -> &'static OfficialClients {
    static CLIENTS: OnceCell<OfficialClients> = OnceCell::const_new();
    CLIENTS
        .get_or_init(async || {
            match OfficialClients::provision(Path::new(env!("CARGO_TARGET_TMPDIR"))).await {
                Ok(clients) => clients,
                Err(error) => panic!("{error}"),
            }
        })
        .await
}

async fn ask(broker: &Broker, command: &str, hub: &str, options: &[&str], input: &[Value]) -> Output {
    let connection = format!(
        "Endpoint=sb://{};SharedAccessKeyName=devkit;SharedAccessKey=ZGV2a2l0;UseDevelopmentEmulator=true",
        broker.address()
    );
    let mut arguments = vec![command, "--connection", &connection, "--hub", hub];
    arguments.extend_from_slice(options);
    clients().await.run("eventhubs.mjs", &arguments, input, LIMIT).await.expect("the client runs")
}

/// The lines of a successful script without those about closing. The script must have closed its clients in
/// time.
fn lines(output: Output) -> Vec<Value> {
    assert!(output.success, "{output:?}");
    let (closings, lines): (Vec<Value>, Vec<Value>) =
        output.lines.into_iter().partition(|line| line.get("closedMilliseconds").is_some());
    assert!(!closings.is_empty(), "the client was closed");
    for closing in closings {
        assert!(closing["closedMilliseconds"].as_u64().expect("a number") < SECOND, "{closing}");
    }
    lines
}

fn twin_event(number: i64) -> Value {
    json!({
        "body": { "version": number, "tags": { "site": "north" } },
        "properties": { "deviceId": "device-1", "opType": "updateTwin", "hubName": "hub" },
        "annotations": { "iothub-message-source": "twinChangeEvents" },
        "contentType": "application/json",
        "contentEncoding": "utf-8",
        "correlationId": "correlation",
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn javascript_reads_the_properties_of_hub_and_partitions() {
    let broker = broker().await;
    let key = broker.append(HUB, "key", event("x")).expect("an append");
    let lines = lines(ask(&broker, "properties", HUB, &[], &[]).await);
    assert_eq!(lines.len(), 5, "{lines:?}");
    assert_eq!(lines[0]["name"], HUB);
    assert_eq!(lines[0]["partitionIds"], json!(["0", "1", "2", "3"]));
    for (partition, line) in lines[1..].iter().enumerate() {
        let filled = partition == usize::from(key.partition);
        assert_eq!(line["partitionId"], partition.to_string());
        assert_eq!(line["isEmpty"], !filled);
        assert_eq!(line["lastEnqueuedSequenceNumber"], if filled { 0 } else { -1 });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_javascript_publishes_rust_and_javascript_read_alike() {
    let broker = broker().await;
    let events: Vec<Value> = (0..300).map(twin_event).collect();
    let sent = lines(ask(&broker, "publish", SINGLE, &["--partition-key", "device-1"], &events).await);
    assert_eq!(sent, [json!({ "sent": 300, "batches": 1 })]);

    let read = lines(ask(&broker, "receive", SINGLE, &["--count", "300"], &[]).await);
    for (number, line) in read.iter().enumerate() {
        assert_eq!(line["sequenceNumber"], number);
        assert_eq!(line["body"], events[number]["body"]);
        assert_eq!(line["properties"], events[number]["properties"]);
        assert_eq!(line["systemProperties"]["iothub-message-source"], "twinChangeEvents");
        assert_eq!(line["partitionKey"], "device-1");
        assert_eq!(line["contentType"], "application/json");
        assert_eq!(line["correlationId"], "correlation");
    }

    let consumer = consumer(&broker, SINGLE).await;
    let receiver = receiver(&consumer, "0", StartLocation::SequenceNumber(299), true).await;
    let received = next(&mut Box::pin(receiver.stream_events())).await.expect("an event");
    let body: Value = serde_json::from_str(&text(&received)).expect("JSON");
    assert_eq!(body, events[299]["body"]);
    let properties = received.event_data().properties().expect("application properties");
    assert_eq!(properties.get("opType"), Some(&AmqpSimpleValue::String("updateTwin".to_owned())));
    assert_eq!(
        received.system_properties().get("iothub-message-source"),
        Some(&AmqpValue::String("twinChangeEvents".to_owned()))
    );
    assert_eq!(received.partition_key().as_deref(), Some("device-1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn single_events_and_explicit_partitions_arrive() {
    let broker = broker().await;
    let events = [json!({ "body": 1 }), json!({ "body": 2 })];
    let sent = lines(ask(&broker, "publish", HUB, &["--single", "--partition", "3"], &events).await);
    assert_eq!(sent, [json!({ "sent": 2, "batches": 0 })]);
    let read = lines(ask(&broker, "receive", HUB, &["--count", "2", "--partition", "3"], &[]).await);
    assert_eq!((&read[0]["body"], &read[1]["body"]), (&json!(1), &json!(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_the_iot_hub_model_reaches_javascript_whole() {
    let broker = broker().await;
    broker.append(SINGLE, "device-1", event(r#"{"version":7}"#)).expect("an append");
    let line = &lines(ask(&broker, "receive", SINGLE, &["--partition", "0"], &[]).await)[0];
    assert_eq!(line["body"], json!({ "version": 7 }));
    assert_eq!(line["properties"]["opType"], "updateTwin");
    assert_eq!(line["systemProperties"]["iothub-enqueuedtime"], 1_700_000_000_123_i64);
    assert_eq!(line["systemProperties"]["contentEncoding"], "utf-8");
    assert_eq!(line["partitionKey"], "device-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn javascript_starts_at_every_kind_of_position() {
    let broker = broker().await;
    append_all(&broker, (0..10).map(|number| number.to_string()));
    let third = &lines(ask(&broker, "receive", SINGLE, &["--partition", "0", "--count", "4"], &[]).await)[3];
    let offset = third["offset"].as_str().expect("an offset").to_owned();
    let expectations = [
        ("earliest".to_owned(), 0),
        (json!({ "sequenceNumber": 3 }).to_string(), 4),
        (json!({ "sequenceNumber": 3, "isInclusive": true }).to_string(), 3),
        (json!({ "offset": offset }).to_string(), 4),
        (json!({ "offset": offset, "isInclusive": true }).to_string(), 3),
        (json!({ "enqueuedOn": 0 }).to_string(), 0),
    ];
    for (position, first) in expectations {
        let options = ["--partition", "0", "--position", &position];
        let read = lines(ask(&broker, "receive", SINGLE, &options, &[]).await);
        assert_eq!(read[0]["sequenceNumber"], first, "{position}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_behind_the_end_is_an_argument_error() {
    let broker = broker().await;
    let options = ["--partition", "0", "--position", r#"{"sequenceNumber": 7}"#];
    let output = ask(&broker, "receive", SINGLE, &options, &[]).await;
    assert!(!output.success);
    let error = output.lines.iter().find_map(|line| line.get("error")).expect("an error");
    assert_eq!(error["code"], "ArgumentError", "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_hub_is_a_messaging_entity_not_found() {
    let broker = broker().await;
    let sent = ask(&broker, "publish", "nowhere", &[], &[json!({ "body": 1 })]).await;
    assert!(!sent.success, "{sent:?}");
    let output = ask(&broker, "receive", "nowhere", &["--partition", "0"], &[]).await;
    assert!(!output.success, "{output:?}");
    let error = output.lines.iter().find_map(|line| line.get("error")).expect("an error");
    assert_eq!(error["code"], "MessagingEntityNotFoundError", "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_with_a_higher_epoch_steals_the_link() {
    let broker = broker().await;
    append_all(&broker, ["a"]);
    let lines = lines(ask(&broker, "epoch", SINGLE, &["--first", "1", "--second", "2"], &[]).await);
    assert_eq!(lines[0]["loser"], "first");
    assert_eq!(lines[0]["error"]["code"], "ReceiverDisconnectedError");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_with_an_equal_epoch_steals_the_link() {
    let broker = broker().await;
    append_all(&broker, ["a"]);
    let lines = lines(ask(&broker, "epoch", SINGLE, &["--first", "1", "--second", "1"], &[]).await);
    assert_eq!(lines[0]["loser"], "first");
    assert_eq!(lines[0]["error"]["code"], "ReceiverDisconnectedError");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_with_a_lower_epoch_is_refused() {
    let broker = broker().await;
    append_all(&broker, ["a"]);
    let lines = lines(ask(&broker, "epoch", SINGLE, &["--first", "2", "--second", "1"], &[]).await);
    assert_eq!(lines[0]["loser"], "second");
    assert_eq!(lines[0]["error"]["code"], "ReceiverDisconnectedError");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_with_an_epoch_disconnects_one_without() {
    let broker = broker().await;
    append_all(&broker, ["a"]);
    let consumer = consumer(&broker, SINGLE).await;
    let receiver = receiver(&consumer, "0", StartLocation::Earliest, false).await;
    let mut stream = Box::pin(receiver.stream_events());
    next(&mut stream).await.expect("an event");
    lines(ask(&broker, "epoch", SINGLE, &["--first", "1", "--second", "2"], &[]).await);
    let error = next(&mut stream).await.expect_err("the link is stolen");
    assert!(format!("{error:?}").contains("Stolen"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_chooses_the_partition_that_the_clients_compute() {
    let broker = broker().await;
    let keys: Vec<Value> = (1..60_usize)
        .map(|length| json!("device-0123456789-äöü/".chars().cycle().take(length).collect::<String>()))
        .collect();
    let output = clients().await.run("hash.mjs", &["partition", "--partitions", "4"], &keys, LIMIT).await;
    let output = output.expect("the client runs");
    assert!(output.success && output.lines.len() == keys.len(), "{output:?}");
    for line in output.lines {
        let key = line["key"].as_str().expect("a key");
        let appended = broker.append(HUB, key, event("x")).expect("an append");
        assert_eq!(json!(appended.partition), line["partition"], "{key}");
    }
}

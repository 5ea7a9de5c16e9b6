//! The Cosmos DB host over a socket, used with the official Rust client.

#![expect(clippy::unwrap_used, reason = "a test fails by panic, in its helpers too")]

use azure_core::http::Etag;
use azure_data_cosmos::{
    AccountEndpoint, AccountReference, CosmosClient, CosmosError, FeedScope, Query, RoutingStrategy,
    clients::ContainerClient,
    options::{
        BinaryEncodingOptions, ItemReadOptions, ItemWriteOptions, MaxItemCountHint, OperationOptionsBuilder,
        Precondition, QueryOptions, ReadConsistencyStrategy, ThrottlingRetryOptionsBuilder,
    },
};
use devkit::cosmos::{ELSEWHERE, Fault, Faults, Operations, Options, Server};
use futures::TryStreamExt;
use serde_json::{Value, json};

const KEY: &str = "dGhlIGtleSBvZiB0aGUgdGVzdHM=";

async fn server(options: Options) -> Server {
    Server::start(Options { key: Some(KEY.to_owned()), ..options }).await.unwrap()
}

async fn connect(server: &Server, key: &str) -> Result<ContainerClient, CosmosError> {
    connect_as(server, key, BinaryEncodingOptions::default()).await
}

async fn connect_as(
    server: &Server,
    key: &str,
    encoding: BinaryEncodingOptions,
) -> Result<ContainerClient, CosmosError> {
    let endpoint: AccountEndpoint = server.endpoint().parse().unwrap();
    // No retries on throttling, because tests count requests.
    let throttling = ThrottlingRetryOptionsBuilder::new().with_max_retry_count(0).build();
    let options = OperationOptionsBuilder::new().with_throttling_retry_options(throttling).build();
    let client = CosmosClient::builder()
        .with_default_operation_options(options)
        .with_binary_encoding_options(encoding)
        .build(
            AccountReference::with_authentication_key(endpoint, key.to_owned()),
            RoutingStrategy::PreferredRegions(Vec::new()),
        )
        .await?;
    client.database_client("twins").container_client("twins", None).await
}

fn document(id: &str) -> Value {
    json!({"id": id, "deviceId": "d", "n": 1})
}

fn on_match(etag: &Etag) -> Option<ItemWriteOptions> {
    Some(ItemWriteOptions::default().with_precondition(Precondition::if_match(etag.clone())))
}

async fn read(container: &ContainerClient, id: &str) -> Result<Value, CosmosError> {
    container.read_item("d", id, None).await?.into_model()
}

fn status(error: &CosmosError) -> u16 {
    error.status().status_code().into()
}

#[tokio::test]
async fn documents_are_created_read_replaced_on_a_matching_etag_and_deleted() {
    let server = server(Options::default()).await;
    let container = connect(&server, KEY).await.unwrap();
    // Ids in twinsync's escaping. The path, the signature and the body each have a different form.
    for id in ["plain", "a%23b", "d%2Fm", "x'y", "ü"] {
        let created = container.create_item("d", id, document(id), None).await.unwrap();
        let first = created.headers().etag().unwrap().clone();
        assert_eq!(read(&container, id).await.unwrap()["n"], 1);
        let mut next = document(id);
        next["n"] = json!(2);
        let replaced = container.replace_item("d", id, &next, on_match(&first)).await.unwrap();
        assert_ne!(replaced.headers().etag().unwrap(), &first);
        let stale = container.replace_item("d", id, &next, on_match(&first)).await.unwrap_err();
        assert!(stale.status().is_precondition_failed(), "{id}");
        let twice = container.create_item("d", id, document(id), None).await.unwrap_err();
        assert!(twice.status().is_conflict(), "{id}");
        assert_eq!(read(&container, id).await.unwrap()["n"], 2);
        container.delete_item("d", id, None).await.unwrap();
        assert!(read(&container, id).await.unwrap_err().status().is_not_found());
    }
    server.stop().await;
}

#[tokio::test]
async fn numbers_and_texts_come_back_exactly() {
    let server = server(Options::default()).await;
    let container = connect(&server, KEY).await.unwrap();
    let mut sent = document("numbers");
    sent["values"] =
        json!([(1_i64 << 52) - 1, -(1_i64 << 52), 0.1, 1e-300, f64::MAX, 5e-324, "𝄞\n\"", {"größe": []}]);
    container.create_item("d", "numbers", &sent, None).await.unwrap();
    assert_eq!(read(&container, "numbers").await.unwrap()["values"], sent["values"]);
    server.stop().await;
}

#[tokio::test]
async fn a_wrong_key_is_told_401_and_nothing_else() {
    let server = server(Options::default()).await;
    let Err(error) = connect(&server, "d3Jvbmc=").await else {
        panic!("a wrong key is as good as the right one")
    };
    assert_eq!(status(&error), 401);
    let response = reqwest::get(server.endpoint()).await.unwrap();
    assert_eq!(response.status(), 401);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["code"], "Unauthorized");
    server.stop().await;

    let open = Server::start(Options::default()).await.unwrap();
    assert_eq!(reqwest::get(open.endpoint()).await.unwrap().status(), 200);
    open.stop().await;
}

#[tokio::test]
async fn a_fault_before_the_work_leaves_the_container_as_it_was() {
    let server = server(Options::default()).await;
    let container = connect(&server, KEY).await.unwrap();
    for (code, requests) in [(429, 1), (408, 4), (500, 4), (503, 4)] {
        // The SDK retries writes. The fault lasts until it gives up.
        let fault = Fault { next: None, ..Fault::next(code, 1) };
        server.set_faults(Faults { answers: vec![fault], ..Faults::default() }).unwrap();
        server.reset_counters();
        let error = container.create_item("d", "x", document("x"), None).await.unwrap_err();
        assert_eq!(status(&error), code);
        let seen = server.counters()["create"].statuses[&code];
        assert_eq!(seen, requests, "{code}");
        assert!(read(&container, "x").await.unwrap_err().status().is_not_found(), "{code}");
    }
    server.set_faults(Faults::default()).unwrap();
    container.create_item("d", "x", document("x"), None).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_throttled_client_is_told_how_long_to_wait() {
    let server = server(Options::default()).await;
    let container = connect(&server, KEY).await.unwrap();
    let fault = Fault { retry_after_ms: 1234, ..Fault::next(429, 1) };
    server.set_faults(Faults { answers: vec![fault], ..Faults::default() }).unwrap();
    let error = container.create_item("d", "x", document("x"), None).await.unwrap_err();
    assert!(error.status().is_throttled());
    assert_eq!(error.response().and_then(|response| response.headers().retry_after_ms), Some(1234));
    server.stop().await;
}

#[tokio::test]
async fn a_reply_lost_after_success_makes_the_sdk_meet_its_own_write() {
    let server = server(Options::default()).await;
    let container = connect(&server, KEY).await.unwrap();
    let created = container.create_item("d", "x", document("x"), None).await.unwrap();
    let etag = created.headers().etag().unwrap().clone();
    server.set_faults(Faults { answers: vec![Fault::next(503, 1).after()], ..Faults::default() }).unwrap();
    let mut next = document("x");
    next["n"] = json!(2);
    let error = container.replace_item("d", "x", &next, on_match(&etag)).await.unwrap_err();
    assert!(error.status().is_precondition_failed());
    assert_eq!(read(&container, "x").await.unwrap()["n"], 2);
    server.stop().await;
}

#[tokio::test]
async fn an_outage_answers_everything_with_503_until_it_is_over() {
    let server = server(Options::default()).await;
    let container = connect(&server, KEY).await.unwrap();
    container.create_item("d", "x", document("x"), None).await.unwrap();
    server.set_faults(Faults { outage: true, ..Faults::default() }).unwrap();
    assert!(read(&container, "x").await.unwrap_err().status().is_service_unavailable());
    server.set_faults(Faults::default()).unwrap();
    assert_eq!(read(&container, "x").await.unwrap()["n"], 1);
    server.stop().await;
}

#[tokio::test]
async fn faults_on_reads_spare_writes_and_latency_delays() {
    let server = server(Options::default()).await;
    let container = connect(&server, KEY).await.unwrap();
    let fault = Fault { next: None, ..Fault::next(429, 1) }.on(Operations::Reads);
    server.set_faults(Faults { answers: vec![fault], latency_ms: 50, ..Faults::default() }).unwrap();
    let started = std::time::Instant::now();
    container.create_item("d", "x", document("x"), None).await.unwrap();
    assert!(started.elapsed().as_millis() >= 50);
    assert!(read(&container, "x").await.unwrap_err().status().is_throttled());
    server.stop().await;
}

#[tokio::test]
async fn requests_and_request_units_are_counted_by_operation() {
    let server = server(Options::default()).await;
    let container = connect(&server, KEY).await.unwrap();
    server.reset_counters();
    let created = container.create_item("d", "x", document("x"), None).await.unwrap();
    let charge = created.headers().request_charge().unwrap().value();
    for _ in 0..3 {
        read(&container, "x").await.unwrap();
    }
    read(&container, "y").await.unwrap_err();
    let counters = server.counters();
    assert!(charge > 0.0);
    assert!((counters["create"].request_units - charge).abs() < 1e-9);
    assert_eq!((counters["read"].requests, counters["read"].request_units), (4, 3.0));
    assert_eq!(
        counters["read"].statuses.iter().map(|(status, n)| (*status, *n)).collect::<Vec<_>>(),
        [(200, 3), (404, 1)]
    );
    server.stop().await;
}

#[tokio::test]
async fn provisioned_throughput_throttles_writes() {
    let server = server(Options { throughput: Some(400), partitions: 1, ..Options::default() }).await;
    let container = connect(&server, KEY).await.unwrap();
    let mut throttled = 0;
    for n in 0..200 {
        match container.create_item("d", &n.to_string(), document(&n.to_string()), None).await {
            Ok(_) => {}
            Err(error) if error.status().is_throttled() => throttled += 1,
            Err(error) => panic!("{:?}", error.status()),
        }
    }
    assert!(throttled > 0);
    server.stop().await;
}

#[tokio::test]
async fn a_query_over_all_partitions_returns_every_document_once() {
    let server = server(Options::default()).await;
    let container = connect(&server, KEY).await.unwrap();
    for n in 0..300 {
        let id = format!("d{n}");
        container.create_item(id.clone(), &id, json!({"id": id, "deviceId": id}), None).await.unwrap();
    }
    let limit = MaxItemCountHint::Limit(7.try_into().unwrap());
    let mut pages = container
        .query_items::<Value>(
            Query::from("SELECT * FROM c"),
            FeedScope::full_container(),
            Some(QueryOptions::default().with_max_item_count(limit)),
        )
        .await
        .unwrap()
        .into_pages();
    let mut ids = Vec::new();
    while let Some(page) = pages.try_next().await.unwrap() {
        ids.extend(page.into_items().into_iter().map(|item| item["id"].as_str().unwrap().to_owned()));
    }
    assert_eq!(ids.len(), 300);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 300);
    server.stop().await;
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_names_it() {
    let server = server(Options::default()).await;
    let Err(error) = Server::start(Options { listen: server.address(), ..Options::default() }).await else {
        panic!("two servers on one port");
    };
    assert!(error.to_string().contains(&server.address().to_string()), "{error}");
    server.stop().await;
}

#[tokio::test]
async fn strange_requests_are_answered_and_do_not_stop_the_server() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = Server::start(Options::default()).await.unwrap();
    for request in [
        "GET //x HTTP/1.1\r\n",
        "GET /dbs/%ff%00 HTTP/1.1\r\n",
        "BREW /dbs HTTP/1.1\r\n",
        "PUT /dbs/twins/colls/twins/docs/x HTTP/1.1\r\nx-odd: \u{e9}\r\n",
    ] {
        let mut socket = tokio::net::TcpStream::connect(server.address()).await.unwrap();
        let request =
            format!("{request}host: localhost\r\nconnection: close\r\ncontent-length: 3\r\n\r\n{{{{{{");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 5"), "{request}: {answer}");
    }
    assert_eq!(reqwest::get(server.endpoint()).await.unwrap().status(), 200);
    server.stop().await;
}

/// A read with Eventual consistency.
async fn read_eventually(container: &ContainerClient, id: &str) -> Result<Value, CosmosError> {
    let operation = OperationOptionsBuilder::new()
        .with_read_consistency_strategy(ReadConsistencyStrategy::Eventual)
        .build();
    let options = ItemReadOptions::default().with_operation_options(operation);
    container.read_item("d", id, Some(options)).await?.into_model()
}

#[tokio::test]
async fn stale_reads_show_what_was_there_before_to_whoever_does_not_know_better() {
    let server = server(Options::default()).await;
    let container = connect_as(&server, KEY, BinaryEncodingOptions::new().with_enabled(false)).await.unwrap();
    server.set_faults(Faults { stale_reads_ms: 60_000, ..Faults::default() }).unwrap();
    let created = container.create_item("d", "a%23b", document("a%23b"), None).await.unwrap();
    let absent = read_eventually(&container, "a%23b").await.unwrap_err();
    assert!(absent.status().is_not_found(), "{absent}");
    assert_eq!(read(&container, "a%23b").await.unwrap()["n"], 1, "a session knows what it has written");
    let mut next = document("a%23b");
    next["n"] = json!(2);
    let etag = created.headers().etag().unwrap().clone();
    container.replace_item("d", "a%23b", &next, on_match(&etag)).await.unwrap();
    assert!(read_eventually(&container, "a%23b").await.unwrap_err().status().is_not_found());
    assert_eq!(read(&container, "a%23b").await.unwrap()["n"], 2);
    server.set_faults(Faults { stale_reads_ms: 0, ..Faults::default() }).unwrap();
    assert_eq!(read_eventually(&container, "a%23b").await.unwrap()["n"], 2);
    server.stop().await;
}

#[tokio::test]
async fn the_account_says_of_itself_what_it_is_told_to() {
    let open = Server::start(Options::default()).await.unwrap();
    let account = async || reqwest::get(open.endpoint()).await.unwrap().json::<Value>().await.unwrap();
    let level = |account: &Value| account["userConsistencyPolicy"]["defaultConsistencyLevel"].clone();
    let plain = account().await;
    assert_eq!((level(&plain), &plain["enableMultipleWriteLocations"]), (json!("Session"), &json!(false)));
    let overrides = json!({"consistency": "Eventual", "multiWrite": true});
    open.set_faults(serde_json::from_value(overrides).unwrap()).unwrap();
    let other = account().await;
    assert_eq!((level(&other), &other["enableMultipleWriteLocations"]), (json!("Eventual"), &json!(true)));
    let regions = other["writableLocations"].as_array().unwrap();
    assert_eq!((regions.len(), &regions[1]["name"]), (2, &json!(ELSEWHERE)));
    // The account is reachable under its other host name, and requests to that are counted.
    let elsewhere = regions[1]["databaseAccountEndpoint"].as_str().unwrap();
    assert_eq!(reqwest::get(elsewhere).await.unwrap().status(), 200);
    assert_eq!(open.counters()["metadata"].elsewhere, 1);
    open.stop().await;
}

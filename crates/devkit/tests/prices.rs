//! The request units that the Cosmos DB host charges, as the official Rust client sees them.

#![expect(clippy::unwrap_used, reason = "a test fails by panic, in its helpers too")]

use azure_data_cosmos::{
    AccountEndpoint, AccountReference, CosmosClient, FeedScope, Query, RoutingStrategy,
    clients::ContainerClient, options::BinaryEncodingOptions,
};
use devkit::cosmos::{Options, Server, price, service_default_policy};
use futures::TryStreamExt;
use serde_json::{Value, json};

async fn start(policy: Option<Value>, binary: bool) -> (Server, ContainerClient) {
    let server = Server::start(Options { indexing_policy: policy, ..Options::default() }).await.unwrap();
    let endpoint: AccountEndpoint = server.endpoint().parse().unwrap();
    let account = AccountReference::with_authentication_key(endpoint, "a2V5".to_owned());
    let client = CosmosClient::builder()
        .with_binary_encoding_options(BinaryEncodingOptions::new().with_enabled(binary))
        .build(account, RoutingStrategy::PreferredRegions(Vec::new()))
        .await
        .unwrap();
    let container = client.database_client("twins").container_client("twins", None).await.unwrap();
    (server, container)
}

fn twin(reported: u32) -> Value {
    json!({
        "id": "d", "deviceId": "d", "version": reported,
        "properties": {"reported": {
            "rate": reported, "$version": reported, "$metadata": {"$lastUpdated": reported.to_string()},
        }},
        "sync": {"state": "live", "op": "updateTwin", "last": reported.to_string()},
    })
}

fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 0.01, "{found} instead of {expected}");
}

/// The charges of create, replace and delete of a twin.
async fn charges(policy: Option<Value>, binary: bool) -> [f64; 3] {
    let (server, container) = start(policy, binary).await;
    let create = container.create_item("d", "d", twin(1), None).await.unwrap();
    let replace = container.replace_item("d", "d", twin(2), None).await.unwrap();
    let delete = container.delete_item("d", "d", None).await.unwrap();
    let charged = [create.headers(), replace.headers(), delete.headers()]
        .map(|headers| headers.request_charge().unwrap().value());
    server.stop().await;
    charged
}

#[tokio::test]
async fn writes_pay_for_the_terms_that_the_policy_indexes() {
    for binary in [false, true] {
        // Indexed: id, deviceId, rate, sync.state, sync.op. A change of the rate modifies one of these terms.
        let [create, replace, delete] = charges(None, binary).await;
        near(create, price::create(200, 5));
        near(replace, price::replace(200, 200, 1, 1));
        near(delete, price::create(200, 5));
        // All paths are indexed: version, $version, $lastUpdated and sync.last as well.
        let [create, replace, delete] = charges(Some(service_default_policy()), binary).await;
        near(create, price::create(200, 9));
        near(replace, price::replace(200, 200, 5, 5));
        near(delete, price::create(200, 9));
    }
}

#[tokio::test]
async fn a_query_that_the_index_does_not_serve_pays_for_all_documents() {
    let (server, container) = start(None, false).await;
    for number in 0..50 {
        let text = "x".repeat(4_000);
        let document = json!({"id": number.to_string(), "deviceId": "d", "tags": {"n": number, "t": text}, "version": number});
        container.create_item("d", &number.to_string(), document, None).await.unwrap();
    }
    let charge = async |query: &str| {
        let scope = FeedScope::partition("d");
        let pages =
            container.query_items::<Value>(Query::from(query), scope, None).await.unwrap().into_pages();
        let pages: Vec<_> = pages.try_collect().await.unwrap();
        let rows: usize = pages.iter().map(|page| page.items().len()).sum();
        let units: f64 = pages.iter().map(|page| page.headers().request_charge().unwrap().value()).sum();
        (rows, units)
    };
    let (rows, served) = charge("SELECT c.id FROM c WHERE c.tags.n = 7").await;
    assert_eq!((rows, server.counters()["query"].scans), (1, 0));
    let (rows, scan) = charge("SELECT c.id FROM c WHERE c.version = 7").await;
    assert_eq!((rows, server.counters()["query"].scans), (1, 1));
    near(served, price::query(4_080.0));
    assert!((scan - price::query(50.0 * 4_080.0)).abs() < 0.05, "{scan}");
    assert!(scan > 1.5 * served, "{scan} {served}");
    server.stop().await;
}

#[tokio::test]
async fn a_policy_that_makes_no_sense_does_not_start() {
    let wrong = Some(json!({"includedPaths": [{"path": "/a/?"}]}));
    let Err(error) = Server::start(Options { indexing_policy: wrong, ..Options::default() }).await else {
        panic!("it started");
    };
    assert!(error.to_string().contains("/*"), "{error}");
}

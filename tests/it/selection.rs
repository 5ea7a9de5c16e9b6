//! Queries over real pages: Cosmos DB's query engine evaluates the pushdown, and the rows are equal to the
//! hub's.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use devkit::{
    iothub::{Operation, TwinId},
    stack::Options,
};
use serde_json::{Value, json};
use twinsync::{
    adapters::cosmos::{self, CosmosStore},
    domain::{
        document::{Document, State},
        id::{DocumentIdScheme, HubName, TwinKey},
        query::Root,
    },
    ports::{Cursor, Filter, Read, SelectError, TwinSelection, TwinStore},
    runtime::{
        queries::{Ask, Failure, Limits, Queries, StaysConnected},
        request_unit_budget::RequestUnitBudget,
    },
    telemetry::Metrics,
};

use crate::world::{World, device};

/// Number of devices.
const DEVICES: usize = 60;
/// Rows per page. Each physical partition has several pages.
const PAGE: NonZeroU32 = NonZeroU32::new(7).expect("not 0");

/// A container with several physical partitions, filled by the daemon with twins of many shapes.
async fn replica() -> World {
    let world = World::with(Options { cosmos_partitions: 3, ..Options::default() }, "").await;
    let values =
        [json!("a"), json!("ab"), json!(1), json!(2.5), json!(true), json!(["a", 1]), json!({"x": 1})];
    for number in 0..DEVICES {
        let mut tags = json!({"n": number, "site": if number.is_multiple_of(3) { "north" } else { "south" }});
        if !number.is_multiple_of(4) {
            tags["value"] = values[number % values.len()].clone();
        }
        if number.is_multiple_of(5) {
            tags["odd-name"] = json!(number.is_multiple_of(2));
        }
        let desired =
            json!({"interval": number % 6, "mode": if number.is_multiple_of(2) { "eco" } else { "full" }});
        let twin = json!({"tags": tags, "properties": {"desired": desired}});
        world.apply(Operation::Create { id: device(&format!("d{number:03}")), twin: Some(twin) });
    }
    for number in 0..9 {
        let id = TwinId::module(format!("d{number:03}"), "agent").expect("a valid id");
        world.apply(Operation::Create { id, twin: Some(json!({"tags": {"n": number}})) });
    }
    // A query must not return tombstones.
    let twin = Some(json!({"tags": {"site": "north"}}));
    world.apply(Operation::Create { id: device("gone"), twin });
    world.apply(Operation::Delete { id: device("gone") });
    world
}

async fn queries(world: &World) -> (Arc<CosmosStore>, Queries) {
    let endpoints = world.stack.endpoints();
    let options = cosmos::Options {
        endpoint: endpoints.cosmos.parse().expect("an address"),
        database: endpoints.database.clone(),
        container: endpoints.container.clone(),
        region: None,
        write_region: None,
        request_timeout: Duration::from_secs(10),
        binary_encoding: true,
        id_scheme: DocumentIdScheme::Device,
    };
    let access = cosmos::Access::Key(endpoints.cosmos_key.clone());
    let store = Arc::new(Box::pin(CosmosStore::connect(&options, access)).await.expect("connected"));
    let queries = Queries {
        selection: Arc::clone(&store) as Arc<dyn TwinSelection>,
        budget: RequestUnitBudget::new(None),
        metrics: Metrics::new().expect("metrics"),
        limits: Limits { request_units: 1e6, time: Duration::from_secs(60), held: 1_000 },
        place: Root::place,
    };
    (store, queries)
}

/// All rows of the copy, with the number of pages.
async fn ours(queries: &Queries, query: &str) -> (Vec<Value>, usize) {
    let (mut rows, mut pages, mut from) = (Vec::new(), 0, None);
    loop {
        let ask = Ask { query, hub: None, from: from.as_deref(), most: PAGE, client: &StaysConnected };
        let page = queries.answer(ask).await.outcome.unwrap_or_else(|failure| panic!("{query}: {failure}"));
        assert!(page.rows.len() <= PAGE.get() as usize, "{query}");
        assert_eq!(page.passed_over, 0, "{query}");
        rows.extend(page.rows);
        pages += 1;
        from = page.next;
        if from.is_none() {
            return (rows, pages);
        }
    }
}

/// All rows of the hub's own API.
async fn hubs(world: &World, query: &str) -> Vec<Value> {
    let endpoints = world.stack.endpoints();
    let (client, mut rows, mut from) = (reqwest::Client::new(), Vec::new(), None);
    loop {
        let mut request = client
            .post(format!("{}/devices/query?api-version=2021-04-12", endpoints.iothub))
            .header("host", &endpoints.iothub_host_name)
            .bearer_auth(&endpoints.token)
            .json(&json!({ "query": query }));
        if let Some(from) = from {
            request = request.header("x-ms-continuation", from);
        }
        let answer = request.send().await.expect("an answer");
        from = answer.headers().get("x-ms-continuation").cloned();
        let status = answer.status();
        let body = answer.text().await.expect("a body");
        assert_eq!(status, 200, "{query}: {body}");
        rows.extend(serde_json::from_str::<Vec<Value>>(&body).expect("rows"));
        if from.is_none() {
            return rows;
        }
    }
}

/// Changes numbers like 3.0 to 3, because both are the same JSON number.
fn plain(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(plain),
        Value::Object(fields) => fields.values_mut().for_each(plain),
        Value::Number(number) => match number.as_f64() {
            Some(double) if double.fract() == 0.0 => *value = json!(double as i64),
            Some(_) | None => {}
        },
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// The rows in a common order. Whole twins are reduced to the fields that the copy knows.
fn comparable(rows: Vec<Value>) -> Vec<String> {
    // Fields that change without an event, such as `status`, are as old as the hub's last answer.
    let known = ["deviceId", "moduleId", "version", "tags", "properties"];
    let mut rows: Vec<_> = rows
        .into_iter()
        .map(|mut row| {
            if row.get("properties").is_some() {
                row.as_object_mut().expect("an object").retain(|name, _| known.contains(&name.as_str()));
            }
            plain(&mut row);
            row.to_string()
        })
        .collect();
    rows.sort();
    rows
}

#[tokio::test]
async fn the_replica_gives_the_rows_that_the_hub_gives() {
    let world = replica().await;
    let daemon = world.start().await;
    world.equal().await;
    let (_, queries) = queries(&world).await;
    let mut rows_in_all = 0;
    for query in [
        "SELECT * FROM devices",
        "SELECT * FROM devices.modules",
        "SELECT * FROM devices.modules WHERE moduleId = 'agent' AND tags.n > 3",
        "SELECT * FROM devices WHERE deviceId = 'd007'",
        "SELECT * FROM devices WHERE DeviceID IN ['d001', 'd002', 'nobody']",
        "SELECT * FROM devices WHERE tags.site != 'north'",
        "SELECT * FROM devices WHERE devices.tags.site = 'south' AND NOT properties.desired.mode = 'eco'",
        "SELECT deviceId AS id, tags.value FROM devices WHERE is_defined(tags.value)",
        "SELECT deviceId FROM devices WHERE NOT IS_DEFINED(tags.value)",
        "SELECT deviceId FROM devices WHERE tags.value = 'a'",
        "SELECT deviceId FROM devices WHERE tags.value != 'a'",
        "SELECT deviceId FROM devices WHERE NOT (tags.value = 'a')",
        "SELECT deviceId FROM devices WHERE tags.value NIN ['a', 1, true]",
        "SELECT deviceId FROM devices WHERE tags.value > 0.5",
        "SELECT deviceId FROM devices WHERE NOT tags.value <= 1",
        "SELECT deviceId FROM devices WHERE tags.value >= 'ab' OR tags.n < 5",
        "SELECT deviceId FROM devices WHERE STARTSWITH(tags.value, 'a') AND NOT ENDSWITH(tags.value, 'b')",
        "SELECT deviceId FROM devices WHERE ARRAY_CONTAINS(tags.value, 'a')",
        "SELECT deviceId FROM devices WHERE NOT ARRAY_CONTAINS(tags.value, 2)",
        "SELECT deviceId FROM devices WHERE tags.[[odd-name]]",
        "SELECT deviceId FROM devices WHERE NOT tags.[[odd-name]]",
        "SELECT deviceId FROM devices WHERE IS_OBJECT(tags.value) OR IS_ARRAY(tags.value)",
        "SELECT deviceId, properties.desired.$version AS v FROM devices WHERE properties.desired.$version = 1",
        "SELECT deviceId FROM devices WHERE properties.desired.interval = tags.n",
        "SELECT COUNT() AS numberOfDevices FROM devices",
        "SELECT COUNT() AS n FROM devices WHERE properties.desired.interval >= 3 AND tags.site = 'south'",
        "SELECT COUNT() AS n FROM devices.modules",
        "SELECT SUM(tags.n) AS sum, AVG(tags.n) AS mean, MIN(tags.n) AS least, MAX(tags.n) AS most FROM devices",
        "SELECT tags.site, COUNT() AS n, AVG(properties.desired.interval) AS mean FROM devices GROUP BY tags.site",
        "SELECT tags.value, COUNT() AS n FROM devices WHERE tags.n >= 10 GROUP BY tags.value",
    ] {
        let ((ours, pages), hubs) = (Box::pin(ours(&queries, query)).await, hubs(&world, query).await);
        assert!(pages > ours.len().div_ceil(PAGE.get() as usize).saturating_sub(1), "{query}");
        rows_in_all += hubs.len();
        assert!(!hubs.is_empty(), "{query}: the query selects nothing");
        assert_eq!(comparable(ours), comparable(hubs), "{query}");
    }
    assert!(rows_in_all > 400, "{rows_in_all}");
    let sorted = "SELECT TOP 5 tags.n FROM devices WHERE CONTAINS(deviceId, '1') ORDER BY tags.n DESC";
    let (rows, _) = Box::pin(ours(&queries, sorted)).await;
    assert_eq!(rows, [51, 41, 31, 21, 19].map(|n| json!({ "n": n })));
    daemon.stop().await.expect("stops");
}

#[tokio::test]
async fn a_write_is_visible_at_once_and_foreign_continuations_are_refused() {
    let world = replica().await;
    let daemon = world.start().await;
    world.equal().await;
    daemon.stop().await.expect("stops");
    let (store, queries) = queries(&world).await;
    let key = TwinKey::device(&*world.stack.endpoints().iothub_name, "d007");
    let Read::Present(document, etag) = store.read(&key).await.outcome else {
        panic!("the document is missing")
    };
    let mut newest = Document::clone(&document);
    let State::Live { twin, .. } = &mut newest.state else { panic!("{newest:?}") };
    twin.tags.insert("site".to_owned(), json!("east"));
    store.replace(&key, &newest, &etag).await;
    let ask = |query| Ask { query, hub: None, from: None, most: PAGE, client: &StaysConnected };
    let found = queries.answer(ask("SELECT deviceId FROM devices WHERE tags.site = 'east'")).await;
    assert_eq!(
        found.outcome.expect("a page").rows,
        [json!({"deviceId": "d007"})],
        "the answer must contain the last write"
    );
    assert!(found.request_units > 0.0);
    let own = Some(&key.hub);
    for (hub, count) in [(own, DEVICES), (Some(&HubName::from("another")), 0)] {
        let ask = Ask { hub, ..ask("SELECT COUNT() AS n FROM devices") };
        assert_eq!(
            queries.answer(ask).await.outcome.expect("a page").rows,
            [json!({ "n": count })],
            "{hub:?}"
        );
    }
    // Invalid continuations: of another query, and invented ones.
    let page = queries.answer(ask("SELECT * FROM devices")).await.outcome.expect("a page");
    let next = page.next.expect("more pages");
    let continued = Ask { from: Some(&next), ..ask("SELECT * FROM devices WHERE tags.n > 1") };
    assert!(matches!(queries.answer(continued).await.outcome, Err(Failure::Continuation)));
    for made_up in ["c1.", "c1.e30", "c1.!!", "c9.e30"] {
        let filter =
            Filter { hub: None, of_modules: false, condition: "true".to_owned(), parameters: Vec::new() };
        let found = store.select(&filter, Some(&Cursor(made_up.to_owned())), PAGE).await.outcome;
        assert!(matches!(found, Err(SelectError::Position)), "{made_up}: {found:?}");
    }
}

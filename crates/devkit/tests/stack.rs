//! The complete local Azure in one process: control port, fleet and comparison.

#![expect(clippy::unwrap_used, reason = "a test fails by panic, in its helpers too")]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use azure_core::{
    credentials::{AccessToken, TokenCredential, TokenRequestOptions},
    time::OffsetDateTime,
};
use azure_core_amqp::message::AmqpMessageBody;
use azure_data_cosmos::{
    AccountEndpoint, AccountReference, CosmosClient, RoutingStrategy, clients::ContainerClient,
};
use azure_messaging_eventhubs::{ConsumerClient, OpenReceiverOptions, StartLocation, StartPosition};
use devkit::{
    cosmos::Fault,
    fleet::{Pace, Plan, Progress, State},
    iothub::{self, HubNames, Operation, TwinId, USUAL_HISTORY},
    stack::{AnotherIotHub, Endpoints, Options, Stack},
    verify::{self, Report, verify},
};
use futures::StreamExt;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

async fn start() -> Stack {
    Stack::start(Options::default()).await.unwrap()
}

async fn call(stack: &Stack, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
    let mut request = Client::new().request(method, format!("{}{path}", stack.endpoints().control));
    if let Some(body) = body {
        request = request.json(&body);
    }
    let response = request.send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

async fn container(endpoints: &Endpoints) -> ContainerClient {
    let endpoint: AccountEndpoint = endpoints.cosmos.parse().unwrap();
    let account = AccountReference::with_authentication_key(endpoint, endpoints.cosmos_key.clone());
    let client =
        CosmosClient::builder().build(account, RoutingStrategy::PreferredRegions(Vec::new())).await.unwrap();
    client
        .database_client(endpoints.database.clone())
        .container_client(endpoints.container.clone(), None)
        .await
        .unwrap()
}

/// A correct document of a twin.
fn document(endpoints: &Endpoints, twin: &Value) -> Value {
    let mut document = twin.clone();
    let device = twin["deviceId"].as_str().unwrap();
    let module = twin.get("moduleId").and_then(Value::as_str).map(|module| format!("|{module}"));
    let plain: String =
        format!("{device}{}", module.unwrap_or_default()).bytes().map(|byte| format!("{byte:02x}")).collect();
    document["id"] = json!(plain);
    document["hubName"] = json!(endpoints.iothub_name);
    document["sync"] = json!({"state": "live", "flags": []});
    document
}

/// Writes the correct documents of all twins.
async fn write_documents(stack: &Stack) {
    let container = container(stack.endpoints()).await;
    for twin in stack.hub().page(None, 10_000).twins {
        let document = document(stack.endpoints(), &twin);
        let device = twin["deviceId"].as_str().unwrap().to_owned();
        container.upsert_item(device, document["id"].as_str().unwrap(), &document, None).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_with_odd_ids_live_through_the_control_port() {
    let stack = start().await;
    let device = "/devices/odd%23%3F%25%27%40%24%3A";
    let twin = "/twins/odd%23%3F%25%27%40%24%3A";
    let body = json!({"tags": {"a": 1}});
    assert_eq!(call(&stack, Method::PUT, device, Some(body)).await.0, StatusCode::CREATED);
    let (_, answer) = call(&stack, Method::PATCH, twin, Some(json!({"tags": {"b": 2}}))).await;
    assert_eq!(answer, json!({"version": 3, "events": ["updateTwin"]}));
    call(&stack, Method::PATCH, &format!("{twin}/reported"), Some(json!({"r": [1]}))).await;
    call(&stack, Method::PUT, &format!("{device}/modules/%24edgeHub"), None).await;
    call(&stack, Method::PATCH, &format!("{twin}/modules/%24edgeHub/reported"), Some(json!({"m": 1}))).await;
    let (status, read) = call(&stack, Method::GET, twin, None).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!((&read["deviceId"], &read["version"]), (&json!("odd#?%'@$:"), &json!(4)));
    assert_eq!(
        (&read["tags"], &read["properties"]["reported"]["r"]),
        (&json!({"a": 1, "b": 2}), &json!([1]))
    );
    let (_, answer) = call(&stack, Method::PUT, twin, Some(json!({"tags": {"c": 3}}))).await;
    assert_eq!(answer["events"], json!(["replaceTwin"]));
    let (_, answer) = call(&stack, Method::DELETE, device, None).await;
    assert_eq!(answer, json!({"version": null, "events": ["deleteDeviceIdentity", "deleteDeviceIdentity"]}));
    assert_eq!(call(&stack, Method::GET, "/health", None).await.1, json!({"status": "ok", "twins": 0}));

    let (_, counters) = call(&stack, Method::GET, "/counters", None).await;
    assert_eq!(counters["delivery"]["appended"], json!({"lifecycle": 4, "twin-changes": 4}));
    let last = |hub: &str| -> i64 {
        let last = counters["eventhubs"][hub]["lastSequenceNumbers"].as_array().unwrap();
        last.iter().map(|number| number.as_i64().unwrap() + 1).sum()
    };
    assert_eq!((last("lifecycle"), last("twin-changes")), (4, 4));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_port_says_in_json_what_is_wrong() {
    let stack = start().await;
    call(&stack, Method::PUT, "/devices/d", None).await;
    let bad_fault = json!({"answers": [{"status": 200}]});
    for (method, path, body, status, code) in [
        (Method::GET, "/nowhere", None, 404, "unknown_path"),
        (Method::POST, "/twins/d", None, 405, "unknown_method"),
        (Method::GET, "/twins/x", None, 404, "not_found"),
        (Method::PUT, "/devices/d", None, 409, "already_exists"),
        (Method::PUT, "/devices/a%20b", None, 400, "invalid_id"),
        (Method::PATCH, "/twins/d", Some(json!({"tags": {"a.b": 1}})), 400, "invalid_twin"),
        (
            Method::PATCH,
            "/twins/d",
            Some(json!({"tags": {"a": "x".repeat(4096), "b": "x".repeat(4096), "c": 1}})),
            400,
            "too_large",
        ),
        (Method::PATCH, "/twins/d/reported", None, 400, "bad_request"),
        (Method::GET, "/twins?continuation=nonsense", None, 400, "bad_request"),
        (Method::GET, "/twins?limit=many", None, 400, "bad_request"),
        (Method::POST, "/fleet", Some(json!({"device": 1})), 400, "bad_request"),
        (Method::POST, "/fleet", Some(json!({"devices": 0})), 400, "invalid_plan"),
        (Method::POST, "/fleet", Some(json!({"rate": 0})), 400, "invalid_plan"),
        (Method::POST, "/fleet/next", None, 409, "not_waiting"),
        (Method::PUT, "/faults/cosmos", Some(bad_fault), 400, "bad_request"),
        (Method::PUT, "/faults/delivery", Some(json!({"lose": 2})), 400, "bad_request"),
        (Method::PATCH, "/devices/d", Some(json!({"version": 3})), 400, "bad_request"),
        (Method::PATCH, "/devices/x", Some(json!({"status": "disabled"})), 404, "not_found"),
        (Method::PUT, "/faults/iothub", Some(json!({"faults": [{"trouble": "sulk"}]})), 400, "bad_request"),
        (Method::PUT, "/faults/iothub", Some(json!({"largestPage": 0})), 400, "bad_request"),
        (Method::PUT, "/quota/iothub", Some(json!({"tier": "S3", "units": 11})), 400, "bad_request"),
        (Method::POST, "/import", Some(json!({"modules": 2})), 400, "invalid_plan"),
        (Method::POST, "/import", Some(json!({"prefix": "a b"})), 400, "invalid_id"),
        (Method::POST, "/failover", Some(json!({"days": 1})), 400, "bad_request"),
        (Method::POST, "/failover", Some(json!({"operations": 1})), 409, "history_off"),
        (Method::PUT, "/history", Some(json!({"changes": -1})), 400, "bad_request"),
    ] {
        let (seen, answer) = call(&stack, method.clone(), path, body).await;
        assert_eq!(
            (seen.as_u16(), answer["error"]["code"].as_str()),
            (status, Some(code)),
            "{method} {path}: {answer}"
        );
        assert!(answer["error"]["message"].as_str().is_some_and(|message| message.len() > 10), "{answer}");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twins_are_listed_in_pages_without_loss_or_repeat() {
    let stack = start().await;
    for n in 0..25 {
        let id = TwinId::device(format!("d{n}")).unwrap();
        stack.hub().apply(&Operation::Create { id, twin: None }).unwrap();
        let id = TwinId::module(format!("d{n}"), "m").unwrap();
        stack.hub().apply(&Operation::Create { id, twin: None }).unwrap();
    }
    let mut seen = Vec::new();
    let mut path = "/twins?limit=7".to_owned();
    loop {
        let (_, page) = call(&stack, Method::GET, &path, None).await;
        seen.extend(
            page["twins"]
                .as_array()
                .unwrap()
                .iter()
                .map(|twin| (twin["deviceId"].clone(), twin.get("moduleId").cloned())),
        );
        let Some(continuation) = page["continuation"].as_str() else {
            break;
        };
        path = format!("/twins?limit=7&continuation={continuation}");
    }
    assert_eq!(seen.len(), 50);
    seen.dedup();
    assert_eq!(seen.len(), 50);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_runs_phase_by_phase_and_the_comparison_sees_every_slip() {
    let stack = start().await;
    let plan = Plan { devices: 40, events: 1_000, phases: 2, ..Plan::default() };
    stack.fleet().start(plan, Pace::Backlog).unwrap();
    assert_eq!(stack.fleet().phase_end().await.state, State::Waiting);
    let empty = verify(stack.endpoints()).await.unwrap();
    assert_eq!((empty.missing, empty.is_equal()), (stack.hub().len() as u64, false));
    stack.fleet().start_next_phase().unwrap();
    let progress = stack.fleet().phase_end().await;
    assert_eq!((progress.state, progress.counts.events), (State::Done, 1_000));
    assert!(progress.deleted > 0);
    assert_eq!(progress.counts.events_by_type.values().sum::<u64>(), 1_000);

    write_documents(&stack).await;
    let report = verify(stack.endpoints()).await.unwrap();
    assert!(report.is_equal(), "{report}");
    assert_eq!(report.twins, progress.live as u64);

    // One defect of each kind.
    let container = container(stack.endpoints()).await;
    let twins = stack.hub().page(None, 10).twins;
    let mut slips: BTreeMap<&str, Value> = BTreeMap::new();
    let mut older = document(stack.endpoints(), &twins[0]);
    older["version"] = json!(older["version"].as_u64().unwrap() - 1);
    slips.insert("/version", older);
    let mut metadata = document(stack.endpoints(), &twins[1]);
    metadata["properties"]["reported"]["$metadata"]["$lastUpdated"] = json!("2000-01-01T00:00:00Z");
    slips.insert("/properties/reported/$metadata/$lastUpdated", metadata);
    let mut flagged = document(stack.endpoints(), &twins[2]);
    flagged["sync"]["flags"] = json!(["gap"]);
    flagged["tags"]["unasked"] = json!(1);
    slips.insert("/tags/unasked", flagged);
    for slip in slips.values() {
        let device = slip["deviceId"].as_str().unwrap().to_owned();
        container.upsert_item(device, slip["id"].as_str().unwrap(), slip, None).await.unwrap();
    }
    let report = verify(stack.endpoints()).await.unwrap();
    assert_eq!((report.different, report.missing, report.extra, report.flagged), (3, 0, 0, 1), "{report}");
    let paths: Vec<&str> = report.differences.iter().map(|difference| difference.path.as_str()).collect();
    for path in slips.keys() {
        assert!(paths.contains(path), "{path} not in {paths:?}");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_at_a_rate_keeps_it_and_can_be_stopped() {
    let stack = start().await;
    let plan = Plan { devices: 10, events: 100_000, phases: 1, ..Plan::default() };
    stack.fleet().start(plan.clone(), Pace::Rate(200.0)).unwrap();
    assert!(stack.fleet().start(plan, Pace::Backlog).is_err());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (_, progress) = call(&stack, Method::DELETE, "/fleet", None).await;
    let progress: Progress = serde_json::from_value(progress).unwrap();
    assert_eq!(progress.state, State::Stopped);
    let rate = progress.counts.events as f64 / progress.seconds;
    assert!((150.0..=230.0).contains(&rate), "{rate} events/s");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delivery_faults_change_the_events_but_not_the_twins() {
    let stack = start().await;
    let faults = json!({"seed": 5, "duplicate": 0.1, "replay": 0.1, "coalesce": 0.1});
    call(&stack, Method::PUT, "/faults/delivery", Some(faults)).await;
    stack
        .fleet()
        .start(Plan { devices: 20, events: 500, phases: 1, ..Plan::default() }, Pace::Backlog)
        .unwrap();
    assert_eq!(stack.fleet().phase_end().await.counts.events, 500);
    let counts = stack.hub().delivery_counts();
    let appended: u64 = counts.appended.values().sum();
    assert_eq!(appended, 500 + counts.duplicates + counts.replayed - counts.coalesced);
    assert!(counts.duplicates > 0 && counts.replayed > 0 && counts.coalesced > 0, "{counts:?}");
    stack.stop().await;
}

/// Requests the hub's service API with the token of the endpoints.
async fn registry(stack: &Stack, path: &str) -> (StatusCode, Value) {
    let endpoints = stack.endpoints();
    let url = format!("{}{path}?api-version=2021-04-12", endpoints.iothub);
    let response = Client::new().get(url).bearer_auth(&endpoints.token).send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hubs_past_and_its_service_api_are_driven_over_the_control_port() {
    let stack =
        Stack::start(Options { token: Some("secret".to_owned()), ..Options::default() }).await.unwrap();
    let endpoints = stack.endpoints().clone();
    assert!(
        endpoints.iothub_connection_string.starts_with(&format!("HostName={};", endpoints.iothub_host_name))
    );
    let plan = json!({"devices": 20, "modules": 0.5, "prefix": "old-"});
    let (_, imported) = call(&stack, Method::POST, "/import", Some(plan)).await;
    assert_eq!((&imported["devices"], stack.appended().unwrap()), (&json!(20), 0));
    assert_eq!(stack.hub().len() as u64, 20 + imported["modules"].as_u64().unwrap());

    let device = "old-device-000000";
    let twin = format!("/twins/{device}");
    let before = registry(&stack, &twin).await.1;
    assert_eq!(call(&stack, Method::GET, "/history", None).await.1, json!({"changes": 0}));
    let history = json!({"changes": 1000});
    assert_eq!(call(&stack, Method::PUT, "/history", Some(history.clone())).await.1, history);
    assert_eq!(call(&stack, Method::GET, "/history", None).await.1, history);
    call(&stack, Method::PATCH, &format!("{twin}/reported"), Some(json!({"a": 1}))).await;
    let (status, changed) = call(&stack, Method::POST, "/failover", Some(json!({"operations": 1}))).await;
    assert_eq!((status, changed), (StatusCode::OK, json!({"changed": 1})));
    assert_eq!(registry(&stack, &twin).await.1["version"], before["version"]);
    let change = json!({"status": "disabled", "connectionState": "Connected"});
    call(&stack, Method::PATCH, &format!("/devices/{device}"), Some(change)).await;
    assert_eq!(registry(&stack, &twin).await.1["status"], "disabled");
    assert_eq!(stack.appended().unwrap(), 1, "the report, which was routed before the failover");

    let quota = json!({"tier": "S2", "units": 3});
    assert_eq!(call(&stack, Method::PUT, "/quota/iothub", Some(quota.clone())).await.1, quota);
    assert_eq!(call(&stack, Method::GET, "/quota/iothub", None).await.1, quota);
    assert_eq!(call(&stack, Method::PUT, "/quota/iothub", Some(Value::Null)).await.1, Value::Null);
    let faults = json!({
        "faults": [
            {"trouble": {"delay": {"ms": 1}}},
            {"trouble": {"answer": {"status": 503}}, "operations": "reads", "next": 1},
            {"trouble": "hang", "probability": 0.0, "forMs": 5}
        ],
        "staleByMs": 1000
    });
    assert_eq!(call(&stack, Method::PUT, "/faults/iothub", Some(faults)).await.0, StatusCode::OK);
    assert_eq!(registry(&stack, &twin).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(call(&stack, Method::GET, "/faults/iothub", None).await.1["faults"][1]["next"], 0);
    let (_, counters) = call(&stack, Method::GET, "/counters", None).await;
    assert_eq!(counters["iothub"]["readTwin"]["answers"], json!({"200": 3, "503": 1}));
    call(&stack, Method::POST, "/counters/iothub/reset", None).await;
    assert_eq!(call(&stack, Method::GET, "/counters", None).await.1["iothub"], json!({}));

    assert_eq!(call(&stack, Method::PUT, "/history", Some(json!({"changes": 0}))).await.0, StatusCode::OK);
    let (status, refused) = call(&stack, Method::POST, "/failover", Some(json!({"ms": 60000}))).await;
    assert_eq!((status, &refused["error"]["code"]), (StatusCode::CONFLICT, &json!("history_off")));
    call(&stack, Method::PUT, "/faults/iothub", Some(json!({"staleByMs": 1}))).await;
    let remembered = call(&stack, Method::GET, "/history", None).await.1;
    assert_eq!(remembered, json!({"changes": USUAL_HISTORY}), "stale queries switch it on");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_hubs_share_the_event_hubs_and_nothing_else() {
    let options =
        Options { more_iothubs: vec![AnotherIotHub::named("Fabrikam")], partitions: 1, ..Options::default() };
    let stack = Stack::start(options).await.unwrap();
    let [first, other] = &stack.endpoints().iothubs()[..] else { panic!("two hubs") };
    assert_eq!((first.name.as_str(), other.name.as_str()), ("devkit-hub", "Fabrikam"));
    assert_eq!(other.host_name, "Fabrikam.azure-devices.localhost");
    // The same id in both hubs, with different contents.
    call(&stack, Method::PUT, "/devices/d", Some(json!({"tags": {"of": 1}}))).await;
    call(&stack, Method::PUT, "/devices/d?hub=fabrikam", Some(json!({"tags": {"of": 2}}))).await;
    call(&stack, Method::PATCH, "/twins/d/reported?hub=Fabrikam", Some(json!({"a": 1}))).await;
    call(&stack, Method::PUT, "/faults/delivery?hub=Fabrikam", Some(json!({"duplicate": 0.5}))).await;
    for (hub, version, of) in [("devkit-hub", 2, 1), ("FABRIKAM", 3, 2)] {
        let twin = call(&stack, Method::GET, &format!("/twins/d?hub={hub}"), None).await.1;
        assert_eq!((&twin["version"], &twin["tags"]["of"]), (&json!(version), &json!(of)));
    }
    assert_eq!(call(&stack, Method::GET, "/faults/delivery", None).await.1["duplicate"], 0.0);
    let (status, answer) = call(&stack, Method::GET, "/twins?hub=nobody", None).await;
    assert_eq!((status, &answer["error"]["code"]), (StatusCode::NOT_FOUND, &json!("unknown_hub")));
    assert_eq!(stack.appended().unwrap(), 3, "both route to the same two");
    let url = format!("{}/twins/d?api-version=2021-04-12", other.service);
    let answer = Client::new().get(url).bearer_auth("any").send().await.unwrap();
    assert_eq!(answer.json::<Value>().await.unwrap()["tags"]["of"], 2);

    let plan = json!({"devices": 5, "events": 50, "phases": 1});
    assert_eq!(call(&stack, Method::POST, "/fleet?hub=Fabrikam", Some(plan)).await.0, StatusCode::ACCEPTED);
    assert_eq!(stack.iothubs()[1].fleet().phase_end().await.state, State::Done);
    assert_eq!((stack.hub().len(), stack.fleet().progress().state), (1, State::Idle));

    let compared = verify(stack.endpoints()).await.unwrap();
    let twins = stack.hub().len() + stack.iothubs()[1].service().len();
    assert_eq!((compared.twins, compared.missing), (twins as u64, twins as u64), "{compared}");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_with_event_hubs_of_its_own_routes_to_those() {
    let own = HubNames { lifecycle: "theirs".to_owned(), twin_changes: "theirs".to_owned() };
    let other = AnotherIotHub { hubs: Some(own), ..AnotherIotHub::named("other") };
    let stack = Stack::start(Options { more_iothubs: vec![other], ..Options::default() }).await.unwrap();
    call(&stack, Method::PUT, "/devices/d?hub=other", None).await;
    call(&stack, Method::PATCH, "/twins/d/reported?hub=other", Some(json!({"a": 1}))).await;
    call(&stack, Method::PUT, "/devices/d", None).await;
    let (_, counters) = call(&stack, Method::GET, "/counters", None).await;
    let appended = |hub: &str| -> i64 {
        let last = counters["eventhubs"][hub]["lastSequenceNumbers"].as_array().unwrap();
        last.iter().map(|number| number.as_i64().unwrap() + 1).sum()
    };
    assert_eq!(["theirs", "lifecycle", "twin-changes"].map(appended), [2, 1, 0]);
    assert_eq!(stack.appended().unwrap(), 3);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hubs_of_one_name_are_refused() {
    let options = Options { more_iothubs: vec![AnotherIotHub::named("Devkit-Hub")], ..Options::default() };
    let Err(error) = Stack::start(options).await else { panic!("must be refused") };
    assert!(error.to_string().contains("two iot hubs of the name \"Devkit-Hub\""), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_stream_goes_out_by_itself_when_its_time_has_come() {
    let stack = start().await;
    let skew = json!({"skew": {"late": "deviceLifecycle", "ms": 300}});
    assert_eq!(call(&stack, Method::PUT, "/faults/delivery", Some(skew.clone())).await.1["skew"]["ms"], 300);
    let begun = std::time::Instant::now();
    call(&stack, Method::PUT, "/devices/d", None).await;
    call(&stack, Method::PATCH, "/twins/d/reported", Some(json!({"a": 1}))).await;
    let lifecycle = || stack.broker().partitions("lifecycle").unwrap();
    while lifecycle().iter().all(|partition| partition.last_sequence_number < 0) {
        assert!(begun.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    assert_eq!(stack.appended().unwrap(), 2);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_comparison_looks_past_what_no_event_tells() {
    let hub = iothub::Options { history: 10, ..iothub::Options::default() };
    let stack = Stack::start(Options { iothub: hub, ..Options::default() }).await.unwrap();
    call(&stack, Method::PUT, "/devices/d", None).await;
    write_documents(&stack).await;
    let change = json!({"status": "disabled", "statusReason": "x", "connectionState": "Connected"});
    call(&stack, Method::PATCH, "/devices/d", Some(change)).await;
    let report = verify(stack.endpoints()).await.unwrap();
    assert!(report.is_equal(), "{report}");
    // After a failover, the documents are ahead of the hub. That counts as a difference.
    call(&stack, Method::PATCH, "/twins/d/reported", Some(json!({"a": 1}))).await;
    write_documents(&stack).await;
    call(&stack, Method::POST, "/failover", Some(json!({"operations": 1}))).await;
    let report = verify(stack.endpoints()).await.unwrap();
    assert_eq!((report.different, report.differences[0].path.as_str()), (1, "/version"), "{report}");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_comparison_fails_rather_than_calling_an_unread_side_equal() {
    let stack = start().await;
    let endpoints = stack.endpoints().clone();
    let fault = Fault { next: None, ..Fault::next(500, 1) }.on(devkit::cosmos::Operations::Reads);
    stack.cosmos().set_faults(devkit::cosmos::Faults { answers: vec![fault], ..Default::default() }).unwrap();
    assert!(matches!(verify(&endpoints).await, Err(verify::Error::Documents { .. })));
    stack.cosmos().set_faults(Default::default()).unwrap();
    let wrong = Endpoints { container: "nowhere".to_owned(), ..endpoints.clone() };
    assert!(matches!(verify(&wrong).await, Err(verify::Error::Documents { .. })));
    assert_eq!(verify(&endpoints).await.unwrap(), Report::default());
    stack.stop().await;
    assert!(matches!(verify(&endpoints).await, Err(verify::Error::Twins { .. })));
}

#[derive(Debug)]
struct AnyToken;

#[async_trait::async_trait]
impl TokenCredential for AnyToken {
    async fn get_token(
        &self,
        _scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        Ok(AccessToken::new("devkit", OffsetDateTime::now_utc() + Duration::from_secs(3600)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_client_receives_a_module_twins_event_as_iot_hub_shapes_it() {
    let stack = Stack::start(Options { partitions: 1, ..Options::default() }).await.unwrap();
    let endpoints = stack.endpoints();
    call(&stack, Method::PUT, "/devices/d", None).await;
    call(&stack, Method::PUT, "/devices/d/modules/m", None).await;
    call(&stack, Method::PATCH, "/twins/d/modules/m", Some(json!({"tags": {"gone": null, "größe": 1.5}})))
        .await;

    let consumer = ConsumerClient::builder()
        .with_custom_endpoint(endpoints.eventhubs.clone())
        .open(&endpoints.namespace, endpoints.twin_changes_hub.clone(), Arc::new(AnyToken))
        .await
        .unwrap();
    let from_the_start = StartPosition { location: StartLocation::Earliest, inclusive: false };
    let options = OpenReceiverOptions { start_position: Some(from_the_start), ..Default::default() };
    let receiver = consumer.open_receiver_on_partition("0".to_owned(), Some(options)).await.unwrap();
    let mut events = Box::pin(receiver.stream_events());
    let event = tokio::time::timeout(Duration::from_secs(20), events.next()).await.unwrap().unwrap().unwrap();
    let message = event.raw_amqp_message();

    let AmqpMessageBody::Binary(body) = &message.body else { panic!("not data sections") };
    let body: Value = serde_json::from_slice(body[0].as_ref()).unwrap();
    assert_eq!(body, json!({"version": 3, "tags": {"gone": null, "größe": 1.5}}));
    let properties: BTreeMap<String, String> = message
        .application_properties
        .as_ref()
        .unwrap()
        .0
        .iter()
        .map(|(name, value)| (name.clone(), format!("{value:?}")))
        .collect();
    let names: Vec<&str> = properties.keys().map(String::as_str).collect();
    let expected =
        ["deviceId", "hubName", "iothub-message-schema", "moduleId", "opType", "operationTimestamp"];
    assert_eq!(names, expected);
    assert!(properties["opType"].contains("updateTwin"), "{properties:?}");
    let annotations = format!("{:?}", message.message_annotations);
    for name in [
        "iothub-message-source",
        "iothub-connection-device-id",
        "iothub-connection-module-id",
        "iothub-enqueuedtime",
    ] {
        assert!(annotations.contains(name), "{name} not in {annotations}");
    }
    let basic = message.properties.as_ref().unwrap();
    assert_eq!(basic.content_type.as_ref().map(|kind| kind.0.as_str()), Some("application/json"));
    assert!(basic.user_id.as_ref().is_some_and(|bytes| bytes.starts_with(b"devkit-hub")));
    assert!(basic.message_id.is_none());
    assert!(event.enqueued_time().is_some());
    drop(events);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_the_broker_are_thrown_over_the_control_port() {
    let stack = start().await;
    let throw = async |fault: Value| call(&stack, Method::POST, "/faults/eventhubs", Some(fault)).await;
    assert_eq!(throw(json!({"fault": "dropConnections"})).await.0, StatusCode::OK);
    let undecodable = json!({"fault": "appendUndecodable", "hub": "lifecycle", "partition": 3});
    assert_eq!(throw(undecodable).await.1["sequenceNumber"], 0);
    let expire = json!({"fault": "expireBefore", "hub": "lifecycle", "partition": 3, "sequenceNumber": 1});
    assert_eq!(throw(expire).await.0, StatusCode::OK);
    assert_eq!(stack.broker().partitions("lifecycle").unwrap()[3].first_sequence_number, 1);
    let add = json!({"fault": "addPartitions", "hub": "lifecycle", "count": 2});
    assert_eq!(throw(add).await.1["partitions"], 6);
    assert_eq!(stack.broker().partitions("lifecycle").unwrap().len(), 6);
    for wrong in [
        json!({"fault": "stall", "hub": "nowhere", "partition": 0}),
        json!({"fault": "stall", "hub": "lifecycle", "partition": 6}),
        json!({"fault": "refuseConnections", "seconds": -1}),
        json!({"fault": "addPartitions", "hub": "lifecycle", "count": 0}),
        json!({"fault": "addPartitions", "hub": "lifecycle", "count": 1025}),
        json!({"fault": "sneeze"}),
    ] {
        let (status, answer) = throw(wrong).await;
        assert_eq!((status, &answer["error"]["code"]), (StatusCode::BAD_REQUEST, &json!("bad_request")));
    }
    stack.stop().await;
}

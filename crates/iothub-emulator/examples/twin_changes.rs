//! Creates a device, lets it report properties, and prints what the hub's routes emit and what its service
//! API answers.
//!
//! ```sh
//! cargo run --package iothub-emulator --example twin_changes
//! ```

#![expect(clippy::print_stdout, reason = "the example prints what it receives")]

use std::{error::Error, sync::Arc};

use iothub_emulator::{
    HubNames, Notification, Operation, Options, Route, RouteError, Service, TwinId,
    api::{self, Server},
};
use serde_json::json;

/// Prints each event. Other routes would send it to an Event Hub.
struct Print;

impl Route for Print {
    fn append(&self, hub: &str, partition_key: &str, notification: &Notification) -> Result<(), RouteError> {
        let operation = notification.change.operation_type();
        println!("to {hub}, partition key {partition_key}: {operation} {}", notification.body);
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let hub = Arc::new(Service::new(Options::default(), HubNames::default(), Arc::new(Print)));
    let id = TwinId::device("thermostat-1")?;
    let twin = json!({"tags": {"site": "Oslo"}, "properties": {"desired": {"target": 21}}});
    hub.apply(&Operation::Create { id: id.clone(), twin: Some(twin) })?;
    hub.apply(&Operation::Report { id, patch: json!({"temperature": 20.5}) })?;

    // Back ends sign their requests with the key of a shared access policy, or send a bearer token.
    let options = api::Options {
        listen: ([127, 0, 0, 1], 0).into(),
        host_name: "local.azure-devices.localhost".to_owned(),
        policy: "service".to_owned(),
        key: "a2V5".to_owned(),
        token: Some("any".to_owned()),
        quota: None,
    };
    let server = Server::start(options, hub).await?;
    let url = format!("http://{}/devices/query?api-version=2021-04-12", server.address());
    let query = json!({"query": "SELECT deviceId, version FROM devices WHERE tags.site = 'Oslo'"});
    let answer = reqwest::Client::new().post(url).bearer_auth("any").json(&query).send().await?;
    println!("the query answers {}", answer.error_for_status()?.text().await?);
    server.stop().await;
    Ok(())
}

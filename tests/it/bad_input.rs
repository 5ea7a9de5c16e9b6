//! What a person gets wrong: one clear line that says what and how to mend it, exit code ≠ 0, no panic.

use std::process::Stdio;

use devkit::stack::Options;

use crate::world::{LIMIT, World};

/// Runs the daemon with an environment variable set; it must end by itself with this code, and its last line must
/// hold each of these words.
async fn refused(world: &World, variables: &[(&str, &str)], code: i32, words: &[&str]) {
    let mut command = world.setup.command();
    command.envs(variables.iter().copied()).stdout(Stdio::null()).stderr(Stdio::piped());
    let output =
        tokio::time::timeout(LIMIT, command.output()).await.expect("it ends by itself").expect("runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    let errors: Vec<_> = text.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{text}");
    let after = &text[text.find("error: ").unwrap_or(0)..];
    for word in words {
        assert!(after.contains(word), "no `{word}` in: {text}");
    }
    let secret = world.stack.endpoints().cosmos_key.as_str();
    assert!(!text.contains(secret), "a secret is printed: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistyped_key_names_the_nearest_one() {
    let world = World::with(Options::default(), "[cosmos]\nendpont = \"https://x\"\n").await;
    refused(&world, &[], 2, &["cosmos.endpont", "cosmos.endpoint", "more.toml"]).await;
    let world = World::new().await;
    let variables = [("TWINSYNC__CHECKPOINT__INTERVALL", "5s")];
    refused(&world, &variables, 2, &["TWINSYNC__CHECKPOINT__INTERVALL", "checkpoint.interval"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_hub() {
    let world = World::new().await;
    // Bound and dropped: nobody listens there.
    let address = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port");
    let endpoint = format!("amqp://{address}");
    let variables = [("TWINSYNC__EVENTHUBS__ENDPOINT", endpoint.as_str())];
    refused(&world, &variables, 1, &["cannot read the Event Hub", "lifecycle", "eventhubs.namespace"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_does_not_exist_and_a_group_that_does_not() {
    let world = World::new().await;
    let variables = [("TWINSYNC__EVENTHUBS__LIFECYCLE__HUB", "lifecicle")];
    refused(&world, &variables, 1, &["lifecicle", "check eventhubs.namespace, the hub's name"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token() {
    let options = Options { token: Some("the right one".to_owned()), ..Options::default() };
    let world = World::with(options, "").await;
    let variables = [("TWINSYNC__CREDENTIAL__TOKEN", "the wrong one")];
    refused(&world, &variables, 1, &["refused", "Azure Event Hubs Data Receiver"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_container_and_a_missing_database() {
    let world = World::new().await;
    let variables = [("TWINSYNC__COSMOS__CONTAINER", "twinz")];
    refused(&world, &variables, 1, &["`twinz`", "does not exist", "/deviceId"]).await;
    let variables = [("TWINSYNC__COSMOS__DATABASE", "elsewhere")];
    refused(&world, &variables, 1, &["`elsewhere`", "does not exist"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_account_key() {
    let world = World::new().await;
    let variables = [("TWINSYNC__COSMOS__KEY", "d3Jvbmc=")];
    refused(&world, &variables, 1, &["refused the credential", "cosmos.key"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_not_there() {
    let world = World::new().await;
    let address = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port");
    let endpoint = format!("http://{address}");
    let variables = [("TWINSYNC__COSMOS__ENDPOINT", endpoint.as_str())];
    refused(&world, &variables, 1, &["cannot reach the Cosmos DB account", "cosmos.endpoint"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_taken() {
    let world = World::new().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let variables = [("TWINSYNC__HTTP__LISTEN", address.as_str())];
    refused(&world, &variables, 1, &["http.listen", "another process"]).await;
}

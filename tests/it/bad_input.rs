//! Mistakes in the configuration and in the services: one clear line with the remedy, an exit code ≠ 0, no panic.

use std::process::Stdio;

use devkit::stack::Options;

use crate::world::{LIMIT, World};

/// Runs the daemon with environment variables. It must end by itself with this code, and its last line must
/// contain each of these words.
async fn refused(world: &World, variables: &[(&str, &str)], code: i32, words: &[&str]) {
    let mut command = world.setup.command();
    // The grace period for new rights and for resources that are still being created is tested in `start`.
    command.env("TWINSYNC__START__REFUSED_GRACE", "0s");
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
async fn a_hub_that_does_not_exist_and_a_group_that_does_not() {
    let world = World::new().await;
    let variables = [("TWINSYNC__EVENTHUBS__LIFECYCLE__HUB", "lifecicle")];
    refused(
        &world,
        &variables,
        1,
        &["lifecicle", "check eventhubs.namespace, the hub's name", "EVENTHUBS_NOT_FOUND"],
    )
    .await;
    let variables = [("TWINSYNC__EVENTHUBS__CONSUMER_GROUP", "nobody")];
    refused(&world, &variables, 1, &["nobody", "eventhubs.consumer_group", "EVENTHUBS_NOT_FOUND"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token() {
    let options = Options { token: Some("the right one".to_owned()), ..Options::default() };
    let world = World::with(options, "").await;
    let variables = [("TWINSYNC__CREDENTIAL__TOKEN", "the wrong one")];
    refused(&world, &variables, 1, &["refused", "Azure Event Hubs Data Receiver", "EVENTHUBS_REFUSED"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_container_and_a_missing_database() {
    let world = World::new().await;
    let variables = [("TWINSYNC__COSMOS__CONTAINER", "twinz")];
    refused(&world, &variables, 1, &["`twinz`", "does not exist", "/deviceId", "COSMOS_NOT_FOUND"]).await;
    let variables = [("TWINSYNC__COSMOS__DATABASE", "elsewhere")];
    refused(&world, &variables, 1, &["`elsewhere`", "does not exist", "COSMOS_NOT_FOUND"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_account_key() {
    let world = World::new().await;
    let variables = [("TWINSYNC__COSMOS__KEY", "d3Jvbmc=")];
    refused(&world, &variables, 1, &["refused the credential", "cosmos.key", "COSMOS_REFUSED"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_cannot_be_used_is_told_with_the_systems_reason() {
    let world = World::new().await;
    let taken = world.directory.path().join("taken");
    std::fs::write(&taken, b"").expect("written");
    let below = taken.join("below").display().to_string();
    let variables = [("TWINSYNC__DEAD_LETTERS__PATH", below.as_str())];
    // The operating system's reason ends with this text, whichever call fails.
    let system = "(os error ";
    let words = ["dead_letters.path", "DEAD_LETTER_DIRECTORY_UNUSABLE", system];
    refused(&world, &variables, 1, &words).await;
    let variables = [("TWINSYNC__CHECKPOINT__PATH", below.as_str())];
    refused(&world, &variables, 1, &["CHECKPOINT_IO", below.as_str(), system]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_managed_identity_is_told_by_its_name() {
    let world = World::new().await;
    // App Service sets these variables if there is a managed identity. The port is bound and released, so nothing
    // listens on it.
    let address = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port");
    let identity = format!("http://{address}/msi/token");
    let variables = [
        ("TWINSYNC__CREDENTIAL__KIND", "managed"),
        ("TWINSYNC__EVENTHUBS__ENDPOINT", "amqps://127.0.0.1:5671"),
        ("IDENTITY_ENDPOINT", identity.as_str()),
        ("IDENTITY_HEADER", "x"),
    ];
    let words = ["the credential \"managed\" gives no token", "[credential]", "CREDENTIAL_NO_TOKEN"];
    refused(&world, &variables, 1, &words).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_taken() {
    let world = World::new().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let variables = [("TWINSYNC__HTTP__LISTEN", address.as_str())];
    refused(&world, &variables, 1, &["http.listen", "another process"]).await;
}

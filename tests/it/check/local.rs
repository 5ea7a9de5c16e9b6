//! Checks without connections, and the credential.

use std::{
    net::TcpListener,
    process::Stdio,
    time::{Duration, Instant},
};

use super::{Report, check, check_with, right};
use crate::{
    read_api::ReadApi,
    registry::bench::{Bench, Ended},
    world::{LIMIT, PROGRAM},
};

#[tokio::test(flavor = "multi_thread")]
async fn all_problems_of_a_configuration_are_told_and_the_rest_is_skipped() {
    let bench = right().await;
    let wrong = [
        ("TWINSYNC__CACHE__MAX_BYTES", "much"),
        ("TWINSYNC__COSMOS__ENDPOINT", "ftp://example"),
        ("TWINSYNC__COSMOS__KEY", "a secret that is no base64"),
        ("TWINSYNC__ROUTER__LINGR", "1s"),
        ("TWINSYNC__EVENTHUBS__LIFECYCLE__HUB", ""),
    ];
    for arguments in [&[][..], &["--connect"]] {
        let found = check_with(&bench, &wrong, arguments).await;
        assert_eq!(found.code, 2);
        let problems = found.about("configuration");
        let subjects: Vec<_> = problems.iter().filter_map(|line| line["subject"].as_str()).collect();
        for key in ["cache.max_bytes", "cosmos.endpoint", "cosmos.key", "router.lingr"] {
            assert!(subjects.contains(&key), "{key}: {subjects:?}");
        }
        found.says("configuration", "fail", "CONFIG_INVALID", "did you mean router.linger");
        found.says(
            "configuration",
            "fail",
            "CONFIG_INVALID",
            "fix or unset TWINSYNC__EVENTHUBS__LIFECYCLE__HUB",
        );
        found.says("process.shutdown", "skipped", "", "configuration");
        assert_eq!(found.about("cosmos.write").len(), arguments.len());
        assert!(!format!("{:?}", found.json).contains("a secret"), "a secret is printed");
    }
    let nothing =
        tokio::process::Command::new(PROGRAM).args(["check", "--json"]).output().await.expect("runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    let code = nothing.status.code().expect("it exited");
    let found = Report::of(&Ended { code, out: text(nothing.stdout), errors: text(nothing.stderr) });
    found.says("configuration", "fail", "CONFIG_INVALID", "the variable TWINSYNC__EVENTHUBS__LIFECYCLE__HUB");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_connections_nobody_is_asked_and_only_what_is_local_is_told() {
    let bench = right().await;
    let stack = &bench.world.stack;
    let before = (stack.broker().faults().counters().connections, stack.registry().counters());
    stack.cosmos().reset_counters();
    let found = check(&bench, &[]).await;
    assert_eq!(found.code, 0, "{:?}", found.wrong());
    assert!(found.about("cosmos.write").is_empty() && found.about("clock").is_empty());
    let after = (stack.broker().faults().counters().connections, stack.registry().counters());
    assert_eq!(before, after);
    assert!(stack.cosmos().counters().values().all(|count| count.requests == 0));
    let ended = bench.run(&["check"]).await;
    assert!(ended.out.contains("--connect asks the services as well"), "{}", ended.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_do_not_fit_the_machine_or_each_other_are_warned_of() {
    let bench = right().await;
    let found = check_with(&bench, &[("TWINSYNC__SHUTDOWN__DRAIN_TIMEOUT", "2m")], &[]).await;
    assert_eq!(found.code, 1);
    found.says("process.shutdown", "warn", "SHUTDOWN_GRACE", "terminationGracePeriodSeconds");
    let long = ("TWINSYNC__SHUTDOWN__DRAIN_TIMEOUT", "2m");
    assert_eq!(check_with(&bench, &[long], &["--allow-warnings"]).await.code, 0);
    let wrong = ("TWINSYNC__CACHE__MAX_BYTES", "much");
    assert_eq!(check_with(&bench, &[long, wrong], &["--allow-warnings"]).await.code, 2);
    let found = check_with(&bench, &[("TWINSYNC__IOTHUB__SHARE", "1")], &[]).await;
    found.says("iothub.quota", "warn", "IOTHUB_SHARE", "100 of 100 reads");
    // A listener that never answers.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let found = check_with(&bench, &[("TWINSYNC__HTTP__LISTEN", &address)], &[]).await;
    assert_eq!(found.code, 2);
    found.says("http.listen", "fail", "HTTP_ADDRESS_UNUSABLE", "another process uses it");
    let found = check_with(&bench, &[("TWINSYNC__HTTP__LISTEN", "off")], &[]).await;
    found.says("http.listen", "ok", "", "off");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_open_files_that_is_too_low_is_told() {
    let bench = right().await;
    let mut command = tokio::process::Command::new("sh");
    command.args(["-c", "ulimit -n 100; exec \"$@\"", "sh", PROGRAM, "check", "--json"]);
    for file in ["twinsync.toml", "more.toml"] {
        command.arg("--config").arg(bench.world.directory.path().join(file));
    }
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(LIMIT, output).await.expect("ends").expect("runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    let found = Report::of(&Ended {
        code: output.status.code().expect("it exited"),
        out: text(output.stdout),
        errors: text(output.stderr),
    });
    assert_eq!(found.code, 2);
    found.says("process.files", "fail", "PROCESS_FILE_LIMIT", "100 files may be open");
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_that_cannot_be_used_or_do_not_last_are_told_and_nothing_is_made() {
    let bench = Bench::without_registry("").await;
    let file = bench.world.directory.path().join("a-file");
    std::fs::write(&file, "").expect("written");
    let below = file.join("below").display().to_string();
    let found = check_with(
        &bench,
        &[("TWINSYNC__CHECKPOINT__PATH", &below), ("TWINSYNC__DEAD_LETTERS__PATH", &below)],
        &[],
    )
    .await;
    assert_eq!(found.code, 2);
    found.says("directory.checkpoints", "fail", "CHECKPOINT_IO", "is not a directory");
    found.says("directory.dead_letters", "fail", "DEAD_LETTER_DIRECTORY_UNUSABLE", "dead_letters.path");
    // `/dev/shm` exists on every Linux and does not survive a reboot.
    let memory = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let path = memory.path().join("checkpoints");
    let text = path.display().to_string();
    let found = check_with(&bench, &[("TWINSYNC__CHECKPOINT__PATH", &text)], &[]).await;
    found.says("directory.checkpoints", "warn", "STORAGE_EPHEMERAL", "checkpoint.store = \\\"blob\\\"");
    assert!(!path.exists() && std::fs::read_dir(memory.path()).expect("readable").next().is_none());
    found.says("iothub.quota", "skipped", "", "no IoT hub is configured");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_is_incomplete_or_gives_no_token_is_told_in_seconds() {
    let bench = right().await;
    let workload = [
        ("TWINSYNC__CREDENTIAL__KIND", "workload"),
        ("TWINSYNC__EVENTHUBS__ENDPOINT", ""),
        ("AZURE_TENANT_ID", "00000000-0000-0000-0000-000000000000"),
        ("AZURE_CLIENT_ID", "00000000-0000-0000-0000-000000000001"),
        ("AZURE_FEDERATED_TOKEN_FILE", "/nowhere/token"),
    ];
    let found = check_with(&bench, &workload, &["--connect"]).await;
    found.says("credential.kind", "fail", "CREDENTIAL_UNUSABLE", "/nowhere/token");
    found.says("eventhubs.hub", "skipped", "", "credential.kind");
    // The Azure CLI is not found, because its directory is not in `PATH`.
    let cli =
        [("TWINSYNC__CREDENTIAL__KIND", "cli"), ("TWINSYNC__EVENTHUBS__ENDPOINT", ""), ("PATH", "/nowhere")];
    let started = Instant::now();
    let found = check_with(&bench, &cli, &["--connect"]).await;
    assert!(started.elapsed() < Duration::from_secs(20), "took {:?}", started.elapsed());
    assert_eq!(found.code, 2);
    found.says("credential.kind", "ok", "", "Azure CLI");
    found.says("credential.token", "fail", "CREDENTIAL_NO_TOKEN", "[credential]");
    found.says("eventhubs.hub", "skipped", "", "credential.token (Event Hubs)");
    found.says("cosmos.write", "ok", "", "removed again");
    found.says("iothub.read", "ok", "", "404");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_read_api_needs_is_told_before_its_start() {
    let bench = Bench::without_registry("").await;
    check_with(&bench, &[], &[]).await.says("serve.certificate", "skipped", "", "lets nobody in");
    // A running twinsync holds the address and is recognised by its answers.
    let api = ReadApi::start(&bench.world, "").await;
    let at = |name: &str| api.file(name).display().to_string();
    let (address, certificate, key) = (api.address(), at("tls.crt"), at("tls.key"));
    let strings = |host: &str| {
        format!("HostName={host};SharedAccessKeyName=p;SharedAccessKey={}", crate::read_api::KEY)
    };
    let good = strings("localhost");
    let right = [
        ("TWINSYNC__SERVE__CONNECTION_STRINGS", good.as_str()),
        ("TWINSYNC__SERVE__LISTEN", address.as_str()),
        ("TWINSYNC__SERVE__CERTIFICATE_FILE", certificate.as_str()),
        ("TWINSYNC__SERVE__KEY_FILE", key.as_str()),
    ];
    let with = |name: &'static str, value: &str| {
        let value = value.to_owned();
        let bench = &bench;
        async move {
            let changed: Vec<_> = right
                .iter()
                .map(|(key, old)| (*key, if *key == name { value.as_str() } else { old }))
                .collect();
            check_with(bench, &changed, &[]).await
        }
    };
    let found = with("", "").await;
    found.says("serve.listen", "ok", "", "running twinsync serve");
    found.says("serve.certificate", "ok", "", "for localhost; it expires in");
    let other = with("TWINSYNC__SERVE__CONNECTION_STRINGS", &strings("twins.contoso.example")).await;
    other.says("serve.certificate", "warn", "CERTIFICATE_NAME", "not for twins.contoso.example");
    let swapped = with("TWINSYNC__SERVE__KEY_FILE", &certificate).await;
    swapped.says("serve.certificate", "fail", "CERTIFICATE_UNUSABLE", "has no private key");
    let missing = with("TWINSYNC__SERVE__CERTIFICATE_FILE", "/nowhere/tls.crt").await;
    missing.says("serve.certificate", "fail", "CERTIFICATE_UNUSABLE", "/nowhere/tls.crt");
    assert_eq!(missing.code, 2);
    // Another process holds the address.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let elsewhere = taken.local_addr().expect("bound").to_string();
    with("TWINSYNC__SERVE__LISTEN", &elsewhere).await.says(
        "serve.listen",
        "fail",
        "HTTP_ADDRESS_UNUSABLE",
        &elsewhere,
    );
    drop(taken);
    with("TWINSYNC__SERVE__LISTEN", &elsewhere).await.says("serve.listen", "ok", "", "is free");
}

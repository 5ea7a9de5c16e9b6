//! The command line: one line of JSON, one line per error, and exit codes for scripts.

#![expect(clippy::unwrap_used, reason = "a test fails by panic, in its helpers too")]

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use devkit::{
    fleet::{Progress, State},
    stack::Endpoints,
    verify::Report,
};
use serde_json::{Value, json};

struct Devkit(Child);

impl Drop for Devkit {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn devkit(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_devkit"));
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Exit code, standard output, standard error.
fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = devkit(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim_end().to_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn get(url: &str) -> Value {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async { reqwest::get(url).await.unwrap().json().await.unwrap() })
}

#[test]
fn the_command_line_starts_drives_verifies_and_stops() {
    let up = ["up", "--partitions", "2", "--another-iothub", "second", "--history", "25"];
    let mut up = Devkit(devkit(&up).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(up.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let endpoints: Endpoints = serde_json::from_str(&line).unwrap();
    let control = endpoints.control.as_str();

    let (code, out, _) = run(&["verify", "--control", control, "--json"]);
    let report: Report = serde_json::from_str(&out).unwrap();
    assert_eq!((code, report), (Some(0), Report::default()));

    let fleet = [
        "fleet",
        "--control",
        control,
        "--devices",
        "5",
        "--events",
        "50",
        "--seed",
        "9",
        "--barrier",
        "none",
    ];
    let (code, out, err) = run(&fleet);
    assert_eq!(code, Some(0), "{err}");
    let progress: Progress = serde_json::from_str(&out).unwrap();
    assert_eq!((progress.state, progress.counts.events), (State::Done, 50));

    // Nothing copies the twins here, so the command waits in vain.
    let began = Instant::now();
    let (code, out, _) = run(&["verify", "--control", control, "--wait", "1"]);
    assert_eq!(code, Some(1));
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(
        out.starts_with(&format!("{} twins, 0 different, {} missing", progress.live, progress.live)),
        "{out}"
    );

    // The same fleet again has the same device ids, which exist already.
    let (code, _, err) = run(&fleet);
    assert_eq!((code, err.lines().count()), (Some(2), 1), "{err}");
    assert!(err.contains("prefix"), "{err}");

    // Another hub does not have these devices.
    let (code, _, err) = run(&[&fleet[..], &["--hub", "second"]].concat());
    assert_eq!(code, Some(0), "{err}");
    let (_, out, _) = run(&["verify", "--control", control, "--wait", "0"]);
    assert!(out.starts_with(&format!("{} twins, 0 different", 2 * progress.live)), "{out}");
    let (code, _, err) = run(&[&fleet[..], &["--hub", "third"]].concat());
    assert!(code == Some(2) && err.contains("there are: devkit-hub, second"), "{err}");

    for hub in ["devkit-hub", "second"] {
        assert_eq!(get(&format!("{control}/history?hub={hub}")), json!({"changes": 25}), "{hub}");
    }

    // A second devkit on a port of the first one.
    let port = endpoints.iothub.rsplit(':').next().unwrap();
    let (code, _, err) = run(&["up", "--iothub-port", port]);
    assert!(code == Some(2) && err.contains("service api") && err.contains(port), "{err}");
    let port = endpoints.cosmos.trim_end_matches('/').rsplit(':').next().unwrap();
    let (code, out, err) = run(&["up", "--cosmos-port", port]);
    assert_eq!((code, out.as_str(), err.lines().count()), (Some(2), "", 1), "{err}");
    assert!(err.contains(port), "{err}");

    let pid = up.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(up.0.wait().unwrap().code(), Some(0));
    let (code, out, err) = run(&["verify", "--control", control]);
    assert_eq!((code, out.as_str(), err.lines().count()), (Some(2), "", 1), "{err}");
}

#[test]
fn bad_arguments_are_told_in_one_line() {
    for arguments in [
        &["up", "--partitions", "0"][..],
        &["up", "--cosmos-port", "70000"],
        &["up", "--throughput", "10"],
        &["up", "--azurite-port", "10000"],
        &["up", "--iothub-tier", "B1"],
        &["up", "--iothub-units", "2"],
        &["up", "--history", "-1"],
        &["up", "--cosmos-partitions", "0"],
        &["up", "--cosmos-partitions", "101"],
        &["up", "--iothub-tier", "S3", "--iothub-units", "11"],
        &["sideways"],
        &["verify"],
        &["fleet", "--control", "not a url"],
    ] {
        let (code, out, err) = run(arguments);
        assert_eq!((code, out.as_str(), err.lines().count()), (Some(2), "", 1), "{arguments:?}: {err}");
        assert!(err.starts_with("devkit: ") && err.len() > 20, "{err}");
    }
}

#[test]
fn blob_storage_without_node_says_what_to_install() {
    let output = devkit(&["up", "--azurite"]).env("PATH", "/nowhere").output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), error.lines().count()), (Some(2), 1), "{error}");
    assert!(error.contains("node is not installed: Azurite") && error.contains("nodejs and npm"), "{error}");
}

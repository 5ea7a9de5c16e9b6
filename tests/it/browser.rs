//! The status page in a real browser: it loads without an error, its numbers change, an outage turns it red with the reason, it
//! recovers, and it can be used in dark mode, on a phone, and with only a keyboard.
//!
//! Needs Chromium (`apt-get install chromium`) and Node.js. Run it with
//! `cargo test -p twinsync --test it -- --ignored browser::`. `TWINSYNC_CHROMIUM` names another program, and
//! `TWINSYNC_SCREENSHOTS` a directory for the screenshots: `docs/images` for those in the documentation.

mod twin;

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use devkit::fleet::Pace;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::world::{World, plan};

/// Time limit for an answer of the browser.
const LIMIT: Duration = Duration::from_secs(120);

struct Browser {
    _process: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Browser {
    /// Installs the scripts and their packages in the build directory and starts the browser.
    async fn start() -> Self {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("browser");
        std::fs::create_dir_all(&directory).expect("a directory");
        for file in [".npmrc", "package.json", "package-lock.json", "page.mjs"] {
            std::fs::copy(scripts.join(file), directory.join(file)).expect("copied");
        }
        let installed =
            Command::new("npm").arg("ci").current_dir(&directory).output().await.expect("npm runs");
        assert!(installed.status.success(), "{installed:?}");
        let chromium = std::env::var("TWINSYNC_CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".to_owned());
        let mut process = Command::new("node")
            .arg("page.mjs")
            .arg(chromium)
            .current_dir(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("node runs");
        let (commands, answers) = (process.stdin.take(), process.stdout.take());
        Self {
            _process: process,
            commands: commands.expect("piped"),
            answers: BufReader::new(answers.expect("piped")).lines(),
        }
    }

    async fn tell(&mut self, command: Value) -> Value {
        self.commands.write_all(format!("{command}\n").as_bytes()).await.expect("it listens");
        let answer = tokio::time::timeout(LIMIT, self.answers.next_line()).await.expect("in time");
        let answer = answer.expect("it runs").expect("it answers");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        assert!(answer["error"].is_null(), "{command}: {answer:#}");
        answer
    }

    async fn says(&mut self, element: &str, text: &str) -> Value {
        self.tell(json!({"text": element, "contains": text})).await
    }

    async fn is_accessible(&mut self) {
        let accessibility = self.tell(json!({"axe": true})).await;
        assert_eq!(accessibility["violations"], json!([]), "{accessibility:#}");
        assert!(
            accessibility["passes"].as_u64().is_some_and(|passes| passes > 10),
            "too few checks: {accessibility}"
        );
    }

    async fn picture(&mut self, name: &str) {
        if let Some(directory) = std::env::var_os("TWINSYNC_SCREENSHOTS") {
            let path = PathBuf::from(directory).canonicalize().expect("a directory").join(name);
            self.tell(json!({"screenshot": path})).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium"]
async fn the_page_tells_the_truth_and_can_be_used_by_everybody() {
    let more = "[http]\nblocked_after = \"2s\"\n[[counts]]\nname = \"devices\"\n[[counts]]\nname = \"by_firmware\"\n\
                group_by = \"properties.reported.firmware.version\"\n";
    let world = World::with(Default::default(), more).await;
    let daemon = world.start().await;
    let url = format!("http://{}/", daemon.address());
    let mut browser = Browser::start().await;

    // Numbers change under load.
    let fleet = world.stack.fleet();
    fleet.start(plan(50, 6000, 7), Pace::Rate(150.0)).expect("the fleet starts");
    assert_eq!(browser.tell(json!({"open": url})).await["status"], 200);
    browser.says("#headline", "In step").await;
    browser.tell(json!({"changes": "#completed"})).await;
    browser.tell(json!({"changes": "#decisions"})).await;
    browser.says("#completed", "/s").await;
    browser.says("#partitions", "receiving").await;
    for text in ["by firmware", "without a value", "2.0.0"] {
        browser.says("#counts", text).await;
    }
    browser.says("#counts-note", "As of").await;
    browser.is_accessible().await;
    assert_eq!(browser.tell(json!({"console": true})).await["errors"], json!([]));
    // The curve is shown after a few samples.
    browser.tell(json!({"text": ".curve svg", "contains": ""})).await;
    browser.picture("status-light.png").await;

    // An outage with its reason, and the recovery.
    world.cosmos_is_away(true);
    let red = browser.says("#headline", "Blocked: the document store has not answered since ").await;
    assert!(
        red["text"].as_str().expect("a text").to_uppercase().starts_with("BAD"),
        "the state is also a word, not only a colour: {red}"
    );
    browser.says("#dependencies", "down").await;
    browser.is_accessible().await;
    browser.picture("status-outage.png").await;
    world.cosmos_is_away(false);
    browser.says("#headline", "In step").await;

    // In dark mode, on a phone.
    browser.tell(json!({"open": url, "width": 390, "height": 844, "scheme": "dark"})).await;
    browser.says("#headline", "In step").await;
    assert_eq!(browser.tell(json!({"overflow": true})).await["pixels"], 0, "no horizontal scrolling");
    browser.is_accessible().await;
    browser.picture("status-phone-dark.png").await;

    // With only a keyboard: every control is reached and shows the focus.
    let focused = browser.tell(json!({"tab": 7})).await;
    let focused = focused["focused"].as_array().expect("a list");
    assert!(focused.iter().all(|focus| focus["visible"] == true), "{focused:#?}");
    for name in ["#partitions-heading", "Table of partitions", "Table of warnings and errors", "/api/status"]
    {
        assert!(focused.iter().any(|focus| focus["name"] == name), "{name}: {focused:#?}");
    }
    assert_eq!(browser.tell(json!({"console": true})).await["errors"], json!([]));

    // Many tabs: their event streams must not use all six connections that a browser opens to one host.
    let tabs = browser.tell(json!({"tabs": 9, "contains": "In step"})).await;
    let headlines = tabs["headlines"].as_array().expect("a list");
    let all_tell = headlines.iter().all(|text| text.as_str().is_some_and(|text| !text.contains("No answer")));
    assert!(headlines.len() == 9 && all_tell, "{tabs:#}");
    println!("nine tabs beside the page tell of a later moment after {} s", tabs["seconds"]);

    // The page of a stopped replica says so and does not show old data as current.
    fleet.stop();
    daemon.stop().await.expect("exit code 0");
    browser.says("#headline", "No answer from the replica since").await;
}

impl Browser {
    async fn requests(&mut self, path: &str) -> u64 {
        self.tell(json!({"requests": true})).await["requests"][path].as_u64().unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium"]
async fn the_page_polls_without_events_pauses_while_hidden_and_loads_a_new_release() {
    let world = World::with(Default::default(), "[http]\nblocked_after = \"2s\"\n").await;
    let daemon = world.start().await;
    let url = format!("http://{}/", daemon.address());
    let mut browser = Browser::start().await;

    // A proxy that refuses the event stream, and one that holds it back.
    for way in ["refuse", "hold"] {
        browser.tell(json!({"events": way})).await;
        browser.tell(json!({"open": url})).await;
        browser.says("#headline", "In step").await;
        for _ in 0..3 {
            browser.tell(json!({"changes": "#connection"})).await;
        }
        let (polls, streams) = (browser.requests("/api/status").await, browser.requests("/api/events").await);
        assert!(polls >= 4, "{way}: the page polled only {polls} times");
        assert_eq!(streams, 1, "{way}: the page opens the event stream once");
        world.cosmos_is_away(true);
        for number in 0..8 {
            world.apply(crate::world::create(&format!("{way}-{number}")));
        }
        let red = browser.says("#headline", "Blocked: the document store has not answered since ").await;
        println!("events: {way}: red after {} s", red["seconds"]);
        world.cosmos_is_away(false);
        let green = browser.says("#headline", "In step").await;
        assert!(!green["text"].as_str().expect("a text").contains("No answer"), "{green}");
    }

    // A hidden page makes no requests. When it is shown again, it refreshes.
    browser.tell(json!({"events": "pass"})).await;
    browser.tell(json!({"open": url})).await;
    browser.says("#headline", "In step").await;
    browser.tell(json!({"hide": true})).await;
    let before = browser.tell(json!({"requests": true})).await;
    let shown = browser.says("#connection", "As of").await["text"].clone();
    // A fixed time, because the test is that nothing happens: longer than the interval of the page's requests.
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(browser.tell(json!({"requests": true})).await, before, "a hidden page makes no requests");
    assert_eq!(
        browser.says("#connection", "As of").await["text"],
        shown,
        "a hidden page shows the time of its data"
    );
    browser.tell(json!({"hide": false})).await;
    let fresh = browser.tell(json!({"changes": "#connection"})).await;
    assert!(fresh["after"].as_str().is_some_and(|text| text.starts_with("As")), "{fresh}");
    browser.says("#connection", "As of").await;
    assert!(
        browser.requests("/api/status").await
            > before["requests"]["/api/status"].as_u64().unwrap_or_default()
    );

    // The page of another release is loaded once.
    assert_eq!(browser.tell(json!({"requests": true})).await["loads"], 1);
    browser.tell(json!({"release": "9.9.9"})).await;
    browser.tell(json!({"hide": true})).await;
    browser.tell(json!({"hide": false})).await;
    browser.says("#version", "9.9.9").await;
    assert_eq!(browser.tell(json!({"requests": true})).await["loads"], 2, "the page was loaded again");
    for _ in 0..3 {
        browser.tell(json!({"changes": "#connection"})).await;
    }
    assert_eq!(
        browser.tell(json!({"requests": true})).await["loads"],
        2,
        "the page was loaded only once more"
    );
    daemon.stop().await.expect("exit code 0");
}

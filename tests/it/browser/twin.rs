//! The page of one twin: it asks for the token, shows the twin and its differences from the hub, shows device data as text and
//! never as HTML, and can be used on a phone and with only a keyboard.

use devkit::iothub::Operation;
use serde_json::{Value, json};

use super::Browser;
use crate::{
    registry::bench::{Bench, FAST},
    twins::{TOKEN, found, with_token},
    world::{create, device, report},
};

/// A value that changes the page if it is interpreted as HTML.
const SCRIPT: &str = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">";
/// The same as a property name. IoT Hub does not allow dots and spaces in names.
const NAME: &str = "<script>alert(1)</script><img/src=x/onerror=alert(1)>";

impl Browser {
    /// Types into the focused element and presses Enter.
    async fn enter(&mut self, text: &str) {
        self.tell(json!({"type": text})).await;
        self.tell(json!({"press": "Enter"})).await;
    }

    async fn has_focus(&mut self, name: &str) {
        assert_eq!(self.tell(json!({"focus": true})).await["name"], name);
    }

    /// No value that was typed or shown became an HTML element.
    async fn is_only_text(&mut self) {
        assert_eq!(self.tell(json!({"count": "script"})).await["elements"], 1, "only the page's own script");
        assert_eq!(self.tell(json!({"count": "img, iframe, [onerror]"})).await["elements"], 0);
        let title = self.tell(json!({"title": true})).await["title"].clone();
        assert!(title.as_str().is_some_and(|title| title.ends_with("– twinsync")), "{title}");
    }

    /// The errors in the browser's console, except the refusals that the test causes and the aborted event stream of the status
    /// page.
    async fn complaints(&mut self) -> Vec<Value> {
        let errors = self.tell(json!({"console": true})).await["errors"].clone();
        let errors = errors.as_array().expect("a list").clone();
        let expected = ["with a status of 401", "with a status of 404", "/api/events: net::ERR_ABORTED"];
        let provoked =
            |error: &Value| error.as_str().is_some_and(|text| expected.iter().any(|it| text.contains(it)));
        errors.into_iter().filter(|error| !provoked(error)).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium"]
async fn the_page_about_a_twin_asks_for_the_token_and_shows_what_there_is() {
    let bench = Bench::new(FAST, &format!("[audit]\ninterval = \"off\"\n{}", with_token())).await;
    let daemon = bench.start().await;
    bench.world.apply(create("pump-7"));
    let patch = |patch: Value| Operation::Patch { id: device("pump-7"), patch };
    let desired = json!({"rate": 15, "window": {"from": "22:00", "to": "06:00"}});
    bench.world.apply(patch(json!({"tags": {"site": "north"}, "properties": {"desired": desired}})));
    bench.world.apply(report("pump-7", json!({"rate": 12.5, "firmware": "1.4.2"})));
    bench.world.equal().await;
    let url = format!("http://{}/twins", daemon.address());
    let mut browser = Browser::start().await;

    // From the status page, with only a keyboard: the device, a wrong token, the right token.
    assert_eq!(browser.tell(json!({"open": format!("http://{}/", daemon.address())})).await["status"], 200);
    browser.tell(json!({"click": "a[href='/twins']"})).await;
    browser.says("#headline", "Which device?").await;
    browser.is_accessible().await;
    browser.has_focus("device").await;
    browser.enter("pump-7").await;
    browser.says("#headline", "you need the token").await;
    browser.is_accessible().await;
    browser.has_focus("token").await;
    browser.enter("0123456789abcdef0123456789abcdef").await;
    browser.says("#headline", "This is not the token").await;
    browser.has_focus("token").await;
    browser.enter(TOKEN).await;
    let headline = browser.says("#headline", "The twin is there. The copy has its version").await;
    assert!(
        headline["text"].as_str().is_some_and(|text| text.to_uppercase().starts_with("PRESENT")),
        "{headline}"
    );
    browser.says("#facts", "began with its creation at").await;
    browser.says("#document", "\"firmware\": \"1.4.2\"").await;
    browser.is_only_text().await;
    browser.is_accessible().await;

    // The token is stored in this tab only.
    let kept = browser.tell(json!({"kept": true})).await;
    assert_eq!(kept["session"], json!({"twinsync-token": TOKEN}), "{kept}");
    assert_eq!((&kept["local"], &kept["cookies"]), (&json!({}), &json!([])), "{kept}");
    assert!(kept["url"].as_str().is_some_and(|url| url.ends_with("/twins/pump-7")), "{kept}");

    // Comparison with the hub.
    bench
        .alter("pump-7", |document| {
            document["tags"]["site"] = json!("south");
            document["properties"]["desired"]["window"]["to"] = json!("05:00");
        })
        .await;
    let focused = browser.tell(json!({"tab": 12})).await["focused"].clone();
    let focused = focused.as_array().expect("a list");
    let seen = |focus: &Value| focus["visible"] == true || focus["name"] == "BODY"; // the focus starts again at the body
    assert!(focused.iter().all(seen), "{focused:#?}");
    assert_eq!(focused[0]["name"], "again", "the focus starts in the twin's section: {focused:#?}");
    for name in ["/", "again", "compare", "forget", "The document as it is stored"] {
        assert!(focused.iter().any(|focus| focus["name"] == name), "{name}: {focused:#?}");
    }
    browser.tell(json!({"click": "#compare"})).await;
    browser.says("#comparison-text", "The copy and the hub differ at the same version.").await;
    browser.says("#differences", "/tags/site").await;
    browser.says("#differences", "south").await;
    let headline = browser.says("#headline", "The hub says something else.").await;
    assert_eq!(headline["text"].as_str().map(|text| text.contains("version 4")), Some(true), "{headline}");
    browser.has_focus("comparison-heading").await;
    browser.is_accessible().await;
    browser.picture("twin.png").await;

    // Markup is shown as text, whatever its source.
    let applied = bench.world.stack.hub().apply(&patch(json!({"tags": {"note": SCRIPT, NAME: 1}})));
    let version = applied.expect("valid").version.expect("there");
    found(&daemon, &format!("/pump-7?min_version={version}&wait=20s")).await;
    bench.alter("pump-7", |document| document["tags"][NAME] = json!(SCRIPT)).await;
    browser.tell(json!({"click": "#compare"})).await;
    browser.says("#differences", "<script>document.title='owned'</script>").await;
    browser.says("#differences", "<script>alert(1)<~1script>").await;
    browser.says("#document", "<script>alert(1)</script>").await;
    browser.is_only_text().await;
    assert_eq!(browser.complaints().await, Vec::<Value>::new());

    // On a phone, in dark mode, from a link; an id that no device has, and one that contains markup.
    let phone = json!({"open": format!("{url}/pump-7"), "width": 390, "height": 844, "scheme": "dark"});
    browser.tell(phone).await;
    browser.says("#headline", "you need the token").await;
    browser.enter(TOKEN).await;
    browser.says("#headline", "The twin is there.").await;
    browser.tell(json!({"click": "#compare"})).await;
    browser.says("#differences", "/tags/site").await;
    assert_eq!(browser.tell(json!({"overflow": true})).await["pixels"], 0, "no horizontal scrolling");
    browser.is_accessible().await;
    browser.tell(json!({"fill": "#device", "with": SCRIPT})).await;
    browser.tell(json!({"press": "Enter"})).await;
    browser.says("#headline", "the copy has no such twin").await;
    browser.says("#facts", SCRIPT).await;
    browser.is_only_text().await;
    assert_eq!(browser.tell(json!({"overflow": true})).await["pixels"], 0, "no horizontal scrolling");
    browser.tell(json!({"back": true})).await;
    browser.says("#headline", "The twin is there.").await;

    // A deleted twin, a forgotten token, and a replica that has stopped.
    bench.world.apply(Operation::Delete { id: device("pump-7") });
    bench.world.equal().await;
    browser.tell(json!({"click": "#again"})).await;
    browser.says("#headline", "The twin was deleted at").await;
    browser.is_accessible().await;
    browser.tell(json!({"click": "#forget"})).await;
    browser.says("#headline", "The token is forgotten.").await;
    assert_eq!(browser.tell(json!({"kept": true})).await["session"], json!({}));
    assert_eq!(browser.complaints().await, Vec::<Value>::new());
    daemon.stop().await.expect("exit code 0");
    browser.enter(TOKEN).await;
    browser.says("#headline", "The replica cannot be reached.").await;
}

//! The time according to a service: the `Date` of any of its answers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use azure_core::time::parse_rfc7231;
use reqwest::{
    Client,
    header::{DATE, HOST},
    redirect::Policy,
};
use url::Url;

use crate::domain::checks::Measured;

/// Sends a request to `url` without credentials, because a refusal also has a `Date`. `host` is the host name in the
/// request if it differs from the address. `None` if there is no answer within `limit`, or the answer has no `Date`.
pub async fn measure(service: &str, url: &Url, host: Option<&str>, limit: Duration) -> Option<Measured> {
    let client = Client::builder()
        .user_agent(concat!("twinsync/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        .timeout(limit)
        .build()
        .ok()?;
    let get = |url: &Url| {
        let request = client.get(url.clone());
        match host {
            Some(host) => request.header(HOST, host),
            None => request,
        }
    };
    // The first request opens the connection; its duration says nothing about the clock.
    let answer = async {
        get(url).send().await.ok()?.bytes().await.ok()?;
        let asked = now();
        let answer = get(url).send().await.ok()?;
        let answered = now();
        let date =
            answer.headers().get(DATE)?.to_str().ok().and_then(|date| parse_rfc7231(date.trim()).ok())?;
        Some(Measured::new(service, date.unix_timestamp() as f64, asked, answered))
    };
    tokio::time::timeout(limit, answer).await.ok()?
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

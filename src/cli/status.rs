//! `twinsync status` and `twinsync healthcheck`: ask a running replica.

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use serde_json::Value;
use url::Url;

use super::{
    Error, Sources,
    output::{json, line, printable, table},
};
use crate::{
    config,
    domain::{
        headline::Level,
        ticks::Ticks,
        words::{about, grouped},
    },
    http,
    status::schema::{Count, DeadLetters, Dependency, Hub, Logged, Partition, SCHEMA, Scan, Status, Token},
};

/// Time limit of an answer.
const LIMIT: Duration = Duration::from_secs(5);
/// Time between two requests with `--watch`.
const INTERVAL: Duration = Duration::from_secs(2);
/// Clears a terminal and goes to its top.
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";
/// Maximum number of requests, and the pause between them, while the replica still collects values that it only collects on request.
const ATTEMPTS: u32 = 10;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(300);
/// Maximum number of log lines that are shown.
const LINES: usize = 8;

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Repeats every two seconds, until Ctrl-C.
    #[arg(long)]
    watch: bool,
    /// Prints the answer of /api/status as JSON, one line per request.
    #[arg(long)]
    json: bool,
}

/// Arguments of `healthcheck`.
#[derive(Debug, clap::Args)]
pub struct HealthcheckArguments {
    #[command(flatten)]
    place: Place,
    /// Checks whether the replica is ready, not only whether it is live.
    #[arg(long)]
    ready: bool,
}

/// Which replica.
#[derive(Debug, clap::Args)]
struct Place {
    #[command(flatten)]
    sources: Sources,
    /// Address of the replica, e.g. http://127.0.0.1:8080. Default: http.listen of the configuration.
    #[arg(long, value_name = "URL")]
    address: Option<Url>,
}

impl Place {
    fn url(&self, path: &str) -> Result<Url, Error> {
        let base = match &self.address {
            Some(address) => address.clone(),
            None => self.configured()?,
        };
        base.join(path).map_err(|error| Error::Usage(format!("--address {base}: {error}")))
    }

    fn configured(&self) -> Result<Url, Error> {
        let listen = config::listen_address(&self.sources.files, config::process_environment())?;
        let Some(address) = listen else {
            let text = "http.listen is \"off\", so a replica with this configuration does not serve its status: give --address";
            return Err(Error::Usage(text.to_owned()));
        };
        let address = http::reachable(address);
        Url::parse(&format!("http://{address}/")).map_err(|error| Error::Failed(error.to_string()))
    }
}

fn client() -> Result<reqwest::Client, Error> {
    // A proxy from the environment is for outgoing requests, not for the replica on this machine.
    let client = reqwest::Client::builder().timeout(LIMIT).no_proxy().build();
    client.map_err(|error| Error::Failed(format!("cannot create an HTTP client: {error}")))
}

async fn get(client: &reqwest::Client, url: &Url) -> Result<reqwest::Response, Error> {
    client.get(url.clone()).send().await.map_err(|error| {
        let cause = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        let cause = cause.last().map(ToString::to_string).unwrap_or_default();
        Error::Failed(format!(
            "no answer from {url}: {cause}; is the replica running, and does it listen there?"
        ))
    })
}

/// Shows the status. The exit code is 1 if the headline is bad.
pub async fn run(arguments: &Arguments) -> Result<(), Error> {
    let url = arguments.place.url("api/status")?;
    let client = client()?;
    if !arguments.watch {
        let (mut answer, mut status) = ask(&client, &url).await?;
        for _ in 0..ATTEMPTS {
            if !status.is_asking() {
                break;
            }
            // The previous request made the replica collect these values.
            tokio::time::sleep(ATTEMPT_PAUSE).await;
            (answer, status) = ask(&client, &url).await?;
        }
        print(&answer, &status, arguments.json)?;
        return match status.headline.level {
            Level::Good | Level::Attention => Ok(()),
            Level::Bad => Err(Error::Failed("the replica needs attention: see above".to_owned())),
        };
    }
    loop {
        if !arguments.json && io::stdout().is_terminal() {
            line(CLEAR)?;
        }
        // With `--watch`, an outage of the replica must not end the command.
        match ask(&client, &url).await {
            Ok((answer, status)) => print(&answer, &status, arguments.json)?,
            Err(error) => line(error)?,
        }
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(()),
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

fn print(answer: &Value, status: &Status, as_json: bool) -> Result<(), Error> {
    match as_json {
        true => json(answer),
        false => show(status),
    }
}

async fn ask(client: &reqwest::Client, url: &Url) -> Result<(Value, Status), Error> {
    let answer = get(client, url).await?;
    let unreadable = |reason: String| {
        Error::Failed(format!("{url} does not answer as a twinsync of this version does: {reason}"))
    };
    if !answer.status().is_success() {
        return Err(unreadable(answer.status().to_string()));
    }
    let answer: Value = answer.json().await.map_err(|error| unreadable(error.to_string()))?;
    let schema = answer["schema"].as_u64();
    if schema != Some(SCHEMA.into()) {
        let found = schema.map_or("none".to_owned(), |found| found.to_string());
        return Err(unreadable(format!("schema {found}, not {SCHEMA}")));
    }
    let status = serde_json::from_value(answer.clone()).map_err(|error| unreadable(error.to_string()))?;
    Ok((answer, status))
}

/// Requests `/livez` or `/readyz`. The exit code is the answer.
pub async fn healthcheck(arguments: &HealthcheckArguments) -> Result<(), Error> {
    let path = if arguments.ready { "readyz" } else { "livez" };
    let url = arguments.place.url(path)?;
    let answer = get(&client()?, &url).await?;
    let (status, text) = (answer.status(), answer.text().await.unwrap_or_default());
    match status.is_success() {
        true => Ok(()),
        false => Err(Error::Failed(format!("{url}: {status} {}", printable(text.trim(), false)))),
    }
}

fn show(status: &Status) -> Result<(), Error> {
    let word = match status.headline.level {
        Level::Good => "GOOD",
        Level::Attention => "ATTENTION",
        Level::Bad => "BAD",
    };
    line(format_args!("{word}  {}", printable(&status.headline.text, false)))?;
    for reason in status.reasons.iter().skip(1).chain(&status.warnings) {
        line(format_args!("  also: {}", printable(reason, false)))?;
    }
    line("")?;
    line(table(&figures(status)).trim_end())?;
    line("")?;
    let mut rows =
        vec![["PARTITION", "STATE", "BEHIND", "EVENTS", "RETENTION USED", "OWNER"].map(str::to_owned)];
    rows.extend(status.partitions.iter().map(|found| partition(found, status.at)));
    line(table(&rows).trim_end())?;
    line("")?;
    let heads = ["DEPENDENCY", "STATE", "SINCE", "ASKED", "NEXT TRY", "WHAT IT SAID"];
    let mut rows = vec![heads.map(str::to_owned)];
    rows.extend(status.dependencies.iter().map(|found| dependency(found, status.at)));
    line(table(&rows).trim_end())?;
    if !status.tokens.is_empty() {
        line("")?;
        let mut rows = vec![["TOKEN", "ISSUED", "VALID FOR", "NOT RENEWED"].map(str::to_owned)];
        rows.extend(status.tokens.iter().map(|found| token(found, status.at)));
        line(table(&rows).trim_end())?;
    }
    if !status.hubs.is_empty() {
        line("")?;
        let heads = ["IOT HUB", "NOW", "LAST AUDIT", "LAST CLEAN AUDIT", "NEXT AUDIT", "DONE BY"];
        let mut rows = vec![heads.map(str::to_owned)];
        rows.extend(status.hubs.iter().map(|found| hub(found, status.at)));
        line(table(&rows).trim_end())?;
    }
    if !status.counts.counts.is_empty() {
        line("")?;
        let mut rows = vec![["COUNT", "TWINS", "LARGEST GROUPS", "AS OF"].map(str::to_owned)];
        rows.extend(status.counts.counts.iter().map(|found| count(found, status.counts.as_of, status.at)));
        line(table(&rows).trim_end())?;
    }
    if !status.log.is_empty() {
        line("")?;
        let mut rows = vec![["LAST", "TIMES", "KIND", "LINE"].map(str::to_owned)];
        rows.extend(status.log.iter().take(LINES).map(logged));
        line(table(&rows).trim_end())?;
    }
    Ok(())
}

/// Names and values of the figures.
fn figures(status: &Status) -> Vec<[String; 2]> {
    let Status { freshness, flow, store, dead_letters, twins, .. } = status;
    let units: f64 = store.request_units_per_second.values().sum();
    let loss = match &status.loss {
        Some(loss) => format!("{}, in {}/{}", duration(loss.seconds), loss.stream, loss.partition),
        None => "not known".to_owned(),
    };
    let lag = match (flow.lag_events, flow.caught_up_in_seconds) {
        (None, _) => "not measured".to_owned(),
        (Some(events), None) => format!("{} events", grouped(events)),
        (Some(events), Some(left)) => format!("{} events, done in about {}", grouped(events), duration(left)),
    };
    let rows = [
        ("replica", format!("{} {} ({})", status.replica.name, status.replica.version, status.replica.phase)),
        (
            "freshness p50 / p99",
            format!("{} / {}", known(freshness.p50_seconds), known(freshness.p99_seconds)),
        ),
        ("time to data loss", loss),
        ("behind", lag),
        (
            "completed / arrived",
            format!("{} / {}", rate(flow.completed_per_second), rate(flow.arrived_per_second)),
        ),
        ("request units", format!("{units:.1}/s")),
        (
            "throttled",
            store.throttled_share.map_or("–".to_owned(), |share| format!("{:.1} %", share * 100.0)),
        ),
        ("repairs waiting", grouped(twins.repairs_waiting)),
        ("events lost", grouped(twins.events_lost)),
        ("dead letters", letters(dead_letters, status.at)),
    ];
    rows.into_iter().map(|(name, value)| [name.to_owned(), printable(&value, false)]).collect()
}

fn letters(letters: &DeadLetters, now: Ticks) -> String {
    let DeadLetters { stored, since_start, command, .. } = letters;
    let count = match (stored.count, &stored.reason) {
        (Some(count), _) => {
            let more = if stored.more { "more than " } else { "" };
            let oldest = stored.oldest.filter(|_| count > 0);
            let oldest = oldest.map(|at| format!(", the oldest {}", ago(at, now))).unwrap_or_default();
            format!("{more}{} stored{oldest}", grouped(count))
        }
        (None, Some(reason)) => format!("not known how many are stored ({reason})"),
        (None, None) => "not known yet how many are stored".to_owned(),
    };
    let mut reasons: Vec<_> = stored.by_reason.iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let reasons: Vec<_> =
        reasons.iter().take(3).map(|(reason, count)| format!("{} {reason}", grouped(**count))).collect();
    let reasons = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
    format!("{count}{reasons}, {} since the start; see {command}", grouped(*since_start))
}

fn partition(partition: &Partition, now: Ticks) -> [String; 6] {
    let state = match &partition.reason {
        Some(reason) => format!("{}: {reason}", partition.state),
        None => partition.state.clone(),
    };
    let state = match (partition.basis.as_deref(), partition.lag_measured) {
        (Some("checkpoint"), Some(at)) => format!("{state}, from its checkpoint {}", ago(at, now)),
        _ => state,
    };
    [
        format!("{}/{}", partition.stream, partition.partition),
        printable(&state, false),
        match partition.basis.as_deref() {
            Some("checkpoint") if partition.lag_seconds > Some(0.0) => {
                format!("at least {}", known(partition.lag_seconds))
            }
            _ => known(partition.lag_seconds),
        },
        partition.lag_events.map_or("–".to_owned(), grouped),
        partition.retention_used.map_or("–".to_owned(), |share| format!("{:.1} %", share * 100.0)),
        printable(partition.owner.as_deref().unwrap_or("nobody"), false),
    ]
}

fn dependency(dependency: &Dependency, now: Ticks) -> [String; 6] {
    [
        dependency.name.clone(),
        dependency.state.clone(),
        dependency.down_since.map(|since| since.to_string()).unwrap_or_default(),
        dependency.asked.map_or("not yet".to_owned(), |at| ago(at, now)),
        dependency.next_try.map(|at| format!("in {}", duration(at.seconds_since(now)))).unwrap_or_default(),
        printable(dependency.reason.as_deref().unwrap_or_default(), false),
    ]
}

fn token(token: &Token, now: Ticks) -> [String; 4] {
    let reason = token.reason.as_deref().unwrap_or_default();
    [
        token.scope.clone(),
        token.obtained.map_or("–".to_owned(), |at| ago(at, now)),
        match token.expires.map(|at| at.seconds_since(now)) {
            None => "–".to_owned(),
            Some(left) if left <= 0.0 => "expired".to_owned(),
            Some(left) => duration(left),
        },
        token.failed.map(|at| printable(&format!("{}: {reason}", ago(at, now)), false)).unwrap_or_default(),
    ]
}

fn hub(hub: &Hub, now: Ticks) -> [String; 6] {
    let audit = |at: Option<Ticks>, twins: Option<u64>, left: Option<u64>| match at {
        None => "none yet".to_owned(),
        Some(at) => {
            let twins = twins.map(|twins| format!(", {} twins", grouped(twins))).unwrap_or_default();
            let left = left.map(|left| format!(", {} different", grouped(left))).unwrap_or_default();
            format!("{}{twins}{left}", ago(at, now))
        }
    };
    [
        printable(&hub.hub, false),
        hub.scan.as_ref().map_or("–".to_owned(), |scan| printable(&scanning(scan), false)),
        audit(hub.audit_completed, hub.audit_twins, hub.audit_differences_left),
        audit(hub.clean_audit, hub.clean_audit_twins, None),
        hub.next_audit.map_or("–".to_owned(), |at| format!("in {}", duration(at.seconds_since(now)))),
        printable(hub.done_by.as_deref().unwrap_or("–"), false),
    ]
}

/// Number of groups of a count on its line. `/api/counts` has all of them.
const GROUPS: usize = 3;

fn count(count: &Count, as_of: Option<Ticks>, now: Ticks) -> [String; 4] {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let group = |row: &Value| {
        let values = row.as_object().into_iter().flatten().filter(|(label, _)| *label != "twins");
        let values: Vec<_> = values.map(|(_, value)| text(value)).collect();
        let name = if values.is_empty() { "without a value".to_owned() } else { values.join(", ") };
        format!("{name}: {}", grouped(row["twins"].as_u64().unwrap_or_default()))
    };
    let rows = count.rows.as_deref();
    let is_grouped = count.query.contains(" GROUP BY ");
    let groups = match rows {
        Some(rows) if is_grouped => {
            let shown: Vec<_> = rows.iter().take(GROUPS).map(group).collect();
            let more = rows.len().saturating_sub(GROUPS) as u64 + count.omitted;
            let more = if more > 0 { format!("; {} more", grouped(more)) } else { String::new() };
            format!("{}{more}", shown.join("; "))
        }
        None if count.total.is_some() => "too many to show one by one".to_owned(),
        Some(_) | None => String::new(),
    };
    [
        count.name.clone(),
        count.total.map_or("not known yet".to_owned(), grouped),
        printable(&groups, false),
        as_of.map_or("–".to_owned(), |at| ago(at, now)),
    ]
}

fn scanning(scan: &Scan) -> String {
    let mut text = format!("{} ({}): {}", scan.what, scan.stage, grouped(scan.dealt_with));
    if let Some(out_of) = scan.out_of {
        text += &format!(" of about {}", grouped(out_of));
    }
    if scan.per_second.is_some() {
        text += &format!(", {}", rate(scan.per_second));
    }
    if let Some(left) = scan.done_in_seconds {
        text += &format!(", done in about {}", duration(left));
    }
    if let Some(cause) = &scan.waits_for {
        text += &format!(", waits for {cause}");
    }
    text
}

fn logged(entry: &Logged) -> [String; 4] {
    let code = entry.code.as_deref().map(|code| format!(" ({code})")).unwrap_or_default();
    let hint = entry.hint.as_deref().map(|hint| format!(" – {hint}")).unwrap_or_default();
    [
        entry.last.to_string(),
        grouped(entry.count),
        entry.level.clone(),
        printable(&format!("{}{code}{hint}", entry.message), false),
    ]
}

/// How long ago a time was. Less than a moment ago is "now".
fn ago(at: Ticks, now: Ticks) -> String {
    match now.seconds_since(at) {
        ..1.0 => "now".to_owned(),
        seconds => format!("{} ago", duration(seconds)),
    }
}

fn duration(seconds: f64) -> String {
    about(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
}

fn known(seconds: Option<f64>) -> String {
    seconds.map_or("–".to_owned(), duration)
}

fn rate(per_second: Option<f64>) -> String {
    per_second.map_or("–".to_owned(), |rate| format!("{rate:.1}/s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(address: Option<&str>) -> Place {
        Place {
            sources: Sources { files: Vec::new() },
            address: address.map(|text| text.parse().expect("a URL")),
        }
    }

    #[test]
    fn the_address_that_is_given_is_asked_with_or_without_a_slash() {
        for address in ["http://127.0.0.1:8080", "http://127.0.0.1:8080/"] {
            let url = place(Some(address)).url("api/status").expect("a URL");
            assert_eq!(url.as_str(), "http://127.0.0.1:8080/api/status");
        }
    }
}

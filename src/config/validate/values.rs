//! Parsers of single values: each turns text into a value or a message about what is wrong.

use std::{net::IpAddr, num::NonZeroU32, ops::RangeInclusive, path::PathBuf, time::Duration};

use url::{Host, Url};

use crate::config::human;

/// Allowed intervals. Shorter ones only put load on the namespace.
const PARTITION_DISCOVERY_INTERVALS: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(30 * 60);

/// Maximum duration of a lease, its renewal or a shutdown. Longer values are typing errors.
const DURATION_MAX: Duration = Duration::from_secs(3600);

/// Event Hubs keeps events for a day by default.
const TOMBSTONE_TTL_MIN: Duration = Duration::from_secs(86_400);

/// The retentions that Event Hubs supports: from an hour to the 90 days of Premium and Dedicated.
const RETENTION: RangeInclusive<Duration> = Duration::from_secs(3600)..=Duration::from_secs(90 * 86_400);

pub(super) fn required(text: &str) -> Result<(), String> {
    if text.is_empty() { Err("is required and not set".to_owned()) } else { Ok(()) }
}

pub(super) fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
        return Ok(*value);
    }
    let names: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    Err(format!("{text:?} is not one of the choices: use {}", names.join(", ")))
}

/// A whole number from 1 to `max`.
pub(super) fn count(text: &str, max: u32) -> Result<NonZeroU32, String> {
    text.replace('_', "")
        .parse::<NonZeroU32>()
        .ok()
        .filter(|number| number.get() <= max)
        .ok_or_else(|| format!("{text:?} is out of range: give a whole number from 1 to {max}"))
}

pub(super) fn positive_duration(text: &str) -> Result<Duration, String> {
    human::parse_duration(text).and_then(|duration| match duration.is_zero() {
        true => Err(format!("{text:?} must be longer than 0")),
        false => Ok(duration),
    })
}

/// Event Hubs keeps events for at least an hour. The events in a new partition must be found well before that.
pub(super) fn partition_discovery_interval(text: &str) -> Result<Duration, String> {
    human::parse_duration(text).and_then(|interval| match PARTITION_DISCOVERY_INTERVALS.contains(&interval) {
        true => Ok(interval),
        false => Err(format!("{text:?} is out of range: give \"1s\" to \"30m\"")),
    })
}

/// Parses a duration that a person may have to wait for.
pub(super) fn bounded_duration(text: &str) -> Result<Duration, String> {
    positive_duration(text).and_then(|duration| match duration > DURATION_MAX {
        true => Err(format!("{text:?} is too long: give at most \"1h\"")),
        false => Ok(duration),
    })
}

/// Like [`bounded_duration`], but 0 is allowed: then the first refusal is final.
pub(super) fn grace(text: &str) -> Result<Duration, String> {
    human::parse_duration(text).and_then(|duration| match duration > DURATION_MAX {
        true => Err(format!("{text:?} is too long: give at most \"1h\"")),
        false => Ok(duration),
    })
}

pub(super) fn positive_size(text: &str) -> Result<usize, String> {
    human::parse_size(text).and_then(|size| match size {
        0 => Err(format!("{text:?} must be more than 0")),
        size => Ok(size),
    })
}

/// Parses a retention, from the shortest to the longest that Event Hubs supports.
pub(super) fn retention(text: &str) -> Result<Duration, String> {
    let duration = human::parse_duration(text)?;
    match RETENTION.contains(&duration) {
        true => Ok(duration),
        false => Err(format!("{text:?} is not a retention that Event Hubs supports: give \"1h\" to \"90d\"")),
    }
}

/// Parses a time to live. Cosmos DB's `ttl` is a positive 32-bit number of seconds.
pub(super) fn time_to_live(text: &str) -> Result<Duration, String> {
    let duration = human::parse_duration(text)?;
    let fits = duration.as_secs() <= i32::MAX as u64 && duration.subsec_nanos() == 0;
    if !fits {
        return Err(format!("{text:?} must be whole seconds, from \"1d\" to \"24855d\""));
    }
    if duration < TOMBSTONE_TTL_MIN {
        return Err(format!(
            "{text:?} is shorter than Event Hubs keeps events, so that late ones would bring deleted twins back: give at \
             least \"1d\", and more than the hub's retention"
        ));
    }
    Ok(duration)
}

pub(super) fn namespace(text: &str) -> Result<String, String> {
    const EXAMPLE: &str = "write only the host name, e.g. \"contoso.servicebus.windows.net\"";
    required(text).map_err(|message| format!("{message}: {EXAMPLE}"))?;
    let lower = text.to_ascii_lowercase();
    if lower.contains("sharedaccesskey") || lower.starts_with("endpoint=") {
        // Not quoted, because it contains a key.
        return Err(format!(
            "is a connection string, which this client cannot use: {EXAMPLE} and see [credential]"
        ));
    }
    if text.contains("://") || text.contains('/') {
        return Err(format!("{text:?} is a URL: {EXAMPLE}"));
    }
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if !text.split('.').all(label) {
        return Err(format!("{text:?} is not a host name: {EXAMPLE}"));
    }
    if !text.contains('.') && text != "localhost" {
        return Err(format!("{text:?} is not fully qualified: write e.g. \"{text}.servicebus.windows.net\""));
    }
    Ok(lower)
}

/// Names of Event Hubs and consumer groups: letters, digits, `.`, `-`, `_`, `$`; at most 256 (Azure resource naming).
pub(super) fn entity_name(text: &str) -> Result<String, String> {
    required(text)?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_$".contains(&byte);
    if text.len() > 256 || !text.bytes().all(allowed) {
        return Err(format!(
            "{text:?} is not a name: use letters, digits, '.', '-', '_', at most 256 of them"
        ));
    }
    Ok(text.to_owned())
}

/// Names of Cosmos DB databases and containers: no `/ \ ? #`, at most 255.
pub(super) fn cosmos_name(text: &str) -> Result<String, String> {
    required(text)?;
    if text.len() > 255 || text.contains(['/', '\\', '?', '#']) {
        return Err(format!(
            "{text:?} is not a name: it must have none of / \\ ? # and at most 255 characters"
        ));
    }
    Ok(text.to_owned())
}

pub(super) fn amqp_endpoint(text: &str) -> Result<Url, String> {
    const EXAMPLE: &str = "write e.g. \"amqp://127.0.0.1:5672\"";
    let url = Url::parse(text).map_err(|error| format!("{text:?} is not a URL ({error}): {EXAMPLE}"))?;
    if !matches!(url.scheme(), "amqp" | "amqps") || url.host_str().is_none_or(str::is_empty) {
        return Err(format!("{text:?} is not an AMQP address: {EXAMPLE}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("contains a user name or password: {EXAMPLE} and see [credential]"));
    }
    Ok(url)
}

pub(super) fn cosmos_endpoint(text: &str, local: impl Fn(&Url) -> bool) -> Result<Url, String> {
    const EXAMPLE: &str = "write e.g. \"https://contoso.documents.azure.com\"";
    required(text).map_err(|message| format!("{message}: {EXAMPLE}"))?;
    if text.to_ascii_lowercase().contains("accountkey=") {
        return Err(format!("is a connection string: {EXAMPLE} and put a key into cosmos.key"));
    }
    // The text is not repeated until it is known to contain no secret: it may be any URL.
    let url = Url::parse(text).map_err(|error| format!("is not a URL ({error}): {EXAMPLE}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("contains a user name or password: {EXAMPLE} and put a key into cosmos.key"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("contains a query or fragment, such as a signature: {EXAMPLE}"));
    }
    if !matches!(url.path(), "" | "/") {
        return Err(format!("contains a path: {EXAMPLE}; database and container are keys of their own"));
    }
    match (url.scheme(), url.host_str()) {
        ("https" | "http", None | Some("")) => Err(format!("{text:?} names no host: {EXAMPLE}")),
        ("https", Some(_)) => Ok(url),
        ("http", Some(_)) if local(&url) => Ok(url),
        ("http", Some(host)) => Err(format!(
            "{text:?} is not https: {EXAMPLE}; for an emulator on another host set \
             AZURE_COSMOS_EMULATOR_HOST={host} as well"
        )),
        (_, _) => Err(format!("{text:?} is not an https address: {EXAMPLE}")),
    }
}

pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
    }
}

pub(super) fn directory(text: &str) -> Result<PathBuf, String> {
    required(text)?;
    if text.contains('\0') { Err("is not a path".to_owned()) } else { Ok(PathBuf::from(text)) }
}

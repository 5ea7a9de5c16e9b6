//! `[otlp]`.

use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::Url;

use super::values::{bounded_duration, choice, count};
use super::{
    super::{human, raw, secret::Secret, settings::Otlp},
    Check,
};
use crate::domain::sampling::Ratio;

/// Maximum number of waiting spans. More would take gigabytes.
const QUEUED_MAX: u32 = 1_000_000;

/// The path that is appended to the address of a receiver, according to the protocol.
const TRACES: &str = "v1/traces";

impl Check<'_> {
    /// `Some(None)`: off.
    pub(super) fn otlp(&mut self, raw: &raw::Otlp) -> Option<Option<Otlp>> {
        let endpoint = self.optional("otlp.endpoint", &raw.endpoint, endpoint);
        let headers = self.parse("otlp.headers", raw.headers.expose(), headers);
        let sample_ratio = self.parse("otlp.sample_ratio", &raw.sample_ratio, ratio);
        let slow_after = self.parse("otlp.slow_after", &raw.slow_after, |text| match text {
            "off" => Ok(None),
            text => human::parse_duration(text).map(Some),
        });
        let service_name = self.parse("otlp.service_name", &raw.service_name, |text| match text {
            "" => Err("is empty: write e.g. \"twinsync\"".to_owned()),
            text => Ok(text.to_owned()),
        });
        let resource_attributes =
            self.parse("otlp.resource_attributes", &raw.resource_attributes, |text| pairs(text, "attribute"));
        let device_ids = self
            .parse("otlp.device_ids", &raw.device_ids, |text| choice(text, &[("on", true), ("off", false)]));
        let timeout = self.parse("otlp.timeout", &raw.timeout, timeout);
        let max_queued_spans =
            self.parse("otlp.max_queued_spans", &raw.max_queued_spans, |text| count(text, QUEUED_MAX));
        let otlp = Otlp {
            endpoint: match endpoint? {
                Some(endpoint) => endpoint,
                None => return Some(None),
            },
            headers: headers?,
            sample_ratio: sample_ratio?,
            slow_after: slow_after?,
            service_name: service_name?,
            resource_attributes: resource_attributes?,
            device_ids: device_ids?,
            timeout: timeout?,
            max_queued_spans: max_queued_spans?,
        };
        Some(Some(otlp))
    }
}

fn endpoint(text: &str) -> Result<Url, String> {
    const EXAMPLE: &str = "write e.g. \"http://127.0.0.1:4318\"";
    // The URL itself may contain a secret.
    let mut url = Url::parse(text).map_err(|error| format!("is not a URL ({error}): {EXAMPLE}"))?;
    match url.scheme() {
        "http" | "https" if url.has_host() => {}
        _ => return Err(format!("is not the address of an HTTP receiver: {EXAMPLE}")),
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        return Err("contains more than an address: put secrets into otlp.headers".to_owned());
    }
    let path = format!("{}/{TRACES}", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

fn headers(text: &str) -> Result<Vec<(String, Secret)>, String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let pairs = pairs(text, "header")?.into_iter().map(|(name, value)| {
        if !name.bytes().all(is_token) {
            return Err("has a header with an invalid name: write name=value,name=value".to_owned());
        }
        match value.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte)) {
            true => Ok((name, Secret::new(&value))),
            false => Err(format!("has a value that is not allowed in a header, that of {name:?}")),
        }
    });
    pairs.collect()
}

/// Parses `name=value,name=value`, with values percent-encoded where necessary, in OpenTelemetry's form.
fn pairs(text: &str, what: &str) -> Result<Vec<(String, String)>, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let pair = |part: &str| {
        let (name, value) =
            part.split_once('=').filter(|(name, _)| !name.trim().is_empty()).ok_or_else(|| {
                format!(
                    "has a part that is no {what}: write name=value,name=value; a comma in a value is %2C"
                )
            })?;
        let value = percent_decode_str(value.trim()).decode_utf8();
        let value = value.map_err(|_| format!("has a value that is not UTF-8, that of {:?}", name.trim()))?;
        Ok((name.trim().to_owned(), value.into_owned()))
    };
    parts.map(pair).collect()
}

fn ratio(text: &str) -> Result<Ratio, String> {
    let ratio = text.parse().ok().and_then(Ratio::new);
    ratio.ok_or_else(|| format!("{text:?} is out of range: give a number from 0 to 1"))
}

fn timeout(text: &str) -> Result<Duration, String> {
    bounded_duration(text)
}

//! `[iothub]` and the sections that depend on it: `[repair]`, `[backfill]`, `[audit]`.

use std::{num::NonZeroU32, time::Duration};

use url::Url;

use super::values::{choice, count, is_loopback, positive_duration};
use super::{
    super::{
        hub::{self, Endpoints},
        human, raw,
        settings::{Audit, Backfill, BackfillOnStart, Hub, HubAccess, Identity, IotHub, Repair},
    },
    Check,
};
use crate::domain::quota::Tier;

/// Maximum number of units of a hub (Microsoft's page "IoT Hub quotas and throttling").
const UNITS_MAX: u32 = 200;

/// Maximum number of concurrent repairs. More would only wait for the hub's quota.
const REPAIRS_MAX: u32 = 64;

/// Maximum number of twins that a backfill processes at the same time. More would only wait for the hub's quota.
const BACKFILL_MAX: u32 = 256;

/// An audit remembers the twins that it will ask about. A hub has at most a million devices.
const RECENT_MAX: u32 = 1_000_000;

/// Minimum interval of audits. An audit takes many pages of queries, and the smallest hub allows 20 pages per minute.
const AUDIT_INTERVAL_MIN: Duration = Duration::from_secs(60);

impl Check<'_> {
    pub(super) fn iothub(&mut self, raw: &raw::IotHub, identity: Option<&Identity>) -> Option<IotHub> {
        let of_hosts = self.hubs("iothub.hosts", &raw.hosts, hub::of_host);
        let of_strings = self.hubs(
            "iothub.connection_strings",
            raw.connection_strings.expose(),
            hub::of_connection_string,
        );
        let endpoints = self.optional("iothub.endpoint", &raw.endpoint, hub::endpoints);
        let tiers = [("free", Tier::Free), ("s1", Tier::S1), ("s2", Tier::S2), ("s3", Tier::S3)];
        let tier = self.parse("iothub.tier", &raw.tier, |text| choice(text, &tiers));
        let units = self.parse("iothub.units", &raw.units, |text| count(text, UNITS_MAX));
        let share = self.parse("iothub.share", &raw.share, share);
        let with_identity = self
            .parse("iothub.identity", &raw.identity, |text| choice(text, &[("off", false), ("on", true)]));
        let request_timeout = self.parse("iothub.request_timeout", &raw.request_timeout, positive_duration);

        let (mut hubs, of_strings) = (of_hosts?, of_strings?);
        let endpoints = endpoints?.unwrap_or(Endpoints::NONE);
        for (key, found) in [("iothub.hosts", &hubs[..]), ("iothub.connection_strings", &of_strings[..])] {
            if let Some(twice) = repeated(found) {
                self.problem(key, format!("names the hub {twice:?} twice: once is enough"));
            }
        }
        for hub in of_strings {
            if hubs.iter().any(|other| other.name == hub.name) {
                self.problem(
                    "iothub.connection_strings",
                    format!(
                        "names the hub {:?}, which iothub.hosts names too: name it in one of them only",
                        hub.name
                    ),
                );
            }
            hubs.push(hub);
        }
        if let Some(nobodys) = endpoints.names().find(|name| hubs.iter().all(|hub| hub.name != **name)) {
            self.problem(
                "iothub.endpoint",
                format!("has an address for {nobodys:?}, which is not a configured hub"),
            );
        }
        for hub in &mut hubs {
            hub.endpoint = endpoints.of(&hub.name).cloned();
        }
        self.tokens(&hubs, &endpoints, identity);
        Some(IotHub {
            hubs,
            tier: tier?,
            units: units?,
            share: share?,
            identity: with_identity?,
            request_timeout: request_timeout?,
        })
    }

    /// Checks that no token is sent where it could be seen, or where it is useless.
    fn tokens(&mut self, hubs: &[Hub], endpoints: &Endpoints, identity: Option<&Identity>) {
        let emulated = matches!(identity, Some(Identity::Emulator { .. }));
        let is_plain = |url: &Url| url.scheme() == "http";
        let mut with_tokens = hubs.iter().filter(|hub| hub.access == HubAccess::Credential);
        if emulated {
            if with_tokens.any(|hub| hub.endpoint.is_none()) {
                self.problem(
                    "iothub.hosts",
                    "needs another credential.kind, or iothub.endpoint: Azure does not accept the emulator's fixed token",
                );
            }
        } else if endpoints.urls().any(|url| is_plain(url) && !is_loopback(url)) {
            self.problem(
                "iothub.endpoint",
                "http would show a real token to the network: use https; http is for loopback addresses and for \
                 credential.kind = \"emulator\"",
            );
        } else if identity.is_some() && with_tokens.any(|hub| hub.endpoint.as_ref().is_some_and(is_plain)) {
            self.problem(
                "iothub.endpoint",
                "http would show a real token of [credential]: use https, iothub.connection_strings instead of \
                 iothub.hosts, or credential.kind = \"emulator\"",
            );
        }
    }

    /// Parses a list of hubs. `None` if one of them is wrong.
    fn hubs(
        &mut self,
        key: &str,
        text: &str,
        parse: impl Fn(&str) -> Result<Hub, String>,
    ) -> Option<Vec<Hub>> {
        self.parse(key, text, |text| hub::items(text).map(parse).collect())
    }

    pub(super) fn repair(&mut self, raw: &raw::Repair) -> Option<Repair> {
        let concurrency = self.parse("repair.concurrency", &raw.concurrency, |text| count(text, REPAIRS_MAX));
        let scan_interval = self.parse("repair.scan_interval", &raw.scan_interval, positive_duration);
        Some(Repair { concurrency: concurrency?, scan_interval: scan_interval? })
    }

    pub(super) fn backfill(&mut self, raw: &raw::Backfill, iothub: Option<&IotHub>) -> Option<Backfill> {
        let choices = [("never", BackfillOnStart::Never), ("if_empty", BackfillOnStart::IfEmpty)];
        let on_start = self.parse("backfill.on_start", &raw.on_start, |text| choice(text, &choices));
        let concurrency: Option<NonZeroU32> =
            self.parse("backfill.concurrency", &raw.concurrency, |text| count(text, BACKFILL_MAX));
        if on_start == Some(BackfillOnStart::IfEmpty) && iothub.is_some_and(|iothub| !iothub.is_configured())
        {
            self.problem(
                "backfill.on_start",
                "\"if_empty\" needs a hub to copy from: set iothub.hosts or iothub.connection_strings",
            );
        }
        Some(Backfill { on_start: on_start?, concurrency: concurrency? })
    }

    pub(super) fn audit(&mut self, raw: &raw::Audit) -> Option<Audit> {
        let interval = self.parse("audit.interval", &raw.interval, |text| match text {
            "off" => Ok(None),
            text => match human::parse_duration(text)? {
                interval if interval < AUDIT_INTERVAL_MIN => {
                    Err(format!("{text:?} is too short: write \"1m\" or more, or \"off\""))
                }
                interval => Ok(Some(interval)),
            },
        });
        let tolerance = self.parse("audit.tolerance", &raw.tolerance, human::parse_duration);
        let recent_checks =
            self.parse("audit.recent_checks", &raw.recent_checks, |text| count(text, RECENT_MAX));
        let repair = self.parse("audit.repair", &raw.repair, |text| {
            choice(text, &[("on", true), ("off", false), ("true", true), ("false", false)])
        });
        Some(Audit {
            interval: interval?,
            tolerance: tolerance?,
            recent_checks: recent_checks?,
            repair: repair?,
        })
    }
}

fn repeated(hubs: &[Hub]) -> Option<&str> {
    let repeats = |(place, hub): &(usize, &Hub)| hubs[..*place].iter().any(|other| other.name == hub.name);
    hubs.iter().enumerate().find(repeats).map(|(_, hub)| hub.name.as_str())
}

/// Parses a fraction: greater than 0, at most 1.
fn share(text: &str) -> Result<f64, String> {
    text.parse::<f64>()
        .ok()
        .filter(|share| *share > 0.0 && *share <= 1.0)
        .ok_or_else(|| format!("{text:?} is not a share: give a number above 0 and up to 1, such as \"0.5\""))
}

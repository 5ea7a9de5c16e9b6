//! The result of the demo, as a table or as JSON.

use std::fmt;

use devkit::{iothub::DeliveryCounts, metrics::Sample, verify};
use serde::Serialize;

use crate::telemetry::{Decision, name};

/// The report of the demo.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub(super) devices: u32,
    pub(super) seed: u64,
    #[serde(flatten)]
    pub(super) figures: Figures,
    pub(super) delivery: DeliveryCounts,
    pub(super) verified: verify::Report,
}

/// Measured figures, from the daemon's own metrics.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Figures {
    events: u64,
    decisions: Vec<(&'static str, u64)>,
    backlog_seconds: f64,
    events_per_second: f64,
    writes_per_event: f64,
    reads_per_event: f64,
    request_units_per_event: f64,
    steady_events: u64,
    freshness_p50_milliseconds: Option<f64>,
    freshness_p99_milliseconds: Option<f64>,
}

impl Figures {
    pub(super) fn new(before: &Sample, backlog: &Sample, after: &Sample, backlog_seconds: f64) -> Self {
        let grown = |metric, label: &str| after.sum(metric, label) - before.sum(metric, label);
        let handled = |sample: &Sample| sample.count(name::EVENTS, "");
        let events = handled(after) - handled(before);
        let backlog_events = handled(backlog) - handled(before);
        let per_event = |amount: f64| amount / events.max(1) as f64;
        let milliseconds =
            |quantile| after.quantile(backlog, name::FRESHNESS, quantile).map(|seconds| seconds * 1000.0);
        let decisions = Decision::ALL.iter().map(|decision| {
            let label = decision.label();
            (label, grown(name::EVENTS, &format!("decision=\"{label}\"")) as u64)
        });
        Self {
            events,
            decisions: decisions.collect(),
            backlog_seconds,
            events_per_second: backlog_events as f64 / backlog_seconds.max(f64::MIN_POSITIVE),
            writes_per_event: per_event(grown(name::WRITES, "outcome=\"written\"")),
            reads_per_event: per_event(grown(name::READS, "")),
            request_units_per_event: per_event(grown(name::REQUEST_UNITS, "")),
            steady_events: handled(after) - handled(backlog),
            freshness_p50_milliseconds: milliseconds(0.5),
            freshness_p99_milliseconds: milliseconds(0.99),
        }
    }
}

/// Number of twins without an equal document, and of documents without a twin.
pub(super) fn differing(verified: &verify::Report) -> usize {
    usize::try_from(verified.different + verified.missing + verified.extra).unwrap_or(usize::MAX)
}

impl Report {
    /// [`differing`] at the end of the measured part.
    pub(super) fn differences(&self) -> usize {
        differing(&self.verified)
    }

    pub(super) fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { decisions, .. } = &self.figures;
        let figures = &self.figures;
        let mut line = |name: &str, value: String| writeln!(f, "{name:<24} {value}");
        line("devices", format!("{} (seed {})", self.devices, self.seed))?;
        line(
            "events",
            format!(
                "{} ({} duplicates and {} replayed events among them)",
                figures.events, self.delivery.duplicates, self.delivery.replayed
            ),
        )?;
        let decisions: Vec<_> = decisions
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        line("decisions", decisions.join(", "))?;
        line(
            "events/s",
            format!("{:.0} (backlog, {:.1} s)", figures.events_per_second, figures.backlog_seconds),
        )?;
        line("writes/event", format!("{:.2}", figures.writes_per_event))?;
        line("reads/event", format!("{:.2}", figures.reads_per_event))?;
        line("RU/event", format!("{:.2} (as the local emulator charges)", figures.request_units_per_event))?;
        let milliseconds =
            |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.1} ms"));
        line(
            "freshness p50 / p99",
            format!(
                "{} / {} ({} events at a steady rate)",
                milliseconds(figures.freshness_p50_milliseconds),
                milliseconds(figures.freshness_p99_milliseconds),
                figures.steady_events
            ),
        )?;
        let verified = &self.verified;
        line(
            "documents",
            format!(
                "{} ({} tombstones, {} flagged, {} missing, {} extra)",
                verified.documents, verified.tombstones, verified.flagged, verified.missing, verified.extra
            ),
        )?;
        for difference in &verified.differences {
            let module =
                difference.module_id.as_deref().map(|module| format!("/{module}")).unwrap_or_default();
            writeln!(
                f,
                "  {}{module} {}: expected {}, found {}",
                difference.device_id, difference.path, difference.expected, difference.found
            )?;
        }
        writeln!(f, "{} twins, {} different", verified.twins, self.differences())
    }
}

//! The metrics of IoT Hub's read API.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use metrics::{Counter, Gauge, Histogram};

use super::{
    label::{ServedOperation, ServedOutcome},
    metrics::Metrics,
    name,
};
use crate::domain::ticks::Ticks;

/// Something that is renewed while the API is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewed {
    /// The certificate, from its files.
    Certificate,
    /// The keys of Entra ID.
    Keys,
    /// The measured lag of the copy.
    Lag,
}

impl Renewed {
    const ALL: [Self; 3] = [Self::Certificate, Self::Keys, Self::Lag];

    const fn label(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Keys => "keys",
            Self::Lag => "lag",
        }
    }
}

/// Counts requests to IoT Hub's read API. Cheap to clone.
#[derive(Clone)]
pub struct ServeMetrics(Arc<Inner>);

struct Inner {
    metrics: Metrics,
    /// By operation, then by outcome.
    requests: Vec<Vec<Counter>>,
    seconds: Vec<Histogram>,
    refusals: BTreeMap<&'static str, Counter>,
    rows: Counter,
    failures: [Counter; Renewed::ALL.len()],
    handshakes: Counter,
    lag: Gauge,
}

impl std::fmt::Debug for ServeMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServeMetrics").finish_non_exhaustive()
    }
}

impl ServeMetrics {
    /// Registers the metrics in `metrics`, all at zero. `refusals` are the reasons for which a request is unauthorized.
    pub fn new(metrics: &Metrics, refusals: impl IntoIterator<Item = &'static str>) -> Self {
        let outcomes = |operation: &ServedOperation| {
            let counter = |outcome: &ServedOutcome| {
                let labels = [("operation", operation.label()), ("outcome", outcome.label())];
                metrics.counter(name::SERVE_REQUESTS, &labels)
            };
            ServedOutcome::ALL.iter().map(counter).collect()
        };
        let seconds = |operation: &ServedOperation| {
            metrics.histogram(name::SERVE_REQUEST_SECONDS, &[("operation", operation.label())])
        };
        let refusal = |reason| (reason, metrics.counter(name::SERVE_UNAUTHORIZED, &[("reason", reason)]));
        let lag = metrics.gauge(name::SERVE_LAG_EVENTS);
        lag.set(f64::NAN);
        Self(Arc::new(Inner {
            requests: ServedOperation::ALL.iter().map(outcomes).collect(),
            seconds: ServedOperation::ALL.iter().map(seconds).collect(),
            refusals: refusals.into_iter().map(refusal).collect(),
            rows: metrics.counter(name::SERVE_ROWS, &[]),
            failures: Renewed::ALL
                .map(|what| metrics.counter(name::SERVE_RENEWAL_FAILURES, &[("what", what.label())])),
            handshakes: metrics.counter(name::SERVE_HANDSHAKE_FAILURES, &[]),
            lag,
            metrics: metrics.clone(),
        }))
    }

    /// Counts a request, and records its duration.
    pub fn served(&self, operation: ServedOperation, outcome: ServedOutcome, took: Duration) {
        self.0.requests[operation.index()][outcome.index()].increment(1);
        self.0.seconds[operation.index()].record(took.as_secs_f64());
    }

    /// Counts an unauthorized request.
    pub fn refused(&self, reason: &'static str) {
        match self.0.refusals.get(reason) {
            Some(counter) => counter.increment(1),
            None => self.0.metrics.counter(name::SERVE_UNAUTHORIZED, &[("reason", reason)]).increment(1),
        }
    }

    /// Counts rows that were returned.
    pub fn rows(&self, rows: usize) {
        self.0.rows.increment(rows as u64);
    }

    /// Counts a renewal that failed.
    pub fn renewal_failed(&self, what: Renewed) {
        self.0.failures[what as usize].increment(1);
    }

    /// Counts a TLS handshake that failed.
    pub fn handshake_failed(&self) {
        self.0.handshakes.increment(1);
    }

    /// Sets the lag of the copy in events. `None`: unknown.
    pub fn set_lag(&self, events: Option<u64>) {
        self.0.lag.set(events.map_or(f64::NAN, |events| events as f64));
    }

    /// Sets when the keys of Entra ID were last fetched.
    pub fn keys_renewed(&self, at: Ticks) {
        self.0.metrics.gauge(name::SERVE_KEYS_RENEWED).set(at.seconds_since(Ticks::new(0)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_rendered_and_what_is_not_known_is_no_number() {
        let metrics = Metrics::new().unwrap();
        let serving = ServeMetrics::new(&metrics, ["missing"]);
        let has = |line: &str| {
            let text = metrics.render();
            assert!(text.lines().any(|found| found == line), "{line}\nnot in\n{text}");
        };
        has("twinsync_serve_requests_total{operation=\"query\",outcome=\"throttled\"} 0");
        has("twinsync_serve_lag_events NaN");
        serving.served(ServedOperation::Query, ServedOutcome::Ok, Duration::from_millis(4));
        serving.refused("missing");
        serving.refused("another");
        serving.rows(7);
        serving.renewal_failed(Renewed::Keys);
        serving.handshake_failed();
        serving.set_lag(Some(3));
        for line in [
            "twinsync_serve_requests_total{operation=\"query\",outcome=\"ok\"} 1",
            "twinsync_serve_request_seconds_count{operation=\"query\"} 1",
            "twinsync_serve_unauthorized_total{reason=\"missing\"} 1",
            "twinsync_serve_unauthorized_total{reason=\"another\"} 1",
            "twinsync_serve_rows_total 7",
            "twinsync_serve_renewal_failures_total{what=\"keys\"} 1",
            "twinsync_serve_renewal_failures_total{what=\"certificate\"} 0",
            "twinsync_serve_handshake_failures_total 1",
            "twinsync_serve_lag_events 3",
        ] {
            has(line);
        }
    }
}

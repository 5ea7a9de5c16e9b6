//! Traces, if they are configured: the tracer of the streams and the router, and the task that exports its spans.

use std::time::Duration;

use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    adapters::otlp::{self, Exporter},
    config::Settings,
    telemetry::{
        HealthState, Metrics,
        trace::{Options, Tracer},
    },
};

/// Maximum delay of the shutdown. The exporter itself ends earlier.
const END_LIMIT: Duration = Duration::from_secs(7);

/// The tracer and its exporter.
pub(super) struct Traces {
    /// `None`: tracing is off.
    pub(super) tracer: Option<Tracer>,
    exporter: Option<(JoinHandle<()>, CancellationToken)>,
}

impl Traces {
    /// Starts the export, if it is configured.
    ///
    /// # Errors
    /// The HTTP client cannot be created on this machine.
    pub(super) fn start(
        settings: &Settings,
        metrics: &Metrics,
        health: &HealthState,
    ) -> Result<Self, otlp::Error> {
        let Some(otlp) = &settings.otlp else {
            return Ok(Self { tracer: None, exporter: None });
        };
        let exporter = Exporter::new(otlp, metrics.clone(), health.clone())?;
        let options = Options {
            namespace: settings.eventhubs.namespace.clone(),
            consumer_group: settings.eventhubs.consumer_group.clone(),
            database: settings.cosmos.database.clone(),
            container: settings.cosmos.container.clone(),
            account: settings.cosmos.endpoint.host_str().unwrap_or_default().to_owned(),
            ratio: otlp.sample_ratio,
            slow_after: otlp.slow_after,
            device_ids: otlp.device_ids,
        };
        let most_waiting = otlp.max_queued_spans.get() as usize;
        let (tracer, spans) = Tracer::new(options, metrics.clone(), most_waiting);
        let ended = CancellationToken::new();
        let task = tokio::spawn(exporter.run(spans, ended.clone()));
        Ok(Self { tracer: Some(tracer), exporter: Some((task, ended)) })
    }

    /// Exports the remaining spans, within a time limit.
    pub(super) async fn end(self) {
        if let Some((mut task, ended)) = self.exporter {
            ended.cancel();
            if timeout(END_LIMIT, &mut task).await.is_err() {
                task.abort();
            }
        }
    }
}

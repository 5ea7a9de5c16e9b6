//! The path of events in one daemon, from the Event Hubs to the checkpoints: how it is assembled, when it ends, and in which order it is
//! shut down.

use std::{sync::Arc, time::Duration};

use futures::future::try_join_all;
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    Error,
    connect::{Connector, Needed},
    connections::Connections,
    options::{budgets, counting_options, router_options, stream_options},
    reconcile::{self, Background},
    shared::Shared,
};
use crate::{
    config::Settings,
    domain::{
        health::{Dependency, Phase},
        id::DocumentIdScheme,
        ticks::Ticks,
    },
    ports::{Clock, DeadLetters, TwinChanges, TwinStore},
    runtime::{
        counts,
        in_flight::InFlight,
        receive_threads::ReceiveThreads,
        reconcile::requests::AuditRequests,
        replicas::Replicas,
        router::{self, Panicked, Router},
        stream::{self, Stream},
        watch,
    },
    telemetry::{self, HealthState, Metrics, trace::Tracer},
};

/// Number of batches that the channel from the partitions to the router holds.
const INTAKE: usize = 64;

/// The inputs that a daemon takes from its process.
pub struct Process {
    /// Name of this process among the replicas. Unique.
    pub replica: String,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The threads that receive partitions. `None`: they run on the common runtime.
    pub threads: Option<Arc<ReceiveThreads>>,
    /// Makes traces.
    pub tracer: Option<Tracer>,
    /// What readiness and the status page are computed from.
    pub health: HealthState,
    /// Counts everything that happens.
    pub metrics: Metrics,
}

/// Consumes the streams until `stop`, then drains and commits.
///
/// # Errors
/// The daemon cannot start, a person has to decide something, or one of its tasks panicked.
pub(super) async fn consume(
    settings: &Settings,
    connections: Connections,
    shared: &Shared,
    process: Process,
    stop: CancellationToken,
) -> Result<(), Error> {
    let prepared = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        prepared = Box::pin(Prepared::new(settings, connections, shared, process)) => prepared?,
    };
    let mut running = prepared.start(settings, shared, &stop);
    let ended = running.ended(&stop).await;
    running.drain(settings.shutdown.drain_timeout, ended).await
}

/// The dependencies that have answered once, before events are consumed.
struct Prepared {
    process: Process,
    store: Arc<dyn TwinStore>,
    dead_letters: Arc<dyn DeadLetters>,
    changes: Arc<dyn TwinChanges>,
    streams: Vec<Stream>,
    background: Background,
    audits: AuditRequests,
    audit_asked: watch::Receiver<Option<Ticks>>,
    leads: watch::Sender<bool>,
}

impl Prepared {
    async fn new(
        settings: &Settings,
        connections: Connections,
        shared: &Shared,
        process: Process,
    ) -> Result<Self, Error> {
        let Process { replica, clock, tracer, health, metrics, .. } = &process;
        let connector = Connector { grace: settings.start.refused_grace, health, metrics };
        let leads = watch::Sender::new(false);
        let (requests, audit_asked) = AuditRequests::channel(Arc::clone(clock));
        let audits = if connections.registries.is_empty() { AuditRequests::nobodys() } else { requests };
        // Before the streams, which would write documents into an empty container.
        let background =
            reconcile::prepare(settings, &connections, shared, clock, audits.clone(), &connector).await?;
        let replicas = Arc::new(Replicas::new(
            budgets(settings),
            connections.registries.clone(),
            shared.budget.clone(),
            metrics.clone(),
        ));
        let prepare = connections.sources.into_iter().enumerate().map(|(place, source)| {
            let checkpoints = Arc::clone(&connections.checkpoints);
            // The owner of the first stream's first partition leads.
            let leads = (place == 0).then(|| leads.clone());
            let mut options = stream_options(settings, replica, leads, &audits, &replicas);
            options.tracer.clone_from(tracer);
            let what = Needed::Dependency(Dependency::EventHub(source.name().to_owned()));
            connector.until(what, move || {
                let (source, checkpoints) = (Arc::clone(&source), Arc::clone(&checkpoints));
                let prepare =
                    Stream::prepare(source, checkpoints, options.clone(), health.clone(), metrics.clone());
                async { Ok(prepare.await?) }
            })
        });
        let streams = try_join_all(prepare).await?;
        Ok(Self {
            store: connections.store,
            dead_letters: connections.dead_letters,
            changes: connections.changes,
            process,
            streams,
            background,
            audits,
            audit_asked,
            leads,
        })
    }

    /// Starts the router, the streams and the background work.
    fn start(self, settings: &Settings, shared: &Shared, stop: &CancellationToken) -> Running {
        let Process { clock, threads, tracer, health, metrics, .. } = self.process;
        let counting = counts::Tools {
            changes: self.changes,
            budget: shared.budget.clone(),
            clock: Arc::clone(&clock),
            health: health.clone(),
            metrics: metrics.clone(),
        };
        let limits = InFlight::new(
            settings.router.max_in_flight_events.get() as usize,
            settings.router.max_in_flight_bytes,
        );
        let options = router_options(settings, shared, self.background.repair_queue(), self.audits);
        let router = Router::new(
            router::Options { tracer, ..options },
            self.store,
            self.dead_letters,
            clock,
            Arc::clone(&limits),
            health.clone(),
            metrics,
        );
        let (intake, batches) = mpsc::channel(INTAKE);
        let router = AbortOnDropHandle::new(tokio::spawn(router.run(batches)));
        let (intake_stop, drained) = (stop.child_token(), CancellationToken::new());
        let mut background =
            self.background.spawn(&self.leads.subscribe(), &self.audit_asked, &intake_stop, health.scans());
        background.spawn(Box::pin(counts::run(counting, counting_options(settings), intake_stop.clone())));
        let mut consumers = JoinSet::new();
        for stream in self.streams {
            let (limits, threads) = (Arc::clone(&limits), threads.clone());
            let run = stream.run(limits, intake.clone(), threads, intake_stop.clone(), drained.clone());
            consumers.spawn(Box::pin(run));
        }
        health.set_phase(Phase::Running);
        tracing::info!(version = telemetry::VERSION, "running");
        warn_about_shared_ids(settings);
        Running { router, consumers, background, leads: self.leads, limits, health, intake_stop, drained }
    }
}

/// Warns that only one document can exist under a device id if several hubs have a device with that id.
fn warn_about_shared_ids(settings: &Settings) {
    if settings.iothub.hubs.len() > 1 && settings.document.id == DocumentIdScheme::Device {
        tracing::warn!(
            hubs = settings.iothub.hubs.len(),
            code = "DOCUMENT_FOREIGN",
            "several IoT hubs with document.id = \"device\": if two hubs have a device with the same id, the first \
             keeps the document, and events of the other become dead letters"
        );
    }
}

/// A running pipeline. Its tasks end when it is dropped.
struct Running {
    router: AbortOnDropHandle<Result<(), Panicked>>,
    consumers: JoinSet<Result<(), stream::Error>>,
    background: JoinSet<()>,
    /// Kept so that the background tasks do not end with the stream that reports who leads: that stream's error is the reason to end.
    #[expect(dead_code, reason = "it only has to live")]
    leads: watch::Sender<bool>,
    limits: Arc<InFlight>,
    health: HealthState,
    intake_stop: CancellationToken,
    drained: CancellationToken,
}

/// How the pipeline ended.
struct Ended {
    outcome: Result<(), Error>,
    /// Whether the router has ended, so that nothing more can be drained.
    router_ended: bool,
}

impl Running {
    /// Waits for `stop`. A task that ends before the stop has failed.
    async fn ended(&mut self, stop: &CancellationToken) -> Ended {
        tokio::select! {
            biased;
            () = stop.cancelled() => Ended { outcome: Ok(()), router_ended: false },
            ended = &mut self.router => Ended {
                // In the orderly case, the router ends after all streams have ended. Their errors are returned when they are joined.
                outcome: if matches!(ended, Ok(Ok(()))) { Ok(()) } else { Err(Panicked.into()) },
                router_ended: true,
            },
            Some(ended) = self.consumers.join_next() => Ended { outcome: consumer_ended(ended), router_ended: false },
            // These tasks end only with the stop. An earlier end is a panic.
            Some(_) = self.background.join_next() => Ended { outcome: Err(Panicked.into()), router_ended: false },
        }
    }

    /// Shuts everything down in order: stops intake, finishes received events within `limit`, writes checkpoints, releases leases.
    async fn drain(mut self, limit: Duration, ended: Ended) -> Result<(), Error> {
        let Ended { mut outcome, router_ended } = ended;
        self.health.set_phase(Phase::Stopping);
        tracing::info!("stopping: receiving no more events, and completing those that were received");
        self.intake_stop.cancel();
        if !router_ended {
            match timeout(limit, &mut self.router).await {
                Ok(Ok(Ok(()))) => {}
                Ok(_) => outcome = Err(Panicked.into()),
                Err(_) => {
                    self.router.abort();
                    let (events, _) = self.limits.used();
                    tracing::warn!(
                        events,
                        code = "DRAIN_INCOMPLETE",
                        "not all events were completed in time: they are received again after the next start"
                    );
                }
            }
        }
        self.background.shutdown().await; // its open work is conditional, or is repeated later
        // Leases were kept until now. They end with the last checkpoint.
        self.drained.cancel();
        while let Some(ended) = self.consumers.join_next().await {
            outcome = outcome.and(consumer_ended(ended));
        }
        outcome
    }
}

fn consumer_ended(ended: Result<Result<(), stream::Error>, JoinError>) -> Result<(), Error> {
    match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(stream::Error::Start(error))) => Err(error.into()),
        Ok(Err(stream::Error::Panicked(_))) | Err(_) => Err(Panicked.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::id::PartitionId, runtime::start::StartError};

    fn failed() -> stream::Error {
        let partition = PartitionId { stream: "lifecycle".into(), partition: "0".into() };
        stream::Error::Start(StartError::Invalid { partition, problem: "it is another one".to_owned() })
    }

    #[tokio::test]
    async fn the_error_of_the_stream_that_reports_who_leads_is_the_reason_to_end() {
        let leads = watch::Sender::new(false);
        let (reports, mut led) = (leads.clone(), leads.subscribe());
        let mut running = Running {
            router: AbortOnDropHandle::new(tokio::spawn(std::future::pending())),
            consumers: JoinSet::new(),
            background: JoinSet::new(),
            leads,
            limits: InFlight::new(1, 1),
            health: HealthState::new(),
            intake_stop: CancellationToken::new(),
            drained: CancellationToken::new(),
        };
        running.consumers.spawn(async move {
            drop(reports);
            // The background tasks have time to notice.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            Err(failed())
        });
        running.background.spawn(async move { assert!(led.wait_for(|leads| *leads).await.is_err()) });
        let ended = running.ended(&CancellationToken::new()).await;
        let error = running.drain(Duration::ZERO, ended).await.expect_err("it has failed");
        assert_eq!(error.code(), "CHECKPOINT_INVALID", "{error}");
    }
}

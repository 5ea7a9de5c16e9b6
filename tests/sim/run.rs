//! Runs one plan: daemons in a simulated world, a time with faults, a time without faults, and the invariants that must
//! hold then.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::Value;
use tokio::{runtime, task::JoinHandle, time::timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use twinsync::{
    app::{Connections, Error, Process, run_over},
    config::Settings,
    domain::{
        query::{Collection, Counted, Declared, Row},
        quota::Tier,
        rest,
    },
    ports::{EventSource, TwinRegistry},
    runtime::{jitter, quota::RateLimiter, rate_limited_registry::RateLimitedRegistry},
    telemetry::{HealthState, Metrics, name},
};

use crate::{
    link::Link,
    plan::{Fault, Plan},
    ports::{Checkpoints, DeadLetterStore, Documents, Hub, Notes, Registry},
    routes,
    world::{Clock, Difference, Invariant, Service, Violation, World},
};

/// Time limit for everything to be completed after the last fault. The longest backoff is half a minute, a silent twin is
/// given up after ten minutes, and the flagged documents are scanned every minute.
const PEACE: Duration = Duration::from_secs(20 * 60);
/// Time limit, without faults, for a new event to be in its document, completed, and in the checkpoint.
const SOON: Duration = Duration::from_secs(3 * 60);
/// Lifetime of a tombstone: longer than any event waits for its last delivery. The configuration requires a day at least. A
/// simulation of a whole day would take longer and find nothing more.
pub(crate) const TOMBSTONE_TTL: Duration = Duration::from_secs(20 * 60);
/// Interval of polls.
const POLL: Duration = Duration::from_millis(500);

/// The result of a simulation.
pub(crate) struct Outcome {
    pub(crate) violation: Option<Violation>,
    /// A hash of the trace.
    pub(crate) trace: u64,
    pub(crate) lines: u64,
    /// The last lines of the trace.
    pub(crate) story: String,
    pub(crate) whole: Vec<String>,
    pub(crate) met: BTreeMap<Fault, u64>,
    /// The simulated time.
    pub(crate) took: Duration,
}

/// Runs a plan. The same plan always has the same result.
pub(crate) fn run(plan: &Plan, whole_trace: bool) -> Outcome {
    let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let _seeded = jitter::seeded(plan.seed);
    runtime.block_on(async {
        let began = tokio::time::Instant::now();
        let world = World::new(plan.clone(), whole_trace);
        Box::pin(simulate(&world)).await;
        let (violation, met, lines) = {
            let inner = world.lock();
            (inner.violation.clone(), inner.met.clone(), inner.trace.lines)
        };
        Outcome {
            violation,
            trace: world.trace_hash(),
            lines,
            story: world.story(),
            whole: world.whole_trace(),
            met,
            took: began.elapsed(),
        }
    })
}

async fn simulate(world: &Arc<World>) {
    routes::prepare(world);
    for _ in 0..world.plan.past {
        tokio::time::sleep(routes::pause(world)).await;
        let device = world.below(world.plan.devices) as usize;
        routes::operate(world, device, false);
    }
    let settings = Arc::new(settings(&world.plan));
    let alive = || runtime::Handle::current().metrics().num_alive_tasks();
    let before = alive();
    let routes = AbortOnDropHandle::new(tokio::spawn(routes::deliver(Arc::clone(world))));
    let mut fleet = Fleet::start(world, &settings);
    tokio::select! {
        biased;
        () = world.violated.notified() => return,
        () = live(world, &mut fleet) => {}
    }
    world.lock().faulty = false;
    world.tell("peace");
    if !until(world, PEACE, || has_converged(world)).await {
        let (invariant, detail) = what_is_open(world);
        world.violate(invariant, detail);
        return;
    }
    // A new operation for every device.
    for device in 0..world.plan.devices as usize {
        routes::operate(world, device, true);
    }
    if !until(world, SOON, || has_converged(world)).await {
        let (invariant, detail) = what_is_open(world);
        world.violate(Invariant::WhatIsNewFlows, format!("{invariant:?}: {detail}"));
        return;
    }
    if !until(world, SOON, || fleet.counted_wrongly().is_none()).await {
        let detail = fleet.counted_wrongly().unwrap_or_default();
        world.violate(Invariant::CountsAreThoseOfARecount, detail);
        return;
    }
    // The longest backoff is half a minute. This also applies to events of a partition that another replica owns by now.
    if !until(world, SOON, || fleet.held() == 0).await {
        world.violate(Invariant::NothingLeaks, format!("{} events are held at rest", fleet.held()));
        return;
    }
    fleet.stop().await;
    drop(routes);
    // Aborted tasks end when they are scheduled next.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    // Requests that crashed processes had sent.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let after = alive();
    if after > before {
        world.violate(Invariant::NothingLeaks, format!("{} tasks are left", after - before));
    }
    let lost = world.lost_dead_letters();
    if !lost.is_empty() {
        world.violate(Invariant::NoDeadLetterIsLost, format!("{lost:?}"));
    }
}

/// Performs operations with faults between them.
async fn live(world: &Arc<World>, fleet: &mut Fleet) {
    let mut is_old = false;
    for _ in 0..world.plan.operations {
        tokio::time::sleep(routes::pause(world)).await;
        let device = world.below(world.plan.devices) as usize;
        routes::operate(world, device, true);
        if world.draws_rarely(Fault::Failover) {
            routes::fail_over(world, device);
        }
        if world.draws_rarely(Fault::Spoils) {
            routes::spoil(world);
        }
        if world.draws_rarely(Fault::Retention) {
            routes::retain(world);
        }
        if world.draws_rarely(Fault::Recreates) {
            routes::recreate(world);
        }
        if world.draws_rarely(Fault::AddsPartition) {
            routes::add_partition(world);
        }
        // Once per simulation, because it takes long and a repetition tests nothing new.
        if !is_old && world.draws_rarely(Fault::TombstonesExpire) {
            is_old = true;
            routes::long_silence(world).await;
        }
        if world.draws(Fault::Outage) {
            let service = Service::ALL[world.below(Service::ALL.len() as u64) as usize];
            let process =
                (world.below(2) == 0).then(|| fleet.name(world.below(world.plan.replicas) as usize));
            let time = world.span(Duration::from_secs(2), Duration::from_secs(90));
            world.takes_away(service, process.flatten(), time);
        }
        if world.draws(Fault::Restart) {
            let which = world.below(world.plan.replicas) as usize;
            fleet.restart(which);
        }
    }
    // Without a registry, a lost change is noticed only with the next event of its twin.
    if !world.plan.registry {
        world.lock().faulty = false;
        for _ in 0..1_000 {
            let Some(key) = world.lock().owed.first().cloned() else { break };
            let device = world.lock().hubs.iter().position(|hub| hub.keys().contains(&key));
            tokio::time::sleep(routes::pause(world)).await;
            routes::operate(world, device.unwrap_or_default(), true);
        }
        world.lock().faulty = true;
    }
    // Faults end in some simulations when all daemons are idle, in others while they are busy.
    let rest = world.span(Duration::ZERO, Duration::from_secs(30));
    tokio::time::sleep(rest).await;
}

/// Waits until `holds` returns true. Returns `false` after the time limit or after a violation.
async fn until(world: &World, limit: Duration, holds: impl Fn() -> bool) -> bool {
    let polls = async {
        while !holds() {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::select! {
        biased;
        () = world.violated.notified() => false,
        done = timeout(limit, polls) => done.is_ok() && world.lock().violation.is_none(),
    }
}

fn has_converged(world: &World) -> bool {
    if !routes::is_quiet(world) || !world.unfinished().is_empty() {
        return false;
    }
    let differences = world.differences();
    match world.plan.registry {
        true => differences.is_empty(),
        false => differences.iter().all(|(_, difference)| !matches!(difference, Difference::Silent(_))),
    }
}

/// Why the simulation has not converged.
fn what_is_open(world: &World) -> (Invariant, String) {
    let unfinished = world.unfinished();
    if !unfinished.is_empty() || !routes::is_quiet(world) {
        return (Invariant::EverythingIsFinished, format!("{unfinished:?}"));
    }
    let differences = world.differences();
    let silent = differences.iter().find(|(_, difference)| matches!(difference, Difference::Silent(_)));
    match silent {
        Some((key, difference)) => {
            let truth = world.lock().hubs.iter().find_map(|hub| hub.twins.get(key).cloned());
            let detail = format!("{key}: {difference:?}, and the hub has {truth:?}");
            (Invariant::NothingIsSilentlyWrong, detail)
        }
        None => (Invariant::EverythingConverges, format!("{differences:?}")),
    }
}

/// All daemons.
struct Fleet {
    replicas: Vec<Arc<Replica>>,
    supervisors: Vec<AbortOnDropHandle<()>>,
}

/// One daemon and its restarts.
struct Replica {
    number: usize,
    world: Arc<World>,
    settings: Arc<Settings>,
    /// The current run.
    present: std::sync::Mutex<Option<Present>>,
    /// Cancelled when it must not start again.
    ends: CancellationToken,
}

struct Present {
    link: Arc<Link>,
    stop: CancellationToken,
    metrics: Metrics,
    health: HealthState,
}

impl Fleet {
    fn start(world: &Arc<World>, settings: &Arc<Settings>) -> Self {
        let replica = |number| {
            Arc::new(Replica {
                number: number as usize,
                world: Arc::clone(world),
                settings: Arc::clone(settings),
                present: std::sync::Mutex::default(),
                ends: CancellationToken::new(),
            })
        };
        let replicas: Vec<_> = (0..world.plan.replicas).map(replica).collect();
        let supervise = |replica: &Arc<Replica>| {
            AbortOnDropHandle::new(tokio::spawn(Box::pin(Arc::clone(replica).supervise())))
        };
        Self { supervisors: replicas.iter().map(supervise).collect(), replicas }
    }

    fn restart(&self, which: usize) {
        if let Some(present) = &*self.replicas[which].present.lock().expect("no panic") {
            self.replicas[which].world.tell(format!("{} is asked to stop", present.link.name));
            present.stop.cancel();
        }
    }

    /// The name of a replica's current run, if it runs.
    fn name(&self, which: usize) -> Option<String> {
        let present = self.replicas[which].present.lock().expect("no panic");
        present.as_ref().map(|present| present.link.name.clone())
    }

    /// Number of events in flight.
    fn held(&self) -> u64 {
        let held = |replica: &Arc<Replica>| {
            let present = replica.present.lock().expect("no panic");
            present.as_ref().map_or(0, |present| in_flight(&present.metrics))
        };
        self.replicas.iter().map(held).sum()
    }

    /// A difference between a replica's counts and a recount of the documents.
    fn counted_wrongly(&self) -> Option<String> {
        let wrong = |replica: &Arc<Replica>| {
            let present = replica.present.lock().expect("no panic");
            let present = present.as_ref()?;
            let shown = present.health.counts().get()?;
            let expected = recount(&replica.world, &shown.declared);
            let found = shown.counted.as_ref().map(|counted| rows(counted));
            (found.as_ref() != Some(&expected))
                .then(|| format!("{}: {found:?}, and the documents have {expected:?}", present.link.name))
        };
        self.replicas.iter().find_map(wrong)
    }

    async fn stop(&mut self) {
        for replica in &self.replicas {
            replica.ends.cancel();
            if let Some(present) = &*replica.present.lock().expect("no panic") {
                present.stop.cancel();
            }
        }
        for supervisor in self.supervisors.drain(..) {
            let ended = timeout(Duration::from_secs(60), supervisor).await;
            if ended.is_err()
                && let Some(replica) = self.replicas.first()
            {
                replica.world.violate(Invariant::NothingLeaks, "a daemon does not stop within a minute");
            }
        }
    }
}

/// The rows of each count.
fn rows(counted: &[Counted]) -> Vec<Vec<Value>> {
    let rows = |counted: &Counted| counted.rows.iter().flatten().map(Row::json).collect();
    counted.iter().map(rows).collect()
}

/// The rows of the counts' queries.
fn recount(world: &World, declared: &[Declared]) -> Vec<Vec<Value>> {
    let twins: Vec<Value> = world.present_documents().iter().filter_map(rest::twin).collect();
    let count = |declared: &Declared| {
        let query = declared.query();
        let of_modules = query.collection() == Collection::Modules;
        let mut fold = query.aggregation(usize::MAX);
        for twin in
            twins.iter().filter(|twin| twin.get("moduleId").is_some() == of_modules && query.matches(twin))
        {
            fold.add(twin).expect("no bound");
        }
        fold.rows()
    };
    declared.iter().map(count).collect()
}

/// The value of the daemon's own gauge.
fn in_flight(metrics: &Metrics) -> u64 {
    let page = metrics.render();
    let line = page.lines().find_map(|line| line.strip_prefix("twinsync_in_flight_events "));
    line.and_then(|value| value.trim().parse::<f64>().ok()).map_or(0, |value| value as u64)
}

/// An invariant that the daemon itself has found violated.
fn broken(metrics: &Metrics) -> Option<String> {
    let page = metrics.render();
    let mut lines =
        page.lines().filter_map(|line| line.strip_prefix(name::INVARIANT_VIOLATIONS)?.rsplit_once(' '));
    lines.find(|(_, count)| *count != "0").map(|(labels, count)| format!("{labels} {count}"))
}

impl Replica {
    /// Starts the daemon again whenever it has ended, like an orchestrator.
    async fn supervise(self: Arc<Self>) {
        for run in 0.. {
            if self.ends.is_cancelled() {
                return;
            }
            let link = Link::new(&self.world, format!("r{}.{run}", self.number));
            self.world.tell(format!("{} starts", link.name));
            let stop = CancellationToken::new();
            let metrics = Metrics::new().expect("buckets");
            let health = HealthState::new();
            let task = self.spawn(&link, &stop, &metrics, &health);
            link.runs_as(task.abort_handle());
            let present = Present { link: Arc::clone(&link), stop: stop.clone(), metrics, health };
            *self.present.lock().expect("no panic") = Some(present);
            let ended = task.await;
            let present = self.present.lock().expect("no panic").take();
            if let Some(broken) = present.and_then(|present| broken(&present.metrics)) {
                self.world.violate(Invariant::WhatTheDaemonChecks, format!("{}: {broken}", link.name));
            }
            match ended {
                Ok(Ok(())) if stop.is_cancelled() => self.world.tell(format!("{} stopped", link.name)),
                Ok(Ok(())) => {
                    let detail = format!("{} ended", link.name);
                    self.world.violate(Invariant::NothingEndsByItself, detail);
                }
                Ok(Err(error)) => {
                    let detail = format!("{} ended: {error}", link.name);
                    self.world.violate(Invariant::NothingEndsByItself, detail);
                }
                Err(error) if error.is_cancelled() && link.is_dead() => {}
                Err(error) => {
                    self.world.violate(Invariant::NothingEndsByItself, format!("{}: {error}", link.name));
                }
            }
            link.kill();
            let pause = self.world.span(Duration::from_millis(50), Duration::from_secs(25));
            tokio::select! {
                biased;
                () = self.ends.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn spawn(
        &self,
        link: &Arc<Link>,
        stop: &CancellationToken,
        metrics: &Metrics,
        health: &HealthState,
    ) -> JoinHandle<Result<(), Error>> {
        let plan = &self.world.plan;
        let source = |name: &str| -> Arc<dyn EventSource> {
            Arc::new(Hub { link: Arc::clone(link), name: name.to_owned() })
        };
        let registry: Arc<dyn TwinRegistry> =
            Arc::new(Registry { link: Arc::clone(link), hub: "hub".into() });
        let rate_limited = || {
            let rate_limiter = RateLimiter::new(Tier::S1, 1, 0.5);
            Arc::new(
                RateLimitedRegistry::new(Arc::clone(&registry), rate_limiter, metrics.clone())
                    .shown_on(health),
            )
        };
        let outside = Connections {
            sources: self.settings.eventhubs.hubs().into_iter().map(source).collect(),
            store: Arc::new(Documents(Arc::clone(link))),
            checkpoints: Arc::new(Checkpoints { link: Arc::clone(link), shared: plan.replicas > 1 }),
            shared_hubs: Vec::new(),
            dead_letters: Arc::new(DeadLetterStore(Arc::clone(link))),
            archive: Arc::new(DeadLetterStore(Arc::clone(link))),
            registries: if plan.registry { vec![rate_limited()] } else { Vec::new() },
            notes: Arc::new(Notes(Arc::clone(link))),
            changes: Arc::new(Documents(Arc::clone(link))),
        };
        let process = Process {
            replica: link.name.clone(),
            clock: Arc::new(Clock::new(&self.world)),
            threads: None,
            tracer: None,
            health: health.clone(),
            metrics: metrics.clone(),
        };
        let (settings, stop) = (Arc::clone(&self.settings), stop.clone());
        tokio::spawn(async move { Box::pin(run_over(&settings, outside, process, stop)).await })
    }
}

/// The settings of every daemon.
fn settings(plan: &Plan) -> Settings {
    let registry = if plan.registry {
        "HostName=hub.azure-devices.net;SharedAccessKeyName=service;SharedAccessKey=c2ltdWxhdGlvbg=="
    } else {
        ""
    };
    // Audits are on only if the plan has faults that no event reports.
    let environment = [
        ("EVENTHUBS__NAMESPACE", "simulation.servicebus.windows.net"),
        ("EVENTHUBS__LIFECYCLE__HUB", routes::event_hub(routes::Route::Lifecycle, plan.hubs)),
        ("EVENTHUBS__TWIN_CHANGES__HUB", routes::event_hub(routes::Route::Changes, plan.hubs)),
        ("COSMOS__ENDPOINT", "https://simulation.documents.azure.com"),
        ("CHECKPOINT__STORE", if plan.replicas > 1 { "blob" } else { "file" }),
        ("BLOB__CONTAINER_URL", "https://simulation.blob.core.windows.net/twinsync"),
        ("CACHE__MAX_BYTES", if plan.cache { "64MiB" } else { "0B" }),
        ("IOTHUB__CONNECTION_STRINGS", registry),
        ("EVENTHUBS__PARTITION_DISCOVERY_INTERVAL", "30s"),
        ("CHECKPOINT__ON_INVALID", if plan.loses_partitions() { "earliest_and_audit" } else { "stop" }),
        ("REPAIR__SCAN_INTERVAL", "1m"),
        ("AUDIT__INTERVAL", if plan.needs_audits() { "1m" } else { "off" }),
        ("AUDIT__TOLERANCE", "30s"),
        ("BACKFILL__ON_START", if plan.past > 0 && plan.registry { "if_empty" } else { "never" }),
    ];
    let counts = [
        ("COUNTS__0__NAME", "all"),
        ("COUNTS__1__NAME", "by_version"),
        ("COUNTS__1__GROUP_BY", "properties.reported.[[$version]]"),
        ("COUNTS__2__NAME", "modules_changed"),
        ("COUNTS__2__FROM", "devices.modules"),
        ("COUNTS__2__WHERE", "properties.desired.[[$version]] > 1 OR is_defined(tags.a)"),
        ("COUNTS__2__GROUP_BY", "properties.desired.[[$version]], tags.a"),
    ];
    let counts = counts.into_iter().filter(|_| plan.counts);
    let environment = environment.into_iter().chain(counts).filter(|(_, value)| !value.is_empty());
    let environment = environment.map(|(name, value)| (format!("TWINSYNC__{name}"), value.to_owned()));
    let mut settings = Settings::load(&[], environment).unwrap_or_else(|error| panic!("{error}"));
    settings.document.tombstone_ttl = TOMBSTONE_TTL;
    settings
}

//! Everything that asks the IoT hubs: the daemon's background work, and the tools of `backfill`, `audit` and `resync`.

use std::sync::Arc;

use futures::StreamExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    Error,
    connect::{Connector, Needed},
    connections::{Connections, connect_registries, connect_store},
    options::rules,
    shared::Shared,
};
use crate::{
    adapters::{credential, notes},
    config::{BackfillOnStart, Settings},
    domain::{drift::Strictness, health::Dependency, quota::Purpose, ticks::Ticks},
    ports::{Clock, NoteStore, StoreError, SystemClock, TwinStore, Which},
    runtime::{
        budgeted_store::BudgetedStore,
        rate_limited_registry::RateLimitedRegistry,
        reconcile::{
            audit, backfill,
            reconciler::{Mode, TwinReconciler},
            repair_queue::{self, RepairQueue},
            requests::{self, AuditRequests},
            schedule::{self, Schedule},
        },
        watch,
    },
    telemetry::{HealthState, Metrics, Scans},
};

fn twin_reconciler(
    settings: &Settings,
    registries: &[Arc<RateLimitedRegistry>],
    store: Arc<dyn TwinStore>,
    shared: &Shared,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
) -> TwinReconciler {
    let budgeted_store = BudgetedStore { store, budget: shared.budget.clone(), metrics: metrics.clone() };
    TwinReconciler::new(budgeted_store, registries, shared.cache.clone(), Arc::clone(clock), rules(settings))
        .with_identity(settings.iothub.identity)
}

/// Options of audits, unless a person requests others.
fn audit_options(settings: &Settings) -> audit::Options {
    audit::Options {
        sample: 1.0,
        mode: if settings.audit.repair { Mode::Correct } else { Mode::Compare },
        strictness: Strictness::Content,
        tolerance: settings.audit.tolerance,
        recent_checks: settings.audit.recent_checks.get() as usize,
        concurrency: settings.repair.concurrency.get() as usize,
    }
}

/// The background work of a daemon, ready to run.
pub(super) struct Background {
    reconciler: Arc<TwinReconciler>,
    repair_queue: RepairQueue,
    repair: repair_queue::Options,
    schedule: schedule::Options,
    notes: Arc<dyn NoteStore>,
}

/// Prepares the background work. Reads the container if that decides whether a backfill is needed.
pub(super) async fn prepare(
    settings: &Settings,
    connections: &Connections,
    shared: &Shared,
    clock: &Arc<dyn Clock>,
    audits: AuditRequests,
    connector: &Connector<'_>,
) -> Result<Background, Error> {
    let reconciler = twin_reconciler(
        settings,
        &connections.registries,
        Arc::clone(&connections.store),
        shared,
        clock,
        connector.metrics,
    )
    .asking(audits);
    let backfill = match settings.backfill.on_start {
        BackfillOnStart::Never => false,
        BackfillOnStart::IfEmpty => connector.until(Needed::Store, || is_empty(&reconciler)).await?,
    };
    if backfill {
        let plan = || plan_backfill(&reconciler, connections.notes.as_ref());
        connector.until(Needed::Dependency(Dependency::Checkpoints), plan).await?;
    }
    Ok(Background {
        repair_queue: RepairQueue::about(
            connections.registries.iter().map(|registry| registry.hub()),
            settings.iothub.identity,
        ),
        reconciler: Arc::new(reconciler),
        repair: repair_queue::Options {
            concurrency: settings.repair.concurrency.get() as usize,
            scan_interval: settings.repair.scan_interval,
        },
        schedule: schedule::Options {
            backfill,
            backfill_concurrency: settings.backfill.concurrency.get() as usize,
            audit_interval: settings.audit.interval,
            audit: audit_options(settings),
        },
        notes: Arc::clone(&connections.notes),
    })
}

/// Writes a note for every hub that a backfill is planned.
async fn plan_backfill(reconciler: &TwinReconciler, notes: &dyn NoteStore) -> Result<(), Error> {
    for registry in reconciler.registries() {
        backfill::plan(reconciler, notes, registry.hub()).await?;
    }
    Ok(())
}

/// Whether the container holds no twin.
async fn is_empty(reconciler: &TwinReconciler) -> Result<bool, Error> {
    holds_nothing(reconciler).await.map_err(|trouble| Error::Scan(trouble.message))
}

async fn holds_nothing(reconciler: &TwinReconciler) -> Result<bool, StoreError> {
    let mut pages = std::pin::pin!(reconciler.budgeted_store().scan(Which::Present, Purpose::Backfill));
    while let Some(page) = pages.next().await {
        if !page?.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Background {
    /// Queue to which flagged documents are reported.
    pub(super) fn repair_queue(&self) -> RepairQueue {
        self.repair_queue.clone()
    }

    /// Runs until `stop`: one task for repair, one for requests, and one for each hub.
    pub(super) fn spawn(
        self,
        leads: &watch::Receiver<bool>,
        audit_wanted: &watch::Receiver<Option<Ticks>>,
        stop: &CancellationToken,
        scans: &Scans,
    ) -> JoinSet<()> {
        let Self { reconciler, repair_queue, repair, schedule, notes } = self;
        let mut tasks = JoinSet::new();
        let keep = requests::keep(Arc::clone(&notes), audit_wanted.clone(), stop.clone());
        tasks.spawn(keep);
        for registry in reconciler.registries() {
            let schedule = Schedule {
                reconciler: Arc::clone(&reconciler),
                registry: Arc::clone(registry),
                notes: Arc::clone(&notes),
                options: schedule.clone(),
                leads: leads.clone(),
                audit_wanted: audit_wanted.clone(),
                scans: scans.clone(),
            };
            tasks.spawn(Box::pin(schedule.run(stop.clone())));
        }
        tasks.spawn(Box::pin(repair_queue::run(
            reconciler,
            repair_queue,
            repair,
            leads.clone(),
            stop.clone(),
        )));
        tasks
    }
}

/// The tools of the commands that ask the hubs.
pub struct ReconcileTools {
    /// Reconciles single twins.
    pub reconciler: Arc<TwinReconciler>,
    /// The hubs, at least one.
    pub registries: Vec<Arc<RateLimitedRegistry>>,
    /// Where notes are kept.
    pub notes: Arc<dyn NoteStore>,
    /// Options of audits, unless a person requests others.
    pub audit: audit::Options,
    /// Number of twins that a backfill processes at the same time.
    pub backfill_concurrency: usize,
}

/// Connects to the container and the hubs, as the daemon does. A daemon may run at the same time.
///
/// # Errors
/// No hub is configured, or something cannot be used.
pub async fn reconcile_tools(settings: &Settings, metrics: &Metrics) -> Result<ReconcileTools, Error> {
    let credential = credential::connect(&settings.credential.identity)?;
    let registries = connect_registries(settings, &credential, metrics, &HealthState::new())?;
    let notes = notes::open(&settings.checkpoint.store, &credential).await?;
    let store: Arc<dyn TwinStore> = Arc::new(connect_store(settings, credential).await?);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    Ok(ReconcileTools {
        reconciler: Arc::new(twin_reconciler(
            settings,
            &registries,
            store,
            &Shared::new(settings),
            &clock,
            metrics,
        )),
        registries,
        notes,
        audit: audit_options(settings),
        backfill_concurrency: settings.backfill.concurrency.get() as usize,
    })
}

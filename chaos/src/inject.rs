//! How each fault begins and ends.

use std::time::SystemTime;

use anyhow::{Context, Result};
use devkit::{
    broker,
    cosmos::{self, Operations},
    daemon::Signal,
    iothub::{DeliveryFaults, Loss, Operation, Skew, Source, api},
};
use serde_json::json;

use crate::{
    clock::Off,
    cluster::{Cluster, Replica, SECOND_DEVICES, apply, device},
    fault::{Fault, Target},
};

/// The limit of open files for a replica that must not open any more. It has more files open than that.
const NO_FILES: &str = "8";
/// Number of changes that a failover loses.
const LOST: u64 = 40;

/// A fault that has begun, with the data that are needed to end it.
#[derive(Debug)]
pub(crate) struct Under {
    pub(crate) fault: Fault,
    /// The replica that it affects, if it affects one.
    pub(crate) replica: usize,
    /// The replica's previous limit of open files.
    files: Option<String>,
}

impl Under {
    /// Whether it affects this replica.
    pub(crate) fn injections(&self, replica: usize) -> bool {
        self.fault.target() == Target::All || replica == self.replica
    }
}

/// Begins a fault.
///
/// # Errors
/// It cannot be injected.
pub(crate) async fn begin(cluster: &mut Cluster, fault: Fault, replica: usize) -> Result<Under> {
    let mut under = Under { fault, replica, files: None };
    match fault {
        Fault::Kill => kill(chosen(cluster, replica)?).await?,
        Fault::KillAll => {
            for replica in &mut cluster.replicas {
                kill(replica).await?;
            }
        }
        Fault::Restart => {
            chosen(cluster, replica)?.stop().await?;
        }
        Fault::Freeze => chosen(cluster, replica)?.signal("STOP").await?,
        Fault::ClockBehind => chosen(cluster, replica)?.restart_with_clock(Off::Behind).await?,
        Fault::ClockAhead => chosen(cluster, replica)?.restart_with_clock(Off::Ahead).await?,
        Fault::ConnectionsDrop => cluster.stack.broker().faults().drop_connections(),
        Fault::ConnectionsHang => chosen(cluster, replica)?.broker.freeze(),
        Fault::EventHubsAway => each(cluster, |replica| replica.broker.refuse()),
        Fault::EventHubsThrottle => cluster.stack.broker().faults().throttle(true),
        Fault::TokensRefused => {
            let faults = cluster.stack.broker().faults();
            faults.refuse_tokens_for(std::time::Duration::from_secs(3_600));
            faults.drop_connections();
        }
        Fault::CosmosHangs => cluster.stack.cosmos_proxy().context("Cosmos DB has no proxy")?.freeze(),
        Fault::CosmosAway => cosmos(cluster, cosmos::Faults { outage: true, ..Default::default() })?,
        Fault::CosmosThrottles => {
            let answer = cosmos::Fault { next: None, probability: 0.5, ..cosmos::Fault::next(429, 1) };
            let answers = vec![answer.on(Operations::Documents)];
            cosmos(cluster, cosmos::Faults { answers, ..Default::default() })?;
        }
        Fault::CosmosLosesAnswers => {
            let answer = cosmos::Fault { next: None, probability: 0.33, ..cosmos::Fault::next(503, 1) };
            cosmos(cluster, cosmos::Faults { answers: vec![answer.after()], ..Default::default() })?;
        }
        Fault::CosmosSlow => cosmos(cluster, cosmos::Faults { latency_ms: 200, ..Default::default() })?,
        Fault::CosmosClockAhead => {
            cosmos(cluster, cosmos::Faults { date_ahead_seconds: 600, ..Default::default() })?;
        }
        Fault::StorageAway => cluster.stack.azurite().context("Azurite does not run")?.stop().await?,
        Fault::StorageHangs => chosen(cluster, replica)?.storage.freeze(),
        Fault::RegistryHangs => {
            let hangs =
                api::Faults { faults: vec![api::Fault::new(api::FaultKind::Hang)], ..api::Faults::default() };
            for hub in cluster.stack.iothubs() {
                hub.registry().set_faults(hangs.clone())?;
            }
            poison(cluster)?;
        }
        Fault::DiskFull => {
            for replica in &cluster.replicas {
                replica.disk.as_ref().context("the replica has no disk")?.fill()?;
            }
            poison(cluster)?;
        }
        Fault::FilesExhausted => {
            let broker = cluster.stack.broker().address();
            let replica = chosen(cluster, replica)?;
            under.files = Some(replica.limit_files(NO_FILES).await?);
            replica.broker.lead_to(broker);
        }
        Fault::Replays => {
            let faults = DeliveryFaults { duplicate: 0.25, replay: 0.25, ..DeliveryFaults::default() };
            cluster.stack.hub().set_delivery_faults(faults);
        }
        Fault::RouteLate => {
            let skew = Skew { late: Source::DeviceLifecycle, notifications: None, ms: 2_000 };
            let faults = DeliveryFaults { skew: Some(skew), ..DeliveryFaults::default() };
            cluster.stack.hub().set_delivery_faults(faults);
        }
        Fault::Failover => fail_over(cluster)?,
    }
    Ok(under)
}

/// Ends a fault.
///
/// # Errors
/// It cannot be ended.
pub(crate) async fn end(cluster: &mut Cluster, under: Under) -> Result<()> {
    let Under { fault, replica, files } = under;
    match fault {
        Fault::Kill | Fault::Restart => chosen(cluster, replica)?.spawn()?,
        Fault::KillAll => {
            for replica in &mut cluster.replicas {
                replica.spawn()?;
            }
        }
        Fault::Freeze => chosen(cluster, replica)?.signal("CONT").await?,
        Fault::ClockBehind | Fault::ClockAhead => {
            let replica = chosen(cluster, replica)?;
            replica.stop().await?;
            replica.spawn()?;
        }
        Fault::ConnectionsHang => chosen(cluster, replica)?.broker.thaw(),
        Fault::EventHubsAway => each(cluster, |replica| replica.broker.admit()),
        Fault::EventHubsThrottle => cluster.stack.broker().faults().throttle(false),
        Fault::TokensRefused => {
            cluster.stack.broker().faults().refuse_tokens_for(std::time::Duration::ZERO);
        }
        Fault::CosmosHangs => cluster.stack.cosmos_proxy().context("Cosmos DB has no proxy")?.thaw(),
        Fault::CosmosAway
        | Fault::CosmosThrottles
        | Fault::CosmosLosesAnswers
        | Fault::CosmosSlow
        | Fault::CosmosClockAhead => cosmos(cluster, cosmos::Faults::default())?,
        Fault::StorageAway => cluster.stack.azurite().context("Azurite does not run")?.restart().await?,
        Fault::StorageHangs => chosen(cluster, replica)?.storage.thaw(),
        Fault::RegistryHangs => {
            for hub in cluster.stack.iothubs() {
                hub.registry().set_faults(api::Faults::default())?;
            }
        }
        Fault::DiskFull => {
            for replica in &cluster.replicas {
                replica.disk.as_ref().context("the replica has no disk")?.clear()?;
            }
        }
        Fault::FilesExhausted => {
            let before = files.context("the previous limit is not known")?;
            chosen(cluster, replica)?.limit_files(&before).await?;
        }
        Fault::Replays | Fault::RouteLate => {
            cluster.stack.hub().set_delivery_faults(DeliveryFaults::default());
        }
        Fault::ConnectionsDrop | Fault::Failover => {}
    }
    Ok(())
}

fn chosen(cluster: &mut Cluster, replica: usize) -> Result<&mut Replica> {
    cluster.replicas.get_mut(replica).context("there is no such replica")
}

fn each(cluster: &Cluster, act: impl Fn(&Replica)) {
    cluster.replicas.iter().for_each(act);
}

async fn kill(replica: &mut Replica) -> Result<()> {
    if let Some(daemon) = replica.daemon.take() {
        daemon.end(Signal::Kill).await?;
    }
    Ok(())
}

fn cosmos(cluster: &Cluster, faults: cosmos::Faults) -> Result<()> {
    cluster.stack.cosmos().set_faults(faults).context("Cosmos DB does not accept this fault")
}

/// The second hub loses its latest changes. Half of its devices change again, which shows that it failed over. For the others nothing shows
/// it, so an audit has to find them.
fn fail_over(cluster: &Cluster) -> Result<()> {
    let hub = cluster.second_hub()?;
    let report = |number: usize, change: u64| {
        let (id, patch) = (device("pump", number)?, json!({ "change": change }));
        apply(hub, Operation::Report { id, patch })
    };
    for change in 0..3 {
        for number in 0..SECOND_DEVICES {
            report(number, change)?;
        }
    }
    hub.failover(Loss::Operations(LOST))?;
    for number in (0..SECOND_DEVICES).step_by(2) {
        report(number, LOST)?;
    }
    Ok(())
}

/// Appends an event that can never be applied, for an existing device. It becomes a dead letter, and its twin is flagged.
fn poison(cluster: &Cluster) -> Result<()> {
    let (id, endpoints) = (device("probe", 0)?, cluster.stack.endpoints());
    let text = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), broker::Value::from(*value))).collect()
    };
    let now = devkit::iothub::Timestamp::from(SystemTime::now()).seven_digits("Z");
    let event = broker::Event {
        body: b"[1]".to_vec(),
        application_properties: text(&[
            ("hubName", &endpoints.iothub_name),
            ("deviceId", id.device_id()),
            ("opType", "updateTwin"),
            ("iothub-message-schema", "twinChangeNotification"),
            ("operationTimestamp", &now),
        ]),
        annotations: text(&[
            ("iothub-message-source", "twinChangeEvents"),
            ("iothub-connection-device-id", id.device_id()),
        ]),
        ..broker::Event::default()
    };
    cluster.stack.broker().append(&endpoints.twin_changes_hub, id.device_id(), event)?;
    Ok(())
}

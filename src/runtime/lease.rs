//! Leases of one Event Hub's partitions in the checkpoint store, in the SDKs' common layout.
//!
//! Facts that shape this file:
//!
//! - The store's clock differs from the local clock and has whole seconds. So a lease counts as expired when its ETag has not changed for
//!   the lease's duration *on the local clock*.
//! - A claim is won only if the partition is in the answer, and an error in a batch hides the claims that were won before it. So each call
//!   claims one partition.
//! - An owner of `""` means no owner: every SDK releases in this way.
//! - The broker knows nothing of leases, so two replicas may process one partition for a moment. Their writes are idempotent.
//!
//! A replica that cannot renew fences itself: it stops a partition before its lease can expire for the others. Each lease has its own timer
//! for that, so a call that hangs cannot delay it. The age of a lease counts from the *sending* of the last renewal that was confirmed: the
//! others cannot have seen that renewal earlier.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use azure_core::http::StatusCode;
use azure_messaging_eventhubs::{CheckpointStore, models::Ownership};
use futures::future::join_all;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::committer::failure_of;
use crate::{
    domain::{
        health::Failure,
        id::PartitionId,
        lease::{Holder, others, plan},
    },
    runtime::jitter::jitter,
    telemetry::event::Fault,
};

/// Options of the leases.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of this process among the replicas. Must be unique.
    pub owner: String,
    /// How long an owner that does not renew keeps its partitions.
    pub duration: Duration,
    /// How often an owner renews its leases.
    pub renew_interval: Duration,
}

impl Options {
    /// How often the leases are polled. A clean hand-over waits for this.
    pub fn poll_interval(&self) -> Duration {
        self.renew_interval / 4
    }

    /// Time limit of one call.
    fn call_limit(&self) -> Duration {
        (self.duration / 12).clamp(Duration::from_secs(1), Duration::from_secs(5))
    }

    /// Age at which a lease that could not be renewed is given up. The rest of its duration allows for clocks that run at different speeds,
    /// and for checkpoints that are being written.
    fn fence_after(&self) -> Duration {
        self.duration * 4 / 5
    }
}

/// The leases of one Event Hub.
pub struct Leases {
    store: Arc<dyn CheckpointStore>,
    options: Options,
    /// Lower case, as the other SDKs write it.
    namespace: String,
    hub: String,
    consumer_group: String,
    /// The hub's name in its original case, for logs.
    stream: String,
    partitions: Vec<String>,
    /// Chooses among equal claims. Fixed, so that the plan stays the same from round to round.
    luck: f64,
    seen: BTreeMap<String, Seen>,
    held: BTreeMap<String, Held>,
}

/// Another owner's lease, and since when it has this ETag.
struct Seen {
    etag: Option<String>,
    since: Instant,
}

/// A lease that this replica holds.
struct Held {
    ownership: Ownership,
    /// When the last confirmed claim or renewal was sent.
    confirmed: Instant,
    /// When its confirmation arrived.
    answered: Instant,
    fence: Fence,
}

/// The timer that ends a lease that is not renewed in time.
struct Fence {
    /// Cancelled when the lease has to end. This is final.
    fallen: CancellationToken,
    confirmed: watch::Sender<Instant>,
    _timer: AbortOnDropHandle<()>,
}

impl Fence {
    fn new(partition: PartitionId, confirmed: Instant, limit: Duration) -> Self {
        let (fallen, confirmed) = (CancellationToken::new(), watch::Sender::new(confirmed));
        let timer = fall(partition, confirmed.subscribe(), limit, fallen.clone());
        Self { fallen, confirmed, _timer: AbortOnDropHandle::new(tokio::spawn(timer)) }
    }
}

/// Cancels `fallen` as soon as the lease is older than `limit`.
async fn fall(
    partition: PartitionId,
    mut confirmed: watch::Receiver<Instant>,
    limit: Duration,
    fallen: CancellationToken,
) {
    loop {
        let since = *confirmed.borrow_and_update();
        tokio::select! {
            biased;
            renewed = confirmed.changed() => if renewed.is_err() {
                return; // the lease is no longer held
            },
            () = sleep_until(since + limit), if !planted!(LeaseWithoutFence) => {
                fallen.cancel();
                let age_ms = since.elapsed().as_millis() as u64;
                tracing::warn!(
                    stream = %partition.stream, partition = %partition.partition, age_ms, code = "LEASE_EXPIRED",
                    "the lease could not be renewed in time: the partition is stopped, until it can be claimed again"
                );
                return;
            }
        }
    }
}

/// Result of one round over the leases.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Partitions that this replica owns from now on.
    pub gained: Vec<String>,
    /// Partitions that this replica no longer owns. They must be stopped at once.
    pub lost: Vec<String>,
    /// Partitions to finish and release.
    pub surplus: Vec<String>,
    /// The owner of each partition, if the leases could be listed. A partition with `None` has no owner.
    pub owners: Option<BTreeMap<String, Option<String>>>,
    /// Partitions in the list that this replica does not know: another replica may have found them first.
    pub unknown: Vec<String>,
    /// The other replicas that own partitions, if the leases could be listed.
    pub others: Option<BTreeSet<String>>,
    /// Why the leases could not be listed, or why some leases of this replica could not be renewed.
    pub failed: Option<Failed>,
}

impl Leases {
    /// Creates the leases of a replica that holds none yet.
    pub fn new(
        store: Arc<dyn CheckpointStore>,
        options: Options,
        namespace: &str,
        hub: &str,
        consumer_group: &str,
        partitions: Vec<String>,
    ) -> Self {
        Self {
            store,
            options,
            namespace: namespace.to_lowercase(),
            hub: hub.to_lowercase(),
            stream: hub.to_owned(),
            consumer_group: consumer_group.to_lowercase(),
            partitions,
            luck: jitter(),
            seen: BTreeMap::new(),
            held: BTreeMap::new(),
        }
    }

    /// Adds partitions. Those that are already known are ignored.
    pub fn add(&mut self, partitions: &[String]) {
        let new = partitions.iter().filter(|partition| !self.partitions.contains(partition));
        let new: Vec<_> = new.cloned().collect();
        self.partitions.extend(new);
    }

    /// Lists all leases, renews those of this replica that are due, and claims a fair share. `leaving` are partitions of this replica that
    /// are being finished. `claim` is false if no more partitions should be taken.
    pub async fn round(&mut self, leaving: &[String], claim: bool) -> Round {
        let list = self.store.list_ownerships(&self.namespace, &self.hub, &self.consumer_group);
        let listed = match timeout(self.options.call_limit(), list).await {
            Ok(Ok(listed)) => listed,
            Ok(Err(error)) => return self.without_sight(Failed::from(&error)),
            Err(_) => return self.without_sight(Failed::silent()),
        };
        let listed: BTreeMap<String, Ownership> =
            listed.into_iter().map(|ownership| (ownership.partition_id.clone(), ownership)).collect();
        let mut round = Round { lost: self.stolen(&listed), ..Round::default() };
        round.failed = self.renew().await;
        round.lost.extend(self.fence());
        self.observe(&listed);
        round.owners = Some(self.owners(&listed));
        round.unknown = listed.keys().filter(|name| !self.partitions.contains(name)).cloned().collect();
        round.others = Some(others(&self.view(&listed, &[])));
        if claim {
            let view = self.view(&listed, leaving);
            let plan = plan(&self.options.owner, &view, self.luck);
            round.surplus = plan.release;
            round.gained = self.claim(&plan.claim, &listed).await;
        }
        round
    }

    /// Releases a partition, so that another replica can take it at once.
    pub async fn release(&mut self, partition: &str) {
        let Some(held) = self.held.remove(partition) else { return };
        let free = Ownership { owner_id: Some(String::new()), ..held.ownership };
        if let Err(Failed { code, reason, .. }) = self.claim_one(free).await {
            // The only effect is that the others wait for the lease to expire.
            tracing::warn!(
                stream = %self.stream, %partition, code, reason,
                "the lease was not released: another replica waits until it expires"
            );
        }
    }

    /// The fence of the present lease of a partition: cancelled at the moment when the lease must no longer be used, whatever else is in
    /// progress. Losing or releasing the lease does not cancel it. `None` if this replica does not hold the lease.
    pub fn term(&self, partition: &str) -> Option<CancellationToken> {
        self.held.get(partition).map(|held| held.fence.fallen.clone())
    }

    /// The partitions whose leases this replica holds.
    pub fn held(&self) -> Vec<String> {
        self.held.keys().cloned().collect()
    }

    fn id(&self, partition: &str) -> PartitionId {
        PartitionId { stream: self.stream.clone(), partition: partition.to_owned() }
    }

    fn without_sight(&mut self, failed: Failed) -> Round {
        Round { lost: self.fence(), failed: Some(failed), ..Round::default() }
    }

    /// Removes and returns the leases of this replica that the list shows with another owner.
    fn stolen(&mut self, listed: &BTreeMap<String, Ownership>) -> Vec<String> {
        let ours = |partition: &String| {
            let owner = listed.get(partition).and_then(|ownership| ownership.owner_id.as_deref());
            owner == Some(self.options.owner.as_str())
        };
        let stolen: Vec<_> = self.held.keys().filter(|partition| !ours(partition)).cloned().collect();
        for partition in &stolen {
            tracing::warn!(
                stream = %self.stream, %partition, code = "LEASE_TAKEN",
                "another replica has taken the partition: it is stopped here, and goes on there"
            );
        }
        self.held.retain(|partition, _| !stolen.contains(partition));
        stolen
    }

    /// Renews the leases that are due. Returns why one of them was not renewed.
    async fn renew(&mut self) -> Option<Failed> {
        let mut failed = None;
        let due = |held: &Held| held.confirmed.elapsed() >= self.options.renew_interval;
        let due: Vec<_> =
            self.held.values().filter(|held| due(held)).map(|held| held.ownership.clone()).collect();
        let sent = Instant::now();
        let answers = join_all(due.iter().map(|ownership| self.claim_one(ownership.clone()))).await;
        for (due, answer) in due.iter().zip(answers) {
            match answer {
                Ok(Some(ownership)) => {
                    if let Some(held) = self.held.get_mut(&ownership.partition_id) {
                        // A cancelled fence stays cancelled: the partition is lost, and may be claimed anew.
                        held.fence.confirmed.send_replace(sent);
                        (held.confirmed, held.answered) = (sent, Instant::now());
                        held.ownership = ownership;
                    }
                }
                // Another replica was faster, or an earlier renewal by this replica succeeded without its answer. The next list shows
                // which. Until then the age of the lease is unchanged.
                Ok(None) => {}
                Err(failure) => {
                    let (partition, reason) = (&due.partition_id, &failure.reason);
                    tracing::debug!(stream = %self.stream, %partition, reason, "a lease was not renewed");
                    failed = Some(failure);
                }
            }
        }
        failed
    }

    /// Removes and returns the partitions whose leases are fenced.
    fn fence(&mut self) -> Vec<String> {
        let fallen = self.held.iter().filter(|(_, held)| held.fence.fallen.is_cancelled());
        let fallen: Vec<_> = fallen.map(|(partition, _)| partition.clone()).collect();
        self.held.retain(|partition, _| !fallen.contains(partition));
        fallen
    }

    fn observe(&mut self, listed: &BTreeMap<String, Ownership>) {
        for (partition, ownership) in listed {
            let etag = ownership.etag.as_ref().map(ToString::to_string);
            // Renewals by this replica change ETags between two lists. The newest known ETag counts.
            if let Some(held) = self.held.get_mut(partition)
                && held.answered.elapsed() >= self.options.poll_interval()
            {
                held.ownership.etag.clone_from(&ownership.etag);
            }
            match self.seen.get_mut(partition) {
                Some(seen) if seen.etag == etag => {}
                Some(_) | None => {
                    self.seen.insert(partition.clone(), Seen { etag, since: Instant::now() });
                }
            }
        }
    }

    fn owners(&self, listed: &BTreeMap<String, Ownership>) -> BTreeMap<String, Option<String>> {
        let owner = |holder: Holder<'_>| match holder {
            Holder::Me => Some(self.options.owner.clone()),
            Holder::Other(owner) => Some(owner.to_owned()),
            Holder::Nobody => None,
        };
        self.view(listed, &[]).into_iter().map(|(partition, holder)| (partition, owner(holder))).collect()
    }

    fn view<'a>(
        &self,
        listed: &'a BTreeMap<String, Ownership>,
        leaving: &[String],
    ) -> BTreeMap<String, Holder<'a>> {
        let holder = |partition: &String| {
            if self.held.contains_key(partition) {
                return Holder::Me;
            }
            let owner = listed.get(partition).and_then(|ownership| ownership.owner_id.as_deref());
            let expired =
                self.seen.get(partition).is_some_and(|seen| seen.since.elapsed() >= self.options.duration);
            match owner {
                // A lease with this replica's name that it does not hold: an earlier claim whose answer was lost.
                Some(owner) if !owner.is_empty() && owner != self.options.owner && !expired => {
                    Holder::Other(owner)
                }
                Some(_) | None => Holder::Nobody,
            }
        };
        let staying = self.partitions.iter().filter(|partition| !leaving.contains(partition));
        staying.map(|partition| (partition.clone(), holder(partition))).collect()
    }

    async fn claim(&mut self, partitions: &[String], listed: &BTreeMap<String, Ownership>) -> Vec<String> {
        let claims = partitions.iter().map(|partition| {
            self.claim_one(Ownership {
                fully_qualified_namespace: self.namespace.clone(),
                event_hub_name: self.hub.clone(),
                consumer_group: self.consumer_group.clone(),
                partition_id: partition.clone(),
                owner_id: Some(self.options.owner.clone()),
                etag: listed.get(partition).and_then(|ownership| ownership.etag.clone()),
                last_modified_time: None,
            })
        });
        let sent = Instant::now();
        let answers = join_all(claims).await;
        let mut gained = Vec::new();
        for (partition, answer) in partitions.iter().zip(answers) {
            match answer {
                Ok(Some(ownership)) => {
                    let fence = Fence::new(self.id(partition), sent, self.options.fence_after());
                    let held = Held { ownership, confirmed: sent, answered: Instant::now(), fence };
                    self.held.insert(partition.clone(), held);
                    gained.push(partition.clone());
                }
                Ok(None) => {} // another replica was faster
                Err(Failed { code, reason, .. }) => tracing::warn!(
                    stream = %self.stream, %partition, code, reason, again = "with the next discovery",
                    "a partition was not claimed"
                ),
            }
        }
        gained
    }

    /// Claims, renews or releases one lease. Returns `None` if the condition did not hold.
    async fn claim_one(&self, ownership: Ownership) -> Result<Option<Ownership>, Failed> {
        match timeout(self.options.call_limit(), self.store.claim_ownership(&[ownership])).await {
            Ok(Ok(claimed)) => Ok(claimed.into_iter().next()),
            Ok(Err(error)) => Err(Failed::from(&error)),
            Err(_) => Err(Failed::silent()),
        }
    }
}

/// Code of a blob container that gives no usable answer.
const UNAVAILABLE: &str = "BLOB_UNAVAILABLE";

/// How and why the store of the leases fails. Leases are always stored in blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    failure: Failure,
    code: &'static str,
    reason: String,
}

impl Failed {
    /// The failure as a [`Fault`], for events.
    pub fn fault(&self) -> Fault<'_> {
        Fault { failure: self.failure, code: self.code, reason: &self.reason }
    }

    fn silent() -> Self {
        Self { failure: Failure::Silent, code: UNAVAILABLE, reason: "no answer in time".to_owned() }
    }
}

impl From<&azure_core::Error> for Failed {
    fn from(error: &azure_core::Error) -> Self {
        let code = match error.http_status() {
            Some(StatusCode::TooManyRequests) => "BLOB_THROTTLED",
            Some(StatusCode::Unauthorized | StatusCode::Forbidden) => "BLOB_REFUSED",
            Some(StatusCode::NotFound) => "BLOB_CONTAINER_MISSING",
            Some(_) | None => UNAVAILABLE,
        };
        let reason = error.to_string().lines().next().unwrap_or_default().to_owned();
        Self { failure: failure_of(error), code, reason }
    }
}

#[cfg(test)]
mod tests;

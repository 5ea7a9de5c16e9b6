//! Leases of one Event Hub's partitions in the checkpoint store, in the SDKs' common layout.
//!
//! Facts that shape this file: the store's clock is not ours and has whole seconds, so a lease counts as expired when its
//! ETag has not changed for the lease's duration *on our own clock*; a claim is won only if the partition is in the answer,
//! and an error in a batch hides what was won before it, so each call claims one partition; an owner of `""` is nobody
//! (that is how every SDK releases). The broker knows nothing of leases, so two replicas may process one partition for a
//! moment; what they do is idempotent.
//!
//! A replica that cannot renew fences itself: it stops a partition before its lease can expire for the others. Each lease
//! has a timer of its own for that, which no call that hangs can hold up. A lease is as old as the *sending* of the last
//! renewal that was confirmed: the others cannot have seen it earlier.

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

/// How leases are kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// Names this process among the replicas; must be unique.
    pub owner: String,
    /// How long a silent owner keeps its partitions.
    pub duration: Duration,
    /// How often an owner shows that it lives.
    pub renew_interval: Duration,
}

impl Options {
    /// How often the ownerships are looked at: what a clean hand-over waits for.
    pub fn poll_interval(&self) -> Duration {
        self.renew_interval / 4
    }

    /// Limit of one call.
    fn call_limit(&self) -> Duration {
        (self.duration / 12).clamp(Duration::from_secs(1), Duration::from_secs(5))
    }

    /// Age at which a lease that could not be renewed is given up. What is left of its duration is for clocks that do not
    /// run alike, and for checkpoints that are on their way.
    fn fence_after(&self) -> Duration {
        self.duration * 4 / 5
    }
}

/// Leases of one Event Hub.
pub struct Leases {
    store: Arc<dyn CheckpointStore>,
    options: Options,
    /// Lower-cased, as the other SDKs write them.
    namespace: String,
    hub: String,
    consumer_group: String,
    /// The hub's name as others spell it, for people.
    stream: String,
    partitions: Vec<String>,
    /// Chooses among equals; fixed, so that a plan does not change its mind.
    luck: f64,
    seen: BTreeMap<String, Seen>,
    held: BTreeMap<String, Held>,
}

/// Another owner's lease as it was last seen.
struct Seen {
    etag: Option<String>,
    since: Instant,
}

/// A lease of ours.
struct Held {
    ownership: Ownership,
    /// When the last claim or renewal was sent that was confirmed.
    confirmed: Instant,
    /// When its confirmation came.
    answered: Instant,
    fence: Fence,
}

/// The end of a lease that is not renewed in time.
struct Fence {
    /// Cancelled when the time has come; for good.
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
                return; // nobody holds the lease any more
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

/// What a look at the leases changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Partitions that are ours from here on.
    pub gained: Vec<String>,
    /// Partitions that are ours no longer, and must be stopped at once.
    pub lost: Vec<String>,
    /// Partitions to finish and give up.
    pub surplus: Vec<String>,
    /// Who owns each partition, where the leases could be looked at; `None`: nobody.
    pub owners: Option<BTreeMap<String, Option<String>>>,
    /// Partitions in the list that we do not know: another replica may have found them first.
    pub unknown: Vec<String>,
    /// The other replicas that own something, where the leases could be looked at.
    pub others: Option<BTreeSet<String>>,
    /// How and why the leases could not be looked at, or some of ours not be renewed.
    pub failed: Option<Failed>,
}

impl Leases {
    /// No leases yet.
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

    /// There are these partitions as well.
    pub fn add(&mut self, partitions: &[String]) {
        let new = partitions.iter().filter(|partition| !self.partitions.contains(partition));
        let new: Vec<_> = new.cloned().collect();
        self.partitions.extend(new);
    }

    /// Looks at all leases, renews ours where it is time, and claims what is fair. `leaving` are partitions of ours that
    /// are being finished; `claim` is false when nothing more should be taken on.
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

    /// Gives a partition up, so that another replica can take it at once.
    pub async fn release(&mut self, partition: &str) {
        let Some(held) = self.held.remove(partition) else { return };
        let free = Ownership { owner_id: Some(String::new()), ..held.ownership };
        if let Err(Failed { code, reason, .. }) = self.claim_one(free).await {
            // The others wait for the lease to expire, nothing else.
            tracing::warn!(
                stream = %self.stream, %partition, code, reason,
                "the lease was not released: another replica waits until it expires"
            );
        }
    }

    /// The end of the present lease of a partition of ours: cancelled the moment it must not be used any more, whatever
    /// else is going on. Lost and released leases do not cancel it.
    pub fn term(&self, partition: &str) -> Option<CancellationToken> {
        self.held.get(partition).map(|held| held.fence.fallen.clone())
    }

    /// Partitions of ours.
    pub fn held(&self) -> Vec<String> {
        self.held.keys().cloned().collect()
    }

    fn id(&self, partition: &str) -> PartitionId {
        PartitionId { stream: self.stream.clone(), partition: partition.to_owned() }
    }

    fn without_sight(&mut self, failed: Failed) -> Round {
        Round { lost: self.fence(), failed: Some(failed), ..Round::default() }
    }

    /// Leases of ours that the list shows with another owner.
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

    /// Says how and why one of ours was not renewed.
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
                        // A fence that has fallen stays down: the partition is lost, and may be claimed anew.
                        held.fence.confirmed.send_replace(sent);
                        (held.confirmed, held.answered) = (sent, Instant::now());
                        held.ownership = ownership;
                    }
                }
                // Somebody was faster, or an earlier renewal of ours went through without its answer: the next list
                // tells, and until then the lease is as old as it is.
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

    /// Takes off what is fenced already.
    fn fence(&mut self) -> Vec<String> {
        let fallen = self.held.iter().filter(|(_, held)| held.fence.fallen.is_cancelled());
        let fallen: Vec<_> = fallen.map(|(partition, _)| partition.clone()).collect();
        self.held.retain(|partition, _| !fallen.contains(partition));
        fallen
    }

    fn observe(&mut self, listed: &BTreeMap<String, Ownership>) {
        for (partition, ownership) in listed {
            let etag = ownership.etag.as_ref().map(ToString::to_string);
            // Our own renewals change ETags between two lists; the newest known one counts.
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
                // One's own name on a lease one does not hold: an earlier claim whose answer was lost.
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
                Ok(None) => {} // somebody was faster
                Err(Failed { code, reason, .. }) => tracing::warn!(
                    stream = %self.stream, %partition, code, reason, again = "with the next discovery",
                    "a partition was not claimed"
                ),
            }
        }
        gained
    }

    /// `None` where the condition did not hold.
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

/// How and why the store of the leases fails. Leases are always on blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    failure: Failure,
    code: &'static str,
    reason: String,
}

impl Failed {
    /// The same, to be told.
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

//! Checkpoints and leases as in blobs: a single order of writes, and ETags for leases.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use azure_core::{Error, Result, http::Etag};
use azure_messaging_eventhubs::{
    CheckpointStore,
    models::{Checkpoint, Ownership},
};
use twinsync::adapters::{blob, checkpoints};

use crate::{
    hub::SECOND,
    link::{Link, Step},
    plan::Fault,
    world::{Invariant, Lease, Place, Service, World},
};

/// The default of `lease.duration`, in ticks.
const LEASE: i64 = 30 * SECOND;

pub(crate) struct Checkpoints {
    pub(crate) link: Arc<Link>,
    /// Whether partitions have leases.
    pub(crate) shared: bool,
}

/// A change of the store.
#[derive(Clone)]
enum Change {
    Claim(Ownership),
    Checkpoint { place: Place, number: i64, offset: String },
}

fn trouble(throttled: bool) -> Error {
    let (operation, place, reason) = ("ask", "the simulation".to_owned(), "simulated".to_owned());
    let error = match throttled {
        true => blob::Error::Throttled { operation, place, reason },
        false => blob::Error::Unavailable { operation, place, reason },
    };
    checkpoints::Error::from(error).into()
}

impl Checkpoints {
    /// Faults of a request before it is performed.
    async fn refused(&self, step: Step) -> std::result::Result<Step, Error> {
        let world = &self.link.world;
        let away = world.is_away(Service::Storage, &self.link.name);
        if away || world.draws(Fault::CheckpointsRefuse) {
            let throttled = !away && world.below(3) == 0;
            self.link.end(step).await;
            return Err(trouble(throttled));
        }
        Ok(step)
    }

    async fn change(&self, step: Step, change: Change) -> Result<Option<Ownership>> {
        let link = &self.link;
        let step = self.refused(step).await?;
        if link.world.draws_rarely(Fault::CheckpointsHang) {
            let asker = link.name.clone();
            let after = link.world.span(Duration::from_secs(1), Duration::from_secs(40));
            link.later(after, move |world| drop(perform(world, &asker, &change)));
            tokio::time::sleep(Duration::from_secs(60)).await;
            return Err(trouble(false));
        }
        let done = perform(&link.world, &link.name, &change);
        let loses = link.world.draws(Fault::CheckpointsLoseAnswers);
        link.end(step).await;
        if loses {
            return Err(trouble(false));
        }
        Ok(done)
    }
}

/// Returns `None` if the condition did not hold or there is nothing to return.
fn perform(world: &World, asker: &str, change: &Change) -> Option<Ownership> {
    let now = world.now();
    match change {
        Change::Claim(wanted) => {
            let place = (wanted.event_hub_name.clone(), wanted.partition_id.clone());
            let mut inner = world.lock();
            let present = inner.leases.get(&place).map(|lease| lease.etag.to_string());
            let holds = present == wanted.etag.as_ref().map(ToString::to_string);
            let owner = wanted.owner_id.clone().unwrap_or_default();
            let mut claimed = None;
            if holds {
                inner.etags += 1;
                let etag = inner.etags;
                inner.leases.insert(place.clone(), Lease { owner: owner.clone(), etag });
                if owner.is_empty() {
                    // A replica that releases its lease has no claim any more.
                    inner.claims.retain(|(of, by), _| *of != place || *by != asker);
                } else {
                    inner.claims.insert((place.clone(), owner.clone()), now);
                }
                claimed = Some(Ownership { etag: Some(Etag::from(etag.to_string())), ..wanted.clone() });
            }
            drop(inner);
            world.tell(format!("lease {}/{} for `{owner}`: {holds}", place.0, place.1));
            claimed
        }
        Change::Checkpoint { place, number, offset } => {
            world.lock().checkpoints.insert(place.clone(), (*number, offset.clone()));
            world.tell(format!("checkpoint {}/{} = {number} at {offset}", place.0, place.1));
            world.check_checkpoint(place, *number, offset);
            None
        }
    }
}

#[async_trait]
impl CheckpointStore for Checkpoints {
    async fn claim_ownership(&self, ownerships: &[Ownership]) -> Result<Vec<Ownership>> {
        let mut claimed = Vec::new();
        for ownership in ownerships {
            let step = self.link.begin(&format!("claim {}", ownership.partition_id)).await;
            claimed.extend(self.change(step, Change::Claim(ownership.clone())).await?);
        }
        Ok(claimed)
    }

    async fn list_checkpoints(&self, _: &str, hub: &str, _: &str) -> Result<Vec<Checkpoint>> {
        let step = self.link.begin(&format!("checkpoints of {hub}")).await;
        let step = self.refused(step).await?;
        let listed = {
            let inner = self.link.world.lock();
            let of_hub = inner.checkpoints.iter().filter(|((name, _), _)| name == hub);
            let checkpoint = |((hub, partition), (number, offset)): (&Place, &(i64, String))| Checkpoint {
                event_hub_name: hub.clone(),
                partition_id: partition.clone(),
                offset: Some(offset.clone()),
                sequence_number: Some(*number),
                ..Checkpoint::default()
            };
            of_hub.map(checkpoint).collect()
        };
        self.link.end(step).await;
        Ok(listed)
    }

    async fn list_ownerships(&self, namespace: &str, hub: &str, group: &str) -> Result<Vec<Ownership>> {
        let step = self.link.begin(&format!("leases of {hub}")).await;
        let step = self.refused(step).await?;
        let listed = {
            let inner = self.link.world.lock();
            let of_hub = inner.leases.iter().filter(|((name, _), _)| name == hub);
            let ownership = |((hub, partition), lease): (&Place, &Lease)| Ownership {
                fully_qualified_namespace: namespace.to_owned(),
                event_hub_name: hub.clone(),
                consumer_group: group.to_owned(),
                partition_id: partition.clone(),
                owner_id: Some(lease.owner.clone()),
                etag: Some(Etag::from(lease.etag.to_string())),
                last_modified_time: None,
            };
            of_hub.map(ownership).collect()
        };
        self.link.end(step).await;
        Ok(listed)
    }

    async fn update_checkpoint(&self, checkpoint: Checkpoint) -> Result<()> {
        let link = &self.link;
        let place = (checkpoint.event_hub_name, checkpoint.partition_id);
        let (number, offset) =
            (checkpoint.sequence_number.unwrap_or(-1), checkpoint.offset.unwrap_or_default());
        if self.shared && !link.is_dead() {
            let now = link.world.now();
            let claimed = link.world.lock().claims.get(&(place.clone(), link.name.clone())).copied();
            if claimed.is_none_or(|claimed| now - claimed > LEASE) {
                let owner = link.world.lock().leases.get(&place).map(|lease| lease.owner.clone());
                let ago = claimed.map(|claimed| (now - claimed) / SECOND);
                let detail = format!(
                    "{} sends {number} of {}/{}, which it was given {ago:?} s ago; it is {owner:?}'s",
                    link.name, place.0, place.1
                );
                link.world.violate(Invariant::CheckpointIsOfItsOwner, detail);
            }
        }
        let step = link.begin(&format!("commit {}/{} {number}", place.0, place.1)).await;
        self.change(step, Change::Checkpoint { place, number, offset }).await.map(drop)
    }
}

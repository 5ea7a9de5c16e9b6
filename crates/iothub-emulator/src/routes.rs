//! The routes: which Event Hub a notification goes to, and faults of its delivery.
//!
//! The partition key is the device's id, for its modules as well. Order is kept per key. IoT Hub guarantees delivery
//! at least once and in order. A replay may go back to earlier events and continue from there, and one event may
//! report several changes. These are the faults here, together with loss. All probabilities are 0 by default. They use
//! a seeded generator. There is no order between lifecycle events and twin changes, and a skew delays one of the two.

use std::collections::{BTreeMap, HashMap, VecDeque};

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};

use super::{Change, Notification, Source, Timestamp, TwinId};

mod coalesce;
mod skew;

use skew::LateStream;
pub use skew::Skew;

/// The Event Hubs of the two sources. Both may name the same Event Hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubNames {
    /// Receives the creation and deletion of identities.
    pub lifecycle: String,
    /// Receives the writes of twins.
    pub twin_changes: String,
}

impl Default for HubNames {
    fn default() -> Self {
        Self { lifecycle: "lifecycle".to_owned(), twin_changes: "twin-changes".to_owned() }
    }
}

/// The destination of notifications: an Event Hubs broker, or a test's list.
pub trait Route: Send + Sync {
    /// Appends `notification` to the Event Hub `hub`, in the partition of `partition_key`.
    ///
    /// # Errors
    /// The event was not stored.
    fn append(&self, hub: &str, partition_key: &str, notification: &Notification) -> Result<(), RouteError>;
}

/// An event could not be stored.
#[derive(Debug, thiserror::Error)]
#[error("cannot append to event hub {hub:?}")]
pub struct RouteError {
    /// The Event Hub that refused the event.
    pub hub: String,
    /// The reason.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Faults of delivery. The probabilities apply to each notification.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DeliveryFaults {
    /// Seed of the random generator, so that a run can be repeated.
    pub seed: u64,
    /// The event is appended twice: 1, 1.
    pub duplicate: f64,
    /// The latest events of the partition key are appended again, in order: 1, 2, 1, 2, 3.
    pub replay: f64,
    /// Maximum number of events that one replay repeats.
    pub replay_length: usize,
    /// A twin's update is held back. It is sent as one event together with the twin's next update.
    pub coalesce: f64,
    /// The event never arrives.
    pub lose: f64,
    /// One of the two streams is late.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skew: Option<Skew>,
}

impl Default for DeliveryFaults {
    fn default() -> Self {
        Self { seed: 0, duplicate: 0.0, replay: 0.0, replay_length: 5, coalesce: 0.0, lose: 0.0, skew: None }
    }
}

impl DeliveryFaults {
    /// Checks that each probability is between 0 and 1, and that a replay repeats at least one event.
    ///
    /// # Errors
    /// A sentence that names the invalid setting.
    pub fn validate(&self) -> Result<(), String> {
        let probabilities = [
            ("duplicate", self.duplicate),
            ("replay", self.replay),
            ("coalesce", self.coalesce),
            ("lose", self.lose),
        ];
        for (name, value) in probabilities {
            if !(0.0..=1.0).contains(&value) {
                return Err(format!("{name} is a probability between 0 and 1, not {value}"));
            }
        }
        if self.replay > 0.0 && self.replay_length == 0 {
            return Err("replayLength must be at least 1 for a replay".to_owned());
        }
        Ok(())
    }
}

/// Counts of the delivery, in events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryCounts {
    /// Notifications that the hub emitted, by `opType`.
    pub caused: BTreeMap<String, u64>,
    /// Events appended, including repeated ones, by Event Hub.
    pub appended: BTreeMap<String, u64>,
    /// Events appended twice in a row.
    pub duplicates: u64,
    /// Events appended again by a replay.
    pub replayed: u64,
    /// Notifications that were sent as part of a later event.
    pub coalesced: u64,
    /// Notifications that were never sent.
    pub lost: u64,
    /// Events that were held back because their stream is late.
    #[serde(default)]
    pub late: u64,
}

/// Delivers notifications to Event Hubs.
#[derive(Debug)]
pub struct Routes {
    names: HubNames,
    faults: DeliveryFaults,
    random: StdRng,
    counts: DeliveryCounts,
    /// The latest events by source and partition key. They are kept only while replays are enabled.
    recent: HashMap<(Source, String), VecDeque<Notification>>,
    /// Updates that are held back until the next update of the same twin.
    held: BTreeMap<TwinId, Notification>,
    late: LateStream,
    /// The time of the latest operation or release.
    now: Timestamp,
    /// Number of the hub's notifications so far.
    caused: u64,
}

impl Routes {
    /// Creates routes to the Event Hubs `names`, without faults.
    pub fn new(names: HubNames) -> Self {
        Self {
            names,
            faults: DeliveryFaults::default(),
            random: StdRng::seed_from_u64(0),
            counts: DeliveryCounts::default(),
            recent: HashMap::new(),
            held: BTreeMap::new(),
            late: LateStream::default(),
            now: Timestamp::NEVER,
            caused: 0,
        }
    }

    /// Sets the faults, and restarts the generator from their seed.
    pub fn set_faults(&mut self, faults: DeliveryFaults) {
        self.random = StdRng::seed_from_u64(faults.seed);
        if faults.replay == 0.0 {
            self.recent.clear();
        }
        self.late.set(faults.skew.filter(|_| self.names.lifecycle != self.names.twin_changes));
        self.faults = faults;
    }

    /// The active faults.
    pub fn faults(&self) -> &DeliveryFaults {
        &self.faults
    }

    /// The counts so far.
    pub fn counts(&self) -> &DeliveryCounts {
        &self.counts
    }

    /// Delivers one notification, with the faults that apply.
    ///
    /// # Errors
    /// The route refused the event.
    pub fn deliver(&mut self, notification: Notification, route: &dyn Route) -> Result<(), RouteError> {
        count(&mut self.counts.caused, notification.change.operation_type());
        self.release(notification.operation_time, route)?;
        self.caused += 1;
        if self.happens(self.faults.lose) {
            self.counts.lost += 1;
            return Ok(());
        }
        let Some(notification) = self.coalesce(notification, route)? else {
            return Ok(());
        };
        self.send(notification, route)
    }

    /// Sends everything that is held back, by coalescing or because its stream is late.
    ///
    /// # Errors
    /// The route refused an event.
    pub fn flush(&mut self, route: &dyn Route) -> Result<(), RouteError> {
        self.flush_updates(route)?;
        while let Some(notification) = self.late.next() {
            append(&self.names, &mut self.counts, notification, route)?;
            self.late.sent();
        }
        Ok(())
    }

    /// Sends the updates that are held back until the next update of their twin.
    ///
    /// # Errors
    /// The route refused an event.
    pub fn flush_updates(&mut self, route: &dyn Route) -> Result<(), RouteError> {
        while let Some((_, held)) = self.held.pop_first() {
            self.send(held, route)?;
        }
        Ok(())
    }

    /// Sends the late events whose time has come.
    ///
    /// # Errors
    /// The route refused an event.
    pub fn release(&mut self, now: Timestamp, route: &dyn Route) -> Result<(), RouteError> {
        self.now = self.now.max(now);
        while let Some(notification) = self.late.due(self.now, self.caused) {
            append(&self.names, &mut self.counts, notification, route)?;
            self.late.sent();
        }
        Ok(())
    }

    /// Combines the notification with a held-back update of the same twin. Sends what must precede it. Returns the
    /// event to send now, if any.
    fn coalesce(
        &mut self,
        mut next: Notification,
        route: &dyn Route,
    ) -> Result<Option<Notification>, RouteError> {
        if let Source::DeviceLifecycle = next.change.source() {
            self.flush_device(&next.id, route)?;
            return Ok(Some(next));
        }
        if let Some(earlier) = self.held.remove(&next.id) {
            let joined = match next.change {
                Change::Updated => coalesce::compose(&earlier.body, &next.body),
                Change::Created | Change::Deleted | Change::Replaced => None,
            };
            match joined {
                Some(body) => {
                    self.counts.coalesced += 1;
                    next.body = body;
                }
                None => self.send(earlier, route)?,
            }
        }
        if next.change == Change::Updated && self.happens(self.faults.coalesce) {
            self.held.insert(next.id.clone(), next);
            return Ok(None);
        }
        Ok(Some(next))
    }

    fn flush_device(&mut self, id: &TwinId, route: &dyn Route) -> Result<(), RouteError> {
        let parent = id.parent();
        let held: Vec<TwinId> = self
            .held
            .range(&parent..)
            .map(|(held, _)| held)
            .take_while(|held| held.device_id() == id.device_id())
            .cloned()
            .collect();
        for id in held {
            if let Some(notification) = self.held.remove(&id) {
                self.send(notification, route)?;
            }
        }
        Ok(())
    }

    fn send(&mut self, notification: Notification, route: &dyn Route) -> Result<(), RouteError> {
        self.append(&notification, route)?;
        if self.happens(self.faults.duplicate) {
            self.append(&notification, route)?;
            self.counts.duplicates += 1;
        }
        if self.faults.replay == 0.0 {
            return Ok(());
        }
        let key = (self.stream(&notification), notification.id.device_id().to_owned());
        let recent = self.recent.entry(key.clone()).or_default();
        recent.push_back(notification);
        while recent.len() > self.faults.replay_length {
            recent.pop_front();
        }
        if self.happens(self.faults.replay) {
            self.replay(&key, route)?;
        }
        Ok(())
    }

    fn replay(&mut self, key: &(Source, String), route: &dyn Route) -> Result<(), RouteError> {
        let recent = self.recent.remove(key).unwrap_or_default();
        if !recent.is_empty() {
            let length = self.random.random_range(1..=recent.len());
            for notification in recent.iter().skip(recent.len() - length) {
                self.append(notification, route)?;
                self.counts.replayed += 1;
            }
        }
        self.recent.insert(key.clone(), recent);
        Ok(())
    }

    fn append(&mut self, notification: &Notification, route: &dyn Route) -> Result<(), RouteError> {
        if self.late.hold(notification, self.now, self.caused) {
            self.counts.late += 1;
            return Ok(());
        }
        append(&self.names, &mut self.counts, notification, route)
    }

    /// The stream whose order a replay keeps: that of the source, or one common stream if both share an Event Hub.
    fn stream(&self, notification: &Notification) -> Source {
        if self.names.lifecycle == self.names.twin_changes {
            Source::DeviceLifecycle
        } else {
            notification.change.source()
        }
    }

    fn happens(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.random.random_bool(probability)
    }
}

fn append(
    names: &HubNames,
    counts: &mut DeliveryCounts,
    notification: &Notification,
    route: &dyn Route,
) -> Result<(), RouteError> {
    let hub = match notification.change.source() {
        Source::DeviceLifecycle => &names.lifecycle,
        Source::TwinChange => &names.twin_changes,
    };
    route.append(hub, notification.id.device_id(), notification)?;
    count(&mut counts.appended, hub);
    Ok(())
}

fn count(counts: &mut BTreeMap<String, u64>, name: &str) {
    match counts.get_mut(name) {
        Some(count) => *count += 1,
        None => {
            counts.insert(name.to_owned(), 1);
        }
    }
}

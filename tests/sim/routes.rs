//! From the hub's operations to messages in partitions, with the faults of a route.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use serde_json::{Map, Value, json};
use smol_str::SmolStr;
use twinsync::domain::{
    document::State,
    event::{Change, TwinEvent},
    id::{Position, SequenceNumber, TwinKey},
    message::{Message, Properties, Property},
    ticks::Ticks,
    twin::Sections,
};

use crate::{
    delivery::{is_lifecycle, one_after_the_other},
    hub::{Hub, MILLISECOND, Nature, iso},
    plan::Fault,
    world::{Inner, Log, Place, Routed, Version, World},
};

/// Maximum number of partitions of an Event Hub.
const MOST_PARTITIONS: u64 = 6;

/// The routes of the IoT hub. Each keeps the order of a device's events. There is no order between the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Route {
    Lifecycle,
    Changes,
}

/// The messages on their way into one partition.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: VecDeque<Waiting>,
    /// When the last message arrives.
    newest: i64,
    /// The messages that were delivered last, oldest first.
    delivered: VecDeque<What>,
}

#[derive(Clone)]
enum What {
    Event(TwinEvent),
    Poison { key: TwinKey, at: i64 },
}

struct Waiting {
    due: i64,
    what: What,
}

/// The name of a route's Event Hub, if there are `hubs` of them.
pub(crate) fn event_hub(route: Route, hubs: u64) -> &'static str {
    match (route, hubs) {
        (Route::Lifecycle, 2) => "lifecycle",
        _ => "twins",
    }
}

/// Creates the Event Hubs, and devices without operations.
pub(crate) fn prepare(world: &World) {
    let plan = &world.plan;
    let mut inner = world.lock();
    for route in [Route::Lifecycle, Route::Changes] {
        for partition in 0..plan.partitions {
            let place = (event_hub(route, plan.hubs).to_owned(), partition.to_string());
            inner.partitions.entry(place).or_default();
        }
    }
    for number in 0..plan.devices {
        let apart = inner.random.chance(70);
        let skew = [0, 20, 400][inner.random.below(3) as usize] * MILLISECOND;
        // Operations within the difference of the clocks cannot be ordered. tests/domain/silence tests these.
        let nature = Nature {
            modules: plan.modules,
            pace: (1, 2),
            skew: if apart { skew } else { 0 },
            apart,
            ..Nature::PLAIN
        };
        let device = TwinKey::device("hub", format!("pump/{number}"));
        let hub = Hub::of(device, plan.seed.wrapping_mul(31).wrapping_add(number), nature);
        inner.hubs.push(hub);
    }
}

/// Performs one operation of the hub. Sends its events, if `listening`.
pub(crate) fn operate(world: &World, device: usize, listening: bool) {
    let now = world.now();
    let mut inner = world.lock();
    let hub = &mut inner.hubs[device];
    hub.advance_to(now);
    let from = hub.events.len();
    hub.live(1);
    let sent = hub.events[from..].to_vec();
    drop(inner);
    for event in sent {
        world.tell(format!("hub {} {} at {}", verb(&event.change), event.key, event.at));
        if is_lifecycle(&event) {
            world.lock().turns.insert(event.key.clone(), event.at);
        }
        if listening {
            send(world, event);
        }
    }
}

/// The name of an operation in the trace.
fn verb(change: &Change) -> &'static str {
    match change {
        Change::Created { .. } => "creates",
        Change::Deleted => "deletes",
        Change::Updated { .. } => "updates",
        Change::Replaced { .. } => "replaces",
        Change::Snapshot { .. } | Change::Gone | Change::Unapplied | Change::ParentReborn => "answers",
    }
}

/// The hub forgets its last operations with a device.
pub(crate) fn fail_over(world: &World, device: usize) {
    let mut inner = world.lock();
    inner.hubs[device].fail_over();
    drop(inner);
    world.tell(format!("hub fails over: device {device}"));
}

/// Another program overwrites a live document. It keeps the fields that identify the twin.
pub(crate) fn spoil(world: &World) {
    let now = world.now();
    let mut inner = world.lock();
    let live: Vec<_> = inner
        .documents
        .keys()
        .filter(|key| {
            let document = inner.document(key, now);
            document.is_some_and(|document| matches!(document.state, State::Live { .. }))
        })
        .cloned()
        .collect();
    if live.is_empty() {
        return;
    }
    let key = live[inner.random.below(live.len() as u64) as usize].clone();
    let unreadable = inner.random.chance(50);
    inner.writes += 1;
    let number = inner.writes;
    let versions = inner.documents.entry(key.clone()).or_default();
    let newest = versions.last().map(|newest| newest.json.to_string()).unwrap_or_default();
    let mut item: Value = serde_json::from_str(&newest).expect("what was written is JSON");
    match unreadable {
        true => item["version"] = json!("spoilt"),
        false => item["tags"] = json!({ "spoilt": number }),
    }
    versions.push(Version { number, json: item.to_string().into(), at: now });
    drop(inner);
    world
        .tell(format!("somebody spoils {key}: {number}, {}", if unreadable { "unreadable" } else { "tags" }));
}

/// An Event Hub drops the oldest events of one of its partitions, completed or not.
pub(crate) fn retain(world: &World) {
    let mut inner = world.lock();
    let places: Vec<_> = inner.partitions.keys().cloned().collect();
    let place = places[inner.random.below(places.len() as u64) as usize].clone();
    let log = &inner.partitions[&place];
    let held = log.events.len() - log.first;
    if held == 0 {
        return;
    }
    let first = log.first + 1 + inner.random.below(held as u64) as usize;
    inner.drop_until(&place, first);
    drop(inner);
    world.tell(format!("{}/{} holds events from {first} on", place.0, place.1));
}

/// An Event Hub is deleted and created again with the same name.
pub(crate) fn recreate(world: &World) {
    let mut inner = world.lock();
    let names: BTreeSet<_> = inner.partitions.keys().map(|(name, _)| name.clone()).collect();
    let which = inner.random.below(names.len() as u64) as usize;
    let Some(name) = names.into_iter().nth(which) else { return };
    let logs: Vec<_> = inner.partitions.keys().filter(|(hub, _)| *hub == name).cloned().collect();
    for place in logs {
        inner.looked_at.remove(&place);
        let era = inner.partitions.get(&place).map_or(0, |log| log.era + 1);
        inner.partitions.insert(place, Log { era, ..Log::default() });
    }
    drop(inner);
    world.tell(format!("{name} is created again"));
    world.arrivals.notify_waiters();
}

/// An Event Hub gets one more partition, unless it has the maximum.
pub(crate) fn add_partition(world: &World) {
    let mut inner = world.lock();
    let names: BTreeSet<_> = inner.partitions.keys().map(|(name, _)| name.clone()).collect();
    let which = inner.random.below(names.len() as u64) as usize;
    let Some(name) = names.into_iter().nth(which) else { return };
    let partition = inner.partitions_of(&name);
    if partition >= MOST_PARTITIONS {
        return;
    }
    inner.partitions.insert((name.clone(), partition.to_string()), Log::default());
    drop(inner);
    world.tell(format!("{name} gets partition {partition}"));
}

/// No event is sent for longer than the lifetime of tombstones. Event Hubs have dropped the events that were completed before,
/// and routes do not repeat them.
pub(crate) async fn long_silence(world: &World) {
    world.tell("nothing is sent for long");
    tokio::time::sleep(crate::run::TOMBSTONE_TTL + Duration::from_secs(5 * 60)).await;
    let mut inner = world.lock();
    for queue in inner.routes.values_mut() {
        queue.delivered.clear();
    }
    let places: Vec<_> = inner.partitions.keys().cloned().collect();
    for place in places {
        let finished = (inner.done(&place) + 1) as usize;
        inner.drop_until(&place, finished);
    }
    drop(inner);
    world.tell("after long silence");
}

impl Inner {
    /// Number of partitions of an Event Hub.
    fn partitions_of(&self, hub: &str) -> u64 {
        self.partitions.keys().filter(|(name, _)| name == hub).count() as u64
    }

    /// Drops the events of a partition before event number `first`.
    fn drop_until(&mut self, place: &Place, first: usize) {
        let done = self.done(place);
        let Some(log) = self.partitions.get_mut(place) else { return };
        let unfinished = (log.first as i64).max(done + 1)..first as i64;
        let dropped: Vec<_> =
            unfinished.map(|number| (place.clone(), log.offset(number).to_string())).collect();
        log.first = log.first.max(first);
        self.dropped.extend(dropped);
    }
}

fn send(world: &World, event: TwinEvent) {
    // Without a registry only changes are lost, because no later event would show the loss of a creation or deletion.
    let may_be_lost = world.plan.registry || matches!(event.change, Change::Updated { .. });
    if may_be_lost && world.draws(Fault::Losses) {
        world.tell(format!("route loses {}", event.key));
        world.lock().owed.insert(event.key);
        return;
    }
    let route = if is_lifecycle(&event) { Route::Lifecycle } else { Route::Changes };
    if matches!(event.change, Change::Updated { .. }) && world.draws(Fault::Poison) {
        world.tell(format!("route spoils {}", event.key));
        queue(world, route, What::Poison { key: event.key, at: event.at.get() });
        return;
    }
    world.lock().owed.remove(&event.key);
    queue(world, route, What::Event(event));
}

impl What {
    fn key(&self) -> &TwinKey {
        match self {
            Self::Event(event) => &event.key,
            Self::Poison { key, .. } => key,
        }
    }
}

fn partition_of(world: &World, route: Route, key: &TwinKey) -> String {
    let number: u64 =
        key.device.rsplit('/').next().and_then(|number| number.parse().ok()).unwrap_or_default();
    let partitions = world.lock().partitions_of(event_hub(route, world.plan.hubs));
    (number % partitions).to_string()
}

fn queue(world: &World, route: Route, what: What) {
    let partition = partition_of(world, route, what.key());
    let mut delay = world.span(Duration::from_millis(1), Duration::from_millis(300)).as_micros() as i64 * 10;
    if world.draws(Fault::Delays) {
        delay += world.span(Duration::from_secs(1), Duration::from_secs(60)).as_micros() as i64 * 10;
    }
    let again = if world.draws(Fault::Duplicates) { 1 + world.below(3) as usize } else { 0 };
    let packs = world.draws(Fault::Packs) || (world.plan.may(Fault::Packs) && world.below(4) == 0);
    let now = world.now();
    let mut inner = world.lock();
    let turn = inner.turns.get(what.key()).copied();
    let queue = inner.routes.entry((route, partition)).or_default();
    if packs
        && let Some(Waiting { what: last, .. }) = queue.waiting.back_mut()
        && last.pack(&what, turn)
    {
        return;
    }
    queue.newest = queue.newest.max(now + delay);
    let due = queue.newest;
    queue.waiting.push_back(Waiting { due, what });
    // The same messages again, in their order, before newer ones.
    let from = queue.waiting.len().saturating_sub(again);
    let repeated: Vec<_> = queue.waiting.range(from..).map(|waiting| waiting.what.clone()).collect();
    if again > 0 {
        let earlier: Vec<_> =
            queue.delivered.iter().rev().take(again - repeated.len().min(again)).cloned().collect();
        for what in earlier.into_iter().rev().chain(repeated) {
            queue.waiting.push_back(Waiting { due, what });
        }
    }
    drop(inner);
    world.routed.notify_waiters();
}

impl What {
    /// Merges the next change of the same twin into this one, if one event can report both. A creation or deletion between them
    /// (`turn`) prevents it.
    fn pack(&mut self, later: &Self, turn: Option<Ticks>) -> bool {
        let (Self::Event(event), Self::Event(later)) = (self, later) else { return false };
        let Change::Updated { version, patch } = &mut event.change else { return false };
        if turn >= Some(event.at) {
            return false;
        }
        match &later.change {
            Change::Updated { version: later_version, patch: more } if later.key == event.key => {
                *patch = one_after_the_other(patch, more);
                (*version, event.at) = (*later_version, later.at);
                true
            }
            _ => false,
        }
    }
}

/// Delivers messages when they are due. Never returns.
pub(crate) async fn deliver(world: Arc<World>) {
    loop {
        let changed = world.routed.notified();
        let next = deliver_due(&world);
        tokio::select! {
            biased;
            () = changed => {}
            () = wait_until(&world, next) => {}
        }
    }
}

async fn wait_until(world: &World, due: Option<i64>) {
    match due {
        None => std::future::pending().await,
        Some(due) => {
            let ticks = (due - world.now()).max(0) as u64;
            tokio::time::sleep(Duration::from_nanos(ticks * 100) + Duration::from_millis(1)).await;
        }
    }
}

/// Whether no messages are on their way.
pub(crate) fn is_quiet(world: &World) -> bool {
    world.lock().routes.values().all(|queue| queue.waiting.is_empty())
}

/// Delivers the messages that are due. Returns the time of the next one.
fn deliver_due(world: &World) -> Option<i64> {
    let now = world.now();
    let mut arrived = Vec::new();
    let mut inner = world.lock();
    for ((route, partition), queue) in &mut inner.routes {
        while queue.waiting.front().is_some_and(|waiting| waiting.due <= now) {
            let Some(Waiting { what, .. }) = queue.waiting.pop_front() else { break };
            queue.delivered.push_back(what.clone());
            if queue.delivered.len() > 4 {
                queue.delivered.pop_front();
            }
            arrived.push(((event_hub(*route, world.plan.hubs).to_owned(), partition.clone()), what));
        }
    }
    let next = inner.routes.values().filter_map(|queue| Some(queue.waiting.front()?.due)).min();
    drop(inner);
    let any = !arrived.is_empty();
    for (place, what) in arrived {
        arrive(world, place, &what, now);
    }
    if any {
        world.arrivals.notify_waiters();
    }
    next
}

fn arrive(world: &World, place: Place, what: &What, now: i64) {
    let mut inner = world.lock();
    let Some(log) = inner.partitions.get_mut(&place) else { return };
    let number = log.newest() + 1;
    let position = Position {
        sequence_number: SequenceNumber(number),
        offset: SmolStr::from(log.offset(number).to_string()),
    };
    let line = format!("arrives {}/{}@{number} {}", place.0, place.1, what.key());
    let routed = match what {
        What::Event(event) => Routed {
            message: message(event, position, now),
            about: Some((event.key.clone(), event.at)),
            ends_device: event.change == Change::Deleted && !event.key.is_module(),
        },
        What::Poison { key, at } => Routed {
            message: Message {
                position,
                enqueued: Some(Ticks::new(now)),
                body: Bytes::from_static(b"{\"version\": 3, \"tags\": {"),
                application_properties: properties(key, "updateTwin", *at),
                annotations: source("twinChangeEvents"),
            },
            about: None,
            ends_device: false,
        },
    };
    log.events.push(routed);
    drop(inner);
    world.tell(line);
}

fn source(name: &str) -> Properties {
    let mut annotations = Properties::default();
    annotations.insert("iothub-message-source", Property::Text(name.into()));
    annotations
}

fn properties(key: &TwinKey, operation: &str, at: i64) -> Properties {
    let mut properties = Properties::default();
    properties.insert("hubName", Property::Text(key.hub.as_str().into()));
    properties.insert("deviceId", Property::Text(key.device.as_str().into()));
    if let Some(module) = &key.module {
        properties.insert("moduleId", Property::Text(module.as_str().into()));
    }
    properties.insert("opType", Property::Text(operation.into()));
    properties.insert("operationTimestamp", Property::Text(iso(at).into()));
    properties
}

/// The message as the hub writes it.
fn message(event: &TwinEvent, position: Position, now: i64) -> Message {
    let what = if event.key.is_module() { "Module" } else { "Device" };
    let (from, operation, body) = match &event.change {
        Change::Created { version, twin } => (
            "deviceLifecycleEvents",
            format!("create{what}Identity"),
            body(Some(&event.key), version.0, twin),
        ),
        Change::Deleted => {
            ("deviceLifecycleEvents", format!("delete{what}Identity"), json!({"deviceId": event.key.device}))
        }
        Change::Updated { version, patch } => {
            ("twinChangeEvents", "updateTwin".to_owned(), body(None, version.0, &patch.sections()))
        }
        Change::Replaced { version, twin } => {
            ("twinChangeEvents", "replaceTwin".to_owned(), body(Some(&event.key), version.0, twin))
        }
        Change::Snapshot { .. } | Change::Gone | Change::Unapplied | Change::ParentReborn => {
            unreachable!("no route sends this")
        }
    };
    Message {
        position,
        enqueued: Some(Ticks::new(now)),
        body: Bytes::from(body.to_string()),
        application_properties: properties(&event.key, &operation, event.at.get()),
        annotations: source(from),
    }
}

fn body(key: Option<&TwinKey>, version: i64, twin: &Sections) -> Value {
    let mut body = Map::new();
    if let Some(key) = key {
        body.insert("deviceId".into(), key.device.clone().into());
        if let Some(module) = &key.module {
            body.insert("moduleId".into(), module.clone().into());
        }
    }
    body.insert("version".into(), version.into());
    body.extend(twin.root.clone());
    let mut properties = Map::new();
    for (name, section) in [("desired", &twin.desired), ("reported", &twin.reported)] {
        if let Some(section) = section {
            properties.insert(name.into(), section.clone().into());
        }
    }
    if let Some(tags) = &twin.tags {
        body.insert("tags".into(), tags.clone().into());
    }
    body.insert("properties".into(), properties.into());
    body.into()
}

/// The time until the next operation of the hub.
pub(crate) fn pause(world: &World) -> Duration {
    match world.below(10) {
        0..4 => world.span(Duration::from_millis(1), Duration::from_millis(200)),
        4..8 => world.span(Duration::from_millis(200), Duration::from_secs(5)),
        _ => world.span(Duration::from_secs(5), Duration::from_secs(20)),
    }
}

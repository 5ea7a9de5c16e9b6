//! A reference IoT Hub with one device and its modules: their twins and the events about them.
//!
//! It shares no code with the product. A property is a node with its own timestamp, so `$metadata` is computed from the nodes. Times
//! are formatted by hand, as the service formats them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use twinsync::domain::{
    document::Twin,
    event::{Change, TwinEvent},
    id::TwinKey,
    ticks::Ticks,
    twin::{Sections, TwinVersion},
};

use crate::delivery::Random;

/// A JSON object.
type Object = Map<String, Value>;

/// Ticks in a second, and in a millisecond.
pub(crate) const SECOND: i64 = 10_000_000;
pub(crate) const MILLISECOND: i64 = SECOND / 1_000;

/// Midnight of 1 January 2031.
pub(crate) const START: i64 = 1_924_992_000 * SECOND;

/// How clients and clocks of a hub behave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Nature {
    /// Number of modules that the device may have.
    pub(crate) modules: u64,
    /// Whether twins are deleted and created again.
    pub(crate) deletes: bool,
    /// Minimum and maximum ticks between two operations.
    pub(crate) pace: (i64, i64),
    /// Maximum difference in ticks of the clocks that timestamp operations.
    pub(crate) skew: i64,
    /// Whether creations and deletions are further from other operations than the clocks differ.
    pub(crate) apart: bool,
    /// Whether a deleted device is created again within the difference of the clocks.
    pub(crate) hasty: bool,
    /// Percentage of changes whose timestamp is an hour ahead.
    pub(crate) future: u64,
    /// Percentage of events without their own time. The time at which they were enqueued is used instead.
    pub(crate) enqueued: u64,
    /// Whether replacements omit tags that they have emptied or left unchanged. No real replacement like this has been
    /// observed.
    pub(crate) terse: bool,
}

impl Nature {
    /// One device without modules, one clock, and a second or more between operations.
    pub(crate) const PLAIN: Self = Self {
        modules: 0,
        deletes: true,
        pace: (SECOND, 3 * SECOND),
        skew: 0,
        apart: false,
        hasty: false,
        future: 0,
        enqueued: 0,
        terse: false,
    };
}

fn ends_a_device(event: &TwinEvent) -> bool {
    event.change == Change::Deleted && !event.key.is_module()
}

/// When a property was written, in which version of its section, and by which rollout.
#[derive(Debug, Clone, PartialEq)]
struct Stamp {
    at: String,
    version: Option<i64>,
    by: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Value(Value),
    Object(Level),
}

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    node: Node,
    stamp: Stamp,
}

type Level = BTreeMap<String, Entry>;

#[derive(Debug, Clone, PartialEq)]
struct Section {
    content: Level,
    stamp: Stamp,
    version: i64,
}

/// A twin in the hub.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Truth {
    /// Number of the twin among all that were created.
    pub(crate) incarnation: u64,
    version: i64,
    tags: Level,
    desired: Section,
    reported: Section,
}

/// The hub: its twins, its clock, and the events so far.
pub(crate) struct Hub {
    random: Random,
    device: TwinKey,
    nature: Nature,
    pub(crate) now: i64,
    /// How far ahead the clock of each machine is that performs operations.
    machines: [i64; 3],
    /// Whether modules of a deleted device get delete events of their own.
    tells_of_modules: bool,
    created: u64,
    pub(crate) twins: BTreeMap<TwinKey, Truth>,
    earlier: Vec<BTreeMap<TwinKey, Truth>>,
    pub(crate) events: Vec<TwinEvent>,
}

pub(crate) fn key() -> TwinKey {
    TwinKey::device("hub", "pump/7")
}

const KEYS: [&str; 5] = ["a", "b", "c", "d/e", "~f"];

impl Hub {
    pub(crate) fn new(seed: u64, nature: Nature) -> Self {
        Self::of(key(), seed, nature)
    }

    /// A hub with this device only.
    pub(crate) fn of(device: TwinKey, seed: u64, nature: Nature) -> Self {
        let mut random = Random::new(seed);
        let mut ahead = || if nature.skew == 0 { 0 } else { random.between(0, nature.skew) };
        let machines = [ahead(), ahead(), ahead()];
        Self {
            nature,
            now: START + random.between(0, 900) * SECOND + random.between(0, SECOND - 1),
            machines,
            tells_of_modules: random.chance(50),
            created: 0,
            random,
            device,
            twins: BTreeMap::new(),
            earlier: Vec::new(),
            events: Vec::new(),
        }
    }

    /// The keys of the device and its modules, whether they exist or not.
    pub(crate) fn keys(&self) -> Vec<TwinKey> {
        let modules = (1..=self.nature.modules).map(|number| {
            let TwinKey { hub, device, .. } = self.device.clone();
            TwinKey::module(hub, device, format!("m{number}"))
        });
        std::iter::once(self.device.clone()).chain(modules).collect()
    }

    /// The device's twin.
    pub(crate) fn device(&self) -> Option<&Truth> {
        self.twins.get(&self.device)
    }

    /// Performs random operations.
    pub(crate) fn live(&mut self, operations: usize) {
        for _ in 0..operations {
            let pace = match self.nature.hasty && self.events.last().is_some_and(ends_a_device) {
                true => (MILLISECOND, 10 * MILLISECOND),
                false => self.nature.pace,
            };
            let hurries = pace != self.nature.pace;
            self.now += self.random.between(pace.0, pace.1);
            self.earlier.push(self.twins.clone());
            let mut key = self.device.clone();
            if self.nature.modules > 0 && self.device().is_some() && self.random.chance(60) {
                key = self.keys()[self.random.between(1, self.nature.modules as i64) as usize].clone();
            }
            let dice = self.random.below(100);
            let identity = self.twins.get(&key).is_none_or(|_| self.nature.deletes && dice < 15);
            let around = if self.nature.apart { self.nature.skew + 150 * MILLISECOND } else { 0 };
            // Creations and deletions are at least one tick of every clock apart.
            self.now += i64::from(identity) * (1 + if hurries { 0 } else { around });
            match self.twins.remove(&key) {
                None => self.create(key),
                Some(_) if self.nature.deletes && dice < 15 => self.delete(&key),
                Some(twin) if dice < 27 => self.replace(key, twin),
                Some(twin) => self.update(key, twin),
            }
            let goes_on = !(self.nature.hasty && self.events.last().is_some_and(ends_a_device));
            self.now += i64::from(identity && goes_on) * around;
        }
    }

    /// Sets the clock to `now` unless it is later already.
    pub(crate) fn advance_to(&mut self, now: i64) {
        self.now = self.now.max(now);
    }

    /// Lets time pass without operations.
    pub(crate) fn rest(&mut self, ticks: i64) {
        self.now += ticks;
    }

    /// The hub fails over: it forgets its last operations, whose events are sent already. Returns the twins from before the
    /// failover.
    pub(crate) fn fail_over(&mut self) -> BTreeMap<TwinKey, Truth> {
        let back = usize::try_from(self.random.between(1, 4)).expect("small");
        let before = self.twins.clone();
        if self.earlier.len() > back {
            let at = self.earlier.len() - back;
            self.twins = self.earlier[at].clone();
            self.earlier.truncate(at);
        }
        before
    }

    /// The current answer to a point read of the device.
    pub(crate) fn get(&mut self) -> TwinEvent {
        self.get_twin(&self.device.clone())
    }

    /// The current answer to a point read. HTTP has whole seconds of a clock of its own. All clocks differ by less than the
    /// tolerance.
    pub(crate) fn get_twin(&mut self, key: &TwinKey) -> TwinEvent {
        self.now += self.random.between(0, 200) * MILLISECOND;
        let change = match self.twins.get(key) {
            None => Change::Gone,
            Some(twin) => Change::Snapshot { version: TwinVersion(twin.version), twin: twin.whole() },
        };
        let least = if self.nature.skew == 0 { -3 } else { 1 };
        let clock = self.now + self.random.between(least * SECOND, 5 * SECOND - 1);
        TwinEvent { key: key.clone(), at: Ticks::new(clock - clock.rem_euclid(SECOND)), change }
    }

    fn create(&mut self, key: TwinKey) {
        let at = self.stamp_time();
        let never = key.is_module() && self.random.chance(50);
        let written = if never { "0001-01-01T00:00:00Z".to_owned() } else { iso(at) };
        let unwritten = Stamp { at: written, version: None, by: None };
        let reported = Section { content: Level::new(), stamp: unwritten.clone(), version: 1 };
        self.created += 1;
        let mut twin = Truth {
            incarnation: self.created,
            version: 2,
            tags: Level::new(),
            desired: reported.clone(),
            reported,
        };
        if self.random.chance(70) {
            let content = self.object(2);
            write(&mut twin.tags, &content, &unwritten);
            let stamp = Stamp { at: iso(at), version: Some(1), by: None };
            write(&mut twin.desired.content, &self.object(2), &stamp);
            twin.desired.stamp = stamp;
        }
        let mut body = twin.whole();
        body.tags = body.tags.filter(|tags| !tags.is_empty());
        self.tell(&key, at, Change::Created { version: TwinVersion(2), twin: body });
        self.twins.insert(key, twin);
    }

    fn delete(&mut self, key: &TwinKey) {
        let at = self.stamp_time();
        if !key.is_module() {
            for module in std::mem::take(&mut self.twins).into_keys() {
                if self.tells_of_modules {
                    self.tell(&module, at, Change::Deleted);
                }
            }
        }
        self.tell(key, at, Change::Deleted);
    }

    fn replace(&mut self, key: TwinKey, mut twin: Truth) {
        let at = self.change_time();
        twin.version += 1;
        let by = self.rollout();
        let stamp = Stamp { at: iso(at), version: Some(twin.desired.version + 1), by };
        let spared = self.nature.terse && self.random.chance(30);
        if !spared {
            twin.tags = Level::new();
            write(&mut twin.tags, &self.object(2), &stamp);
        }
        let mut content = Level::new();
        write(&mut content, &self.object(2), &stamp);
        twin.desired = Section { content, version: twin.desired.version + 1, stamp };
        let mut body = twin.whole();
        if self.random.chance(50) {
            body.reported = None;
        }
        if self.nature.terse {
            body.tags = body.tags.filter(|tags| !spared && !tags.is_empty());
        }
        self.tell(&key, at, Change::Replaced { version: TwinVersion(twin.version), twin: body });
        self.twins.insert(key, twin);
    }

    fn update(&mut self, key: TwinKey, mut twin: Truth) {
        let at = self.change_time();
        twin.version += 1;
        let mut patch = Sections::default();
        // A device writes reported properties, a back end tags and desired properties, in one write or in two.
        let dice = self.random.below(10);
        let by = if dice < 5 { None } else { self.rollout() };
        if dice < 5 {
            patch.reported = Some(self.write_section(&mut twin.reported, at, None, false));
        }
        if dice >= 7 {
            patch.desired = Some(self.write_section(&mut twin.desired, at, by, true));
        }
        if (5..8).contains(&dice) {
            let change = self.patch(2);
            write(&mut twin.tags, &change, &Stamp { at: String::new(), version: None, by: None });
            patch.tags = Some(change);
        }
        self.tell(&key, at, Change::Updated { version: TwinVersion(twin.version), patch: patch.into() });
        self.twins.insert(key, twin);
    }

    /// Writes to a section. Returns the section's part of the event.
    fn write_section(&mut self, section: &mut Section, at: i64, by: Option<String>, desired: bool) -> Object {
        section.version += 1;
        let stamp = Stamp { at: iso(at), version: desired.then_some(section.version), by };
        let mut change = self.patch(2);
        // A rollout also sends unchanged properties, without metadata.
        let repeated =
            section.content.iter().find(|(name, _)| stamp.by.is_some() && !change.contains_key(*name));
        let repeated = repeated.map(|(name, entry)| (name.clone(), value_of(&entry.node)));
        write(&mut section.content, &change, &stamp);
        section.stamp = stamp.clone();
        let metadata = written(&change, &stamp);
        change.extend(repeated);
        change.insert("$metadata".into(), metadata.into());
        change.insert("$version".into(), section.version.into());
        change
    }

    fn rollout(&mut self) -> Option<String> {
        self.random.chance(30).then(|| format!("rollout {}", self.now))
    }

    fn stamp_time(&mut self) -> i64 {
        self.now + self.machines[self.random.below(3) as usize]
    }

    fn change_time(&mut self) -> i64 {
        let ahead = if self.random.chance(self.nature.future) { 3_600 * SECOND } else { 0 };
        self.stamp_time() + ahead
    }

    fn tell(&mut self, key: &TwinKey, at: i64, change: Change) {
        let late = self.random.chance(self.nature.enqueued);
        let at = at + if late { self.random.between(20, 150) * MILLISECOND } else { 0 };
        self.events.push(TwinEvent { key: key.clone(), at: Ticks::new(at), change });
    }

    fn name(&mut self) -> String {
        KEYS[self.random.below(KEYS.len() as u64) as usize].to_owned()
    }

    fn object(&mut self, depth: u32) -> Object {
        (0..self.random.below(4)).map(|_| (self.name(), self.value(depth))).collect()
    }

    fn value(&mut self, depth: u32) -> Value {
        match self.random.below(10) {
            0..4 if depth > 0 => self.object(depth - 1).into(),
            4 => json!([self.random.below(9), {"x": 1}]),
            _ => self.random.below(9).into(),
        }
    }

    fn patch(&mut self, depth: u32) -> Object {
        (0..self.random.between(1, 3))
            .map(|_| {
                let value = match self.random.below(10) {
                    0..3 => Value::Null,
                    3..6 if depth > 0 => self.patch(depth - 1).into(),
                    _ => self.value(depth.saturating_sub(1)),
                };
                (self.name(), value)
            })
            .collect()
    }
}

impl Truth {
    /// Whether the stored twin equals this one. Rollout names are ignored if needed, because it is unknown what later writes
    /// do to them.
    pub(crate) fn is_told_by(&self, stored: &Twin) -> bool {
        let same = |stored: &Object, truth: &Section| {
            let truth = truth.render();
            *stored == truth || without_rollouts(stored) == without_rollouts(&truth)
        };
        stored.version.0 == self.version
            && stored.tags == render(&self.tags)
            && same(&stored.desired, &self.desired)
            && same(&stored.reported, &self.reported)
    }

    /// The same without `$metadata`. An audit does not compare it either.
    pub(crate) fn has_the_content_of(&self, stored: &Twin) -> bool {
        let without_metadata = |section: &Object| {
            let mut section = section.clone();
            section.remove("$metadata");
            section
        };
        let same =
            |stored: &Object, truth: &Section| without_metadata(stored) == without_metadata(&truth.render());
        stored.version.0 == self.version
            && stored.tags == render(&self.tags)
            && same(&stored.desired, &self.desired)
            && same(&stored.reported, &self.reported)
    }

    pub(crate) fn version(&self) -> TwinVersion {
        TwinVersion(self.version)
    }

    pub(crate) fn whole(&self) -> Sections {
        Sections {
            root: Object::new(),
            tags: Some(render(&self.tags)),
            desired: Some(self.desired.render()),
            reported: Some(self.reported.render()),
        }
    }
}

impl Section {
    fn render(&self) -> Object {
        let mut body = render(&self.content);
        let mut metadata = self.stamp.render();
        describe(&self.content, &mut metadata);
        body.insert("$metadata".into(), metadata.into());
        body.insert("$version".into(), self.version.into());
        body
    }
}

impl Stamp {
    fn render(&self) -> Object {
        let mut object = Object::from_iter([("$lastUpdated".to_owned(), self.at.clone().into())]);
        object.extend(self.version.map(|version| ("$lastUpdatedVersion".to_owned(), version.into())));
        object.extend(self.by.clone().map(|by| ("$lastUpdatedBy".to_owned(), by.into())));
        object
    }
}

/// Applies a client's patch.
fn write(level: &mut Level, change: &Object, stamp: &Stamp) {
    for (name, value) in change {
        let node = match value {
            Value::Null => {
                level.remove(name);
                continue;
            }
            Value::Object(change) => {
                let mut below = match level.remove(name) {
                    Some(Entry { node: Node::Object(below), .. }) => below,
                    Some(_) | None => Level::new(),
                };
                write(&mut below, change, stamp);
                Node::Object(below)
            }
            value => Node::Value(value.clone()),
        };
        level.insert(name.clone(), Entry { node, stamp: stamp.clone() });
    }
}

/// The metadata in an event: of the written properties, without the removed ones.
fn written(change: &Object, stamp: &Stamp) -> Object {
    let mut metadata = stamp.render();
    for (name, value) in change {
        match value {
            Value::Null => {}
            Value::Object(change) => drop(metadata.insert(name.clone(), written(change, stamp).into())),
            _ => drop(metadata.insert(name.clone(), stamp.render().into())),
        }
    }
    metadata
}

fn value_of(node: &Node) -> Value {
    match node {
        Node::Value(value) => value.clone(),
        Node::Object(level) => render(level).into(),
    }
}

fn render(level: &Level) -> Object {
    level.iter().map(|(name, entry)| (name.clone(), value_of(&entry.node))).collect()
}

fn describe(level: &Level, metadata: &mut Object) {
    for (name, entry) in level {
        let mut described = entry.stamp.render();
        if let Node::Object(below) = &entry.node {
            describe(below, &mut described);
        }
        metadata.insert(name.clone(), described.into());
    }
}

fn without_rollouts(object: &Object) -> Object {
    let properties = object.iter().filter(|(name, _)| *name != "$lastUpdatedBy");
    properties
        .map(|(name, value)| match value {
            Value::Object(below) => (name.clone(), without_rollouts(below).into()),
            value => (name.clone(), value.clone()),
        })
        .collect()
}

/// A time as in the service's bodies: up to seven fraction digits without trailing zeros.
pub(crate) fn iso(at: i64) -> String {
    let (second, fraction) = ((at - START).div_euclid(SECOND), (at - START).rem_euclid(SECOND));
    assert!((0..86_400).contains(&second), "a history must be shorter than a day");
    let clock = format!("2031-01-01T{:02}:{:02}:{:02}", second / 3_600, second / 60 % 60, second % 60);
    match format!("{fraction:07}").trim_end_matches('0') {
        "" => format!("{clock}Z"),
        digits => format!("{clock}.{digits}Z"),
    }
}

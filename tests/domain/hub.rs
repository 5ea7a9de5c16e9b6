//! A reference IoT Hub with one twin, written without the product's merge: what the truth is, and which events
//! tell of it.

use serde_json::{Map, Value, json};
use twinsync::domain::{
    event::{Change, Sections, TwinEvent, TwinVersion},
    id::TwinKey,
    ticks::Ticks,
};

use crate::delivery::Random;

/// A section's user content.
type Content = Map<String, Value>;

/// The twin as the hub holds it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Truth {
    pub(crate) version: i64,
    pub(crate) tags: Content,
    pub(crate) desired: Content,
    pub(crate) reported: Content,
}

/// The hub: its twin, its clock, and what it told so far.
pub(crate) struct Hub {
    random: Random,
    pub(crate) now: i64,
    pub(crate) twin: Option<Truth>,
    earlier: Vec<Option<Truth>>,
    pub(crate) events: Vec<TwinEvent>,
}

pub(crate) fn key() -> TwinKey {
    TwinKey::device("hub", "pump/7")
}

const KEYS: [&str; 5] = ["a", "b", "c", "d/e", "~f"];

impl Hub {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), now: 0, twin: None, earlier: Vec::new(), events: Vec::new() }
    }

    /// Lets `operations` happen; with `deletes`, the twin may go and come again.
    pub(crate) fn live(&mut self, operations: usize, deletes: bool) {
        for _ in 0..operations {
            self.now += self.random.between(1, 3);
            self.earlier.push(self.twin.clone());
            let dice = self.random.below(100);
            match self.twin.take() {
                None => self.create(),
                Some(_) if deletes && dice < 15 => self.tell(Change::Deleted),
                Some(twin) if dice < 27 => self.replace(twin),
                Some(twin) => self.update(twin),
            }
        }
    }

    /// The hub fails over and has forgotten the last few operations, which it had told of.
    pub(crate) fn fail_over(&mut self) {
        let back = usize::try_from(self.random.between(1, 4)).expect("small");
        if self.earlier.len() > back {
            let at = self.earlier.len() - back;
            self.twin = self.earlier[at].clone();
            self.earlier.truncate(at);
        }
    }

    /// What a point read answers now. Its stamp is coarse, and from another clock; both together stay within the tolerance.
    pub(crate) fn get(&mut self) -> TwinEvent {
        self.now += 1;
        let change = match &self.twin {
            None => Change::Gone,
            Some(twin) => Change::Snapshot { version: TwinVersion(twin.version), twin: whole(twin) },
        };
        let stamp = self.now + self.random.between(-3, 3);
        TwinEvent { at: Ticks::new(stamp), ..self.event(change) }
    }

    fn create(&mut self) {
        let twin = Truth {
            version: 2,
            tags: self.object(2),
            desired: self.section(1),
            reported: json!({"$version": 1, "$metadata": {"$lastUpdated": self.now}})
                .as_object()
                .expect("an object")
                .clone(),
        };
        self.tell(Change::Created { version: TwinVersion(2), twin: whole(&twin) });
        self.twin = Some(twin);
    }

    fn replace(&mut self, mut twin: Truth) {
        twin.version += 1;
        twin.tags = self.object(2);
        let version = section_version(&twin.desired) + 1;
        twin.desired = self.section(version);
        let mut body = whole(&twin);
        if self.random.chance(50) {
            body.reported = None;
        }
        if twin.tags.is_empty() && self.random.chance(50) {
            body.tags = None;
        }
        self.tell(Change::Replaced { version: TwinVersion(twin.version), twin: body });
        self.twin = Some(twin);
    }

    fn update(&mut self, mut twin: Truth) {
        twin.version += 1;
        let mut patch = Sections::default();
        let first = self.random.below(3);
        for section in 0..3 {
            if section != first && self.random.chance(70) {
                continue;
            }
            let change = self.patch(2);
            if section == 0 {
                twin.tags = merged(&twin.tags, &change);
                patch.tags = Some(change);
            } else {
                let stored = if section == 1 { &mut twin.desired } else { &mut twin.reported };
                let change = self.described(change, section_version(stored) + 1);
                *stored = merged(stored, &change);
                prune(stored);
                let slot = if section == 1 { &mut patch.desired } else { &mut patch.reported };
                *slot = Some(change);
            }
        }
        self.tell(Change::Updated { version: TwinVersion(twin.version), patch });
        self.twin = Some(twin);
    }

    fn tell(&mut self, change: Change) {
        let event = self.event(change);
        self.events.push(event);
    }

    fn event(&self, change: Change) -> TwinEvent {
        TwinEvent { key: key(), at: Ticks::new(self.now), change }
    }

    fn section(&mut self, version: i64) -> Content {
        let content = self.object(2);
        self.described(content, version)
    }

    /// Adds `$version` and the `$metadata` of every key that is set, sometimes leaving one out.
    fn described(&mut self, content: Content, version: i64) -> Content {
        let mut metadata = self.metadata(&content);
        metadata.insert("$lastUpdated".into(), self.now.into());
        let mut content = content;
        content.insert("$metadata".into(), metadata.into());
        content.insert("$version".into(), version.into());
        content
    }

    fn metadata(&mut self, content: &Content) -> Content {
        let mut entries = Content::new();
        for (name, value) in content {
            if value.is_null() || self.random.chance(10) {
                continue;
            }
            let mut entry = value.as_object().map_or_else(Content::new, |below| self.metadata(below));
            entry.insert("$lastUpdated".into(), self.now.into());
            if self.random.chance(20) {
                entry.insert("$lastUpdatedBy".into(), format!("rollout {}", self.now).into());
            }
            entries.insert(name.clone(), entry.into());
        }
        entries
    }

    fn name(&mut self) -> String {
        KEYS[self.random.below(KEYS.len() as u64) as usize].to_owned()
    }

    fn object(&mut self, depth: u32) -> Content {
        (0..self.random.below(4)).map(|_| (self.name(), self.value(depth))).collect()
    }

    fn value(&mut self, depth: u32) -> Value {
        match self.random.below(10) {
            0..4 if depth > 0 => self.object(depth - 1).into(),
            4 => json!([self.random.below(9), {"x": 1}]),
            _ => self.random.below(9).into(),
        }
    }

    fn patch(&mut self, depth: u32) -> Content {
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

/// The sections of a full body.
fn whole(twin: &Truth) -> Sections {
    Sections {
        root: Map::new(),
        tags: Some(twin.tags.clone()),
        desired: Some(twin.desired.clone()),
        reported: Some(twin.reported.clone()),
    }
}

fn section_version(section: &Content) -> i64 {
    section["$version"].as_i64().expect("a version")
}

fn merged(target: &Content, change: &Content) -> Content {
    let mut result = target.clone();
    for (name, value) in change {
        match value {
            Value::Null => {
                result.remove(name);
            }
            Value::Object(inner) => {
                let below = target.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
                result.insert(name.clone(), merged(&below, inner).into());
            }
            _ => {
                result.insert(name.clone(), value.clone());
            }
        }
    }
    result
}

fn prune(section: &mut Content) {
    fn described(values: &Content, metadata: &Content) -> Content {
        let keep = |name: &String| name.starts_with('$') || values.contains_key(name);
        metadata
            .iter()
            .filter(|(name, _)| keep(name))
            .map(|(name, entry)| {
                let entry = match (entry, values.get(name)) {
                    (Value::Object(entry), Some(Value::Object(below))) => described(below, entry).into(),
                    (Value::Object(entry), Some(_)) => described(&Map::new(), entry).into(),
                    _ => entry.clone(),
                };
                (name.clone(), entry)
            })
            .collect()
    }
    let metadata = section["$metadata"].as_object().expect("metadata").clone();
    section["$metadata"] = described(section, &metadata).into();
}

//! The stored twin document: one per twin.
//!
//! User data never lies next to `id`, `_etag` or `ttl`: tags and properties keep their own objects, and only
//! fields of the hub's own twin root (`etag`, `status`, …) stand beside them. A tombstone keeps the ids and
//! `sync`, and carries `ttl`.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeMap};
use serde_json::{Map, Value};

use super::{
    id::TwinKey,
    merge::{self, Notes, Section},
    ticks::Ticks,
    twin::{TwinVersion, is_reserved, is_volatile},
};

/// The version of a stored document, as the store names it. Opaque.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ETag(pub String);

/// A twin's document.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Id within the container, made from `key`.
    pub id: String,
    /// The twin.
    pub key: TwinKey,
    /// What is known of it.
    pub state: State,
    /// Time of the newest applied change; of a tombstone: the time of the deletion.
    pub last: Ticks,
    /// Open flags.
    pub flags: BTreeSet<Flag>,
    /// Newest time of an event that was not applied because it could not be placed.
    pub refused: Option<Ticks>,
    /// When the previous incarnation is known to have ended, at the earliest: events and modules that are not
    /// newer than this belong to it. Of a tombstone: when the incarnation began that it ended.
    pub previous: Option<Ticks>,
    /// Up to when the registry's word is known to hold: whatever happened to the twin until then is reflected in the
    /// content, or is over.
    pub confirmed_until: Option<Ticks>,
    /// Modules of this device that still have to follow it. Set in the write that makes it necessary, so
    /// that a crash cannot forget it.
    pub cascade: Option<Cascade>,
    /// When the daemon decided on this content.
    pub applied_at: Ticks,
    /// The operation that led to it.
    pub operation: Operation,
    /// Seconds until Cosmos DB removes the document by itself; tombstones only.
    pub ttl_seconds: Option<u32>,
}

/// What is known of a twin.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// All of it.
    Live {
        /// Time of the incarnation's create event; unknown where a snapshot was the first sight of it.
        born: Option<Ticks>,
        /// Its content.
        twin: Twin,
    },
    /// Changes were seen, the twin they apply to was not.
    Partial {
        /// Time of the first change seen.
        since: Ticks,
        /// What the changes add up to.
        twin: Twin,
        /// What it takes to put a base under it.
        base: Box<BaseNotes>,
    },
    /// It was deleted at the document's `last`.
    Deleted,
}

/// The content of a twin.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Twin {
    /// Version within the incarnation.
    pub version: TwinVersion,
    /// Fields of the twin's root: `etag`, `status`, …
    pub root: Map<String, Value>,
    /// Tags.
    pub tags: Section,
    /// Desired properties with `$version` and `$metadata`.
    pub desired: Section,
    /// Reported properties with `$version` and `$metadata`.
    pub reported: Section,
}

/// [`Notes`] of each section.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BaseNotes {
    /// Version of the first change seen; a base that it does not directly follow leaves a gap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<TwinVersion>,
    /// Of the tags.
    #[serde(skip_serializing_if = "Notes::is_empty")]
    pub tags: Notes,
    /// Of the desired properties.
    #[serde(skip_serializing_if = "Notes::is_empty")]
    pub desired: Notes,
    /// Of the reported properties.
    #[serde(skip_serializing_if = "Notes::is_empty")]
    pub reported: Notes,
}

impl BaseNotes {
    fn is_empty(&self) -> bool {
        let Self { first, tags, desired, reported } = self;
        first.is_none() && tags.is_empty() && desired.is_empty() && reported.is_empty()
    }

    /// Whether some of it was given up, so that a base put under the content may show through where it must not.
    pub fn is_given_up(&self) -> bool {
        self.tags.given_up || self.desired.given_up || self.reported.given_up
    }

    /// Gives all of it up: a base is not expected any more.
    pub fn give_up(&mut self) {
        for notes in [&mut self.tags, &mut self.desired, &mut self.reported] {
            notes.give_up();
        }
    }

    fn weight(&self) -> usize {
        self.tags.weight() + self.desired.weight() + self.reported.weight()
    }
}

/// Why a document may differ from the hub's twin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flag {
    /// Versions were skipped: the hub coalesced changes, or an event was lost.
    Gap,
    /// An event was not applied because it could not be placed in time.
    Suspect,
}

/// How the modules of a device have to follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cascade {
    /// The device was deleted at this time, and its modules with it.
    Deleted(Ticks),
    /// The device was created at this time over an incarnation whose deletion was never seen.
    Reborn(Ticks),
}

/// What tells two states of one document from each other without its content. Every change of the content leaves one of these
/// different, but for one that brings nothing new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks {
    /// The state's kind and its time.
    state: (StateName, Option<Ticks>),
    version: Option<TwinVersion>,
    last: Ticks,
    flags: BTreeSet<Flag>,
    refused: Option<Ticks>,
    previous: Option<Ticks>,
    confirmed_until: Option<Ticks>,
    cascade: Option<Cascade>,
    applied_at: Ticks,
    operation: Operation,
    ttl_seconds: Option<u32>,
}

impl State {
    /// Equality, but for how numbers are spelt.
    pub fn says_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Live { born, twin }, Self::Live { born: other_born, twin: other_twin }) => {
                born == other_born && twin.says_the_same(other_twin)
            }
            (
                Self::Partial { since, twin, base },
                Self::Partial { since: other_since, twin: other_twin, base: other_base },
            ) => since == other_since && base == other_base && twin.says_the_same(other_twin),
            (Self::Deleted, Self::Deleted) => true,
            (Self::Live { .. } | Self::Partial { .. } | Self::Deleted, _) => false,
        }
    }
}

impl Twin {
    fn says_the_same(&self, other: &Self) -> bool {
        self.version == other.version
            && merge::same(&self.root, &other.root)
            && merge::same(&self.tags, &other.tags)
            && merge::same(&self.desired, &other.desired)
            && merge::same(&self.reported, &other.reported)
    }
}

impl Document {
    /// The twin's content, where there is one.
    pub fn twin(&self) -> Option<&Twin> {
        match &self.state {
            State::Live { twin, .. } | State::Partial { twin, .. } => Some(twin),
            State::Deleted => None,
        }
    }

    /// What changes with every change of it.
    pub fn marks(&self) -> Marks {
        let state = match self.state {
            State::Live { born, .. } => (StateName::Live, born),
            State::Partial { since, .. } => (StateName::Partial, Some(since)),
            State::Deleted => (StateName::Deleted, None),
        };
        Marks {
            state,
            version: self.twin().map(|twin| twin.version),
            last: self.last,
            flags: self.flags.clone(),
            refused: self.refused,
            previous: self.previous,
            confirmed_until: self.confirmed_until,
            cascade: self.cascade,
            applied_at: self.applied_at,
            operation: self.operation,
            ttl_seconds: self.ttl_seconds,
        }
    }

    /// Whether `other` is this very write as read back: equal to the last field, but for how numbers are spelt.
    pub fn is_same_write(&self, other: &Self) -> bool {
        let Self {
            id,
            key,
            state,
            last,
            flags,
            refused,
            previous,
            confirmed_until,
            cascade,
            applied_at,
            operation,
            ttl_seconds,
        } = self;
        (id, key, last, flags, refused) == (&other.id, &other.key, &other.last, &other.flags, &other.refused)
            && (previous, cascade, ttl_seconds) == (&other.previous, &other.cascade, &other.ttl_seconds)
            && *confirmed_until == other.confirmed_until
            && (applied_at, operation) == (&other.applied_at, &other.operation)
            && state.says_the_same(&other.state)
    }

    /// Whether it may differ from the hub's twin, and says so.
    pub fn is_flagged(&self) -> bool {
        !self.flags.is_empty() || matches!(self.state, State::Partial { .. })
    }

    /// Whether it is of a twin about whose identity (`status`, `capabilities`, …) nothing is known: no event tells of it, and the hub
    /// was not asked since.
    pub fn lacks_identity(&self) -> bool {
        self.twin().is_some_and(|twin| !twin.root.contains_key("status"))
    }

    /// Whether the twin came into being a moment ago: `now` by our clock, its beginning by the hub's.
    pub fn is_new(&self, now: Ticks) -> bool {
        /// Where a backlog is worked off, most creations are older.
        const NEW: Duration = Duration::from_secs(600);
        self.beginning().is_some_and(|began| now < began.after(NEW))
    }

    /// When the incarnation began, as far as it is known: its creation, or the first change that was seen.
    pub fn beginning(&self) -> Option<Ticks> {
        match self.state {
            State::Live { born, .. } => born,
            State::Partial { since, .. } => Some(since),
            State::Deleted => None,
        }
    }

    /// Time before which every module of this device is known to be deleted.
    pub fn modules_dead_before(&self) -> Option<Ticks> {
        match self.state {
            State::Deleted => Some(self.last),
            State::Live { .. } | State::Partial { .. } => self.previous,
        }
    }

    /// Bytes this document holds in memory, roughly: what a cache counts.
    pub fn weight(&self) -> usize {
        fn of(value: &Value) -> usize {
            match value {
                Value::Null | Value::Bool(_) | Value::Number(_) => 32,
                Value::String(text) => 32 + text.len(),
                Value::Array(items) => 32 + items.iter().map(of).sum::<usize>(),
                Value::Object(map) => of_map(map),
            }
        }
        fn of_map(map: &Map<String, Value>) -> usize {
            // A B-tree node has room for eleven entries of key and value.
            600 + map.iter().map(|(name, value)| name.len() + of(value)).sum::<usize>()
        }
        let notes = match &self.state {
            State::Partial { base, .. } => base.weight(),
            State::Live { .. } | State::Deleted => 0,
        };
        512 + notes
            + self.twin().map_or(0, |twin| {
                of_map(&twin.root) + of_map(&twin.tags) + of_map(&twin.desired) + of_map(&twin.reported)
            })
    }
}

/// The newest format of documents that this release understands. A release that writes anything which this one would
/// misread (a new state, flag or operation) counts it up and writes it as `sync.format`; without it, a document has format 1.
const FORMAT: i64 = 1;

/// What an item is that lies where a twin's document belongs.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// The twin's document.
    Document(Box<Document>),
    /// A document of another twin; says of which. It is somebody's, so it is never written over.
    Foreign(String),
    /// The twin's document as a newer release has written it, in this format. It is right, so it is never written over.
    Newer(i64),
    /// No document, or one that cannot be read; says why. Something has spoilt it.
    Damaged(String),
}

impl Item {
    /// Judges what was read for `key`.
    pub fn of(item: Value, key: &TwinKey) -> Self {
        let text = |name: &str| item.get(name).and_then(Value::as_str).map(str::to_owned);
        if let (Some(hub), Some(device)) = (text("hubName"), text("deviceId")) {
            let found = TwinKey { hub: hub.into(), device, module: text("moduleId") };
            if found != *key {
                return Self::Foreign(found.to_string());
            }
        }
        match item.pointer("/sync/format").and_then(Value::as_i64) {
            Some(format) if format > FORMAT => return Self::Newer(format),
            Some(_) | None => {}
        }
        match Document::deserialize(item) {
            Ok(document) if document.key == *key => Self::Document(Box::new(document)),
            Ok(_) => Self::Damaged("its ids are no twin's".to_owned()),
            Err(error) => Self::Damaged(error.to_string()),
        }
    }
}

/// A twin's document that lies under another id than the twin's.
///
/// Where several hubs share a container, the hub is part of the id, and it was once written there as it happened to be
/// spelt. A document keeps its id for life, so such documents are found by what they say of themselves.
#[derive(Debug, Clone, PartialEq)]
pub struct Misplaced {
    /// Where it lies.
    pub id: String,
    /// Its version.
    pub etag: ETag,
    /// The document; or the format that a newer release has written it in.
    pub document: Result<Box<Document>, i64>,
}

impl Misplaced {
    /// The document of `key` among `items` of its device's partition, whatever their ids. Of several, everybody takes the same:
    /// that whose id comes first. What cannot be read is nobody's.
    pub fn among(items: Vec<Value>, key: &TwinKey) -> Option<Self> {
        let read = |item: Value| {
            let text = |name: &str| item.get(name).and_then(Value::as_str).map(str::to_owned);
            let (id, etag) = (text("id")?, ETag(text("_etag")?));
            let document = match Item::of(item, key) {
                Item::Document(document) => Ok(document),
                Item::Newer(format) => Err(format),
                Item::Foreign(_) | Item::Damaged(_) => return None,
            };
            Some(Self { id, etag, document })
        };
        items.into_iter().filter_map(read).min_by(|one, other| one.id.cmp(&other.id))
    }
}

/// The operation that last changed a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// A create event.
    #[serde(rename = "createIdentity")]
    Create,
    /// A delete event.
    #[serde(rename = "deleteIdentity")]
    Delete,
    /// A patch.
    #[serde(rename = "updateTwin")]
    Update,
    /// A replacement.
    #[serde(rename = "replaceTwin")]
    Replace,
    /// A point read of the registry.
    #[serde(rename = "snapshot")]
    Snapshot,
    /// A flag that was noted without changing the twin.
    #[serde(rename = "flag", alias = "doubt")]
    Flag,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SyncFields {
    state: StateName,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    flags: BTreeSet<Flag>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    born: Option<Ticks>,
    last: Ticks,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<Ticks>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refused: Option<Ticks>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<Ticks>,
    #[serde(default, skip_serializing_if = "Option::is_none", alias = "settled")]
    confirmed_until: Option<Ticks>,
    #[serde(default, skip_serializing_if = "Option::is_none", alias = "sweep")]
    cascade: Option<Cascade>,
    #[serde(default, skip_serializing_if = "BaseNotes::is_empty")]
    base: BaseNotes,
    applied_at: Ticks,
    op: Operation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StateName {
    Live,
    Partial,
    Deleted,
}

#[derive(Serialize)]
struct PropertiesRef<'a> {
    desired: &'a Section,
    reported: &'a Section,
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("hubName", self.key.hub.as_str())?;
        map.serialize_entry("deviceId", &self.key.device)?;
        if let Some(module) = &self.key.module {
            map.serialize_entry("moduleId", module)?;
        }
        let (state, born, since, base) = match &self.state {
            State::Live { born, .. } => (StateName::Live, *born, None, BaseNotes::default()),
            State::Partial { since, base, .. } => {
                (StateName::Partial, None, Some(*since), BaseNotes::clone(base))
            }
            State::Deleted => (StateName::Deleted, None, None, BaseNotes::default()),
        };
        if let Some(twin) = self.twin() {
            for (name, value) in twin.root.iter().filter(|(name, _)| !is_reserved(name)) {
                map.serialize_entry(name, value)?;
            }
            map.serialize_entry("version", &twin.version)?;
            map.serialize_entry("tags", &twin.tags)?;
            let properties = PropertiesRef { desired: &twin.desired, reported: &twin.reported };
            map.serialize_entry("properties", &properties)?;
        }
        let sync = SyncFields {
            state,
            flags: self.flags.clone(),
            born,
            last: self.last,
            since,
            refused: self.refused,
            previous: self.previous,
            confirmed_until: self.confirmed_until,
            cascade: self.cascade,
            base,
            applied_at: self.applied_at,
            op: self.operation,
        };
        map.serialize_entry("sync", &sync)?;
        if let Some(seconds) = self.ttl_seconds {
            map.serialize_entry("ttl", &seconds)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Document {
    /// Reads a document back; fields that Cosmos DB adds (`_etag`, `_ts`, …) are left behind.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut fields = Map::<String, Value>::deserialize(deserializer)?;
        let id = text(&mut fields, "id")?;
        let key = TwinKey {
            hub: text(&mut fields, "hubName")?.into(),
            device: text(&mut fields, "deviceId")?,
            module: fields.contains_key("moduleId").then(|| text(&mut fields, "moduleId")).transpose()?,
        };
        let sync: SyncFields = parse(&mut fields, "sync")?;
        let ttl_seconds = fields.contains_key("ttl").then(|| parse(&mut fields, "ttl")).transpose()?;
        let state = match sync.state {
            StateName::Deleted => State::Deleted,
            StateName::Live => State::Live { born: sync.born, twin: twin(fields)? },
            StateName::Partial => State::Partial {
                since: sync.since.ok_or_else(|| de::Error::missing_field("sync.since"))?,
                twin: twin(fields)?,
                base: Box::new(sync.base),
            },
        };
        Ok(Self {
            id,
            key,
            state,
            last: sync.last,
            flags: sync.flags,
            refused: sync.refused,
            previous: sync.previous,
            confirmed_until: sync.confirmed_until,
            cascade: sync.cascade,
            applied_at: sync.applied_at,
            operation: sync.op,
            ttl_seconds,
        })
    }
}

fn twin<E: de::Error>(mut fields: Map<String, Value>) -> Result<Twin, E> {
    let version = parse(&mut fields, "version")?;
    let tags = object(fields.remove("tags"), "tags")?;
    let mut properties = object(fields.remove("properties"), "properties")?;
    let desired = object(properties.remove("desired"), "properties.desired")?;
    let reported = object(properties.remove("reported"), "properties.reported")?;
    fields.retain(|name, _| !is_reserved(name) && !is_volatile(name));
    Ok(Twin { version, root: fields, tags, desired, reported })
}

fn text<E: de::Error>(fields: &mut Map<String, Value>, name: &'static str) -> Result<String, E> {
    match fields.remove(name) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(E::custom(format_args!("`{name}` is not a string"))),
        None => Err(E::missing_field(name)),
    }
}

fn parse<T: de::DeserializeOwned, E: de::Error>(
    fields: &mut Map<String, Value>,
    name: &'static str,
) -> Result<T, E> {
    let value = fields.remove(name).ok_or_else(|| E::missing_field(name))?;
    serde_json::from_value(value).map_err(|error| E::custom(format_args!("`{name}`: {error}")))
}

fn object<E: de::Error>(value: Option<Value>, name: &'static str) -> Result<Section, E> {
    match value {
        Some(Value::Object(section)) => Ok(section),
        None => Ok(Section::new()),
        Some(_) => Err(E::custom(format_args!("`{name}` is not an object"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ticks(text: &str) -> Ticks {
        Ticks::parse(text).expect("a valid time")
    }

    fn live() -> Document {
        let section = |value: Value| value.as_object().expect("an object").clone();
        Document {
            id: "pump%2F1|m".into(),
            key: TwinKey::module("h", "pump/1", "m"),
            state: State::Live {
                born: Some(ticks("2031-01-01T00:00:00.0000001Z")),
                twin: Twin {
                    version: TwinVersion(7),
                    root: section(json!({"etag": "AAAAAAAAAAQ=", "status": "enabled"})),
                    tags: section(json!({"id": "user's", "ttl": 3, "_etag": "user's"})),
                    desired: section(json!({"$version": 2, "rate": 0.1, "big": 4_503_599_627_370_495_i64})),
                    reported: section(json!({"$version": 3, "deep": {"a": [1, {"b": null}]}})),
                },
            },
            last: ticks("2031-01-02T00:00:00Z"),
            flags: BTreeSet::from([Flag::Gap]),
            refused: None,
            previous: None,
            confirmed_until: None,
            cascade: None,
            applied_at: ticks("2031-01-02T00:00:01Z"),
            operation: Operation::Update,
            ttl_seconds: None,
        }
    }

    #[test]
    fn a_live_document_has_the_published_shape() {
        let written = serde_json::to_value(live()).expect("serialises");
        assert_eq!(
            written,
            json!({
                "id": "pump%2F1|m", "hubName": "h", "deviceId": "pump/1", "moduleId": "m",
                "etag": "AAAAAAAAAAQ=", "status": "enabled", "version": 7,
                "tags": {"id": "user's", "ttl": 3, "_etag": "user's"},
                "properties": {
                    "desired": {"$version": 2, "rate": 0.1, "big": 4_503_599_627_370_495_i64},
                    "reported": {"$version": 3, "deep": {"a": [1, {"b": null}]}}
                },
                "sync": {
                    "state": "live", "flags": ["gap"], "born": "2031-01-01T00:00:00.0000001Z",
                    "last": "2031-01-02T00:00:00.0000000Z", "appliedAt": "2031-01-02T00:00:01.0000000Z",
                    "op": "updateTwin"
                }
            })
        );
    }

    #[test]
    fn a_document_survives_the_way_through_cosmos() {
        let mut stored = serde_json::to_value(live()).expect("serialises");
        for (name, value) in [("_rid", json!("x")), ("_etag", json!("\"e\"")), ("_ts", json!(1))] {
            stored[name] = value;
        }
        assert_eq!(serde_json::from_value::<Document>(stored).expect("reads back"), live());
    }

    #[test]
    fn names_of_earlier_releases_are_read_and_not_written() {
        let at = ticks("2031-01-03T00:00:00Z");
        let cascade = Some(Cascade::Deleted(at));
        let document = Document { confirmed_until: Some(at), operation: Operation::Flag, cascade, ..live() };
        let mut stored = serde_json::to_value(&document).expect("serialises");
        let sync = stored["sync"].as_object_mut().expect("an object");
        assert_eq!(sync["op"], "flag");
        let confirmed = sync.remove("confirmedUntil").expect("written");
        let cascade = sync.remove("cascade").expect("written");
        let earlier = [("settled", confirmed), ("sweep", cascade), ("op", json!("doubt"))];
        sync.extend(earlier.map(|(name, value)| (name.to_owned(), value)));
        assert_eq!(serde_json::from_value::<Document>(stored).expect("reads back"), document);
    }

    #[test]
    fn a_tombstone_keeps_ids_and_sync_only() {
        let tombstone = Document { state: State::Deleted, ttl_seconds: Some(60), ..live() };
        let written = serde_json::to_value(&tombstone).expect("serialises");
        let names: Vec<_> = written.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(names, ["deviceId", "hubName", "id", "moduleId", "sync", "ttl"]);
        assert_eq!(serde_json::from_value::<Document>(written).expect("reads back"), tombstone);
    }

    #[test]
    fn reserved_names_of_a_twin_root_never_reach_the_document() {
        let mut document = live();
        if let State::Live { twin, .. } = &mut document.state {
            for name in ["id", "ttl", "_etag", "_self", "sync", "hubName"] {
                twin.root.insert(name.into(), json!("intruder"));
            }
        }
        let written = serde_json::to_string(&document).expect("serialises");
        assert!(!written.contains("intruder"), "{written}");
    }

    #[test]
    fn what_lies_under_a_twins_id_is_its_own_anothers_newer_or_damaged() {
        let key = live().key;
        let stored = || serde_json::to_value(live()).expect("serialises");
        assert_eq!(Item::of(stored(), &key), Item::Document(Box::new(live())));
        let with = |pointer: &str, value: Value| {
            let mut item = stored();
            *item.pointer_mut(pointer).expect("is there") = value;
            item
        };
        assert_eq!(Item::of(with("/hubName", json!("H")), &key), Item::Document(Box::new(live())));
        for (pointer, value, whose) in [
            ("/hubName", json!("other"), "other/pump/1/m"),
            ("/deviceId", json!("pump"), "h/pump/m"),
            ("/moduleId", json!("n"), "h/pump/1/n"),
        ] {
            assert_eq!(Item::of(with(pointer, value), &key), Item::Foreign(whose.into()), "{pointer}");
        }
        // A newer release may write what this one cannot read, and says so.
        let mut newer = with("/sync/state", json!("archived"));
        newer["sync"]["format"] = json!(2);
        assert_eq!(Item::of(newer, &key), Item::Newer(2));
        let mut current = stored();
        current["sync"]["format"] = json!(1);
        assert!(matches!(Item::of(current, &key), Item::Document(_)));
        for damaged in
            [with("/sync", json!("nonsense")), with("/sync/state", json!("archived")), json!({}), json!([])]
        {
            assert!(matches!(Item::of(damaged.clone(), &key), Item::Damaged(_)), "{damaged}");
        }
        // Of another hub, and damaged: it is still somebody else's.
        let mut foreign = with("/sync", json!(1));
        foreign["hubName"] = json!("other");
        assert!(matches!(Item::of(foreign, &key), Item::Foreign(_)));
    }

    #[test]
    fn a_document_whose_id_spells_the_hub_otherwise_is_found_by_what_it_says() {
        let key = live().key;
        let stored = |id: &str, hub: &str, module: &str| {
            let mut item = serde_json::to_value(live()).expect("serialises");
            item["_etag"] = json!(format!("of {id}"));
            (item["id"], item["hubName"], item["moduleId"]) = (json!(id), json!(hub), json!(module));
            item
        };
        let of_others =
            [stored("x|pump%2F1|m", "x", "m"), stored("H|pump%2F1|n", "H", "n"), json!({"id": "H|?"})];
        assert_eq!(Misplaced::among(of_others.to_vec(), &key), None);
        let mut damaged = stored("A|pump%2F1|m", "h", "m");
        damaged["sync"] = json!(0);
        let ours = [stored("hH|pump%2F1|m", "h", "m"), stored("H|pump%2F1|m", "H", "m"), damaged];
        let found = Misplaced::among([&of_others[..], &ours].concat(), &key).expect("is there");
        assert_eq!((found.id.as_str(), found.etag), ("H|pump%2F1|m", ETag("of H|pump%2F1|m".into())));
        let document = found.document.expect("can be read");
        assert_eq!(*document, Document { id: "H|pump%2F1|m".into(), ..live() }, "it keeps its id");
        let mut newer = stored("H|pump%2F1|m", "H", "m");
        newer["sync"]["format"] = json!(2);
        assert_eq!(Misplaced::among(vec![newer], &key).expect("is there").document, Err(2));
    }

    #[test]
    fn what_is_no_document_is_an_error() {
        for damaged in [json!({}), json!({"id": "a", "hubName": "h", "deviceId": 1, "sync": {}}), json!([])] {
            assert!(serde_json::from_value::<Document>(damaged).is_err());
        }
    }
}

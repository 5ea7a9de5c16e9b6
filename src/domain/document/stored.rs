//! Conversion of a document to and from its form in Cosmos DB.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeMap};
use serde_json::{Map, Value};

use super::{BaseNotes, Cascade, Document, Flag, Operation, State, Twin};
use crate::domain::{
    id::TwinKey,
    merge::Section,
    ticks::Ticks,
    twin::{is_reserved, is_volatile},
};

/// The newest document format that this release understands. A release that writes anything which this one would
/// misread (a new state, flag or operation) increments it and writes it as `sync.format`. A document without
/// `sync.format` has format 1.
pub(super) const FORMAT: i64 = 1;

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
pub(super) enum StateName {
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
    /// Reads a document back; ignores fields that Cosmos DB adds (`_etag`, `_ts`, …).
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

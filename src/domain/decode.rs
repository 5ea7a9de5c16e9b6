//! From a message to an event, or to the reason why it is none.
//!
//! Routes may carry anything: telemetry on the fallback route, connection states, digital-twin changes that
//! use the very same operation names. What is not ours is ignored and counted; what is ours and can never be
//! applied is dead-lettered; neither stops the partition.

use serde_json::{Map, Value};

use super::{
    document::{is_reserved, is_volatile},
    event::{Change, Sections, TwinEvent, TwinVersion},
    id::{HubName, TwinKey},
    message::{Message, Property},
    patch::{Checked, Patch},
    ticks::Ticks,
};

/// How deep a body may nest: what Cosmos DB accepts for an item.
pub const MAX_DEPTH: usize = 128;

/// The longest device or module id, in characters: IoT Hub's own limit. Encoded, both together and the hub's name stay well
/// below the 1,023 bytes that Cosmos DB takes for an id.
pub const MAX_ID: usize = 128;

/// What a message turned out to be.
#[expect(
    clippy::large_enum_variant,
    reason = "lives for one match and is nearly always an event: a box would cost an allocation for each"
)]
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded {
    /// A change of a twin.
    Event(TwinEvent),
    /// Not ours.
    Ignored(Ignored),
    /// Ours, but it can never be applied.
    Undeliverable(Undeliverable),
}

/// Why a message is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ignored {
    /// Device-to-cloud telemetry.
    Telemetry,
    /// A device connected or disconnected.
    ConnectionState,
    /// A Plug and Play view of a change that also arrives as a twin change.
    DigitalTwinChange,
    /// A job's progress.
    JobLifecycle,
    /// Some other source.
    OtherSource,
    /// Neither source nor schema is given: no message of an IoT Hub route.
    NoSource,
    /// Ours, but an operation that does not change a twin as far as is known.
    UnknownOperation,
}

impl Ignored {
    /// All of them, for metrics.
    pub const ALL: [Self; 7] = [
        Self::Telemetry,
        Self::ConnectionState,
        Self::DigitalTwinChange,
        Self::JobLifecycle,
        Self::OtherSource,
        Self::NoSource,
        Self::UnknownOperation,
    ];

    /// Its name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Telemetry => "telemetry",
            Self::ConnectionState => "connection_state",
            Self::DigitalTwinChange => "digital_twin_change",
            Self::JobLifecycle => "job_lifecycle",
            Self::OtherSource => "other_source",
            Self::NoSource => "no_source",
            Self::UnknownOperation => "unknown_operation",
        }
    }
}

/// Why an event can never be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Undeliverable {
    /// The message is larger than the configured limit.
    #[error("the message is larger than the configured limit")]
    TooLarge,
    /// The body is not UTF-8.
    #[error("the body is not valid UTF-8")]
    NotUtf8,
    /// The body nests deeper than [`MAX_DEPTH`].
    #[error("the body nests deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// The body is not JSON.
    #[error("the body is not valid JSON")]
    NotJson,
    /// The body is JSON, but no object.
    #[error("the body is not a JSON object")]
    NotObject,
    /// A section (`tags`, `properties`, `properties.desired`, `properties.reported`) is not an object.
    #[error("tags or properties are not JSON objects")]
    SectionNotObject,
    /// No device id, neither in properties nor annotations nor body.
    #[error("no device id in properties, annotations or body")]
    NoDevice,
    /// An operation on a module that does not name it.
    #[error("no module id in properties, annotations or body of an operation on a module")]
    NoModule,
    /// An id that IoT Hub does not give, and Cosmos DB may not take.
    #[error("the device or module id is longer than {MAX_ID} characters")]
    IdTooLong,
    /// No hub name.
    #[error("no hub name in the application properties")]
    NoHub,
    /// No usable time.
    #[error("no usable operation time or enqueued time")]
    NoTime,
    /// A change without a version cannot be placed.
    #[error("no usable version in the body")]
    NoVersion,
}

impl Undeliverable {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::TooLarge,
        Self::NotUtf8,
        Self::TooDeep,
        Self::NotJson,
        Self::NotObject,
        Self::SectionNotObject,
        Self::NoDevice,
        Self::NoModule,
        Self::IdTooLong,
        Self::NoHub,
        Self::NoTime,
        Self::NoVersion,
    ];

    /// Stable reason code of dead letters and metrics.
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::NotUtf8 => "not_utf8",
            Self::TooDeep => "too_deep",
            Self::NotJson => "not_json",
            Self::NotObject => "not_an_object",
            Self::SectionNotObject => "section_not_an_object",
            Self::NoDevice => "no_device_id",
            Self::NoModule => "no_module_id",
            Self::IdTooLong => "id_too_long",
            Self::NoHub => "no_hub_name",
            Self::NoTime => "no_time",
            Self::NoVersion => "no_version",
        }
    }
}

/// Decodes `message`. Bodies over `max_body_bytes` are undeliverable.
pub fn decode(message: &Message, max_body_bytes: usize) -> Decoded {
    let operation = match operation(message) {
        Ok(operation) => operation,
        Err(ignored) => return Decoded::Ignored(ignored),
    };
    match event(message, operation, max_body_bytes) {
        Ok(event) => Decoded::Event(event),
        Err(reason) => Decoded::Undeliverable(reason),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Create,
    Delete,
    Update,
    Replace,
}

/// Source first, then operation: digital-twin changes share their operation's name with twin changes.
fn operation(message: &Message) -> Result<Operation, Ignored> {
    let property = |name| message.application_properties.get(name).and_then(Property::as_text);
    let source = message
        .annotations
        .get("iothub-message-source")
        .and_then(Property::as_text)
        .filter(|source| !source.is_empty())
        .or_else(|| property("iothub-message-schema"))
        .ok_or(Ignored::NoSource)?;
    let operation = property("opType");
    let operation = operation.as_deref().unwrap_or_default();
    match source.as_ref() {
        "twinChangeEvents" | "twinChangeNotification" => match operation {
            "updateTwin" => Ok(Operation::Update),
            "replaceTwin" => Ok(Operation::Replace),
            _ => Err(Ignored::UnknownOperation),
        },
        // Documentation of different years names modules' operations and schema differently.
        "deviceLifecycleEvents"
        | "deviceLifecycleNotification"
        | "moduleLifecycleEvents"
        | "moduleLifecycleNotification" => match operation {
            "createDeviceIdentity" | "createModuleIdentity" => Ok(Operation::Create),
            "deleteDeviceIdentity" | "deleteModuleIdentity" => Ok(Operation::Delete),
            _ => Err(Ignored::UnknownOperation),
        },
        "Telemetry" | "telemetry" => Err(Ignored::Telemetry),
        "deviceConnectionStateEvents" | "deviceConnectionStateNotification" => Err(Ignored::ConnectionState),
        "digitalTwinChangeEvents" | "digitalTwinChangeNotification" => Err(Ignored::DigitalTwinChange),
        "deviceJobLifecycleEvents" | "deviceJobLifecycleNotification" => Err(Ignored::JobLifecycle),
        _ => Err(Ignored::OtherSource),
    }
}

fn event(message: &Message, operation: Operation, max_body_bytes: usize) -> Result<TwinEvent, Undeliverable> {
    if operation == Operation::Update {
        return update(message, max_body_bytes);
    }
    // A delete is told by its operation and ids alone: its body may be a twin, a part of one, or empty.
    let mut body = match parse(&message.body, max_body_bytes) {
        Ok(body) => body,
        Err(_) if operation == Operation::Delete => Map::new(),
        Err(reason) => return Err(reason),
    };
    let key = key(message, &body)?;
    let at = time(message).ok_or(Undeliverable::NoTime)?;
    if operation == Operation::Delete {
        return Ok(TwinEvent { key, at, change: Change::Deleted });
    }
    let version = body.remove("version").as_ref().and_then(version);
    let sections = sections(body)?;
    let change = match operation {
        Operation::Create => {
            // An older documented create body has no version. A wrong guess shows up as a flagged gap.
            Change::Created { version: version.unwrap_or(TwinVersion::INITIAL), twin: sections }
        }
        Operation::Replace | Operation::Update | Operation::Delete => {
            Change::Replaced { version: version.ok_or(Undeliverable::NoVersion)?, twin: sections }
        }
    };
    Ok(TwinEvent { key, at, change })
}

/// A change: by far the most frequent event, so nothing is made of its body before it is applied.
fn update(message: &Message, max_body_bytes: usize) -> Result<TwinEvent, Undeliverable> {
    let text = text_of(&message.body, max_body_bytes)?;
    let Checked { patch, version, ids, wrong_section } =
        Patch::check(message.body.slice_ref(text.as_bytes()))?;
    let key = key(message, &ids)?;
    let at = time(message).ok_or(Undeliverable::NoTime)?;
    if wrong_section {
        return Err(Undeliverable::SectionNotObject);
    }
    let version = version.ok_or(Undeliverable::NoVersion)?;
    Ok(TwinEvent { key, at, change: Change::Updated { version, patch } })
}

/// The text of a body that may be parsed.
fn text_of(body: &[u8], max_body_bytes: usize) -> Result<&str, Undeliverable> {
    if body.len() > max_body_bytes {
        return Err(Undeliverable::TooLarge);
    }
    let text = std::str::from_utf8(body).map_err(|_| Undeliverable::NotUtf8)?;
    if depth(text) > MAX_DEPTH {
        return Err(Undeliverable::TooDeep);
    }
    Ok(text.trim_start_matches('\u{feff}'))
}

fn parse(body: &[u8], max_body_bytes: usize) -> Result<Map<String, Value>, Undeliverable> {
    tree(text_of(body, max_body_bytes)?.as_bytes())
}

/// The JSON object of a text whose depth has been looked at.
pub(super) fn tree(text: &[u8]) -> Result<Map<String, Value>, Undeliverable> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    // Its own limit stops one level short of Cosmos DB's; the check above has bounded the recursion.
    deserializer.disable_recursion_limit();
    let value = <Value as serde::Deserialize>::deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|_| Undeliverable::NotJson)?;
    match value {
        Value::Object(map) => Ok(map),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(Undeliverable::NotObject)
        }
    }
}

/// The deepest nesting of brackets outside strings; an upper bound for what a parser will recurse into.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn key(message: &Message, body: &Map<String, Value>) -> Result<TwinKey, Undeliverable> {
    let (device, module) = named(message, body);
    let device = device.ok_or(Undeliverable::NoDevice)?;
    if module.is_none() && is_about_a_module(message) {
        return Err(Undeliverable::NoModule); // acting on its device would be worse than not acting
    }
    let too_long = |id: &str| id.chars().count() > MAX_ID;
    if too_long(&device) || module.as_deref().is_some_and(too_long) {
        return Err(Undeliverable::IdTooLong);
    }
    let hub = message.application_properties.get("hubName").and_then(Property::as_text);
    let hub = hub.filter(|name| !name.is_empty()).ok_or(Undeliverable::NoHub)?;
    Ok(TwinKey { hub: HubName::new(&hub), device, module })
}

/// Whether operation or source name modules. Documentation also shows modules' events under the names of devices'.
fn is_about_a_module(message: &Message) -> bool {
    let names = |property: Option<Property<'_>>, which: &[&str]| {
        property.and_then(Property::as_text).is_some_and(|text| which.contains(&text.as_ref()))
    };
    let property = |name| message.application_properties.get(name);
    names(property("opType"), &["createModuleIdentity", "deleteModuleIdentity"])
        || names(property("iothub-message-schema"), &["moduleLifecycleNotification"])
        || names(message.annotations.get("iothub-message-source"), &["moduleLifecycleEvents"])
}

/// The twin that a message is about, as far as it can be told, and when its operation was performed: what is flagged where
/// the message cannot be applied.
pub fn concerns(message: &Message) -> Option<(TwinKey, Option<Ticks>)> {
    let body = parse(&message.body, usize::MAX).unwrap_or_default();
    key(message, &body).ok().map(|key| (key, time(message)))
}

/// Device and module that a message names, as far as it can be told: for people who look through dead letters.
pub fn subject(message: &Message) -> (Option<String>, Option<String>) {
    let body = parse(&message.body, usize::MAX).unwrap_or_default();
    named(message, &body)
}

fn named(message: &Message, body: &Map<String, Value>) -> (Option<String>, Option<String>) {
    let find = |property: &str, annotation: &str| {
        text(message.application_properties.get(property))
            .or_else(|| text(message.annotations.get(annotation)))
            .or_else(|| {
                body.get(property).and_then(Value::as_str).filter(|id| !id.is_empty()).map(str::to_owned)
            })
    };
    (find("deviceId", "iothub-connection-device-id"), find("moduleId", "iothub-connection-module-id"))
}

fn text(property: Option<Property<'_>>) -> Option<String> {
    property.and_then(Property::as_text).filter(|text| !text.is_empty()).map(|text| text.into_owned())
}

fn time(message: &Message) -> Option<Ticks> {
    message
        .application_properties
        .get("operationTimestamp")
        .and_then(Property::as_time)
        .or_else(|| message.annotations.get("iothub-enqueuedtime").and_then(Property::as_time))
        .or(message.enqueued)
}

pub(super) fn version(value: &Value) -> Option<TwinVersion> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok()).map(TwinVersion)
}

pub(super) fn sections(mut body: Map<String, Value>) -> Result<Sections, Undeliverable> {
    let tags = section(body.remove("tags"))?;
    let mut properties = section(body.remove("properties"))?.unwrap_or_default();
    let desired = section(properties.remove("desired"))?;
    let reported = section(properties.remove("reported"))?;
    body.retain(|name, _| !is_reserved(name) && !is_volatile(name));
    Ok(Sections { root: body, tags, desired, reported })
}

/// IoT Hub refuses a null section, so one that shows up says nothing about the section.
fn section(value: Option<Value>) -> Result<Option<Map<String, Value>>, Undeliverable> {
    match value {
        Some(Value::Object(section)) => Ok(Some(section)),
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            Err(Undeliverable::SectionNotObject)
        }
    }
}

#[cfg(test)]
mod tests;

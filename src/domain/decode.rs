//! From a message to an event, or to the reason why it is not an event.
//!
//! Routes may carry anything: telemetry on the fallback route, connection states, digital-twin changes that use the
//! same operation names. Messages that are not twin events are ignored and counted. Twin events that can never be
//! applied become dead letters. Neither stops the partition.

use serde_json::{Map, Value};

use super::{
    body::{parse, sections, text_of, version},
    event::{Change, TwinEvent},
    id::{HubName, TwinKey},
    message::{Message, Property},
    patch::{Checked, Patch},
    ticks::Ticks,
    twin::TwinVersion,
    undeliverable::{MAX_ID, Undeliverable},
};

/// The result of decoding a message.
#[expect(
    clippy::large_enum_variant,
    reason = "lives for one match and is nearly always an event: a box would cost an allocation for each"
)]
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded {
    /// A change of a twin.
    Event(TwinEvent),
    /// Not a twin event.
    Ignored(Ignored),
    /// A twin event that can never be applied.
    Undeliverable(Undeliverable),
}

/// Why a message is not a twin event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ignored {
    /// Device-to-cloud telemetry.
    Telemetry,
    /// A device connected or disconnected.
    ConnectionState,
    /// A Plug and Play view of a change that also arrives as a twin change.
    DigitalTwinChange,
    /// The progress of a job.
    JobLifecycle,
    /// Another message source.
    OtherSource,
    /// It has neither source nor schema: it is not a message of an IoT Hub route.
    NoSource,
    /// A twin event, but its operation does not change a twin as far as is known.
    UnknownOperation,
}

impl Ignored {
    /// All reasons, for metrics.
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

/// Decodes `message`. A body of more than `max_body_bytes` bytes is undeliverable.
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

/// Checks the source first, then the operation, because digital-twin changes have the same operation name as twin
/// changes.
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
        // Documentation from different years uses different names for the operations and the schema of modules.
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
    // A delete needs only the operation and the ids: its body may be a twin, a part of one, or empty.
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
            // Older documentation shows a create body without a version. If the default is wrong, the document is
            // flagged with a gap.
            Change::Created { version: version.unwrap_or(TwinVersion::INITIAL), twin: sections }
        }
        Operation::Replace | Operation::Update | Operation::Delete => {
            Change::Replaced { version: version.ok_or(Undeliverable::NoVersion)?, twin: sections }
        }
    };
    Ok(TwinEvent { key, at, change })
}

/// A change: by far the most frequent event, so its body is not parsed into a tree before it is applied.
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

/// Whether the operation or the source names modules. Documentation also shows events of modules under the names for
/// devices.
fn is_about_a_module(message: &Message) -> bool {
    let names = |property: Option<Property<'_>>, which: &[&str]| {
        property.and_then(Property::as_text).is_some_and(|text| which.contains(&text.as_ref()))
    };
    let property = |name| message.application_properties.get(name);
    names(property("opType"), &["createModuleIdentity", "deleteModuleIdentity"])
        || names(property("iothub-message-schema"), &["moduleLifecycleNotification"])
        || names(message.annotations.get("iothub-message-source"), &["moduleLifecycleEvents"])
}

/// The twin that a message is about, if it can be determined, and the time of its operation. This twin is flagged if
/// the message cannot be applied.
pub fn concerns(message: &Message) -> Option<(TwinKey, Option<Ticks>)> {
    let body = parse(&message.body, usize::MAX).unwrap_or_default();
    key(message, &body).ok().map(|key| (key, time(message)))
}

/// The device and module that a message names, if they can be determined: for people who look through dead letters.
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

#[cfg(test)]
mod tests;

//! One event as a route sends it to an Event Hub.
//!
//! Its form is that of captured events: which values are in the body, which are application properties, which are
//! annotations. As in the captures, two details vary from event to event: the offset of `operationTimestamp`, and
//! additional bytes after the hub's name in `user-id`. The notification's number determines them, so that a run
//! can be repeated.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Timestamp, TwinId};

/// The source of a notification, which routes refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// Creation and deletion of identities.
    DeviceLifecycle,
    /// Writes of twins.
    TwinChange,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// `createDeviceIdentity`, for modules too.
    Created,
    /// `deleteDeviceIdentity`, for modules too.
    Deleted,
    /// `updateTwin`.
    Updated,
    /// `replaceTwin`.
    Replaced,
}

impl Change {
    /// The source of such a notification.
    pub const fn source(self) -> Source {
        match self {
            Self::Created | Self::Deleted => Source::DeviceLifecycle,
            Self::Updated | Self::Replaced => Source::TwinChange,
        }
    }

    /// The value of the application property `opType`.
    pub const fn operation_type(self) -> &'static str {
        match self {
            Self::Created => "createDeviceIdentity",
            Self::Deleted => "deleteDeviceIdentity",
            Self::Updated => "updateTwin",
            Self::Replaced => "replaceTwin",
        }
    }
}

/// A lifecycle or twin-change event.
#[derive(Clone, Debug)]
pub struct Notification {
    /// Number of the notification within the hub, from 1.
    pub number: u64,
    /// The hub's name, without a domain.
    pub hub_name: Arc<str>,
    /// The twin that the notification is about.
    pub id: TwinId,
    /// What happened.
    pub change: Change,
    /// When the hub applied the operation.
    pub operation_time: Timestamp,
    /// The JSON body.
    pub body: Value,
}

impl Notification {
    /// The application properties. All of them are text.
    pub fn application_properties(&self) -> Vec<(&'static str, String)> {
        let offset = if self.number.is_multiple_of(3) { "+00:00" } else { "Z" };
        let schema = match self.change.source() {
            Source::DeviceLifecycle => "deviceLifecycleNotification",
            Source::TwinChange => "twinChangeNotification",
        };
        let mut properties = vec![
            ("hubName", self.hub_name.to_string()),
            ("deviceId", self.id.device_id().to_owned()),
            ("operationTimestamp", self.operation_time.seven_digits(offset)),
            ("iothub-message-schema", schema.to_owned()),
            ("opType", self.change.operation_type().to_owned()),
        ];
        if let Some(module_id) = self.id.module_id() {
            properties.push(("moduleId", module_id.to_owned()));
        }
        properties
    }

    /// The annotations that are text. `iothub-enqueuedtime`, a timestamp, is [`Notification::enqueued_time`].
    pub fn text_annotations(&self) -> Vec<(&'static str, String)> {
        let source = match self.change.source() {
            Source::DeviceLifecycle => "deviceLifecycleEvents",
            Source::TwinChange => "twinChangeEvents",
        };
        let mut annotations = vec![
            ("iothub-connection-device-id", self.id.device_id().to_owned()),
            ("iothub-message-source", source.to_owned()),
        ];
        if let Some(module_id) = self.id.module_id() {
            annotations.push(("iothub-connection-module-id", module_id.to_owned()));
        }
        annotations
    }

    /// The time at which the hub enqueues the event, in milliseconds since the Unix epoch: a little after the
    /// operation.
    pub fn enqueued_time(&self) -> i64 {
        let delay = 25 + i64::try_from(self.number % 100).unwrap_or(0);
        self.operation_time.unix_milliseconds() + delay
    }

    /// The hub's name as bytes. In every fifth notification, bytes that are not valid UTF-8 follow.
    pub fn user_id(&self) -> Vec<u8> {
        let mut user_id = self.hub_name.as_bytes().to_vec();
        if self.number.is_multiple_of(5) {
            let [.., low] = self.number.to_be_bytes();
            user_id.extend([0x9d, low, 0xf8]);
        }
        user_id
    }

    /// A short hexadecimal string, different for every notification.
    pub fn correlation_id(&self) -> String {
        format!("{:x}", (self.number.wrapping_mul(0x9E37_79B1) & 0xFFFF_FFFF) | 0x1_0000_0000)
    }

    /// The body as UTF-8 JSON.
    pub fn body_bytes(&self) -> Vec<u8> {
        // Faster than `to_string`. A JSON value always serializes.
        serde_json::to_vec(&self.body).unwrap_or_else(|_| self.body.to_string().into_bytes())
    }
}

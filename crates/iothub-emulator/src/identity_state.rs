//! The root fields of a twin that describe the identity and its connection. They change without any event, so only
//! reads show them.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Timestamp;

/// Whether a device may connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Status {
    /// The device may connect.
    #[default]
    Enabled,
    /// The device may not connect.
    Disabled,
}

/// Whether the device is connected, as far as the hub knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConnectionState {
    /// The device is connected.
    Connected,
    /// The device is not connected.
    #[default]
    Disconnected,
}

/// A change of fields that no event reports. Absent fields stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct IdentityChange {
    /// Whether the device may connect.
    pub status: Option<Status>,
    /// The reason for the status.
    pub status_reason: Option<String>,
    /// Whether the device is connected.
    pub connection_state: Option<ConnectionState>,
}

/// The fields of a twin's root that describe identity and connection.
#[derive(Clone, Debug)]
pub(super) struct IdentityState {
    status: Status,
    status_reason: Option<String>,
    status_update_time: Timestamp,
    connection_state: ConnectionState,
    last_activity_time: Timestamp,
    /// Changes with the identity, not with the twin.
    device_etag: i64,
}

impl IdentityState {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            status: Status::default(),
            status_reason: None,
            status_update_time: Timestamp::NEVER,
            connection_state: ConnectionState::default(),
            last_activity_time: Timestamp::NEVER,
            device_etag: device_etag(now),
        }
    }

    pub(super) fn status(&self) -> Status {
        self.status
    }

    /// Records an activity of the device, which is connected from then on.
    pub(super) fn active(&mut self, now: Timestamp) {
        self.connection_state = ConnectionState::Connected;
        self.last_activity_time = now;
    }

    pub(super) fn change(&mut self, change: &IdentityChange, now: Timestamp) {
        if let Some(status) = change.status {
            self.status = status;
            self.status_update_time = now;
        }
        if let Some(reason) = &change.status_reason {
            self.status_reason = Some(reason.clone());
        }
        if change.status.is_some() || change.status_reason.is_some() {
            self.device_etag = device_etag(now);
        }
        if let Some(state) = change.connection_state {
            self.connection_state = state;
            self.last_activity_time = now;
        }
    }

    /// Adds these fields to a twin's root.
    pub(super) fn render(&self, twin: &mut Map<String, Value>) {
        let fields = json!({
            "deviceEtag": STANDARD.encode(self.device_etag.to_string()),
            "status": self.status,
            "statusUpdateTime": self.status_update_time.trimmed(),
            "connectionState": self.connection_state,
            "lastActivityTime": self.last_activity_time.trimmed(),
            "cloudToDeviceMessageCount": 0,
            "authenticationType": "sas",
            "x509Thumbprint": { "primaryThumbprint": null, "secondaryThumbprint": null },
            "modelId": "",
        });
        if let Value::Object(fields) = fields {
            twin.extend(fields);
        }
        if let Some(reason) = &self.status_reason {
            twin.insert("statusReason".to_owned(), Value::from(reason.as_str()));
        }
    }
}

/// A number of at most nine digits, which looks like the service's. It is opaque to clients.
fn device_etag(now: Timestamp) -> i64 {
    now.ticks().rem_euclid(1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(identity_state: &IdentityState) -> Value {
        let mut twin = Map::new();
        identity_state.render(&mut twin);
        Value::Object(twin)
    }

    #[test]
    fn a_disabled_device_shows_when_and_why_and_gets_another_device_etag() {
        let mut identity_state = IdentityState::new(Timestamp::from_ticks(5));
        let before = rendered(&identity_state);
        assert_eq!((&before["status"], &before["statusReason"]), (&json!("enabled"), &Value::Null));
        let change = IdentityChange {
            status: Some(Status::Disabled),
            status_reason: Some("lost".to_owned()),
            connection_state: None,
        };
        identity_state.change(&change, Timestamp::from_ticks(17_700_000_000_000_000));
        let after = rendered(&identity_state);
        assert_eq!((&after["status"], &after["statusReason"]), (&json!("disabled"), &json!("lost")));
        assert_eq!(after["statusUpdateTime"], "2026-02-02T02:40:00Z");
        assert_eq!(after["connectionState"], "Disconnected");
        assert_ne!(after["deviceEtag"], before["deviceEtag"]);
    }

    #[test]
    fn activity_connects_a_device_without_touching_its_identity() {
        let mut identity_state = IdentityState::new(Timestamp::from_ticks(5));
        let before = rendered(&identity_state);
        identity_state.active(Timestamp::from_ticks(17_700_000_000_000_000));
        let after = rendered(&identity_state);
        assert_eq!(
            (&after["connectionState"], &after["deviceEtag"]),
            (&json!("Connected"), &before["deviceEtag"])
        );
        assert_eq!(after["lastActivityTime"], "2026-02-02T02:40:00Z");
    }
}

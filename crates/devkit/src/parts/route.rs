//! Converts the hub's notifications to the broker's events.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    broker::{Broker, Event, Value},
    iothub::{Notification, Route, RouteError},
};

/// Appends notifications to a broker's Event Hubs.
pub(super) struct BrokerRoute(Arc<Broker>);

impl BrokerRoute {
    pub(super) fn new(broker: Arc<Broker>) -> Self {
        Self(broker)
    }
}

impl Route for BrokerRoute {
    fn append(&self, hub: &str, partition_key: &str, notification: &Notification) -> Result<(), RouteError> {
        match self.0.append(hub, partition_key, event(notification)) {
            Ok(_) => Ok(()),
            Err(source) => Err(RouteError { hub: hub.to_owned(), source: Box::new(source) }),
        }
    }
}

fn event(notification: &Notification) -> Event {
    let text = |entries: Vec<(&'static str, String)>| -> BTreeMap<String, Value> {
        entries.into_iter().map(|(name, value)| (name.to_owned(), Value::Text(value))).collect()
    };
    let mut annotations = text(notification.text_annotations());
    annotations.insert("iothub-enqueuedtime".to_owned(), Value::Timestamp(notification.enqueued_time()));
    Event {
        body: notification.body_bytes(),
        application_properties: text(notification.application_properties()),
        annotations,
        content_type: Some("application/json".to_owned()),
        content_encoding: Some("utf-8".to_owned()),
        correlation_id: Some(notification.correlation_id()),
        user_id: Some(notification.user_id()),
    }
}

//! A model of IoT Hub: identities, device and module twins, and the notifications that its routes emit.
//!
//! | module | holds |
//! |---|---|
//! | [`Hub`] | the registry and its twins: plain, deterministic state; each operation returns what it notifies |
//! | [`Notification`] | one lifecycle or twin-change event, with body, application properties and annotations |
//! | [`Routes`] | which Event Hub a notification goes to, with delivery faults that can be switched on |
//! | [`Service`] | a hub with its routes behind one lock, on the wall clock: what the fleet and the control port drive |
//!
//! The model performs no I/O, draws no random numbers and reads no clock of its own ([`Service`] passes the
//! time in), so that a property test can run it in process and a seed reproduces a run byte for byte.
//! It has no authentication, no telemetry, no connection state and no quotas.

mod clock;
mod error;
mod hub;
mod identity;
mod limits;
mod notification;
mod patch;
mod routes;
mod service;
mod twin;

pub use clock::Timestamp;
pub use error::Error;
pub use hub::{DeleteBody, Hub, Operation, Options};
pub use identity::TwinId;
pub use notification::{Change, Notification, Source};
pub use routes::{DeliveryCounts, DeliveryFaults, HubNames, Route, RouteError, Routes};
pub use service::{Applied, Page, Service, ServiceError};

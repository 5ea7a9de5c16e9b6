//! Azure IoT Hub's twins for tests, inside the test's process: identities, device and module twins, the notifications that the hub's routes
//! emit, and the service REST API over HTTP.
//!
//! A [`Service`] is a hub. [`Service::apply`] performs an [`Operation`]. Each resulting [`Notification`] goes to the [`Route`] of the
//! service: an Event Hub, or a test's own implementation. [`api::Server`] serves the same hub to back ends. `examples/twin_changes.rs` is a
//! complete example.
//!
//! | module | contents |
//! |---|---|
//! | [`Hub`] | the registry and its twins: plain, deterministic state; each operation returns its notifications |
//! | [`Notification`] | one lifecycle or twin-change event, with body, application properties and annotations |
//! | [`Routes`] | which Event Hub a notification goes to, with delivery faults that can be injected |
//! | [`Service`] | a hub, its routes and, if switched on, its history, behind one lock and on the system clock; tests and simulated devices use it |
//! | [`api`] | the service REST API over HTTP, with authorization, limits and faults |
//! | [`query`] | the query language of twins, as the API accepts it |
//!
//! [`Hub`] and [`Routes`] perform no I/O and read no clock ([`Service`] passes the time to them). So a property test can run them in its
//! process, and a run with the same seed has the same result byte for byte. There is no telemetry, and no device ever connects: the test
//! sets the fields for status and connection.

pub mod api;
mod clock;
mod error;
mod history;
mod hub;
mod identity;
mod identity_state;
mod limits;
mod notification;
mod patch;
pub mod query;
mod routes;
mod service;
mod twin;

pub use clock::Timestamp;
pub use error::Error;
pub use hub::{DeleteBody, Hub, Operation, Options};
pub use identity::TwinId;
pub use identity_state::{ConnectionState, IdentityChange, Status};
pub use notification::{Change, Notification, Source};
pub use routes::{DeliveryCounts, DeliveryFaults, HubNames, Route, RouteError, Routes, Skew};
pub use service::{Applied, FailoverError, Loss, Page, Reading, Service, ServiceError, USUAL_HISTORY, View};

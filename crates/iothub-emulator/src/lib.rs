//! Azure IoT Hub's twins for tests, in process: identities, device and module twins, the notifications that the hub's routes
//! emit, and the service REST API over HTTP.
//!
//! A [`Service`] is a hub. [`Service::apply`] performs an [`Operation`], and each [`Notification`] of it goes to the [`Route`] that
//! the service was made with: an Event Hub, or whatever a test puts there. [`api::Server`] serves the same hub to back ends.
//! `examples/twin_changes.rs` is the shortest way through all of it.
//!
//! | module | holds |
//! |---|---|
//! | [`Hub`] | the registry and its twins: plain, deterministic state; each operation returns what it notifies |
//! | [`Notification`] | one lifecycle or twin-change event, with body, application properties and annotations |
//! | [`Routes`] | which Event Hub a notification goes to, with delivery faults that can be switched on |
//! | [`Service`] | a hub with its routes and, where it is switched on, its past behind one lock, on the wall clock: what tests and devices drive |
//! | [`api`] | the service REST API over HTTP, with authorization, limits and faults |
//! | [`query`] | the query language of twins, as the API takes it |
//!
//! [`Hub`] and [`Routes`] perform no I/O and read no clock of their own ([`Service`] passes the time in), so that a
//! property test can run them in process and a seed reproduces a run byte for byte.
//! There is no telemetry, and no device ever connects: status and connection are fields that somebody sets.

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

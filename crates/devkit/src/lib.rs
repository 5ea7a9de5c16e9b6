//! A local Azure for twinsync's tests and demo, on real sockets and without Docker or internet.
//!
//! | module | stands in for |
//! |---|---|
//! | [`broker`] | Event Hubs over AMQP 1.0: the crate `eventhubs-emulator` |
//! | [`cosmos`] | Cosmos DB: the SDK's own in-memory emulator over HTTP |
//! | [`azurite`] | Azure Blob Storage: Microsoft's emulator as a child process |
//! | [`iothub`] | IoT Hub: identities, twins, the routes that emit events, and the service API: the crate `iothub-emulator` |
//! | [`fleet`] | devices that register, change and leave |
//! | [`verify`] | compares every document with the hub's twin |
//! | [`control`] | HTTP: drives a running devkit from outside |
//! | [`daemon`], [`metrics`] | an operator: runs the twinsync binary against a stack and reads its metrics |
//! | [`proxy`] | the network in between: half-open, refused and slow connections |
//! | [`token`] | Entra ID: tokens that nobody signed |
//! | [`stack`] | one process that holds all of these |

// A stack hands out handles to both, so whoever has devkit needs no further dependency.
pub use eventhubs_emulator as broker;
pub use iothub_emulator as iothub;

pub mod azurite;
pub mod control;
pub mod cosmos;
pub mod daemon;
pub mod fleet;
pub mod javascript;
pub mod metrics;
pub mod npm;
mod parts;
pub mod proxy;
pub mod stack;
pub mod token;
pub mod verify;

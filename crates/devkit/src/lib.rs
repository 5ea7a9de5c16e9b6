//! A local Azure for twinsync's tests and demo, on real sockets, without Docker or internet.
//!
//! | module | simulates |
//! |---|---|
//! | [`broker`] | Event Hubs over AMQP 1.0: the crate `eventhubs-emulator` |
//! | [`cosmos`] | Cosmos DB: the SDK's own in-memory emulator over HTTP |
//! | [`azurite`] | Azure Blob Storage: Microsoft's emulator as a child process |
//! | [`iothub`] | IoT Hub: identities, twins, the routes that emit events, and the service API: the crate `iothub-emulator` |
//! | [`fleet`] | devices that are registered, changed and deleted |
//! | [`verify`] | compares every document with the hub's twin |
//! | [`control`] | HTTP: controls a running devkit from outside |
//! | [`daemon`], [`metrics`] | an operator: runs the twinsync binary against a stack and reads its metrics |
//! | [`proxy`] | the network: half-open, refused and slow connections |
//! | [`token`] | Entra ID: unsigned tokens |
//! | [`stack`] | one process with all of these |

// A stack returns handles of both crates. With these exports, users of devkit need no further dependency.
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

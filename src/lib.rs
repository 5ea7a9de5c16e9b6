//! twinsync keeps an exact, queryable copy of Azure IoT Hub device twins in Azure Cosmos DB.
//!
//! ```text
//! IoT Hub ─ lifecycle events ──► Event Hub ─► consumer task ─┐
//!         └ twin-change events ► Event Hub ─► consumer task ─┤   decode (pure)
//!                                                            ▼
//!                        event router: one lane per twin, what arrives meanwhile is coalesced
//!                                                            │   decide + merge (pure)
//!                                                            ▼
//!                 read → decide → create / replace with If-Match → Cosmos DB      dead letters
//!                                                            │                        │
//!                        contiguous prefix of completed events ◄──────────────────────┘
//!                                                            ▼
//!                                                    checkpoint per partition
//! ```
//!
//! | module | what lives there |
//! |---|---|
//! | [`domain`] | every decision: decode, order, merge, progress. No I/O, no clock, no randomness |
//! | [`ports`] | the traits that the runtime drives the outside world through |
//! | [`adapters`] | Azure SDK types stop here: Event Hubs, Cosmos DB, IoT Hub, checkpoints, dead letters, credentials |
//! | [`runtime`] | the loops: partitions, lanes, commits, shutdown |
//! | [`config`] | what was written, and what it means |
//! | [`telemetry`] | logs, metrics and health: one struct per operational fact |
//! | [`status`] | what a replica knows about itself, put together when somebody asks |
//! | [`serve`] | IoT Hub's service REST API from the copy, read only |
//! | [`http`] | the status page, `/api/status`, `/livez`, `/readyz`, `/metrics` |
//! | [`listener`] | connections with HTTP/1.1 over them, within bounds; for both of these |
//! | [`cli`] | one module per subcommand |
//! | [`app`] | puts it all together and owns the order of shutdown |
//!
//! Where to begin: [`domain`] has an example of what all of this is about; [`runtime`] shows how events flow; [`ports`] what is asked of
//! the outside world. `ARCHITECTURE.md` walks one event, one repair and one hand-over of a partition through the code by function.
//!
//! Guarantees: an event counts as completed only once it is durable in Cosmos DB, decided as needing no
//! write, or durably dead-lettered; a checkpoint never passes an event that is not completed; nothing is
//! written without a condition; what cannot be decided is flagged in the document, never guessed.

#[cfg(not(feature = "planted-defects"))]
#[macro_use]
mod planted;
#[cfg(feature = "planted-defects")]
#[macro_use]
pub mod planted;

pub mod adapters;
pub mod app;
pub mod cli;
pub mod config;
pub mod domain;
pub mod http;
pub mod listener;
pub mod ports;
pub mod runtime;
pub mod serve;
pub mod status;
pub mod telemetry;

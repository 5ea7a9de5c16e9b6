//! Devices that are registered, changed and deleted: the load of the tests and the demo.
//!
//! | module | contents |
//! |---|---|
//! | [`Plan`] | the numbers of devices, events and phases, and the seed |
//! | [`Fleet`] | the operations of a plan, phase by phase; the same plan gives the same operations |
//! | [`Rounds`] | an even load, in which every device changes once per round: for benchmarks |
//! | [`import`] | devices that existed before the routes |
//! | [`Runner`] | performs the operations on a [`Service`](crate::iothub::Service), as a backlog or at a rate |
//!
//! Lifecycle events and twin changes arrive on two streams without a common order. If an id is re-created faster
//! than the streams' skew, it cannot be decided without the registry to which incarnation an event belongs. So ids
//! are re-created in a later phase than that of their deletion, and the caller waits between phases until the
//! documents equal the twins. [`Plan::recreate_at_once`] is the exception, for tests with a registry.

mod generator;
mod ids;
mod import;
mod plan;
mod rounds;
mod run;
mod values;

pub use generator::Fleet;
pub use import::{Import, ImportError, Imported, import};
pub use plan::{Plan, PlanError};
pub use rounds::Rounds;
pub use run::{Counts, Pace, Progress, RunError, Runner, RunnerError, State};

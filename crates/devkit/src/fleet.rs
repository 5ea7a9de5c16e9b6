//! Devices that register, change and leave: the load of the tests and the demo.
//!
//! | module | holds |
//! |---|---|
//! | [`Plan`] | how many devices and events, from which seed, in how many phases |
//! | [`Fleet`] | the operations of a plan, phase by phase; the same plan gives the same operations |
//! | [`Rounds`] | an even load, where every device has its turn in every round: for benchmarks |
//! | [`import`] | devices that were there before anybody listened |
//! | [`Runner`] | drives a [`Service`](crate::iothub::Service) with them, as a backlog or at a rate |
//!
//! Lifecycle events and twin changes arrive on two streams without mutual order. Without a registry to ask, nobody
//! can decide what belongs to which life of an id that is re-created faster than the streams' skew. So ids are
//! re-created in a later phase than they were deleted in, and the caller lets the mirror catch up between phases.
//! [`Plan::recreate_at_once`] breaks with that, for mirrors that have a registry to ask.

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

//! The registry: repair, backfill, audit and resync against the hub's service API, with everything that may go wrong on
//! the way. Each test ends with no twin different.

mod audit;
mod backfill;
pub(crate) mod bench;
mod faults;
mod repair;
mod share;

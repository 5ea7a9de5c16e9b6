//! The registry: repair, backfill, audit and resync with the hub's service API, and its faults. Each test ends when no
//! twin differs.

mod audit;
mod backfill;
pub(crate) mod bench;
mod faults;
mod repair;
mod share;

//! Logs and metrics.

pub mod event;
pub mod name;

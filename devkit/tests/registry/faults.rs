//! Faults and limits.

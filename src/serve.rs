//! IoT Hub's service REST API from the copy, read only: who may ask, and TLS.
//!
//! | module | holds |
//! |---|---|
//! | [`access`] | shared access signatures and tokens of Entra ID, as the official clients send them |
//! | [`tls`] | certificates from files, which are looked at again |
//!
//! No command serves it yet: `runtime/queries` and this are its parts.

pub mod access;
pub mod tls;

//! What `cargo bench-sync` and the benchmarks of the pure core (`cargo bench -p bench-sync`) share.

pub mod pure;

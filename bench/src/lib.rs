//! The code that `cargo bench-sync`, the benchmarks of the pure core (`cargo bench -p bench-sync`) and `cargo
//! chaos` share.

pub mod pure;
pub mod svg;

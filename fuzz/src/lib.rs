//! The checks that the fuzz targets make on each input. The fuzzer that calls them is not here.
//!
//! Invariant: only `strongroom-decode`, `strongroom-alerts` and `strongroom-generate` are compiled
//! here, with what they depend on. None of them reaches Delta, Parquet, SQL or cryptography, which
//! would add minutes of instrumented build. What reads those is tried by `tests/it/mutants`, with the
//! build that is tested anyway.

pub mod blocks;
pub mod mutate;
pub mod patches;
pub mod random;
/// The checks of whole streams, which the tests of `strongroom-decode` make too.
#[path = "../../decode/tests/streams/mod.rs"]
pub mod streams;

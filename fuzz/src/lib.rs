//! The checks that the fuzz targets make on each input. The fuzzer that calls them is not here.
//!
//! Invariant: only `strongroom-decode`, `strongroom-alerts` and `strongroom-generate` are compiled
//! here, with what they depend on. None of them needs Delta or Parquet, which would add minutes to
//! the instrumented build, for code that no input ever runs.

pub mod blocks;
pub mod mutate;
pub mod random;
/// The checks of whole streams, which the tests of `strongroom-decode` make too.
#[path = "../../decode/tests/streams/mod.rs"]
pub mod streams;

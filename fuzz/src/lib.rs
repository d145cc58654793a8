//! What the fuzz targets check, apart from the fuzzer that calls them.
//!
//! Invariant: only `strongroom-decode` and `strongroom-alerts` are compiled here, with what they
//! depend on. Neither reaches Delta or Parquet, which would add minutes of instrumented build that
//! no input ever runs.

pub mod blocks;
pub mod mutate;

//! Tests that drive the real binary, and the crates together. One module per promise.

mod layers;

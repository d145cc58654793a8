//! Real services, started for a test and ended with it.

pub mod tansu;

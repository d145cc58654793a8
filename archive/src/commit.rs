//! The Delta log.

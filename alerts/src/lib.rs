//! Sigma rules compiled to a matcher over record batches, event-time windows, alerts.

#[cfg(test)]
pub(crate) mod testing;

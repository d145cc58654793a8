//! Random ids, which identify archives and serve as nonces of commits and probes.
//!
//! Invariant: an id comes from the system's random number generator, or the call fails.

use super::error::{Result, StoreError};

/// Returns a random UUID.
///
/// # Errors
/// [`StoreError::Randomness`] when the system cannot supply random bytes.
pub fn random_id() -> Result<String> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| StoreError::Randomness)?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid().to_string())
}

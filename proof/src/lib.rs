//! How a stranger can check an archive: the signed log of each volume, the keys that sign it, and
//! the verification. `docs/proof.md` has the formats.
//!
//! Invariants:
//! 1. Leaf i of a volume's log is the bytes of its commit i. A checkpoint is signed only for a tree
//!    that continues the newest checkpoint in the store, so a log never forks, whichever process
//!    has the key and whenever it dies.
//! 2. Names are written once: key records, tiles, checkpoints. All checkpoints ever signed are
//!    kept.
//! 3. Data needs no proof to be durable: the next process that has the key catches up a log that
//!    lags.

mod anchor;
pub mod error;
pub mod prove;
#[cfg(test)]
mod tests;
pub mod verify;
mod witness;

pub use self::anchor::{
    AnchorError, AnchorResponse, AnchorTransport, Anchored, Anchors, TimestampOptions, WitnessOptions,
};
pub use self::error::ProofError;
pub use self::prove::{
    Proof, Proven, ProvenHead, ProvenRecord, RECORDS_MAX, prove, verify_proof, verify_proof_with,
};
pub use self::witness::{REQUEST_BYTES_MAX, TrustedLog, Witness, WitnessAnswer};

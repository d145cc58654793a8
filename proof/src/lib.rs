//! What a stranger needs to check an archive: the verification of an archive, proofs of single
//! records, and statements of outside witnesses and timestamp authorities. `docs/proof.md` has the
//! formats.
//!
//! Invariants:
//! 1. Nothing that an archive says of itself is believed before it has been recomputed.
//! 2. A proof contains the requested records and their inclusion proofs. Of other records it
//!    contains only hashes.
//! 3. Cosignatures and timestamps follow the signed log, and never delay it.
//!
//! The signed log itself is extended by `strongroom-archive`.

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

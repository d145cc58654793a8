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
mod cosignature;
pub(crate) mod keys;
pub(crate) mod log;
pub(crate) mod note;
pub(crate) mod prove;
mod signer;
mod timestamp;
pub(crate) mod tree;
pub mod verify;
mod witness;

use std::io;
use std::path::PathBuf;

pub use strongroom_schemas::VolumeId;
use strongroom_schemas::record::Sha256Hash;
use thiserror::Error;

pub use self::anchor::{Anchored, Anchors, Courier, Reply, TimestampOptions, Trouble, WitnessOptions};
pub use self::cosignature::WitnessKey;
pub use self::keys::{KeyFault, KeyRecord, Keys};
pub use self::log::CheckpointFault;
pub use self::note::{KeyId, NAME_DEFAULT, PrivateKey, PublicKey};
pub use self::prove::{
    Proof, Proven, ProvenHead, ProvenRecord, RECORDS_MAX, prove, verify_proof, verify_proof_with,
};
pub use self::signer::Signer;
pub use self::timestamp::TimestampAuthorities;
pub use self::witness::{REQUEST_BYTES_MAX, TrustedLog, Witness, WitnessAnswer};
use crate::error::ArchiveError;

/// What can go wrong with keys and proofs. No message contains a private key.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProofError {
    #[error("not an Ed25519 public key: expected a vkey or the base64 of 32 bytes")]
    PublicKey,
    #[error("not a private key of the form PRIVATE+KEY+<name>+<id>+<base64>")]
    PrivateKey,
    #[error("the name of a key must not be empty or contain white space or a plus")]
    KeyName,
    #[error("not the vkey of a witness, of the form <name>+<id>+<base64> with signature type 4")]
    WitnessKey,
    #[error("a quorum of {asked} is impossible with {witnesses} witnesses")]
    Quorum { asked: usize, witnesses: usize },
    #[error("{one} and {other} have the same key, so they are one witness")]
    WitnessTwice { one: String, other: String },
    #[error("not a log of the form <public key>@<origin>")]
    TrustedLog,
    #[error("not a witness of the form <vkey>@<URL>")]
    WitnessAddress,
    #[error("not certificates of timestamp authorities in PEM")]
    Authorities,
    #[error("another process is using the witness state in {}", path.display())]
    WitnessBusy { path: PathBuf },
    #[error("witness state in {} is missing; refusing to cosign", path.display())]
    WitnessForgot { path: PathBuf },
    #[error("witness state exists already in {}", path.display())]
    WitnessBegun { path: PathBuf },
    #[error("the witness state in {} belongs to another key: {of}", path.display())]
    WitnessOther { path: PathBuf, of: String },
    #[error("the system cannot supply random bytes for a key")]
    Randomness,
    #[error("cannot read the key file {}", path.display())]
    ReadKey {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("other users may read or write the key file {}", path.display())]
    KeyOpen { path: PathBuf },
    #[error("the signing program failed: {detail}")]
    SignerCommand { detail: String },
    #[error("the signature was not made by the given public key")]
    SignatureWrong,
    #[error("not the archive's current key, which is {current}")]
    KeyNotCurrent { current: PublicKey },
    #[error("the archive has used the new key before")]
    KeyUsed,
    #[error("the archive has no key yet")]
    NoKey,
    #[error("cannot make a proof: {detail}")]
    NotProvable { detail: String },
    #[error("key record {}: {fault}", path.display())]
    KeyRecord { path: PathBuf, fault: KeyFault },
    #[error("checkpoint {}: {fault}", path.display())]
    Checkpoint { path: PathBuf, fault: CheckpointFault },
    #[error("the commits of {log} do not match the checkpoint signed at size {size}; refusing to sign more")]
    Forked { log: String, size: u64 },
    #[error("{} exists with other content", path.display())]
    Differs { path: PathBuf },
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Archive(#[from] Box<ArchiveError>),
}

impl From<ArchiveError> for ProofError {
    fn from(error: ArchiveError) -> Self {
        ProofError::Archive(Box::new(error))
    }
}

impl ProofError {
    /// What the user can do about it, if anything.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            ProofError::KeyOpen { .. } => {
                Some("run chmod 600 on the file; if others have read it, rotate the key")
            }
            ProofError::KeyNotCurrent { .. } => {
                Some("sign with the current key, or change to this one with strongroom key rotate")
            }
            ProofError::Forked { .. } | ProofError::Differs { .. } => {
                Some("run strongroom verify to find what was changed; keep the archive as it is")
            }
            ProofError::WitnessKey => Some(
                "strongroom key show --witness prints the vkey of a witness; the vkey of a log looks alike, but is another",
            ),
            ProofError::WitnessForgot { .. } => Some(
                "start a witness that has never cosigned with --new; for one that has lost its state, make another key: with the old one it could cosign a second history",
            ),
            ProofError::WitnessBegun { .. } => Some("start it without --new; it continues from its state"),
            ProofError::NoKey => Some("run strongroom sign-log with a key"),
            ProofError::NotProvable { .. } => Some(
                "strongroom sign-log signs what is not signed yet; strongroom verify finds what is wrong",
            ),
            ProofError::Archive(error) => error.hint(),
            _ => None,
        }
    }
}

/// A log at one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub log: VolumeId,
    pub size: u64,
    pub root: Sha256Hash,
}

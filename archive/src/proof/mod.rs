//! What lets a stranger check an archive: the proof log of each volume, the keys that sign it, and the checking.
//! `docs/proof.md` has the formats.
//!
//! Invariants:
//! 1. Leaf i of a volume's log is the bytes of its commit i. A checkpoint is signed only for a tree that continues the
//!    newest checkpoint in the store, so a log never forks, whoever holds the key and whenever it dies.
//! 2. Names are written once: key records, tiles, checkpoints. All checkpoints ever signed are kept.
//! 3. Data needs no proof to be durable: a log that lags is caught up by whoever holds the key next.

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
pub use self::keys::{KeyRecord, Keys};
pub use self::note::{KeyId, NAME_DEFAULT, PrivateKey, PublicKey};
pub use self::prove::{
    Proof, Proven, ProvenHead, ProvenRecord, RECORDS_MAX, prove, verify_proof, verify_proof_with,
};
pub use self::signer::Signer;
pub use self::timestamp::TimestampAuthorities;
pub use self::witness::{REQUEST_BYTES_MAX, TrustedLog, Witness, WitnessAnswer};
use crate::error::ArchiveError;
use crate::store::error::StoreError;

/// What can go wrong with keys and proofs. No message holds a private key.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProofError {
    #[error("this is no Ed25519 public key: neither a vkey nor the base64 of 32 bytes")]
    PublicKey,
    #[error("this is no private key of the form PRIVATE+KEY+<name>+<id>+<base64>")]
    PrivateKey,
    #[error("a key's name is not empty and has neither white space nor a plus")]
    KeyName,
    #[error("this is no vkey of a witness, of the form <name>+<id>+<base64> with signature type 4")]
    WitnessKey,
    #[error("a quorum of {asked} is asked for, of {witnesses} witnesses")]
    Quorum { asked: usize, witnesses: usize },
    #[error("{one} and {other} have the same key: they are one witness")]
    WitnessTwice { one: String, other: String },
    #[error("this is no log of the form <public key>@<origin>")]
    TrustedLog,
    #[error("this is no witness of the form <vkey>@<URL>")]
    WitnessAddress,
    #[error("these are no certificates of authorities in PEM")]
    Authorities,
    #[error("another process has the state of the witness in {}", path.display())]
    WitnessBusy { path: PathBuf },
    #[error("nothing is known in {} of what the witness has cosigned", path.display())]
    WitnessForgot { path: PathBuf },
    #[error("a witness has begun in {} already", path.display())]
    WitnessBegun { path: PathBuf },
    #[error("the state of the witness in {} is of another key: {of}", path.display())]
    WitnessOther { path: PathBuf, of: String },
    #[error("the system has no randomness to make a key of")]
    Randomness,
    #[error("cannot read the key file {}", path.display())]
    ReadKey {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("everybody may read or write the key file {}", path.display())]
    KeyOpen { path: PathBuf },
    #[error("the signing program has not signed: {detail}")]
    SignerCommand { detail: String },
    #[error("the signature is not one of the public key that was named")]
    SignatureWrong,
    #[error("the key is not the archive's: its current key is {current}")]
    KeyNotCurrent { current: PublicKey },
    #[error("the new key was the archive's before")]
    KeyUsed,
    #[error("the archive has no key yet")]
    NoKey,
    #[error("there is no proof: {detail}")]
    NotProvable { detail: String },
    #[error("key record {}: {detail}", path.display())]
    KeyRecord { path: PathBuf, detail: String },
    #[error("checkpoint {}: {detail}", path.display())]
    Checkpoint { path: PathBuf, detail: String },
    #[error(
        "the commits of {log} do not lead to what was signed of them at size {size}: nothing more is signed"
    )]
    Forked { log: String, size: u64 },
    #[error("{} is there with other content", path.display())]
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
    Store(#[from] StoreError),
    #[error(transparent)]
    Archive(#[from] Box<ArchiveError>),
}

impl From<ArchiveError> for ProofError {
    fn from(error: ArchiveError) -> Self {
        ProofError::Archive(Box::new(error))
    }
}

impl ProofError {
    /// What the user can do about it, when there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            ProofError::KeyOpen { .. } => Some("chmod 600 the file; if others have read it, rotate the key"),
            ProofError::KeyNotCurrent { .. } => {
                Some("sign with the current key, or go over to this one with strongroom key rotate")
            }
            ProofError::Forked { .. } | ProofError::Differs { .. } => {
                Some("strongroom verify says what was changed; keep the archive as it is")
            }
            ProofError::WitnessKey => Some(
                "strongroom key show --witness prints the vkey of a witness; that of a log begins as it does, and is another",
            ),
            ProofError::WitnessForgot { .. } => Some(
                "a witness that nobody has asked yet begins with --new; for one that has lost its state make another key, for with this one it could cosign a second history",
            ),
            ProofError::WitnessBegun { .. } => {
                Some("start it without --new: it goes on with what it has seen")
            }
            ProofError::NoKey => Some("strongroom seal-log with a key gives it one"),
            ProofError::NotProvable { .. } => {
                Some("strongroom seal-log signs what is not signed yet, strongroom verify says what is wrong")
            }
            ProofError::Store(error) => error.hint(),
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

//! What can go wrong with keys, signatures and timestamps. No message contains a private key.
//!
//! Invariant: these errors do not say where a key or a note was stored. The caller that read it
//! from a store adds that.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// A key, a signature or a certificate that cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlogError {
    #[error("not an Ed25519 public key: expected a vkey or the base64 of 32 bytes")]
    PublicKey,
    #[error("not a private key of the form PRIVATE+KEY+<name>+<id>+<base64>")]
    PrivateKey,
    #[error("the name of a key must not be empty or contain white space or a plus")]
    KeyName,
    #[error("not the vkey of a witness, of the form <name>+<id>+<base64> with signature type 4")]
    WitnessKey,
    #[error("not certificates of timestamp authorities in PEM")]
    Authorities,
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
}

impl TlogError {
    /// Returns what the user can do about it, if anything.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            TlogError::KeyOpen { .. } => {
                Some("run chmod 600 on the file; if others have read it, rotate the key")
            }
            TlogError::WitnessKey => Some(
                "strongroom key show --witness prints the vkey of a witness; the vkey of a log looks similar, but is not one",
            ),
            _ => None,
        }
    }
}

//! What can go wrong with keys, signatures and timestamps. No message holds a private key.
//!
//! Invariant: nothing here knows a store; whoever reads a key or a note from one adds the place.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// A key, a signature or a certificate that cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlogError {
    #[error("this is no Ed25519 public key: neither a vkey nor the base64 of 32 bytes")]
    PublicKey,
    #[error("this is no private key of the form PRIVATE+KEY+<name>+<id>+<base64>")]
    PrivateKey,
    #[error("a key's name is not empty and has neither white space nor a plus")]
    KeyName,
    #[error("this is no vkey of a witness, of the form <name>+<id>+<base64> with signature type 4")]
    WitnessKey,
    #[error("these are no certificates of authorities in PEM")]
    Authorities,
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
}

impl TlogError {
    /// What the user can do about it, when there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            TlogError::KeyOpen { .. } => Some("chmod 600 the file; if others have read it, rotate the key"),
            TlogError::WitnessKey => Some(
                "strongroom key show --witness prints the vkey of a witness; that of a log begins as it does, and is another",
            ),
            _ => None,
        }
    }
}

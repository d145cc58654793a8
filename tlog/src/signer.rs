//! Signs with a key in memory, or through a program that has the key.
//!
//! Invariant: every signature returned has been checked with the public key, so no wrong signature
//! is ever stored.

use std::path::Path;

use strongroom_schemas::error_chain;

use super::error::TlogError;
use super::note::{Note, PrivateKey, PublicKey, from_base64, signature_line};

/// Signs checkpoints and key records.
#[derive(Debug)]
pub enum Signer {
    Key(PrivateKey),
    /// A program and its arguments. It reads the text to sign from standard input and prints the
    /// base64 of the signature's 64 bytes.
    Command {
        command: Vec<String>,
        public: PublicKey,
    },
}

impl Signer {
    /// Reads a key file. On Unix, a file is refused if users outside its owner and group have any
    /// permission for it.
    ///
    /// # Errors
    /// [`TlogError::ReadKey`], [`TlogError::KeyOpen`] and [`TlogError::PrivateKey`].
    pub fn from_file(path: &Path) -> Result<Signer, TlogError> {
        let failed = |source| TlogError::ReadKey { path: path.to_owned(), source };
        let metadata = std::fs::metadata(path).map_err(failed)?;
        // Opening a pipe would block until another process writes to it.
        if !metadata.is_file() {
            return Err(failed(std::io::Error::other("it is not a regular file")));
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            if metadata.permissions().mode() & 0o007 != 0 {
                return Err(TlogError::KeyOpen { path: path.to_owned() });
            }
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        PrivateKey::parse(&text).map(Signer::Key)
    }

    /// Returns the public key that signatures are checked with.
    pub fn public(&self) -> PublicKey {
        match self {
            Signer::Key(key) => key.public(),
            Signer::Command { public, .. } => *public,
        }
    }

    /// Signs `text` as `name` and returns the signature line for the note. Blocks.
    pub fn sign(&self, name: &str, text: &str) -> Result<String, TlogError> {
        let signature = match self {
            Signer::Key(key) => key.sign(text.as_bytes()),
            Signer::Command { command, .. } => ask(command, text.as_bytes())?,
        };
        let line = signature_line(name, &self.public(), &signature);
        let note = format!("{text}\n{line}");
        let holds = Note::parse(note.as_bytes()).is_some_and(|note| note.is_signed(name, &self.public()));
        if holds { Ok(line) } else { Err(TlogError::SignatureWrong) }
    }
}

fn ask(command: &[String], text: &[u8]) -> Result<[u8; 64], TlogError> {
    let program = command.first().map_or("", String::as_str);
    let failed = |detail: &str| TlogError::SignerCommand { detail: format!("{program}: {detail}") };
    let answer = strongroom_program::ask(command, text).map_err(|error| failed(&error_chain(&error)))?;
    std::str::from_utf8(&answer)
        .ok()
        .and_then(|answer| from_base64(answer.trim()))
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| failed("it did not print the base64 of 64 bytes"))
}

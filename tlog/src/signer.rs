//! Signing with a key in memory, or with a program that has the key.
//!
//! Invariant: every signature returned has been checked with the public key, so no wrong signature
//! is ever stored.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::error::TlogError;
use super::note::{Note, PrivateKey, PublicKey, from_base64, signature_line};

/// Time limit for a signing program.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
const COMMAND_POLL: Duration = Duration::from_millis(5);
/// Maximum number of bytes that are read of a signing program's answer.
const ANSWER_BYTES_MAX: u64 = 4096;

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
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode();
            if mode & 0o007 != 0 {
                return Err(TlogError::KeyOpen { path: path.to_owned() });
            }
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        PrivateKey::parse(&text).map(Signer::Key)
    }

    /// The public key that signatures are checked with.
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
    let failed = |detail: String| TlogError::SignerCommand { detail };
    let (program, arguments) =
        command.split_first().ok_or_else(|| failed("no program is given".to_owned()))?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| failed(format!("{program}: {error}")))?;
    // The text is smaller than a pipe's buffer, so this does not wait for the program. An error is
    // ignored here: a program that did not read the text cannot answer with a valid signature.
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(text);
    }
    let begun = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if begun.elapsed() < COMMAND_TIMEOUT => std::thread::sleep(COMMAND_POLL),
            outcome => {
                let _ = child.kill();
                let _ = child.wait();
                let detail = match outcome {
                    Err(error) => format!("{program}: {error}"),
                    Ok(_) => format!("{program} did not answer within {} s", COMMAND_TIMEOUT.as_secs()),
                };
                return Err(failed(detail));
            }
        }
    };
    if !status.success() {
        return Err(failed(format!("{program} failed with {status}")));
    }
    let mut answer = String::new();
    if let Some(stdout) = child.stdout.take() {
        stdout
            .take(ANSWER_BYTES_MAX)
            .read_to_string(&mut answer)
            .map_err(|error| failed(format!("{program}: {error}")))?;
    }
    from_base64(answer.trim())
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| failed(format!("{program} did not print the base64 of 64 bytes")))
}

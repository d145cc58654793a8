//! `strongroom key`, which makes, shows and changes the key that signs proof logs, and `strongroom
//! sign-log`. All other commands find the key through [`KeyArgs`].
//!
//! Invariant: a private key is written only to the requested file, and never printed.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use strongroom_archive::{Archive, LogError};
use strongroom_tlog::{Keys, NAME_DEFAULT, PrivateKey, PublicKey, Signer, WitnessKey};

use crate::anchor::{self, WitnessArgs};
use crate::exit::{self, CliError, archive_error, proof_error};
use crate::term;

/// Variable with the private key as text, for platforms that cannot hand over a file.
const KEY_VARIABLE: &str = "STRONGROOM_KEY";

/// Arguments that choose the signer.
#[derive(clap::Args, Clone)]
pub struct KeyArgs {
    /// Sign with the key in FILE (made by `strongroom key new`)
    #[arg(long, env = "STRONGROOM_KEY_FILE", value_name = "FILE")]
    key: Option<PathBuf>,
    /// Sign with a program: it reads the text to sign and prints the signature's 64 bytes in base64
    #[arg(long, env = "STRONGROOM_SIGNER", value_name = "COMMAND", conflicts_with = "key")]
    signer: Option<String>,
    /// The public key of that program
    #[arg(long, env = "STRONGROOM_SIGNER_PUBLIC_KEY", value_name = "KEY", requires = "signer", value_parser = public_key)]
    signer_public_key: Option<PublicKey>,
}

pub fn public_key(text: &str) -> Result<PublicKey, String> {
    PublicKey::parse(text).map_err(|error| error.to_string())
}

impl KeyArgs {
    /// Returns the signer named by the command line or the environment, if any.
    pub fn signer(&self) -> Result<Option<Arc<Signer>>, CliError> {
        let text = std::env::var(KEY_VARIABLE).ok().filter(|text| !text.is_empty());
        let signer = match (&self.key, &self.signer, text) {
            (Some(path), ..) => Signer::from_file(path).map_err(proof_error)?,
            (None, Some(command), _) => {
                let public = self.signer_public_key.ok_or_else(|| {
                    CliError::input(anyhow::anyhow!("a signing program needs --signer-public-key"))
                })?;
                let command = command.split_whitespace().map(str::to_owned).collect();
                Signer::Command { command, public }
            }
            (None, None, Some(text)) => {
                let key = PrivateKey::parse(&text);
                Signer::Key(key.map_err(|error| {
                    CliError::input(anyhow::Error::new(error).context(format!("{KEY_VARIABLE} is set")))
                })?)
            }
            (None, None, None) => return Ok(None),
        };
        Ok(Some(Arc::new(signer)))
    }

    fn required(&self) -> Result<Arc<Signer>, CliError> {
        self.signer()?.ok_or_else(|| {
            CliError::input(anyhow::anyhow!("no key was given")).with_hint(
                "name one with --key FILE, STRONGROOM_KEY_FILE, STRONGROOM_KEY or --signer COMMAND",
            )
        })
    }
}

/// Make, show and change the key that signs the proof log.
///
/// An auditor needs the public key: keep a copy away from the archive.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make a key, write it to FILE (readable by its owner only) and print the public key
    New {
        /// Where to write it; an existing file is never replaced
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// A name for people to read, such as example.com/audit
        #[arg(long, default_value = NAME_DEFAULT)]
        name: String,
    },
    /// Print the public key of a private key, or all public keys that an archive has had
    Show {
        #[command(flatten)]
        key: KeyArgs,
        /// The archive: a folder, a file:// or an s3:// URL
        #[arg(long, value_name = "LOCATION")]
        archive: Option<String>,
        /// Print the vkey of a witness that has this private key, not the one of a log
        #[arg(long, conflicts_with = "archive")]
        witness: bool,
    },
    /// Give the archive another key; the current key signs the change, and earlier proofs stay
    /// valid
    Rotate {
        #[command(flatten)]
        key: KeyArgs,
        /// File of the new key
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// The archive: a folder, a file:// or an s3:// URL
        #[arg(long, env = "STRONGROOM_ARCHIVE", value_name = "LOCATION")]
        archive: String,
    },
}

/// Sign the proof log up to the last commit, with the given key.
///
/// `ingest` and `run` do this themselves when they have the key. If they must not have the key, run
/// this command on the machine that has it, as often as you need fresh proofs. An archive without a
/// key adopts this one. With witnesses, the exit code is 1 when one of them has not cosigned; the
/// next call asks that witness again.
#[derive(clap::Args)]
pub struct SignLogArgs {
    #[command(flatten)]
    key: KeyArgs,
    /// The archive: a folder, a file:// or an s3:// URL
    #[arg(long, env = "STRONGROOM_ARCHIVE", value_name = "LOCATION")]
    archive: String,
    #[command(flatten)]
    witnesses: WitnessArgs,
}

pub fn run(args: Args) -> Result<u8, CliError> {
    let mut out = term::stdout().lock();
    match args.command {
        Command::New { file, name } => {
            let key = PrivateKey::generate(&name).map_err(proof_error)?;
            write_key(&file, &key).with_context(|| format!("cannot write {}", file.display()))?;
            writeln!(out, "{}", key.public().vkey(key.name()))?;
        }
        Command::Show { key, archive: None, witness: true } => {
            let signer = key.required()?;
            let Signer::Key(key) = &*signer else {
                return Err(CliError::input(anyhow::anyhow!(
                    "a witness signs with its own key, not with a program"
                )));
            };
            writeln!(out, "{}", WitnessKey::of(key))?;
        }
        Command::Show { key, archive: None, witness: false } => {
            let signer = key.required()?;
            let name = match &*signer {
                Signer::Key(key) => key.name().to_owned(),
                Signer::Command { .. } => NAME_DEFAULT.to_owned(),
            };
            writeln!(out, "{}", signer.public().vkey(&name))?;
        }
        Command::Show { key: _, archive: Some(location), witness: _ } => {
            let archive = open(&location)?;
            let keys = archive.keys().map_err(proof_error)?;
            if keys.records.is_empty() {
                return Err(proof_error(LogError::NoKey));
            }
            print_keys(&mut out, &keys)?;
        }
        Command::Rotate { key, to, archive } => {
            let archive = open(&archive)?.signed_by(key.required()?);
            let new = Arc::new(Signer::from_file(&to).map_err(proof_error)?);
            let keys = archive.rotate_key(new).map_err(proof_error)?;
            print_keys(&mut out, &keys)?;
        }
    }
    Ok(exit::OK)
}

pub fn sign_log(args: SignLogArgs) -> Result<u8, CliError> {
    let anchors = args.witnesses.anchors()?;
    let archive = open(&args.archive)?.signed_by(args.key.required()?);
    let heads = archive.sign_logs().map_err(proof_error)?;
    let mut out = term::stdout().lock();
    for head in heads {
        writeln!(out, "{} {} {}", head.log.name(), head.size, head.root)?;
    }
    let is_anchored = anchors.is_empty() || anchor::once(&anchors, &archive)?;
    Ok(if is_anchored { exit::OK } else { exit::FINDING })
}

fn print_keys(out: &mut impl std::io::Write, keys: &Keys) -> std::io::Result<()> {
    for (at, record) in keys.records.iter().enumerate() {
        let state = if at + 1 == keys.records.len() { "current" } else { "retired" };
        writeln!(
            out,
            "{}\t{}\tsince {}\t{state}",
            record.number,
            record.key.vkey(NAME_DEFAULT),
            record.time
        )?;
    }
    Ok(())
}

fn write_key(path: &Path, key: &PrivateKey) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(key.to_text().as_bytes())?;
    file.sync_all()
}

pub fn open(location: &str) -> Result<Archive, CliError> {
    Archive::open(location).map_err(archive_error)
}

//! Keys of a policy: how they are loaded, and the keys that are derived from them.
//!
//! A key is 32 random bytes. Only derived keys are ever used: one for tokens, and one for
//! encryption. If a key is lost, tokens can no longer be matched with values, and encrypted rejects
//! cannot be decrypted. The rest of the archive stays readable.
//!
//! Invariant: no error and no debug text contains a key, even if somebody wrote the key itself
//! where its source should be named. A file that other users may read is refused. So is anything
//! that is not a regular file: to read from a pipe might block for ever, or never end.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use aws_lc_rs::{digest, hmac};
use strongroom_schemas::{Secret, error_chain};
use thiserror::Error;

/// Length of a key, in bytes.
pub const KEY_BYTES: usize = 32;
/// Maximum number of keys in a policy, the current one included.
pub const KEYS_MAX: usize = 64;
/// Maximum number of bytes that are read from the file of a key.
const TEXT_BYTES_MAX: u64 = 4096;

/// The bytes that every token begins with.
pub(crate) const TOKEN_PREFIX: &str = "rt1:";

const ID_DOMAIN: &[u8] = b"strongroom redaction key id 1\n";
const TOKEN_DOMAIN: &[u8] = b"strongroom redaction tokens 1\n";
const ENCRYPTION_DOMAIN: &[u8] = b"strongroom redaction encryption 1\n";

/// Why a key cannot be loaded or used.
#[derive(Debug, Error)]
pub enum KeyError {
    #[error("a key is file:PATH, env:NAME or command:PROGRAM ARGUMENTS")]
    Source,
    #[error(
        "the text is a key itself; write file:PATH, env:NAME or command:PROGRAM ARGUMENTS, and make a new key"
    )]
    Written,
    #[error("read the key {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the key {} is not a regular file", path.display())]
    Irregular { path: PathBuf },
    #[error("the key {} may be read by others; set its mode to 0600", path.display())]
    Open { path: PathBuf },
    #[error("the environment has no variable {name}")]
    Variable { name: String },
    #[error("the program {program} returned no key: {detail}")]
    Program { program: String, detail: String },
    #[error("{place} is not a key of 64 hex digits")]
    Format { place: String },
    #[error("the system has no random numbers")]
    Randomness,
    #[error("two keys have the id {id}")]
    SameId { id: KeyId },
}

/// Where a key is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// `file:PATH`: a file of 64 hex digits that only its owner may read.
    File(PathBuf),
    /// `env:NAME`.
    Environment(String),
    /// `command:PROGRAM ARGUMENTS`, separated by spaces: a program that prints 64 hex digits.
    Command(Vec<String>),
}

impl KeySource {
    /// Parses the text of a source.
    ///
    /// # Errors
    /// [`KeyError::Source`].
    pub fn parse(text: &str) -> Result<KeySource, KeyError> {
        let (kind, rest) = text.split_once(':').ok_or(KeyError::Source)?;
        let rest = rest.trim();
        if rest.is_empty() {
            return Err(KeyError::Source);
        }
        // A key in the place of its source is refused here, because later errors repeat the name of
        // the file, the variable or the program.
        if rest.len() == 2 * KEY_BYTES && rest.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(KeyError::Written);
        }
        match kind {
            "file" => Ok(KeySource::File(PathBuf::from(rest))),
            "env" => Ok(KeySource::Environment(rest.to_owned())),
            "command" => Ok(KeySource::Command(rest.split_ascii_whitespace().map(str::to_owned).collect())),
            _ => Err(KeyError::Source),
        }
    }

    /// Reads the key. Blocks while a program runs.
    ///
    /// # Errors
    /// [`KeyError`] if the key cannot be read, if other users may read it, or if the text is not a
    /// key.
    pub fn load(&self) -> Result<Key, KeyError> {
        let text = match self {
            KeySource::File(path) => read_file(path)?,
            KeySource::Environment(name) => {
                std::env::var(name).map(Secret::new).map_err(|_| KeyError::Variable { name: name.clone() })?
            }
            KeySource::Command(command) => ask(command)?,
        };
        Key::parse(text.expose()).map_err(|_| KeyError::Format { place: self.to_string() })
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeySource::File(path) => write!(f, "file:{}", path.display()),
            KeySource::Environment(name) => write!(f, "env:{name}"),
            // Only the program is shown, because its arguments may be secret.
            KeySource::Command(command) => {
                write!(f, "command:{}", command.first().map_or("", String::as_str))
            }
        }
    }
}

fn read_file(path: &Path) -> Result<Secret, KeyError> {
    let failed = |source| KeyError::Read { path: path.to_owned(), source };
    let irregular = || KeyError::Irregular { path: path.to_owned() };
    // This is checked before opening, because opening a pipe would block until it has a writer.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(irregular());
    }
    let file = std::fs::File::open(path).map_err(failed)?;
    // The opened file is checked again, because the name may lead to another file by now.
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(irregular());
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(KeyError::Open { path: path.to_owned() });
        }
    }
    let mut text = String::new();
    file.take(TEXT_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    Ok(Secret::new(text))
}

/// Runs a program and returns the first line of its output.
fn ask(command: &[String]) -> Result<Secret, KeyError> {
    let program = command.first().ok_or(KeyError::Source)?;
    let failed = |detail: String| KeyError::Program { program: program.clone(), detail };
    let answer = strongroom_program::ask(command, b"").map_err(|error| failed(error_chain(&error)))?;
    let line = answer.trim_ascii_start().split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8(line.to_vec()).map_err(|_| failed("its answer is not text".to_owned()))?;
    Ok(Secret::new(line))
}

/// The first 4 bytes of a hash of a key; tokens contain them as 8 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub(crate) [u8; 4]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for KeyId {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<KeyId, KeyError> {
        hex(text).map(KeyId).ok_or_else(|| KeyError::Format { place: "the id".to_owned() })
    }
}

/// Decodes lower-case hex digits.
pub(crate) fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let text = text.as_bytes();
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// A key. Its debug text contains only its id.
#[derive(Clone)]
pub struct Key {
    id: KeyId,
    /// The bytes that every token of this key begins with.
    pub(crate) head: String,
    bytes: [u8; KEY_BYTES],
    pub(crate) tokens: hmac::Key,
    pub(crate) encryption: hmac::Key,
}

impl Key {
    /// Makes a new random key.
    ///
    /// # Errors
    /// [`KeyError::Randomness`].
    pub fn generate() -> Result<Key, KeyError> {
        let mut bytes = [0; KEY_BYTES];
        SystemRandom::new().fill(&mut bytes).map_err(|_| KeyError::Randomness)?;
        Ok(Key::new(bytes))
    }

    /// Parses 64 lower-case hex digits, with or without white space around them.
    ///
    /// # Errors
    /// [`KeyError::Format`].
    pub fn parse(text: &str) -> Result<Key, KeyError> {
        hex(text.trim()).map(Key::new).ok_or_else(|| KeyError::Format { place: "the text".to_owned() })
    }

    /// Returns the text of a key file: 64 hex digits and a newline. Write it only to a new key
    /// file.
    pub fn to_text(&self) -> Secret {
        let mut text: String = self.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        text.push('\n');
        Secret::new(text)
    }

    pub fn id(&self) -> KeyId {
        self.id
    }

    fn new(bytes: [u8; KEY_BYTES]) -> Key {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(ID_DOMAIN);
        hash.update(&bytes);
        let hash = hash.finish();
        let mut id = [0; 4];
        id.copy_from_slice(&hash.as_ref()[..4]);
        let main = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        let derived = |domain| hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&main, domain).as_ref());
        let head = format!("{TOKEN_PREFIX}{}:", KeyId(id));
        Key {
            id: KeyId(id),
            head,
            bytes,
            tokens: derived(TOKEN_DOMAIN),
            encryption: derived(ENCRYPTION_DOMAIN),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

/// The current key, and old keys, which only decrypt texts and recognise tokens.
#[derive(Clone, Debug)]
pub struct Keys {
    /// All keys, the current one first.
    keys: Vec<Key>,
    current: Key,
}

impl Keys {
    /// # Errors
    /// [`KeyError::SameId`] if two keys have the same id, for example because a key was given
    /// twice.
    pub fn new(current: Key, old: Vec<Key>) -> Result<Keys, KeyError> {
        let mut keys = vec![current.clone()];
        for key in old {
            if keys.iter().any(|known| known.id == key.id) {
                return Err(KeyError::SameId { id: key.id });
            }
            keys.push(key);
        }
        Ok(Keys { keys, current })
    }

    pub fn current(&self) -> &Key {
        &self.current
    }

    pub fn find(&self, id: KeyId) -> Option<&Key> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// Returns the ids of all keys, the current key's first.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> + '_ {
        self.keys.iter().map(Key::id)
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    const TEXT: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    #[test]
    fn a_key_is_what_its_text_says() {
        let key = Key::parse(&format!(" {TEXT}\n")).expect("a key");
        assert_eq!(key.to_text().expose(), format!("{TEXT}\n"));
        assert_eq!(key.id().to_string().parse::<KeyId>().expect("an id"), key.id());
        assert_eq!(format!("{key:?}"), format!("Key({})", key.id()));
        for text in ["", &TEXT[1..], &TEXT.to_uppercase(), &format!("{TEXT}00"), &TEXT.replace('0', "g")] {
            assert!(Key::parse(text).is_err(), "{text}");
        }
        assert_ne!(Key::generate().expect("a key").id(), Key::generate().expect("a key").id());
    }

    #[test]
    fn keys_come_from_a_file_a_variable_or_a_program() {
        use std::fs::Permissions;
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        std::fs::write(&path, TEXT).expect("written");
        let source = KeySource::parse(&format!("file:{}", path.display())).expect("a source");
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("a mode");
        assert!(matches!(source.load(), Err(KeyError::Open { .. })));
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("a mode");
        assert_eq!(source.load().expect("a key").id(), Key::parse(TEXT).expect("a key").id());
        // A pipe without a writer, a link to that pipe, a folder, and a device that never ends.
        let (pipe, link) = (folder.path().join("pipe"), folder.path().join("link"));
        let made = std::process::Command::new("mkfifo").args(["-m", "600"]).arg(&pipe).status();
        assert!(made.expect("mkfifo").success());
        std::os::unix::fs::symlink(&pipe, &link).expect("a link");
        for path in [&pipe, &link, &folder.path().to_owned(), &PathBuf::from("/dev/zero")] {
            let source = KeySource::File(path.clone());
            assert!(matches!(source.load(), Err(KeyError::Irregular { .. })), "{}", path.display());
        }

        let load = |text: &str| KeySource::parse(text).expect("a source").load();
        assert_eq!(load(&format!("command:echo {TEXT}")).expect("a key").to_text().expose().trim(), TEXT);
        for (text, part) in [
            ("command:false", "exit status"),
            ("command:/nonexistent a b", "No such file"),
            ("command:echo hunter2", "64 hex digits"),
            ("env:STRONGROOM_NO_SUCH_VARIABLE", "has no variable"),
            ("file:/nonexistent", "read the key"),
        ] {
            let error = load(text).expect_err(text);
            assert!(error.to_string().contains(part), "{error}");
            let chain = format!("{error} {error:?} {:?}", error.source());
            assert!(!chain.contains("hunter2"), "{chain}");
        }
        for text in ["", "file", "file:", "env: ", "vault:x", "/etc/key"] {
            assert!(KeySource::parse(text).is_err(), "{text}");
        }
        // If a key is written in the place of its source, the error does not repeat it.
        for kind in ["file:", "env:", "env: ", "command:", ""] {
            let error = KeySource::parse(&format!("{kind}{TEXT}")).expect_err(kind);
            assert!(!format!("{error} {error:?}").contains(&TEXT[..8]), "{error}");
        }
    }

    #[test]
    fn no_two_keys_have_one_id() {
        let key = Key::parse(TEXT).expect("a key");
        let other = Key::generate().expect("a key");
        let keys = Keys::new(key.clone(), vec![other.clone()]).expect("keys");
        assert_eq!(keys.ids().collect::<Vec<_>>(), [key.id(), other.id()]);
        assert!(keys.find(other.id()).is_some());
        assert!(Keys::new(key.clone(), vec![other, key]).is_err());
    }
}

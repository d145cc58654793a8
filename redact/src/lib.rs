//! Decides what an event may say before it is written, and changes it.
//!
//! A [`Policy`] names paths and shapes of values. A [`Redactor`] has a policy and its [`Keys`]: it
//! edits the bytes of an event, so that everything that the policy does not name stays byte for byte
//! as it was, and returns the mark that the row has to carry. `docs/redaction.md` is the reference
//! of the policy and the threat model.
//!
//! Invariants of this crate:
//! - A value that the policy names is in no byte of an edited event. What the editor does not
//!   understand is dropped whole or refused ([`Unreadable`]), never passed.
//! - No error, label or debug text of this crate repeats a value or a key.
//! - Only [`keys`] does IO: it reads a file, a variable or the answer of a program, once.

mod cipher;
mod detect;
mod echo;
mod edit;
mod graph;
mod implied;
mod json;
pub mod keys;
mod path;
mod pointers;
mod policy;
mod presets;
mod redactor;
mod settings;
mod target;
mod token;

pub use cipher::{CipherError, ENCRYPTED_MAGIC, ENCRYPTED_OVERHEAD, is_encrypted, key_id_of};
pub use detect::DETECTORS;
pub use echo::is_plain_authorization;
pub use edit::Edited;
pub use graph::Action;
pub use keys::{Key, KeyError, KeyId, KeySource, Keys};
pub use path::{PathError, Root, Roots};
pub use policy::{Policy, PolicyError};
pub use presets::PRESETS;
pub use redactor::{
    Applicable, Counts, EditedBodies, Envelope, Redacted, RedactedBodies, Redactor, Unreadable,
};
pub use settings::{RuleSettings, Settings};
pub use target::{Form, Target};
pub use token::{TOKEN_BYTES, Token, TokenError};

/// The context with which a reject is encrypted.
pub const CONTEXT_REJECT: &[u8] = b"reject";
/// The context with which a record of the write-ahead log is encrypted.
pub const CONTEXT_WAL: &[u8] = b"wal";

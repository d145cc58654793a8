//! Replaces values in events before the events are written, as a policy demands.
//!
//! A [`Policy`] names paths, and shapes of values. A [`Redactor`] applies a policy with its
//! [`Keys`]: it edits the bytes of an event and returns the mark for the event's row. Every byte
//! outside the replaced values stays as it was. `docs/redaction.md` is the reference of the policy
//! and of the threat model.
//!
//! Invariants of this crate:
//! - No byte of an edited event is part of a value that the policy names. Text that the editor does
//!   not understand is dropped whole, or the event is refused ([`Unreadable`]); such text is never
//!   kept.
//! - No error, label or debug text of this crate repeats a value or a key.
//! - Only [`keys`] does IO: it reads a file, an environment variable or the output of a program,
//!   once for each key.

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

/// The context for the encryption of a reject, see [`Redactor::encrypt`].
pub const CONTEXT_REJECT: &[u8] = b"reject";
/// The context for the encryption of a record of the write-ahead log.
pub const CONTEXT_WAL: &[u8] = b"wal";

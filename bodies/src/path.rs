//! Paths below JSON values, as rules write them.
//!
//! Invariant: every text is a path. [`crate::walk`] finds the values that a path leads to. No
//! state.

/// A path below a JSON value. Its parts are keys. A key with dots is found by joining parts
/// (`metadata.labels.app.kubernetes.io/name`), or may be written with escaped dots
/// (`app\.kubernetes\.io/name`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Path(pub Vec<String>);

impl Path {
    pub fn parse(text: &str) -> Path {
        let mut parts = Vec::new();
        let mut part = String::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\\' if chars.peek() == Some(&'.') => part.extend(chars.next()),
                '.' => parts.push(std::mem::take(&mut part)),
                _ => part.push(c),
            }
        }
        parts.push(part);
        parts.retain(|part| !part.is_empty());
        Path(parts)
    }
}

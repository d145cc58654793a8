//! The path of the member that holds the event, for objects in which no wrapper is recognised.
//!
//! A source may have such a path in its configuration. If an event was found by a path, the `shape`
//! of its row contains the path, so that a verifier needs no configuration. Invariants:
//! - Each path has exactly one spelling, so the shape of a row is the path as it was configured.
//! - No path begins at a body of an audit event. An object with such a body is an incomplete event,
//!   and a client chose what is in the body.

use std::fmt;

use thiserror::Error;

/// The beginning of the `shape` of a row whose event was found by a path.
pub const SHAPE_UNWRAP: &str = "unwrap:";
/// Maximum number of names in a path.
pub const PATH_NAMES_MAX: usize = 8;
/// Longest path, in bytes as it is configured.
pub const PATH_BYTES_MAX: usize = 256;
/// Members of an audit event that hold what a client chooses.
const BODIES: [&str; 3] = ["requestObject", "responseObject", "annotations"];

/// A path of names, as `a.b.c`. In a name, `\.` is a dot and `\\` is a backslash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventPath {
    /// [`SHAPE_UNWRAP`] and the path.
    shape: String,
    names: Vec<String>,
}

/// Why a text is not a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PathError {
    #[error("has more than {} names or {} bytes", PATH_NAMES_MAX, PATH_BYTES_MAX)]
    Long,
    #[error("has an empty name; names are separated by single dots")]
    EmptyName,
    #[error("has a backslash that is not before a dot or another backslash")]
    Escape,
    #[error("has a control character")]
    Control,
    #[error("begins with {}, {} or {}: clients choose what an audit event has there", BODIES[0], BODIES[1], BODIES[2])]
    Body,
}

impl EventPath {
    /// Parses the text by which a path is configured.
    ///
    /// # Errors
    /// [`PathError`] if `text` is not a path, or one that is not allowed.
    pub fn parse(text: &str) -> Result<EventPath, PathError> {
        if text.len() > PATH_BYTES_MAX {
            return Err(PathError::Long);
        }
        if text.chars().any(char::is_control) {
            return Err(PathError::Control);
        }
        let (mut names, mut name) = (Vec::new(), String::new());
        let mut rest = text.chars();
        loop {
            match rest.next() {
                Some('\\') => match rest.next() {
                    Some(escaped @ ('.' | '\\')) => name.push(escaped),
                    _ => return Err(PathError::Escape),
                },
                Some(character) if character != '.' => name.push(character),
                end => {
                    if name.is_empty() {
                        return Err(PathError::EmptyName);
                    }
                    names.push(std::mem::take(&mut name));
                    if end.is_none() {
                        break;
                    }
                }
            }
        }
        if names.len() > PATH_NAMES_MAX {
            return Err(PathError::Long);
        }
        if names.first().is_some_and(|first| BODIES.contains(&first.as_str())) {
            return Err(PathError::Body);
        }
        Ok(EventPath { shape: format!("{SHAPE_UNWRAP}{text}"), names })
    }

    /// Returns the path in the `shape` of a row; `None` if the row's event was not found by a path.
    pub fn of_shape(shape: &str) -> Option<EventPath> {
        EventPath::parse(shape.strip_prefix(SHAPE_UNWRAP)?).ok()
    }

    /// Returns the `shape` of rows whose events are found by this path.
    pub fn shape(&self) -> &str {
        &self.shape
    }

    pub(crate) fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }
}

impl fmt::Display for EventPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shape.strip_prefix(SHAPE_UNWRAP).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_spelling() {
        for (text, names) in [
            ("a", &["a"][..]),
            ("a.b.c", &["a", "b", "c"]),
            (r"a\.b.c", &["a.b", "c"]),
            (r"a\\.b", &["a\\", "b"]),
            (r"a\\\.b", &["a\\.b"]),
            (" .ä", &[" ", "ä"]),
            ("a.requestObject", &["a", "requestObject"]),
            ("1.2.3.4.5.6.7.8", &["1", "2", "3", "4", "5", "6", "7", "8"]),
        ] {
            let path = EventPath::parse(text).expect(text);
            assert_eq!(path.names().collect::<Vec<_>>(), names, "{text}");
            assert_eq!((path.to_string().as_str(), path.shape()), (text, format!("unwrap:{text}").as_str()));
            assert_eq!(EventPath::of_shape(path.shape()), Some(path));
        }
    }

    #[test]
    fn a_path_is_bounded() {
        let longest = "a".repeat(PATH_BYTES_MAX);
        assert!(EventPath::parse(&longest).is_ok());
        for (text, error) in [
            ("", PathError::EmptyName),
            (".", PathError::EmptyName),
            (".a", PathError::EmptyName),
            ("a.", PathError::EmptyName),
            ("a..b", PathError::EmptyName),
            ("a\\", PathError::Escape),
            ("a\\b", PathError::Escape),
            ("a\nb", PathError::Control),
            ("a\u{85}", PathError::Control),
            ("1.2.3.4.5.6.7.8.9", PathError::Long),
            (&format!("{longest}a"), PathError::Long),
            ("requestObject", PathError::Body),
            ("responseObject.a", PathError::Body),
            ("annotations.x.y", PathError::Body),
        ] {
            assert_eq!(EventPath::parse(text), Err(error), "{text}");
        }
        for shape in ["", "unwrap:", "unwrap:annotations", "a.b", "Unwrap:a"] {
            assert_eq!(EventPath::of_shape(shape), None, "{shape}");
        }
    }
}

//! What a row says about its record: how the record was changed before it was written (a mark), and
//! which parts of it could not be read (faults).
//!
//! Invariant: a [`Redaction`] and a fault each have only one valid text, so parsing a text and
//! writing the result gives the same text. Members of a record are named by JSON pointers (RFC
//! 6901) into the event; values are never repeated. No state.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Maximum number of paths in the two lists of one redaction mark together.
pub const REDACTED_PATHS_MAX: usize = 256;
/// Maximum size of a redaction mark, in bytes.
pub const REDACTION_BYTES_MAX: usize = 64 << 10;
/// Maximum length of a path in a mark or a fault, in bytes.
pub const PATH_BYTES_MAX: usize = 512;
/// Maximum number of faults in one row.
pub const FAULTS_MAX: usize = 64;
/// Maximum number of bytes of a mark that are not paths.
const MARK_HEAD_BYTES: usize = 128;
/// Number of hex digits of a policy's id.
const POLICY_DIGITS: usize = 16;

/// Why a mark is not valid; the error repeats no part of the mark.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum MarkError {
    #[error("the mark is longer than {REDACTION_BYTES_MAX} bytes")]
    TooLong,
    #[error("the mark is not a JSON object of policy, dropped and tokenised in the one valid format")]
    Format,
    #[error("the policy is not {POLICY_DIGITS} lower-case hex digits")]
    Policy,
    #[error("a path is not a JSON pointer of 1 to {PATH_BYTES_MAX} bytes without control characters")]
    Path,
    #[error("the paths are not sorted, or one is repeated")]
    Order,
    #[error("the mark has more than {REDACTED_PATHS_MAX} paths")]
    Count,
}

/// The mark of a record that was changed before it was written: the policy that changed it, and the
/// members that were changed. If no member was changed, only the text around the event was left
/// out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redaction {
    policy: String,
    dropped: Vec<String>,
    tokenised: Vec<String>,
}

impl Redaction {
    /// Makes a mark from the members that `policy` dropped, and the members that it replaced by
    /// tokens; sorts both lists.
    ///
    /// # Errors
    /// [`MarkError`] if the mark would break a rule of the format.
    pub fn new(policy: u64, dropped: Vec<String>, tokenised: Vec<String>) -> Result<Redaction, MarkError> {
        let mut mark = Redaction { policy: format!("{policy:016x}"), dropped, tokenised };
        mark.dropped.sort_unstable();
        mark.tokenised.sort_unstable();
        mark.check()?;
        Ok(mark)
    }

    /// Parses the text of a mark.
    ///
    /// # Errors
    /// [`MarkError`] if the text is not a mark in the one valid format.
    pub fn parse(text: &str) -> Result<Redaction, MarkError> {
        if text.len() > REDACTION_BYTES_MAX {
            return Err(MarkError::TooLong);
        }
        let mark: Redaction = serde_json::from_str(text).map_err(|_| MarkError::Format)?;
        if mark.to_string() != text {
            return Err(MarkError::Format);
        }
        mark.check()?;
        Ok(mark)
    }

    /// Returns the id of the policy, 16 hex digits.
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// Returns the members that were removed.
    pub fn dropped(&self) -> &[String] {
        &self.dropped
    }

    /// Returns the members whose value was replaced by a token.
    pub fn tokenised(&self) -> &[String] {
        &self.tokenised
    }

    fn check(&self) -> Result<(), MarkError> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if self.policy.len() != POLICY_DIGITS || !self.policy.bytes().all(is_digit) {
            return Err(MarkError::Policy);
        }
        let count = self.dropped.len() + self.tokenised.len();
        if count > REDACTED_PATHS_MAX {
            return Err(MarkError::Count);
        }
        let both = || self.dropped.iter().chain(&self.tokenised);
        if both().any(|path| path.is_empty() || !is_path(path)) {
            return Err(MarkError::Path);
        }
        let is_sorted = |paths: &[String]| paths.is_sorted_by(|a, b| a < b);
        if !is_sorted(&self.dropped)
            || !is_sorted(&self.tokenised)
            || self.tokenised.iter().any(|path| self.dropped.binary_search(path).is_ok())
        {
            return Err(MarkError::Order);
        }
        // An escape makes at most two bytes of one, because a path has no control characters.
        let longest = MARK_HEAD_BYTES + both().map(|path| 2 * path.len() + 3).sum::<usize>();
        if longest > REDACTION_BYTES_MAX && self.to_string().len() > REDACTION_BYTES_MAX {
            return Err(MarkError::TooLong);
        }
        Ok(())
    }
}

impl fmt::Display for Redaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

/// Returns true if a text is a JSON pointer that a mark or a fault may have; the empty pointer is
/// the record itself.
fn is_path(path: &str) -> bool {
    let escapes = path.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    (path.is_empty() || path.starts_with('/'))
        && path.len() <= PATH_BYTES_MAX
        && escapes
        && !path.bytes().any(|byte| byte < 0x20 || byte == 0x7f)
}

/// Why a part of an event could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unread {
    /// It is nested too deeply.
    TooDeep,
    /// It is too long.
    TooLong,
    /// Its bytes are not UTF-8.
    NotUtf8,
    /// It is not JSON.
    NotJson,
    /// It is not of the member's type.
    WrongType,
    /// It is not a time.
    NotATime,
    /// It is not one of the levels.
    UnknownLevel,
    /// It is not one of the stages.
    UnknownStage,
    /// The member occurs more than once; the last one counts.
    DuplicateMember,
}

impl Unread {
    pub const ALL: [Unread; 9] = [
        Unread::TooDeep,
        Unread::TooLong,
        Unread::NotUtf8,
        Unread::NotJson,
        Unread::WrongType,
        Unread::NotATime,
        Unread::UnknownLevel,
        Unread::UnknownStage,
        Unread::DuplicateMember,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Unread::TooDeep => "too_deep",
            Unread::TooLong => "too_long",
            Unread::NotUtf8 => "not_utf8",
            Unread::NotJson => "not_json",
            Unread::WrongType => "wrong_type",
            Unread::NotATime => "not_a_time",
            Unread::UnknownLevel => "unknown_level",
            Unread::UnknownStage => "unknown_stage",
            Unread::DuplicateMember => "duplicate_member",
        }
    }
}

/// Returns a fault in the format of the column `faults`: the path of the member, a colon, a space,
/// and the name of the fault.
pub fn fault_text(path: &str, unread: Unread) -> String {
    format!("{path}: {}", unread.as_str())
}

/// Parses the text of a fault, and returns its path and its kind; `None` if the text is not a
/// fault.
pub fn parse_fault(text: &str) -> Option<(&str, Unread)> {
    let (path, name) = text.rsplit_once(": ")?;
    let unread = Unread::ALL.into_iter().find(|unread| unread.as_str() == name)?;
    is_path(path).then_some((path, unread))
}

/// Returns true if the texts may be the faults of a row: from 1 to [`FAULTS_MAX`], each valid and
/// none repeated.
pub fn are_faults<'a>(faults: impl IntoIterator<Item = Option<&'a str>>) -> bool {
    let mut seen = std::collections::HashSet::new();
    let all = faults.into_iter().all(|fault| {
        fault.is_some_and(|fault| {
            seen.len() < FAULTS_MAX && parse_fault(fault).is_some() && seen.insert(fault)
        })
    });
    all && !seen.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_has_one_spelling() {
        let paths = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
        let mark = Redaction::new(
            0xabc,
            paths(&["/requestObject/data/b", "/requestObject/data/a"]),
            paths(&["/user/username"]),
        );
        let text = mark.expect("a mark").to_string();
        assert_eq!(
            text,
            r#"{"policy":"0000000000000abc","dropped":["/requestObject/data/a","/requestObject/data/b"],"tokenised":["/user/username"]}"#
        );
        assert_eq!(Redaction::parse(&text).expect("a mark").to_string(), text);
        let fault = |text: &str| Redaction::parse(text).expect_err(text);
        assert_eq!(fault(&text.replace(":[", ": [")), MarkError::Format);
        assert_eq!(fault(&text.replace("0000abc", "0000ABC")), MarkError::Policy);
        assert_eq!(fault(&text.replace("data/a", "data/c")), MarkError::Order);
        assert_eq!(fault(&text.replace("/user/username", "/requestObject/data/a")), MarkError::Order);
        assert_eq!(fault(&text.replace("/user/username", "user.username")), MarkError::Path);
        assert_eq!(fault(&text.replace("/user/username", "/user~2")), MarkError::Path);
        assert_eq!(fault(&text.replace(r#","tokenised":["/user/username"]"#, "")), MarkError::Format);
        // A mark without members: only the text around the event was left out.
        let alone = r#"{"policy":"0000000000000abc","dropped":[],"tokenised":[]}"#;
        assert_eq!(Redaction::parse(alone).expect("a mark").to_string(), alone);
        let many = (0..=REDACTED_PATHS_MAX).map(|at| format!("/{at}")).collect();
        assert_eq!(Redaction::new(1, many, Vec::new()), Err(MarkError::Count));
    }

    #[test]
    fn faults_are_of_the_closed_list() {
        for unread in Unread::ALL {
            let text = fault_text("/user/extra", unread);
            assert_eq!(parse_fault(&text), Some(("/user/extra", unread)));
        }
        assert_eq!(parse_fault(": too_long"), Some(("", Unread::TooLong)));
        assert_eq!(parse_fault("/a: b: too_long"), Some(("/a: b", Unread::TooLong)));
        for text in ["too_long", "/a:too_long", "a: too_long", "/a: odd", "/a~: too_long", "/\n: too_long"] {
            assert_eq!(parse_fault(text), None, "{text}");
        }
        assert!(are_faults([Some("/stage: unknown_stage"), Some("/level: unknown_level")]));
        assert!(!are_faults([Some("/stage: unknown_stage"), Some("/stage: unknown_stage")]));
        assert!(!are_faults([None]) && !are_faults([]));
        let many: Vec<String> = (0..=FAULTS_MAX).map(|at| format!("/{at}: too_long")).collect();
        assert!(!are_faults(many.iter().map(|fault| Some(fault.as_str()))));
    }
}

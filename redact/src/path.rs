//! Paths of a policy: their syntax, and what each of their steps matches.
//!
//! ```text
//! path  = root { step }
//! step  = "." name | ".*" | ".**" | "[]" | "[" '"' name '"' "]"
//! ```
//!
//! `*` matches any member, `[]` any element, and `**` any number of steps. A `**` at the end
//! matches every value below that is neither an object nor a list. Names are compared without
//! regard to the case of ASCII letters, because a client may misspell `data` as `Data`, and the
//! value is the same.
//!
//! Invariant: an accepted path has exactly one text, that of [`Path::to_string`], and begins with a
//! known root. No state.

use std::fmt;
use std::iter::Peekable;
use std::str::Chars;

use thiserror::Error;

/// Maximum length of a path in a policy, in bytes.
pub const PATH_BYTES_MAX: usize = 512;
/// Maximum number of steps of a path.
pub const PATH_STEPS_MAX: usize = 32;

macro_rules! roots {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A member of an event that a policy may change.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Root {
            $($(#[$doc])* $name,)*
        }

        impl Root {
            pub const ALL: &[Root] = &[$(Root::$name,)*];

            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Root::$name => $text,)*
                }
            }
        }
    };
}

roots! {
    RequestObject = "requestObject",
    ResponseObject = "responseObject",
    Annotations = "annotations",
    StatusMessage = "responseStatus.message",
    StatusDetails = "responseStatus.details",
    UserExtra = "user.extra",
    ImpersonatedUserExtra = "impersonatedUser.extra",
    /// `user.username`, and also `impersonatedUser.username`.
    UserName = "user.username",
    RequestUri = "requestURI",
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of roots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roots(u16);

impl Roots {
    /// The roots in which detectors search, and in which copies of replaced values are searched
    /// for.
    pub(crate) const OF_BODIES: Roots = Roots(
        1 << Root::RequestObject as u16
            | 1 << Root::ResponseObject as u16
            | 1 << Root::Annotations as u16
            | 1 << Root::StatusMessage as u16
            | 1 << Root::StatusDetails as u16,
    );

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn contains(self, root: Root) -> bool {
        self.0 & (1 << root as u16) != 0
    }

    pub fn iter(self) -> impl Iterator<Item = Root> {
        Root::ALL.iter().copied().filter(move |root| self.contains(*root))
    }

    pub(crate) fn add(&mut self, root: Root) {
        self.0 |= 1 << root as u16;
    }

    pub(crate) fn add_all(&mut self, roots: Roots) {
        self.0 |= roots.0;
    }
}

/// One step of a path: from a value to a value inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Name(String),
    AnyMember,
    AnyElement,
    AnyDepth,
}

/// Why a text is not a path.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PathError {
    #[error("does not begin with one of {}", Root::ALL.iter().map(|root| root.as_str()).collect::<Vec<_>>().join(", "))]
    Root,
    #[error(
        "is not a path such as requestObject.data.*, a[].b, a.**.b or a[\"b.c\"]; wrong at character {0}"
    )]
    Syntax(usize),
    #[error("has more than {PATH_BYTES_MAX} bytes or {PATH_STEPS_MAX} steps")]
    TooLong,
    #[error("has ** directly after **")]
    DoubleDepth,
    #[error("{0} has no members that could be named; write {0} alone")]
    NoSteps(Root),
    #[error("names no query parameter; write requestURI.<parameter> or requestURI.*")]
    NoParameter,
}

/// A path of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) root: Root,
    pub(crate) steps: Vec<Step>,
}

impl Path {
    pub(crate) fn parse(text: &str) -> Result<Path, PathError> {
        if text.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong);
        }
        let rest = |root: &Root| {
            let rest = text.strip_prefix(root.as_str())?;
            (rest.is_empty() || rest.starts_with(['.', '['])).then_some((*root, rest))
        };
        let (root, rest) = Root::ALL.iter().find_map(rest).ok_or(PathError::Root)?;
        let steps = steps(rest).map_err(|left| PathError::Syntax(text.chars().count() - left))?;
        if steps.len() > PATH_STEPS_MAX {
            return Err(PathError::TooLong);
        }
        if steps.windows(2).any(|pair| pair == [Step::AnyDepth, Step::AnyDepth]) {
            return Err(PathError::DoubleDepth);
        }
        match root {
            Root::StatusMessage | Root::UserName if !steps.is_empty() => Err(PathError::NoSteps(root)),
            Root::RequestUri if !matches!(steps.as_slice(), [Step::Name(_) | Step::AnyMember]) => {
                Err(PathError::NoParameter)
            }
            _ => Ok(Path { root, steps }),
        }
    }
}

/// Parses the steps after a root. The error is the number of characters that were not parsed.
fn steps(text: &str) -> Result<Vec<Step>, usize> {
    let mut steps = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(first) = rest.next() {
        let left = rest.clone().count() + 1;
        let step = match first {
            '.' => after_dot(&mut rest),
            '[' if rest.next_if_eq(&']').is_some() => Some(Step::AnyElement),
            '[' => quoted(&mut rest),
            _ => None,
        };
        steps.push(step.ok_or(left)?);
    }
    Ok(steps)
}

fn after_dot(rest: &mut Peekable<Chars<'_>>) -> Option<Step> {
    let mut name = String::new();
    while let Some(next) = rest.next_if(|next| !matches!(next, '.' | '[')) {
        name.push(next);
    }
    match name.as_str() {
        "*" => Some(Step::AnyMember),
        "**" => Some(Step::AnyDepth),
        _ if name.is_empty() || name.contains(['*', ']', '"']) => None,
        _ => Some(Step::Name(name)),
    }
}

fn quoted(rest: &mut Peekable<Chars<'_>>) -> Option<Step> {
    rest.next_if_eq(&'"')?;
    let mut name = String::new();
    loop {
        match rest.next()? {
            '"' => break,
            '\\' => name.push(rest.next_if(|next| matches!(next, '"' | '\\'))?),
            other => name.push(other),
        }
    }
    rest.next_if_eq(&']')?;
    Some(Step::Name(name))
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.root.as_str())?;
        self.steps.iter().try_for_each(|step| match step {
            Step::AnyMember => f.write_str(".*"),
            Step::AnyElement => f.write_str("[]"),
            Step::AnyDepth => f.write_str(".**"),
            Step::Name(name) if name.is_empty() || name.contains(['.', '[', ']', '*', '"', '\\']) => {
                write!(f, "[\"{}\"]", name.replace('\\', "\\\\").replace('"', "\\\""))
            }
            Step::Name(name) => write!(f, ".{name}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_one_text() {
        for text in [
            "requestObject",
            "requestObject.data.*",
            "responseObject.items[].spec.ssn",
            "responseObject[].a",
            "requestObject.**.password",
            "requestObject.spec.**",
            r#"annotations["a.b/c"]"#,
            r#"requestObject["a\"b\\c"].d"#,
            r#"requestObject[""]"#,
            "responseStatus.message",
            "responseStatus.details.causes[].message",
            "user.extra.*[]",
            "impersonatedUser.extra",
            "user.username",
            "requestURI.command",
            "requestURI.*",
        ] {
            assert_eq!(Path::parse(text).expect(text).to_string(), text);
        }
        assert_eq!(
            Path::parse(r#"requestObject["data"]"#).expect("a path").to_string(),
            "requestObject.data"
        );
    }

    #[test]
    fn what_is_no_path_is_refused() {
        let error = |text: &str| Path::parse(text).expect_err(text);
        for text in
            ["", "data", "requestObjects", "user", "user.groups", "responseStatus.code", "objectRef.name"]
        {
            assert_eq!(error(text), PathError::Root, "{text}");
        }
        for (text, at) in [
            ("requestObject.", 13),
            ("requestObject.a..b", 15),
            ("requestObject.a*", 13),
            ("requestObject.***", 13),
            ("requestObject[0]", 13),
            ("requestObject[]a", 15),
            ("requestObject[\"a]", 13),
            ("requestObject[\"a\\n\"]", 13),
            ("requestObject.a]", 13),
        ] {
            assert_eq!(error(text), PathError::Syntax(at), "{text}");
        }
        assert_eq!(error("requestObject.**.**"), PathError::DoubleDepth);
        assert_eq!(error("user.username.a"), PathError::NoSteps(Root::UserName));
        for text in ["requestURI", "requestURI.a.b", "requestURI[]", "requestURI.**"] {
            assert_eq!(error(text), PathError::NoParameter, "{text}");
        }
        assert_eq!(error(&format!("requestObject.{}", "a".repeat(500))), PathError::TooLong);
        assert_eq!(error(&format!("requestObject{}", "[]".repeat(33))), PathError::TooLong);
    }
}

//! The fields of `audit.k8s.io/v1` `Event` whose values are a closed set: `level` and `stage`
//! (k8s.io/apiserver `pkg/apis/audit/v1/types.go`).
//!
//! Invariant: a parsed value belongs to its closed set. `verb` and `resource` stay strings, as in
//! the Go type, because custom resources and non-resource requests have other values. No state.

use thiserror::Error;

/// How much of a request the audit policy asked to record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

/// The stage of a request that an event describes.
///
/// `ResponseStarted` appears only for long-running requests (watch, exec, attach, port-forward, log
/// follow) and may be the only event of such a request for hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

/// A value outside a closed set, with the values in the set.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{field} \"{value}\" is not one of {expected}")]
pub struct UnknownValue {
    pub field: &'static str,
    pub value: String,
    pub expected: &'static str,
}

impl Level {
    pub const ALL: [Level; 4] = [Level::None, Level::Metadata, Level::Request, Level::RequestResponse];

    pub const fn as_str(self) -> &'static str {
        match self {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        }
    }
}

impl Stage {
    pub const ALL: [Stage; 4] =
        [Stage::RequestReceived, Stage::ResponseStarted, Stage::ResponseComplete, Stage::Panic];

    pub const fn as_str(self) -> &'static str {
        match self {
            Stage::RequestReceived => "RequestReceived",
            Stage::ResponseStarted => "ResponseStarted",
            Stage::ResponseComplete => "ResponseComplete",
            Stage::Panic => "Panic",
        }
    }
}

impl std::str::FromStr for Level {
    type Err = UnknownValue;

    fn from_str(value: &str) -> Result<Self, UnknownValue> {
        Level::ALL.into_iter().find(|level| level.as_str() == value).ok_or_else(|| UnknownValue {
            field: "level",
            value: shorten(value),
            expected: "None, Metadata, Request, RequestResponse",
        })
    }
}

impl std::str::FromStr for Stage {
    type Err = UnknownValue;

    fn from_str(value: &str) -> Result<Self, UnknownValue> {
        Stage::ALL.into_iter().find(|stage| stage.as_str() == value).ok_or_else(|| UnknownValue {
            field: "stage",
            value: shorten(value),
            expected: "RequestReceived, ResponseStarted, ResponseComplete, Panic",
        })
    }
}

/// Maximum number of characters of an unknown value that an error repeats.
const VALUE_CHARS_MAX: usize = 64;

fn shorten(value: &str) -> String {
    value.chars().take(VALUE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for level in Level::ALL {
            assert_eq!(level.as_str().parse(), Ok(level));
        }
        for stage in Stage::ALL {
            assert_eq!(stage.as_str().parse(), Ok(stage));
        }
    }

    #[test]
    fn unknown_values_name_the_known_ones() {
        let error = "ResponseDone".parse::<Stage>().expect_err("not a stage");
        assert_eq!(
            error.to_string(),
            "stage \"ResponseDone\" is not one of RequestReceived, ResponseStarted, ResponseComplete, Panic"
        );
        assert!("x".repeat(9_999).parse::<Level>().expect_err("not a level").value.len() <= VALUE_CHARS_MAX);
    }
}

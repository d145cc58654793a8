//! Finds out from an event how its request ended, and whether the request was a dry run.
//!
//! Invariant: rules and views share one meaning of success, that of [`Answer::outcome`]. A request
//! counts as a dry run only if `dryRun` makes the API server store nothing. No state.
//!
//! | what is known | outcome |
//! |---|---|
//! | stage `RequestReceived` | none yet |
//! | no resource, annotation `authentication.openshift.io/decision`: `allow` | success |
//! | no resource, that annotation: `deny`, `error` | failure |
//! | stage `Panic`, or authorization decision `forbid` | failure |
//! | response code of 400 or more | failure |
//! | response code from 100 to 399 | success |
//! | no code, status `Failure` | failure |
//! | no code, status `Success` | success |
//! | no code, decision `allow`, stage `ResponseStarted`, `ResponseComplete` or absent | success |
//! | none of these | unknown |
//!
//! The first line that applies decides. A code below 100 counts as no code.

use serde::{Deserialize, Serialize};

/// The result of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Success,
    Failure,
    /// The request was answered, but the event does not say how.
    Unknown,
}

impl Outcome {
    pub const ALL: [Outcome; 3] = [Outcome::Success, Outcome::Failure, Outcome::Unknown];

    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Success => "success",
            Outcome::Failure => "failure",
            Outcome::Unknown => "unknown",
        }
    }
}

/// The annotation in which OpenShift's OAuth server says how a login ended: `allow`, `deny` or
/// `error`. The response code does not say how, because the answer to a refused login is the login
/// page. A login is not a request for a resource. In the event of a request for a resource, this
/// annotation says nothing, because whoever may create an admission policy or webhook can write it.
pub const LOGIN_DECISION: &str = "authentication.openshift.io/decision";

/// The smallest response code; the API server and the clouds write 0 for no code.
const CODE_MIN: i32 = 100;
/// The smallest response code of a request that failed.
pub const CODE_FAILURE_MIN: i32 = 400;

/// The parts of an event that say how its request ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer<'a> {
    pub stage: Option<&'a str>,
    pub response_code: Option<i32>,
    pub response_status: Option<&'a str>,
    pub authz_decision: Option<&'a str>,
    pub resource: Option<&'a str>,
    /// Value of the annotation [`LOGIN_DECISION`].
    pub login_decision: Option<&'a str>,
}

impl Answer<'_> {
    /// Returns the outcome of the request; `None` before it is answered.
    pub fn outcome(&self) -> Option<Outcome> {
        use Outcome::{Failure, Success, Unknown};
        if self.stage == Some("RequestReceived") {
            return None;
        }
        let login = match self.login_decision.filter(|_| self.resource.is_none()) {
            Some("allow") => Some(Success),
            Some("deny" | "error") => Some(Failure),
            _ => None,
        };
        let refused = self.stage == Some("Panic") || self.authz_decision == Some("forbid");
        let code = self.response_code.filter(|code| *code >= CODE_MIN);
        Some(match (login, code, self.response_status) {
            (Some(login), ..) => login,
            _ if refused => Failure,
            (_, Some(code), _) => {
                if code >= CODE_FAILURE_MIN {
                    Failure
                } else {
                    Success
                }
            }
            (_, None, Some("Failure")) => Failure,
            (_, None, Some("Success")) => Success,
            _ => match (self.authz_decision, self.stage) {
                (Some("allow"), None | Some("ResponseStarted" | "ResponseComplete")) => Success,
                _ => Unknown,
            },
        })
    }
}

/// Verbs of requests that may be dry runs if their URI asks for one. The body of a deletion, if
/// there is one, decides in place of the URI, so a URI never makes a deletion a dry run.
const DRY_VERBS: [&str; 3] = ["create", "patch", "update"];

/// Subresources that the API server stores. All others may ignore `dryRun`: `exec`, `attach`,
/// `portforward` and `proxy` act on what runs, and `token` answers with a token.
const DRY_SUBRESOURCES: [&str; 8] =
    ["approval", "binding", "ephemeralcontainers", "eviction", "finalize", "resize", "scale", "status"];

/// API groups whose resources are not stored, because a request for one asks a question.
const ANSWERING_GROUPS: [&str; 2] = ["authentication.k8s.io", "authorization.k8s.io"];

/// End of the names of OpenShift's API groups. OpenShift's API server passes some requests on
/// without their options, so that a dry run there may store an object.
const OPENSHIFT_GROUPS: &str = ".openshift.io";

/// Returns true if a URI asks for a dry run: `dryRun=All` in its query.
pub fn asks_dry_run(uri: &str) -> bool {
    let Some((_, query)) = uri.split_once('?') else { return false };
    query.split('&').any(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        is_form_encoded(key, "dryRun") && is_form_encoded(value, "All")
    })
}

/// Returns true if `encoded` is the form encoding of an ASCII text without spaces.
fn is_form_encoded(encoded: &str, text: &str) -> bool {
    let hex = |byte: u8| char::from(byte).to_digit(16);
    let mut rest = encoded.as_bytes();
    for expected in text.bytes() {
        let (byte, after) = match *rest {
            [b'%', high, low, ref after @ ..] => match (hex(high), hex(low)) {
                (Some(high), Some(low)) => ((high * 16 + low) as u8, after),
                _ => return false,
            },
            [byte, ref after @ ..] => (byte, after),
            [] => return false,
        };
        if byte != expected {
            return false;
        }
        rest = after;
    }
    rest.is_empty()
}

/// Returns true if the API server obeys a URI that asks for a dry run, so that the request changes
/// nothing. A request for which the API server ignores `dryRun` is never a dry run; otherwise a
/// client could hide it by adding `dryRun`.
pub fn obeys_dry_run(
    verb: Option<&str>,
    api_group: Option<&str>,
    resource: Option<&str>,
    subresource: Option<&str>,
) -> bool {
    verb.is_some_and(|verb| DRY_VERBS.contains(&verb))
        && resource.is_some()
        && subresource.is_none_or(|subresource| DRY_SUBRESOURCES.contains(&subresource))
        && api_group
            .is_none_or(|group| !ANSWERING_GROUPS.contains(&group) && !group.ends_with(OPENSHIFT_GROUPS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_outcomes() {
        use Outcome::{Failure, Success, Unknown};
        let none = Answer::default();
        let complete = Answer { stage: Some("ResponseComplete"), ..none };
        let allowed = Answer { authz_decision: Some("allow"), ..complete };
        let code = |code| Answer { response_code: Some(code), ..complete };
        let login =
            |decision, code| Answer { login_decision: Some(decision), response_code: Some(code), ..allowed };
        for (answer, expected) in [
            (Answer { stage: Some("RequestReceived"), ..allowed }, None),
            (Answer { stage: Some("RequestReceived"), response_code: Some(500), ..none }, None),
            (code(100), Some(Success)),
            (code(101), Some(Success)),
            (code(201), Some(Success)),
            (code(399), Some(Success)),
            (code(400), Some(Failure)),
            (code(404), Some(Failure)),
            (code(409), Some(Failure)),
            (code(599), Some(Failure)),
            (code(0), Some(Unknown)),
            (code(-1), Some(Unknown)),
            (code(99), Some(Unknown)),
            (login("allow", 302), Some(Success)),
            (login("allow", 500), Some(Success)),
            (login("deny", 200), Some(Failure)),
            (login("error", 302), Some(Failure)),
            (login("other", 302), Some(Success)),
            (Answer { resource: Some("pods"), ..login("deny", 201) }, Some(Success)),
            (Answer { resource: Some("pods"), ..login("allow", 403) }, Some(Failure)),
            (Answer { authz_decision: Some("forbid"), ..code(200) }, Some(Failure)),
            (Answer { authz_decision: Some("forbid"), ..none }, Some(Failure)),
            (Answer { stage: Some("Panic"), ..allowed }, Some(Failure)),
            (Answer { stage: Some("Panic"), ..code(200) }, Some(Failure)),
            (Answer { response_status: Some("Failure"), ..allowed }, Some(Failure)),
            (Answer { response_status: Some("Failure"), ..code(0) }, Some(Failure)),
            (Answer { response_status: Some("Failure"), ..code(200) }, Some(Success)),
            (Answer { response_status: Some("Success"), ..complete }, Some(Success)),
            (
                Answer { response_status: Some("Success"), authz_decision: Some("forbid"), ..none },
                Some(Failure),
            ),
            (allowed, Some(Success)),
            (Answer { stage: Some("ResponseStarted"), ..allowed }, Some(Success)),
            (Answer { stage: None, ..allowed }, Some(Success)),
            (Answer { stage: Some("Paused"), ..allowed }, Some(Unknown)),
            (complete, Some(Unknown)),
            (none, Some(Unknown)),
        ] {
            assert_eq!(answer.outcome(), expected, "{answer:?}");
        }
    }

    #[test]
    fn a_dry_run_is_asked_for_in_the_query() {
        for uri in [
            "/api/v1/pods?dryRun=All",
            "/api/v1/pods?fieldManager=x&dryRun=All",
            "/api/v1/pods?dryRun=All&dryRun=All",
            "/api/v1/pods?%64ryRun=%41ll",
        ] {
            assert!(asks_dry_run(uri), "{uri}");
        }
        for uri in [
            "/api/v1/pods",
            "/api/v1/pods?dryRun=",
            "/api/v1/pods?dryRun",
            "/api/v1/pods?dryRun=all",
            "/api/v1/pods?dryRun=Alles",
            "/api/v1/pods?dryrun=All",
            "/api/v1/pods?xdryRun=All",
            "/api/v1/pods?fieldManager=dryRun=All",
            "/api/v1/pods/dryRun=All",
            "/api/v1/pods?dryRun=Al%",
            "/api/v1/pods?dryRun=Al%6",
        ] {
            assert!(!asks_dry_run(uri), "{uri}");
        }
    }

    #[test]
    fn requests_that_ignore_a_dry_run_are_none() {
        let obeys =
            |verb, group, resource, subresource| obeys_dry_run(Some(verb), group, resource, subresource);
        let (apps, pods) = (Some("apps"), Some("pods"));
        assert!(obeys("create", None, pods, None));
        assert!(obeys("patch", apps, Some("deployments"), Some("scale")));
        assert!(obeys("update", None, Some("nodes"), Some("status")));
        assert!(!obeys("create", None, pods, Some("exec")));
        assert!(!obeys("create", None, pods, Some("portforward")));
        assert!(!obeys("create", None, Some("nodes"), Some("proxy")));
        assert!(!obeys("create", None, Some("serviceaccounts"), Some("token")));
        assert!(!obeys("get", None, Some("secrets"), None));
        assert!(!obeys("delete", None, pods, None));
        assert!(!obeys("deletecollection", None, pods, None));
        assert!(!obeys("create", Some("authorization.k8s.io"), Some("selfsubjectaccessreviews"), None));
        assert!(!obeys("create", None, None, None));
        assert!(!obeys_dry_run(None, None, pods, None));
    }
}

//! Failed requests to an object store: what the store answered, and whether a retry can help.
//!
//! Invariants: a failure names a status, a code and the store's own message, never a header, a body
//! or any part of a request, so no credential can reach a log. Tries are bounded in number and in
//! time.

use std::future::Future;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use thiserror::Error;

/// Maximum number of tries of one request, the first included.
const TRIES_MAX: u32 = 10;
/// Pause after the first try; the pause doubles after each further try.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause between two tries. All pauses together are some twenty seconds.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Maximum number of characters of the store's own message that an error repeats.
const MESSAGE_CHARS_MAX: usize = 300;

/// Why a request to a store failed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum S3Error {
    #[error("the store answered {code} (HTTP {status}){}{message}", if message.is_empty() { "" } else { ": " })]
    Refused { status: u16, code: String, message: String },
    #[error("the store gave no answer within {} s", timeout.as_secs_f64())]
    Timeout { timeout: Duration },
    #[error("cannot reach the store: {detail}")]
    Unreachable { detail: String },
    #[error("cannot build the request: {detail}")]
    Request { detail: String },
    #[error("the store's answer is incomplete or malformed: {detail}")]
    Answer { detail: String },
    #[error("the store has other content under this name")]
    Differs,
    #[error("{bytes} bytes exceed the limit of one PUT")]
    TooBig { bytes: u64 },
}

impl S3Error {
    /// Converts the failure of an SDK operation.
    pub fn of<E: ProvideErrorMetadata + std::error::Error + 'static>(
        error: &SdkError<E, HttpResponse>,
    ) -> S3Error {
        match error {
            SdkError::ServiceError(refused) => {
                let status = refused.raw().status().as_u16();
                let code = refused.err().code().unwrap_or(code_of(status));
                let message = refused.err().message().unwrap_or_default();
                S3Error::Refused {
                    status,
                    code: code.to_owned(),
                    message: message.chars().take(MESSAGE_CHARS_MAX).collect(),
                }
            }
            SdkError::ResponseError(answer) => match answer.raw().status().as_u16() {
                status @ 200..300 => S3Error::Answer { detail: format!("HTTP {status}") },
                status => {
                    S3Error::Refused { status, code: code_of(status).to_owned(), message: String::new() }
                }
            },
            SdkError::DispatchFailure(failure)
                if failure.is_io() || failure.is_timeout() || failure.as_other().is_some() =>
            {
                S3Error::Unreachable { detail: innermost(error) }
            }
            SdkError::TimeoutError(_) => S3Error::Unreachable { detail: innermost(error) },
            _ => S3Error::Request { detail: innermost(error) },
        }
    }

    /// Returns the [`S3Error`] that an I/O error was made from; `None` if the I/O error has another
    /// cause.
    pub fn within(error: &std::io::Error) -> Option<&S3Error> {
        error.get_ref()?.downcast_ref()
    }

    /// Returns what the user can do about it, if anything.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            failure if failure.is_bucket_missing() => Some("`strongroom archive init` creates the bucket"),
            failure if failure.is_denied() => {
                Some("`strongroom archive init` prints the permissions that the credentials need")
            }
            S3Error::Request { .. } => {
                Some("credentials come from where AWS tools look for them, first AWS_ACCESS_KEY_ID")
            }
            S3Error::Unreachable { .. } | S3Error::Timeout { .. } => {
                Some("check that STRONGROOM_S3_ENDPOINT is right and the store is running")
            }
            _ => None,
        }
    }

    fn status(&self) -> Option<u16> {
        match self {
            S3Error::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// True if the requested object, or the requested setting of the bucket, does not exist.
    pub fn is_missing(&self) -> bool {
        self.status() == Some(404) && !self.is_bucket_missing()
    }

    /// True if the bucket does not exist.
    pub fn is_bucket_missing(&self) -> bool {
        matches!(self, S3Error::Refused { code, .. } if code == "NoSuchBucket")
    }

    /// True if a PUT was refused because an object with its name exists already.
    pub fn is_present(&self) -> bool {
        self.status() == Some(412)
    }

    /// True if the store understood the request, but does not allow it.
    pub fn is_denied(&self) -> bool {
        matches!(self.status(), Some(401 | 403))
    }

    /// Whether a retry can help.
    fn is_transient(&self) -> bool {
        match self {
            S3Error::Refused { status, code, .. } => {
                matches!(status, 429 | 500..=599) && *status != 501
                    || matches!(
                        code.as_str(),
                        // Another writer is putting the same name, or the store was too busy to
                        // read the request.
                        "ConditionalRequestConflict" | "OperationAborted" | "RequestTimeout" | "SlowDown"
                    )
            }
            S3Error::Timeout { .. } | S3Error::Unreachable { .. } | S3Error::Answer { .. } => true,
            S3Error::Request { .. } | S3Error::Differs | S3Error::TooBig { .. } => false,
        }
    }
}

impl From<S3Error> for std::io::Error {
    fn from(failure: S3Error) -> Self {
        use std::io::ErrorKind;
        let kind = match &failure {
            failure if failure.is_missing() => ErrorKind::NotFound,
            failure if failure.is_denied() => ErrorKind::PermissionDenied,
            S3Error::Timeout { .. } => ErrorKind::TimedOut,
            _ => ErrorKind::Other,
        };
        std::io::Error::new(kind, failure)
    }
}

/// Returns a code for an answer that does not state one. An answer to HEAD has no body, and the
/// code would be in the body.
fn code_of(status: u16) -> &'static str {
    match status {
        404 => "NotFound",
        403 => "AccessDenied",
        412 => "PreconditionFailed",
        _ => "no code",
    }
}

/// Returns the text of the last cause of `error`. The last cause says what went wrong; the earlier
/// ones only say that something did.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string().chars().take(MESSAGE_CHARS_MAX).collect()
}

/// Counts the tries of one request.
#[derive(Debug)]
pub struct Tries {
    timeout: Duration,
    made: u32,
    /// True if an earlier try may have succeeded although its answer was lost or was an error.
    pub maybe_done: bool,
}

impl Tries {
    /// `timeout` is the limit of each try.
    pub fn new(timeout: Duration) -> Self {
        Tries { timeout, made: 0, maybe_done: false }
    }

    /// Makes one try and returns its outcome. If the try failed and a retry can help, waits for the
    /// pause before the next try and returns `None`.
    pub async fn once<T>(
        &mut self,
        request: impl Future<Output = Result<T, S3Error>>,
    ) -> Option<Result<T, S3Error>> {
        self.made += 1;
        let answer = tokio::time::timeout(self.timeout, request).await;
        let failure = match answer {
            Ok(Ok(answer)) => return Some(Ok(answer)),
            Ok(Err(failure)) => failure,
            Err(_) => S3Error::Timeout { timeout: self.timeout },
        };
        if !failure.is_transient() || self.made >= TRIES_MAX {
            return Some(Err(failure));
        }
        self.maybe_done = true;
        tokio::time::sleep(pause(self.made)).await;
        None
    }
}

/// Repeats a request, which must be safe to repeat, until it succeeds, a retry cannot help, or no
/// try is left.
pub async fn repeat<T, F: Future<Output = Result<T, S3Error>>>(
    timeout: Duration,
    request: impl Fn() -> F,
) -> Result<T, S3Error> {
    let mut tries = Tries::new(timeout);
    loop {
        if let Some(answer) = tries.once(request()).await {
            return answer;
        }
    }
}

/// Returns the pause after `made` tries: half of it is random, so that writers that collided once
/// do not collide again.
pub fn pause(made: u32) -> Duration {
    let longest = PAUSE_MIN.saturating_mul(1 << made.saturating_sub(1).min(16)).min(PAUSE_MAX);
    let chance = RandomState::new().hash_one(made) % 1000;
    longest / 2 + longest.mul_f64(chance as f64 / 2000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, code: &str) -> S3Error {
        S3Error::Refused { status, code: code.to_owned(), message: String::new() }
    }

    #[test]
    fn only_what_can_pass_is_tried_again() {
        for (status, code) in
            [(500, "InternalError"), (503, "SlowDown"), (409, "ConditionalRequestConflict"), (429, "x")]
        {
            assert!(refused(status, code).is_transient(), "{status} {code}");
        }
        for (status, code) in
            [(412, "PreconditionFailed"), (403, "AccessDenied"), (404, "NoSuchKey"), (409, "BucketExists")]
        {
            assert!(!refused(status, code).is_transient(), "{status} {code}");
        }
    }

    #[test]
    fn pauses_grow_and_end() {
        for made in 1..100 {
            assert!(pause(made) <= PAUSE_MAX && pause(made) >= PAUSE_MIN / 2, "{made}");
        }
    }
}

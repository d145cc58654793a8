//! Decides from an HTTP answer whether an alert was taken, is refused, or is sent again.
//!
//! Invariant: an alert is refused only if the status says that the alert itself is at fault. After
//! every other failure the alert is sent again later, so a wrong setting loses no alert. No state.

use super::Outcome;
use super::http::{Answer, Http};

/// Returns the outcome of an alert from the status of the answer alone.
pub(super) fn judge(http: &Http, answer: &Result<Answer, String>) -> Outcome {
    let answer = match answer {
        Ok(answer) => answer,
        Err(reason) => return Outcome::later(reason.clone()),
    };
    let shown = http.shown(answer);
    match answer.status.as_u16() {
        200..=299 => Outcome::Taken,
        408 | 425 | 429 | 500..=599 => Outcome::Later { reason: shown, after: answer.retry_after },
        401 | 403 | 407 => Outcome::later(format!("{shown}: check the credentials")),
        // The address is wrong, or the receiver has moved; the alert is not at fault.
        300..=399 | 404 | 405 | 410 => Outcome::later(format!("{shown}: check the URL")),
        _ => Outcome::Refused { reason: shown },
    }
}

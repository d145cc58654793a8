//! The difference between the store's clock and ours. The difference matters because we compute the
//! end of a retention with our clock, and the store decides with its own clock when the retention
//! has ended.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use chrono::{DateTime, Utc};

/// The `Date` of an answer, and our own time when it arrived.
#[derive(Clone, Debug, Default)]
pub(super) struct DateSeen(Arc<Mutex<Option<Dates>>>);

#[derive(Clone, Copy, Debug)]
struct Dates {
    theirs: DateTime<Utc>,
    ours: DateTime<Utc>,
}

impl DateSeen {
    /// Two handles to one value: one to read, one to pass to a request.
    pub(super) fn new() -> (DateSeen, DateSeen) {
        let seen = DateSeen::default();
        (seen.clone(), seen)
    }

    pub(super) fn seconds_ahead(&self) -> Option<i64> {
        let seen = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.map(|Dates { theirs, ours }| (theirs - ours).num_seconds())
    }
}

impl Intercept for DateSeen {
    fn name(&self) -> &'static str {
        "DateSeen"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        let date = date.and_then(|date| DateTime::parse_from_rfc2822(date).ok());
        let dates = date.map(|date| Dates { theirs: date.to_utc(), ours: Utc::now() });
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = dates;
        Ok(())
    }
}
